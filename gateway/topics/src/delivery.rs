//! Commands that a home has forwarded, and idempotency keys that backends have claimed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use broadgate_proto::{id::Incarnation, v1::Epoch};

use crate::{content::Content, parking::ReplyTarget, retention::Position, topic::Topic, trace::PendingTrace};

/// A forwarded command with unanswered gateways.
#[derive(Debug)]
pub(super) struct PendingDelivery<C: Content> {
    pub(super) origin: ReplyTarget,
    pub(super) topic: Topic,
    pub(super) epoch: Epoch,
    pub(super) waiting: BTreeSet<Incarnation>,
    pub(super) answer: Option<C::Answer>,
    pub(super) gateways: u32,
    pub(super) missing: BTreeSet<Incarnation>,
    /// A gateway knows a later home: the command must be repeated there.
    pub(super) stale: bool,
    pub(super) since: Duration,
    pub(super) position: Option<Position>,
    pub(super) trace: Option<Box<PendingTrace>>,
    /// The topic in which a gateway will have a client after this.
    pub(super) expects: Option<Topic>,
}

/// All of them, by their numbers.
#[derive(Debug)]
pub(super) struct Deliveries<C: Content> {
    pending: BTreeMap<u64, PendingDelivery<C>>,
    next: u64,
}

impl<C: Content> Deliveries<C> {
    pub(super) const fn new() -> Self {
        Self { pending: BTreeMap::new(), next: 1 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// The number of the next one.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn add(&mut self, delivery: PendingDelivery<C>) {
        self.pending.insert(self.next, delivery);
        self.next += 1;
    }

    /// A gateway answers; without an answer it knows a later home. Returns the topic then. None if nothing
    /// was expected of it.
    pub(super) fn placed(
        &mut self,
        gateway: Incarnation,
        id: u64,
        placed: Option<Option<C::Answer>>,
    ) -> Option<Option<Topic>> {
        let delivery = self.pending.get_mut(&id)?;
        if !delivery.waiting.remove(&gateway) {
            return None;
        }
        let Some(answer) = placed else {
            delivery.stale = true;
            return Some(Some(delivery.topic.clone()));
        };
        delivery.gateways += 1;
        if let Some(answer) = answer {
            C::merge(&mut delivery.answer, answer);
        }
        Some(None)
    }

    /// The answers that a gateway owes will not come, and are missing unless it leaves. Returns which are concerned.
    pub(super) fn miss(&mut self, gateway: Incarnation, leaves: bool) -> Vec<u64> {
        let mut concerned = Vec::new();
        for (id, delivery) in &mut self.pending {
            if delivery.waiting.remove(&gateway) {
                if !leaves {
                    delivery.missing.insert(gateway);
                }
                concerned.push(*id);
            }
        }
        concerned
    }

    /// Those that have waited for too long: nothing is waited for any longer, and nothing is missing of gateways that
    /// leave.
    pub(super) fn give_up(
        &mut self,
        within: Duration,
        now: Duration,
        leaving: &BTreeSet<Incarnation>,
    ) -> Vec<u64> {
        let mut late = Vec::new();
        // They were numbered one after the other.
        for (id, delivery) in
            self.pending.iter_mut().take_while(|(_, delivery)| now >= delivery.since + within)
        {
            let waiting = std::mem::take(&mut delivery.waiting);
            delivery.missing.extend(waiting.into_iter().filter(|gateway| !leaving.contains(gateway)));
            late.push(*id);
        }
        late
    }

    pub(super) fn take_if_done(&mut self, id: u64) -> Option<PendingDelivery<C>> {
        let done = self.pending.get(&id).is_some_and(|delivery| delivery.waiting.is_empty());
        if done { self.pending.remove(&id) } else { None }
    }
}

/// The hash of what a backend published under a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublishHash(pub(super) u128);

impl super::remember::HeapSize for PublishHash {
    fn heap_bytes(&self) -> usize {
        0
    }
}
