//! How much was sent to a group lately. Pure.

/// Two windows of so many seconds are looked at.
const WINDOW_SECONDS: u32 = 16;

/// What is being sent to a group: so many bytes to each member, in this second.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SentNow {
    pub(crate) second: u32,
    pub(crate) bytes: u32,
}

/// Bytes in the present window and in the one before it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RecentBytes {
    since: u32,
    now: u32,
    before: u32,
}

impl RecentBytes {
    pub(super) fn add(&mut self, SentNow { second, bytes }: SentNow) {
        if second.saturating_sub(self.since) >= WINDOW_SECONDS {
            self.turn(second);
        }
        self.now = self.now.saturating_add(bytes);
    }

    /// How many bytes there were, in how many seconds.
    pub(super) fn lately(mut self, second: u32) -> (u64, u32) {
        if second.saturating_sub(self.since) >= WINDOW_SECONDS {
            self.turn(second);
        }
        let window = second.saturating_sub(self.since) + if self.before > 0 { WINDOW_SECONDS } else { 0 };
        (u64::from(self.now) + u64::from(self.before), window.max(1))
    }

    /// Windows follow each other without a gap, unless nothing was sent in one.
    fn turn(&mut self, second: u32) {
        let passed = second.saturating_sub(self.since) / WINDOW_SECONDS;
        self.before = if passed == 1 { self.now } else { 0 };
        self.since += passed * WINDOW_SECONDS;
        self.now = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_lately_is_known_and_the_rest_forgotten() {
        let mut recent = RecentBytes::default();
        assert_eq!(recent.lately(5), (0, 5));
        for second in 100..110 {
            recent.add(SentNow { second, bytes: 7 });
        }
        // The window began at 96.
        assert_eq!(recent.lately(110), (70, 14));
        recent.add(SentNow { second: 113, bytes: 1 });
        assert_eq!(recent.lately(113), (71, 1 + 16));
        assert_eq!(recent.lately(129), (1, 1 + 16));
        assert_eq!(recent.lately(160), (0, 1));
        recent.add(SentNow { second: 170, bytes: u32::MAX });
        recent.add(SentNow { second: 171, bytes: u32::MAX });
        assert_eq!(recent.lately(171).0, u64::from(u32::MAX));
    }
}
