//! What the tasks of a worker share.

use std::any::Any;

use broadgate_proto::v1::WorkerHello;
use tokio::sync::Notify;

use crate::worker::{context::Context, meters::Meters};

/// What the tasks of one worker share.
pub(crate) struct WorkerCore<H> {
    pub(crate) handler: H,
    pub(crate) context: Context,
    /// All but the incarnation.
    pub(crate) hello: WorkerHello,
    pub(crate) meters: Meters,
    /// Ends the worker when a task that handles events panics outside of the handler.
    pub(crate) runner_panicked: Notify,
}

/// Held by a task that handles events for as long as it runs: notices a panic that is not the handler's.
pub(crate) struct RunnerWatch<'a>(pub(crate) &'a Notify);

impl Drop for RunnerWatch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.notify_one();
        }
    }
}

pub(super) type Handled = Result<anyhow::Result<()>, Box<dyn Any + Send>>;

impl<H> WorkerCore<H> {
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
