//! When a child that died is started again. Pure.

use std::{collections::VecDeque, time::Duration};

const BACK_OFF_MIN: Duration = Duration::from_millis(500);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// More deaths than this within a minute, and it is given up.
const DEATHS_MAX: usize = 5;
const MINUTE: Duration = Duration::from_secs(60);

/// One child's deaths in the last minute.
#[derive(Debug, Default)]
pub(super) struct Deaths(VecDeque<Duration>);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum RestartVerdict {
    Again { after: Duration },
    GiveUp,
}

impl Deaths {
    /// It has died at `now`.
    pub(super) fn died(&mut self, now: Duration) -> RestartVerdict {
        while self.0.front().is_some_and(|&first| now.saturating_sub(first) >= MINUTE) {
            self.0.pop_front();
        }
        self.0.push_back(now);
        if self.0.len() >= DEATHS_MAX {
            return RestartVerdict::GiveUp;
        }
        let doublings = u32::try_from(self.0.len() - 1).unwrap_or(0);
        RestartVerdict::Again { after: (BACK_OFF_MIN * 2u32.pow(doublings)).min(BACK_OFF_MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_and_five_deaths_in_a_minute_are_enough() {
        let mut deaths = Deaths::default();
        let waits: Vec<_> = (0..5).map(|second| deaths.died(Duration::from_secs(second))).collect();
        let again = |ms| RestartVerdict::Again { after: Duration::from_millis(ms) };
        assert_eq!(waits, [again(500), again(1000), again(2000), again(4000), RestartVerdict::GiveUp]);
        assert_eq!(deaths.died(Duration::from_secs(100)), again(500), "old deaths are forgotten");
    }
}
