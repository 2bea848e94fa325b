//! Observers of Pusher clients: business workers and any other program, by streams of the `WatchPusher` call.
//! An event is offered without waiting: what an observer does not read is dropped and counted, and its client
//! notices nothing.
//!
//! | file | what |
//! |---|---|
//! | `table.rs` | pure: which observers get an event |
//! | `queue.rs` | what waits for one observer, or for the reader of a tap |
//! | `taps.rs` | the taps of operators: the same for everything that some clients do |
//!
//! A change among the observers makes a new table. Shards only read it: where no observer is interested, an
//! event costs one look-up and is not even built.

mod queue;
mod table;
mod taps;

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use broadgate_proto::{
    limits::{
        PUSHER_WATCH_BYTES_MAX, PUSHER_WATCH_EVENTS_MAX, PUSHER_WATCH_MESSAGE_BYTES_MAX, PUSHER_WATCHERS_MAX,
    },
    v1,
};
use futures_util::{Stream, stream};
use metrics::gauge;
use prost::Message as _;

use self::{
    queue::{QueueBounds, Taken, Taker},
    table::{Observer, ObserverTable},
};
pub(crate) use self::{
    table::ObserverRequest,
    taps::{SaidPayload, Tap, TapQuestion, TapReader, TapTable, TapWhose, Taps, whose},
};

const BOUNDS: QueueBounds = QueueBounds {
    events: PUSHER_WATCH_EVENTS_MAX,
    bytes: PUSHER_WATCH_BYTES_MAX,
    message_bytes: PUSHER_WATCH_MESSAGE_BYTES_MAX,
};

/// All observers of one gateway. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Observers {
    shared: Arc<ObserversShared>,
    pub(crate) taps: Taps,
}

#[derive(Default)]
struct ObserversShared {
    /// The table that shards read.
    table: ArcSwap<ObserverTable>,
    /// The entries of the table; changed by streams that open and close.
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    observers: Vec<Observer>,
    next_key: u64,
}

/// One observer's place, released when its stream is dropped.
struct Registration {
    observers: Observers,
    key: u64,
}

impl Observers {
    /// Whether any observer watches clients of the app.
    pub(crate) fn has(&self, app: &str) -> bool {
        self.shared.table.load().has(app)
    }

    /// Hands events to their observers, in this order. Returns how many were dropped.
    pub(crate) fn offer(&self, events: impl IntoIterator<Item = v1::PusherEvent>) -> usize {
        let table = self.shared.table.load();
        let mut dropped = 0;
        for event in events {
            let bytes = event.encoded_len();
            let event = Arc::new(event);
            for queue in table.of_client(&event.app, &event.client_id) {
                dropped += usize::from(!queue.offer(&event, bytes));
            }
        }
        dropped
    }

    /// Adds an observer; None if the limit is reached. The stream ends when the gateway does, after
    /// everything queued.
    pub(crate) fn observe(
        &self,
        request: ObserverRequest,
    ) -> Option<impl Stream<Item = v1::PusherEvents> + Send + use<>> {
        let (queue, taker) = queue::queue(BOUNDS);
        let key = self.change(|all| {
            if all.observers.len() >= PUSHER_WATCHERS_MAX {
                return None;
            }
            all.next_key += 1;
            let key = all.next_key;
            all.observers.push(Observer { key, request, queue });
            Some(key)
        })?;
        let place = Registration { observers: self.clone(), key };
        Some(stream::unfold((taker, place), |(mut taker, place): (Taker<_>, Registration)| async move {
            let Taken { events, missed } = taker.next().await?;
            Some((v1::PusherEvents { events, missed }, (taker, place)))
        }))
    }

    /// This incarnation of the gateway is over: every stream ends.
    pub(crate) fn end(&self) {
        self.change(|all| all.observers.clear());
    }

    fn change<T>(&self, change: impl FnOnce(&mut All) -> T) -> T {
        let mut all = self.shared.all.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut all);
        self.shared.table.store(Arc::new(ObserverTable::of(&all.observers)));
        gauge!("broadgate_gateway_pusher_watchers").set(all.observers.len() as f64);
        changed
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.observers.change(|all| all.observers.retain(|observer| observer.key != self.key));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    fn event(app: &str, client: u32) -> v1::PusherEvent {
        v1::PusherEvent { app: app.to_owned(), client_id: client.to_string(), ..v1::PusherEvent::default() }
    }

    #[tokio::test]
    async fn queued_events_reach_observers_before_the_end() {
        let observers = Observers::default();
        assert!(!observers.has("shop"));
        let observe = |app: &str| {
            let request = ObserverRequest { app: app.into(), share: None };
            Box::pin(observers.observe(request).unwrap())
        };
        let (mut first, second) = (observe("shop"), observe("shop"));
        assert!(observers.has("shop") && !observers.has("other"));
        drop(second);
        assert_eq!(observers.offer([event("shop", 1), event("other", 2), event("shop", 3)]), 0);
        observers.end();
        assert!(!observers.has("shop"));
        let batch = first.next().await.unwrap();
        let clients: Vec<_> = batch.events.iter().map(|event| &*event.client_id).collect();
        assert_eq!((clients, batch.missed), (vec!["1", "3"], 0));
        assert_eq!(first.next().await, None);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let observers = Observers::default();
        let observe = || observers.observe(ObserverRequest { app: "shop".into(), share: None });
        let mut streams: Vec<_> = std::iter::from_fn(observe).collect();
        assert_eq!(streams.len(), PUSHER_WATCHERS_MAX);
        streams.pop();
        assert!(observe().is_some());
    }
}
