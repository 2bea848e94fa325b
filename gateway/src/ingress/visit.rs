//! The requests of one connection, and their answers.

use std::{cell::Cell, net::IpAddr, sync::Arc, time::Duration};

use broadgate_port::{ConnectionWatch, Guarded};
use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{
    admission::{ConnectionTicket, Full as NoRoom},
    ingress::port::Connection,
    shard::{Stream, TlsStream},
};

pub(super) type HttpAnswer = Response<Full<Bytes>>;

/// A connection as it is served.
pub(super) type Served<S> = TokioIo<Guarded<S>>;

/// The connection of a request that became a WebSocket, and what was read behind the request.
pub(super) fn upgraded(upgraded: Upgraded) -> Option<(Stream, Vec<u8>)> {
    let upgraded = match upgraded.downcast::<Served<TcpStream>>() {
        Ok(parts) => return Some((Stream::Tcp(parts.io.into_inner().into_inner()), parts.read_buf.into())),
        Err(upgraded) => upgraded,
    };
    let Ok(parts) = upgraded.downcast::<Served<Box<TlsStream>>>() else {
        tracing::error!("upgraded connection is not the accepted stream");
        return None;
    };
    let mut stream = parts.io.into_inner().into_inner();
    let mut read = Vec::from(parts.read_buf);
    read.append(&mut stream.take_plain());
    Some((Stream::Tls(stream), read))
}

/// When a refused client may try again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(5);

/// For those who are closed unread.
pub(super) const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n\
    Content-Length: 0\r\nConnection: close\r\n\r\n";

/// One connection's requests. The ticket goes over to the client if it becomes one.
pub(super) struct Visit {
    pub(super) connection: Connection,
    pub(super) ticket: Cell<Option<ConnectionTicket>>,
    /// Why nobody who comes by this connection may be a client.
    pub(super) full: Option<NoRoom>,
    /// What the requests of the connection are under.
    pub(super) watch: Arc<ConnectionWatch>,
}

impl Visit {
    /// Counts the connection for the client that a request comes from.
    pub(super) fn belongs_to(&self, ip: IpAddr) -> Result<(), NoRoom> {
        let mut ticket = self.ticket.take();
        let counted = match &mut ticket {
            Some(ConnectionTicket::Admitted(admitted)) => admitted.belongs_to(ip),
            _ => Ok(()),
        };
        self.ticket.set(ticket);
        counted
    }

    /// Between two requests a proxy's connection is nobody's.
    pub(super) fn belongs_to_no_client(&self) {
        let mut ticket = self.ticket.take();
        if let Some(ConnectionTicket::Admitted(admitted)) = &mut ticket {
            admitted.belongs_to_no_client();
        }
        self.ticket.set(ticket);
    }
}

pub(super) fn error(status: StatusCode, sentence: &str) -> HttpAnswer {
    let body = serde_json::json!({ "error": sentence }).to_string();
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    answer
}

pub(super) fn unavailable(sentence: &str) -> HttpAnswer {
    let mut answer = error(StatusCode::SERVICE_UNAVAILABLE, sentence);
    answer.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER.as_secs().into());
    answer
}
