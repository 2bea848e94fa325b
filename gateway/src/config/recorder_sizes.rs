//! How much a gateway remembers of what has ended, was refused and was sent.

use broadgate_proto::limits;
use serde::Deserialize;

/// The `[gateway.recorder]` section: the newest are kept in memory, and 0 keeps none.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecorderSizes {
    /// Ends that the gateway caused, for each shard.
    pub caused_max: usize,
    /// Ends that the clients caused, or their networks, for each shard.
    pub own_max: usize,
    /// Refusals, for the gateway.
    pub refused_max: usize,
    /// Sends, for each shard.
    pub sends_max: usize,
    /// Joins, leaves and changed uids, for each shard.
    pub joins_max: usize,
    /// Deliveries that were dropped, for each shard.
    pub drops_max: usize,
}

impl Default for RecorderSizes {
    fn default() -> Self {
        Self {
            caused_max: limits::ENDS_CAUSED_MAX,
            own_max: limits::ENDS_OWN_MAX,
            refused_max: limits::REFUSALS_KEPT_MAX,
            sends_max: limits::SENDS_KEPT_MAX,
            joins_max: limits::MOVES_KEPT_MAX,
            drops_max: limits::DROPS_KEPT_MAX,
        }
    }
}

impl RecorderSizes {
    /// The name and value of each.
    pub(super) fn named(self) -> [(&'static str, usize); 6] {
        let Self { caused_max, own_max, refused_max, sends_max, joins_max, drops_max } = self;
        [
            ("caused_max", caused_max),
            ("own_max", own_max),
            ("refused_max", refused_max),
            ("sends_max", sends_max),
            ("joins_max", joins_max),
            ("drops_max", drops_max),
        ]
    }
}
