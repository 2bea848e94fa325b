//! What a register remembers: the members it removed, the epochs it made, its last views, and what it knows of
//! other registers. All of it bounded.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use broadgate_proto::{
    id::Incarnation,
    limits::{MEMBERS_MAX, VIEWS_KEPT_BYTES_MAX, VIEWS_KEPT_MAX},
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

    /// The last ones, at most so many, oldest first.
    pub fn last(&self, max: usize) -> impl Iterator<Item = Incarnation> {
        self.order.iter().skip(self.order.len().saturating_sub(max)).copied()
    }
}

/// The last views, for members that missed some while they redialled.
#[derive(Debug, Default)]
pub(super) struct RecentViews {
    views: VecDeque<(Arc<View>, usize)>,
    bytes: usize,
}

impl RecentViews {
    /// Keeps a view of so many bytes, and gives up the oldest beyond the limits; the newest always stays.
    pub fn push(&mut self, view: Arc<View>, bytes: usize) {
        self.views.push_back((view, bytes));
        self.bytes += bytes;
        while (self.views.len() > VIEWS_KEPT_MAX || self.bytes > VIEWS_KEPT_BYTES_MAX)
            && self.views.len() > 1
            && let Some((_, bytes)) = self.views.pop_front()
        {
            self.bytes -= bytes;
        }
    }

    /// Is it here, or older than all that are, or was it taken over from a report? Then another report is no news.
    pub fn has_had(&self, epoch: Epoch) -> bool {
        let is_here = |wanted: Epoch| self.views.iter().any(|(view, _)| view.epoch == Some(wanted));
        let mut befores = self.views.iter().filter_map(|(view, _)| view.before);
        self.oldest().is_none_or(|oldest| epoch < oldest)
            || is_here(epoch)
            || befores.any(|before| epoch <= before && !is_here(before))
    }

    /// The epoch of the oldest one.
    pub fn oldest(&self) -> Option<Epoch> {
        self.views.front().and_then(|(view, _)| view.epoch)
    }

    /// The views after the known one, which may be that of another register that the first one here follows; if
    /// none follows it, the newest again where `or_newest` says so.
    pub fn after(&self, known: Option<Epoch>, or_newest: bool) -> Vec<Arc<View>> {
        let last = self.views.len().saturating_sub(1);
        let mut views = self.views.iter();
        let after = views.position(|(view, _)| view.epoch == known).map(|known| known + 1);
        let follows = |known| self.views.iter().position(|(view, _)| view.before == Some(known));
        let after = after.or_else(|| known.filter(|known| known.term > 0).and_then(follows));
        let from = match or_newest {
            true => after.map_or(last, |after| after.min(last)),
            false => after.unwrap_or(self.views.len()),
        };
        self.views.iter().skip(from).map(|(view, _)| view.clone()).collect()
    }
}

/// Another register is active under a higher term.
#[derive(Debug)]
pub(super) struct SteppedDown {
    pub term: u64,
    /// Where it is, or "".
    pub register: String,
    /// Until then only members that come from there are taken in.
    pub until: Duration,
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
    fn former_views_are_bounded_in_number_and_bytes() {
        let view = |count| Arc::new(View { epoch: Some(Epoch::new(1, count)), ..View::default() });
        let (mut small, mut large) = (RecentViews::default(), RecentViews::default());
        for count in 1..=100 {
            small.push(view(count), 10);
            large.push(view(count), VIEWS_KEPT_BYTES_MAX / 4);
        }
        assert_eq!((small.views.len(), small.bytes), (VIEWS_KEPT_MAX, 10 * VIEWS_KEPT_MAX));
        assert_eq!((large.views.len(), large.bytes), (4, VIEWS_KEPT_BYTES_MAX));
        assert_eq!(large.after(Some(Epoch::new(1, 98)), true), [view(99), view(100)]);
        assert_eq!(large.after(Some(Epoch::new(1, 5)), true), [view(100)]);
        assert!(large.after(Some(Epoch::new(1, 5)), false).is_empty());
        large.push(view(101), 2 * VIEWS_KEPT_BYTES_MAX);
        assert_eq!(large.after(None, true), [view(101)]);
    }

    #[test]
    fn member_that_knows_the_view_taken_over_gets_every_one_since() {
        let view = |term, count, before| {
            let before = Some(before).filter(|before| *before != (0, 0));
            let before = before.map(|(term, count)| Epoch::new(term, count));
            Arc::new(View { epoch: Some(Epoch::new(term, count)), before, ..View::default() })
        };
        let mut recent = RecentViews::default();
        let all = [view(0, 0, (0, 0)), view(6, 1, (5, 7)), view(6, 2, (6, 1))];
        for view in &all {
            recent.push(Arc::clone(view), 1);
        }
        assert_eq!(recent.after(Some(Epoch::new(5, 7)), true), all[1..]);
        assert_eq!(recent.after(Some(Epoch::new(5, 7)), false), all[1..]);
        assert_eq!(recent.after(Some(Epoch::new(5, 6)), true), all[2..], "there is a gap, whatever is sent");
        assert_eq!(recent.after(None, true), all[2..], "a newcomer missed nothing");
    }

    #[test]
    fn view_that_the_ledger_has_lost_is_told_from_one_that_it_has_had() {
        let view = |term, count, before: (u64, u64)| View {
            epoch: Some(Epoch::new(term, count)),
            before: Some(Epoch::new(before.0, before.1)),
            ..View::default()
        };
        let mut recent = RecentViews::default();
        // It lost what followed 2.2; later it took over 7.3, which a member had reported.
        for view in [view(2, 1, (1, 9)), view(2, 2, (2, 1)), view(6, 1, (2, 2)), view(9, 1, (7, 3))] {
            recent.push(Arc::new(view), 1);
        }
        for had in [(1, 5), (2, 2), (6, 1), (7, 3), (7, 2), (9, 1)] {
            assert!(recent.has_had(Epoch::new(had.0, had.1)), "{had:?}");
        }
        for lost in [(8, 1), (9, 2), (12, 1)] {
            assert!(!recent.has_had(Epoch::new(lost.0, lost.1)), "{lost:?}");
        }
        assert!(
            RecentViews::default().has_had(Epoch::new(1, 1)),
            "without a ledger's views nothing is asked"
        );
    }

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
