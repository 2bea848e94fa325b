//! Which observers get an event. Pure.

use std::{collections::HashMap, sync::Arc};

use broadgate_proto::{id::Incarnation, ring::Ring, v1::PusherEvent};

use super::queue::ObserverQueue;

/// What waits for one observer.
type PusherEventQueue = Arc<ObserverQueue<PusherEvent>>;

/// What an observer watches.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ObserverRequest {
    /// It need not be known: apps come and go while a gateway runs.
    pub(crate) app: Box<str>,
    /// The group of observers that share the events, and which of them this is; none for all events.
    pub(crate) share: Option<(Box<str>, Incarnation)>,
}

/// One observer's stream.
pub(super) struct Observer {
    /// Rises from one to the next.
    pub(super) key: u64,
    pub(super) request: ObserverRequest,
    pub(super) queue: PusherEventQueue,
}

/// All observers, by what they observe.
#[derive(Default)]
pub(super) struct ObserverTable(HashMap<Box<str>, ObservedApp>);

#[derive(Default)]
struct ObservedApp {
    /// They get every event.
    whole: Vec<PusherEventQueue>,
    shares: Vec<ObserverShare>,
}

/// Observers that share one app's events among themselves.
struct ObserverShare {
    ring: Ring,
    queues: HashMap<Incarnation, PusherEventQueue>,
}

impl ObserverTable {
    /// In rising order of their keys.
    pub(super) fn of(observers: &[Observer]) -> Self {
        let mut apps: HashMap<Box<str>, ObservedApp> = HashMap::new();
        let mut shares: HashMap<(&str, &str), HashMap<Incarnation, PusherEventQueue>> = HashMap::new();
        for Observer { request, queue, .. } in observers {
            match &request.share {
                None => apps.entry(request.app.clone()).or_default().whole.push(Arc::clone(queue)),
                // Of two streams of one sharer the later stays: the newer one is alive.
                Some((share, sharer)) => {
                    let queues = shares.entry((&request.app, share)).or_default();
                    queues.insert(*sharer, Arc::clone(queue));
                }
            }
        }
        for ((app, _), queues) in shares {
            let ring = Ring::new(queues.keys().copied());
            apps.entry(app.into()).or_default().shares.push(ObserverShare { ring, queues });
        }
        Self(apps)
    }

    pub(super) fn has(&self, app: &str) -> bool {
        self.0.contains_key(app)
    }

    /// The observers of a client's events.
    pub(super) fn of_client<'a>(
        &'a self,
        app: &str,
        client_id: &'a str,
    ) -> impl Iterator<Item = &'a PusherEventQueue> {
        let app = self.0.get(app);
        let whole = app.into_iter().flat_map(|app| &app.whole);
        let shares = app.into_iter().flat_map(|app| &app.shares);
        whole.chain(shares.filter_map(|share| share.queues.get(&share.ring.pick(client_id.as_bytes())?)))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::queue::{QueueBounds, queue},
        *,
    };

    const BOUNDS: QueueBounds = QueueBounds { events: 1, bytes: 1, message_bytes: 1 };

    fn observer(key: u64, app: &str, share: Option<(&str, u64)>) -> Observer {
        let share = share.map(|(share, sharer)| (share.into(), Incarnation::from_bits(sharer)));
        Observer { key, request: ObserverRequest { app: app.into(), share }, queue: queue(BOUNDS).0 }
    }

    /// The keys of the observers of a client's events.
    fn keys(observers: &[Observer], client: &str) -> Vec<u64> {
        let table = ObserverTable::of(observers);
        let key = |queue: &PusherEventQueue| {
            observers.iter().find(|observer| Arc::ptr_eq(&observer.queue, queue)).map(|observer| observer.key)
        };
        let mut keys: Vec<u64> = table.of_client("shop", client).filter_map(key).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn sharers_split_the_clients_and_the_others_get_all() {
        let observers = [
            observer(1, "shop", None),
            observer(2, "shop", Some(("mail", 7))),
            observer(3, "other", None),
            observer(4, "shop", Some(("mail", 8))),
            observer(5, "shop", Some(("log", 7))),
        ];
        let mut sharers = std::collections::BTreeSet::new();
        for client in 0..100 {
            let keys = keys(&observers, &client.to_string());
            let &[1, sharer @ (2 | 4), 5] = &*keys else { panic!("{keys:?}") };
            sharers.insert(sharer);
        }
        assert_eq!(sharers.len(), 2);
        assert!(!ObserverTable::default().has("shop") && ObserverTable::of(&observers).has("other"));
    }

    #[test]
    fn a_sharers_newer_stream_wins_and_only_a_leavers_clients_move() {
        let mut observers: Vec<_> =
            (1..=4).map(|key| observer(key, "shop", Some(("mail", key.min(3))))).collect();
        let before: Vec<_> = (0..100).map(|client| keys(&observers, &client.to_string())).collect();
        assert!(before.iter().all(|keys| keys.len() == 1 && keys[0] != 3));
        observers.remove(1);
        for (client, before) in before.into_iter().enumerate() {
            let after = keys(&observers, &client.to_string());
            assert!(if before == [2] { after != [2] } else { after == before }, "{before:?} {after:?}");
        }
    }
}
