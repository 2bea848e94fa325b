//! How long a worker takes to answer, from samples: a timer for every event would cost every event.

use std::time::{Duration, Instant};

/// One event in so many is timed at least; none is while another one's answer is awaited.
const TIMED_ONE_IN: u64 = 64;

/// The times of the answers that one worker owes one shard.
#[derive(Default)]
pub(crate) struct AnswerTimes {
    /// The event whose answer is awaited, and when it was sent.
    awaited: Option<(u64, Instant)>,
    /// How many were timed, and for how long they took together.
    pub(crate) timed: u64,
    pub(crate) sum: Duration,
}

impl AnswerTimes {
    /// An event is sent: the first one, and then one in 64, is timed.
    pub(crate) fn sent(&mut self, count: u64, seq: u64, now: impl FnOnce() -> Instant) {
        if count % TIMED_ONE_IN == 1 && self.awaited.is_none() {
            self.awaited = Some((seq, now()));
        }
    }

    /// An event is answered; how long that took, if it was timed.
    pub(crate) fn answered(&mut self, seq: u64, now: impl FnOnce() -> Instant) -> Option<Duration> {
        let (_, sent) = self.awaited.take_if(|(awaited, _)| *awaited == seq)?;
        let time = now().saturating_duration_since(sent);
        self.timed += 1;
        self.sum += time;
        Some(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_in_64_is_timed() {
        let start = Instant::now();
        let at = |ms: u64| move || start + Duration::from_millis(ms);
        let mut times = AnswerTimes::default();
        times.sent(1, 256, at(10));
        // The next one is awaited as well, and is not timed.
        times.sent(2, 512, at(11));
        times.sent(65, 900, at(12));
        assert_eq!(times.answered(512, at(20)), None);
        assert_eq!(times.answered(256, at(30)), Some(Duration::from_millis(20)));
        assert_eq!(times.answered(256, at(40)), None, "a repeated answer");
        assert_eq!(times.answered(900, at(40)), None, "it was sent while another one was awaited");
        times.sent(129, 1000, at(50));
        assert_eq!(times.answered(1000, at(55)), Some(Duration::from_millis(5)));
        assert_eq!((times.timed, times.sum), (2, Duration::from_millis(25)));
    }
}
