//! How a gateway does, and how far its stop has come.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio_util::sync::CancellationToken;

/// How a gateway does, for probes.
#[derive(Clone, Default)]
pub struct Health(Arc<AtomicBool>);

impl Health {
    /// Is it in a view, and not draining?
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
    /// Listeners are emptied and closed, and newcomers are turned away.
    pub(crate) closing: CancellationToken,
}
