//! What the tasks of a worker share.

use std::any::Any;

use broadgate_proto::v1::WorkerHello;

use crate::worker::{context::Context, meters::Meters};

/// What the tasks of one worker share.
pub(crate) struct Core<H> {
    pub(crate) handler: H,
    pub(crate) context: Context,
    /// All but the incarnation.
    pub(crate) hello: WorkerHello,
    pub(crate) meters: Meters,
}

pub(super) type Handled = Result<anyhow::Result<()>, Box<dyn Any + Send>>;

impl<H> Core<H> {
    /// Counts what a handler's method came to.
    pub(crate) fn note(&self, what: &'static str, handled: Handled) {
        match handled {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.meters.errors.increment(1);
                tracing::warn!(what, "the handler failed: {error:#}");
            }
            Err(_) => {
                self.meters.panics.increment(1);
                tracing::error!(what, "the handler panicked; this event counts as handled");
            }
        }
    }
}
