//! The events of one client that its worker has not answered, in order. Pure.

use std::collections::VecDeque;

use broadgate_proto::{
    limits::EVENT_DEATHS_MAX,
    v1::{Message, event::Event, message::Payload},
};

use crate::config::GatewayLimits;

/// Sent and unsent events; what is answered leaves. At most a few dozen, bounded by the caller that reads
/// from the client, in number and in bytes of messages.
#[derive(Default)]
pub(crate) struct Window {
    entries: VecDeque<UnansweredEvent>,
    bytes: usize,
}

/// What a window may hold before its client is not read from; a message always goes into an empty one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WindowMax {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

impl WindowMax {
    pub(crate) fn of(limits: &GatewayLimits) -> Self {
        Self { events: limits.events_per_client_max, bytes: limits.events_per_client_bytes_max }
    }
}

pub(crate) struct UnansweredEvent {
    /// The number under which it was sent; none if it was not sent to the present worker.
    pub(crate) seq: Option<u64>,
    /// So many workers had it and were lost.
    pub(crate) deaths: u8,
    pub(crate) event: Event,
}

impl UnansweredEvent {
    pub(crate) fn is_redelivered(&self) -> bool {
        self.deaths > 0
    }
}

impl Window {
    pub(crate) fn push(&mut self, event: Event) {
        self.bytes += bytes(&event);
        self.entries.push_back(UnansweredEvent { seq: None, deaths: 0, event });
    }

    /// The successor must hear of the adoption before anything else, and once.
    pub(crate) fn push_adopted(&mut self, adopted: Event) {
        if self.entries.front().is_some_and(|front| matches!(front.event, Event::Adopted(_))) {
            return;
        }
        self.entries.push_front(UnansweredEvent { seq: None, deaths: 0, event: adopted });
    }

    /// The next event to send.
    pub(crate) fn unsent(&mut self) -> Option<&mut UnansweredEvent> {
        self.entries.iter_mut().find(|entry| entry.seq.is_none())
    }

    /// The next event to send is the client's end, and something before it is unanswered: its handler may
    /// still change the session, which the end tells.
    pub(crate) fn closes_behind_others(&self) -> bool {
        self.entries.back().is_some_and(|last| last.seq.is_none() && matches!(last.event, Event::Closed(_)))
            && self.in_flight()
            && self.entries.iter().filter(|entry| entry.seq.is_none()).count() == 1
    }

    /// The event that was sent under this number.
    pub(crate) fn sent_as(&self, seq: u64) -> Option<&UnansweredEvent> {
        self.entries.iter().rev().find(|entry| entry.seq == Some(seq))
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.entries.iter().any(|entry| entry.seq.is_none())
    }

    /// Is anything sent and not answered?
    pub(crate) fn in_flight(&self) -> bool {
        self.entries.iter().any(|entry| entry.seq.is_some())
    }

    /// Takes an answered event out.
    pub(crate) fn answer(&mut self, seq: u64) -> Option<Event> {
        let index = self.entries.iter().position(|entry| entry.seq == Some(seq))?;
        let event = self.entries.remove(index)?.event;
        self.bytes -= bytes(&event);
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
        Some(event)
    }

    /// The worker is lost: everything that it had goes to another. Returns what does not: the event that is
    /// convicted of it, and what too many workers were lost with.
    pub(crate) fn lost(&mut self, convicted: Option<u64>) -> Vec<UnansweredEvent> {
        let mut given_up = Vec::new();
        for mut entry in std::mem::take(&mut self.entries) {
            if entry.seq.is_some() {
                entry.deaths = entry.deaths.saturating_add(1);
                if entry.seq == convicted || entry.deaths >= EVENT_DEATHS_MAX {
                    self.bytes -= bytes(&entry.event);
                    given_up.push(entry);
                    continue;
                }
                entry.seq = None;
            }
            self.entries.push_back(entry);
        }
        given_up
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// May its client be read from?
    pub(crate) fn has_room(&self, max: WindowMax) -> bool {
        self.entries.len() < max.events && self.bytes < max.bytes
    }

    /// Gives everything up; returns how many events that were.
    pub(crate) fn clear(&mut self) -> usize {
        std::mem::take(self).len()
    }
}

/// Only messages are large, and only they come as fast as a client likes.
fn bytes(event: &Event) -> usize {
    match event {
        Event::Message(Message { payload: Some(Payload::Text(text)) }) => text.len(),
        Event::Message(Message { payload: Some(Payload::Binary(bytes)) }) => bytes.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::v1::Adopted;
    use proptest::prelude::*;

    use super::*;

    fn event(number: u32) -> Event {
        Event::Message(Message { payload: Some(Payload::Text(number.to_string())) })
    }

    proptest! {
        /// Random sends, answers out of order, and lost workers: every worker sees what is left in
        /// order, and nothing is answered twice or forgotten.
        #[test]
        fn order_survives_lost_workers(steps in prop::collection::vec(0..4u8, 1..200)) {
            let mut window = Window::default();
            let (mut made, mut answered, mut seq) = (0, 0, 0);
            let mut seen: Vec<u32> = Vec::new();
            for step in steps {
                match step {
                    0 => {
                        window.push(event(made));
                        made += 1;
                    }
                    1 => {
                        if let Some(entry) = window.unsent() {
                            seq += 1;
                            entry.seq = Some(seq);
                            if let Event::Message(Message { payload: Some(Payload::Text(text)) }) = &entry.event {
                                seen.push(text.parse().unwrap());
                            }
                        }
                    }
                    2 => answered += u32::from(window.answer(seq).is_some()),
                    _ => {
                        answered += window.lost(None).len() as u32;
                        seen.clear();
                    }
                }
                prop_assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
                prop_assert_eq!(window.len() as u32, made - answered);
                prop_assert_eq!(window.bytes, window.entries.iter().map(|entry| bytes(&entry.event)).sum::<usize>());
            }
        }
    }

    #[test]
    fn window_is_full_by_number_or_by_bytes_and_an_empty_one_takes_any_message() {
        let max = WindowMax { events: 3, bytes: 100 };
        let large =
            |bytes: usize| Event::Message(Message { payload: Some(Payload::Binary(vec![0; bytes].into())) });
        let mut window = Window::default();
        assert!(window.has_room(max));
        window.push(large(1000));
        assert!(!window.has_room(max));
        window.unsent().unwrap().seq = Some(1);
        window.answer(1);
        (0..3).for_each(|_| {
            assert!(window.has_room(max));
            window.push(large(33));
        });
        assert!(!window.has_room(max), "the number counts as well");
        window.clear();
        assert!(window.has_room(max));
    }

    #[test]
    fn the_end_waits_for_the_answers_before_it() {
        let mut window = Window::default();
        window.push(event(1));
        window.push(Event::Closed(broadgate_proto::v1::Closed::default()));
        assert!(!window.closes_behind_others(), "the message comes first");
        window.unsent().unwrap().seq = Some(1);
        assert!(window.closes_behind_others());
        window.answer(1);
        assert!(!window.closes_behind_others());
        assert!(matches!(window.unsent().unwrap().event, Event::Closed(_)));
    }

    #[test]
    fn adoption_comes_first_and_once() {
        let mut window = Window::default();
        window.push(event(1));
        window.unsent().unwrap().seq = Some(9);
        assert!(window.lost(None).is_empty());
        for _ in 0..2 {
            window.push_adopted(Event::Adopted(Adopted::default()));
        }
        let first = window.unsent().unwrap();
        assert!(matches!(first.event, Event::Adopted(_)) && !first.is_redelivered());
        first.seq = Some(10);
        assert!(window.unsent().unwrap().is_redelivered());
        assert_eq!(window.len(), 2);
    }

    #[test]
    fn convicted_event_is_given_up_and_what_is_behind_it_goes_on() {
        let mut window = Window::default();
        for number in 0..3 {
            window.push(event(number));
        }
        for seq in [7, 8] {
            window.unsent().unwrap().seq = Some(seq);
        }
        let given_up = window.lost(Some(7));
        assert_eq!((given_up.len(), given_up[0].seq, given_up[0].deaths), (1, Some(7), 1));
        assert_eq!(window.len(), 2);
        for death in 2..=EVENT_DEATHS_MAX {
            let next = window.unsent().unwrap();
            assert_eq!((&next.event, next.deaths), (&event(1), death - 1));
            next.seq = Some(death.into());
            assert_eq!(window.lost(None).len(), usize::from(death == EVENT_DEATHS_MAX));
        }
        assert!(window.unsent().is_some_and(|next| !next.is_redelivered() && next.event == event(2)));
    }
}
