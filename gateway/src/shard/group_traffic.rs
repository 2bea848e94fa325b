//! How much is sent to a group. Pure.

use std::rc::Rc;

/// Two windows of so many seconds are looked at.
const WINDOW_SECONDS: u32 = 16;

/// What is being sent to a group: so many messages, of so many bytes together, to each member, in this second.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SentNow {
    pub(crate) second: u32,
    pub(crate) messages: u32,
    pub(crate) bytes: u32,
}

/// Counts what is sent to a group. A send compares and adds twice, and does no more: what each member has got is
/// multiplied by how many they are when that changes, or somebody asks.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct GroupMeter {
    /// The first second after the present window; 0 if there has been none.
    until: u32,
    /// Messages to each member since they last changed or the window began. No window is long enough for these two to
    /// overflow.
    messages: u32,
    /// Their bytes.
    bytes: u64,
    /// What was sent before.
    settled: GroupTraffic,
    /// Bytes to each member that are settled, in the present window.
    window: u64,
    /// Bytes to each member in the window before it. What is beyond 32 bits is cut when the window ends.
    before: u32,
}

/// What was sent to a group since it has had members here.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupTraffic {
    /// These two begin again after 2^32.
    messages: u32,
    drops: u32,
    /// Copies for members, and their bytes.
    deliveries: u64,
    bytes: u64,
}

/// A group and its app.
#[derive(Debug, Clone)]
pub(crate) struct GroupRow {
    pub(crate) app: Rc<str>,
    pub(crate) name: Rc<str>,
}

impl GroupTraffic {
    /// Copies, messages, bytes and drops since an earlier moment. A group that has gone meanwhile may have left its
    /// place to another one, whose count is then the lower one: all of that is new.
    pub(crate) fn since(self, before: Self) -> [u64; 4] {
        let before = if self.deliveries < before.deliveries { Self::default() } else { before };
        [
            self.deliveries - before.deliveries,
            self.messages.wrapping_sub(before.messages).into(),
            self.bytes.saturating_sub(before.bytes),
            self.drops.wrapping_sub(before.drops).into(),
        ]
    }
}

impl GroupMeter {
    /// Something is sent to each of so many members.
    #[inline]
    pub(super) fn add(&mut self, SentNow { second, messages, bytes }: SentNow, members: usize) {
        if second >= self.until {
            self.turn(second, members);
        }
        self.messages = self.messages.wrapping_add(messages);
        self.bytes = self.bytes.wrapping_add(bytes.into());
    }

    /// There will be another number of members than this one.
    pub(super) fn settle(&mut self, members: usize) {
        let (messages, bytes) = (std::mem::take(&mut self.messages), std::mem::take(&mut self.bytes));
        let members = members as u64;
        self.settled.messages = self.settled.messages.wrapping_add(messages);
        self.settled.deliveries += members * u64::from(messages);
        self.settled.bytes += members * bytes;
        self.window += bytes;
    }

    pub(super) fn dropped(&mut self, count: u32) {
        self.settled.drops = self.settled.drops.wrapping_add(count);
    }

    /// All that was sent to so many members.
    pub(super) fn traffic(mut self, members: usize) -> GroupTraffic {
        self.settle(members);
        self.settled
    }

    /// How many bytes there were lately to each member, in how many seconds.
    pub(super) fn lately(mut self, second: u32) -> (u64, u32) {
        if second >= self.until {
            self.turn(second, 0);
        }
        let since = self.until.saturating_sub(WINDOW_SECONDS);
        let seconds = second.saturating_sub(since) + if self.before > 0 { WINDOW_SECONDS } else { 0 };
        (self.window + self.bytes + u64::from(self.before), seconds.max(1))
    }

    /// Windows follow each other without a gap, unless nothing was sent in one.
    #[cold]
    fn turn(&mut self, second: u32, members: usize) {
        self.settle(members);
        let is_next = second - self.until < WINDOW_SECONDS;
        self.before = if is_next { u32::try_from(self.window).unwrap_or(u32::MAX) } else { 0 };
        self.until = (second / WINDOW_SECONDS).saturating_add(1).saturating_mul(WINDOW_SECONDS);
        self.window = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_group_at_the_same_place_counts_from_nothing() {
        let before = GroupTraffic { messages: 9, drops: 9, deliveries: 90, bytes: 900 };
        let now = GroupTraffic { messages: 1, drops: 0, deliveries: 5, bytes: 50 };
        assert_eq!(now.since(before), [5, 1, 50, 0]);
        let later = GroupTraffic { messages: 2, drops: 1, deliveries: 15, bytes: 150 };
        assert_eq!(later.since(now), [10, 1, 100, 1]);
        let most = GroupTraffic { messages: u32::MAX, ..before };
        assert_eq!(
            GroupTraffic { messages: 1, deliveries: 91, ..before }.since(most)[1],
            2,
            "it begins again"
        );
    }

    #[test]
    fn what_was_sent_lately_is_known_and_the_rest_forgotten() {
        let mut recent = GroupMeter::default();
        assert_eq!(recent.lately(5), (0, 5));
        for second in 100..110 {
            recent.add(SentNow { second, messages: 1, bytes: 7 }, 3);
        }
        // The window began at 96.
        assert_eq!(recent.lately(110), (70, 14));
        recent.add(SentNow { second: 113, messages: 1, bytes: 1 }, 3);
        assert_eq!(recent.lately(113), (71, 1 + 16));
        // Members that come and go change nothing of it.
        recent.settle(3);
        assert_eq!(recent.lately(113), (71, 1 + 16));
        assert_eq!(recent.lately(129), (1, 1 + 16));
        assert_eq!(recent.lately(160), (0, 1));
        recent.add(SentNow { second: 170, messages: 1, bytes: u32::MAX }, 3);
        recent.add(SentNow { second: 171, messages: 1, bytes: u32::MAX }, 3);
        assert_eq!(recent.lately(171).0, 2 * u64::from(u32::MAX));
        assert_eq!(recent.lately(177), (u64::from(u32::MAX), 1 + 16), "at most so much is kept of a window");
    }

    #[test]
    fn each_message_counts_for_those_who_were_members() {
        let mut meter = GroupMeter::default();
        meter.add(SentNow { second: 1, messages: 1, bytes: 10 }, 5);
        meter.add(SentNow { second: 2, messages: 2, bytes: 20 }, 5);
        meter.settle(5);
        meter.add(SentNow { second: 2, messages: 1, bytes: 100 }, 2);
        // The next window.
        meter.add(SentNow { second: 17, messages: 1, bytes: 1000 }, 2);
        meter.dropped(3);
        let expected =
            GroupTraffic { messages: 5, drops: 3, deliveries: 15 + 2 * 2, bytes: 5 * 30 + 2 * 1100 };
        assert_eq!((meter.traffic(2), meter.traffic(2)), (expected, expected));
    }
}
