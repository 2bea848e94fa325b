//! Socket.IO clients: `/socket.io/`. Polling is answered without state, as far as clients need it to go over to
//! a WebSocket: see `broadgate_socketio::polling`.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use broadgate_proto::limits::{SOCKETIO_POLL_TIME, SOCKETIO_POST_BYTES_MAX};
use broadgate_pusher::api::params::Params;
use broadgate_socketio::{
    engine::{self, EngineVersion},
    outgoing,
    polling::{self, POSTED, PollingAnswer, PollingRefusal, PollingRequest},
    sid,
};
use broadgate_topics::NotPresent;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use metrics::counter;

use crate::{
    apps::{App, AppTable},
    ingress::{
        asked::{ParsedRequest, check_prefix, has_token},
        target::RequestTarget,
        upgrade,
        visit::{HttpAnswer, Visit, error, unavailable},
    },
    shard::{Candidate, Newcomer, SocketIoClient, open_packet},
};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=UTF-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Other servers have their client library here.
const NO_SCRIPT: &str = "this server does not serve the client library: let your site serve dist/socket.io.js of the \
    npm package socket.io-client";

/// Of clients that never come over.
const ONLY_POLLING: &str = "the client goes on polling, and asks for no WebSocket: its transports are polling alone, or \
    a proxy on its way lets no WebSocket through";

pub(super) async fn answer(
    visit: &Rc<Visit>,
    asked: &ParsedRequest,
    request: Request<Incoming>,
) -> HttpAnswer {
    if let RequestTarget::SocketIo(file) = &asked.target.place
        && file.ends_with(".js")
    {
        return asked.answer(&visit.connection, ("path", ""), StatusCode::NOT_FOUND, NO_SCRIPT);
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    let wanted = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let is_upgrade = has_token(request.headers(), header::UPGRADE, "websocket");
    let mut answer = match app_of(visit, asked, &request) {
        Ok(app) => {
            let mut answer = answer_for(visit, asked, request, &app).await;
            allow_origin(answer.headers_mut(), origin, wanted);
            answer
        }
        Err((reason, why)) => {
            asked.refused(&visit.connection, reason, "", &why);
            refusal(PollingRefusal::Forbidden, is_upgrade)
        }
    };
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// The app of a request, if it may have this client.
fn app_of(
    visit: &Visit,
    asked: &ParsedRequest,
    request: &Request<Incoming>,
) -> Result<Arc<App>, (&'static str, String)> {
    let table = visit.connection.port.config.apps.load();
    let in_path = if let RequestTarget::SocketIo(key) = &asked.target.place { key } else { "" };
    let params = Params::parse_bounded(request.uri().query().unwrap_or_default()).unwrap_or_default();
    let key = if in_path.is_empty() { params.get("key").unwrap_or_default() } else { in_path };
    let app = find_app(&table, key, &visit.connection.listener.app)?;
    check_prefix(&asked.target.prefix, app).map_err(|sentence| ("path_prefix", sentence))?;
    if !app.socketio {
        let why = format!("app {:?} has no Socket.IO clients: set socketio = true", app.id);
        return Err(("app", why));
    }
    if !app.enabled {
        return Err(("disabled", format!("app {:?} is disabled", app.id)));
    }
    if app.tls_only && !asked.tls {
        return Err(("tls_only", format!("app {:?} takes clients by TLS only", app.id)));
    }
    if !app.lets_in(&asked.origin) {
        return Err(("origin", upgrade::foreign_origin(&asked.origin)));
    }
    Ok(Arc::clone(app))
}

/// By a key, if the client has one: Echo sends none by itself. Otherwise the listener's app, or the only one that
/// has Socket.IO clients.
fn find_app<'a>(
    table: &'a AppTable,
    key: &str,
    of_listener: &str,
) -> Result<&'a Arc<App>, (&'static str, String)> {
    if !key.is_empty() {
        let (app, _) = table.by_key(key).ok_or_else(|| ("key", "no app has this key".to_owned()))?;
        return Ok(app);
    }
    if let Some(app) = table.by_id(of_listener).filter(|app| app.socketio) {
        return Ok(app);
    }
    let mut apps = table.iter().filter(|app| app.socketio);
    match (apps.next(), apps.next()) {
        (Some(app), None) => Ok(app),
        (None, _) => Err(("app", "no app has Socket.IO clients: set socketio = true in one".to_owned())),
        (Some(_), Some(_)) => {
            let why =
                "several apps have Socket.IO clients: let the client connect with ?key= and the key of one";
            Err(("app", why.to_owned()))
        }
    }
}

async fn answer_for(
    visit: &Rc<Visit>,
    asked: &ParsedRequest,
    request: Request<Incoming>,
    app: &Arc<App>,
) -> HttpAnswer {
    let connection = &visit.connection;
    let is_upgrade = has_token(request.headers(), header::UPGRADE, "websocket");
    let Ok(params) = Params::parse_bounded(request.uri().query().unwrap_or_default()) else {
        let refused = PollingRefusal::BadRequest;
        asked.refused(connection, "socketio", &app.id, &refused.to_string());
        return refusal(refused, is_upgrade);
    };
    let method = request.method().as_str().to_owned();
    let decided =
        polling::decide(PollingRequest { method: &method, params: &params, is_upgrade, now: now() });
    let begins = matches!(decided, PollingAnswer::Open(_) | PollingAnswer::Upgrade { .. });
    if begins && connection.port.stopping.closing.is_cancelled() {
        asked.refused(connection, "stopping", &app.id, "the gateway stops");
        return unavailable("this gateway stops: connect again to reach another one");
    }
    match decided {
        PollingAnswer::Open(version) => open(version, app),
        PollingAnswer::Posted => match drop_body(request.into_body()).await {
            Ok(()) => content(HTML, POSTED.to_owned()),
            Err(()) => {
                asked.refused(connection, "body", &app.id, "the body is too long, or ended too early");
                error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long")
            }
        },
        PollingAnswer::Noop(payload) => {
            tokio::time::sleep(SOCKETIO_POLL_TIME).await;
            content(TEXT, payload)
        }
        PollingAnswer::Preflight => {
            let mut answer = Response::new(Full::default());
            *answer.status_mut() = StatusCode::NO_CONTENT;
            answer
        }
        PollingAnswer::Upgrade { version, sid } => {
            let issued = sid.and_then(|sid| sid::parse(&sid)).map(|client| client.key);
            come_in(visit, asked, request, app, (version, issued)).await
        }
        PollingAnswer::Refuse(refused @ PollingRefusal::OnlyPolling) => {
            asked.refused(connection, "socketio_polling", &app.id, ONLY_POLLING);
            refusal(refused, is_upgrade)
        }
        PollingAnswer::Refuse(refused) => {
            asked.refused(connection, "socketio", &app.id, &refused.to_string());
            refusal(refused, is_upgrade)
        }
    }
}

/// By the wall clock: ids are issued by any gateway.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn open(version: EngineVersion, app: &App) -> HttpAnswer {
    // Without randomness ids could be guessed.
    let Ok(random) = getrandom::u64() else { return unavailable("no random number for an id") };
    counter!("broadgate_gateway_socketio_handshakes_total", "step" => "polling").increment(1);
    let sid = sid::fresh(random, now());
    let packet = outgoing::open(open_packet(version, &sid, true, app.limits.message_bytes_max()));
    content(TEXT, engine::payload(version, &[&packet]))
}

/// Reads a body to its end, and keeps nothing of it.
async fn drop_body(mut body: Incoming) -> Result<(), ()> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(()) };
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > SOCKETIO_POST_BYTES_MAX {
            return Err(());
        }
    }
    Ok(())
}

/// The client becomes one of the shard.
async fn come_in(
    visit: &Rc<Visit>,
    asked: &ParsedRequest,
    mut request: Request<Incoming>,
    app: &Arc<App>,
    (version, issued): (EngineVersion, Option<u64>),
) -> HttpAnswer {
    let ws_key = match upgrade::websocket_key(visit, asked, &request) {
        Ok(key) => key,
        Err(answer) => return answer,
    };
    let port = &visit.connection.port;
    let refuse = |reason, why: &str| {
        asked.refused(&visit.connection, reason, &app.id, why);
        unavailable(why)
    };
    let Some(place_here) = port.admission.admit_to(&app.id, app.connections_here_max()) else {
        return refuse("connections_max", "the app has as many connections as it may have");
    };
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let socketio = SocketIoClient::new(version, issued, text(header::COOKIE), &asked.origin);
    let tenant = port.shard.borrow_mut().tenants.of(app);
    let mut newcomer = Newcomer {
        listener: Arc::clone(&visit.connection.listener),
        app: app.id.as_str().into(),
        service: "".into(),
        address: asked.address,
        handshake: upgrade::handshake(visit, asked.address, &request),
        pusher: Some((tenant, place_here)),
        socketio: Some(socketio),
    };
    let Some(candidate) = Candidate::new(&port.shard, &mut newcomer) else {
        return refuse("clients_max", "the gateway holds as many clients as it may");
    };
    if app.connections_max > 0 {
        let place = port.places.claim(&app.id, app.connections_max);
        let homes = port.dispatcher.upgrade().map(|dispatcher| dispatcher.homes.clone());
        let granted = match homes {
            Some(homes) => homes.granted(place.claim()).await,
            // The gateway stops.
            None => Err(NotPresent::Undecided),
        };
        match granted {
            Ok(()) => {}
            Err(NotPresent::Full) => {
                return refuse("connections_max", "the app has as many connections as it may have");
            }
            Err(NotPresent::Undecided) => {
                return refuse(
                    "connections_unknown",
                    "nobody knows how many connections the app has: try again",
                );
            }
        }
        candidate.hold(place);
    }
    let step = if issued.is_some() { "upgrade" } else { "websocket" };
    counter!("broadgate_gateway_socketio_handshakes_total", "step" => step).increment(1);
    let upgraded = hyper::upgrade::on(&mut request);
    let (visit, asked) = (Rc::clone(visit), asked.clone());
    // The client's future must not carry the request with it for life.
    broadgate_tasks::spawn_local("handshake", async move {
        match upgraded.await {
            Ok(upgraded) => upgrade::open(&visit, candidate, upgraded, newcomer.handshake, None),
            Err(error) => asked.refused(&visit.connection, "http", "", &error.to_string()),
        }
    });
    upgrade::switching(&ws_key)
}

/// Pages of other origins may send these requests, with their cookies. That this origin may is known.
fn allow_origin(headers: &mut HeaderMap, origin: Option<HeaderValue>, wanted: Option<HeaderValue>) {
    let Some(origin) = origin else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(wanted) = wanted {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
}

fn content(content_type: HeaderValue, body: String) -> HttpAnswer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    answer.headers_mut().insert(header::CONTENT_TYPE, content_type);
    answer
}

fn refusal(refused: PollingRefusal, is_upgrade: bool) -> HttpAnswer {
    let mut answer = content(JSON, refused.body());
    *answer.status_mut() =
        StatusCode::from_u16(refused.status(is_upgrade)).unwrap_or(StatusCode::BAD_REQUEST);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::{KeyPair, KeySecret};

    fn app(id: &str, key: &str, socketio: bool) -> App {
        let keys = vec![KeyPair { key: key.into(), secret: KeySecret::new("s"), secret_file: None }];
        App { keys, socketio, ..App::new(id) }
    }

    #[test]
    fn an_app_is_found_without_a_key_if_it_is_the_only_one() {
        let table = |apps| AppTable::new(apps).unwrap();
        let one = table(vec![app("a", "k1", true), app("b", "k2", false)]);
        let found = |table: &AppTable, key: &str, listener: &str| {
            find_app(table, key, listener).map(|app| app.id.clone()).map_err(|(reason, _)| reason)
        };
        assert_eq!(found(&one, "", "default"), Ok("a".to_owned()));
        assert_eq!(found(&one, "", "b"), Ok("a".to_owned()), "the listener's app has none");
        assert_eq!(found(&one, "k2", "a"), Ok("b".to_owned()), "refused later");
        assert_eq!(found(&one, "k3", "a"), Err("key"));
        let two = table(vec![app("a", "k1", true), app("b", "k2", true)]);
        assert_eq!(found(&two, "", "default"), Err("app"));
        assert_eq!((found(&two, "", "b"), found(&two, "k1", "b")), (Ok("b".into()), Ok("a".into())));
        assert_eq!(found(&table(vec![app("a", "k1", false)]), "", "a"), Err("app"));
    }
}
