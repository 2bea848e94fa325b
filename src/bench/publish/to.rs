//! Where publishers send.

use std::{
    sync::Arc,
    task::{Wake, Waker},
    thread::Thread,
    time::Duration,
};

use broadgate::failure::Failure;

use crate::{load::Sender, target::Target};

/// Where and what a publisher sends.
pub(crate) struct To<'a> {
    pub(crate) sender: &'a Sender,
    pub(crate) target: Target,
    pub(crate) groups: &'a [String],
    pub(crate) size: usize,
}

/// Sends the messages with these numbers, in this order.
pub(crate) trait Publisher {
    /// At once, at most.
    fn batch_max(&self) -> u64;
    fn publish(&mut self, numbers: std::ops::Range<u64>) -> Result<(), Failure>;

    /// Returns after this time, or when it was woken; what is under way goes on meanwhile.
    fn rest(&mut self, at_most: Duration) {
        std::thread::park_timeout(at_most);
    }

    /// What ends a rest of this thread's.
    fn waker(&self) -> Waker {
        Waker::from(Arc::new(Unpark(std::thread::current())))
    }
}

impl To<'_> {
    pub(crate) fn group(&self, number: u64) -> &str {
        &self.groups[(number % self.groups.len() as u64) as usize]
    }
}

pub(crate) struct Unpark(pub(crate) Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
