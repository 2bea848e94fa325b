//! What is known of the end of a client besides its cause.

use broadgate_proto::view::LEASE_ENDED;

use crate::{recorder::EndPlace, shard::counters::Drop};

/// What an end says besides its cause: set by who ends an open client, right before.
#[derive(Default)]
pub(crate) struct EndDetails {
    /// The setting whose limit was met; "" if the cause tells.
    pub(crate) limit: &'static str,
    /// Messages that waited and were not written, and their bytes.
    pub(crate) unsent: (u64, u64),
}

/// Why a gateway had to join its cluster again, without its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RejoinCause {
    /// It did not beat for a lease.
    Lease,
    /// An operator removed it, another register did, or a newer gateway has its address; or a peer said so first, and
    /// not why.
    Removed,
}

impl RejoinCause {
    /// By the register's sentence.
    pub(crate) fn of(reason: &str) -> Self {
        if reason == LEASE_ENDED { Self::Lease } else { Self::Removed }
    }

    /// As ends of clients have it.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Removed => "removed",
        }
    }
}

/// A close that is under way.
#[derive(Default)]
pub(crate) struct ClosingEnd {
    /// Where its end is remembered, if what is unsent at last is yet to be added.
    pub(crate) recorded: Option<EndPlace>,
    /// The farewell's frames and bytes, which are the last in the outbox.
    pub(crate) farewell: (usize, usize),
}

impl EndDetails {
    /// A limit was met, and nothing is dropped.
    pub(crate) fn of(limit: &'static str) -> Self {
        Self { limit, ..Self::default() }
    }
}

/// Which limit a slow client has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlowBy {
    Bytes,
    Messages,
    Time,
    /// All outboxes together had too much.
    All,
}

impl SlowBy {
    /// The setting.
    pub(crate) fn limit(self) -> &'static str {
        match self {
            Self::Bytes => "outbox_bytes_max",
            Self::Messages => "outbox_messages_max",
            Self::Time => "outbox_time_max",
            Self::All => "outboxes_bytes_max",
        }
    }

    pub(crate) fn reason(self) -> Drop {
        if self == Self::All { Drop::OutboxesFull } else { Drop::Slow }
    }
}
