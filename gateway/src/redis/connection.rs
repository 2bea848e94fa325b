//! A connection to a Redis: opening it within a time limit, with TLS where its URL says so.

use std::{io, sync::Arc};

use broadgate_tls::{
    rustls::{ClientConfig, pki_types::ServerName},
    tokio_rustls::TlsConnector,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::apps::RedisUrl;

/// A stream, with or without TLS.
pub(super) trait RedisStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> RedisStream for T {}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NotOpened {
    /// The time is over: within TLS, or before.
    Silent { is_tls: bool },
    /// What the operating system says.
    Unreachable(io::Error),
    /// The handshake has failed.
    Tls(io::Error),
    /// The URL's host cannot be one of a certificate.
    Host,
}

/// Dials, and shakes hands, until `end`.
pub(super) async fn open(
    url: &RedisUrl,
    tls: Option<Arc<ClientConfig>>,
    end: Instant,
) -> Result<Box<dyn RedisStream>, NotOpened> {
    let dialled = timeout_at(end, TcpStream::connect((&*url.host, url.port))).await;
    let stream = match dialled {
        Err(_) => return Err(NotOpened::Silent { is_tls: false }),
        Ok(dialled) => dialled.map_err(NotOpened::Unreachable)?,
    };
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(url.host.clone()).map_err(|_| NotOpened::Host)?;
    match timeout_at(end, TlsConnector::from(tls).connect(name, stream)).await {
        Err(_) => Err(NotOpened::Silent { is_tls: true }),
        Ok(stream) => Ok(Box::new(stream.map_err(NotOpened::Tls)?)),
    }
}

/// Writes the whole of a command until `end`. The inner error is the stream's.
pub(super) async fn say(stream: &mut dyn RedisStream, bytes: &[u8], end: Instant) -> Option<io::Result<()>> {
    let write = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    timeout_at(end, write).await.ok()
}
