//! The limit of a presence group, over several gateways whose frames arrive in any order: while homes move
//! and links break, no more users get in than the limit allows, and every client gets an answer.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use broadgate_proto::{
    id::Incarnation,
    v1::{Epoch, Member, MemberState, Role, View},
};
use proptest::prelude::*;

use super::{no_content::NoContent, *};

const GATEWAYS: u64 = 3;
const USERS: u64 = 8;
const MAX: u32 = 3;

#[derive(Debug, Clone, Copy)]
enum Step {
    Join {
        gateway: u64,
        user: u64,
    },
    /// The oldest client that is in at a gateway.
    Leave {
        gateway: u64,
    },
    Deliver {
        link: usize,
    },
    /// One gateway gives its topics away, or takes some back.
    Turn {
        gateway: u64,
    },
    Install {
        gateway: u64,
    },
    Break {
        link: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let gateway = 1..=GATEWAYS;
    prop_oneof![
        3 => (gateway.clone(), 0..USERS).prop_map(|(gateway, user)| Step::Join { gateway, user }),
        2 => gateway.clone().prop_map(|gateway| Step::Leave { gateway }),
        12 => any::<usize>().prop_map(|link| Step::Deliver { link }),
        1 => gateway.clone().prop_map(|gateway| Step::Turn { gateway }),
        2 => gateway.prop_map(|gateway| Step::Install { gateway }),
        1 => any::<usize>().prop_map(|link| Step::Break { link }),
    ]
}

/// A link's session, and the frames in flight on it.
type Way = (LinkSession, VecDeque<LinkMessage<NoContent>>);

struct World {
    now: Duration,
    topic: Topic,
    cores: BTreeMap<u64, Core<NoContent>>,
    links: BTreeMap<(u64, u64), Way>,
    view: Arc<View>,
    draining: BTreeSet<u64>,
    /// Clients by ticket: where, as whom, and whether they are in.
    clients: BTreeMap<Ticket, (u64, u64, bool)>,
    next: Ticket,
    refused: usize,
}

fn id(gateway: u64) -> Incarnation {
    Incarnation::from_bits(gateway)
}

impl World {
    fn new() -> Self {
        let cores = (1..=GATEWAYS).map(|gateway| (gateway, Core::new(id(gateway), TopicLimits::default())));
        let pairs = (1..=GATEWAYS).flat_map(|from| (1..=GATEWAYS).map(move |to| (from, to)));
        let links = pairs.filter(|(from, to)| from != to).map(|pair| (pair, (0, VecDeque::new())));
        let mut world = Self {
            now: Duration::ZERO,
            topic: Topic::group("a", "room"),
            cores: cores.collect(),
            links: links.collect(),
            view: Arc::default(),
            draining: BTreeSet::new(),
            clients: BTreeMap::new(),
            next: 1,
            refused: 0,
        };
        world.change_view();
        (1..=GATEWAYS).for_each(|gateway| world.install(gateway));
        for pair in world.links.keys().copied().collect::<Vec<_>>() {
            world.open(pair);
        }
        world.settle();
        world
    }

    fn change_view(&mut self) {
        let count = self.view.epoch.map_or(1, |epoch| epoch.count + 1);
        let members = (1..=GATEWAYS).map(|gateway| {
            let state =
                if self.draining.contains(&gateway) { MemberState::Draining } else { MemberState::Ready };
            Member {
                incarnation: id(gateway).to_string(),
                role: Role::Gateway.into(),
                state: state.into(),
                ring_version: 1,
                ..Member::default()
            }
        });
        let (epoch, before) = (Some(Epoch::new(1, count)), Some(Epoch::new(1, count - 1)));
        self.view = Arc::new(View { epoch, before, members: members.collect() });
    }

    fn apply(&mut self, gateway: u64, input: Input<NoContent>) {
        self.now += Duration::from_micros(10);
        let effects = self.cores.get_mut(&gateway).unwrap().apply(input, self.now);
        for effect in effects {
            match effect {
                Effect::Send(peer, frame) => {
                    let to = (1..=GATEWAYS).find(|to| id(*to) == peer).unwrap();
                    self.links.get_mut(&(gateway, to)).unwrap().1.push_back(frame);
                }
                Effect::Entered(ticket, _, entered) => self.entered(ticket, &entered),
                Effect::ResetPeer(peer, why) => panic!("{gateway} resets {peer}: {why}"),
                _ => {}
            }
        }
        self.check();
    }

    fn entered(&mut self, ticket: Ticket, entered: &Entered<NoContent>) {
        // It may have left meanwhile.
        let Some(client) = self.clients.get_mut(&ticket) else { return };
        match entered.refused {
            None => {
                client.2 = true;
                let user = client.1.to_string();
                assert!(entered.members.iter().any(|(member, _)| **member == *user), "{user}: {entered:?}");
            }
            Some(NotPresent::Full) => {
                self.refused += 1;
                self.leave(ticket);
            }
            Some(NotPresent::Undecided) => panic!("{ticket} was not decided about"),
        }
    }

    /// No client beyond the limit is let in.
    fn check(&self) {
        let users: BTreeSet<u64> =
            self.clients.values().filter(|(_, _, is_in)| *is_in).map(|(_, user, _)| *user).collect();
        assert!(users.len() <= MAX as usize, "{users:?} are in");
    }

    fn set_count(&mut self, gateway: u64, user: u64) {
        let here = |wanted: Option<u64>| {
            let same =
                |(at, who, _): &&(u64, u64, bool)| *at == gateway && wanted.is_none_or(|user| *who == user);
            self.clients.values().filter(same).count() as u32
        };
        let (clients, all) = (here(Some(user)), here(None));
        let member =
            PresenceCount { user: user.to_string().into(), info: "".into(), clients, max: Some(MAX) };
        let count =
            MembershipCount { topic: self.topic.clone(), shard: 0, clients: all, members: vec![member] };
        self.apply(gateway, Input::MembershipCount(count));
    }

    fn join(&mut self, gateway: u64, user: u64) {
        self.next += 1;
        let ticket = self.next;
        self.clients.insert(ticket, (gateway, user, false));
        self.set_count(gateway, user);
        let (topic, user) = (self.topic.clone(), Some(user.to_string().into()));
        self.apply(gateway, Input::Enter { ticket, topic, user });
    }

    fn leave(&mut self, ticket: Ticket) {
        if let Some((gateway, user, _)) = self.clients.remove(&ticket) {
            self.set_count(gateway, user);
        }
    }

    fn install(&mut self, gateway: u64) {
        let view = Arc::clone(&self.view);
        self.apply(gateway, Input::View(view));
    }

    fn open(&mut self, (from, to): (u64, u64)) {
        let link = self.links.get_mut(&(from, to)).unwrap();
        link.0 += 1;
        link.1.clear();
        let session = link.0;
        self.apply(to, Input::InboundUp(id(from), session));
        self.apply(from, Input::OutboundUp(id(to)));
    }

    fn break_link(&mut self, (from, to): (u64, u64)) {
        let (session, now) = (self.links[&(from, to)].0, self.now);
        self.apply(from, Input::OutboundDown(id(to), now));
        self.apply(to, Input::InboundDown(id(from), session, now));
        self.open((from, to));
    }

    fn deliver(&mut self, (from, to): (u64, u64)) {
        let link = self.links.get_mut(&(from, to)).unwrap();
        let session = link.0;
        if let Some(frame) = link.1.pop_front() {
            self.apply(to, Input::Received(id(from), session, frame));
        }
    }

    fn busy(&self) -> Vec<(u64, u64)> {
        self.links.iter().filter(|(_, (_, frames))| !frames.is_empty()).map(|(pair, _)| *pair).collect()
    }

    fn settle(&mut self) {
        (1..=GATEWAYS).for_each(|gateway| self.install(gateway));
        while let Some(&pair) = self.busy().first() {
            self.deliver(pair);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Join { gateway, user } => self.join(gateway, user),
            Step::Leave { gateway } => {
                let there = self.clients.iter().find(|(_, (at, _, is_in))| *at == gateway && *is_in);
                if let Some(ticket) = there.map(|(ticket, _)| *ticket) {
                    self.leave(ticket);
                }
            }
            Step::Deliver { link } => {
                let busy = self.busy();
                if !busy.is_empty() {
                    self.deliver(busy[link % busy.len()]);
                }
            }
            // No view is skipped here.
            Step::Turn { gateway } => {
                let epoch = self.view.epoch.unwrap_or_default();
                if self.cores.values().all(|core| core.epoch() == epoch) {
                    if !self.draining.remove(&gateway) && self.draining.len() + 1 < GATEWAYS as usize {
                        self.draining.insert(gateway);
                    }
                    self.change_view();
                }
            }
            Step::Install { gateway } => self.install(gateway),
            Step::Break { link } => {
                let pairs: Vec<_> = self.links.keys().copied().collect();
                self.break_link(pairs[link % pairs.len()]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn the_limit_holds_while_homes_move_and_links_break(steps in prop::collection::vec(step(), 1..250)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
        // A lost acknowledgement is not waited for for ever.
        for wait in [TopicLimits::default().link_timeout, TopicLimits::default().enter_time_max] {
            world.now += wait;
            (1..=GATEWAYS).for_each(|gateway| world.apply(gateway, Input::Tick));
            world.settle();
        }
        let waiting = world.clients.values().filter(|(_, _, is_in)| !is_in).count();
        prop_assert_eq!(waiting, 0, "nobody is left without an answer");
    }
}

#[test]
fn leaving_makes_room_and_a_user_counts_once() {
    let mut world = World::new();
    for (gateway, user) in [(1, 0), (2, 1), (3, 2), (1, 3), (2, 0), (3, 0)] {
        world.join(gateway, user);
        world.settle();
    }
    assert_eq!((world.refused, world.clients.len()), (1, 5));
    let of_one = |world: &World| *world.clients.iter().find(|(_, (_, user, _))| *user == 1).unwrap().0;
    let ticket = of_one(&world);
    world.leave(ticket);
    world.settle();
    world.join(1, 3);
    world.settle();
    assert_eq!((world.refused, world.clients.len()), (1, 5));
}
