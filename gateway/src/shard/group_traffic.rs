//! How much is sent to a group. Pure.

use std::rc::Rc;

use crate::shard::recent_bytes::SentNow;

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
    pub(super) fn add(&mut self, SentNow { messages, bytes, .. }: SentNow, members: usize) {
        let members = members as u64;
        self.messages = self.messages.wrapping_add(messages);
        self.deliveries += members * u64::from(messages);
        self.bytes += members * u64::from(bytes);
    }

    pub(super) fn dropped(&mut self, count: u32) {
        self.drops = self.drops.wrapping_add(count);
    }

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
}
