//! Commands that were carried out, by their ids.
//!
//! Ids that callers chose are compared whole and have a store of their own, whose bytes the apps share:
//! neither commands whose callers chose no id nor another app's flood push them out. Ids that gateways and
//! the SDK made carry [`MADE_ID_MARK`] and are known by a 128-bit hash: nobody chooses them.

use std::{
    collections::{HashMap, VecDeque},
    mem::size_of,
    sync::Arc,
    time::Duration,
};

use broadgate_proto::name::MADE_ID_MARK;
use xxhash_rust::xxh3::xxh3_128;

use super::shares::Shares;

/// What the tables cost for each id besides its text and its answer, in bytes: a slot of a hash map that is
/// half full, an entry of a queue likewise, and the text's allocation.
const OVERHEAD_BYTES: usize = 200;

/// How much is remembered.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Ids.
    pub count: usize,
    /// Bytes of ids, answers and tables.
    pub bytes: usize,
    /// How long.
    pub time: Duration,
}

/// What is kept of a command that was carried out.
pub trait Kept {
    /// Bytes that it has on the heap.
    fn heap_bytes(&self) -> usize;
}

/// What became of commands, for as long as a caller may repeat them.
#[derive(Debug)]
pub struct Remembered<A> {
    chosen: HashMap<Box<str>, Ids<Arc<str>, A>>,
    shares: Shares,
    count: usize,
    chosen_bounds: Bounds,
    made: Ids<u128, A>,
    made_bounds: Bounds,
    forgotten: Forgotten,
}

/// Ids that were forgotten before their time, since that was asked last.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// Ids that callers chose.
    pub chosen: u64,
    /// Ids that were made for callers that chose none.
    pub made: u64,
}

impl<A: Kept> Remembered<A> {
    /// Keeps so much of what callers chose, and so much of what was made for them.
    #[must_use]
    pub fn new(chosen: Bounds, made: Bounds) -> Self {
        Self {
            chosen: HashMap::new(),
            shares: Shares::default(),
            count: 0,
            chosen_bounds: chosen,
            made: Ids::default(),
            made_bounds: made,
            forgotten: Forgotten::default(),
        }
    }

    /// What became of it, if it was carried out here.
    #[must_use]
    pub fn get(&self, app: &str, id: &str) -> Option<&A> {
        if is_made(id) {
            return self.made.get(&hash(app, id));
        }
        self.chosen.get(app)?.get(id)
    }

    /// It was carried out.
    pub fn put(&mut self, app: &str, id: &str, answer: A, now: Duration) {
        if is_made(id) {
            self.made.put(&hash(app, id), |hash| *hash, answer, now);
            while self.made.len() > self.made_bounds.count || self.made.bytes > self.made_bounds.bytes {
                self.made.forget_oldest();
                self.forgotten.made += 1;
            }
            return;
        }
        let ids = match self.chosen.get_mut(app) {
            Some(ids) => ids,
            None => self.chosen.entry(app.into()).or_default(),
        };
        let (count, bytes) = (ids.len(), ids.bytes);
        ids.put(id, |id| id.into(), answer, now);
        self.count += ids.len() - count;
        self.shares.add(app, ids.bytes.saturating_sub(bytes));
        self.shares.sub(app, bytes.saturating_sub(ids.bytes));
        while self.count > self.chosen_bounds.count || self.shares.total() > self.chosen_bounds.bytes {
            let Some(giver) = self.shares.giver(app) else { return };
            self.forget_oldest(&giver);
            self.forgotten.chosen += 1;
        }
    }

    fn forget_oldest(&mut self, app: &str) {
        let Some(ids) = self.chosen.get_mut(app) else { return };
        let freed = ids.forget_oldest();
        self.shares.sub(app, freed);
        self.count -= usize::from(freed > 0);
        if ids.is_empty() {
            self.chosen.remove(app);
        }
    }

    /// Forgets what is too old, and gives memory back after a burst.
    pub fn expire(&mut self, now: Duration) {
        self.made.expire(now, self.made_bounds.time);
        let (time, shares, count) = (self.chosen_bounds.time, &mut self.shares, &mut self.count);
        self.chosen.retain(|app, ids| {
            let (before, bytes) = (ids.len(), ids.bytes);
            ids.expire(now, time);
            *count -= before - ids.len();
            shares.sub(app, bytes - ids.bytes);
            !ids.is_empty()
        });
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count + self.made.len()
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What they take, by the bounds' measure.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.shares.total() + self.made.bytes
    }

    /// How many were forgotten before their time since this was asked last.
    pub fn take_forgotten(&mut self) -> Forgotten {
        std::mem::take(&mut self.forgotten)
    }
}

/// Was it made for a caller that chose none?
fn is_made(id: &str) -> bool {
    id.starts_with(MADE_ID_MARK)
}

fn hash(app: &str, id: &str) -> u128 {
    let mut text = Vec::with_capacity(app.len() + id.len() + 1);
    text.extend_from_slice(app.as_bytes());
    text.push(0);
    text.extend_from_slice(id.as_bytes());
    xxh3_128(&text)
}

/// Ids in the order in which they came.
#[derive(Debug)]
struct Ids<K, A> {
    answers: HashMap<K, A>,
    order: VecDeque<(Duration, K)>,
    bytes: usize,
}

/// What an id takes besides the table.
trait Id: std::hash::Hash + Eq + Clone {
    fn heap_bytes(&self) -> usize;
}

impl Id for u128 {
    fn heap_bytes(&self) -> usize {
        0
    }
}

impl Id for Arc<str> {
    fn heap_bytes(&self) -> usize {
        self.len() + 2 * size_of::<usize>()
    }
}

impl<K, A> Default for Ids<K, A> {
    fn default() -> Self {
        Self { answers: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }
}

impl<K: Id, A: Kept> Ids<K, A> {
    fn get<Q>(&self, id: &Q) -> Option<&A>
    where
        K: std::borrow::Borrow<Q>,
        Q: std::hash::Hash + Eq + ?Sized,
    {
        self.answers.get(id)
    }

    fn put<Q>(&mut self, id: &Q, own: impl FnOnce(&Q) -> K, answer: A, now: Duration)
    where
        K: std::borrow::Borrow<Q>,
        Q: std::hash::Hash + Eq + ?Sized,
    {
        if let Some(known) = self.answers.get_mut(id) {
            self.bytes = self.bytes - known.heap_bytes() + answer.heap_bytes();
            *known = answer;
            return;
        }
        let id = own(id);
        self.bytes += OVERHEAD_BYTES + id.heap_bytes() + answer.heap_bytes();
        self.order.push_back((now, id.clone()));
        self.answers.insert(id, answer);
    }

    /// Returns the bytes that this gives back.
    fn forget_oldest(&mut self) -> usize {
        let Some((_, id)) = self.order.pop_front() else { return 0 };
        let answer = self.answers.remove(&id).map_or(0, |answer| answer.heap_bytes());
        let freed = OVERHEAD_BYTES + id.heap_bytes() + answer;
        self.bytes -= freed;
        freed
    }

    fn expire(&mut self, now: Duration, time: Duration) {
        while self.order.front().is_some_and(|(since, _)| now >= *since + time) {
            self.forget_oldest();
        }
        if self.order.capacity() > 4 * self.order.len().max(1024) {
            self.order.shrink_to(2 * self.order.len());
            self.answers.shrink_to(2 * self.answers.len());
        }
    }

    fn len(&self) -> usize {
        self.answers.len()
    }

    fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Kept for &'static str {
        fn heap_bytes(&self) -> usize {
            self.len()
        }
    }

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn bounds(count: usize) -> Bounds {
        Bounds { count, bytes: usize::MAX, time: secs(10) }
    }

    #[test]
    fn ids_are_remembered_for_a_time_and_up_to_a_number() {
        let mut remembered = Remembered::new(bounds(2), bounds(2));
        remembered.put("a", "one", "1", secs(0));
        remembered.put("a", "two", "2", secs(1));
        assert_eq!(remembered.get("a", "one"), Some(&"1"));
        assert_eq!(remembered.get("b", "one"), None, "another app's");
        remembered.put("a", "three", "3", secs(2));
        assert_eq!((remembered.get("a", "one"), remembered.len()), (None, 2));
        assert_eq!(remembered.take_forgotten(), Forgotten { chosen: 1, made: 0 });
        remembered.expire(secs(11));
        assert_eq!((remembered.get("a", "two"), remembered.get("a", "three")), (None, Some(&"3")));
        remembered.expire(secs(12));
        assert!(remembered.is_empty() && remembered.bytes() == 0);
    }

    #[test]
    fn commands_without_an_id_of_their_callers_push_no_chosen_id_out() {
        let mut remembered = Remembered::new(bounds(100), bounds(100));
        remembered.put("a", "mine", "sent", secs(0));
        for number in 0..10_000 {
            remembered.put("a", &format!("{MADE_ID_MARK}7-{number}"), "", secs(0));
        }
        assert_eq!(remembered.get("a", "mine"), Some(&"sent"));
        assert_eq!(remembered.get("a", &format!("{MADE_ID_MARK}7-9999")), Some(&""));
        assert_eq!(remembered.len(), 101);
        assert_eq!(remembered.take_forgotten(), Forgotten { chosen: 0, made: 9_900 });
    }

    #[test]
    fn an_app_with_many_ids_pushes_out_its_own_only() {
        let mut remembered = Remembered::new(bounds(100), bounds(1));
        for app in ["b", "c"] {
            remembered.put(app, "mine", "", secs(0));
        }
        for number in 0..1_000 {
            remembered.put("a", &number.to_string(), "", secs(0));
        }
        assert_eq!(remembered.len(), 100);
        assert!(remembered.get("b", "mine").is_some() && remembered.get("c", "mine").is_some());
        for number in 0..30 {
            remembered.put("b", &number.to_string(), "", secs(0));
        }
        assert!(remembered.get("b", "mine").is_some(), "it has less than its share");
    }

    #[test]
    fn answers_count_by_their_bytes() {
        let large: &'static str = "x".repeat(10_000).leak();
        let some = Bounds { count: 1_000_000, bytes: 100_000, time: secs(10) };
        let mut remembered = Remembered::new(some, some);
        for number in 0..1_000 {
            remembered.put("a", &number.to_string(), large, secs(0));
            remembered.put("a", &format!("{MADE_ID_MARK}{number}"), large, secs(0));
        }
        assert!(remembered.bytes() <= 200_000 && remembered.len() == 18, "{remembered:?}");
        // The outcome replaces what was remembered when it began.
        remembered.put("a", "999", "", secs(0));
        assert!(remembered.bytes() < 190_000);
    }
}
