//! How much a gateway remembers of what has ended and was refused.

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
}

impl Default for RecorderSizes {
    fn default() -> Self {
        Self {
            caused_max: limits::ENDS_CAUSED_MAX,
            own_max: limits::ENDS_OWN_MAX,
            refused_max: limits::REFUSALS_KEPT_MAX,
        }
    }
}

impl RecorderSizes {
    /// The name and value of each.
    pub(super) fn named(self) -> [(&'static str, usize); 3] {
        let Self { caused_max, own_max, refused_max } = self;
        [("caused_max", caused_max), ("own_max", own_max), ("refused_max", refused_max)]
    }
}
