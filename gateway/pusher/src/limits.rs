//! Every limit of the Pusher protocol: the default, its unit, and its source. They are an app's
//! `[apps.limits]`; raise them there.

use serde::Deserialize;

use super::Compat;

/// Limits of one app's Pusher clients and its HTTP API.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PusherLimits {
    /// Bytes of a channel's name, prefix included. The server SDKs check 200; the protocol's
    /// documentation says 164.
    pub channel_name_bytes_max: usize,
    /// Bytes of an event's name, published or of a client event. Documented: 200.
    pub event_name_bytes_max: usize,
    /// Bytes of an event's data, published or of a client event. Documented: 10 KB, which the
    /// SDKs' tests take as 10 × 1024; beyond it the HTTP API answers 413.
    pub event_data_bytes_max: usize,
    /// Channels of one publish. Documented: 100.
    pub channels_per_event_max: usize,
    /// Events of one batch. Documented: 10.
    pub batch_events_max: usize,
    /// Distinct users in one presence channel. Absent: 100, as documented; with `compat = "reverb"` no limit,
    /// as Reverb has none.
    pub presence_members_max: Option<u32>,
    /// Bytes of a user's id. Documented: 128 characters.
    pub user_id_bytes_max: usize,
    /// Bytes of a user's `user_info`, as JSON. Documented: 1 KB.
    pub user_info_bytes_max: usize,
    /// Users that one signed-in user may watch; those beyond are left out and the client gets error 4302.
    /// Documented: 100.
    pub watchlist_max: usize,
    /// Client events of one connection per second; those beyond are dropped and the client gets error 4301.
    /// Absent: 10, as documented; with `compat = "reverb"` no limit, as Reverb has none by default.
    pub client_events_per_second_max: Option<u32>,
    /// Subscriptions of one connection per second, once it has made as many as it may hold; those beyond are
    /// refused (429). A sign-in counts as many as it watches users. The hosted service names no such limit.
    pub subscriptions_per_second_max: u32,
    /// Subscriptions of all connections of the app at one gateway per second, divided evenly among its
    /// shards; beyond, each subscribing connection waits for the next second.
    pub app_subscriptions_per_second_max: u32,
    /// How many seconds a request's `auth_timestamp` may differ from this machine's clock, either way.
    /// Documented: 600.
    pub timestamp_window_seconds: u64,
}

impl Default for PusherLimits {
    fn default() -> Self {
        Self {
            channel_name_bytes_max: 200,
            event_name_bytes_max: 200,
            event_data_bytes_max: 10_240,
            channels_per_event_max: 100,
            batch_events_max: 10,
            presence_members_max: None,
            user_id_bytes_max: 128,
            user_info_bytes_max: 1024,
            watchlist_max: 100,
            client_events_per_second_max: None,
            subscriptions_per_second_max: 50,
            app_subscriptions_per_second_max: 20_000,
            timestamp_window_seconds: 600,
        }
    }
}

impl PusherLimits {
    /// The most users in one presence channel; none for no limit.
    #[must_use]
    pub fn members_max(&self, compat: Compat) -> Option<u32> {
        self.presence_members_max.or(match compat {
            Compat::Pusher => Some(100),
            Compat::Reverb => None,
        })
    }

    /// The longest message of a client, in bytes: an event as large as it may be, written with escapes.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        2 * self.event_data_bytes_max + 4096
    }

    /// The most client events of one connection per second; none for no limit.
    #[must_use]
    pub fn client_events_max(&self, compat: Compat) -> Option<u32> {
        self.client_events_per_second_max.or(match compat {
            Compat::Pusher => Some(10),
            Compat::Reverb => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_has_its_default_and_a_wrong_word_is_an_error() {
        let limits: PusherLimits = toml::from_str("event_data_bytes_max = 1_000_000").unwrap();
        assert_eq!(limits, PusherLimits { event_data_bytes_max: 1_000_000, ..PusherLimits::default() });
        assert_eq!(
            (limits.members_max(Compat::Pusher), limits.members_max(Compat::Reverb)),
            (Some(100), None)
        );
        let events = |limits: &PusherLimits| {
            [Compat::Pusher, Compat::Reverb].map(|compat| limits.client_events_max(compat))
        };
        assert_eq!(events(&limits), [Some(10), None]);
        // An explicit setting overrides either default.
        let set: PusherLimits =
            toml::from_str("client_events_per_second_max = 3\npresence_members_max = 4").unwrap();
        assert_eq!((events(&set), set.members_max(Compat::Reverb)), ([Some(3); 2], Some(4)));
        let error = toml::from_str::<PusherLimits>("event_data_max = 1").unwrap_err();
        assert!(error.to_string().contains("event_data_max"), "{error}");
    }
}
