//! What the core is started with, and what it tells of its load.

use std::time::Duration;

use broadgate_proto::{id::Incarnation, limits};

use crate::{account::Told, topic::Topic};

/// How long and how much.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A gateway that was not heard for this long is not waited for.
    pub link_timeout: Duration,
    /// What a home cannot do yet waits at most this long.
    pub parking_time_max: Duration,
    /// And at most this much.
    pub parking_bytes_max: usize,
    /// Who enters a group waits at most this long until its home knows of them.
    pub enter_time_max: Duration,
    /// Commands on a link that its peer has not taken; beyond, it is not asked.
    pub untaken_bytes_max: usize,
    /// What our callers have asked of homes and was not answered, in bytes.
    pub asked_bytes_max: usize,
    /// What groups keep, in bytes.
    pub kept_bytes_max: usize,
    /// And the groups of one app.
    pub kept_app_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            link_timeout: limits::LINK_TIMEOUT,
            parking_time_max: limits::PARKING_TIME_MAX,
            parking_bytes_max: limits::PARKING_BYTES_MAX,
            enter_time_max: limits::ENTER_TIME_MAX,
            untaken_bytes_max: limits::LINK_UNTAKEN_BYTES_MAX,
            asked_bytes_max: limits::ASKED_BYTES_MAX,
            kept_bytes_max: limits::KEPT_BYTES_MAX,
            kept_app_bytes_max: limits::KEPT_APP_BYTES_MAX,
        }
    }
}

/// What the journal of an earlier run says.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// The gateway's incarnation then.
    pub me: Option<Incarnation>,
    /// The gateways of its last view.
    pub gateways: Vec<Incarnation>,
    /// What receivers had heard of the groups whose home it was.
    pub told: Vec<(Topic, Told)>,
}

/// What a gateway's homes have to do at the moment, for metrics and tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Topics that anybody holds and whose home this is.
    pub homes: usize,
    /// Questions that wait for gateways to sync.
    pub parked: usize,
    /// Questions of callers that are not answered.
    pub asked: usize,
    /// Deliveries that are not answered.
    pub deliveries: usize,
    /// Gateways of the view that have not said what they hold.
    pub unsynced: usize,
    /// Bytes of what groups keep.
    pub kept_bytes: usize,
}
