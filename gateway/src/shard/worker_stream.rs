//! The sending end of a worker's stream, as one shard has it.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// Where a worker's batches go.
pub(crate) struct WorkerOut {
    batches: mpsc::Sender<Bytes>,
    /// Told once nothing is unanswered any more.
    released: Option<oneshot::Sender<()>>,
}

/// The queue is full although it is as long as the worker's credit.
#[derive(Debug)]
pub(crate) struct QueueFull;

impl WorkerOut {
    pub(crate) fn new(batches: mpsc::Sender<Bytes>) -> Self {
        Self { batches, released: None }
    }

    /// Sends a batch. A stream that is closed takes nothing: its worker is lost, and its owner is about to say so.
    pub(crate) fn send(&self, batch: Bytes) -> Result<(), QueueFull> {
        match self.batches.try_send(batch) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(QueueFull),
        }
    }

    /// [`Self::release`] completes `released`.
    pub(crate) fn release_to(&mut self, released: oneshot::Sender<()>) {
        self.released = Some(released);
    }

    /// Nothing is unanswered any more.
    pub(crate) fn release(&mut self) {
        if let Some(released) = self.released.take() {
            let _ = released.send(());
        }
    }
}
