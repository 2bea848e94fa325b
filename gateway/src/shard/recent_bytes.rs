//! How much was sent to a group lately. Pure.

/// Two windows of so many seconds are looked at.
const WINDOW_SECONDS: u32 = 16;

/// What is being sent to a group: so many messages, of so many bytes together, to each member, in this second.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SentNow {
    pub(crate) second: u32,
    pub(crate) messages: u32,
    pub(crate) bytes: u32,
}

/// Bytes in the present window and in the one before it. Windows are those of the shard's clock, so a command to a group
/// compares and adds, and does no more.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RecentBytes {
    /// The first second after the present window; 0 if there has been none.
    until: u32,
    /// What is beyond 32 bits is cut when the window ends.
    before: u32,
    now: u64,
}

impl RecentBytes {
    #[inline]
    pub(super) fn add(&mut self, SentNow { second, bytes, .. }: SentNow) {
        if second >= self.until {
            self.turn(second);
        }
        // No window is long enough for it to overflow.
        self.now += u64::from(bytes);
    }

    /// How many bytes there were, in how many seconds.
    pub(super) fn lately(mut self, second: u32) -> (u64, u32) {
        if second >= self.until {
            self.turn(second);
        }
        let since = self.until.saturating_sub(WINDOW_SECONDS);
        let window = second.saturating_sub(since) + if self.before > 0 { WINDOW_SECONDS } else { 0 };
        (self.now + u64::from(self.before), window.max(1))
    }

    /// Windows follow each other without a gap, unless nothing was sent in one.
    #[cold]
    fn turn(&mut self, second: u32) {
        let is_next = second - self.until < WINDOW_SECONDS;
        self.before = if is_next { u32::try_from(self.now).unwrap_or(u32::MAX) } else { 0 };
        self.until = (second / WINDOW_SECONDS).saturating_add(1).saturating_mul(WINDOW_SECONDS);
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
            recent.add(SentNow { second, messages: 1, bytes: 7 });
        }
        // The window began at 96.
        assert_eq!(recent.lately(110), (70, 14));
        recent.add(SentNow { second: 113, messages: 1, bytes: 1 });
        assert_eq!(recent.lately(113), (71, 1 + 16));
        assert_eq!(recent.lately(129), (1, 1 + 16));
        assert_eq!(recent.lately(160), (0, 1));
        recent.add(SentNow { second: 170, messages: 1, bytes: u32::MAX });
        recent.add(SentNow { second: 171, messages: 1, bytes: u32::MAX });
        assert_eq!(recent.lately(171).0, 2 * u64::from(u32::MAX));
        assert_eq!(recent.lately(177), (u64::from(u32::MAX), 1 + 16), "at most so much is kept of a window");
    }
}
