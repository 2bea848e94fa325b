//! Warnings and back-off of a link that keeps breaking. Pure: takes `now`.

use std::time::Duration;

/// The first wait, and the longest.
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// A link that was up for so long has worked: a later break is a new trouble.
const WORKED_TIME: Duration = Duration::from_secs(10);
/// The least interval between warnings of the same trouble.
const WARN_TIME: Duration = Duration::from_secs(60);

/// The troubles of one link.
#[derive(Debug, Default)]
pub(super) struct LinkTrouble {
    breaks: u32,
    reason: String,
    warned_at: Option<Duration>,
}

impl LinkTrouble {
    /// Records that the link has ended after being up for so long. True if a warning is due: it has broken
    /// twice in a row for the same reason, in which the time may differ.
    pub(super) fn broke(&mut self, up: Option<Duration>, reason: &str, now: Duration) -> bool {
        if up.is_some_and(|up| up >= WORKED_TIME) {
            *self = Self::default();
        }
        let reason = reason.replace(|char: char| char.is_ascii_digit(), "");
        let same = self.breaks > 0 && self.reason == reason;
        self.breaks = self.breaks.saturating_add(1);
        self.reason = reason;
        let quiet = self.warned_at.is_some_and(|at| now < at + WARN_TIME);
        // A link that was never up means that the gateway is not there: the register reports that.
        let warns = same && up.is_some() && !quiet;
        if warns {
            self.warned_at = Some(now);
        }
        warns
    }

    /// How long to wait before the next try; doubled with each.
    pub(super) fn wait(&self) -> Duration {
        BACK_OFF_MIN.saturating_mul(1 << self.breaks.saturating_sub(1).min(10)).min(BACK_OFF_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn link_that_breaks_again_for_the_same_reason_warns_once_and_waits_longer() {
        let mut trouble = LinkTrouble::default();
        let mut waits = Vec::new();
        let mut warnings = 0;
        for number in 0..20 {
            warnings += u32::from(trouble.broke(Some(ms(10)), "too large", ms(number * 100)));
            waits.push(trouble.wait());
        }
        assert_eq!(warnings, 1);
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!((waits[0], waits[19]), (BACK_OFF_MIN, BACK_OFF_MAX));
        assert!(trouble.broke(Some(ms(10)), "too large", WARN_TIME + ms(200)), "it still does");
        assert!(!trouble.broke(Some(WORKED_TIME), "too large", WARN_TIME * 3), "it had worked");
        assert_eq!(trouble.wait(), BACK_OFF_MIN);
        let mut trouble = LinkTrouble::default();
        assert!(!trouble.broke(Some(ms(0)), "expired, and it is 10:01:59", WARN_TIME * 4));
        assert!(trouble.broke(Some(ms(0)), "expired, and it is 10:02:00", WARN_TIME * 4 + ms(1)));
        assert!(!trouble.broke(None, "no connection", WARN_TIME * 5));
        assert!(!trouble.broke(None, "no connection", WARN_TIME * 6));
    }
}
