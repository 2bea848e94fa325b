//! A gateway's readiness, and the steps of its stop.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio_util::sync::CancellationToken;

/// A gateway's state, for probes.
#[derive(Clone, Default)]
pub struct Health(Arc<AtomicBool>);

impl Health {
    /// Whether it is in a view, and not draining.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }
}

/// The steps of a stop that client ports follow, in this order.
#[derive(Clone, Default)]
pub(crate) struct Stopping {
    /// Probes say "not ready", and every HTTP answer says that its connection closes.
    pub(crate) draining: CancellationToken,
    /// Listeners are drained and closed, and new connections are refused.
    pub(crate) closing: CancellationToken,
}
