//! The last refusals of a gateway.

use std::{cmp::Reverse, collections::HashMap, net::IpAddr};

use broadgate_proto::{
    limits::{REFUSALS_NEW_PER_ADDRESS_MAX, REFUSALS_NEW_PER_SECOND_MAX},
    v1,
};

use crate::recorder::{
    fair::{self, FairRows},
    question::EndQuestion,
};

/// Refusals that are alike.
#[derive(Debug, Clone)]
pub(crate) struct RefusalRow {
    pub(crate) reason: &'static str,
    pub(crate) why: Box<str>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) app: Box<str>,
    pub(crate) key: Box<str>,
    pub(crate) path: Box<str>,
    /// The one that was refused for itself; "" with other reasons.
    pub(crate) origin: Box<str>,
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
    hash: u64,
    first_at_ms: u64,
    last_at_ms: u64,
    count: u64,
}

/// Refusals by what they have in common. Those of the address with most rows are displaced first, and of these the one
/// that was last seen longest ago.
#[derive(Debug)]
pub(crate) struct RefusalRows {
    max: usize,
    rows: FairRows<KeptRow>,
    /// Their places, by the hash of what is equal.
    places: HashMap<u64, usize>,
    since_ms: u64,
    /// This second, and whose new rows came in it.
    new: (u64, Vec<u64>),
}

impl RefusalRows {
    /// 0 rows are off.
    pub(crate) fn new(max: usize, now_ms: u64) -> Self {
        let since_ms = if max == 0 { 0 } else { now_ms };
        Self { max, rows: FairRows::new(max), places: HashMap::new(), since_ms, new: (0, Vec::new()) }
    }

    /// Counts a refusal with its equals. Cheap, also in a flood: the texts of a new one have yet to be made.
    pub(crate) fn again(
        &mut self,
        hash: u64,
        address: Option<IpAddr>,
        reason: &'static str,
        now_ms: u64,
    ) -> Kept {
        if self.max == 0 {
            return Kept::No;
        }
        if let Some(&place) = self.places.get(&hash) {
            let kept = self.rows.at_mut(place);
            kept.count += 1;
            kept.last_at_ms = now_ms;
            self.rows.renew(place);
            return Kept::Counted;
        }
        let (second, owner) = (now_ms / 1000, fair::owner(address, reason));
        if self.new.0 != second {
            self.new.0 = second;
            self.new.1.clear();
        }
        let new = &mut self.new.1;
        let own = new.iter().filter(|known| **known == owner).count();
        if new.len() == REFUSALS_NEW_PER_SECOND_MAX || own == REFUSALS_NEW_PER_ADDRESS_MAX {
            return Kept::No;
        }
        new.push(owner);
        Kept::New
    }

    /// Adds one that is new.
    pub(crate) fn add(&mut self, hash: u64, row: RefusalRow, now_ms: u64) {
        let owner = fair::owner(row.address, row.reason);
        let kept = KeptRow { row, hash, first_at_ms: now_ms, last_at_ms: now_ms, count: 1 };
        let Some((place, forgotten)) = self.rows.add(owner, kept) else { return };
        if let Some(forgotten) = forgotten {
            self.since_ms = self.since_ms.max(forgotten.last_at_ms);
            self.places.remove(&forgotten.hash);
        }
        self.places.insert(hash, place);
    }

    /// Those that a question is about, the newest first, and how many they stand for.
    pub(crate) fn find(&self, question: &EndQuestion, gateway: &str) -> (Vec<v1::RefusedClient>, u64) {
        let is_meant = |kept: &KeptRow| {
            question.whose.is_address(kept.row.address)
                && question.is_app(&kept.row.app)
                && question.is_time(kept.last_at_ms)
        };
        let mut found: Vec<_> = self.rows.iter().filter(|(_, kept)| is_meant(kept)).collect();
        found.sort_unstable_by_key(|(number, _)| Reverse(*number));
        let total = found.iter().map(|(_, kept)| kept.count).sum();
        let messages = found.into_iter().take(question.limit).map(|(_, kept)| kept.message(gateway));
        (messages.collect(), total)
    }

    /// How many refusals of each app are remembered.
    pub(crate) fn by_app(&self) -> HashMap<String, u64> {
        let mut apps = HashMap::new();
        for (_, KeptRow { row, count, .. }) in self.rows.iter().filter(|(_, kept)| !kept.row.app.is_empty()) {
            *apps.entry(row.app.to_string()).or_default() += count;
        }
        apps
    }

    /// Since when nothing is forgotten.
    pub(crate) fn since_ms(&self) -> u64 {
        self.since_ms
    }
}

impl KeptRow {
    fn message(&self, gateway: &str) -> v1::RefusedClient {
        let RefusalRow { reason, why, address, app, key, path, origin } = &self.row;
        v1::RefusedClient {
            gateway: gateway.to_owned(),
            reason: (*reason).to_owned(),
            why: why.to_string(),
            address: address.map(|address| address.to_string()).unwrap_or_default(),
            app: app.to_string(),
            key: key.to_string(),
            path: path.to_string(),
            first_at_ms: self.first_at_ms,
            last_at_ms: self.last_at_ms,
            count: self.count,
            origin: origin.to_string(),
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
            origin: "".into(),
        }
    }

    fn refuse(rows: &mut RefusalRows, number: u8, now_ms: u64) -> Kept {
        let row = row(number);
        let kept = rows.again(number.into(), row.address, row.reason, now_ms);
        if kept == Kept::New {
            rows.add(number.into(), row, now_ms);
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

    /// Somebody who is refused for ever other things costs others neither their rows nor their new ones.
    #[test]
    fn flood_of_one_address_displaces_itself() {
        let mut rows = RefusalRows::new(100, 1);
        let refuse = |rows: &mut RefusalRows, address: [u8; 4], number: u64, now_ms| {
            let address = Some(IpAddr::from(address));
            let hash = number << 8 | u64::from(address == Some(IpAddr::from([10, 0, 0, 1])));
            let kept = rows.again(hash, address, "path", now_ms);
            if kept == Kept::New {
                let why = number.to_string().into();
                let empty = || Box::<str>::from("");
                let (app, key, path, origin) = (empty(), empty(), empty(), empty());
                let row = RefusalRow { reason: "path", why, address, app, key, path, origin };
                rows.add(hash, row, now_ms);
            }
            kept
        };
        for number in 0..50 {
            assert_eq!(refuse(&mut rows, [10, 0, 0, 2], number, number * 1000), Kept::New);
        }
        let mut kept = 0;
        for number in 0..10_000 {
            let now_ms = 50_000 + number;
            kept += usize::from(refuse(&mut rows, [10, 0, 0, 1], number, now_ms) == Kept::New);
            if number % 1000 == 999 {
                // In the same second.
                let other = [10, 0, 1, (number / 1000) as u8];
                assert_eq!(refuse(&mut rows, other, 1_000_000 + number, now_ms), Kept::New);
            }
        }
        assert_eq!(kept, 10 * REFUSALS_NEW_PER_ADDRESS_MAX);
        let of = |net: &str| {
            let whose = EndedWhose::Address(net.parse().unwrap());
            rows.find(&EndQuestion { whose, limit: 1000, ..all() }, "g").0.len()
        };
        assert!(
            of("10.0.0.2/32") >= 45 && of("10.0.1.0/24") == 10,
            "{} {}",
            of("10.0.0.2/32"),
            of("10.0.1.0/24")
        );
        assert_eq!(of("0.0.0.0/0"), 100);
        assert_eq!(rows.places.len(), 100);
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
