//! The end of a turn of a shard's loop.

use std::rc::Rc;

use tokio::sync::Notify;

/// The end of the turn. Everything that is ready now is handled before, so that a socket is written once for all
/// of it.
#[derive(Default)]
pub(crate) struct Turn {
    wake: Rc<Notify>,
    asked: bool,
}

impl Turn {
    /// Something waits for it.
    pub(crate) fn ask(&mut self) {
        if !self.asked {
            self.asked = true;
            self.wake.notify_one();
        }
    }

    pub(super) fn ends(&mut self) {
        self.asked = false;
    }

    /// Wakes the loop when it was asked for.
    pub(crate) fn wake(&self) -> Rc<Notify> {
        Rc::clone(&self.wake)
    }
}
