//! What a register's replies and its silence mean to a member or a watcher. Pure: takes `now`,
//! returns what to do.

use std::{sync::Arc, time::Duration};

use broadgate_proto::{
    limits::{BEAT, LEASE},
    v1::{Epoch, OrderGiver, View, ViewChange, join_reply::Reply},
    view_change,
};

use broadgate_proto::view::epoch;

/// From the Hello to the welcome.
const WELCOME_TIME_MAX: Duration = Duration::from_secs(2);
/// Bounds on the beat that a register may ask for.
const BEAT_MIN: Duration = Duration::from_millis(10);
const BEAT_MAX: Duration = Duration::from_secs(60);

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum FollowStep {
    /// Tell this process the new view.
    Install(Arc<View>),
    /// The register has taken this member in.
    Welcomed,
    /// Send a beat of this number.
    Beat(u64),
    /// Tell this process to drain, and who wants that.
    Drain(OrderGiver),
    /// This incarnation is dead.
    Dead(String),
    /// Leave this register and look for another.
    Next(String),
    /// This register has stepped down: follow the one at this address.
    Elsewhere(String),
    /// Nothing.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum FollowPhase {
    Greeting,
    Member,
}

/// One incarnation's following of registers.
#[derive(Debug, Clone)]
pub struct Following {
    known: Arc<View>,
    /// The last view of this stream, which changes begin from; peers may have passed on newer ones.
    streamed: Option<Arc<View>>,
    /// The term of the register that is followed, as its welcome says; 0 before that.
    term: u64,
    phase: FollowPhase,
    beat: Duration,
    lease: Duration,
    last_heard: Duration,
    next_beat: Duration,
    number: u64,
    draining: bool,
}

impl Following {
    /// It knows this view from before.
    #[must_use]
    pub const fn new(known: Arc<View>) -> Self {
        Self {
            known,
            streamed: None,
            term: 0,
            phase: FollowPhase::Greeting,
            beat: BEAT,
            lease: LEASE,
            last_heard: Duration::ZERO,
            next_beat: Duration::ZERO,
            number: 0,
            draining: false,
        }
    }

    /// The newest view, for the Hello.
    pub const fn known(&self) -> &Arc<View> {
        &self.known
    }

    /// A Hello has been sent.
    pub fn greeted(&mut self, now: Duration) {
        self.phase = FollowPhase::Greeting;
        self.streamed = None;
        self.term = 0;
        self.last_heard = now;
    }

    /// The register said something.
    pub fn reply(&mut self, reply: Reply, now: Duration) -> FollowStep {
        self.last_heard = now;
        match reply {
            Reply::Welcome(welcome) => {
                let known = epoch(&self.known).term;
                if welcome.term < known {
                    return FollowStep::Next(format!(
                        "the register is of term {}, an earlier one than {known}",
                        welcome.term
                    ));
                }
                self.phase = FollowPhase::Member;
                self.term = welcome.term;
                self.beat = Duration::from_millis(welcome.beat_ms.into()).clamp(BEAT_MIN, BEAT_MAX);
                self.lease = Duration::from_millis(welcome.lease_ms.into()).max(2 * self.beat);
                self.next_beat = now + self.beat;
                FollowStep::Welcomed
            }
            Reply::View(view) => self.take_whole(view),
            Reply::Change(change) => self.take_change(change),
            Reply::Beat(_) | Reply::Refused(_) => FollowStep::Nothing,
            Reply::Removed(removed) => FollowStep::Dead(removed.reason),
            // What is known here is as new: the error that ends the stream says the rest.
            Reply::Elsewhere(other) if other.term < epoch(&self.known).term => FollowStep::Nothing,
            Reply::Elsewhere(other) => FollowStep::Elsewhere(other.register),
            Reply::Drain(_) if self.draining => FollowStep::Nothing,
            Reply::Drain(order) => {
                self.draining = true;
                FollowStep::Drain(order.by.unwrap_or_default())
            }
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) -> FollowStep {
        let patience = match self.phase {
            FollowPhase::Greeting => WELCOME_TIME_MAX,
            FollowPhase::Member => self.lease,
        };
        // This process was asleep: what was said to it meanwhile has not been read yet, and may be
        // that it was removed. To go to another register now would split the cluster.
        if now > self.wake() + patience / 2 {
            self.last_heard = now;
        }
        if now >= self.last_heard + patience {
            return FollowStep::Next(format!("the register has been silent for {patience:?}"));
        }
        if self.phase == FollowPhase::Greeting || now < self.next_beat {
            return FollowStep::Nothing;
        }
        // Counted from now: after a pause there is nothing to make up for.
        self.next_beat = now + self.beat;
        self.number += 1;
        FollowStep::Beat(self.number)
    }

    /// When to call [`Following::tick`] next.
    pub fn wake(&self) -> Duration {
        match self.phase {
            FollowPhase::Greeting => self.last_heard + WELCOME_TIME_MAX,
            FollowPhase::Member => self.next_beat.min(self.last_heard + self.lease),
        }
    }

    /// A peer passed a view on. True if it is new here; a higher term also means that the register
    /// followed now is not the active one.
    pub fn learn(&mut self, view: Arc<View>) -> (FollowStep, bool) {
        let (passed, known) = (epoch(&view), epoch(&self.known));
        if !passed.is_credible(known.term) {
            // Such a view would keep this member from every register.
            return (FollowStep::Nothing, false);
        }
        // Peers may pass on the first view of a member's own register before that has come to it itself.
        let followed = self.term.max(known.term);
        let higher = followed > 0 && passed.term > followed;
        match self.install(view) {
            FollowStep::Nothing => (FollowStep::Nothing, false),
            step => (step, higher),
        }
    }

    /// The register has sent a view.
    fn take_whole(&mut self, view: View) -> FollowStep {
        let view = Arc::new(view);
        self.streamed = Some(Arc::clone(&view));
        self.install(view)
    }

    /// The register has sent what differs from its last view. Where that makes no view, another stream begins
    /// with a whole one.
    fn take_change(&mut self, change: ViewChange) -> FollowStep {
        match view_change::apply(change, self.streamed.as_deref()) {
            Ok(view) => self.take_whole(view),
            Err(error) => FollowStep::Next(format!("the register sent {error}")),
        }
    }

    /// A lower view than the known one is never installed.
    fn install(&mut self, view: Arc<View>) -> FollowStep {
        if epoch(&view) <= epoch(&self.known) {
            return FollowStep::Nothing;
        }
        self.known = view.clone();
        FollowStep::Install(view)
    }
}

/// What a watcher makes of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ViewVerdict {
    /// It is the newest.
    Install,
    /// It is the known one.
    Keep,
    /// Another register may know better.
    Next,
}

/// Which views a watcher believes. It reports nothing to a register, so a cluster that was started
/// again would stay below its known epoch for ever: after a lease of nothing but lower views it believes them.
#[derive(Debug)]
pub(super) struct BelievedViews {
    known: Epoch,
    lower_since: Option<Duration>,
    /// Are there several registers?
    several: bool,
}

impl BelievedViews {
    pub const fn new(registers: usize) -> Self {
        Self { known: Epoch::new(0, 0), lower_since: None, several: registers > 1 }
    }

    pub fn view(&mut self, epoch: Epoch, now: Duration) -> ViewVerdict {
        // A register without members is not the active one, if there are others.
        if epoch.term == 0 && self.known.term == 0 {
            return if self.several { ViewVerdict::Next } else { ViewVerdict::Keep };
        }
        if epoch < self.known && now < *self.lower_since.get_or_insert(now) + LEASE {
            return ViewVerdict::Next;
        }
        self.lower_since = None;
        if epoch == self.known {
            return ViewVerdict::Keep;
        }
        self.known = epoch;
        ViewVerdict::Install
    }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::{
        id::Incarnation,
        v1::{BeatAnswer, DrainOrder, Elsewhere, Member, Removed, Welcome},
    };
    use proptest::prelude::*;

    use super::*;

    fn view(term: u64, count: u64) -> Arc<View> {
        Arc::new(View { epoch: Some(Epoch::new(term, count)), ..View::default() })
    }

    fn welcome(term: u64) -> Reply {
        Reply::Welcome(Welcome {
            term,
            beat_ms: 1000,
            lease_ms: 5000,
            observed_address: String::new(),
            ledger: String::new(),
        })
    }

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_member_beats_and_leaves_a_register_that_does_not_answer() {
        let mut life = Following::new(view(0, 0));
        life.greeted(secs(1));
        assert_eq!(life.tick(secs(2)), FollowStep::Nothing);
        assert!(matches!(life.tick(secs(3)), FollowStep::Next(_)));
        life.greeted(secs(10));
        assert_eq!(life.reply(welcome(1), secs(10)), FollowStep::Welcomed);
        assert_eq!(life.wake(), secs(11));
        assert_eq!(life.tick(secs(11)), FollowStep::Beat(1));
        assert_eq!(life.tick(secs(11)), FollowStep::Nothing);
        assert_eq!(
            life.reply(Reply::Beat(BeatAnswer { number: 1, ledger_lag_ms: 0 }), secs(11)),
            FollowStep::Nothing
        );
        for (number, now) in (12..16).enumerate() {
            assert_eq!(life.tick(secs(now)), FollowStep::Beat(number as u64 + 2));
        }
        assert!(matches!(life.tick(secs(16)), FollowStep::Next(_)));
    }

    #[test]
    fn after_a_sleep_the_register_is_asked_before_it_is_given_up() {
        let mut life = Following::new(view(0, 0));
        life.greeted(secs(0));
        life.reply(welcome(1), secs(0));
        // One beat, not those that were missed.
        assert_eq!(life.tick(secs(60)), FollowStep::Beat(1));
        assert_eq!(life.tick(secs(60)), FollowStep::Nothing);
        for now in 61..65 {
            assert!(matches!(life.tick(secs(now)), FollowStep::Beat(_)));
        }
        assert!(matches!(life.tick(secs(65)), FollowStep::Next(_)));
    }

    /// A peer that has the first view of this member's register before the member itself has it names no other
    /// register.
    #[test]
    fn first_view_from_a_peer_is_installed_and_the_register_is_kept() {
        for welcomed in [false, true] {
            let mut life = Following::new(view(0, 0));
            life.greeted(secs(0));
            if welcomed {
                life.reply(welcome(3), secs(0));
            }
            assert_eq!(life.learn(view(3, 7)), (FollowStep::Install(view(3, 7)), false), "{welcomed}");
            if !welcomed {
                // An older register than the view's is given up when it answers.
                assert!(matches!(life.clone().reply(welcome(2), secs(0)), FollowStep::Next(_)));
                assert_eq!(life.reply(welcome(3), secs(0)), FollowStep::Welcomed);
            }
            assert_eq!(life.learn(view(4, 1)), (FollowStep::Install(view(4, 1)), true), "{welcomed}");
        }
        // A welcome names the term before its first view does.
        let mut life = Following::new(view(0, 0));
        life.greeted(secs(0));
        life.reply(welcome(3), secs(0));
        assert_eq!(life.learn(view(4, 1)), (FollowStep::Install(view(4, 1)), true));
    }

    #[test]
    fn earlier_terms_are_ignored_and_orders_are_reported() {
        let mut life = Following::new(view(3, 7));
        life.greeted(secs(0));
        assert!(matches!(life.reply(welcome(2), secs(0)), FollowStep::Next(_)));
        assert_eq!(life.reply(welcome(4), secs(0)), FollowStep::Welcomed);
        assert_eq!(
            life.reply(Reply::View(View::clone(&view(3, 8))), secs(0)),
            FollowStep::Install(view(3, 8))
        );
        assert_eq!(life.reply(Reply::View(View::clone(&view(2, 9))), secs(0)), FollowStep::Nothing);
        let by = OrderGiver { who: "secret".to_owned(), ..OrderGiver::default() };
        assert_eq!(
            life.reply(Reply::Drain(DrainOrder { by: Some(by.clone()) }), secs(0)),
            FollowStep::Drain(by)
        );
        assert_eq!(life.reply(Reply::Drain(DrainOrder::default()), secs(0)), FollowStep::Nothing);
        let other = |term| Reply::Elsewhere(Elsewhere { register: "r2:7100".into(), term });
        assert_eq!(life.reply(other(2), secs(0)), FollowStep::Nothing);
        assert_eq!(life.reply(other(4), secs(0)), FollowStep::Elsewhere("r2:7100".into()));
        let removed = Removed { reason: "lease".into() };
        assert_eq!(life.reply(Reply::Removed(removed), secs(0)), FollowStep::Dead("lease".into()));
    }

    #[test]
    fn a_peers_view_of_a_higher_term_means_another_register() {
        let mut life = Following::new(view(3, 7));
        assert_eq!(life.learn(view(3, 7)), (FollowStep::Nothing, false));
        assert_eq!(life.learn(view(3, 9)), (FollowStep::Install(view(3, 9)), false));
        assert_eq!(life.learn(view(4, 1)), (FollowStep::Install(view(4, 1)), true));
    }

    #[test]
    fn peers_view_of_a_false_term_is_not_installed() {
        let mut life = Following::new(view(3 << 16, 7));
        for term in [1 << 40, 1 << 48, u64::MAX] {
            assert_eq!(life.learn(view(term, 1)), (FollowStep::Nothing, false));
        }
        assert_eq!(life.reply(welcome(3 << 16), secs(1)), FollowStep::Welcomed);
    }

    #[test]
    fn watcher_believes_a_restarted_cluster_after_a_lease() {
        let mut one = BelievedViews::new(1);
        assert_eq!(one.view(Epoch::new(0, 0), secs(0)), ViewVerdict::Keep);
        assert_eq!(BelievedViews::new(2).view(Epoch::new(0, 0), secs(0)), ViewVerdict::Next);
        assert_eq!(one.view(Epoch::new(5, 9), secs(0)), ViewVerdict::Install);
        assert_eq!(one.view(Epoch::new(5, 9), secs(0)), ViewVerdict::Keep);
        assert_eq!(one.view(Epoch::new(1, 1), secs(10)), ViewVerdict::Next);
        assert_eq!(one.view(Epoch::new(6, 1), secs(11)), ViewVerdict::Install);
        assert_eq!(one.view(Epoch::new(1, 1), secs(20)), ViewVerdict::Next);
        assert_eq!(one.view(Epoch::new(1, 2), secs(20) + LEASE), ViewVerdict::Install);
    }

    #[test]
    fn changes_are_applied_to_the_last_view_of_the_stream() {
        let with = |count: u64, members: u64| {
            let member =
                |bits| Member { incarnation: Incarnation::from_bits(bits).to_string(), ..Member::default() };
            let members = (1..=members).map(member).collect();
            View { epoch: Some(Epoch::new(3, count)), members, before: Some(Epoch::new(3, count - 1)) }
        };
        let change = |from: &View, to: &View| Reply::Change(view_change::between(from, to));
        let (first, second, third) = (with(1, 10), with(2, 11), with(3, 12));
        let mut life = Following::new(view(0, 0));
        life.greeted(secs(0));
        assert_eq!(life.reply(welcome(3), secs(0)), FollowStep::Welcomed);
        let sent = life.reply(Reply::View(first.clone()), secs(0));
        assert_eq!(sent, FollowStep::Install(first.clone().into()));
        // A peer was quicker: the register's changes still begin from what it has sent.
        assert!(matches!(life.learn(third.clone().into()), (FollowStep::Install(_), false)));
        assert_eq!(life.reply(change(&first, &second), secs(1)), FollowStep::Nothing);
        assert_eq!(life.reply(change(&second, &third), secs(1)), FollowStep::Nothing);
        let fourth = with(4, 13);
        let sent = life.reply(change(&third, &fourth), secs(1));
        assert_eq!(sent, FollowStep::Install(fourth.clone().into()));
        // Changes to a view that this stream has not had.
        life.greeted(secs(2));
        assert!(matches!(life.reply(change(&fourth, &with(5, 14)), secs(2)), FollowStep::Next(_)));
        assert_eq!(life.known().epoch, fourth.epoch);
    }

    proptest! {
        #[test]
        fn installed_epochs_only_rise(epochs in prop::collection::vec((0..5_u64, 0..5_u64), 0..50)) {
            let mut life = Following::new(view(1, 1));
            let mut last = Epoch::new(1, 1);
            for (term, count) in epochs {
                if let FollowStep::Install(view) = life.reply(Reply::View(View::clone(&view(term, count))), secs(0)) {
                    prop_assert!(epoch(&view) > last);
                    last = epoch(&view);
                }
            }
        }
    }
}
