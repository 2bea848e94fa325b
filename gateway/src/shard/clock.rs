//! The seconds in which a shard counts its deadlines. Pure.

use std::time::Duration;

use broadgate_proto::limits::SHARD_PAUSE_MIN;

/// Counts seconds while the shard runs. When the process was stopped, or its host asleep, nobody could be
/// heard, and what clients have sent meanwhile is not read yet: that time does not count, so no silence,
/// backlog or wait for a worker ends because of it.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    last: Duration,
    paused: Duration,
}

impl Clock {
    /// A tick, so long after the shard's start. Returns the second, and how long the shard was not running,
    /// if it was not.
    pub(crate) fn tick(&mut self, since_start: Duration) -> (u32, Option<Duration>) {
        let step = since_start.saturating_sub(self.last);
        self.last = since_start;
        let pause = (step >= SHARD_PAUSE_MIN).then(|| step - Duration::from_secs(1));
        self.paused += pause.unwrap_or_default();
        let second = since_start.saturating_sub(self.paused).as_secs() + 1;
        (u32::try_from(second).unwrap_or(u32::MAX), pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_of_the_host_does_not_count() {
        let mut clock = Clock::default();
        let mut tick = |ms: u64| clock.tick(Duration::from_millis(ms));
        assert_eq!(tick(0), (1, None));
        assert_eq!(tick(1000), (2, None));
        assert_eq!(tick(3500), (4, None), "late is not paused");
        assert_eq!(tick(68_500), (5, Some(Duration::from_secs(64))));
        assert_eq!(tick(69_500), (6, None));
        assert_eq!(tick(73_500), (7, Some(Duration::from_secs(3))));
        assert_eq!(tick(75_500), (9, None));
    }
}
