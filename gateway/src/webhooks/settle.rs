//! Debounces leave and vacate events of one app: a change that is undone soon is not reported. Pure.
//!
//! That a channel is empty or that a user has left is held back for `WEBHOOK_LEAVE_TIME`. If they come
//! back in the meantime, neither change is reported: for the receiver nothing has changed.
//! An empty cache is reported once a minute for each channel, and the number of subscribers of a large
//! channel once in five seconds, the newest. What is held back is in memory only: a gateway that
//! crashes takes it along, one that stops in good order tells it at once.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use broadgate_proto::limits::{
    WEBHOOK_CACHE_MISS_TIME, WEBHOOK_COUNT_SMALL_MAX, WEBHOOK_COUNT_TIME, WEBHOOK_HELD_MAX,
    WEBHOOK_LEAVE_TIME,
};

use super::arrival::Arrival;
use super::fact::{Fact, TrackedFact};

/// A moment, and a number that keeps what is held back in its order.
type When = (Duration, u64);
/// A channel, or a user in it.
type ChannelSubject = (String, Option<String>);

enum Debounced {
    /// A subject, and when its debounce ends.
    Left(ChannelSubject, Option<Arrival>),
    Missed(String),
    Counted(String),
}

/// What is held back of one app.
#[derive(Default)]
pub(super) struct Settle {
    timers: BTreeMap<When, Debounced>,
    /// Channels that are empty (none) and users that are gone, which is not told yet.
    left: HashMap<String, BTreeMap<Option<String>, When>>,
    /// Channels whose empty cache was told lately.
    missed: HashSet<String>,
    /// Large channels whose number was told lately, and what it has become since.
    counted: HashMap<String, Option<u64>>,
    numbers: u64,
}

impl Settle {
    /// Takes a fact, and gives what is to be told now.
    pub(super) fn take(&mut self, now: Duration, news: TrackedFact, out: &mut Vec<TrackedFact>) {
        self.due(now, out);
        let TrackedFact { fact, arrival } = news;
        match fact {
            Fact::Vacated { channel } => self.leaves(now, (channel, None), arrival, out),
            Fact::MemberRemoved { channel, user_id } => {
                self.leaves(now, (channel, Some(user_id)), arrival, out);
            }
            Fact::Occupied { channel } => self.comes((channel, None), arrival, out),
            Fact::MemberAdded { channel, user_id } => self.comes((channel, Some(user_id)), arrival, out),
            Fact::CacheMiss { channel } => self.misses(now, channel, out),
            Fact::SubscriptionCount { channel, count } => self.counts(now, channel, count, out),
            Fact::ClientEvent { .. } => out.push(fact.into()),
        }
    }

    /// Gives what has been held back for long enough.
    pub(super) fn due(&mut self, now: Duration, out: &mut Vec<TrackedFact>) {
        while let Some(timer) = self.timers.first_entry().filter(|timer| timer.key().0 <= now) {
            match timer.remove() {
                Debounced::Left(who, arrival) => {
                    self.take_back(&who);
                    out.push(gone(who, arrival));
                }
                Debounced::Missed(channel) => {
                    self.missed.remove(&channel);
                }
                Debounced::Counted(channel) => {
                    if let Some(Some(count)) = self.counted.remove(&channel) {
                        self.hold(now + WEBHOOK_COUNT_TIME, Debounced::Counted(channel.clone()));
                        self.counted.insert(channel.clone(), None);
                        out.push(Fact::SubscriptionCount { channel, count }.into());
                    }
                }
            }
        }
    }

    /// Gives everything that is held back: the gateway stops.
    pub(super) fn flush(&mut self, out: &mut Vec<TrackedFact>) {
        let mut all = std::mem::take(self);
        for debounced in all.timers.into_values() {
            match debounced {
                Debounced::Left(who, arrival) => out.push(gone(who, arrival)),
                Debounced::Missed(_) => {}
                Debounced::Counted(channel) => {
                    let count = all.counted.remove(&channel).flatten();
                    out.extend(count.map(|count| Fact::SubscriptionCount { channel, count }.into()));
                }
            }
        }
    }

    /// Gives whose going is held back in a channel: somebody else tells what happens there from now on.
    pub(super) fn release(&mut self, channel: &str, out: &mut Vec<TrackedFact>) {
        let left = self.left.remove(channel).unwrap_or_default();
        let mut timers: Vec<When> = left.into_values().collect();
        timers.sort_unstable();
        for timer in timers {
            if let Some(Debounced::Left(who, arrival)) = self.timers.remove(&timer) {
                out.push(gone(who, arrival));
            }
        }
    }

    /// Is anybody's going held back?
    pub(super) fn waits_for_returns(&self) -> bool {
        !self.left.is_empty()
    }

    /// When `due` has something to do.
    pub(super) fn next(&self) -> Option<Duration> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    fn is_full(&self) -> bool {
        self.timers.len() >= WEBHOOK_HELD_MAX
    }

    fn hold(&mut self, at: Duration, debounced: Debounced) -> When {
        self.numbers += 1;
        let when = (at, self.numbers);
        self.timers.insert(when, debounced);
        when
    }

    fn leaves(
        &mut self,
        now: Duration,
        who: ChannelSubject,
        arrival: Option<Arrival>,
        out: &mut Vec<TrackedFact>,
    ) {
        if self.left.get(&who.0).is_some_and(|left| left.contains_key(&who.1)) {
            return;
        }
        if self.is_full() {
            out.push(gone(who, arrival));
            return;
        }
        let when = self.hold(now + WEBHOOK_LEAVE_TIME, Debounced::Left(who.clone(), arrival));
        self.left.entry(who.0).or_default().insert(who.1, when);
    }

    fn comes(&mut self, who: ChannelSubject, arrival: Option<Arrival>, out: &mut Vec<TrackedFact>) {
        let fact = match self.take_back(&who) {
            Some(when) => {
                // First the going has arrived, then the coming.
                drop(self.timers.remove(&when));
                return drop(arrival);
            }
            None => match who {
                (channel, None) => Fact::Occupied { channel },
                (channel, Some(user_id)) => Fact::MemberAdded { channel, user_id },
            },
        };
        out.push(TrackedFact { fact, arrival });
    }

    /// Nobody's going is held back under this name any more.
    fn take_back(&mut self, who: &ChannelSubject) -> Option<When> {
        let left = self.left.get_mut(&who.0)?;
        let when = left.remove(&who.1);
        if left.is_empty() {
            self.left.remove(&who.0);
        }
        when
    }

    fn misses(&mut self, now: Duration, channel: String, out: &mut Vec<TrackedFact>) {
        if self.missed.contains(&channel) {
            return;
        }
        if !self.is_full() {
            self.hold(now + WEBHOOK_CACHE_MISS_TIME, Debounced::Missed(channel.clone()));
            self.missed.insert(channel.clone());
        }
        out.push(Fact::CacheMiss { channel }.into());
    }

    fn counts(&mut self, now: Duration, channel: String, count: u64, out: &mut Vec<TrackedFact>) {
        let large = count > WEBHOOK_COUNT_SMALL_MAX;
        if let Some(newest) = self.counted.get_mut(&channel) {
            *newest = large.then_some(count);
            if large {
                return;
            }
        } else if large && !self.is_full() {
            self.hold(now + WEBHOOK_COUNT_TIME, Debounced::Counted(channel.clone()));
            self.counted.insert(channel.clone(), None);
        }
        out.push(Fact::SubscriptionCount { channel, count }.into());
    }
}

fn gone((channel, user): ChannelSubject, arrival: Option<Arrival>) -> TrackedFact {
    let fact = match user {
        None => Fact::Vacated { channel },
        Some(user_id) => Fact::MemberRemoved { channel, user_id },
    };
    TrackedFact { fact, arrival }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn occupied(channel: &str) -> Fact {
        Fact::Occupied { channel: channel.into() }
    }

    fn vacated(channel: &str) -> Fact {
        Fact::Vacated { channel: channel.into() }
    }

    fn added(user: &str) -> Fact {
        Fact::MemberAdded { channel: "c".into(), user_id: user.into() }
    }

    fn removed(user: &str) -> Fact {
        Fact::MemberRemoved { channel: "c".into(), user_id: user.into() }
    }

    fn count(count: u64) -> Fact {
        Fact::SubscriptionCount { channel: "c".into(), count }
    }

    /// What is reported at each moment, with what is due before it.
    fn out(settle: &mut Settle, millis: u64, facts: impl IntoIterator<Item = Fact>) -> Vec<Fact> {
        let mut out = Vec::new();
        settle.due(at(millis), &mut out);
        facts.into_iter().for_each(|fact| settle.take(at(millis), fact.into(), &mut out));
        facts_of(out)
    }

    fn facts_of(out: Vec<TrackedFact>) -> Vec<Fact> {
        out.into_iter().map(|news| news.fact).collect()
    }

    #[test]
    fn quick_return_cancels_leave() {
        let mut settle = Settle::default();
        assert_eq!(out(&mut settle, 0, [occupied("c"), added("ann")]), [occupied("c"), added("ann")]);
        assert_eq!(out(&mut settle, 10, [removed("ann"), vacated("c"), vacated("d")]), []);
        assert_eq!(settle.next(), Some(at(3010)));
        assert_eq!(out(&mut settle, 3009, [occupied("c"), added("ann")]), []);
        assert_eq!(out(&mut settle, 3010, []), [vacated("d")]);
        assert_eq!((out(&mut settle, 99_000, []), settle.next()), (vec![], None));
    }

    #[test]
    fn late_return_is_a_new_join() {
        let mut settle = Settle::default();
        assert_eq!(out(&mut settle, 0, [removed("z"), removed("a"), vacated("c"), removed("z")]), []);
        // Nobody has looked at the clock since, and still they have left.
        let back = out(&mut settle, 3500, [occupied("c"), added("z")]);
        assert_eq!(back, [removed("z"), removed("a"), vacated("c"), occupied("c"), added("z")]);
    }

    #[test]
    fn another_user_does_not_bring_the_first_one_back() {
        let mut settle = Settle::default();
        out(&mut settle, 0, [removed("ann"), vacated("c")]);
        assert_eq!(out(&mut settle, 100, [occupied("c"), added("bob")]), [added("bob")]);
        assert_eq!(out(&mut settle, 3000, []), [removed("ann")]);
    }

    #[test]
    fn what_is_held_back_of_a_channel_can_be_released() {
        let mut settle = Settle::default();
        out(&mut settle, 0, [removed("z"), vacated("d"), removed("a"), vacated("c")]);
        let mut released = Vec::new();
        settle.release("c", &mut released);
        settle.release("c", &mut released);
        assert_eq!(facts_of(released), [removed("z"), removed("a"), vacated("c")]);
        assert!(settle.waits_for_returns());
        assert_eq!(out(&mut settle, 10, [occupied("c")]), [occupied("c")]);
        assert_eq!(out(&mut settle, 9000, []), [vacated("d")]);
        assert!(!settle.waits_for_returns() && settle.next().is_none());
    }

    #[test]
    fn empty_cache_is_reported_once_a_minute() {
        let mut settle = Settle::default();
        let miss = |channel: &str| Fact::CacheMiss { channel: channel.into() };
        assert_eq!(out(&mut settle, 0, [miss("a"), miss("a"), miss("b")]), [miss("a"), miss("b")]);
        assert_eq!(out(&mut settle, 59_999, [miss("a")]), []);
        assert_eq!(out(&mut settle, 60_000, [miss("a")]), [miss("a")]);
    }

    #[test]
    fn large_counts_are_reported_every_five_seconds() {
        let mut settle = Settle::default();
        assert_eq!(out(&mut settle, 0, [count(99), count(100)]), [count(99), count(100)]);
        assert_eq!(out(&mut settle, 0, [count(101), count(102), count(103)]), [count(101)]);
        assert_eq!(out(&mut settle, 4999, []), []);
        assert_eq!(out(&mut settle, 5000, [count(104)]), [count(103)]);
        // A small one is reported at once, and what was held back is out of date.
        assert_eq!(out(&mut settle, 6000, [count(100)]), [count(100)]);
        assert_eq!(out(&mut settle, 6001, [count(105)]), []);
        assert_eq!(out(&mut settle, 10_000, []), [count(105)]);
        assert_eq!((out(&mut settle, 15_000, []), settle.next()), (vec![], None));
        assert_eq!(out(&mut settle, 15_001, [count(106)]), [count(106)]);
    }

    #[test]
    fn what_is_held_back_is_bounded_and_told_when_the_gateway_stops() {
        let mut settle = Settle::default();
        let many = (0..WEBHOOK_HELD_MAX).map(|n| vacated(&n.to_string()));
        assert_eq!(out(&mut settle, 0, many), []);
        assert_eq!(out(&mut settle, 0, [vacated("more"), count(200)]), [vacated("more"), count(200)]);
        let mut rest = Vec::new();
        settle.flush(&mut rest);
        assert_eq!((rest.len(), rest[0].fact.clone(), settle.next()), (WEBHOOK_HELD_MAX, vacated("0"), None));
    }

    proptest! {
        /// What a receiver believes agrees with what is so, as soon as nothing is held back; and it never
        /// hears twice in a row that a channel is occupied, or that it is not.
        #[test]
        fn a_receiver_believes_what_is_so(steps in prop::collection::vec((0_u64..4000, 0_usize..3), 0..60)) {
            let mut settle = Settle::default();
            let (mut so, mut believed) = ([false; 3], [false; 3]);
            let mut now = 0;
            let hear = |facts: Vec<Fact>, believed: &mut [bool; 3]| {
                for fact in facts {
                    let channel: usize = fact.channel().parse().unwrap();
                    let occupied = matches!(fact, Fact::Occupied { .. });
                    assert_ne!(believed[channel], occupied);
                    believed[channel] = occupied;
                }
            };
            for (wait, channel) in steps {
                now += wait;
                so[channel] = !so[channel];
                let name = channel.to_string();
                let fact = if so[channel] { occupied(&name) } else { vacated(&name) };
                hear(out(&mut settle, now, [fact]), &mut believed);
            }
            hear(out(&mut settle, now + 3000, []), &mut believed);
            prop_assert_eq!(so, believed);
            prop_assert!(settle.next().is_none() && settle.left.is_empty());
        }
    }
}
