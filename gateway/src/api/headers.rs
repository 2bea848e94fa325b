//! Headers of calls, and refusals as their status.

use broadgate_proto::v1;
use tonic::{Code, Status, metadata::MetadataMap};

use crate::command::CommandRefusal;

/// The header with the highest epoch that a single call's caller has seen, as TERM.COUNT.
pub(super) const EPOCH_HEADER: &str = "broadgate-epoch";

/// The other end of the connection that a request came on.
pub(super) fn caller(extensions: &http::Extensions) -> Option<std::net::SocketAddr> {
    extensions.get::<tonic::transport::server::TcpConnectInfo>()?.remote_addr()
}

/// The epoch that a single call's caller knows.
pub(super) fn after(metadata: &MetadataMap) -> Result<Option<v1::Epoch>, Status> {
    let Some(value) = metadata.get(EPOCH_HEADER) else { return Ok(None) };
    let epoch = value.to_str().ok().and_then(|text| text.parse().ok());
    epoch.map(Some).ok_or_else(|| {
        Status::invalid_argument(format!("{EPOCH_HEADER} is not TERM.COUNT as in an answer's epoch"))
    })
}

pub(super) fn status(refused: CommandRefusal) -> Status {
    Status::new(Code::from_i32(refused.code), refused.message)
}
