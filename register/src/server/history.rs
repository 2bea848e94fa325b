//! What a register remembers of the past: whom it removed, which epochs it made, and which view
//! of another register it took over. All of it bounded.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use broadgate_proto::{
    id::Incarnation,
    limits::MEMBERS_MAX,
    v1::{Epoch, View},
};

/// Removed incarnations that are remembered. One that is forgotten would be taken for new if it
/// came back after this many others had been removed.
pub const REMOVED_MAX: usize = 10 * MEMBERS_MAX;
/// Own terms that are remembered; each take-over makes one.
const TERMS_MAX: usize = 64;

/// Who was removed. Removed is dead.
#[derive(Debug, Default)]
pub(super) struct Graveyard {
    order: VecDeque<Incarnation>,
    all: HashSet<Incarnation>,
}

impl Graveyard {
    pub fn add(&mut self, incarnation: Incarnation) {
        if !self.all.insert(incarnation) {
            return;
        }
        self.order.push_back(incarnation);
        if self.order.len() > REMOVED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }

    pub fn contains(&self, incarnation: Incarnation) -> bool {
        self.all.contains(&incarnation)
    }
}

/// The last count of each own term.
#[derive(Debug, Default)]
pub(super) struct Terms(BTreeMap<u64, u64>);

impl Terms {
    pub fn note(&mut self, epoch: Epoch) {
        self.0.insert(epoch.term, epoch.count);
        if self.0.len() > TERMS_MAX {
            self.0.pop_first();
        }
    }

    /// Has this register made that epoch? Another may have used the same term, so the caller also
    /// looks at who is in the view.
    pub fn issued(&self, epoch: Epoch) -> bool {
        self.0.get(&epoch.term).is_some_and(|last| epoch.count <= *last)
    }
}

/// A view as another register made it.
#[derive(Debug, Default)]
pub(super) struct Base {
    pub epoch: Epoch,
    members: BTreeSet<Incarnation>,
}

impl Base {
    pub fn of(view: &View) -> Self {
        let members = view.members.iter().filter_map(|member| member.incarnation.parse().ok());
        Self { epoch: view.epoch.unwrap_or_default(), members: members.collect() }
    }

    pub fn names(&self, incarnation: Incarnation) -> bool {
        self.members.contains(&incarnation)
    }

    pub fn incarnations(&self) -> impl Iterator<Item = &Incarnation> {
        self.members.iter()
    }

    /// Whom the other register removed between this view and a later one of the same term.
    pub fn removed_in(&self, later: &Self) -> Vec<Incarnation> {
        if self.epoch.term != later.epoch.term {
            return Vec::new();
        }
        self.members.difference(&later.members).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_graveyard_is_bounded_and_forgets_the_oldest() {
        let mut graveyard = Graveyard::default();
        for bits in 0..=REMOVED_MAX as u64 {
            graveyard.add(Incarnation::from_bits(bits));
            graveyard.add(Incarnation::from_bits(bits));
        }
        assert!(!graveyard.contains(Incarnation::from_bits(0)));
        assert!(graveyard.contains(Incarnation::from_bits(1)));
        assert_eq!(graveyard.order.len(), REMOVED_MAX);
        assert_eq!(graveyard.all.len(), REMOVED_MAX);
    }
}
