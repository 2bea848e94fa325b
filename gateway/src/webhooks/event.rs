//! An event on its way to one endpoint, and what becomes of it. Pure.

use std::{sync::Arc, time::Duration};

use broadgate_proto::limits::WEBHOOK_EVENT_OVERHEAD_BYTES;

use super::arrival::Arrival;
use super::health;

/// An event on its way to one endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EndpointEvent {
    /// Grows with every event of every endpoint; events of one channel go in its order.
    pub(super) seq: u64,
    pub(super) channel: Arc<str>,
    /// When it became one, in milliseconds since 1970.
    pub(super) at_ms: u64,
    pub(super) json: Arc<str>,
    /// Ends with the event: it was delivered, or never will be.
    pub(super) arrival: Option<Arrival>,
}

/// How the JSON of an event begins that tells of a channel's first subscriber.
pub(super) const OCCUPIED: &str = r#"{"name":"channel_occupied","#;
/// And of its last.
pub(super) const VACATED: &str = r#"{"name":"channel_vacated","#;

impl EndpointEvent {
    /// Is it one of these? Asked of its JSON: that is all that the spool keeps of it.
    pub(super) fn is(&self, kind: &str) -> bool {
        self.json.starts_with(kind)
    }

    pub(super) fn bytes(&self) -> usize {
        self.json.len() + self.channel.len() + WEBHOOK_EVENT_OVERHEAD_BYTES
    }
}

/// What is to be done for an endpoint, or was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WebhookEffect {
    /// Something new waits.
    Queued(Arc<EndpointEvent>),
    /// Post these, and say what came of it.
    Post {
        flight: u64,
        events: Vec<Arc<EndpointEvent>>,
    },
    /// The receiver has it, after so long.
    Delivered {
        event: Arc<EndpointEvent>,
        waited: Duration,
    },
    /// The receiver does not get it.
    Dropped {
        event: Arc<EndpointEvent>,
        reason: DropReason,
    },
    News(health::HealthChange),
}

/// Why the receiver does not get an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DropReason {
    /// It was tried for long enough.
    GivenUp,
    /// Too much waits, and it was the oldest.
    QueueFull,
    /// The endpoint is configured no more.
    EndpointGone,
}

impl DropReason {
    /// For metrics.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::GivenUp => "given_up",
            Self::QueueFull => "queue_full",
            Self::EndpointGone => "endpoint_gone",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhooks::Fact;

    #[test]
    fn kinds_are_known_by_their_json() {
        let channel = || "x".to_owned();
        for (fact, kind) in [
            (Fact::Occupied { channel: channel() }, Some(OCCUPIED)),
            (Fact::Vacated { channel: channel() }, Some(VACATED)),
            (Fact::CacheMiss { channel: channel() }, None),
        ] {
            let json = fact.json("1").into();
            let event = EndpointEvent { seq: 1, channel: "x".into(), at_ms: 0, json, arrival: None };
            assert_eq!([OCCUPIED, VACATED].into_iter().find(|kind| event.is(kind)), kind);
        }
    }
}
