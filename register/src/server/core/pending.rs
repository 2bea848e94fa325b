//! Changes of the list that the next view will show. The first one makes a view at once; those that follow
//! closely go together into the next, so that the start of a large cluster is some views and not one for each
//! member.

use std::time::Duration;

use broadgate_proto::{
    limits::VIEW_DEFERRED_MAX,
    v1::{Epoch, join_reply::Reply},
};

use crate::server::step::{Effect, Now};

/// What waits for the next view.
#[derive(Debug)]
pub(super) struct PendingView {
    interval: Duration,
    /// The list has changed since the last view.
    changed: bool,
    /// The effects since then, in order: they are of a list that nobody has seen.
    deferred: Vec<Effect>,
    /// No view is made before.
    next: Duration,
}

impl PendingView {
    pub const fn new(interval: Duration) -> Self {
        Self { interval, changed: false, deferred: Vec::new(), next: Duration::ZERO }
    }

    /// The list has changed.
    pub const fn change(&mut self) {
        self.changed = true;
    }

    /// Whether a change waits for its view.
    pub const fn waits(&self) -> bool {
        self.changed
    }

    /// When the next view has to be made, if one has to.
    pub fn due_at(&self) -> Option<Duration> {
        self.changed.then_some(self.next)
    }

    pub fn is_due(&self, now: Now) -> bool {
        self.changed && (now.up >= self.next || self.deferred.len() >= VIEW_DEFERRED_MAX)
    }

    /// The effects of one input: held back while a change waits, except answers to beats.
    pub fn take(&mut self, effects: Vec<Effect>, out: &mut Vec<Effect>) {
        if !self.changed {
            return out.extend(effects);
        }
        for effect in effects {
            let is_beat = matches!(effect, Effect::Reply(_, Reply::Beat(_)));
            if is_beat { &mut *out } else { &mut self.deferred }.push(effect);
        }
    }

    /// The view of this number is made: what was held back goes before it. Operators learn in which view their
    /// command shows.
    pub fn made(&mut self, view: Epoch, now: Now, out: &mut Vec<Effect>) {
        self.changed = false;
        self.next = now.up + self.interval;
        for mut effect in self.deferred.drain(..) {
            if let Effect::Answer(Ok(answer)) = &mut effect {
                answer.epoch = view;
            }
            out.push(effect);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use broadgate_proto::{
        id::Incarnation,
        v1::{Hello, Member, MemberState, Role, View},
    };
    use proptest::prelude::*;

    use super::{super::Core, *};
    use crate::server::{
        check::PeerOrigin,
        step::{ConnectionId, Happened, Input, RemovalReason},
    };

    const LEASE: Duration = Duration::from_secs(5);
    const INTERVAL: Duration = Duration::from_millis(50);

    const fn at(millis: u64) -> Now {
        Now { up: Duration::from_millis(millis), unix_ms: 0 }
    }

    fn hello(connection: ConnectionId, bits: u64, view: Option<View>) -> Input {
        let member = Member {
            incarnation: Incarnation::from_bits(bits).to_string(),
            role: Role::Worker.into(),
            name: format!("w{bits}"),
            state: MemberState::Ready.into(),
            ..Member::default()
        };
        let hello = Box::new(Hello { member: Some(member), view, ..Hello::default() });
        Input::Hello { connection, origin: PeerOrigin::default(), hello }
    }

    fn views(effects: &[Effect]) -> Vec<Arc<View>> {
        let view = |effect: &Effect| match effect {
            Effect::View(view) => Some(view.clone()),
            _ => None,
        };
        effects.iter().filter_map(view).collect()
    }

    fn register() -> Core {
        Core::new(Duration::from_secs(1), LEASE, 10_000).with_view_interval(INTERVAL)
    }

    #[test]
    fn first_change_is_shown_at_once_and_those_that_follow_go_together() {
        let mut core = register();
        let first = core.apply(hello(1, 1, None), at(10));
        assert_eq!((views(&first).len(), core.wakes_at()), (1, None));
        for bits in 2..100 {
            assert!(core.apply(hello(bits, bits, None), at(20)).is_empty());
        }
        assert_eq!((core.view().members.len(), core.wakes_at()), (1, Some(at(60).up)));
        // Beats are answered, and an operator is when the command shows.
        let beat = core.apply(Input::Beat { connection: 1, number: 7 }, at(30));
        assert!(matches!(&beat[..], [Effect::Reply(1, Reply::Beat(_))]), "{beat:?}");
        let incarnation = Incarnation::from_bits(2).to_string();
        assert!(core.apply(Input::Leave { incarnation }, at(40)).is_empty());
        assert!(core.apply(Input::Tick, at(59)).is_empty());
        let second = core.apply(Input::Tick, at(60));
        assert!(matches!(second.last(), Some(Effect::View(_))));
        let welcomes = |effect: &&Effect| matches!(effect, Effect::Reply(_, Reply::Welcome(_)));
        assert_eq!(second.iter().filter(welcomes).count(), 98);
        let [view] = &views(&second)[..] else { panic!("{second:?}") };
        assert_eq!((view.members.len(), view.before), (98, views(&first)[0].epoch));
        let answered = second
            .iter()
            .any(|effect| matches!(effect, Effect::Answer(Ok(answer)) if Some(answer.epoch) == view.epoch));
        assert!(answered, "{second:?}");
        // After a quiet time the next change is a first one again.
        assert_eq!(views(&core.apply(Input::Goodbye { connection: 3 }, at(200))).len(), 1);
    }

    /// What a view shows of the member with these bits.
    fn shown(view: &View, bits: u64) -> Option<MemberState> {
        broadgate_proto::view::find(view, Incarnation::from_bits(bits)).map(Member::state)
    }

    #[test]
    fn member_that_leaves_right_after_it_came_is_shown_to_go_before_it_is_gone() {
        for (said, wanted) in [
            (Some(MemberState::Leaving), MemberState::Leaving),
            // That it has no clients any more, only it can say.
            (None, MemberState::Draining),
        ] {
            let mut core = register();
            let first = core.apply(hello(1, 1, None), at(0));
            assert_eq!(shown(&views(&first)[0], 1), Some(MemberState::Ready));
            if let Some(state) = said {
                assert!(core.apply(Input::SetState { connection: 1, state }, at(1)).is_empty());
            }
            assert!(core.apply(Input::Goodbye { connection: 1 }, at(2)).is_empty());
            let goes = core.apply(Input::Tick, at(50));
            // Its stream ends with that view: its process need not wait for the next one.
            assert_eq!(goes.first(), Some(&Effect::Close(1)));
            assert_eq!((shown(&views(&goes)[0], 1), core.wakes_at()), (Some(wanted), Some(at(100).up)));
            // It is over for it, as if it was gone already.
            assert_eq!(core.apply(Input::Beat { connection: 1, number: 1 }, at(60)), []);
            core.apply(hello(2, 1, None), at(60));
            let gone = core.apply(Input::Tick, at(100));
            assert_eq!((shown(&views(&gone)[0], 1), core.wakes_at()), (None, None));
            let dismissed = |effect: &Effect| matches!(effect, Effect::Reply(2, Reply::Removed(_)));
            assert!(gone.iter().any(dismissed), "{gone:?}");
            let removed = |effect: &Effect| {
                matches!(effect, Effect::Happened(Happened::Removed(_, RemovalReason::Leave)))
            };
            assert_eq!(gone.iter().filter(|effect| removed(effect)).count(), 1);
        }
        // A member that no view has shown needs no end.
        let mut core = register();
        core.apply(hello(1, 1, None), at(0));
        core.apply(hello(2, 2, None), at(1));
        core.apply(Input::Goodbye { connection: 2 }, at(2));
        let next = core.apply(Input::Tick, at(50));
        assert_eq!((shown(&views(&next)[0], 2), core.wakes_at()), (None, None));
    }

    #[test]
    fn view_that_is_due_needs_no_tick() {
        let mut core = register();
        core.apply(hello(1, 1, None), at(0));
        core.apply(hello(2, 2, None), at(10));
        let effects = core.apply(Input::Beat { connection: 1, number: 1 }, at(70));
        assert_eq!(views(&effects).len(), 1);
    }

    #[test]
    fn another_term_begins_at_once_and_stepping_down_leaves_nothing_behind() {
        let mut core = register();
        core.apply(hello(1, 1, None), at(0));
        core.apply(hello(2, 2, None), at(10));
        let reported = View { epoch: Some(Epoch::new(9, 3)), ..View::default() };
        let effects = core.apply(hello(3, 3, Some(reported)), at(11));
        let [view] = &views(&effects)[..] else { panic!("{effects:?}") };
        assert_eq!((view.epoch.unwrap_or_default().term, view.members.len()), (10, 3));
        core.apply(hello(4, 4, None), at(12));
        let effects =
            core.apply(Input::StepDown { epoch: Epoch::new(90, 1), register: String::new() }, at(13));
        assert_eq!(views(&effects).iter().map(|view| view.members.len()).collect::<Vec<_>>(), [4, 0]);
        assert_eq!(core.wakes_at(), None);
    }

    #[test]
    fn too_much_that_is_held_back_makes_the_view() {
        let mut core = register();
        core.apply(hello(1, 1, None), at(0));
        core.apply(hello(2, 2, None), at(1));
        let unknown = Input::Leave { incarnation: Incarnation::from_bits(99).to_string() };
        let shown = (0..VIEW_DEFERRED_MAX).find(|_| !core.apply(unknown.clone(), at(2)).is_empty());
        // What the second member gets was held back before.
        assert!(shown.is_some_and(|count| count + 5 > VIEW_DEFERRED_MAX), "{shown:?}");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Input(u8, u64),
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let input = (0..6_u8, 1..9_u64).prop_map(|(kind, bits)| Step::Input(kind, bits));
        prop::collection::vec(prop_oneof![3 => input, 1 => (1..120_u64).prop_map(Step::Pass)], 1..120)
    }

    fn input(kind: u8, bits: u64, next: &mut ConnectionId) -> Input {
        match kind {
            0 | 1 => {
                *next += 1;
                hello(*next, bits, None)
            }
            2 => Input::SetState { connection: bits, state: MemberState::Draining },
            3 => Input::Goodbye { connection: *next - bits.min(*next) },
            4 => Input::Lost { connection: bits },
            _ => Input::Leave { incarnation: Incarnation::from_bits(bits).to_string() },
        }
    }

    proptest! {
        #[test]
        fn views_are_one_chain_with_an_interval_and_end_as_they_would_without_one(steps in steps()) {
            let mut core = register();
            let mut at_once = register().with_view_interval(Duration::ZERO);
            let (mut millis, mut next) = (0, 10);
            let mut shown: Vec<(u64, Arc<View>)> = Vec::new();
            for step in steps.into_iter().chain([Step::Pass(50), Step::Pass(50)]) {
                let input = match step {
                    Step::Input(kind, bits) => input(kind, bits, &mut next),
                    Step::Pass(time) => {
                        millis += time;
                        Input::Tick
                    }
                };
                at_once.apply(input.clone(), at(millis));
                let made = views(&core.apply(input, at(millis)));
                shown.extend(made.into_iter().map(|view| (millis, view)));
            }
            for pair in shown.windows(2) {
                let [(former_at, former), (later_at, later)] = pair else { unreachable!() };
                let same_term = former.epoch.unwrap_or_default().term == later.epoch.unwrap_or_default().term;
                prop_assert!(!same_term || *later_at >= former_at + 50, "{former_at} {later_at}");
                prop_assert_eq!(later.before, former.epoch);
            }
            prop_assert_eq!(&core.view().members, &at_once.view().members);
            prop_assert_eq!(core.wakes_at(), None);
        }
    }
}
