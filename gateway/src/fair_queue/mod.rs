//! A queue between tasks, of facts about the channels of apps. It never makes a sender wait: when it is full,
//! `thin.rs` decides what is dropped, so that one app costs no other app anything and one channel no other
//! channel.

mod item;
mod thin;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::fair_queue::item::cost;

pub(crate) use self::item::{QueueItem, Says};

pub(crate) use self::thin::Thinned;

/// Capacity for this many items is kept while the queue is empty.
const ITEMS_KEPT: usize = 64;

/// An inbox for at most `bytes_max`, with [`WEBHOOK_EVENT_OVERHEAD_BYTES`] for each item.
pub(crate) fn inbox<T: QueueItem>(bytes_max: usize) -> (FairSender<T>, FairReceiver<T>) {
    let waiting =
        WaitingItems { items: VecDeque::new(), bytes: 0, senders_gone: false, receiver_gone: false };
    let shared = Arc::new(QueueShared { waiting: Mutex::new(waiting), news: Notify::new(), bytes_max });
    (FairSender(Arc::new(Closer(Arc::clone(&shared)))), FairReceiver(shared))
}

struct QueueShared<T> {
    waiting: Mutex<WaitingItems<T>>,
    news: Notify,
    bytes_max: usize,
}

struct WaitingItems<T> {
    items: VecDeque<T>,
    bytes: usize,
    senders_gone: bool,
    receiver_gone: bool,
}

impl<T> QueueShared<T> {
    fn lock(&self) -> MutexGuard<'_, WaitingItems<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the inbox with the last sender.
struct Closer<T>(Arc<QueueShared<T>>);

impl<T> Drop for Closer<T> {
    fn drop(&mut self) {
        self.0.lock().senders_gone = true;
        self.0.news.notify_one();
    }
}

/// The sending half.
pub(crate) struct FairSender<T>(Arc<Closer<T>>);

impl<T> Clone for FairSender<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> std::fmt::Debug for FairSender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender")
    }
}

impl<T: QueueItem> FairSender<T> {
    /// Queues an item without waiting. Returns how many items were dropped to make room, for the caller to count.
    #[must_use]
    pub(crate) fn put(&self, item: T) -> Thinned {
        let shared = &self.0.0;
        let mut waiting = shared.lock();
        if waiting.receiver_gone {
            return Thinned { full: 1, undone: 0 };
        }
        waiting.bytes += cost(&item);
        waiting.items.push_back(item);
        let mut thinned = Thinned::default();
        if waiting.bytes > shared.bytes_max {
            // Frees an eighth at once, so that not every item costs a pass over the whole queue.
            thinned = thin::thin(&mut waiting.items, shared.bytes_max / 8 * 7);
            waiting.bytes = waiting.items.iter().map(cost).sum();
        }
        drop(waiting);
        shared.news.notify_one();
        thinned
    }
}

/// The receiving half.
pub(crate) struct FairReceiver<T>(Arc<QueueShared<T>>);

impl<T: QueueItem> FairReceiver<T> {
    /// Waits for items and appends at most `most` of them to `taken`. False when all senders are gone and
    /// nothing is left. Nothing is lost if the future is dropped.
    pub(crate) async fn take(&mut self, most: usize, taken: &mut Vec<T>) -> bool {
        loop {
            let news = self.0.news.notified();
            {
                let mut waiting = self.0.lock();
                if !waiting.items.is_empty() {
                    let count = waiting.items.len().min(most);
                    let from = taken.len();
                    taken.extend(waiting.items.drain(..count));
                    waiting.bytes -= taken[from..].iter().map(cost).sum::<usize>();
                    return true;
                }
                waiting.items.shrink_to(ITEMS_KEPT);
                if waiting.senders_gone {
                    return false;
                }
            }
            news.await;
        }
    }

    /// Bytes in the queue, including the overhead of each item.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.0.lock().bytes
    }
}

impl<T> Drop for FairReceiver<T> {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.receiver_gone = true;
        waiting.bytes = 0;
        let left = std::mem::take(&mut waiting.items);
        drop(waiting);
        drop(left);
    }
}

#[cfg(test)]
mod tests;
