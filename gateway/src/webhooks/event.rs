//! An event on its way to one endpoint, and what becomes of it. Pure.

use std::{sync::Arc, time::Duration};

use broadgate_proto::limits::WEBHOOK_EVENT_OVERHEAD_BYTES;

use super::health;
use crate::actor::Arrival;

/// An event on its way to one endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Grows with every event of every endpoint; events of one channel go in its order.
    pub(super) seq: u64,
    pub(super) channel: Arc<str>,
    /// When it became one, in milliseconds since 1970.
    pub(super) at_ms: u64,
    pub(super) json: Arc<str>,
    /// Ends with the event: it was delivered, or never will be.
    pub(super) arrival: Option<Arrival>,
}

impl Event {
    pub(super) fn bytes(&self) -> usize {
        self.json.len() + self.channel.len() + WEBHOOK_EVENT_OVERHEAD_BYTES
    }
}

/// What is to be done for an endpoint, or was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Something new waits.
    Queued(Arc<Event>),
    /// Post these, and say what came of it.
    Post {
        flight: u64,
        events: Vec<Arc<Event>>,
    },
    /// The receiver has it, after so long.
    Delivered {
        event: Arc<Event>,
        waited: Duration,
    },
    /// The receiver does not get it.
    Dropped {
        event: Arc<Event>,
        reason: Reason,
    },
    News(health::News),
}

/// Why the receiver does not get an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// It was tried for long enough.
    GivenUp,
    /// Too much waits, and it was the oldest.
    QueueFull,
    /// The endpoint is configured no more.
    EndpointGone,
}

impl Reason {
    /// For metrics.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::GivenUp => "given_up",
            Self::QueueFull => "queue_full",
            Self::EndpointGone => "endpoint_gone",
        }
    }
}
