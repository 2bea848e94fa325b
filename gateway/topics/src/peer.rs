//! The state of one peer: its links, and how far it has synced.

use std::{collections::VecDeque, time::Duration};

use broadgate_proto::v1::Epoch;

use crate::{membership::LinkSession, topic::Topic};

/// What this gateway knows of another one.
#[derive(Debug)]
pub(super) struct Peer {
    /// Our link to it is open.
    pub(super) open: bool,
    /// When it was last heard on our link to it, if that is not open.
    pub(super) closed_since: Duration,
    /// The session of its link to us, if it is open.
    pub(super) session: Option<LinkSession>,
    /// The view of its last frame on that link.
    pub(super) spoke: Epoch,
    /// Since when it has been silent, if its link is not open.
    pub(super) silent_since: Duration,
    /// The view by which it has synced on that link.
    pub(super) synced: Option<Epoch>,
    /// Since when it has been unsynced; none while it is synced.
    pub(super) unsynced_since: Option<Duration>,
    /// The serial of the last interest update sent, and of the last that it has acknowledged.
    pub(super) serial: u64,
    pub(super) taken: u64,
    /// Topics that this gateway has left, the serial of that update, and since when. While the link is
    /// broken, only the newest: the next sync retracts older ones by omission.
    pub(super) retracted: VecDeque<(u64, Topic, Duration)>,
    /// The last of its serials that is accepted and not acknowledged.
    pub(super) acknowledge: Option<u64>,
    /// Bytes of commands that it has not accepted.
    pub(super) untaken: usize,
}

impl Peer {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            open: false,
            closed_since: now,
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

    /// Whether it has sent anything on its link to us, which is open.
    pub(super) fn has_spoken(&self) -> bool {
        self.session.is_some() && self.spoke > Epoch::default()
    }
}
