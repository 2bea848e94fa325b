//! What has happened in a channel, and how a webhook says it. Pure.

use serde::Serialize;
use serde_json::value::RawValue;

use super::arrival::Arrival;
use crate::{apps::WebhookEvent, fair_queue::Says};

/// A fact, and what ends when every endpoint has it, or never will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TrackedFact {
    pub(crate) fact: Fact,
    pub(crate) arrival: Option<Arrival>,
}

impl From<Fact> for TrackedFact {
    fn from(fact: Fact) -> Self {
        Self { fact, arrival: None }
    }
}

/// Something that has happened in a channel of an app, as the channel's home knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fact {
    /// The channel has its first subscriber in the cluster.
    Occupied { channel: String },
    /// The channel's last subscriber has left.
    Vacated { channel: String },
    /// A user has come into a presence channel.
    MemberAdded { channel: String, user_id: String },
    /// A user has left a presence channel.
    MemberRemoved { channel: String, user_id: String },
    /// A client has sent a client event.
    ClientEvent {
        channel: String,
        event: String,
        /// JSON, as the client sent it.
        data: String,
        socket_id: String,
        /// In a presence channel: who it was.
        user_id: Option<String>,
    },
    /// Somebody has subscribed to a cache channel that keeps nothing.
    CacheMiss { channel: String },
    /// So many subscribers the channel has now.
    SubscriptionCount { channel: String, count: u64 },
}

impl Fact {
    /// What an endpoint can ask for.
    pub(super) const fn kind(&self) -> WebhookEvent {
        match self {
            Self::Occupied { .. } => WebhookEvent::ChannelOccupied,
            Self::Vacated { .. } => WebhookEvent::ChannelVacated,
            Self::MemberAdded { .. } => WebhookEvent::MemberAdded,
            Self::MemberRemoved { .. } => WebhookEvent::MemberRemoved,
            Self::ClientEvent { .. } => WebhookEvent::ClientEvent,
            Self::CacheMiss { .. } => WebhookEvent::CacheMiss,
            Self::SubscriptionCount { .. } => WebhookEvent::SubscriptionCount,
        }
    }

    /// Where it has happened.
    pub(super) fn channel(&self) -> &str {
        match self {
            Self::Occupied { channel }
            | Self::Vacated { channel }
            | Self::MemberAdded { channel, .. }
            | Self::MemberRemoved { channel, .. }
            | Self::ClientEvent { channel, .. }
            | Self::CacheMiss { channel }
            | Self::SubscriptionCount { channel, .. } => channel,
        }
    }

    /// Which other facts make it superfluous.
    pub(super) fn says(&self) -> Says<'_> {
        match self {
            Self::Occupied { .. } => Says::Begins(None),
            Self::Vacated { .. } => Says::Ends(None),
            Self::MemberAdded { user_id, .. } => Says::Begins(Some(user_id)),
            Self::MemberRemoved { user_id, .. } => Says::Ends(Some(user_id)),
            Self::ClientEvent { .. } => Says::Once,
            Self::CacheMiss { .. } => Says::Newest("cache_miss"),
            Self::SubscriptionCount { .. } => Says::Newest("count"),
        }
    }

    /// Bytes of its texts.
    pub(super) fn bytes(&self) -> usize {
        self.channel().len()
            + match self {
                Self::MemberAdded { user_id, .. } | Self::MemberRemoved { user_id, .. } => user_id.len(),
                Self::ClientEvent { event, data, socket_id, user_id, .. } => {
                    event.len() + data.len() + socket_id.len() + user_id.as_ref().map_or(0, String::len)
                }
                _ => 0,
            }
    }

    /// The event in a post. `id` is for receivers that must not take an event twice; the hosted service
    /// has no such field.
    pub(super) fn json(&self, id: &str) -> String {
        let mut wire =
            FactJson { name: self.kind().name(), channel: self.channel(), id, ..FactJson::default() };
        match self {
            Self::Occupied { .. } | Self::Vacated { .. } | Self::CacheMiss { .. } => {}
            Self::MemberAdded { user_id, .. } | Self::MemberRemoved { user_id, .. } => {
                wire.user_id = Some(user_id);
            }
            Self::ClientEvent { event, data, socket_id, user_id, .. } => {
                wire.event = Some(event);
                wire.data = Some(text_of(data));
                wire.socket_id = Some(socket_id);
                wire.user_id = user_id.as_deref();
            }
            Self::SubscriptionCount { count, .. } => wire.subscription_count = Some(*count),
        }
        // Texts and numbers always have a JSON form.
        serde_json::to_string(&wire).unwrap_or_default()
    }
}

/// `data` is always a string for the receiver: SDKs decrypt or parse it themselves.
fn text_of(data: &str) -> String {
    serde_json::from_str::<String>(data).unwrap_or_else(|_| {
        let value: Result<&RawValue, _> = serde_json::from_str(data);
        value.map_or(data, RawValue::get).to_owned()
    })
}

#[derive(Default, Serialize)]
struct FactJson<'a> {
    name: &'static str,
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_count: Option<u64>,
    id: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_look_as_the_hosted_service_writes_them_and_have_an_id() {
        let channel = || "presence-x".to_owned();
        let user = || "u\"1".to_owned();
        let client = |data: &str, user_id| Fact::ClientEvent {
            channel: channel(),
            event: "client-typing".into(),
            data: data.into(),
            socket_id: "1.2".into(),
            user_id,
        };
        for (fact, json) in [
            (
                Fact::Occupied { channel: channel() },
                r#"{"name":"channel_occupied","channel":"presence-x","id":"7"}"#,
            ),
            (
                Fact::Vacated { channel: channel() },
                r#"{"name":"channel_vacated","channel":"presence-x","id":"7"}"#,
            ),
            (
                Fact::MemberAdded { channel: channel(), user_id: user() },
                r#"{"name":"member_added","channel":"presence-x","user_id":"u\"1","id":"7"}"#,
            ),
            (
                Fact::MemberRemoved { channel: channel(), user_id: user() },
                r#"{"name":"member_removed","channel":"presence-x","user_id":"u\"1","id":"7"}"#,
            ),
            (
                client(" {\"a\": 1}\n", Some(user())),
                r#"{"name":"client_event","channel":"presence-x","event":"client-typing","data":"{\"a\": 1}","socket_id":"1.2","user_id":"u\"1","id":"7"}"#,
            ),
            (
                client(r#""{\"a\":1}""#, None),
                r#"{"name":"client_event","channel":"presence-x","event":"client-typing","data":"{\"a\":1}","socket_id":"1.2","id":"7"}"#,
            ),
            (
                Fact::CacheMiss { channel: channel() },
                r#"{"name":"cache_miss","channel":"presence-x","id":"7"}"#,
            ),
            (
                Fact::SubscriptionCount { channel: channel(), count: 3 },
                r#"{"name":"subscription_count","channel":"presence-x","subscription_count":3,"id":"7"}"#,
            ),
        ] {
            assert_eq!(fact.json("7"), json);
            assert!(fact.bytes() >= fact.channel().len());
        }
    }
}
