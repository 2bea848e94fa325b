//! Connecting to an internal port: plain, or inside the cluster's TLS.

use std::{io, time::Duration};

use broadgate_proto::limits::TCP_KEEP_ALIVE;
use broadgate_tls::{ClusterTls, Side, explain, tokio_rustls::client::TlsStream};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tonic::transport::{Channel, Endpoint, Error, Uri};

use crate::socket::tune;

/// Connects to an endpoint, which is `http://host:port` also inside TLS.
///
/// # Errors
/// If nothing accepts the connection or the handshake.
pub async fn connect(endpoint: Endpoint, tls: Option<&ClusterTls>) -> Result<Channel, Error> {
    match tls {
        None => endpoint.connect().await,
        Some(tls) => {
            let tls = tls.clone();
            endpoint.connect_with_connector(tower::service_fn(move |to| dial(to, tls.clone()))).await
        }
    }
}

/// The same at the first call, and again when the connection is lost.
#[must_use]
pub fn connect_lazy(endpoint: &Endpoint, tls: Option<&ClusterTls>) -> Channel {
    match tls {
        None => endpoint.connect_lazy(),
        Some(tls) => {
            let tls = tls.clone();
            endpoint.connect_with_connector_lazy(tower::service_fn(move |to| dial(to, tls.clone())))
        }
    }
}

/// A TCP connection and the handshake on it; the endpoint bounds their time.
async fn dial(to: Uri, tls: ClusterTls) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    let address = to.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
    let stream = TcpStream::connect(&address).await?;
    tune(&stream, TCP_KEEP_ALIVE);
    let secured = tls.connect(stream).await.map(TokioIo::new);
    secured.map_err(|error| refused(&address, &error))
}

/// A handshake on an open connection, within this time.
///
/// # Errors
/// If it fails or takes longer, with a sentence about the address.
pub async fn secure(
    address: &str,
    stream: TcpStream,
    tls: &ClusterTls,
    within: Duration,
) -> io::Result<TlsStream<TcpStream>> {
    match timeout(within, tls.connect(stream)).await {
        Ok(secured) => secured.map_err(|error| refused(address, &error)),
        Err(_) => {
            let sentence = format!("{address} has not finished the TLS handshake within {within:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, sentence))
        }
    }
}

fn refused(address: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{address} {}", explain(error, Side::Client).sentence))
}
