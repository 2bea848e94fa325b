//! What groups retain.

use std::time::Duration;

use serde::Deserialize;

use crate::config::listener::default_app;

/// Groups that keep what was sent to them alone. The same at every gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetainedGroups {
    /// The app of the groups.
    #[serde(default = "default_app")]
    pub app: String,
    /// A group's name, or how it begins if the last character is `*`. The first entry that fits counts.
    pub pattern: String,
    /// So many of the last messages are kept at the group's home; 0 for none.
    #[serde(default)]
    pub history_messages: usize,
    /// For so long.
    #[serde(
        default = "default_history_time",
        deserialize_with = "broadgate_proto::time_setting::deserialize"
    )]
    pub history_time: Duration,
    /// For so long, every gateway with members keeps the last message; 0 for not at all.
    #[serde(default, deserialize_with = "broadgate_proto::time_setting::deserialize")]
    pub last_value_time: Duration,
}

/// How the names of cache channels begin, in the Pusher protocol.
pub(super) const CACHE_PREFIXES: [&str; 4] =
    ["cache-", "private-cache-", "private-encrypted-cache-", "presence-cache-"];

/// How long a history is kept if that is not said.
pub(super) const DEFAULT_HISTORY_TIME: Duration = Duration::from_secs(300);

pub(super) fn default_history_time() -> Duration {
    DEFAULT_HISTORY_TIME
}
