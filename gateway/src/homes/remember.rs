//! Commands that were carried out, by the ids that their callers gave them.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use xxhash_rust::xxh3::xxh3_128;

/// What became of commands, for as long as a caller may repeat them.
#[derive(Debug)]
pub struct Remembered<A> {
    answers: HashMap<u128, A>,
    order: VecDeque<(Duration, u128)>,
    count_max: usize,
    time_max: Duration,
}

impl<A> Remembered<A> {
    /// Keeps at most so many, and each at most so long.
    #[must_use]
    pub fn new(count_max: usize, time_max: Duration) -> Self {
        Self { answers: HashMap::new(), order: VecDeque::new(), count_max, time_max }
    }

    /// What became of it, if it was carried out here.
    #[must_use]
    pub fn get(&self, app: &str, id: &str) -> Option<&A> {
        self.answers.get(&key(app, id))
    }

    /// It was carried out.
    pub fn put(&mut self, app: &str, id: &str, answer: A, now: Duration) {
        let key = key(app, id);
        if self.answers.insert(key, answer).is_none() {
            self.order.push_back((now, key));
        }
        while self.order.len() > self.count_max {
            self.forget_oldest();
        }
    }

    /// Forgets what is too old, and gives memory back after a burst.
    pub fn expire(&mut self, now: Duration) {
        while self.order.front().is_some_and(|(since, _)| now >= *since + self.time_max) {
            self.forget_oldest();
        }
        if self.order.capacity() > 4 * self.order.len().max(1024) {
            self.order.shrink_to(2 * self.order.len());
            self.answers.shrink_to(2 * self.answers.len());
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.answers.remove(&key);
        }
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }
}

/// Callers have the cluster's secret: an id is not chosen to collide.
fn key(app: &str, id: &str) -> u128 {
    let mut text = Vec::with_capacity(app.len() + id.len() + 1);
    text.extend_from_slice(app.as_bytes());
    text.push(0);
    text.extend_from_slice(id.as_bytes());
    xxh3_128(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn ids_are_remembered_for_a_time_and_up_to_a_number() {
        let mut remembered = Remembered::new(2, secs(10));
        remembered.put("a", "one", 1, secs(0));
        remembered.put("a", "two", 2, secs(1));
        assert_eq!(remembered.get("a", "one"), Some(&1));
        assert_eq!(remembered.get("b", "one"), None, "another app's");
        remembered.put("a", "three", 3, secs(2));
        assert_eq!((remembered.get("a", "one"), remembered.len()), (None, 2));
        remembered.expire(secs(11));
        assert_eq!((remembered.get("a", "two"), remembered.get("a", "three")), (None, Some(&3)));
        remembered.expire(secs(12));
        assert!(remembered.is_empty());
    }
}
