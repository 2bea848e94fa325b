//! What a worker counts, with handles made once: the hot path must not look them up.

use broadgate_proto::v1::event;
use metrics::{Counter, Gauge, counter, gauge};

pub(crate) struct Meters {
    handshake: Counter,
    opened: Counter,
    message: Counter,
    closed: Counter,
    adopted: Counter,
    moved: Counter,
    pub(crate) pusher: Counter,
    pub(crate) pusher_missed: Counter,
    pub(crate) unknown: Counter,
    pub(crate) errors: Counter,
    pub(crate) panics: Counter,
    pub(crate) given_out_again: Counter,
    pub(crate) unanswered: Gauge,
    pub(crate) attached: Gauge,
    pub(crate) breaks: Counter,
    pub(crate) gateways_lost: Counter,
}

impl Meters {
    pub(crate) fn new() -> Self {
        let events = |kind: &'static str| counter!("broadgate_worker_events_total", "kind" => kind);
        Self {
            handshake: events("handshake"),
            opened: events("opened"),
            message: events("message"),
            closed: events("closed"),
            adopted: events("adopted"),
            moved: events("moved"),
            pusher: events("pusher"),
            pusher_missed: counter!("broadgate_worker_pusher_events_missed_total"),
            unknown: events("unknown"),
            errors: counter!("broadgate_worker_handler_errors_total"),
            panics: counter!("broadgate_worker_handler_panics_total"),
            given_out_again: counter!("broadgate_worker_events_dropped_total", "reason" => "given_out_again"),
            unanswered: gauge!("broadgate_worker_events_unanswered"),
            attached: gauge!("broadgate_worker_gateways_attached"),
            breaks: counter!("broadgate_worker_attach_failures_total"),
            gateways_lost: counter!("broadgate_worker_gateways_lost_total"),
        }
    }

    pub(crate) fn count(&self, event: &event::Event) {
        match event {
            event::Event::Handshake(_) => &self.handshake,
            event::Event::Opened(_) => &self.opened,
            event::Event::Message(_) => &self.message,
            event::Event::Closed(_) => &self.closed,
            event::Event::Adopted(_) => &self.adopted,
            event::Event::Moved(_) => &self.moved,
        }
        .increment(1);
    }
}
