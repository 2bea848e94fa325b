//! The messages in flight: sent, and not yet received by all.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

/// A message keeps its slot until all have it, so this bounds how far the quickest may be ahead of
/// the slowest; far more than any window.
const SLOTS: usize = 1 << 16;

/// Threads count what their clients receive by themselves, and come here once per message.
pub(crate) struct Window {
    in_flight: u64,
    /// Threads that have not all of a message.
    left: Vec<AtomicU32>,
    completed: AtomicU64,
    sender: Mutex<Option<Waker>>,
    closed: AtomicBool,
}

impl Window {
    pub(crate) fn new(in_flight: usize) -> Self {
        Self {
            in_flight: in_flight.clamp(1, SLOTS / 2) as u64,
            left: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            completed: AtomicU64::new(0),
            sender: Mutex::new(None),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn slots(&self) -> usize {
        self.left.len()
    }

    pub(super) fn slot(number: u64) -> usize {
        (number % SLOTS as u64) as usize
    }

    pub(crate) fn completed(&self) -> u64 {
        self.completed.load(Ordering::Acquire)
    }

    /// Wakes the sender when there is room.
    pub(crate) fn wake_by(&self, waker: Waker) {
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
    }

    /// Nothing more is to be sent.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// How many messages may be sent now, if so many have been; waits for the first by `rest`, but not
    /// longer than this. 0 if nothing completes.
    pub(crate) fn room(&self, sent: u64, patience: Duration, mut rest: impl FnMut(Duration)) -> u64 {
        let since = Instant::now();
        loop {
            if self.closed.load(Ordering::Acquire) {
                return 0;
            }
            let room = (self.completed() + self.in_flight).saturating_sub(sent);
            let free = (0..room)
                .take_while(|ahead| self.left[Self::slot(sent + ahead)].load(Ordering::Acquire) == 0);
            match free.count() as u64 {
                0 if since.elapsed() < patience => rest(Duration::from_millis(20)),
                room => return room,
            }
        }
    }

    /// A message is about to be sent to the clients of so many threads.
    pub(crate) fn sending(&self, number: u64, threads: u32) {
        if threads == 0 {
            self.completed.fetch_add(1, Ordering::AcqRel);
        }
        self.left[Self::slot(number)].store(threads, Ordering::Release);
    }

    /// All clients of a thread have a message; true if all of all threads have it.
    pub(super) fn received(&self, number: u64) -> bool {
        let done = self.left[Self::slot(number)].fetch_sub(1, Ordering::AcqRel) == 1;
        if done {
            self.completed.fetch_add(1, Ordering::AcqRel);
        }
        done
    }

    pub(super) fn wake(&self) {
        if let Some(sender) = &*self.sender.lock().unwrap_or_else(PoisonError::into_inner) {
            sender.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_done_when_every_thread_has_it() {
        let window = Window::new(2);
        assert_eq!(window.room(0, Duration::ZERO, drop), 2);
        window.sending(0, 2);
        window.sending(1, 1);
        assert_eq!(window.room(2, Duration::ZERO, drop), 0);
        assert!(!window.received(0));
        assert!(window.received(1));
        assert_eq!(window.room(2, Duration::ZERO, drop), 1);
        assert!(window.received(0));
        assert_eq!((window.room(2, Duration::ZERO, drop), window.completed()), (2, 2));
    }

    #[test]
    fn a_slot_is_not_given_away_while_its_message_is_on_its_way() {
        let window = Window::new(1);
        let again = SLOTS as u64;
        window.sending(0, 1);
        window.completed.store(again, Ordering::Release);
        assert_eq!(window.room(again, Duration::ZERO, drop), 0);
        window.received(0);
        assert_ne!(window.room(again, Duration::ZERO, drop), 0);
    }
}
