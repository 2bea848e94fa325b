//! The last things of many owners, of which there may be only so many. The owner with most loses first, the oldest of its
//! own: so a flood displaces itself, and nobody with less. Pure.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use xxhash_rust::xxh3::Xxh3;

/// No row.
const NONE: u32 = u32::MAX;

/// Who is behind an end or a refusal: an address, or a network of IPv6 that one host may use at will; of one kind, so
/// that many of one kind displace none of another.
pub(super) fn owner(address: Option<IpAddr>, kind: &str) -> u64 {
    let mut hash = Xxh3::new();
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V4(ip)) => hash.update(&ip.octets()),
        Some(IpAddr::V6(ip)) => hash.update(&ip.octets()[..8]),
        None => {}
    }
    hash.update(&[0xff]);
    hash.update(kind.as_bytes());
    hash.digest()
}

/// Rows, each with an owner, in places that do not move.
#[derive(Debug)]
pub(super) struct FairRows<T> {
    max: usize,
    rows: Vec<FairRow<T>>,
    owners: HashMap<u64, OwnedRows>,
    /// The owners by how many rows they have, and then by their oldest: the last one loses first.
    order: BTreeSet<(u32, Reverse<u64>, u64)>,
    /// Of the next row. 64 bits do not overflow.
    number: u64,
}

#[derive(Debug)]
struct FairRow<T> {
    value: T,
    owner: u64,
    number: u64,
    /// Its neighbours among those of the same owner.
    older: u32,
    newer: u32,
}

#[derive(Debug, Clone, Copy)]
struct OwnedRows {
    oldest: u32,
    newest: u32,
    count: u32,
}

impl<T> FairRows<T> {
    /// Room for that many rows is taken at once, so that none waits for others to be copied; pages that are not used are
    /// not there.
    pub(super) fn new(max: usize) -> Self {
        let rows = Vec::with_capacity(max);
        Self { max, rows, owners: HashMap::new(), order: BTreeSet::new(), number: 0 }
    }

    /// Adds a row; returns its place, and what it has displaced there.
    pub(super) fn add(&mut self, owner: u64, value: T) -> Option<(usize, Option<T>)> {
        if self.max == 0 {
            return None;
        }
        let number = self.number;
        self.number += 1;
        let row = FairRow { value, owner, number, older: NONE, newer: NONE };
        if self.rows.len() < self.max {
            let place = self.rows.len();
            self.rows.push(row);
            self.append(owner, place);
            return Some((place, None));
        }
        let place = self.loser(owner)?;
        self.unlink(place);
        let former = std::mem::replace(&mut self.rows[place], row);
        self.append(owner, place);
        Some((place, Some(former.value)))
    }

    /// The place of the row that goes for a new one of this owner, which counts as if it were there.
    fn loser(&self, owner: u64) -> Option<usize> {
        let (count, Reverse(oldest), most) = *self.order.last()?;
        let own = self.owners.get(&owner);
        let is_own = own.is_some_and(|own| {
            let own_oldest = self.rows[own.oldest as usize].number;
            (own.count + 1, Reverse(own_oldest)) > (count, Reverse(oldest))
        });
        let loser = if is_own { own } else { self.owners.get(&most) };
        loser.map(|owned| owned.oldest as usize)
    }

    /// Makes a row its owner's newest again.
    pub(super) fn renew(&mut self, place: usize) {
        let owner = self.rows[place].owner;
        self.unlink(place);
        self.rows[place].number = self.number;
        self.number += 1;
        self.append(owner, place);
    }

    fn append(&mut self, owner: u64, place: usize) {
        let at = place as u32;
        let owned = self.owners.entry(owner).or_insert(OwnedRows { oldest: at, newest: NONE, count: 0 });
        self.order.remove(&(owned.count, Reverse(self.rows[owned.oldest as usize].number), owner));
        (self.rows[place].older, self.rows[place].newer) = (owned.newest, NONE);
        if let Some(newest) = self.rows.get_mut(owned.newest as usize) {
            newest.newer = at;
        }
        owned.newest = at;
        owned.count += 1;
        self.order.insert((owned.count, Reverse(self.rows[owned.oldest as usize].number), owner));
    }

    /// A row is its owner's no more.
    fn unlink(&mut self, place: usize) {
        let FairRow { owner, older, newer, .. } = self.rows[place];
        let Some(owned) = self.owners.get_mut(&owner) else { return };
        self.order.remove(&(owned.count, Reverse(self.rows[owned.oldest as usize].number), owner));
        match self.rows.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => owned.oldest = newer,
        }
        match self.rows.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => owned.newest = older,
        }
        owned.count -= 1;
        if owned.count == 0 {
            self.owners.remove(&owner);
            return;
        }
        self.order.insert((owned.count, Reverse(self.rows[owned.oldest as usize].number), owner));
    }

    /// Bytes of heap, with those behind each row.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self, row_bytes: impl Fn(&T) -> usize) -> usize {
        let Self { max: _, rows, owners, order, number: _ } = self;
        // A hash table has a byte of control for each entry; a tree has nodes that may be half empty.
        rows.capacity() * size_of::<FairRow<T>>()
            + owners.capacity() * (size_of::<(u64, OwnedRows)>() + 1)
            + order.len() * 2 * size_of::<(u32, Reverse<u64>, u64)>()
            + rows.iter().map(|row| row_bytes(&row.value)).sum::<usize>()
    }

    /// A row's number, which is higher than that of all before it, and the row.
    pub(super) fn at(&self, place: usize) -> (u64, &T) {
        let row = &self.rows[place];
        (row.number, &row.value)
    }

    pub(super) fn at_mut(&mut self, place: usize) -> &mut T {
        &mut self.rows[place].value
    }

    /// All rows with their numbers, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.rows.iter().map(|row| (row.number, &row.value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn held(rows: &FairRows<(u64, usize)>) -> HashMap<u64, Vec<usize>> {
        let mut held: HashMap<u64, Vec<usize>> = HashMap::new();
        for row in &rows.rows {
            held.entry(row.value.0).or_default().push(row.value.1);
        }
        held.values_mut().for_each(|numbers| numbers.sort_unstable());
        held
    }

    proptest! {
        /// Whatever comes: each owner keeps its fair share if it ever had as much, and what it keeps is its newest.
        #[test]
        fn nobody_loses_their_fair_share(owners in prop::collection::vec(0..6_u64, 0..300), max in 0..40_usize) {
            let mut rows = FairRows::new(max);
            let mut offered: HashMap<u64, Vec<usize>> = HashMap::new();
            for (step, owner) in owners.iter().enumerate() {
                offered.entry(*owner).or_default().push(step);
                rows.add(*owner, (*owner, step));
                let held = held(&rows);
                prop_assert_eq!(held.values().map(Vec::len).sum::<usize>(), max.min(step + 1));
                let share = max / offered.len();
                for (owner, offered) in &offered {
                    let kept = held.get(owner).map_or(&[][..], Vec::as_slice);
                    prop_assert!(kept.len() >= share.min(offered.len()), "{owner}: {kept:?} of {offered:?}");
                    prop_assert!(offered.ends_with(kept), "{owner}: {kept:?} of {offered:?}");
                    prop_assert_eq!(rows.owners.get(owner).map_or(0, |owned| owned.count as usize), kept.len());
                }
                prop_assert_eq!(rows.order.len(), rows.owners.len());
                prop_assert_eq!(held.len(), rows.owners.len());
            }
        }
    }

    #[test]
    fn one_that_is_renewed_outlives_older_ones() {
        let mut rows = FairRows::new(3);
        for number in 0..3 {
            rows.add(7, (7, number));
        }
        // The oldest, one in the middle, the newest.
        for renewed in [0, 2, 2] {
            rows.renew(renewed);
        }
        assert_eq!(rows.add(7, (7, 3)), Some((1, Some((7, 1)))));
        assert_eq!(rows.add(7, (7, 4)), Some((0, Some((7, 0)))));
        rows.renew(2);
        assert_eq!(rows.add(8, (8, 0)), Some((1, Some((7, 3)))));
        rows.renew(1);
        assert_eq!((rows.owners.len(), rows.order.len()), (2, 2));
    }

    #[test]
    fn an_owner_is_an_address_and_a_kind() {
        let of = |address: &str, kind| owner(Some(address.parse().unwrap()), kind);
        assert_eq!(of("10.0.0.1", "a"), of("::ffff:10.0.0.1", "a"));
        assert_ne!(of("10.0.0.1", "a"), of("10.0.0.2", "a"));
        assert_ne!(of("10.0.0.1", "a"), of("10.0.0.1", "b"));
        assert_eq!(of("2001:db8::1", "a"), of("2001:db8::2", "a"));
        assert_ne!(of("2001:db8::1", "a"), of("2001:db8:0:1::1", "a"));
    }

    #[test]
    fn with_one_row_each_the_oldest_goes() {
        let mut rows = FairRows::new(3);
        for owner in 0..5 {
            rows.add(owner, (owner, 0));
        }
        let mut owners: Vec<u64> = held(&rows).into_keys().collect();
        owners.sort_unstable();
        assert_eq!(owners, [2, 3, 4]);
        let flood = (0..100).filter_map(|step| rows.add(4, (4, step))?.1).map(|(owner, _)| owner);
        assert_eq!(flood.filter(|owner| *owner != 4).count(), 0, "it displaces itself alone");
    }
}
