//! Pusher clients: `/app/{key}`. A browser is not told the status of a refused handshake, so whoever is
//! refused is let in, told why, and closed with the protocol's code.

use std::{rc::Rc, sync::Arc, time::Duration};

use broadgate_port::linger;
use http::{HeaderMap, Request, header};
use hyper::{body::Incoming, upgrade::Upgraded};
use tokio::io::AsyncWriteExt as _;

use super::{
    http::{Answer, Served, Visit},
    is_trusted, refused, upgrade,
};
use crate::{
    admission::Full,
    codec::encode::{close_frame, text_frame},
    pusher::{
        Compat,
        close::{self, Close},
        outgoing,
    },
    shard::{Candidate, Newcomer, Tenant},
};

/// How long a refused client may take to read why.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(2);

/// The key of a Pusher client's path; what stands before `/app/` is a prefix that a proxy has left.
pub(super) fn key_of(path: &str) -> Option<(&str, &str)> {
    let (prefix, key) = path.rsplit_once("/app/")?;
    let key = key.strip_suffix('/').unwrap_or(key);
    (!key.is_empty() && !key.contains('/')).then_some((prefix, key))
}

pub(super) async fn answer(visit: &Rc<Visit>, mut request: Request<Incoming>, full: Option<Full>) -> Answer {
    let ws_key = match upgrade::websocket_key(visit, &request) {
        Ok(key) => key,
        Err(answer) => return answer,
    };
    let peer = upgrade::client_address(visit, request.headers());
    let admitted = admit(visit, &request, full).and_then(|tenant| {
        let seat =
            visit.connection.port.admission.admit_to(&tenant.app.id, tenant.app.connections_here_max());
        let mut newcomer = Newcomer {
            listener: Arc::clone(&visit.connection.listener),
            app: tenant.app.id.as_str().into(),
            service: "".into(),
            address: peer,
            handshake: upgrade::handshake(visit, peer, &request),
            pusher: Some((tenant, seat.ok_or(close::OVER_QUOTA)?)),
        };
        let candidate =
            Candidate::new(&visit.connection.port.shard, &mut newcomer).ok_or(close::OVER_CAPACITY)?;
        Ok((candidate, newcomer))
    });
    let upgraded = hyper::upgrade::on(&mut request);
    let visit = Rc::clone(visit);
    // The client's future must not carry the request with it for life.
    tokio::task::spawn_local(async move {
        let upgraded = match upgraded.await {
            Ok(upgraded) => upgraded,
            Err(error) => return refused("http", peer, &error.to_string()),
        };
        match admitted {
            Ok((candidate, newcomer)) => {
                upgrade::open(&visit, candidate, upgraded, newcomer.handshake, None);
            }
            Err(close) => {
                refused("pusher", peer, close.reason);
                // It counts until it is gone.
                let _ticket = visit.ticket.take();
                send_away(upgraded, close).await;
            }
        }
    });
    upgrade::switching(&ws_key)
}

/// Whose client this is, and whether it may come in.
fn admit(visit: &Visit, request: &Request<Incoming>, full: Option<Full>) -> Result<Rc<Tenant>, Close> {
    let port = &visit.connection.port;
    let (prefix, key) = key_of(request.uri().path()).ok_or(close::NO_APP)?;
    let table = port.config.apps.load();
    let (app, _) = table.by_key(key).ok_or(close::NO_APP)?;
    if !prefix.is_empty() && prefix != app.path_prefix {
        return Err(close::NO_APP);
    }
    if !app.enabled {
        return Err(close::DISABLED);
    }
    let query = request.uri().query().unwrap_or_default();
    close::check_protocol(query.split('&').find_map(|pair| pair.strip_prefix("protocol=")))?;
    if app.tls_only && !came_by_tls(visit, request.headers()) {
        return Err(close::TLS_ONLY);
    }
    let origin = request.headers().get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    if !app.lets_in(origin.unwrap_or_default()) {
        return Err(close::UNAUTHORIZED);
    }
    if full.is_some() {
        return Err(close::OVER_CAPACITY);
    }
    if port.stopping.closing.is_cancelled() {
        return Err(close::RECONNECT);
    }
    Ok(port.shard.borrow_mut().tenant(app))
}

/// TLS ends at a proxy, which says so.
fn came_by_tls(visit: &Visit, headers: &HeaderMap) -> bool {
    let connection = &visit.connection;
    let proto = headers.get("x-forwarded-proto").and_then(|proto| proto.to_str().ok());
    is_trusted(&connection.listener.trusted_proxies, connection.peer.ip())
        && proto.is_some_and(|proto| proto.eq_ignore_ascii_case("https") || proto.eq_ignore_ascii_case("wss"))
}

/// Both the error and the code: clients of protocols below 6 read the error.
async fn send_away(upgraded: Upgraded, close: Close) {
    let Ok(parts) = upgraded.downcast::<Served>() else { return };
    let mut stream = parts.io.into_inner().into_inner();
    let error = outgoing::error(Some(close.code), close.reason, Compat::Pusher);
    let bytes = [text_frame(&error), close_frame(close.code, close.reason)].concat();
    if let Ok(Ok(())) = tokio::time::timeout(FAREWELL_TIME_MAX, stream.write_all(&bytes)).await {
        linger(stream).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_stand_behind_a_prefix() {
        assert_eq!(key_of("/app/abc"), Some(("", "abc")));
        assert_eq!(key_of("/x/app/abc/"), Some(("/x", "abc")));
        for path in ["/app/", "/app", "/app/a/b", "/apps/1/events"] {
            assert_eq!(key_of(path), None, "{path}");
        }
    }
}
