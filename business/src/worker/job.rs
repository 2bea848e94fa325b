//! Events on their way to handlers, and orders to a link.

use std::sync::{Arc, atomic::AtomicBool};

use broadgate_proto::v1::{Session, event};
use tokio_util::sync::CancellationToken;

use crate::worker::out::FramesOut;

/// One event on its way to the handler.
pub(crate) struct HandlerJob {
    pub(crate) seq: u64,
    pub(crate) redelivered: bool,
    pub(crate) uid: String,
    pub(crate) session: Option<Session>,
    pub(crate) event: event::Event,
    /// The stream that it came on; None if this worker made the event itself.
    pub(crate) out: Option<FramesOut>,
}

/// What the worker wants of a link.
#[derive(Clone, Default)]
pub(crate) struct Orders {
    /// The gateway has left the view.
    pub(crate) gone: CancellationToken,
    /// The worker is stopping.
    pub(crate) leaving: CancellationToken,
    /// The gateway was draining when it was last seen.
    pub(crate) draining: Arc<AtomicBool>,
}
