//! Retained messages of groups: histories and last values. None, unless a rule says so.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use broadgate_proto::limits::HISTORY_BYTES_MAX;

use crate::{
    budget::{Budget, Evictable, Weight},
    content::Content,
    inspection::HistoryInspection,
    membership::TopicPosition,
    topic::{Topic, TopicKind},
    watch::Pattern,
};

/// What a group retains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// How many of its last messages; 0 for no history.
    pub messages: usize,
    /// How long it retains them.
    pub time: Duration,
    /// How long it retains its last value; zero for none.
    pub last: Duration,
}

impl Retention {
    /// Whether there is a history.
    #[must_use]
    pub const fn has_history(&self) -> bool {
        self.messages > 0 && !self.time.is_zero()
    }
}

/// Which groups retain what. Must be the same at every gateway: the rules of a group's home decide.
#[derive(Debug, Clone, Default)]
pub struct RetentionRules(pub Vec<RetentionRule>);

/// One rule. The first one that matches a group applies.
#[derive(Debug, Clone)]
pub struct RetentionRule {
    /// The groups that it matches.
    pub groups: Pattern,
    /// What each of them retains.
    pub keep: Retention,
}

impl RetentionRules {
    /// What a topic retains.
    #[must_use]
    pub fn of(&self, topic: &Topic) -> Retention {
        if self.0.is_empty() || topic.kind() != TopicKind::Group {
            return Retention::default();
        }
        self.0.iter().find(|rule| rule.groups.fits(topic)).map(|rule| rule.keep).unwrap_or_default()
    }
}

/// A reader's position in a history: an epoch that no other history of the group ever has, and the number of
/// the last message that it has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// When this history started, in the order of the home that started it.
    pub epoch: TopicPosition,
    /// The offset of the last message.
    pub offset: u64,
}

/// A part of a history.
#[derive(Debug, Clone)]
pub struct HistoryPage<C: Content> {
    /// Messages by rising offset, with their ages.
    pub messages: Vec<(u64, Duration, C::Command)>,
    /// The history's newest position; none if it has not started.
    pub position: Option<Position>,
    /// Whether these are all messages after the reader's position, or as many of them as it asked for. If
    /// not, some are lost.
    pub recovered: bool,
}

/// The last messages of a group, at its home.
#[derive(Debug, Clone)]
pub struct History<C: Content> {
    epoch: TopicPosition,
    offset: u64,
    entries: VecDeque<RetainedEntry<C>>,
    bytes: usize,
    /// Bytes of memory.
    heap: usize,
    weight: Weight,
}

/// The overhead of a retained message: its table slot, its topic, its place in the budget.
const RETAINED_OVERHEAD_BYTES: usize = 512;

#[derive(Debug, Clone)]
struct RetainedEntry<C: Content> {
    offset: u64,
    since: Duration,
    id: u128,
    command: C::Command,
}

impl<C: Content> History<C> {
    /// Starts with the message at this position.
    const fn new(epoch: TopicPosition) -> Self {
        let weight = Weight::NONE;
        Self { epoch, offset: 0, entries: VecDeque::new(), bytes: 0, heap: 0, weight }
    }

    /// Adds a message, unless it is a repeat. Returns its position.
    fn add(&mut self, id: u128, command: &C::Command, keep: Retention, now: Duration) -> Position {
        let epoch = self.epoch;
        if let Some(known) = self.entries.iter().rev().find(|entry| entry.id == id) {
            return Position { epoch, offset: known.offset };
        }
        self.offset += 1;
        self.bytes += C::bytes(command);
        self.heap += C::heap_bytes(command);
        let entry = RetainedEntry { offset: self.offset, since: now, id, command: command.clone() };
        self.entries.push_back(entry);
        self.trim(keep, now);
        Position { epoch, offset: self.offset }
    }

    fn trim(&mut self, keep: Retention, now: Duration) {
        while let Some(oldest) = self.entries.front()
            && (self.entries.len() > keep.messages
                || now >= oldest.since + keep.time
                || self.bytes > HISTORY_BYTES_MAX)
        {
            self.bytes -= C::bytes(&oldest.command);
            self.heap -= C::heap_bytes(&oldest.command);
            self.entries.pop_front();
        }
    }

    /// The messages after a position, at most `limit`; without a position, the last ones.
    fn page(&self, since: Option<Position>, limit: usize, now: Duration) -> HistoryPage<C> {
        let position = Some(Position { epoch: self.epoch, offset: self.offset });
        let oldest = self.offset + 1 - self.entries.len() as u64;
        let (from, recovered) = match since {
            Some(since) if since.epoch == self.epoch && since.offset <= self.offset => {
                (since.offset + 1, since.offset + 1 >= oldest)
            }
            Some(_) => (0, false),
            None => ((self.offset + 1).saturating_sub(limit as u64), true),
        };
        let entries = self.entries.iter().filter(|entry| entry.offset >= from).take(limit);
        let age = |entry: &RetainedEntry<C>| now.saturating_sub(entry.since);
        let messages = entries.map(|entry| (entry.offset, age(entry), entry.command.clone())).collect();
        HistoryPage { messages, position, recovered }
    }
}

/// The newest message of a group.
#[derive(Debug, Clone)]
pub struct Value<C: Content> {
    /// Its position in the group's order.
    pub at: TopicPosition,
    /// When it was placed, by the clock of the gateway that retains it.
    pub since: Duration,
    /// The message.
    pub command: C::Command,
    weight: Weight,
}

/// What one gateway retains for groups: as their home, or because it has clients in them.
#[derive(Debug)]
pub(super) struct RetainedMessages<C: Content> {
    pub(super) keeping: RetentionRules,
    histories: HashMap<Topic, History<C>>,
    values: HashMap<Topic, Value<C>>,
    budget: Budget,
    /// Reasons of evictions since they were last taken.
    given: Vec<&'static str>,
}

impl<C: Content> RetainedMessages<C> {
    pub(super) fn new(keeping: RetentionRules, bytes_max: usize, app_bytes_max: usize) -> Self {
        let budget = Budget::new(bytes_max, app_bytes_max);
        Self { keeping, histories: HashMap::new(), values: HashMap::new(), budget, given: Vec::new() }
    }

    /// Bytes of everything retained.
    pub(super) const fn bytes(&self) -> usize {
        self.budget.bytes()
    }

    /// The reasons of evictions since the last call, one per eviction.
    pub(super) fn take_given(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.given)
    }

    fn weigh(&mut self, topic: &Topic) {
        if let Some(history) = self.histories.get_mut(topic) {
            let bytes = topic.key().len() + history.heap + history.entries.len() * RETAINED_OVERHEAD_BYTES;
            self.budget.written(Evictable::History(topic.clone()), &mut history.weight, bytes);
        }
        self.make_room(topic);
    }

    fn make_room(&mut self, topic: &Topic) {
        while let Some((item, why)) = self.budget.gives(topic.app()) {
            self.forget(&item);
            self.given.push(why);
        }
    }

    fn forget(&mut self, item: &Evictable) {
        let weight = match item {
            Evictable::Value(topic) => self.values.remove(topic).map(|value| value.weight),
            Evictable::History(topic) => self.histories.remove(topic).map(|history| history.weight),
        };
        self.budget.forget(item, weight.unwrap_or_default());
    }

    /// The home has placed a message. Returns its position in the history, if there is one.
    pub(super) fn add(
        &mut self,
        topic: &Topic,
        at: TopicPosition,
        command: &C::Command,
        now: Duration,
    ) -> Option<Position> {
        let keep = self.keeping.of(topic);
        let id = C::retained_as(command)?;
        self.set_value(topic, at, command, now);
        if !keep.has_history() {
            return None;
        }
        let history = self.histories.entry(topic.clone()).or_insert_with(|| History::new(at));
        let position = history.add(id, command, keep, now);
        self.weigh(topic);
        Some(position)
    }

    /// A gateway with members has placed a message, or received the last value.
    pub(super) fn set_value(
        &mut self,
        topic: &Topic,
        at: TopicPosition,
        command: &C::Command,
        since: Duration,
    ) {
        let keeps = !self.keeping.of(topic).last.is_zero();
        if keeps
            && C::retained_as(command).is_some()
            && self.values.get(topic).is_none_or(|value| value.at < at)
        {
            let mut weight = self.values.get(topic).map(|value| value.weight).unwrap_or_default();
            let bytes = topic.key().len() + C::heap_bytes(command) + RETAINED_OVERHEAD_BYTES;
            self.budget.written(Evictable::Value(topic.clone()), &mut weight, bytes);
            self.values.insert(topic.clone(), Value { at, since, command: command.clone(), weight });
            self.make_room(topic);
        }
    }

    pub(super) fn value(&self, topic: &Topic, now: Duration) -> Option<&Value<C>> {
        let last = self.keeping.of(topic).last;
        self.values.get(topic).filter(|value| now < value.since + last)
    }

    /// The groups with a last value, in any order.
    pub(super) fn with_value(&self) -> impl Iterator<Item = &Topic> {
        self.values.keys()
    }

    pub(super) fn page(
        &mut self,
        topic: &Topic,
        since: Option<Position>,
        limit: usize,
        now: Duration,
    ) -> HistoryPage<C> {
        let keep = self.keeping.of(topic);
        match self.histories.get_mut(topic) {
            Some(history) => {
                history.trim(keep, now);
                history.page(since, limit, now)
            }
            None => HistoryPage { messages: Vec::new(), position: None, recovered: since.is_none() },
        }
    }

    /// None if no rule gives the topic a history. One that has not started is empty.
    pub(super) fn inspect(&mut self, topic: &Topic, now: Duration) -> Option<HistoryInspection> {
        let keep = self.keeping.of(topic);
        let Some(history) = self.histories.get_mut(topic) else {
            let empty = HistoryInspection {
                messages: (0, keep.messages),
                offsets: (0, 0),
                age: (Duration::ZERO, keep.time),
                bytes: 0,
            };
            return keep.has_history().then_some(empty);
        };
        history.trim(keep, now);
        let oldest = history.entries.front();
        Some(HistoryInspection {
            messages: (history.entries.len(), keep.messages),
            offsets: (oldest.map_or(history.offset, |oldest| oldest.offset), history.offset),
            age: (oldest.map_or(Duration::ZERO, |oldest| now.saturating_sub(oldest.since)), keep.time),
            bytes: history.bytes,
        })
    }

    /// Removes the histories of topics that moved, to hand them to their new home.
    pub(super) fn hand_over(&mut self, moved: impl Fn(&Topic) -> bool) -> Vec<(Topic, History<C>)> {
        let mut topics: Vec<_> = self.histories.keys().filter(|topic| moved(topic)).cloned().collect();
        topics.sort_unstable();
        let mut moved = Vec::with_capacity(topics.len());
        for topic in topics {
            let Some((topic, history)) = self.histories.remove_entry(&topic) else { continue };
            self.budget.forget(&Evictable::History(topic.clone()), history.weight);
            moved.push((topic, history));
        }
        moved
    }

    /// Accepts a history from the former home. One that started here meanwhile is another history.
    pub(super) fn take_over(&mut self, topic: &Topic, history: History<C>) {
        self.histories.entry(topic.clone()).or_insert(history);
        self.weigh(topic);
    }

    /// Views were missed: other gateways may have been the home in between.
    pub(super) fn forget_histories(&mut self) {
        for (topic, history) in std::mem::take(&mut self.histories) {
            self.budget.forget(&Evictable::History(topic), history.weight);
        }
    }

    /// Removes what has expired. A history without messages restarts under another epoch.
    pub(super) fn sweep(&mut self, now: Duration, holds: impl Fn(&Topic) -> bool) {
        let (keeping, budget) = (&self.keeping, &mut self.budget);
        self.histories.retain(|topic, history| {
            history.trim(keeping.of(topic), now);
            let stays = !history.entries.is_empty();
            if stays {
                let bytes =
                    topic.key().len() + history.heap + history.entries.len() * RETAINED_OVERHEAD_BYTES;
                budget.shrunk(topic.app(), &mut history.weight, bytes);
            } else {
                budget.forget(&Evictable::History(topic.clone()), history.weight);
            }
            stays
        });
        self.values.retain(|topic, value| {
            let stays = now < value.since + keeping.of(topic).last && holds(topic);
            if !stays {
                budget.forget(&Evictable::Value(topic.clone()), value.weight);
            }
            stays
        });
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.histories.is_empty() && self.values.is_empty()
    }
}

/// A history in transit between two homes: ages instead of times.
#[derive(Debug, Clone)]
pub struct HandedOver<C: Content> {
    /// When it started.
    pub epoch: TopicPosition,
    /// The offset of the newest message.
    pub offset: u64,
    /// Offset, age, id and message.
    pub entries: Vec<(u64, Duration, u128, C::Command)>,
}

impl<C: Content> History<C> {
    /// Encodes it for the next home.
    pub(super) fn into_parcel(self, now: Duration) -> HandedOver<C> {
        let parcel = |entry: RetainedEntry<C>| {
            (entry.offset, now.saturating_sub(entry.since), entry.id, entry.command)
        };
        let entries = self.entries.into_iter().map(parcel).collect();
        HandedOver { epoch: self.epoch, offset: self.offset, entries }
    }

    /// Decodes it from the former home. Messages that are not consecutive are refused: better no history than
    /// one with a gap.
    pub(super) fn of_parcel(parcel: HandedOver<C>, now: Duration) -> Option<Self> {
        let first = (parcel.offset + 1).checked_sub(parcel.entries.len() as u64)?;
        let mut history = Self { offset: parcel.offset, ..Self::new(parcel.epoch) };
        for (expected, (offset, age, id, command)) in (first..).zip(parcel.entries) {
            if offset != expected {
                return None;
            }
            history.bytes += C::bytes(&command);
            history.heap += C::heap_bytes(&command);
            history.entries.push_back(RetainedEntry { offset, since: now.saturating_sub(age), id, command });
        }
        Some(history)
    }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::{id::Incarnation, v1::Epoch};

    use super::*;

    #[derive(Debug, Clone)]
    struct Text;

    impl Content for Text {
        type Command = u128;
        type Answer = ();

        fn bytes(_: &u128) -> usize {
            1
        }

        fn also(_: &u128) -> Option<Incarnation> {
            None
        }

        fn retained_as(command: &u128) -> Option<u128> {
            Some(*command)
        }

        fn merge(_: &mut Option<()>, (): ()) {}
    }

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn at(number: u64) -> TopicPosition {
        TopicPosition { tenure: Epoch::new(1, 1), number }
    }

    fn kept() -> RetainedMessages<Text> {
        let keep = Retention { messages: 3, time: secs(60), last: secs(10) };
        let groups = Pattern { app: "a".into(), pattern: "room-*".into() };
        RetainedMessages::new(RetentionRules(vec![RetentionRule { groups, keep }]), usize::MAX, usize::MAX)
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_least_recently_written_of_the_app_goes_first() {
        let keep = Retention { messages: 3, time: secs(60), last: secs(60) };
        let rules = ["a", "b"].map(|app| {
            let groups = Pattern { app: app.into(), pattern: "*".into() };
            RetentionRule { groups, keep: if app == "a" { Retention { messages: 0, ..keep } } else { keep } }
        });
        let one = RETAINED_OVERHEAD_BYTES + 20;
        let mut kept = RetainedMessages::<Text>::new(RetentionRules(rules.to_vec()), 14 * one, 10 * one);
        let room = |app: &str, number: u64| Topic::group(app, &format!("room-{number}"));
        for number in 0..20 {
            kept.add(&room("a", number), at(number + 1), &1, secs(0));
            // It is written all the time.
            kept.add(&room("a", 0), at(100 + number), &1, secs(0));
        }
        assert!(kept.bytes() <= 10 * one && kept.take_given().iter().all(|why| *why == "kept_by_app"));
        assert!(kept.value(&room("a", 0), secs(1)).is_some() && kept.value(&room("a", 1), secs(1)).is_none());
        assert!(kept.value(&room("a", 19), secs(1)).is_some());
        // Another app writes: the app above its share loses.
        for number in 0..3 {
            kept.add(&room("b", 0), at(200 + number), &u128::from(number), secs(1));
        }
        assert!(kept.bytes() <= 14 * one);
        assert_eq!(offsets(&kept.page(&room("b", 0), None, 10, secs(1))), [1, 2, 3]);
        kept.add(&room("b", 1), at(300), &7, secs(1));
        kept.add(&room("b", 2), at(301), &8, secs(1));
        assert!(kept.take_given().contains(&"kept_by_gateway") && kept.bytes() <= 14 * one);
        kept.sweep(secs(100), |_| true);
        assert_eq!((kept.bytes(), kept.is_empty()), (0, true));
    }

    fn offsets(page: &HistoryPage<Text>) -> Vec<u64> {
        page.messages.iter().map(|(offset, ..)| *offset).collect()
    }

    #[test]
    fn reader_gets_missed_messages_or_a_gap() {
        let (mut kept, room) = (kept(), Topic::group("a", "room-1"));
        assert!(kept.page(&room, None, 10, secs(0)).position.is_none());
        let first = kept.add(&room, at(1), &1, secs(0)).unwrap();
        for number in 2..=4 {
            kept.add(&room, at(number), &u128::from(number), secs(1));
        }
        assert_eq!(kept.add(&room, at(5), &4, secs(1)).unwrap().offset, 4, "a repeat is there already");
        let page = kept.page(&room, Some(first), 10, secs(1));
        assert_eq!((offsets(&page), page.recovered), (vec![2, 3, 4], true));
        let page = kept.page(&room, Some(first), 2, secs(1));
        assert_eq!((offsets(&page), page.recovered), (vec![2, 3], true), "and more where that ends");
        let page = kept.page(&room, None, 2, secs(1));
        assert_eq!((offsets(&page), page.recovered), (vec![3, 4], true));
        kept.add(&room, at(6), &6, secs(1));
        assert!(!kept.page(&room, Some(first), 10, secs(1)).recovered, "the second is gone");
        let other = Position { epoch: at(0), offset: 4 };
        assert!(!kept.page(&room, Some(other), 10, secs(1)).recovered);
        let page = kept.page(&room, Some(first), 10, secs(61));
        assert_eq!((offsets(&page), page.recovered), (vec![], false));
        assert_eq!(kept.add(&Topic::group("a", "other"), at(7), &7, secs(1)), None);
    }

    #[test]
    fn history_moves_with_its_home_or_restarts() {
        let (mut old, mut new, room) = (kept(), kept(), Topic::group("a", "room-1"));
        let mut last = old.add(&room, at(1), &1, secs(100)).unwrap();
        last = old.add(&room, at(2), &2, secs(110)).unwrap_or(last);
        let (topic, history) = old.hand_over(|_| true).pop().unwrap();
        new.take_over(&topic, History::of_parcel(history.into_parcel(secs(120)), secs(20)).unwrap());
        new.add(&room, at(9), &3, secs(21));
        let page = new.page(&room, Some(last), 10, secs(21));
        assert_eq!((offsets(&page), page.recovered), (vec![3], true));
        assert_eq!(offsets(&new.page(&room, None, 10, secs(61))), [2, 3], "ages go on");
        let whole = old.add(&room, at(12), &4, secs(130)).unwrap();
        assert_ne!(whole.epoch, last.epoch);
        let broken = HandedOver::<Text> { epoch: at(1), offset: 9, entries: vec![(3, secs(0), 1, 1)] };
        assert!(History::of_parcel(broken, secs(1)).is_none());
    }

    #[test]
    fn the_newest_value_is_kept_for_a_time() {
        let (mut kept, room) = (kept(), Topic::group("a", "room-1"));
        kept.set_value(&room, at(2), &2, secs(0));
        kept.set_value(&room, at(1), &1, secs(1));
        assert_eq!(kept.value(&room, secs(9)).map(|value| value.command), Some(2));
        assert!(kept.value(&room, secs(10)).is_none());
        kept.sweep(secs(5), |_| false);
        assert!(kept.is_empty());
    }
}
