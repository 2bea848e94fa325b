//! From `host:port` to a gRPC channel over a connection of our own, whose ends are known and which
//! is never silently replaced.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::Context as _;
use broadgate_port::{FoundListener, look, secure, tune};
use broadgate_proto::{
    limits::{GRPC_MESSAGE_BYTES_MAX, TCP_KEEP_ALIVE},
    secret::SendSecret,
    v1::register_client::RegisterClient,
};
use broadgate_tls::{ClusterTls, Credentials};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint, Uri},
};

/// From the first packet to a connection, and again to gRPC.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);
/// A name service may be slower than that.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(3);
/// A connection is asked whether it lives after this silence.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How long it may take to answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) type RegisterStub = RegisterClient<InterceptedService<Channel, SendSecret>>;

/// A connection to a register.
pub(super) struct Dialed {
    pub client: RegisterStub,
    pub local: SocketAddr,
    pub peer: SocketAddr,
}

/// What a member is to name in place of what it has found.
pub(super) const HINT: &str = "name the register's port (register.bind, 7100 by default) in cluster.register, \
                               BROADGATE_REGISTER or --register";

/// Why nothing could be asked at an address, as far as another kind of port explains it: what goes wrong with
/// HTTP/2 there says nothing of that.
pub(super) async fn explained(address: SocketAddr, why: String, tls: Option<&ClusterTls>) -> String {
    match look(&address.to_string(), CONNECT_TIME_MAX, tls).await {
        Ok(FoundListener::Http2) | Err(_) => why,
        Ok(found) if found.is_of_the_cluster() => format!("{address} {}", found.sentence()),
        Ok(found) => format!("{address} {}; {HINT}", found.sentence()),
    }
}

/// All addresses of a register, resolved now.
pub(super) async fn resolve(register: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let found = timeout(RESOLVE_TIME_MAX, tokio::net::lookup_host(register))
        .await
        .with_context(|| format!("register {register:?} could not be resolved within {RESOLVE_TIME_MAX:?}"))?
        .with_context(|| format!("register {register:?} could not be resolved"))?;
    let addresses: Vec<_> = found.collect();
    anyhow::ensure!(!addresses.is_empty(), "register {register:?} has no address");
    Ok(addresses)
}

/// Connects to one address.
pub(super) async fn connect(address: SocketAddr, credentials: &Credentials) -> anyhow::Result<Dialed> {
    let stream = timeout(CONNECT_TIME_MAX, TcpStream::connect(address))
        .await
        .with_context(|| format!("no connection to {address} within {CONNECT_TIME_MAX:?}"))?
        .with_context(|| format!("no connection to {address}"))?;
    tune(&stream, TCP_KEEP_ALIVE);
    let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .keep_alive_while_idle(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let channel = match &credentials.tls {
        None => open(address, &endpoint, stream).await?,
        Some(tls) => {
            let stream = secure(&address.to_string(), stream, tls, CONNECT_TIME_MAX).await?;
            open(address, &endpoint, stream).await?
        }
    };
    let client = RegisterClient::with_interceptor(channel, credentials.sender())
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    Ok(Dialed { client, local, peer })
}

/// A channel over this connection alone.
async fn open(
    address: SocketAddr,
    endpoint: &Endpoint,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> anyhow::Result<Channel> {
    let mut once = Some(stream);
    let connector = tower::service_fn(move |_: Uri| {
        let stream = once.take().ok_or_else(|| io::Error::other("the connection has ended"));
        std::future::ready(stream.map(TokioIo::new))
    });
    timeout(CONNECT_TIME_MAX, endpoint.connect_with_connector(connector))
        .await
        .with_context(|| format!("{address} does not speak gRPC: no answer within {CONNECT_TIME_MAX:?}"))?
        .with_context(|| format!("{address} does not speak gRPC"))
}
