//! The queue of one observer: bounded in events and bytes; pushing never waits.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use broadgate_proto::{
    limits::{PUSHER_WATCH_BYTES_MAX, PUSHER_WATCH_EVENTS_MAX, PUSHER_WATCH_MESSAGE_BYTES_MAX},
    v1::{PusherEvent, PusherEvents},
};
use tokio::sync::{Notify, mpsc};

/// An event, and what was missed just before it.
struct Offered {
    event: Arc<PusherEvent>,
    bytes: usize,
    missed: u64,
}

/// The sending end, for shards.
pub(super) struct ObserverQueue {
    offered: mpsc::Sender<Offered>,
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
pub(super) struct Taker {
    offered: mpsc::Receiver<Offered>,
    level: Arc<Level>,
    /// It did not fit into the last message.
    next: Option<Offered>,
}

pub(super) fn queue() -> (Arc<ObserverQueue>, Taker) {
    let (sender, offered) = mpsc::channel(PUSHER_WATCH_EVENTS_MAX);
    let level = Arc::new(Level::default());
    let taker = Taker { offered, level: Arc::clone(&level), next: None };
    (Arc::new(ObserverQueue { offered: sender, level }), taker)
}

impl ObserverQueue {
    /// Pushes without waiting; false if it was dropped.
    pub(super) fn offer(&self, event: &Arc<PusherEvent>, bytes: usize) -> bool {
        let level = &self.level;
        let before = level.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before == 0 || before + bytes <= PUSHER_WATCH_BYTES_MAX {
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
        level.missed.fetch_add(1, Ordering::Relaxed);
        level.gap.notify_one();
        false
    }
}

impl Taker {
    /// Takes everything queued that fits into one message. None at the end.
    pub(super) async fn next(&mut self) -> Option<PusherEvents> {
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
                        return Some(PusherEvents { events: Vec::new(), missed });
                    }
                }
            }
        };
        let mut message = PusherEvents { events: Vec::new(), missed: first.missed };
        let mut bytes = first.bytes;
        self.put(&mut message, first);
        while let Ok(next) = self.offered.try_recv() {
            bytes += next.bytes;
            // A gap is at the start of a message.
            if bytes > PUSHER_WATCH_MESSAGE_BYTES_MAX || next.missed > 0 {
                self.next = Some(next);
                break;
            }
            self.put(&mut message, next);
        }
        Some(message)
    }

    fn put(&self, message: &mut PusherEvents, offered: Offered) {
        self.level.bytes.fetch_sub(offered.bytes, Ordering::Relaxed);
        // The copy is made here, and not in the shard.
        message.events.push(Arc::unwrap_or_clone(offered.event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(queue: &ObserverQueue, number: usize, bytes: usize) -> bool {
        let event = PusherEvent { client_id: number.to_string(), ..PusherEvent::default() };
        queue.offer(&Arc::new(event), bytes)
    }

    fn numbers(message: &PusherEvents) -> Vec<usize> {
        message.events.iter().map(|event| event.client_id.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn dropped_events_are_reported_as_missed_in_place() {
        let (queue, mut taker) = queue();
        let taken = (0..PUSHER_WATCH_EVENTS_MAX + 5).filter(|&number| offer(&queue, number, 1)).count();
        assert_eq!(taken, PUSHER_WATCH_EVENTS_MAX);
        let message = taker.next().await.unwrap();
        assert_eq!((message.missed, message.events.len()), (0, PUSHER_WATCH_EVENTS_MAX));
        assert!(offer(&queue, 1, 1) && offer(&queue, 2, 1));
        let message = taker.next().await.unwrap();
        assert_eq!((message.missed, numbers(&message)), (5, vec![1, 2]));
    }

    #[tokio::test]
    async fn gap_is_reported_without_an_event_after_it() {
        let (queue, mut taker) = queue();
        assert!(offer(&queue, 1, PUSHER_WATCH_BYTES_MAX) && !offer(&queue, 2, 1) && !offer(&queue, 3, 1));
        assert_eq!(numbers(&taker.next().await.unwrap()), [1]);
        let gap = taker.next().await.unwrap();
        assert_eq!((gap.missed, gap.events.len()), (2, 0));
        // The rest goes into the next message.
        for number in 0..3 {
            assert!(offer(&queue, number, PUSHER_WATCH_MESSAGE_BYTES_MAX / 2));
        }
        assert_eq!(numbers(&taker.next().await.unwrap()), [0, 1]);
        assert_eq!(numbers(&taker.next().await.unwrap()), [2]);
        drop(queue);
        assert_eq!(taker.next().await, None);
    }
}
