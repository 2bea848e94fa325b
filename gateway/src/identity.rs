//! This gateway's identity: another incarnation after it was removed from the view.

use broadgate_proto::id::Incarnation;
use tokio_util::sync::CancellationToken;

/// One incarnation of this gateway.
pub(crate) struct Identity {
    pub(crate) incarnation: Incarnation,
    pub(crate) name: String,
    /// Cancelled when this incarnation is over: streams that were opened with it end.
    pub(crate) over: CancellationToken,
}
