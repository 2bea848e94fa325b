//! Headers of calls.

/// The header with the highest epoch that a single call's caller has seen, as TERM.COUNT.
pub(super) const EPOCH_HEADER: &str = "broadgate-epoch";

/// The other end of the connection that a request came on.
pub(super) fn caller(extensions: &http::Extensions) -> Option<std::net::SocketAddr> {
    extensions.get::<tonic::transport::server::TcpConnectInfo>()?.remote_addr()
}
