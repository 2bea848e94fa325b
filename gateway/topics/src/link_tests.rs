//! A home waits for both links with a gateway of the view: the one on which it hears, and the one on which it
//! sends.

use std::{sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    v1::{Epoch, Member, MemberState, Role, View},
};

use super::{no_content::NoContent, *};

const SESSION: LinkSession = 1;

/// One gateway, which is the home of everything; the other drains, so it is only delivered to.
struct Home {
    now: Duration,
    core: Core<NoContent>,
    view: Arc<View>,
    /// Deliveries to the other gateway.
    delivered: Vec<u64>,
    /// What else it was sent that matters here.
    sent: Vec<&'static str>,
    /// Answers, with the gateways that each names as missing.
    answered: Vec<(Ticket, Vec<Incarnation>)>,
    dropped: Vec<&'static str>,
}

fn me() -> Incarnation {
    Incarnation::from_bits(1)
}

fn other() -> Incarnation {
    Incarnation::from_bits(2)
}

/// A view of both gateways, with the other one in this state; none if it has gone.
fn view(count: u64, other_is: Option<MemberState>) -> Arc<View> {
    let member = |incarnation: Incarnation, state: MemberState| Member {
        incarnation: incarnation.to_string(),
        role: Role::Gateway.into(),
        state: state.into(),
        ring_version: 1,
        ..Member::default()
    };
    let other = other_is.map(|state| member(other(), state));
    let members = [Some(member(me(), MemberState::Ready)), other].into_iter().flatten().collect();
    Arc::new(View { epoch: Some(Epoch::new(1, count)), before: Some(Epoch::new(1, count - 1)), members })
}

impl Home {
    /// Both gateways are in the view, and have no links yet.
    fn new() -> Self {
        let view = view(1, Some(MemberState::Draining));
        let groups = Pattern { app: "a".to_owned(), pattern: "*".to_owned() };
        let keep = Retention { last: Duration::from_secs(60), ..Retention::default() };
        let rules = RetentionRules(vec![RetentionRule { groups, keep }]);
        let core = Core::new(me(), TopicLimits::default()).with_retention(rules);
        let (delivered, answered, dropped) = (Vec::new(), Vec::new(), Vec::new());
        let (now, sent) = (Duration::ZERO, Vec::new());
        let mut home = Self { now, core, view: Arc::clone(&view), delivered, sent, answered, dropped };
        home.apply(Input::View(view));
        home
    }

    fn apply(&mut self, input: Input<NoContent>) {
        for effect in self.core.apply(input, self.now) {
            match effect {
                Effect::Send(_, LinkMessage::Deliver { id, .. }) => self.delivered.push(id),
                Effect::Send(_, LinkMessage::Value { .. }) => self.sent.push("value"),
                Effect::Send(_, LinkMessage::InterestAck(_)) => self.sent.push("acknowledgement"),
                Effect::Place { back, .. } => {
                    self.apply(Input::Placed { back, answer: Some(()), touched: Vec::new() });
                }
                Effect::Answer(ticket, HomeReply::Done(done)) => self.answered.push((ticket, done.missing)),
                Effect::Dropped(why) => self.dropped.push(why),
                _ => {}
            }
        }
    }

    /// The other gateway opens its link to the home, and has told everything there.
    fn other_syncs(&mut self) {
        self.apply(Input::InboundUp(other(), SESSION));
        let epoch = Epoch::new(1, 1);
        for frame in
            [LinkMessage::View(Arc::clone(&self.view)), LinkMessage::Synced { serial: 1, epoch, sum: None }]
        {
            self.apply(Input::Received(other(), SESSION, frame));
        }
    }

    /// Sends to all clients: each gateway of the view is asked.
    fn send(&mut self, ticket: Ticket) {
        self.send_to(ticket, Topic::all("a"));
    }

    fn send_to(&mut self, ticket: Ticket, topic: Topic) {
        self.apply(Input::Route { ticket: Some(ticket), topic, op: HomeOp::Deliver(()) });
    }

    fn other_answers(&mut self) {
        for id in std::mem::take(&mut self.delivered) {
            self.apply(Input::Received(other(), SESSION, LinkMessage::Placed { id, placed: Some(Some(())) }));
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.apply(Input::Tick);
    }
}

#[test]
fn send_waits_for_the_link_to_a_gateway_that_has_just_joined() {
    let mut home = Home::new();
    home.other_syncs();
    home.send(1);
    assert_eq!((&home.answered, &home.dropped), (&vec![], &vec![]), "the home's own link is still opening");
    assert!(home.core.wants_ticks());
    home.apply(Input::OutboundUp(other()));
    home.other_answers();
    assert_eq!((&home.answered, &home.dropped), (&vec![(1, vec![])], &vec![]));
    assert!(!home.core.wants_ticks());
}

#[test]
fn send_waits_for_a_link_that_is_dialled_again() {
    let mut home = Home::new();
    home.other_syncs();
    home.apply(Input::OutboundUp(other()));
    home.now += Duration::from_secs(60);
    home.apply(Input::OutboundDown(other(), home.now));
    home.send(1);
    assert_eq!((&home.answered, &home.dropped), (&vec![], &vec![]));
    home.apply(Input::OutboundUp(other()));
    home.other_answers();
    assert_eq!((&home.answered, &home.dropped), (&vec![(1, vec![])], &vec![]));
}

#[test]
fn link_that_does_not_open_is_waited_for_as_long_as_the_link_timeout() {
    let timeout = TopicLimits::default().link_timeout;
    let mut home = Home::new();
    home.other_syncs();
    home.send(1);
    home.wait(timeout - Duration::from_millis(1));
    assert_eq!(home.answered, []);
    home.wait(Duration::from_millis(1));
    assert_eq!(home.answered, [(1, vec![other()])]);
    home.send(2);
    assert_eq!(home.answered.last(), Some(&(2, vec![other()])), "it is known by now");

    // A link that ends because it was silent for long has been waited for already.
    let mut home = Home::new();
    home.other_syncs();
    home.apply(Input::OutboundUp(other()));
    let heard = home.now;
    home.now += timeout;
    home.apply(Input::OutboundDown(other(), heard));
    home.send(1);
    assert_eq!(home.answered, [(1, vec![other()])]);
}

#[test]
fn interest_is_not_acknowledged_before_the_last_value_is_sent() {
    let mut home = Home::new();
    let room = Topic::group("a", "room");
    // The home has a value of before.
    home.now = TopicLimits::default().link_timeout;
    home.send_to(1, room.clone());
    assert!(home.core.shared.retained.value(&room, home.now).is_some());
    home.other_syncs();
    let (clients, members, claims) = (1, Vec::new(), Vec::new());
    let interest =
        LinkMessage::InterestUpdate { serial: 2, topic: room, clients, members, claims, knows_roster: false };
    home.apply(Input::Received(other(), SESSION, interest));
    assert!(home.sent.is_empty(), "the home's own link is still opening");
    home.apply(Input::OutboundUp(other()));
    assert_eq!(home.sent, ["value", "acknowledgement"]);
}

/// A gateway that has announced that it leaves is asked nothing more, is waited for when it was asked before, and is
/// missing nowhere, however it goes.
#[test]
fn gateway_that_leaves_is_missing_in_no_answer() {
    let goes: [fn(&mut Home); 3] = [
        |home| home.apply(Input::OutboundDown(other(), home.now)),
        |home| home.apply(Input::View(view(3, None))),
        |home| home.wait(TopicLimits::default().link_timeout),
    ];
    for (state, missing) in [(MemberState::Leaving, vec![]), (MemberState::Draining, vec![other()])] {
        for go in goes {
            let mut home = Home::new();
            home.apply(Input::OutboundUp(other()));
            home.other_syncs();
            home.send(1);
            assert_eq!(home.delivered.len(), 1);
            home.apply(Input::View(view(2, Some(state))));
            assert_eq!(home.answered, [], "it may have had clients when it was asked");
            go(&mut home);
            assert_eq!(home.answered, [(1, missing.clone())]);
        }
    }
    let mut home = Home::new();
    home.apply(Input::View(view(2, Some(MemberState::Leaving))));
    assert!(!home.core.wants_ticks(), "it need not sync");
    home.send(1);
    home.apply(Input::OutboundUp(other()));
    home.other_syncs();
    home.send(2);
    assert_eq!((&home.delivered, &home.answered), (&vec![], &vec![(1, vec![]), (2, vec![])]));
}

/// It may leave when the other gateway has installed the view that says so, and has accepted all that was sent to it
/// before.
#[test]
fn gateway_leaves_when_every_other_one_knows_that() {
    let state = |count: u64, mine: MemberState| {
        let mut view = View::clone(&view(count, Some(MemberState::Ready)));
        view.members[0].set_state(mine);
        Arc::new(view)
    };
    let mut core = Core::<NoContent>::new(me(), TopicLimits::default());
    let mut serial = 0;
    let mut apply = |core: &mut Core<NoContent>, input| {
        for effect in core.apply(input, Duration::ZERO) {
            if let Effect::Send(_, LinkMessage::Synced { serial: sent, .. }) = effect {
                serial = sent;
            }
        }
        serial
    };
    let says = |message| Input::Received(other(), SESSION, message);
    apply(&mut core, Input::View(state(1, MemberState::Draining)));
    apply(&mut core, Input::OutboundUp(other()));
    apply(&mut core, Input::InboundUp(other(), SESSION));
    apply(&mut core, says(LinkMessage::View(state(1, MemberState::Draining))));
    let before = apply(&mut core, Input::Tick);
    assert!(!core.may_say_that_it_leaves(), "the next homes may not have got what it hands over");
    apply(&mut core, says(LinkMessage::InterestAck(before)));
    assert!(core.may_say_that_it_leaves() && !core.may_leave(), "no view says that it leaves");
    let leaving = state(2, MemberState::Leaving);
    let last = apply(&mut core, Input::View(Arc::clone(&leaving)));
    assert!(last > before && !core.may_leave());
    apply(&mut core, says(LinkMessage::View(leaving)));
    assert!(!core.may_leave(), "the other one may not have got its last answers");
    apply(&mut core, says(LinkMessage::InterestAck(last)));
    assert!(core.may_leave());
    // Another view does not change that, once the other gateway has it.
    apply(&mut core, Input::View(state(3, MemberState::Leaving)));
    assert!(!core.may_leave());
}
