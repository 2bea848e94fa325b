//! Pure: the events of one client that wait, and when they may be handled.
//!
//! A queue has at most one runner at a time, so its events are handled in turn. When the stream to
//! the gateway breaks, what waits is parked: after a new attach the gateway gives all unanswered
//! events out again, so the parked ones are dropped; if the gateway is lost instead, nobody will
//! ever give them out again, so they are handled.

use std::collections::VecDeque;

/// How it stands with the stream to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamAttachment {
    /// This stream is open.
    Live(u64),
    /// None is open.
    Broken,
    /// The gateway is gone for good; this was its last stream.
    Lost(u64),
}

impl StreamAttachment {
    /// As one number, to be shared without a lock.
    pub(crate) const fn to_bits(self) -> u64 {
        match self {
            Self::Broken => 0,
            Self::Live(stream) => stream << 1,
            Self::Lost(stream) => stream << 1 | 1,
        }
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        match bits {
            0 => Self::Broken,
            bits if bits & 1 == 0 => Self::Live(bits >> 1),
            bits => Self::Lost(bits >> 1),
        }
    }
}

#[derive(Debug)]
pub(crate) struct EventQueue<T> {
    waiting: VecDeque<(u64, T)>,
    running: bool,
}

impl<T> Default for EventQueue<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), running: false }
    }
}

impl<T> EventQueue<T> {
    /// Adds an event that came on this stream. True: a runner must be started.
    #[must_use]
    pub(crate) fn push(&mut self, stream: u64, event: T) -> bool {
        self.waiting.push_back((stream, event));
        !std::mem::replace(&mut self.running, true)
    }

    /// After the stream's state has changed. True: a runner must be started.
    #[must_use]
    pub(crate) fn wake(&mut self) -> bool {
        !self.waiting.is_empty() && !std::mem::replace(&mut self.running, true)
    }

    /// The next event for the runner, or None: then the runner ends. `dropped` gets each
    /// event that the gateway gives out again.
    pub(crate) fn next(&mut self, attached: StreamAttachment, mut dropped: impl FnMut(T)) -> Option<T> {
        while attached != StreamAttachment::Broken
            && let Some((stream, event)) = self.waiting.pop_front()
        {
            if attached == StreamAttachment::Live(stream) || attached == StreamAttachment::Lost(stream) {
                return Some(event);
            }
            dropped(event);
        }
        self.running = false;
        if self.waiting.is_empty() {
            // An idle client must not hold the room of its busiest moment.
            self.waiting.shrink_to(4);
        }
        None
    }

    /// Is nothing waiting, and nothing being handled?
    pub(crate) fn is_idle(&self) -> bool {
        !self.running && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn none<T>(_: T) {
        panic!("nothing may be dropped");
    }

    #[test]
    fn one_runner_takes_all_in_turn() {
        let mut queue = EventQueue::default();
        assert!(queue.push(1, "a"));
        assert!(!queue.push(1, "b"));
        assert_eq!(queue.next(StreamAttachment::Live(1), none), Some("a"));
        assert!(!queue.push(1, "c") && !queue.is_idle());
        assert_eq!(queue.next(StreamAttachment::Live(1), none), Some("b"));
        assert_eq!(queue.next(StreamAttachment::Live(1), none), Some("c"));
        assert_eq!(queue.next(StreamAttachment::Live(1), none), None);
        assert!(queue.is_idle() && queue.push(1, "d"));
    }

    #[test]
    fn what_is_parked_is_dropped_when_it_is_given_out_again() {
        let mut queue = EventQueue::default();
        assert!(queue.push(1, "a") && !queue.push(1, "b"));
        assert_eq!(queue.next(StreamAttachment::Broken, none), None);
        assert!(!queue.is_idle());
        let mut dropped = Vec::new();
        assert!(queue.push(2, "a again"));
        assert_eq!(queue.next(StreamAttachment::Live(2), |event| dropped.push(event)), Some("a again"));
        assert_eq!(dropped, ["a", "b"]);
    }

    #[test]
    fn what_is_parked_is_handled_when_the_gateway_is_lost() {
        let mut queue = EventQueue::default();
        assert!(queue.push(1, "a"));
        assert_eq!(queue.next(StreamAttachment::Broken, none), None);
        assert!(queue.wake() && !queue.wake());
        assert!(!queue.push(1, "closed"));
        assert_eq!(queue.next(StreamAttachment::Lost(1), none), Some("a"));
        assert_eq!(queue.next(StreamAttachment::Lost(1), none), Some("closed"));
        assert_eq!(queue.next(StreamAttachment::Lost(1), none), None);
    }

    #[test]
    fn how_it_stands_survives_its_number() {
        for attached in [
            StreamAttachment::Broken,
            StreamAttachment::Live(1),
            StreamAttachment::Live(7),
            StreamAttachment::Lost(0),
            StreamAttachment::Lost(7),
        ] {
            assert_eq!(StreamAttachment::from_bits(attached.to_bits()), attached);
        }
    }

    proptest! {
        #[test]
        fn there_is_never_a_second_runner_and_order_holds(steps in proptest::collection::vec(any::<bool>(), 1..200)) {
            let mut queue = EventQueue::default();
            let (mut runners, mut pushed, mut taken) = (0, 0, 0);
            for push in steps {
                if push {
                    runners += usize::from(queue.push(1, pushed));
                    pushed += 1;
                } else if runners > 0 {
                    match queue.next(StreamAttachment::Live(1), none) {
                        Some(event) => {
                            prop_assert_eq!(event, taken);
                            taken += 1;
                        }
                        None => runners -= 1,
                    }
                }
                prop_assert!(runners <= 1);
                prop_assert_eq!(queue.is_idle(), runners == 0);
            }
        }
    }
}
