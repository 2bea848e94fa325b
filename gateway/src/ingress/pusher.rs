//! Pusher clients: `/app/{key}`. A browser does not see the status of a refused handshake, so a client that
//! is refused is let in, told why, and closed with the protocol's code.

use std::{borrow::Cow, rc::Rc, sync::Arc, time::Duration};

use broadgate_port::linger;
use broadgate_pusher::{
    Compat,
    close::{self, PusherClose},
    outgoing,
};
use broadgate_topics::NotPresent;
use http::Request;
use hyper::{body::Incoming, upgrade::Upgraded};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::{
    admission::Full,
    apps::App,
    codec::encode::{close_frame, text_frame},
    ingress::{
        asked::{ParsedRequest, check_prefix},
        target::RequestTarget,
        upgrade,
        visit::{self, HttpAnswer, Visit},
    },
    shard::{Candidate, Newcomer, PusherTenant, Stream},
};

/// How long a refused client may take to read why.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(2);

/// Why a client is sent away.
struct Away {
    /// For the counter of refusals.
    reason: &'static str,
    close: PusherClose,
    /// The error's text.
    text: Cow<'static, str>,
    app: String,
}

impl Away {
    fn new(reason: &'static str, close: PusherClose, app: Option<&App>) -> Self {
        let app = app.map(|app| app.id.clone()).unwrap_or_default();
        Self { reason, close, text: close.reason.into(), app }
    }

    fn saying(self, text: String) -> Self {
        Self { text: text.into(), ..self }
    }
}

pub(super) async fn answer(
    visit: &Rc<Visit>,
    asked: &ParsedRequest,
    mut request: Request<Incoming>,
    full: Option<Full>,
) -> HttpAnswer {
    let ws_key = match upgrade::websocket_key(visit, asked, &request) {
        Ok(key) => key,
        Err(answer) => return answer,
    };
    let peer = asked.address;
    let admitted = admit(visit, asked, &request, full).and_then(|tenant| {
        let app = Arc::clone(&tenant.app);
        let away = |reason, close| Away::new(reason, close, Some(&app));
        let port = &visit.connection.port;
        let seat = port.admission.admit_to(&app.id, app.connections_here_max());
        let mut newcomer = Newcomer {
            listener: Arc::clone(&visit.connection.listener),
            app: tenant.app.id.as_str().into(),
            service: "".into(),
            address: peer,
            handshake: upgrade::handshake(visit, peer, &request),
            pusher: Some((tenant, seat.ok_or_else(|| away("connections_max", close::OVER_QUOTA))?)),
            socketio: None,
        };
        let candidate = Candidate::new(&port.shard, &mut newcomer);
        let candidate = candidate.ok_or_else(|| away("clients_max", close::OVER_CAPACITY))?;
        let limit = app.connections_max;
        let place = (limit > 0).then(|| port.places.claim(&app.id, limit));
        Ok((candidate, newcomer, place.map(|place| (place, app))))
    });
    if let Err(away) = &admitted {
        asked.refused(&visit.connection, away.reason, &away.app, &away.text);
    }
    let upgraded = hyper::upgrade::on(&mut request);
    let (visit, asked) = (Rc::clone(visit), asked.clone());
    // The client's future must not carry the request with it for life.
    broadgate_tasks::spawn_local("handshake", async move {
        let upgraded = match upgraded.await {
            Ok(upgraded) => upgraded,
            Err(error) => return asked.refused(&visit.connection, "http", "", &error.to_string()),
        };
        let admitted = match admitted {
            Ok((candidate, newcomer, Some((place, app)))) => {
                let homes =
                    visit.connection.port.dispatcher.upgrade().map(|dispatcher| dispatcher.homes.clone());
                let granted = match homes {
                    Some(homes) => homes.granted(place.claim()).await,
                    // The gateway stops.
                    None => Err(NotPresent::Undecided),
                };
                let refused = match granted {
                    Ok(()) => None,
                    Err(NotPresent::Full) => Some(("connections_max", close::OVER_QUOTA)),
                    Err(NotPresent::Undecided) => Some(("connections_unknown", close::OVER_CAPACITY)),
                };
                if let Some((reason, close)) = refused {
                    asked.refused(&visit.connection, reason, &app.id, close.reason);
                    Err(Away::new(reason, close, Some(&app)))
                } else {
                    candidate.hold(place);
                    Ok((candidate, newcomer))
                }
            }
            Ok((candidate, newcomer, None)) => Ok((candidate, newcomer)),
            Err(away) => Err(away),
        };
        match admitted {
            Ok((candidate, newcomer)) => {
                upgrade::open(&visit, candidate, upgraded, newcomer.handshake, None);
            }
            Err(away) => {
                // It counts until it is gone.
                let _ticket = visit.ticket.take();
                send_away(upgraded, away).await;
            }
        }
    });
    upgrade::switching(&ws_key)
}

/// Whose client this is, and whether it may come in.
fn admit(
    visit: &Visit,
    asked: &ParsedRequest,
    request: &Request<Incoming>,
    full: Option<Full>,
) -> Result<Rc<PusherTenant>, Away> {
    let port = &visit.connection.port;
    let key = if let RequestTarget::Key(key) = &asked.target.place { key } else { "" };
    let table = port.config.apps.load();
    let (app, _) = table.by_key(key).ok_or_else(|| Away::new("key", close::NO_APP, None))?;
    let away = |reason, close| Away::new(reason, close, Some(app));
    check_prefix(&asked.target.prefix, app)
        .map_err(|sentence| away("path_prefix", close::NO_APP).saying(sentence))?;
    if !app.enabled {
        return Err(away("disabled", close::DISABLED));
    }
    let query = request.uri().query().unwrap_or_default();
    close::check_protocol(query.split('&').find_map(|pair| pair.strip_prefix("protocol=")))
        .map_err(|close| away("protocol_version", close))?;
    // TLS ends at a proxy, which says so.
    if app.tls_only && !asked.tls {
        return Err(away("tls_only", close::TLS_ONLY));
    }
    if !app.lets_in(&asked.origin) {
        let sentence = upgrade::foreign_origin(&asked.origin);
        return Err(away("origin", close::UNAUTHORIZED).saying(sentence));
    }
    if let Some(full) = full {
        return Err(away(full.reason(), close::OVER_CAPACITY));
    }
    if port.stopping.closing.is_cancelled() {
        return Err(away("stopping", close::RECONNECT));
    }
    Ok(port.shard.borrow_mut().tenants.of(app))
}

/// Both the error and the code: clients of protocols below 6 read the error.
async fn send_away(upgraded: Upgraded, Away { close, text, .. }: Away) {
    let error = outgoing::error(Some(close.code), &text, Compat::Pusher);
    let bytes = [text_frame(&error), close_frame(close.code, &text)].concat();
    match visit::upgraded(upgraded) {
        Some((Stream::Tcp(stream), _)) => last_words(stream, &bytes).await,
        Some((Stream::Tls(stream), _)) => last_words(stream, &bytes).await,
        None => {}
    }
}

async fn last_words(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) {
    let last = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    if let Ok(Ok(())) = tokio::time::timeout(FAREWELL_TIME_MAX, last).await {
        linger(stream).await;
    }
}
