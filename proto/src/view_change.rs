//! What differs between two views, and a view made from that again. Pure.

use std::collections::BTreeMap;

use crate::{
    v1::{Member, View, ViewChange},
    view::epoch,
};

/// Why changes do not make a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadChange {
    /// They are those of a view that is not here.
    #[error("changes to view {0}, which is not here")]
    OtherBase(crate::v1::Epoch),
    /// The view would not be what the sender has.
    #[error("changes that make {found} members of what should be {expected}")]
    OtherCount {
        /// As the sender counts them.
        expected: u32,
        /// As they come out here.
        found: usize,
    },
}

/// A view as a change of nothing.
#[must_use]
pub fn whole(view: &View) -> ViewChange {
    ViewChange {
        epoch: view.epoch,
        before: view.before,
        base: None,
        removed: Vec::new(),
        put: view.members.clone(),
        members: count(&view.members),
    }
}

/// What differs in `view` from `base`. The whole view where that is no more, or where one of both is not in the
/// order of incarnations.
#[must_use]
pub fn between(base: &View, view: &View) -> ViewChange {
    if base.epoch.is_none() || !is_ordered(base) || !is_ordered(view) {
        return whole(view);
    }
    let before: BTreeMap<_, _> = base.members.iter().map(|member| (&*member.incarnation, member)).collect();
    let after: BTreeMap<_, _> = view.members.iter().map(|member| (&*member.incarnation, member)).collect();
    let removed = before.keys().filter(|incarnation| !after.contains_key(*incarnation));
    let removed: Vec<_> = removed.map(|incarnation| (*incarnation).to_owned()).collect();
    let put = after.iter().filter(|(incarnation, member)| before.get(*incarnation) != Some(member));
    let put: Vec<_> = put.map(|(_, member)| Member::clone(member)).collect();
    if removed.len() + put.len() >= view.members.len() {
        return whole(view);
    }
    let members = count(&view.members);
    ViewChange { epoch: view.epoch, before: view.before, base: base.epoch, removed, put, members }
}

/// The view that the sender has. `base` is the view with that number, if it is here.
///
/// # Errors
/// If the changes are to another view, or do not make what the sender counted.
pub fn apply(change: ViewChange, base: Option<&View>) -> Result<View, BadChange> {
    let ViewChange { epoch: number, before, base: wanted, removed, put, members: expected } = change;
    let members = match wanted {
        None => put,
        Some(wanted) => {
            let base = base.filter(|base| epoch(base) == wanted).ok_or(BadChange::OtherBase(wanted))?;
            let of = |member: &Member| (member.incarnation.clone(), member.clone());
            let mut members: BTreeMap<_, _> = base.members.iter().map(of).collect();
            for incarnation in &removed {
                members.remove(incarnation);
            }
            members.extend(put.into_iter().map(|member| (member.incarnation.clone(), member)));
            members.into_values().collect()
        }
    };
    if count(&members) != expected {
        return Err(BadChange::OtherCount { expected, found: members.len() });
    }
    Ok(View { epoch: number, members, before })
}

fn count(members: &[Member]) -> u32 {
    u32::try_from(members.len()).unwrap_or(u32::MAX)
}

/// As registers make them: an incarnation's text is of one length, so its order is that of incarnations.
fn is_ordered(view: &View) -> bool {
    view.members.is_sorted_by(|one, next| one.incarnation < next.incarnation)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{id::Incarnation, v1::Epoch};

    fn view(count: u64, members: &[(u64, i32)]) -> View {
        let member = |&(bits, state): &(u64, i32)| Member {
            incarnation: Incarnation::from_bits(bits).to_string(),
            name: format!("member-{bits}"),
            state,
            ..Member::default()
        };
        View {
            epoch: Some(Epoch::new(1 << 16, count)),
            before: Some(Epoch::new(1 << 16, count - 1)),
            members: members.iter().map(member).collect(),
        }
    }

    /// Members as a register has them.
    fn members() -> impl Strategy<Value = Vec<(u64, i32)>> {
        let near = prop::collection::btree_map(0..40_u64, 1..4_i32, 0..30);
        let far = prop::collection::btree_map(any::<u64>(), 1..4_i32, 0..5);
        (near, far)
            .prop_map(|(near, far)| near.into_iter().chain(far).collect::<BTreeMap<_, _>>())
            .prop_map(|members| members.into_iter().collect())
    }

    proptest! {
        #[test]
        fn changes_make_the_view_again(base in members(), next in members()) {
            let (base, next) = (view(1, &base), view(2, &next));
            let change = between(&base, &next);
            prop_assert_eq!(apply(change.clone(), Some(&base)).unwrap(), next.clone());
            prop_assert_eq!(apply(whole(&next), None).unwrap(), next.clone());
            if change.base.is_some() {
                prop_assert!(change.put.len() + change.removed.len() < next.members.len());
                prop_assert_eq!(apply(change.clone(), None), Err(BadChange::OtherBase(Epoch::new(1 << 16, 1))));
                prop_assert!(apply(change, Some(&next)).is_err());
            }
        }

        #[test]
        fn views_in_another_order_travel_whole(base in members(), mut next in members()) {
            next.reverse();
            let (base, next) = (view(1, &base), view(2, &next));
            prop_assert_eq!(apply(between(&base, &next), Some(&base)).unwrap(), next.clone());
            prop_assert_eq!(apply(between(&next, &base), Some(&next)).unwrap(), base);
        }
    }

    #[test]
    fn one_member_more_is_all_that_travels() {
        let before: Vec<_> = (1..=50).map(|bits| (bits * 1000, 1)).collect();
        let mut after = before.clone();
        after.insert(7, (7500, 1));
        after[20].1 = 2;
        after.remove(40);
        let (base, next) = (view(7, &before), view(8, &after));
        let change = between(&base, &next);
        assert_eq!((change.removed.len(), change.put.len(), change.members), (1, 2, 50));
        // Another member under the base's number: what comes out is noticed.
        let mut other = base.clone();
        other.members.pop();
        let found = apply(change, Some(&other));
        assert_eq!(found, Err(BadChange::OtherCount { expected: 50, found: 49 }));
    }
}
