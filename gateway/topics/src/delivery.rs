//! Commands that a home has forwarded, and idempotency keys that backends have claimed.

use std::{collections::BTreeSet, time::Duration};

use broadgate_proto::{id::Incarnation, v1::Epoch};

use crate::{content::Content, parking::ReplyTarget, retention::Position, topic::Topic};

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
    /// The topic in which a gateway will have a client after this.
    pub(super) expects: Option<Topic>,
}

/// The hash of what a backend published under a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublishHash(pub(super) u128);

impl super::remember::HeapSize for PublishHash {
    fn heap_bytes(&self) -> usize {
        0
    }
}
