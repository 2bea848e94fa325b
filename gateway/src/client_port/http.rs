//! HTTP on the client port: the WebSocket upgrade, the configured pages, and errors as JSON.

use std::{cell::Cell, convert::Infallible, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::{
    Connection,
    asked::{Asked, check_host, nothing_at},
    backend, pusher,
    target::Place,
    upgrade,
};
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
    let full = admitted.as_ref().err().copied();
    let visit = Rc::new(Visit { connection, admitted: Cell::new(admitted.ok()), full });
    let of_requests = Rc::clone(&visit);
    let service = service_fn(move |request| {
        let visit = Rc::clone(&of_requests);
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
        visit.connection.refused(reason, &error.to_string());
    }
}

async fn answer(visit: &Rc<Visit>, request: Request<Incoming>) -> Answer {
    let asked = Asked::read(&visit.connection, &request);
    if let Err(sentence) = check_host(request.version(), request.headers()) {
        return asked.answer(&visit.connection, ("host", ""), StatusCode::BAD_REQUEST, sentence);
    }
    match &asked.target.place {
        Place::Up | Place::Api(_) => backend::answer(visit, &asked, request).await,
        Place::Key(_) => pusher::answer(visit, &asked, request).await,
        Place::Raw(_) | Place::Page(_) if let Some(full) = visit.full => no_room(visit, &asked, full),
        Place::Raw(_) => upgrade::answer(visit, &asked, request).await,
        Place::Page(path) => page(visit, &asked, path, request.method()),
    }
}

fn page(visit: &Visit, asked: &Asked, path: &str, method: &Method) -> Answer {
    let connection = &visit.connection;
    let page = connection.port.config.pages.iter().find(|page| page.path == path);
    match page {
        Some(page) if method == Method::GET || method == Method::HEAD => {
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
            let sentence = nothing_at(path, &connection.port.config.apps.load());
            asked.answer(connection, ("path", ""), StatusCode::NOT_FOUND, &sentence)
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

pub(super) fn no_room(visit: &Visit, asked: &Asked, full: NoRoom) -> Answer {
    asked.refused(&visit.connection, full.reason(), "", full.sentence());
    unavailable(full.sentence())
}

pub(super) fn unavailable(sentence: &str) -> Answer {
    let mut answer = error(StatusCode::SERVICE_UNAVAILABLE, sentence);
    answer.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER.as_secs().into());
    answer
}
