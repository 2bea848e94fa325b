//! A command that its home has passed on, and keys that backends have claimed.

use std::{collections::BTreeSet, time::Duration};

use broadgate_proto::{id::Incarnation, v1::Epoch};

use crate::{content::Content, keep::Position, parking::Origin, topic::Topic};

/// A command that was passed on and is not answered by everybody yet.
#[derive(Debug)]
pub(super) struct Delivery<C: Content> {
    pub(super) origin: Origin,
    pub(super) topic: Topic,
    pub(super) epoch: Epoch,
    pub(super) waiting: BTreeSet<Incarnation>,
    pub(super) answer: Option<C::Answer>,
    pub(super) gateways: u32,
    pub(super) missing: BTreeSet<Incarnation>,
    /// Somebody knows a later home: the command must be made again there.
    pub(super) stale: bool,
    pub(super) since: Duration,
    pub(super) position: Option<Position>,
    /// The topic that a gateway will have a client of by this.
    pub(super) expects: Option<Topic>,
}

/// By a hash, what a backend has published under a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Print(pub(super) u128);

impl super::remember::Kept for Print {
    fn heap_bytes(&self) -> usize {
        0
    }
}
