//! Limits the log lines of refusals: some per minute for each reason, then a count, so that an operator sees
//! why requests are refused and a flood cannot fill the log. Pure.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use broadgate_proto::limits::REFUSALS_LOGGED_PER_MINUTE;

const MINUTE: Duration = Duration::from_secs(60);

/// Lines and counts of each reason; as many entries as there are reasons.
#[derive(Debug, Default)]
pub struct Book {
    minutes: BTreeMap<&'static str, Minute>,
}

#[derive(Debug)]
struct Minute {
    began: Instant,
    lines: u32,
    left_out: u64,
}

impl Book {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { minutes: BTreeMap::new() }
    }

    /// Whether this refusal gets a line.
    pub fn take(&mut self, reason: &'static str, now: Instant) -> bool {
        let minute = self.minutes.entry(reason).or_insert(Minute { began: now, lines: 0, left_out: 0 });
        if minute.left_out == 0 && now.duration_since(minute.began) >= MINUTE {
            *minute = Minute { began: now, lines: 0, left_out: 0 };
        }
        if minute.lines < REFUSALS_LOGGED_PER_MINUTE {
            minute.lines += 1;
            return true;
        }
        minute.left_out += 1;
        false
    }

    /// Takes the counts of the past minutes.
    pub fn left_out(&mut self, now: Instant) -> Vec<(&'static str, u64)> {
        let mut all = Vec::new();
        self.minutes.retain(|reason, minute| {
            let over = now.duration_since(minute.began) >= MINUTE;
            if over && minute.left_out > 0 {
                all.push((*reason, minute.left_out));
            }
            !over
        });
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_some_lines_a_minute_and_then_a_count() {
        let mut book = Book::default();
        let start = Instant::now();
        for number in 0..REFUSALS_LOGGED_PER_MINUTE + 5 {
            assert_eq!(book.take("key", start), number < REFUSALS_LOGGED_PER_MINUTE);
        }
        assert!(book.take("origin", start), "reasons do not share");
        assert_eq!(book.left_out(start + MINUTE / 2), []);
        assert!(!book.take("key", start + MINUTE), "a count comes before lines begin again");
        assert_eq!(book.left_out(start + MINUTE), [("key", 6)]);
        assert!(book.minutes.is_empty() && book.take("key", start + MINUTE));
    }
}
