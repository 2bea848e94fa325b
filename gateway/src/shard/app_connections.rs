//! How many Pusher clients an app has in the whole cluster, where that is limited. Each is a presence
//! member of a group of the server's own, that no client sees: the group's home decides in its order
//! whether there is room, so the limit holds exactly, whichever gateways are asked. A place is given back
//! by a guard that drops.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use broadgate_topics::{MembershipCount, PresenceCount, Topic};
use tokio::sync::Notify;

use super::pending_counts::PendingCounts;

/// In place of a shard's number: the places belong to no shard.
const NO_SHARD: u8 = u8::MAX;

/// The places of this gateway's clients.
pub(crate) struct AppConnections {
    /// By chance: tells the places from those of other gateways, and of earlier runs.
    run: u64,
    next: AtomicU64,
    /// By app. As many as there have been apps with a limit.
    counts: Mutex<HashMap<String, u32>>,
    pending_counts: Arc<PendingCounts>,
    wake: Arc<Notify>,
}

/// A client's place among those of its app, or its claim to one.
pub(crate) struct ConnectionPlace {
    connections: Arc<AppConnections>,
    app: String,
    name: Arc<str>,
}

impl AppConnections {
    pub(crate) fn new(run: u64, pending_counts: Arc<PendingCounts>, wake: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { run, next: AtomicU64::new(0), counts: Mutex::default(), pending_counts, wake })
    }

    /// Claims a place where at most `max` are. Its home decides about [`Place::claim`].
    pub(crate) fn claim(self: &Arc<Self>, app: &str, max: u32) -> ConnectionPlace {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name: Arc<str> = format!("{:x}-{number:x}", self.run).into();
        self.change(app, &name, Some(max));
        ConnectionPlace { connections: Arc::clone(self), app: app.to_owned(), name }
    }

    /// One place more, with a limit, or one less.
    fn change(&self, app: &str, name: &Arc<str>, added: Option<u32>) {
        // The count that is put last must be the newest.
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let clients = counts.entry(app.to_owned()).or_default();
        *clients = if added.is_some() { *clients + 1 } else { clients.saturating_sub(1) };
        let member = PresenceCount {
            user: Arc::clone(name),
            info: "".into(),
            clients: u32::from(added.is_some()),
            max: added,
        };
        let topic = Topic::connections(app);
        let count = MembershipCount { topic, shard: NO_SHARD, clients: *clients, members: vec![member] };
        self.pending_counts.put(vec![count], &self.wake);
    }
}

impl ConnectionPlace {
    /// Where the claim is decided, and under which name.
    pub(crate) fn claim(&self) -> (Topic, Arc<str>) {
        (Topic::connections(&self.app), Arc::clone(&self.name))
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.connections.change(&self.app, &self.name, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_claimed_and_given_back_once() {
        let (pending_counts, wake) = (Arc::new(PendingCounts::default()), Arc::new(Notify::new()));
        let connections = AppConnections::new(7, Arc::clone(&pending_counts), wake);
        let sent = || {
            let taken = pending_counts.take();
            let one = |count: &MembershipCount| {
                let members = count.members.iter();
                let mut members: Vec<_> =
                    members.map(|member| (member.user.to_string(), member.clients, member.max)).collect();
                members.sort();
                (count.clients, members)
            };
            taken.iter().map(one).collect::<Vec<_>>()
        };
        let (first, second) = (connections.claim("shop", 2), connections.claim("shop", 2));
        let [a, b] = ["7-0", "7-1"].map(str::to_owned);
        assert_eq!(sent(), [(2, vec![(a.clone(), 1, Some(2)), (b.clone(), 1, Some(2))])]);
        drop(first);
        assert_eq!(sent(), [(1, vec![(a, 0, None)])]);
        drop(second);
        assert_eq!(sent(), [(0, vec![(b, 0, None)])]);
    }
}
