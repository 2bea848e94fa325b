//! What happened in the cluster lately, for operators: a ring in memory.
//!
//! Each gateway remembers what it has seen itself, so several gateways note the same event of the cluster. Noting one
//! takes a lock for a moment, and so is for what is rare: nothing that clients do is noted here.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use broadgate_proto::{
    limits::{EVENT_TEXT_BYTES_MAX, EVENTS_KEPT_BYTES_MAX, EVENTS_KEPT_MAX, PAGE_MAX},
    v1,
};

use crate::refusals::now_ms;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A gateway or worker has joined, drains or is gone.
    Members,
    /// Apps or tokens were read again.
    Settings,
    /// Something that an operator should look at, or its end.
    Alarm,
    /// What a caller did, as the audit has it.
    Audit,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Members, Self::Settings, Self::Alarm, Self::Audit];

    /// Its name in requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Members => "members",
            Self::Settings => "settings",
            Self::Alarm => "alarm",
            Self::Audit => "audit",
        }
    }
}

/// Which events are asked for.
#[derive(Debug, Default)]
pub(crate) struct EventQuestion {
    pub(crate) since_ms: u64,
    /// None means all.
    pub(crate) kinds: Vec<EventKind>,
    /// By gateway: only those after this number.
    pub(crate) after: HashMap<String, u64>,
    /// The newest.
    pub(crate) limit: usize,
}

/// The last events of a gateway. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct EventLog(Arc<Mutex<EventRing>>);

#[derive(Debug, Default)]
struct EventRing {
    events: VecDeque<v1::OperatorEvent>,
    bytes: usize,
    /// The number of the newest one ever.
    last: u64,
    /// The time of the newest one that was forgotten; 0 if none was.
    forgotten_ms: u64,
}

impl EventLog {
    fn ring(&self) -> MutexGuard<'_, EventRing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an event: what happened in a word or two, and in a sentence.
    pub fn note(&self, kind: EventKind, what: &str, text: impl Into<String>) {
        let text = cut(text.into());
        self.add(v1::OperatorEvent { text, ..event(kind, what) });
    }

    /// Notes a line of the audit.
    pub(crate) fn note_audit(&self, what: &str, text: String, audit_json: String) {
        self.add(v1::OperatorEvent { text: cut(text), audit_json, ..event(EventKind::Audit, what) });
    }

    fn add(&self, mut event: v1::OperatorEvent) {
        event.at_ms = now_ms();
        self.ring().push(event);
    }

    /// What is remembered of it, under this gateway's name.
    pub(crate) fn find(&self, question: &EventQuestion, gateway: &str) -> v1::EventsReply {
        let ring = self.ring();
        let after = question.after.get(gateway).copied().unwrap_or(0);
        let wanted = ring.events.iter().rev().filter(|event| {
            event.number > after && event.at_ms >= question.since_ms && question.is_kind(&event.kind)
        });
        let limit = question.limit.min(PAGE_MAX as usize);
        let named =
            |event: &v1::OperatorEvent| v1::OperatorEvent { gateway: gateway.to_owned(), ..event.clone() };
        let mut events: Vec<_> = wanted.take(limit).map(named).collect();
        events.reverse();
        v1::EventsReply {
            coverage: None,
            events,
            newest: HashMap::from([(gateway.to_owned(), ring.last)]),
            forgotten_ms: HashMap::from([(gateway.to_owned(), ring.forgotten_ms)]),
        }
    }
}

impl EventQuestion {
    fn is_kind(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|wanted| wanted.name() == kind)
    }
}

impl EventRing {
    fn push(&mut self, mut event: v1::OperatorEvent) {
        // Microseconds: they rise also when the gateway is started again.
        self.last = (event.at_ms * 1000).max(self.last + 1);
        event.number = self.last;
        self.bytes += weight(&event);
        self.events.push_back(event);
        while self.events.len() > EVENTS_KEPT_MAX || self.bytes > EVENTS_KEPT_BYTES_MAX {
            let Some(forgotten) = self.events.pop_front() else { return };
            self.bytes -= weight(&forgotten);
            self.forgotten_ms = forgotten.at_ms;
        }
    }
}

fn event(kind: EventKind, what: &str) -> v1::OperatorEvent {
    let (kind, what) = (kind.name().to_owned(), what.to_owned());
    v1::OperatorEvent { kind, what, ..v1::OperatorEvent::default() }
}

fn weight(event: &v1::OperatorEvent) -> usize {
    size_of::<v1::OperatorEvent>() + event.text.len() + event.audit_json.len() + event.what.len()
}

/// A text of bounded length.
fn cut(mut text: String) -> String {
    if text.len() > EVENT_TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(EVENT_TEXT_BYTES_MAX));
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(log: &EventLog, question: &EventQuestion) -> Vec<String> {
        log.find(question, "gw-1").events.into_iter().map(|event| event.text).collect()
    }

    fn all() -> EventQuestion {
        EventQuestion { limit: 10, ..EventQuestion::default() }
    }

    #[test]
    fn the_newest_of_the_kinds_are_found_in_order() {
        let log = EventLog::default();
        for number in 0..20 {
            let kind = if number % 2 == 0 { EventKind::Members } else { EventKind::Alarm };
            log.note(kind, "what", number.to_string());
        }
        assert_eq!(texts(&log, &EventQuestion { limit: 2, ..all() }), ["18", "19"]);
        let alarms = EventQuestion { kinds: vec![EventKind::Alarm], limit: 2, ..all() };
        assert_eq!(texts(&log, &alarms), ["17", "19"]);
        let newest = log.find(&all(), "gw-1").newest;
        log.note(EventKind::Alarm, "what", "after");
        let later = EventQuestion { after: newest, ..all() };
        assert_eq!(texts(&log, &later), ["after"], "each comes once to a caller that says where it was");
        assert_eq!(log.find(&later, "gw-2").events.len(), 10, "numbers are each gateway's own");
        let future = EventQuestion { since_ms: now_ms() + 60_000, ..all() };
        assert_eq!(texts(&log, &future), [""; 0]);
    }

    #[test]
    fn memory_is_bounded_by_count_and_bytes() {
        let log = EventLog::default();
        for _ in 0..2 * EVENTS_KEPT_MAX {
            log.note(EventKind::Members, "joined", "x");
        }
        assert_eq!(log.ring().events.len(), EVENTS_KEPT_MAX);
        assert!(log.find(&all(), "gw-1").forgotten_ms["gw-1"] > 0);
        for _ in 0..EVENTS_KEPT_MAX {
            log.note_audit("close", "\u{e9}".repeat(EVENT_TEXT_BYTES_MAX), "j".repeat(4096));
        }
        let ring = log.ring();
        assert!(ring.bytes <= EVENTS_KEPT_BYTES_MAX && ring.events.len() < EVENTS_KEPT_MAX);
        let numbers: Vec<u64> = ring.events.iter().map(|event| event.number).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next));
    }
}
