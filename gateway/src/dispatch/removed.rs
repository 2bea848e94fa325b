//! Members that the register has removed, for operators: the view no longer names them. Pure.

use std::{sync::Arc, time::Instant};

use broadgate_proto::{
    limits::REMOVED_MEMBERS_MAX,
    v1::{self, Member, MemberState, View},
    view,
};

/// The members that have gone without announcing it, the newest last. Replaced with each view.
#[derive(Debug, Clone, Default)]
pub(crate) struct RemovedMembers(Arc<[RecentlyRemoved]>);

#[derive(Debug, Clone)]
struct RecentlyRemoved {
    member: Member,
    at: Instant,
}

impl RemovedMembers {
    /// These and those that are in one view and not in the next. `last_state` is what is known of a member from views
    /// in between.
    pub(crate) fn after(
        &self,
        before: &View,
        next: &View,
        last_state: impl Fn(&Member) -> Option<MemberState>,
        now: Instant,
    ) -> Self {
        let is_in = |member: &Member| next.members.iter().any(|one| one.incarnation == member.incarnation);
        let announced =
            |member: &Member| last_state(member).is_some_and(announces) || announces(member.state());
        let gone = before.members.iter().filter(|member| !is_in(member) && !announced(member));
        let gone: Vec<RecentlyRemoved> =
            gone.map(|member| RecentlyRemoved { member: member.clone(), at: now }).collect();
        // One that came back as another incarnation and has left in order is missed by nobody.
        let left = before.members.iter().filter(|member| !is_in(member) && announced(member));
        let left: Vec<&Member> = left.collect();
        let is_over =
            |removed: &Member| is_in(removed) || left.iter().any(|member| is_successor(member, removed));
        if gone.is_empty() && !self.0.iter().any(|removed| is_over(&removed.member)) {
            return self.clone();
        }
        let known = self.0.iter().filter(|removed| !is_over(&removed.member)).cloned();
        let all: Vec<RecentlyRemoved> = known.chain(gone).collect();
        Self(all[all.len().saturating_sub(REMOVED_MEMBERS_MAX)..].into())
    }

    pub(crate) fn messages(&self, now: Instant) -> Vec<v1::RemovedMember> {
        let message = |RecentlyRemoved { member, at }: &RecentlyRemoved| v1::RemovedMember {
            incarnation: member.incarnation.clone(),
            role: member.role,
            name: member.name.clone(),
            address: member.address.clone(),
            services: member.services.clone(),
            age_ms: u64::try_from(now.saturating_duration_since(*at).as_millis()).unwrap_or(u64::MAX),
        };
        self.0.iter().map(message).collect()
    }
}

/// Whether a member is the same process, or its successor, as one that was removed.
fn is_successor(member: &Member, removed: &Member) -> bool {
    let is_there = !removed.address.is_empty() && member.address == removed.address;
    member.role == removed.role && (member.name == removed.name || is_there)
}

fn announces(state: MemberState) -> bool {
    view::goes(&Member { state: state.into(), ..Member::default() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use broadgate_proto::v1::{Epoch, Role};

    use super::*;

    fn member(name: &str, state: MemberState) -> Member {
        let mut member = Member { incarnation: format!("i-{name}"), name: name.into(), ..Member::default() };
        member.set_state(state);
        member.set_role(Role::Gateway);
        member
    }

    fn view(members: &[Member]) -> View {
        View { epoch: Some(Epoch::new(1, 1)), members: members.to_vec(), before: None }
    }

    fn names(removed: &RemovedMembers, now: Instant) -> Vec<(String, u64)> {
        removed.messages(now).into_iter().map(|removed| (removed.name, removed.age_ms)).collect()
    }

    #[test]
    fn only_those_that_vanish_are_removed() {
        let now = Instant::now();
        let (a, b) = (member("a", MemberState::Ready), member("b", MemberState::Draining));
        let (c, d) = (member("c", MemberState::Ready), member("d", MemberState::Joining));
        let first = view(&[a.clone(), b, c, d]);
        // The view in which c drained was known, and never installed.
        let last = |member: &Member| (member.name == "c").then_some(MemberState::Leaving);
        let none = RemovedMembers::default();
        let removed = none.after(&View::default(), &first, last, now);
        assert!(names(&removed, now).is_empty());
        let removed = removed.after(&first, &view(&[]), last, now);
        let later = now + Duration::from_secs(2);
        assert_eq!(names(&removed, later), [("a".to_owned(), 2000), ("d".to_owned(), 2000)]);
        // One that another register had kept.
        let removed = removed.after(&view(&[]), &view(&[a]), last, later);
        assert_eq!(names(&removed, later), [("d".to_owned(), 2000)]);
    }

    /// It stopped for longer than its lease, came back as another incarnation, and was then shut down.
    #[test]
    fn one_that_came_back_and_left_in_order_is_not_missed() {
        let now = Instant::now();
        let (a, other) = (member("a", MemberState::Ready), member("b", MemberState::Ready));
        let back = Member { incarnation: "i-a2".into(), ..a.clone() };
        let mut leaving = back.clone();
        leaving.set_state(MemberState::Leaving);
        let steps = [
            view(&[a, other.clone()]),
            view(&[]),
            view(std::slice::from_ref(&back)),
            view(&[leaving]),
            view(&[]),
        ];
        let mut removed = RemovedMembers::default();
        let mut seen = Vec::new();
        for pair in steps.windows(2) {
            removed = removed.after(&pair[0], &pair[1], |_| None, now);
            seen.push(names(&removed, now).into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" "));
        }
        // What has not come back is still missed.
        assert_eq!(seen, ["a b", "a b", "a b", "b"]);
    }

    #[test]
    fn the_newest_are_kept() {
        let now = Instant::now();
        let mut removed = RemovedMembers::default();
        for number in 0..3 * REMOVED_MEMBERS_MAX {
            let one = view(&[member(&number.to_string(), MemberState::Ready)]);
            removed = removed.after(&one, &view(&[]), |_| None, now);
        }
        let names = names(&removed, now);
        assert_eq!(names.len(), REMOVED_MEMBERS_MAX);
        assert_eq!(names.last().unwrap().0, (3 * REMOVED_MEMBERS_MAX - 1).to_string());
    }
}
