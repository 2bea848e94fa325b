//! What the TLS connections of one shard share.

use std::sync::atomic::{AtomicUsize, Ordering};

use broadgate_proto::limits::TLS_HANDSHAKES_PER_TURN;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

/// Used by one thread; atomics because hyper asks of a connection that it could change threads. Nothing here
/// is touched by a message that its socket takes at once.
pub(crate) struct TlsShared {
    /// Places for handshakes that are being computed. First come, first served.
    places: Semaphore,
    /// Bytes that are sealed and that their sockets have not taken.
    sealed: AtomicUsize,
}

impl Default for TlsShared {
    fn default() -> Self {
        Self { places: Semaphore::new(TLS_HANDSHAKES_PER_TURN), sealed: AtomicUsize::new(0) }
    }
}

impl TlsShared {
    /// A place to compute a step of a handshake. It is to be held until other tasks have had their turn, and
    /// not while the client is waited for: one that answers slowly keeps no place from others.
    pub(crate) async fn place(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.places.acquire().await
    }

    /// Bytes that are sealed and unsent, of all connections.
    pub(crate) fn sealed(&self) -> usize {
        self.sealed.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, bytes: usize) {
        self.sealed.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, bytes: usize) {
        self.sealed.fetch_sub(bytes, Ordering::Relaxed);
    }
}
