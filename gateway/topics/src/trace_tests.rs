//! Dry runs take no place in a topic's order, and traces say what a home did.

use std::{sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    v1::{Epoch, Member, MemberState, Role, View},
};

use super::*;

/// Commands that may be dry, and traced.
#[derive(Debug, Clone)]
enum Marked {}

#[derive(Debug, Clone, Copy)]
struct Marks {
    id: u128,
    dry: bool,
    traced: bool,
}

impl Content for Marked {
    type Command = Marks;
    type Answer = ();

    fn bytes(_: &Marks) -> usize {
        1
    }

    fn also(_: &Marks) -> Option<Incarnation> {
        None
    }

    fn retained_as(command: &Marks) -> Option<u128> {
        (!command.dry).then_some(command.id)
    }

    fn is_dry(command: &Marks) -> bool {
        command.dry
    }

    fn is_traced(command: &Marks) -> bool {
        command.traced
    }

    fn merge(_: &mut Option<()>, (): ()) {}
}

const SESSION: LinkSession = 1;

fn gateway(number: u64) -> Incarnation {
    Incarnation::from_bits(number)
}

/// A gateway that is the home of everything; others drain, so that they are only delivered to.
struct Home {
    now: Duration,
    core: Core<Marked>,
    view: Arc<View>,
    /// Positions of what was placed here, and deliveries to the others.
    placed: Vec<TopicPosition>,
    delivered: Vec<(Incarnation, u64)>,
    done: Vec<HomeOutcome<Marked>>,
}

impl Home {
    fn new(gateways: u64) -> Self {
        let members = (1..=gateways).map(|number| Member {
            incarnation: gateway(number).to_string(),
            role: Role::Gateway.into(),
            state: if number == 1 { MemberState::Ready } else { MemberState::Draining }.into(),
            ring_version: 1,
            ..Member::default()
        });
        let (epoch, before) = (Some(Epoch::new(1, 1)), Some(Epoch::new(1, 0)));
        let view = Arc::new(View { epoch, before, members: members.collect() });
        let groups = Pattern { app: "a".to_owned(), pattern: "*".to_owned() };
        let keep = Retention { messages: 10, time: Duration::from_secs(60), ..Retention::default() };
        let core = Core::new(gateway(1), TopicLimits::default())
            .with_retention(RetentionRules(vec![RetentionRule { groups, keep }]));
        let (placed, delivered, done) = (Vec::new(), Vec::new(), Vec::new());
        let mut home = Self { now: Duration::ZERO, core, view: Arc::clone(&view), placed, delivered, done };
        home.apply(Input::View(view));
        home
    }

    fn apply(&mut self, input: Input<Marked>) {
        for effect in self.core.apply(input, self.now) {
            match effect {
                Effect::Send(to, LinkMessage::Deliver { id, .. }) => self.delivered.push((to, id)),
                Effect::Place { back, at, .. } => {
                    self.placed.push(at);
                    self.apply(Input::Placed { back, answer: Some(()), touched: Vec::new() });
                }
                Effect::Answer(_, HomeReply::Done(done)) => self.done.push(done),
                _ => {}
            }
        }
    }

    fn received(&mut self, from: Incarnation, frame: LinkMessage<Marked>) {
        self.apply(Input::Received(from, SESSION, frame));
    }

    /// Another gateway opens its link, and has told everything there.
    fn syncs(&mut self, other: Incarnation) {
        self.apply(Input::InboundUp(other, SESSION));
        self.received(other, LinkMessage::View(Arc::clone(&self.view)));
        self.received(other, LinkMessage::Synced { serial: 1, epoch: Epoch::new(1, 1), sum: None });
    }

    fn send(&mut self, topic: &Topic, command: Marks) {
        let (ticket, topic) = (Some(1), topic.clone());
        self.apply(Input::Route { ticket, topic, op: HomeOp::Deliver(command) });
    }

    /// The outcome of what is done now, and nothing else.
    fn outcome(&mut self) -> HomeOutcome<Marked> {
        assert_eq!(self.done.len(), 1);
        self.done.remove(0)
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.apply(Input::Tick);
    }
}

const REAL: Marks = Marks { id: 1, dry: false, traced: false };

#[test]
fn a_dry_run_is_asked_of_clients_and_leaves_nothing_behind() {
    let mut home = Home::new(1);
    let room = Topic::group("a", "room");
    home.apply(Input::MembershipCount(MembershipCount {
        topic: room.clone(),
        shard: 0,
        clients: 1,
        members: Vec::new(),
    }));
    home.send(&room, REAL);
    let first = home.outcome();
    home.send(&room, Marks { dry: true, ..REAL });
    let dry = home.outcome();
    assert_eq!((dry.position, dry.gateways, dry.trace), (None, 1, None));
    home.send(&room, Marks { id: 2, ..REAL });
    let second = home.outcome();
    let offset = |outcome: &HomeOutcome<Marked>| outcome.position.map(|position| position.offset);
    assert_eq!((offset(&first), offset(&second)), (Some(1), Some(2)));
    let numbers: Vec<u64> = home.placed.iter().map(|at| at.number).collect();
    assert_eq!((numbers.len(), numbers[2]), (3, numbers[0] + 1), "it used up no place: {numbers:?}");
}

#[test]
fn a_dry_run_from_a_home_does_not_make_its_next_delivery_stale() {
    let mut other = Home::new(2);
    let home = gateway(2);
    // The same view, in which the other one is ready: it may be the home of some topic.
    let mut view = View::clone(&other.view);
    view.members[1].state = MemberState::Ready.into();
    view.epoch = Some(Epoch::new(1, 2));
    view.before = Some(Epoch::new(1, 1));
    other.view = Arc::new(view);
    other.apply(Input::View(Arc::clone(&other.view)));
    other.apply(Input::InboundUp(home, SESSION));
    other.received(home, LinkMessage::View(Arc::clone(&other.view)));
    let topic = (0..).map(|number| Topic::group("a", &format!("room-{number}")));
    let topic = topic.into_iter().find(|topic| other.core.home_of(topic) == Some(home)).unwrap();
    other.apply(Input::MembershipCount(MembershipCount {
        topic: topic.clone(),
        shard: 0,
        clients: 1,
        members: Vec::new(),
    }));
    let at = |number| TopicPosition { tenure: Epoch::new(1, 2), number };
    for (number, dry) in [(5, false), (5, true), (9, true), (6, false)] {
        let command = Marks { dry, ..REAL };
        other.received(home, LinkMessage::Deliver { id: 0, topic: topic.clone(), at: at(number), command });
    }
    assert_eq!(other.placed, [at(5), at(5), at(9), at(6)]);
    other.received(home, LinkMessage::Deliver { id: 0, topic, at: at(6), command: REAL });
    assert_eq!(other.placed.len(), 4, "in earnest nothing is taken twice");
}

#[test]
fn a_trace_says_how_long_a_command_was_parked_where_it_was_placed_and_who_is_missing() {
    let mut home = Home::new(3);
    let (all, traced) = (Topic::all("a"), Marks { traced: true, ..REAL });
    home.apply(Input::OutboundUp(gateway(2)));
    home.syncs(gateway(2));
    home.send(&all, traced);
    assert!(home.done.is_empty(), "parked: the third has not synced");
    let parked = Duration::from_millis(70);
    home.now += parked;
    home.apply(Input::OutboundUp(gateway(3)));
    home.syncs(gateway(3));
    home.wait(Duration::from_millis(30));
    assert_eq!(home.delivered.len(), 2);
    for (from, id) in std::mem::take(&mut home.delivered) {
        home.received(from, LinkMessage::Placed { id, placed: Some(Some(())) });
    }
    let outcome = home.outcome();
    let trace = HomeTrace {
        home: gateway(1),
        parked,
        at: Some(home.placed[0]),
        took: Duration::from_millis(100),
        unsynced: Vec::new(),
        unreachable: Vec::new(),
    };
    assert_eq!((outcome.trace.as_deref(), outcome.gateways), (Some(&trace), 3));

    // The third is gone for longer than anybody waits for it, and the link to it is broken.
    home.apply(Input::OutboundDown(gateway(3), home.now));
    home.apply(Input::InboundDown(gateway(3), SESSION, home.now));
    home.wait(Duration::from_secs(60));
    home.send(&all, Marks { dry: true, ..traced });
    for (from, id) in std::mem::take(&mut home.delivered) {
        home.received(from, LinkMessage::Placed { id, placed: Some(Some(())) });
    }
    let outcome = home.outcome();
    let trace = outcome.trace.unwrap();
    assert_eq!((trace.parked, trace.at), (Duration::ZERO, None));
    assert_eq!((&trace.unsynced[..], &trace.unreachable[..]), (&[gateway(3)][..], &[gateway(3)][..]));
    assert_eq!(outcome.missing, [gateway(3)]);
}
