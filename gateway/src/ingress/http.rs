//! HTTP on the client port: the WebSocket upgrade, the configured pages, and errors as JSON.

use std::{cell::Cell, convert::Infallible, pin::pin, rc::Rc, sync::Arc};

use broadgate_port::{ConnectionPhase, ConnectionWatch, Guarded, Times};
use broadgate_proto::limits::{ANSWER_TIME_MAX, FAREWELL_TIME_MAX, HANDSHAKE_BYTES_MAX};
use broadgate_pusher::api::echo_server;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    admission::{ConnectionTicket, Full as NoRoom},
    config::GatewayLimits,
    ingress::{
        asked::{ParsedRequest, check_host, nothing_at},
        port::Connection,
        pusher, pusher_api, socketio,
        target::RequestTarget,
        upgrade,
        visit::{HttpAnswer, Visit, error, unavailable},
    },
};

pub(super) fn times(limits: &GatewayLimits) -> Times {
    Times {
        first_byte: limits.first_byte_time_max,
        head: limits.handshake_time_max,
        exchange: limits.handshake_time_max + limits.hold_time_max + ANSWER_TIME_MAX,
        idle: limits.keep_alive_time_max,
        ..Times::default()
    }
}

/// Serves a connection. `watch` has been under way since its first byte could come.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    connection: Connection,
    stream: S,
    ticket: ConnectionTicket,
    full: Option<NoRoom>,
    watch: Arc<ConnectionWatch>,
) {
    let port = Rc::clone(&connection.port);
    if full.is_some() {
        watch.end_within(FAREWELL_TIME_MAX);
    }
    let io = TokioIo::new(Guarded::new(stream, Arc::clone(&watch)));
    let ticket = Cell::new(Some(ticket));
    let visit = Rc::new(Visit { connection, ticket, full, watch: Arc::clone(&watch) });
    let of_requests = Rc::clone(&visit);
    let service = service_fn(move |request| {
        let visit = Rc::clone(&of_requests);
        async move {
            visit.watch.serving();
            let answer = answer(&visit, request).await;
            visit.watch.answering();
            Ok::<_, Infallible>(answer)
        }
    });
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            // The watch's deadlines take its place.
            .header_read_timeout(None)
            .max_buf_size(HANDSHAKE_BYTES_MAX)
            .half_close(false)
            .serve_connection(io, service)
            .with_upgrades()
    );
    let mut overdue = watch.overdue();
    let mut closing = pin!(port.stopping.closing.cancelled());
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            served = serving.as_mut() => {
                if let Err(error) = served {
                    visit.connection.refused("http", &error.to_string());
                }
                return;
            }
            () = &mut closing, if open => {
                open = false;
                match watch.phase() {
                    ConnectionPhase::Idle => serving.as_mut().graceful_shutdown(),
                    // hyper would close these unanswered.
                    ConnectionPhase::First | ConnectionPhase::Head => {
                        let drain = port.config.settings.stop.drain;
                        watch.end_within(FAREWELL_TIME_MAX.min(drain / 2));
                    }
                    // The answer says that it is the last one.
                    _ => {}
                }
            }
            () = &mut overdue => {
                if !matches!(watch.phase(), ConnectionPhase::Idle | ConnectionPhase::Closing) {
                    visit.connection.refused(watch.reason(), "the connection took too long");
                }
                return;
            }
        }
    }
}

/// The answer to a request, with what it means for the connection.
async fn answer(visit: &Rc<Visit>, request: Request<Incoming>) -> HttpAnswer {
    let mut answer = answer_to(visit, request).await;
    let status = answer.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return answer;
    }
    if visit.connection.by_proxy() {
        visit.belongs_to_no_client();
    }
    let stopping = visit.connection.port.stopping.draining.is_cancelled();
    if visit.full.is_some() || stopping || status.is_client_error() || status.is_server_error() {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

async fn answer_to(visit: &Rc<Visit>, request: Request<Incoming>) -> HttpAnswer {
    let connection = &visit.connection;
    let asked = ParsedRequest::read(connection, &request);
    if let Err(sentence) = check_host(request.version(), request.headers()) {
        return asked.answer(connection, ("host", ""), StatusCode::BAD_REQUEST, sentence);
    }
    let full = visit.full.or_else(|| visit.belongs_to(asked.address.ip()).err());
    match (&asked.target.place, full) {
        // Also when the gateway is full: probes ask whether it is alive, not whether it has room.
        (RequestTarget::Up, _) => pusher_api::answer(visit, &asked, request).await,
        (RequestTarget::Key(_), full) => pusher::answer(visit, &asked, request, full).await,
        (_, Some(full)) => no_room(visit, &asked, full),
        (RequestTarget::Api(_), None) => pusher_api::answer(visit, &asked, request).await,
        (RequestTarget::Ably(channel), None) => {
            pusher_api::ably::answer(visit, &asked, request, channel).await
        }
        (RequestTarget::SocketIo(_), None) => socketio::answer(visit, &asked, request).await,
        (RequestTarget::Raw(_), None) if connection.port.stopping.closing.is_cancelled() => {
            asked.refused(connection, "stopping", "", "the gateway is stopping");
            unavailable("this gateway is stopping: reconnect to reach another one")
        }
        (RequestTarget::Raw(_), None) => upgrade::answer(visit, &asked, request).await,
        (RequestTarget::Page(path), None) => page(visit, &asked, path, request.method()),
    }
}

fn page(visit: &Visit, asked: &ParsedRequest, path: &str, method: &Method) -> HttpAnswer {
    let connection = &visit.connection;
    let is_read = method == Method::GET || method == Method::HEAD;
    let page = connection.port.config.pages.iter().find(|page| page.path == path);
    match page {
        Some(page) if is_read => {
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
        // laravel-echo-server's health check, at which its users' probes look.
        None if path == "/"
            && is_read
            && connection.port.config.apps.load().iter().any(|app| app.socketio) =>
        {
            let ready = connection.port.health.is_ready();
            if ready { plain(echo_server::ROOT) } else { unavailable("not in a view as ready") }
        }
        None => {
            let sentence = nothing_at(path, &connection.port.config.apps.load());
            asked.answer(connection, ("path", ""), StatusCode::NOT_FOUND, &sentence)
        }
    }
}

fn plain(text: &'static str) -> HttpAnswer {
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

pub(super) fn no_room(visit: &Visit, asked: &ParsedRequest, full: NoRoom) -> HttpAnswer {
    asked.refused(&visit.connection, full.reason(), "", full.sentence());
    unavailable(full.sentence())
}
