//! What is known of the end of a client besides its cause.

use crate::shard::counters::Drop;

/// What an end says besides its cause: set by who ends an open client, right before.
#[derive(Default)]
pub(crate) struct EndDetails {
    /// The setting whose limit was met; "" if the cause tells.
    pub(crate) limit: &'static str,
    /// Messages that were dropped, and their bytes.
    pub(crate) unsent: (u64, u64),
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
