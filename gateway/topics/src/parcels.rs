//! Histories on their way to the groups' next homes, whose links are not open yet.

use std::collections::BTreeMap;

use broadgate_proto::id::Incarnation;

use crate::{content::Content, retention::HandedOver, shared::Shared, step::LinkMessage, topic::Topic};

#[derive(Debug)]
pub(super) struct Parcels<C: Content>(BTreeMap<Incarnation, Vec<(Topic, HandedOver<C>)>>);

impl<C: Content> Parcels<C> {
    pub(super) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Histories move to the groups' next home. One that has not reached it before the ring changes again is
    /// dropped: another home may have started a new one.
    pub(super) fn hand_over(&mut self, shared: &mut Shared<C>) {
        let (me, rings) = (shared.me, &shared.rings);
        for (home, parcels) in &mut self.0 {
            parcels.retain(|(topic, _)| rings.home(topic) == Some(*home));
        }
        for (topic, history) in shared.retained.hand_over(|topic| rings.home(topic) != Some(me)) {
            if let Some(home) = rings.home(&topic) {
                let history = history.into_parcel(shared.now);
                self.0.entry(home).or_default().push((topic, history));
            }
        }
        for peer in shared.peers.open() {
            self.send(shared, peer);
        }
        self.0.retain(|home, parcels| !parcels.is_empty() && shared.members.gateways.contains_key(home));
    }

    /// Precedes `Synced`: the home waits for that.
    pub(super) fn send(&mut self, shared: &mut Shared<C>, home: Incarnation) {
        for (topic, history) in self.0.remove(&home).unwrap_or_default() {
            shared.send(home, LinkMessage::HandOver { topic, history });
        }
    }
}
