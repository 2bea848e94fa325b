//! The core's configuration, and its load.

use std::time::Duration;

use broadgate_proto::{id::Incarnation, limits};

use crate::{ledger::NotifiedState, topic::Topic};

/// Times and sizes.
#[derive(Debug, Clone, Copy)]
pub struct TopicLimits {
    /// A gateway silent for this long is not waited for.
    pub link_timeout: Duration,
    /// How long a question may be parked.
    pub parking_time_max: Duration,
    /// How many bytes may be parked.
    pub parking_bytes_max: usize,
    /// How long an entrance may wait for its home.
    pub enter_time_max: Duration,
    /// Bytes of commands on a link that its peer has not accepted; beyond, it is not asked.
    pub untaken_bytes_max: usize,
    /// Bytes of unanswered questions of this gateway's callers.
    pub asked_bytes_max: usize,
    /// Bytes that groups retain.
    pub retained_bytes_max: usize,
    /// Bytes that the groups of one app retain.
    pub retained_app_bytes_max: usize,
}

impl Default for TopicLimits {
    fn default() -> Self {
        Self {
            link_timeout: limits::LINK_TIMEOUT,
            parking_time_max: limits::PARKING_TIME_MAX,
            parking_bytes_max: limits::PARKING_BYTES_MAX,
            enter_time_max: limits::ENTER_TIME_MAX,
            untaken_bytes_max: limits::LINK_UNTAKEN_BYTES_MAX,
            asked_bytes_max: limits::ASKED_BYTES_MAX,
            retained_bytes_max: limits::RETAINED_BYTES_MAX,
            retained_app_bytes_max: limits::RETAINED_APP_BYTES_MAX,
        }
    }
}

/// The journal of an earlier run.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// The gateway's incarnation then.
    pub me: Option<Incarnation>,
    /// The gateways of its last view.
    pub gateways: Vec<Incarnation>,
    /// What receivers had been notified of, for the groups whose home it was.
    pub notified: Vec<(Topic, NotifiedState)>,
}

/// The current load of a gateway's homes, for metrics and tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HomesLoad {
    /// Topics with interest whose home this gateway is.
    pub homes: usize,
    /// Parked questions.
    pub parked: usize,
    /// Unanswered questions of callers.
    pub asked: usize,
    /// Unanswered deliveries.
    pub deliveries: usize,
    /// Gateways of the view that have not synced.
    pub unsynced: usize,
    /// Bytes that groups retain.
    pub retained_bytes: usize,
}
