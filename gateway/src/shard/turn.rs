//! The end of a turn of a shard's loop.

use std::rc::Rc;

use tokio::sync::Notify;

/// The end of the turn. Everything that is ready now is handled before, so that a socket is written once for all
/// of it.
#[derive(Default)]
pub(crate) struct Turn {
    wake: Rc<Notify>,
    requested: bool,
}

impl Turn {
    /// Output waits for the end of the turn.
    pub(crate) fn request(&mut self) {
        if !self.requested {
            self.requested = true;
            self.wake.notify_one();
        }
    }

    pub(super) fn ends(&mut self) {
        self.requested = false;
    }

    /// Wakes the loop when the end of a turn was requested.
    pub(crate) fn wake(&self) -> Rc<Notify> {
        Rc::clone(&self.wake)
    }
}
