//! HTTP on the client port: the WebSocket upgrade, the configured pages, and errors as JSON.

use std::{cell::Cell, convert::Infallible, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::{Connection, backend, pusher, refused, upgrade};
use crate::admission::{Admitted, Full as NoRoom};

pub(super) type Answer = Response<Full<Bytes>>;

/// When a refused client may try again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(5);

/// One connection's requests. The admission goes over to the client if it becomes one.
pub(super) struct Visit {
    pub(super) connection: Connection,
    pub(super) admitted: Cell<Option<Admitted>>,
    pub(super) full: Option<NoRoom>,
}

impl Visit {
    /// Counts the connection for the client that a request comes from.
    pub(super) fn belongs_to(&self, ip: std::net::IpAddr) -> Result<(), NoRoom> {
        let mut admitted = self.admitted.take();
        let counted = admitted.as_mut().map_or(Ok(()), |admitted| admitted.belongs_to(ip));
        self.admitted.set(admitted);
        counted
    }
}

pub(super) async fn serve(connection: Connection, stream: TcpStream, admitted: Result<Admitted, NoRoom>) {
    let limits = &connection.port.config.settings.limits;
    let handshake_time_max = limits.handshake_time_max;
    let peer = connection.peer;
    let full = admitted.as_ref().err().copied();
    let visit = Rc::new(Visit { connection, admitted: Cell::new(admitted.ok()), full });
    let service = service_fn(move |request| {
        let visit = Rc::clone(&visit);
        async move { Ok::<_, Infallible>(answer(&visit, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(handshake_time_max)
        .max_buf_size(broadgate_proto::limits::HANDSHAKE_BYTES_MAX)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        let reason = if error.is_timeout() { "handshake_time_max" } else { "http" };
        refused(reason, peer, &error.to_string());
    }
}

async fn answer(visit: &Rc<Visit>, request: Request<Incoming>) -> Answer {
    // Before the keys: an app may have the id "app".
    if backend::split(request.uri().path()).is_some() {
        return backend::answer(visit, request).await;
    }
    if pusher::key_of(request.uri().path()).is_some() {
        return pusher::answer(visit, request).await;
    }
    if let Some(full) = visit.full {
        return no_room(full, visit.connection.peer);
    }
    let path = request.uri().path();
    if path == "/ws" || path.starts_with("/ws/") {
        return upgrade::answer(visit, request).await;
    }
    let page = visit.connection.port.config.pages.iter().find(|page| page.path == path);
    match page {
        Some(page) if request.method() == Method::GET || request.method() == Method::HEAD => {
            let mut answer = Response::new(Full::new(Bytes::from_static(page.body)));
            let headers = answer.headers_mut();
            headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(page.content_type));
            headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache"));
            headers.insert(
                header::CONTENT_SECURITY_POLICY,
                header::HeaderValue::from_static(
                    "default-src 'self' 'unsafe-inline'; connect-src 'self' ws: wss:; img-src 'self' data:",
                ),
            );
            answer
        }
        Some(_) => error(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here"),
        None => {
            error(StatusCode::NOT_FOUND, "nothing is here: WebSocket clients connect to /ws or /ws/{app}")
        }
    }
}

pub(super) fn error(status: StatusCode, sentence: &str) -> Answer {
    let body = serde_json::json!({ "error": sentence }).to_string();
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    answer
}

pub(super) fn no_room(full: NoRoom, peer: std::net::SocketAddr) -> Answer {
    let sentence = match full {
        NoRoom::Gateway => "the gateway holds as many connections as it may",
        NoRoom::Address => "your address has as many connections as it may",
    };
    refused(full.reason(), peer, sentence);
    unavailable(sentence)
}

pub(super) fn unavailable(sentence: &str) -> Answer {
    let mut answer = error(StatusCode::SERVICE_UNAVAILABLE, sentence);
    answer.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER.as_secs().into());
    answer
}
