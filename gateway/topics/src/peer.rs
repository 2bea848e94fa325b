//! What is known of one peer: its links, and how far it has synced.

use std::{collections::VecDeque, time::Duration};

use broadgate_proto::v1::Epoch;

use crate::{membership::Session, topic::Topic};

/// What this gateway knows of another one.
#[derive(Debug)]
pub(super) struct Peer {
    /// Our link to it is open.
    pub(super) open: bool,
    /// Its link to us, if it is open.
    pub(super) session: Option<Session>,
    /// The view in which it spoke last on that link.
    pub(super) spoke: Epoch,
    /// Nothing was heard since then, if its link is not open.
    pub(super) silent_since: Duration,
    /// By which view it has said on that link what it holds.
    pub(super) synced: Option<Epoch>,
    /// Since when it has been unsynced; none while it is synced.
    pub(super) unsynced_since: Option<Duration>,
    /// The last hold that was said to it, and the last that it has taken.
    pub(super) serial: u64,
    pub(super) taken: u64,
    /// Topics that we hold no more, the serial that says so, and since when. While its link is broken, only
    /// the newest: what is older is not said in the next sync, and that says it.
    pub(super) retracted: VecDeque<(u64, Topic, Duration)>,
    /// The last hold of it that we have taken and not acknowledged.
    pub(super) acknowledge: Option<u64>,
    /// Bytes of commands that it has not taken.
    pub(super) untaken: usize,
}

impl Peer {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            open: false,
            session: None,
            spoke: Epoch::default(),
            silent_since: now,
            synced: None,
            unsynced_since: Some(now),
            serial: 0,
            taken: 0,
            retracted: VecDeque::new(),
            acknowledge: None,
            untaken: 0,
        }
    }

    /// On its link to us, which is open.
    pub(super) fn has_spoken(&self) -> bool {
        self.session.is_some() && self.spoke > Epoch::default()
    }
}
