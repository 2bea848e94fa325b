//! Random histories: gateways that tell as real ones do come, die and install views late, and streams
//! break. In the end a watcher knows what is so, and on the way it has told nothing that was not so.

use std::collections::VecDeque;

use broadgate_proto::v1::{GroupEvent, GroupState, Member, MemberState, Role};
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Come(usize, u8, u8),
    Go(usize, u8, u8),
    Crash(usize),
    Removed,
    Added,
    /// A view that changes no gateway.
    Worker,
    Install(usize),
    /// Everywhere.
    Installed,
    Report(usize),
    /// The gateway's turn ends: what it has to tell is one batch.
    Turn(usize),
    Deliver(usize),
    View,
    Cut(usize),
    Open(usize),
    /// Somebody else begins to watch.
    Another(usize),
}

/// Groups below this one always have a user at the first gateway, which never dies.
const KEPT: u8 = 3;
const GROUPS: u8 = 6;
const KEEPER: u8 = 9;
/// A client that has no name.
const NOBODY: u8 = 0;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let gateway = 0..5_usize;
    let client = (gateway.clone(), 0..GROUPS, 0..4_u8);
    let step = prop_oneof![
        6 => client.clone().prop_map(|(at, group, user)| Step::Come(at, group, user)),
        4 => client.prop_map(|(at, group, user)| Step::Go(at, group, user)),
        1 => gateway.clone().prop_map(Step::Crash),
        2 => Just(Step::Removed),
        2 => Just(Step::Added),
        1 => Just(Step::Worker),
        4 => gateway.clone().prop_map(Step::Install),
        3 => Just(Step::Installed),
        8 => gateway.clone().prop_map(Step::Report),
        6 => gateway.clone().prop_map(Step::Turn),
        8 => gateway.clone().prop_map(Step::Deliver),
        4 => Just(Step::View),
        1 => gateway.clone().prop_map(Step::Cut),
        3 => gateway.clone().prop_map(Step::Open),
        1 => gateway.prop_map(Step::Another),
    ];
    prop::collection::vec(step, 0..250)
}

struct Gateway {
    incarnation: Incarnation,
    alive: bool,
    view: Arc<View>,
    ring: Ring,
    watched: bool,
    sent: BTreeMap<u8, BTreeSet<u8>>,
    complete: Option<Epoch>,
    turn: GroupEvents,
    /// On their way to the watcher.
    stream: Option<VecDeque<GroupEvents>>,
}

struct World {
    view: Arc<View>,
    gateways: Vec<Gateway>,
    clients: BTreeSet<(usize, u8, u8)>,
    state: WatchState,
    known: View,
    picture: BTreeMap<String, BTreeSet<String>>,
}

fn name(group: u8) -> String {
    format!("room-{group}")
}

impl Gateway {
    fn new(number: u64) -> Self {
        Self {
            incarnation: Incarnation::from_bits(number),
            alive: true,
            view: Arc::default(),
            ring: Ring::new([]),
            watched: false,
            sent: BTreeMap::new(),
            complete: None,
            turn: GroupEvents::default(),
            stream: None,
        }
    }

    fn is_home(&self, group: u8) -> bool {
        self.ring.pick(RingTopic::group("", &name(group)).key()) == Some(self.incarnation)
    }

    fn note(&mut self, group: u8, event: Event) {
        if self.watched {
            self.turn.events.push(GroupEvent { group: name(group), event: Some(event) });
        }
    }

    fn install(&mut self, view: &Arc<View>) {
        if view.epoch <= self.view.epoch {
            return;
        }
        let gap = view.before != self.view.epoch;
        let changed = gap || RingInputs::of(view) != RingInputs::of(&self.view);
        self.view = view.clone();
        if !changed {
            return;
        }
        self.ring = Ring::of_view(view);
        let lost: Vec<u8> = self.sent.keys().copied().filter(|group| !self.is_home(*group)).collect();
        for group in lost {
            self.sent.remove(&group);
            self.note(group, Event::Moved(true));
        }
        self.complete = view.epoch;
    }

    /// A watcher starts: every group's state is sent.
    fn watch(&mut self) {
        self.watched = true;
        self.sent.clear();
        self.complete = self.view.epoch;
    }

    fn watch_and_report(&mut self, clients: &BTreeSet<(usize, u8, u8)>) {
        // Every change is delivered at once where it can be.
        self.report(clients);
        self.watch();
        self.report(clients);
    }

    fn report(&mut self, clients: &BTreeSet<(usize, u8, u8)>) {
        let user = |user: u8| PresenceMember { user_id: user.to_string(), info: String::new() };
        for group in (0..GROUPS).filter(|group| self.is_home(*group)).collect::<Vec<_>>() {
            let inside = || clients.iter().filter(|client| client.1 == group);
            let users: BTreeSet<u8> =
                inside().map(|client| client.2).filter(|user| *user != NOBODY).collect();
            let occupied = inside().next().is_some();
            match self.sent.remove(&group) {
                None if !occupied => continue,
                None => {
                    let members = users.iter().map(|one| user(*one)).collect();
                    self.note(group, Event::Is(GroupState { members }));
                }
                Some(sent) => {
                    sent.difference(&users).for_each(|user| self.note(group, Event::Left(user.to_string())));
                    users.difference(&sent).for_each(|one| self.note(group, Event::Joined(user(*one))));
                }
            }
            if occupied {
                self.sent.insert(group, users);
            } else {
                self.note(group, Event::Vacated(true));
            }
        }
        self.turn.complete_as_of = self.complete.take().or(self.turn.complete_as_of);
    }

    fn end_turn(&mut self) {
        let turn = std::mem::take(&mut self.turn);
        if let Some(stream) = self.stream.as_mut().filter(|_| turn != GroupEvents::default()) {
            stream.push_back(turn);
        }
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            view: Arc::default(),
            gateways: vec![Gateway::new(1), Gateway::new(2), Gateway::new(3)],
            clients: (0..KEPT).map(|group| (0, group, KEEPER)).collect(),
            state: WatchState::new(""),
            known: View::default(),
            picture: BTreeMap::new(),
        };
        world.renew(|_| true);
        world
    }

    /// The register makes a view.
    fn renew(&mut self, keep: impl Fn(&Gateway) -> bool) {
        let epoch = self.view.epoch.unwrap_or(Epoch::new(1, 0));
        let named: BTreeSet<String> =
            self.view.members.iter().map(|member| member.incarnation.clone()).collect();
        let newest = self.gateways.last().map(|gateway| gateway.incarnation.to_string());
        let there = |gateway: &&Gateway| {
            let incarnation = gateway.incarnation.to_string();
            keep(gateway)
                && (self.view.epoch.is_none() || named.contains(&incarnation) || newest == Some(incarnation))
        };
        let member = |gateway: &Gateway| Member {
            incarnation: gateway.incarnation.to_string(),
            role: Role::Gateway.into(),
            state: MemberState::Ready.into(),
            ..Member::default()
        };
        let members = self.gateways.iter().filter(there).map(member).collect();
        let before = self.view.epoch;
        self.view = Arc::new(View { epoch: Some(after(epoch)), members, before });
    }

    /// Have all gateways that live synced in the view of this one?
    fn gate_is_open(&self, at: usize) -> bool {
        let here = &self.gateways[at];
        let names = |gateway: &&Gateway| view::find(&here.view, gateway.incarnation).is_some();
        let peers = self.gateways.iter().filter(|gateway| gateway.alive).filter(names);
        here.alive && peers.clone().all(|peer| peer.view.epoch == here.view.epoch)
    }

    fn apply(&mut self, input: Input) {
        for effect in self.state.apply(input) {
            match effect {
                Effect::Reopen(gateway) => {
                    for one in self.gateways.iter_mut().filter(|one| one.incarnation == gateway) {
                        one.stream = None;
                    }
                }
                Effect::Report(GroupChange { group, kind }) => self.record(group, kind),
            }
        }
    }

    /// Changes alternate, and no leave is reported for a member that stays.
    fn record(&mut self, group: String, kind: ChangeKind) {
        let kept = (0..KEPT).any(|kept| name(kept) == group);
        match kind {
            ChangeKind::Occupied => assert!(self.picture.insert(group, BTreeSet::new()).is_none()),
            ChangeKind::Vacated => {
                assert!(!kept, "{group} is not empty");
                assert!(self.picture.remove(&group).unwrap().is_empty());
            }
            ChangeKind::Joined { user_id, .. } => {
                assert!(self.picture.get_mut(&group).unwrap().insert(user_id));
            }
            ChangeKind::Left { user_id } => {
                assert!(!kept || user_id != KEEPER.to_string(), "it is in {group}");
                assert!(self.picture.get_mut(&group).unwrap().remove(&user_id));
            }
        }
    }

    /// What happens until it can be told may end a turn; if it can be told at once, it does not.
    fn open(&mut self, at: usize) {
        let is_open = self.gate_is_open(at);
        let gateway = &mut self.gateways[at];
        let known = view::find(&self.known, gateway.incarnation).is_some();
        if known && gateway.alive && gateway.stream.is_none() {
            if is_open {
                gateway.watch_and_report(&self.clients);
            } else {
                gateway.watch();
                gateway.end_turn();
            }
            gateway.stream = Some(VecDeque::new());
            let opened = Input::Opened(gateway.incarnation);
            self.apply(opened);
        }
    }

    fn step(&mut self, step: &Step) {
        let count = self.gateways.len();
        match *step {
            Step::Come(at, group, user) if at < count && self.gateways[at].alive => {
                self.clients.insert((at, group, user));
            }
            Step::Go(at, group, user) => {
                self.clients.remove(&(at, group, user));
            }
            Step::Crash(at) if (1..count).contains(&at) => {
                self.gateways[at].alive = false;
                self.clients.retain(|client| client.0 != at);
            }
            Step::Removed => self.renew(|gateway| gateway.alive),
            Step::Added if count < 5 => {
                self.gateways.push(Gateway::new(count as u64 + 1));
                self.renew(|_| true);
            }
            Step::Worker => {
                let before = self.view.epoch;
                let epoch = before.map(after);
                self.view = Arc::new(View { epoch, before, ..(*self.view).clone() });
            }
            Step::Install(at) if at < count && self.gateways[at].alive => {
                self.gateways[at].install(&self.view);
            }
            Step::Installed => (0..count).for_each(|at| self.step(&Step::Install(at))),
            Step::Report(at) if at < count && self.gate_is_open(at) => {
                self.gateways[at].report(&self.clients)
            }
            Step::Another(at) if at < count && self.gate_is_open(at) => {
                self.gateways[at].watch_and_report(&self.clients);
            }
            Step::Turn(at) if at < count && self.gateways[at].alive => self.gateways[at].end_turn(),
            Step::Deliver(at) if at < count => {
                let gateway = &mut self.gateways[at];
                if let Some(events) = gateway.stream.as_mut().and_then(VecDeque::pop_front) {
                    let input = Input::Received(gateway.incarnation, events);
                    self.apply(input);
                }
            }
            Step::View => {
                self.known = (*self.view).clone();
                let view = Input::View(self.view.clone());
                self.apply(view);
            }
            Step::Cut(at) if at < count => self.gateways[at].stream = None,
            Step::Open(at) if at < count => self.open(at),
            _ => {}
        }
    }

    /// Nothing more happens, and everything comes through.
    fn come_to_rest(&mut self) {
        self.step(&Step::Removed);
        for _ in 0..6 {
            self.step(&Step::Installed);
            self.step(&Step::View);
            for at in 0..self.gateways.len() {
                self.step(&Step::Open(at));
                self.step(&Step::Report(at));
                self.step(&Step::Turn(at));
                while self.gateways[at].stream.as_ref().is_some_and(|stream| !stream.is_empty()) {
                    self.step(&Step::Deliver(at));
                }
            }
        }
        let mut truth: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (_, group, user) in &self.clients {
            let users = truth.entry(name(*group)).or_default();
            if *user != NOBODY {
                users.insert(user.to_string());
            }
        }
        assert_eq!(self.picture, truth);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_picture_becomes_right_and_was_never_wrong_about_who_stayed(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.come_to_rest();
    }
}
