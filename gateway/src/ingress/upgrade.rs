//! The WebSocket handshake (RFC 6455 section 4.2): who may come in, into which app, and the change
//! from an HTTP connection to a client of the shard.

#![allow(clippy::result_large_err, reason = "a refusal is an HTTP answer, and is made once")]

use std::{rc::Rc, sync::Arc};

use broadgate_proto::{name, v1};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, upgrade::Upgraded};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    apps::App,
    config::{Authorize, Listener},
    ingress::{
        asked::{ParsedRequest, check_prefix, check_upgrade},
        target::RequestTarget,
        visit::{self, HttpAnswer, Visit, unavailable},
    },
    shard::{Candidate, Newcomer},
};

pub(super) async fn answer(
    visit: &Rc<Visit>,
    asked: &ParsedRequest,
    mut request: Request<Incoming>,
) -> HttpAnswer {
    let connection = &visit.connection;
    let (key, mut newcomer) = match check(visit, asked, &request) {
        Ok(checked) => checked,
        Err(answer) => return answer,
    };
    let Some(candidate) = Candidate::new(&connection.port.shard, &mut newcomer) else {
        asked.refused(connection, "clients_max", &newcomer.app, "the shard is full");
        return unavailable("the gateway has its maximum number of clients");
    };
    let accept = match authorize(&candidate, &newcomer).await {
        Ok(accept) => accept,
        Err((reason, answer)) => {
            let why =
                if reason == "worker" { "a worker refused the client" } else { "no worker decided in time" };
            asked.refused(connection, reason, &newcomer.app, why);
            return answer;
        }
    };
    let mut answer = switching(&key);
    let headers = answer.headers_mut();
    if let Some(chosen) =
        accept.as_ref().map(|accept| accept.subprotocol.as_str()).filter(|chosen| !chosen.is_empty())
        && let (true, Ok(value)) = (offers(request.headers(), chosen), HeaderValue::from_str(chosen))
    {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    let upgraded = hyper::upgrade::on(&mut request);
    let (visit, asked) = (Rc::clone(visit), asked.clone());
    // The client's future must not carry the request with it for life.
    broadgate_tasks::spawn_local("handshake", async move {
        match upgraded.await {
            Ok(upgraded) => open(&visit, candidate, upgraded, newcomer.handshake, accept),
            Err(error) => asked.refused(&visit.connection, "http", "", &error.to_string()),
        }
    });
    answer
}

/// The answer after which both speak WebSocket.
pub(super) fn switching(key: &str) -> HttpAnswer {
    let mut answer = HttpAnswer::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accepted) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
    }
    answer
}

pub(super) fn open(
    visit: &Visit,
    candidate: Candidate,
    upgraded: Upgraded,
    handshake: v1::Handshake,
    accept: Option<v1::Accept>,
) {
    if let Some((stream, read)) = visit::upgraded(upgraded) {
        candidate.open(stream, &read, visit.ticket.take(), handshake, accept);
    }
}

/// What every WebSocket handshake must have (RFC 6455 section 4.2.1); the value of its key.
pub(super) fn websocket_key(
    visit: &Visit,
    asked: &ParsedRequest,
    request: &Request<Incoming>,
) -> Result<String, HttpAnswer> {
    let headers = request.headers();
    let fail = |status, sentence: &str| asked.answer(&visit.connection, ("upgrade", ""), status, sentence);
    if request.method() != Method::GET {
        return Err(fail(StatusCode::METHOD_NOT_ALLOWED, "a WebSocket handshake is a GET request"));
    }
    if let Err((status, sentence)) = check_upgrade(request.version(), headers) {
        let mut answer = fail(status, sentence);
        answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        return Err(answer);
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut answer = fail(StatusCode::UPGRADE_REQUIRED, "only WebSocket version 13 is supported");
        answer.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(answer);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).unwrap_or_default();
    if key.len() != 24 || !key.ends_with("==") {
        return Err(fail(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64"));
    }
    Ok(key.to_owned())
}

/// Everything that can be said without a worker.
fn check(
    visit: &Visit,
    asked: &ParsedRequest,
    request: &Request<Incoming>,
) -> Result<(String, Newcomer), HttpAnswer> {
    let connection = &visit.connection;
    let listener = &connection.listener;
    let (app, service) = app_of(visit, listener, asked).map_err(|sentence| {
        let named = if let RequestTarget::Raw(app) = &asked.target.place { app } else { "" };
        asked.answer(connection, ("app", named), StatusCode::NOT_FOUND, &sentence)
    })?;
    let key = websocket_key(visit, asked, request)?;
    if !app.lets_in(&asked.origin) {
        let sentence = foreign_origin(&asked.origin);
        return Err(asked.answer(connection, ("origin", &app.id), StatusCode::FORBIDDEN, &sentence));
    }
    let peer = asked.address;
    let newcomer = Newcomer {
        listener: Arc::clone(listener),
        app: app.id.as_str().into(),
        service: service.as_str().into(),
        address: peer,
        handshake: handshake(visit, peer, request),
        pusher: None,
        socketio: None,
    };
    Ok((key, newcomer))
}

/// What is said to a client whose page's origin may not connect.
pub(super) fn foreign_origin(origin: &str) -> String {
    if origin.is_empty() {
        return "no Origin was sent, and this app admits only pages of its origins".to_owned();
    }
    format!("the origin {:?} may not connect: add it to the app's origins", broadgate_pusher::shown(origin))
}

/// The app and service of a path: `/ws` is the listener's app.
fn app_of(visit: &Visit, listener: &Listener, asked: &ParsedRequest) -> Result<(Arc<App>, String), String> {
    let named = if let RequestTarget::Raw(named) = &asked.target.place { named } else { "" };
    let id = if named.is_empty() { &listener.app } else { named };
    name::check("app", id).map_err(|error| error.to_string())?;
    match visit.connection.port.config.apps.load().by_id(id) {
        Some(app) if app.raw && app.enabled => {
            // An app without keys has no prefix of its own: any that some app has will do.
            if !app.path_prefix.is_empty() {
                check_prefix(&asked.target.prefix, app)?;
            }
            let service = app.service.clone().unwrap_or_else(|| listener.service.clone());
            Ok((Arc::clone(app), service))
        }
        Some(app) if app.raw => Err(format!(
            "app {id:?} is disabled: leave `enabled = false` out of its [[apps]] entry to let clients in"
        )),
        _ => Err(format!(
            "app {id:?} takes no raw WebSocket clients here: set `raw = true` in its [[apps]] entry to let them in"
        )),
    }
}

type RefusedBy = (&'static str, HttpAnswer);

async fn authorize(candidate: &Candidate, newcomer: &Newcomer) -> Result<Option<v1::Accept>, RefusedBy> {
    use v1::decision::Decision;
    if newcomer.listener.authorize == Authorize::None {
        return Ok(None);
    }
    match candidate.ask(newcomer.handshake.clone()).await {
        Some(Decision::Accept(accept)) => Ok(Some(accept)),
        Some(Decision::Refuse(refuse)) => {
            let status = u16::try_from(refuse.status).ok().filter(|status| (400..600).contains(status));
            let status =
                status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::FORBIDDEN);
            let mut answer = HttpAnswer::new(Full::new(refuse.body.into()));
            *answer.status_mut() = status;
            Err(("worker", answer))
        }
        None => Err(("no_worker", unavailable("no worker decided about the handshake in time"))),
    }
}

pub(super) fn handshake(
    visit: &Visit,
    peer: std::net::SocketAddr,
    request: &Request<Incoming>,
) -> v1::Handshake {
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| v1::Header {
            name: name.as_str().to_owned(),
            value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
        })
        .collect();
    let socket_peer = visit.connection.socket_peer;
    v1::Handshake {
        address: peer.to_string(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        headers,
        proxy: if socket_peer == peer { String::new() } else { socket_peer.to_string() },
    }
}

fn offers(headers: &HeaderMap, chosen: &str) -> bool {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim() == chosen)
}
