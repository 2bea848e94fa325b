//! What fits into one post, and how long its first event waits for others. Pure.

use std::time::Duration;

use broadgate_proto::limits::{WEBHOOK_BATCH_BYTES_MAX, WEBHOOK_BATCH_EVENTS_MAX, WEBHOOK_LINGER};

/// Room for events in one post.
#[derive(Default)]
pub(super) struct Room {
    events: usize,
    bytes: usize,
    is_full: bool,
}

impl Room {
    /// Is there room for an event of so many bytes? There always is for the first one.
    pub(super) fn takes(&mut self, bytes: usize) -> bool {
        let fits = self.events == 0
            || self.events < WEBHOOK_BATCH_EVENTS_MAX && self.bytes + bytes <= WEBHOOK_BATCH_BYTES_MAX;
        if fits {
            self.events += 1;
            self.bytes += bytes;
        }
        self.is_full |= !fits;
        fits
    }

    /// Something did not fit.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }
}

/// How long a batch waits for more.
#[derive(Debug, Default)]
pub(super) struct Linger {
    until: Duration,
    events: usize,
    bytes: usize,
}

impl Linger {
    /// An event has come and found nothing that could go with it.
    pub(super) fn begin(&mut self, now: Duration) {
        *self = Self { until: now + WEBHOOK_LINGER, ..Self::default() };
    }

    /// An event of so many bytes waits with the others.
    pub(super) fn add(&mut self, bytes: usize) {
        self.events += 1;
        self.bytes += bytes;
        if self.events >= WEBHOOK_BATCH_EVENTS_MAX || self.bytes >= WEBHOOK_BATCH_BYTES_MAX {
            self.end();
        }
    }

    /// Something has waited long enough already.
    pub(super) fn end(&mut self) {
        self.until = Duration::ZERO;
    }

    pub(super) fn until(&self) -> Duration {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_post_is_bounded_in_events_and_in_bytes() {
        let mut room = Room::default();
        assert!(room.takes(usize::MAX / 2), "whatever its size");
        assert!(!room.takes(1) && room.is_full());
        let mut room = Room::default();
        assert!((0..WEBHOOK_BATCH_EVENTS_MAX).all(|_| room.takes(0)) && !room.is_full());
        assert!(!room.takes(0) && room.is_full());
        let mut room = Room::default();
        assert!(room.takes(1) && room.takes(WEBHOOK_BATCH_BYTES_MAX - 1) && !room.takes(1));
    }

    #[test]
    fn a_full_batch_does_not_wait() {
        let now = Duration::from_secs(9);
        let mut linger = Linger::default();
        assert_eq!(linger.until(), Duration::ZERO);
        linger.begin(now);
        (1..WEBHOOK_BATCH_EVENTS_MAX).for_each(|_| linger.add(1));
        assert_eq!(linger.until(), now + WEBHOOK_LINGER);
        linger.add(1);
        assert_eq!(linger.until(), Duration::ZERO);
        linger.begin(now);
        linger.add(WEBHOOK_BATCH_BYTES_MAX);
        assert_eq!(linger.until(), Duration::ZERO);
    }
}
