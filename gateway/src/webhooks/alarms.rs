//! Who must be woken when: one moment for each name. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// One moment, at most, for each name.
#[derive(Debug)]
pub(super) struct Alarms<K> {
    at: BTreeMap<K, Duration>,
    order: BTreeSet<(Duration, K)>,
}

impl<K: Ord + Clone> Alarms<K> {
    pub(super) const fn new() -> Self {
        Self { at: BTreeMap::new(), order: BTreeSet::new() }
    }

    /// Wakes `who` at this moment and at no other.
    pub(super) fn set(&mut self, who: &K, at: Option<Duration>) {
        if self.at.get(who).copied() == at {
            return;
        }
        if let Some(former) = self.at.remove(who) {
            self.order.remove(&(former, who.clone()));
        }
        if let Some(at) = at {
            self.at.insert(who.clone(), at);
            self.order.insert((at, who.clone()));
        }
    }

    /// The first whose moment has come; it is set no more.
    pub(super) fn due(&mut self, now: Duration) -> Option<K> {
        let (at, who) = self.order.first()?;
        if *at > now {
            return None;
        }
        let who = who.clone();
        self.set(&who, None);
        Some(who)
    }

    /// Everybody, in the order of their moments.
    pub(super) fn next(&self) -> Option<Duration> {
        self.order.first().map(|(at, _)| *at)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.at.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_one_moment() {
        let second = Duration::from_secs;
        let mut alarms = Alarms::new();
        alarms.set(&"a", Some(second(3)));
        alarms.set(&"b", Some(second(2)));
        alarms.set(&"a", Some(second(1)));
        alarms.set(&"c", Some(second(1)));
        alarms.set(&"c", None);
        assert_eq!((alarms.len(), alarms.next()), (2, Some(second(1))));
        assert_eq!(
            (alarms.due(second(0)), alarms.due(second(2)), alarms.due(second(2))),
            (None, Some("a"), Some("b"))
        );
        assert_eq!((alarms.due(second(9)), alarms.next(), alarms.len()), (None, None, 0));
    }
}
