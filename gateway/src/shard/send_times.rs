//! When events went to a worker, as far as needed to say how long the oldest unanswered one has waited. Pure.

use std::collections::VecDeque;

use broadgate_proto::limits::SEND_TIMES_MAX;

/// Notes of one worker's stream, one a second while anything is unanswered.
#[derive(Debug, Default)]
pub(crate) struct SendTimes {
    /// By these seconds of the shard's clock so many events had been sent; both rise.
    notes: VecDeque<(u32, u64)>,
}

impl SendTimes {
    /// Once a second: so many events have been sent, and this one of them is the oldest unanswered. Returns for how
    /// many seconds that has waited: up to one less than in truth, or, of one that was behind a still older one for
    /// minutes, some minutes at least.
    pub(crate) fn note(&mut self, second: u32, sent: u64, oldest: Option<u64>) -> u32 {
        let Some(oldest) = oldest else {
            self.notes.clear();
            return 0;
        };
        while self.notes.front().is_some_and(|(_, sent)| *sent < oldest) {
            self.notes.pop_front();
        }
        if self.notes.back().is_none_or(|(_, noted)| *noted < sent) {
            self.notes.push_back((second, sent));
        }
        if self.notes.len() > SEND_TIMES_MAX {
            // The first stays: it is of the oldest.
            let mut number = 0;
            self.notes.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
        self.notes.front().map_or(0, |(noted, _)| second.saturating_sub(*noted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_unanswered_event_has_its_age_whatever_was_answered_since() {
        let mut times = SendTimes::default();
        assert_eq!(times.note(1, 0, None), 0);
        // The third event stays unanswered while ten others a second are answered at once.
        for second in 2..50 {
            let sent = u64::from(second) * 10;
            assert_eq!(times.note(second, sent, Some(3)), second - 2);
        }
        // It is answered; the oldest now was sent in the 40th second.
        assert_eq!(times.note(50, 500, Some(400)), 10);
        assert_eq!(times.note(51, 510, None), 0);
        assert_eq!(times.note(60, 511, Some(511)), 0);
        assert_eq!(times.note(61, 511, Some(511)), 1);
    }

    #[test]
    fn notes_are_bounded_and_the_oldest_keeps_its_time() {
        let mut times = SendTimes::default();
        for second in 0..100_000 {
            assert_eq!(times.note(second, u64::from(second) + 1, Some(1)), second);
            assert!(times.notes.len() <= SEND_TIMES_MAX);
        }
        // Of later ones it is known roughly, and never too much is said.
        let age = times.note(100_000, 100_001, Some(50_000));
        assert!((30..=50_001).contains(&age), "{age}");
    }
}
