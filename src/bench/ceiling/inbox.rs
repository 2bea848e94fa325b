//! Batches from the thread that a publisher is connected to, to every other.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::event::{EventfdFlags, eventfd};

use super::publish::Batch;

/// A thread that is busy looks in by itself; only one that sleeps is woken, which is a system call.
pub(super) struct Inbox {
    batches: Mutex<Vec<Arc<Batch>>>,
    filled: AtomicBool,
    asleep: AtomicBool,
    pub(super) bell: OwnedFd,
}

impl Inbox {
    pub(super) fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self {
            batches: Mutex::default(),
            filled: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            bell,
        })
    }

    pub(super) fn put(&self, batch: Arc<Batch>) {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).push(batch);
        self.filled.store(true, Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            // The counter cannot overflow: it is read at every wake-up.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    pub(super) fn take(&self) -> Vec<Arc<Batch>> {
        if !self.filled.load(Ordering::Relaxed) || !self.filled.swap(false, Ordering::SeqCst) {
            return Vec::new();
        }
        std::mem::take(&mut *self.batches.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// To be called before sleeping; false if something has come.
    pub(super) fn may_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        if self.filled.load(Ordering::SeqCst) {
            self.asleep.store(false, Ordering::SeqCst);
            return false;
        }
        true
    }

    pub(super) fn woke(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    pub(super) fn hush(&self) {
        let _ = rustix::io::read(&self.bell, &mut [0_u8; 8]);
    }
}
