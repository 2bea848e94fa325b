//! The last refusals of a gateway.

use std::net::IpAddr;

use broadgate_proto::{limits::REFUSALS_NEW_PER_SECOND_MAX, v1};

use crate::recorder::question::EndQuestion;

/// Refusals that are alike.
#[derive(Debug, Clone)]
pub(crate) struct RefusalRow {
    pub(crate) reason: &'static str,
    pub(crate) why: Box<str>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) app: Box<str>,
    pub(crate) key: Box<str>,
    pub(crate) path: Box<str>,
}

/// Whether a refusal is already known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It was counted.
    Counted,
    /// It is to be added.
    New,
    /// None are kept, or too many new ones come.
    No,
}

#[derive(Debug)]
struct KeptRow {
    row: RefusalRow,
    first_at_ms: u64,
    count: u64,
}

/// Refusals by what they have in common; those that were last seen longest ago are displaced.
#[derive(Debug)]
pub(crate) struct RefusalRows {
    max: usize,
    rows: Vec<KeptRow>,
    /// Of each row: the hash of what is equal, and when it was last seen.
    hashes: Vec<u64>,
    last_at_ms: Vec<u64>,
    since_ms: u64,
    /// New rows in this second.
    new: (u64, usize),
}

impl RefusalRows {
    /// 0 rows are off.
    pub(crate) fn new(max: usize, now_ms: u64) -> Self {
        let since_ms = if max == 0 { 0 } else { now_ms };
        Self { max, rows: Vec::new(), hashes: Vec::new(), last_at_ms: Vec::new(), since_ms, new: (0, 0) }
    }

    /// Counts a refusal with its equals. Cheap, also in a flood: the texts of a new one have yet to be made.
    pub(crate) fn again(&mut self, hash: u64, now_ms: u64) -> Kept {
        if self.max == 0 {
            return Kept::No;
        }
        if let Some(at) = self.hashes.iter().position(|known| *known == hash) {
            self.rows[at].count += 1;
            self.last_at_ms[at] = now_ms;
            return Kept::Counted;
        }
        let second = now_ms / 1000;
        if self.new.0 != second {
            self.new = (second, 0);
        }
        if self.new.1 == REFUSALS_NEW_PER_SECOND_MAX {
            return Kept::No;
        }
        self.new.1 += 1;
        Kept::New
    }

    /// Adds one that is new.
    pub(crate) fn add(&mut self, hash: u64, row: RefusalRow, now_ms: u64) {
        let kept = KeptRow { row, first_at_ms: now_ms, count: 1 };
        if self.rows.len() < self.max {
            self.rows.push(kept);
            self.hashes.push(hash);
            self.last_at_ms.push(now_ms);
            return;
        }
        let Some((at, &last)) = self.last_at_ms.iter().enumerate().min_by_key(|(_, last)| **last) else {
            return;
        };
        self.since_ms = self.since_ms.max(last);
        self.rows[at] = kept;
        self.hashes[at] = hash;
        self.last_at_ms[at] = now_ms;
    }

    /// Those that a question is about, the newest first, and how many they stand for.
    pub(crate) fn find(&self, question: &EndQuestion, gateway: &str) -> (Vec<v1::RefusedClient>, u64) {
        let mut found: Vec<_> = (self.rows.iter().zip(&self.last_at_ms))
            .filter(|(KeptRow { row, .. }, last)| {
                question.whose.is_address(row.address)
                    && question.is_app(&row.app)
                    && question.is_time(**last)
            })
            .collect();
        found.sort_by_key(|(_, last)| std::cmp::Reverse(**last));
        let total = found.iter().map(|(kept, _)| kept.count).sum();
        let messages =
            found.into_iter().take(question.limit).map(|(kept, last)| kept.message(*last, gateway));
        (messages.collect(), total)
    }

    /// Since when nothing is forgotten.
    pub(crate) fn since_ms(&self) -> u64 {
        self.since_ms
    }
}

impl KeptRow {
    fn message(&self, last_at_ms: u64, gateway: &str) -> v1::RefusedClient {
        let RefusalRow { reason, why, address, app, key, path } = &self.row;
        v1::RefusedClient {
            gateway: gateway.to_owned(),
            reason: (*reason).to_owned(),
            why: why.to_string(),
            address: address.map(|address| address.to_string()).unwrap_or_default(),
            app: app.to_string(),
            key: key.to_string(),
            path: path.to_string(),
            first_at_ms: self.first_at_ms,
            last_at_ms,
            count: self.count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::question::EndedWhose;

    fn row(number: u8) -> RefusalRow {
        RefusalRow {
            reason: "origin",
            why: number.to_string().into(),
            address: Some(IpAddr::from([10, 0, 0, number])),
            app: if number.is_multiple_of(2) { "even" } else { "" }.into(),
            key: "".into(),
            path: "".into(),
        }
    }

    fn refuse(rows: &mut RefusalRows, number: u8, now_ms: u64) -> Kept {
        let kept = rows.again(number.into(), now_ms);
        if kept == Kept::New {
            rows.add(number.into(), row(number), now_ms);
        }
        kept
    }

    fn all() -> EndQuestion {
        EndQuestion {
            app: None,
            whose: EndedWhose::All,
            since_ms: 0,
            until_ms: u64::MAX,
            cause: None,
            limit: 10,
        }
    }

    fn found(rows: &RefusalRows, question: &EndQuestion) -> Vec<(String, u64)> {
        let found = rows.find(question, "g").0;
        found.into_iter().map(|found| (found.why, found.count)).collect()
    }

    #[test]
    fn equal_ones_are_counted_and_the_longest_unseen_are_displaced() {
        let mut rows = RefusalRows::new(2, 1);
        assert_eq!(refuse(&mut rows, 1, 10), Kept::New);
        assert_eq!(refuse(&mut rows, 2, 20), Kept::New);
        assert_eq!(refuse(&mut rows, 1, 30), Kept::Counted);
        let of = |name: &str, count| (name.to_owned(), count);
        assert_eq!(found(&rows, &all()), [of("1", 2), of("2", 1)]);
        assert_eq!((rows.find(&all(), "g").1, rows.since_ms()), (3, 1));
        assert_eq!(refuse(&mut rows, 3, 40), Kept::New);
        assert_eq!(found(&rows, &all()), [of("3", 1), of("1", 2)]);
        assert_eq!(rows.since_ms(), 20);
        let asked = |whose| EndQuestion { whose, ..all() };
        assert_eq!(found(&rows, &asked(EndedWhose::Address("10.0.0.1/32".parse().unwrap()))), [of("1", 2)]);
        assert_eq!(found(&rows, &asked(EndedWhose::Uid("1".into()))), []);
        assert_eq!(found(&rows, &EndQuestion { app: Some("even".into()), ..all() }), []);
        assert_eq!(found(&rows, &EndQuestion { since_ms: 35, ..all() }), [of("3", 1)]);
        assert_eq!(found(&rows, &EndQuestion { limit: 1, ..all() }), [of("3", 1)]);
    }

    #[test]
    fn flood_of_different_ones_is_kept_in_part() {
        let mut rows = RefusalRows::new(1000, 1);
        let kinds: Vec<Kept> = (0..=255).map(|number| refuse(&mut rows, number, 999)).collect();
        assert_eq!(kinds.iter().filter(|kept| **kept == Kept::New).count(), REFUSALS_NEW_PER_SECOND_MAX);
        assert_eq!(refuse(&mut rows, 0, 999), Kept::Counted, "known ones are still counted");
        assert_eq!(refuse(&mut rows, 255, 1000), Kept::New, "another second");
        let mut off = RefusalRows::new(0, 1);
        assert_eq!((refuse(&mut off, 1, 1), off.since_ms()), (Kept::No, 0));
    }
}
