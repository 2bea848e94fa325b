//! The internal port: gRPC for callers, workers and peers, and the commands as JSON over HTTP.

mod grpc;
mod json;
mod lenient;
mod peer;
mod port;

/// Where a single call carries the highest epoch that its caller has seen, as TERM.COUNT.
const EPOCH_HEADER: &str = "broadgate-epoch";

/// The other end of the connection that a request came on.
fn caller(extensions: &http::Extensions) -> Option<std::net::SocketAddr> {
    extensions.get::<tonic::transport::server::TcpConnectInfo>()?.remote_addr()
}

#[cfg(feature = "fuzz")]
pub(crate) use self::json::fuzz;
pub(crate) use self::{
    peer::PeerService,
    port::{Internal, serve},
};
