//! The queue of one observer: bounded in events and bytes; pushing never waits.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::{Notify, mpsc};

/// What one queue holds at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueBounds {
    pub(super) events: usize,
    /// Of all events; one alone may have more.
    pub(super) bytes: usize,
    /// Of the events that are taken together.
    pub(super) message_bytes: usize,
}

/// An event, and what was missed just before it.
struct Offered<T> {
    event: Arc<T>,
    bytes: usize,
    missed: u64,
}

/// The sending end, for shards.
pub(super) struct ObserverQueue<T> {
    offered: mpsc::Sender<Offered<T>>,
    bytes_max: usize,
    level: Arc<Level>,
}

/// The state shared by both ends.
#[derive(Default)]
struct Level {
    bytes: AtomicUsize,
    /// Dropped since the last event that was read.
    missed: AtomicU64,
    /// Events were dropped: reported even if no event follows.
    gap: Notify,
}

/// The receiving end, for the stream.
pub(super) struct Taker<T> {
    offered: mpsc::Receiver<Offered<T>>,
    message_bytes: usize,
    level: Arc<Level>,
    /// It did not fit into the last message.
    next: Option<Offered<T>>,
}

/// Events that are sent together, and what was missed right before them.
#[derive(Debug, PartialEq)]
pub(super) struct Taken<T> {
    pub(super) missed: u64,
    pub(super) events: Vec<T>,
}

pub(super) fn queue<T>(bounds: QueueBounds) -> (Arc<ObserverQueue<T>>, Taker<T>) {
    let (sender, offered) = mpsc::channel(bounds.events);
    let level = Arc::new(Level::default());
    let taker = Taker { offered, message_bytes: bounds.message_bytes, level: Arc::clone(&level), next: None };
    (Arc::new(ObserverQueue { offered: sender, bytes_max: bounds.bytes, level }), taker)
}

impl<T> ObserverQueue<T> {
    /// Pushes without waiting; false if it was dropped.
    pub(super) fn offer(&self, event: &Arc<T>, bytes: usize) -> bool {
        let level = &self.level;
        let before = level.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before == 0 || before + bytes <= self.bytes_max {
            match self.offered.try_reserve() {
                Ok(room) => {
                    let missed = level.missed.swap(0, Ordering::Relaxed);
                    room.send(Offered { event: Arc::clone(event), bytes, missed });
                    return true;
                }
                // Its stream has ended: nothing is missed.
                Err(mpsc::error::TrySendError::Closed(())) => return true,
                Err(mpsc::error::TrySendError::Full(())) => {}
            }
        }
        level.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.miss();
        false
    }

    /// An event was dropped before it was offered.
    pub(super) fn miss(&self) {
        self.level.missed.fetch_add(1, Ordering::Relaxed);
        self.level.gap.notify_one();
    }
}

impl<T: Clone> Taker<T> {
    /// Takes everything queued that fits into one message. None at the end.
    pub(super) async fn next(&mut self) -> Option<Taken<T>> {
        let mut first = self.next.take();
        let first = loop {
            if let Some(first) = first {
                break first;
            }
            tokio::select! {
                biased;
                offered = self.offered.recv() => first = Some(offered?),
                () = self.level.gap.notified() => {
                    let missed = self.level.missed.swap(0, Ordering::Relaxed);
                    // Otherwise an event has reported it meanwhile.
                    if missed > 0 {
                        return Some(Taken { missed, events: Vec::new() });
                    }
                }
            }
        };
        let mut message = Taken { missed: first.missed, events: Vec::new() };
        let mut bytes = first.bytes;
        self.put(&mut message, first);
        while let Ok(next) = self.offered.try_recv() {
            bytes += next.bytes;
            // A gap is at the start of a message.
            if bytes > self.message_bytes || next.missed > 0 {
                self.next = Some(next);
                break;
            }
            self.put(&mut message, next);
        }
        Some(message)
    }

    fn put(&self, message: &mut Taken<T>, offered: Offered<T>) {
        self.level.bytes.fetch_sub(offered.bytes, Ordering::Relaxed);
        // The copy is made here, and not in the shard.
        message.events.push(Arc::unwrap_or_clone(offered.event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: QueueBounds = QueueBounds { events: 100, bytes: 1000, message_bytes: 200 };

    fn offer(queue: &ObserverQueue<usize>, number: usize, bytes: usize) -> bool {
        queue.offer(&Arc::new(number), bytes)
    }

    #[tokio::test]
    async fn dropped_events_are_reported_as_missed_in_place() {
        let (queue, mut taker) = queue(BOUNDS);
        let taken = (0..BOUNDS.events + 5).filter(|&number| offer(&queue, number, 1)).count();
        assert_eq!(taken, BOUNDS.events);
        let message = taker.next().await.unwrap();
        assert_eq!((message.missed, message.events.len()), (0, BOUNDS.events));
        assert!(offer(&queue, 1, 1) && offer(&queue, 2, 1));
        let message = taker.next().await.unwrap();
        assert_eq!((message.missed, message.events), (5, vec![1, 2]));
    }

    #[tokio::test]
    async fn gap_is_reported_without_an_event_after_it() {
        let (queue, mut taker) = queue(BOUNDS);
        assert!(offer(&queue, 1, BOUNDS.bytes) && !offer(&queue, 2, 1) && !offer(&queue, 3, 1));
        assert_eq!(taker.next().await.unwrap().events, [1]);
        let gap = taker.next().await.unwrap();
        assert_eq!((gap.missed, gap.events.len()), (2, 0));
        // The rest goes into the next message.
        for number in 0..3 {
            assert!(offer(&queue, number, BOUNDS.message_bytes / 2));
        }
        assert_eq!(taker.next().await.unwrap().events, [0, 1]);
        assert_eq!(taker.next().await.unwrap().events, [2]);
        drop(queue);
        assert_eq!(taker.next().await, None);
    }
}
