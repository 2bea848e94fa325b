//! One run of a gateway: the core of its homes, and around it what carries out effects in order.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use broadgate_proto::view;
use broadgate_proto::{
    id::Incarnation,
    v1::{MemberState, View},
};
use broadgate_topics::{
    Core, Effect, Input, LinkMessage, LinkSession, MembershipCount, ReplyTo, Topic, TopicLimits,
};

use super::{
    bugs::Bug,
    calls::Desk,
    history::{Fact, Receipt, Sim},
    links::Dial,
    net::ConnId,
    register::Membership,
    reports,
    rng::Rng,
    shards::Shard,
    world::{Event, World},
};

/// What a gateway waits for.
#[derive(Debug, Clone, Copy)]
pub enum Timer {
    Tick,
    Member(u64),
    MemberDial,
    Look(ConnId),
    Dial(Incarnation),
    LinkBeat(ConnId, usize),
    Shard(usize),
    FromShard(usize),
    Ready,
    /// A draining gateway lets its clients go, then leaves.
    LetGo(u32),
    RpcLate(u64),
    ScatterLate(u64),
    CallLate(u64),
}

const TICK: Duration = Duration::from_millis(100);
/// A gateway without clients waits for a link timeout, in rounds of 50 ms, until everybody knows that it leaves.
const LEAVES_AT_LAST: u32 = 45;

#[derive(Debug)]
pub struct Gateway {
    pub me: Incarnation,
    pub core: Core<Sim>,
    pub member: Membership,
    inbox: VecDeque<Input<Sim>>,
    busy: bool,
    ticking: bool,
    /// It has been in a view; once it is in none any more it is dead.
    in_view: bool,
    removed: bool,
    pub dials: BTreeMap<Incarnation, Dial>,
    pub heard: BTreeMap<Incarnation, (ConnId, LinkSession)>,
    pub next_session: LinkSession,
    pub shards: Vec<Shard>,
    pub desk: Desk,
    /// What the core was told of its clients: topic and shard.
    standing: BTreeMap<(Topic, u8), u32>,
    /// How much it has reported, and when the last of each group arrives.
    pub reported: u64,
    /// How many have entered groups.
    pub entered: u64,
    pub on_the_way: BTreeMap<Topic, Duration>,
    /// Since when it could have found that another register has members.
    pub halved_since: Option<Duration>,
    /// Gateways whose last word was that they have no clients any more.
    pub left: BTreeSet<Incarnation>,
    /// It has said goodbye to the register.
    pub has_left: bool,
    pub rng: Rng,
}

impl World {
    pub fn start_gateway(&mut self, host: usize, ring_version: u32) {
        if self.hosts[host].gateway.is_none() {
            self.hosts[host].ring_version = ring_version;
            self.new_incarnation(host, Arc::default());
        }
    }

    fn new_incarnation(&mut self, host: usize, known: Arc<View>) {
        let lives = &mut self.hosts[host].lives;
        *lives += 1;
        let mut rng = Rng::of(&[self.seed, 2, host as u64, *lives]);
        let me = Incarnation::from_bits(rng.next());
        let shards = (0..1 + host % 2).map(|no| Shard::new(rng.next() ^ no as u64)).collect();
        let gateway = Gateway {
            me,
            core: Core::new(me, TopicLimits::default()),
            member: Membership::new(known, self.script.registers_of(host), Rng::of(&[rng.next()])),
            inbox: VecDeque::new(),
            busy: false,
            ticking: false,
            in_view: false,
            removed: false,
            dials: BTreeMap::new(),
            heard: BTreeMap::new(),
            next_session: 0,
            shards,
            desk: Desk::default(),
            standing: BTreeMap::new(),
            reported: 0,
            entered: 0,
            on_the_way: BTreeMap::new(),
            halved_since: None,
            left: BTreeSet::new(),
            has_left: false,
            rng,
        };
        self.tell(&"starts", &(host, me));
        self.hosts[host].gateway = Some(Box::new(gateway));
        self.input(host, reports::about_everything());
        self.timer(host, Duration::from_millis(5), Timer::MemberDial);
    }

    /// The process ends. Silently: its machine too, and no peer learns of it.
    pub fn crash(&mut self, host: usize, silently: bool) {
        let Some(gateway) = self.hosts[host].gateway.take() else { return };
        self.hosts[host].paused = None;
        self.bury(host, &gateway, silently);
    }

    fn bury(&mut self, host: usize, gateway: &Gateway, silently: bool) {
        self.tell(&"ends", &(host, gateway.me, silently));
        self.note(Fact::Ended { by: gateway.me });
        self.node_gone(host, silently);
        self.clients_of_dead(gateway.me);
        self.calls_of_dead(host);
    }

    /// Removed is dead: its clients are closed, and it joins as another incarnation.
    pub fn reborn(&mut self, host: usize) {
        let Some(gateway) = self.hosts[host].gateway.take() else { return };
        let known = Arc::clone(gateway.member.life.known());
        let drains = matches!(gateway.member.wanted, MemberState::Draining | MemberState::Leaving);
        // Where two registers run, one may have removed who was at the other: not promised there.
        if !drains && self.now > self.suspect_until && (!self.has_several_registers() || self.script.ledger) {
            self.note(Fact::PutOut { by: gateway.me });
        }
        self.bury(host, &gateway, false);
        self.new_incarnation(host, known);
    }

    pub fn view_comes(&mut self, host: usize, view: Arc<View>) {
        self.input(host, Input::View(view));
    }

    /// Something happens to the homes of a gateway. Its effects are carried out before the next input.
    pub fn input(&mut self, host: usize, input: Input<Sim>) {
        let Some(gateway) = self.gateway(host) else { return };
        gateway.inbox.push_back(input);
        if std::mem::replace(&mut gateway.busy, true) {
            return;
        }
        while let Some(gateway) = self.gateway(host)
            && let Some(input) = gateway.inbox.pop_front()
        {
            self.step_of_core(host, input);
        }
        let Some(gateway) = self.gateway(host) else { return };
        gateway.busy = false;
        if gateway.removed {
            return self.reborn(host);
        }
        if gateway.core.wants_ticks() && !std::mem::replace(&mut gateway.ticking, true) {
            self.timer(host, TICK, Timer::Tick);
        }
    }

    fn step_of_core(&mut self, host: usize, input: Input<Sim>) {
        let (now, bug) = (self.now, self.bug);
        if self.trace.on {
            self.tell(&("core", host), &brief_input(&input));
        }
        let Some(gateway) = self.gateway(host) else { return };
        let me = gateway.me;
        let from =
            if let Input::Received(peer, _, LinkMessage::Deliver { .. }) = &input { *peer } else { me };
        let of_view = matches!(input, Input::View(_) | Input::Received(_, _, LinkMessage::View(_)));
        let heard = matches!(input, Input::InboundUp(..));
        let unfenced = unfenced(bug, &input);
        let emptied =
            if let Input::MembershipCount(standing) = &input { gateway.emptied_by(standing) } else { None };
        let mut effects = gateway.core.apply(input, now);
        if let Some(topic) = emptied {
            self.note(Fact::Emptied { by: me, topic });
        }
        let Some(gateway) = self.gateway(host) else { return };
        let installed = effects.iter().any(|effect| matches!(effect, Effect::Installed(_)));
        if bug == Some(Bug::NoParking) && (installed || heard) {
            let epoch = gateway.core.epoch();
            for (peer, (_, session)) in gateway.heard.clone() {
                gateway.inbox.push_back(Input::Received(
                    peer,
                    session,
                    LinkMessage::Synced { serial: 0, epoch, sum: None },
                ));
            }
        }
        if of_view && bug == Some(Bug::NoReannouncement) {
            effects.retain(|effect| !matches!(effect, Effect::Send(_, LinkMessage::InterestUpdate { .. })));
        }
        if bug == Some(Bug::NoHeir) {
            effects.retain(|effect| !matches!(effect, Effect::Send(_, LinkMessage::Reported { .. })));
        }
        if effects
            .iter()
            .any(|effect| matches!(effect, Effect::Dropped("stale_delivery" | "not_of_the_view")))
        {
            effects.extend(unfenced);
        }
        for mut effect in effects {
            match &mut effect {
                Effect::Send(_, LinkMessage::InterestUpdate { members, .. })
                    if of_view && bug == Some(Bug::NoRoster) =>
                {
                    members.clear();
                }
                Effect::Send(_, LinkMessage::Synced { sum, .. }) if bug == Some(Bug::NoReannouncement) => {
                    *sum = None
                }
                _ => {}
            }
            self.effect(host, me, from, effect);
        }
    }

    fn effect(&mut self, host: usize, me: Incarnation, from: Incarnation, effect: Effect<Sim>) {
        if self.trace.on {
            self.tell(&("does", host), &brief_effect(&effect));
        }
        match effect {
            Effect::Send(peer, frame) => self.link_says(host, peer, frame),
            Effect::Place { mut back, topic, at, command } => {
                self.note(Fact::Placing { by: me, from, topic: topic.clone(), at, cmd: command.no });
                if self.bug == Some(Bug::EarlyAcknowledgement) {
                    let answer = Some(Receipt::default());
                    self.input(host, Input::Placed { back, answer, touched: Vec::new() });
                    back = ReplyTo::None;
                }
                self.place(host, back, &topic, at, &command);
            }
            Effect::Answer(ticket, reply) => self.home_answers(host, ticket, reply),
            Effect::NoHome(ticket) => self.no_home(host, ticket),
            Effect::Settled(ticket, missing) => self.is_settled(host, ticket, missing.is_empty()),
            Effect::Present { topic, members } => {
                for member in members {
                    let (user, joined) = (member.user.to_string(), member.here);
                    self.note(Fact::Present { by: me, topic: topic.clone(), user, joined });
                }
            }
            Effect::Installed(view) => self.installed(host, view),
            Effect::ResetPeer(peer, why) => {
                self.note(Fact::ResetPeer { by: me, peer, why });
                self.distrust(host, peer);
            }
            Effect::Report { topic, report, awaited } => self.reports(host, me, topic, report, awaited),
            Effect::Entered(ticket, topic, entered) => self.entered(me, ticket, topic, &entered),
            // Nobody watches groups here.
            Effect::Dropped(_)
            | Effect::Group(..)
            | Effect::GroupsComplete(_)
            | Effect::Ordered(..)
            | Effect::Unheard(_)
            | Effect::Missed(_)
            | Effect::Notified { .. } => {}
        }
    }

    fn installed(&mut self, host: usize, view: Arc<View>) {
        let Some(gateway) = self.gateway(host) else { return };
        let me = gateway.me;
        let gateways: Vec<Incarnation> =
            view::gateways(&view).filter_map(|member| member.incarnation.parse().ok()).collect();
        let leaving = view::gateways(&view).filter(|member| view::is_leaving(member));
        gateway.left.extend(leaving.filter_map(|member| member.incarnation.parse::<Incarnation>().ok()));
        let named = gateways.contains(&me);
        let was_in_view = gateway.in_view;
        gateway.removed |= was_in_view && !named;
        gateway.in_view |= named;
        let before = view.before.unwrap_or_default();
        let streams_lost = gateway.member.lost;
        let epoch = view::epoch(&view);
        self.note(Fact::Installed { by: me, epoch, before, gateways, streams_lost });
        if named && !was_in_view {
            self.timer(host, Duration::from_millis(50), Timer::Ready);
        }
        self.member_learns(host, Arc::clone(&view));
        self.links_follow(host, &view);
        self.calls_wait_no_more(host);
    }

    pub fn gateway_timer(&mut self, host: usize, timer: Timer) {
        match timer {
            Timer::Tick => {
                if let Some(gateway) = self.gateway(host) {
                    gateway.ticking = false;
                }
                self.input(host, Input::Tick);
            }
            Timer::Member(number) => self.member_timer(host, number),
            Timer::MemberDial => self.member_dials(host),
            Timer::Look(conn) => self.member_looks(host, conn),
            Timer::Dial(peer) => self.dial(host, peer),
            Timer::LinkBeat(conn, end) => self.link_beats(host, conn, end),
            Timer::Shard(shard) => self.shard_works(host, shard),
            Timer::FromShard(shard) => self.shard_says(host, shard),
            Timer::Ready => {
                if self.gateway(host).is_some_and(|g| g.member.wanted == MemberState::Joining) {
                    self.member_wants(host, MemberState::Ready);
                }
            }
            Timer::LetGo(round) => self.let_go(host, round),
            Timer::RpcLate(id) => self.rpc_fails(host, id),
            Timer::ScatterLate(id) => self.scatter_late(host, id),
            Timer::CallLate(number) => self.call_late(host, number),
        }
    }

    /// It leaves the ring, then lets its clients go, then leaves.
    pub fn drain(&mut self, host: usize) {
        if self.gateway(host).is_some() {
            self.member_wants(host, MemberState::Draining);
            self.timer(host, Duration::from_secs(2), Timer::LetGo(0));
        }
    }

    fn let_go(&mut self, host: usize, round: u32) {
        match round {
            0..4 => {
                self.close_some(host, 3);
                self.timer(host, Duration::from_millis(300), Timer::LetGo(round + 1));
            }
            4 => {
                self.close_some(host, usize::MAX);
                self.timer(host, Duration::from_millis(200), Timer::LetGo(5));
            }
            // It says that it leaves once it has answered everything, and leaves once everybody knows.
            5..LEAVES_AT_LAST if self.bug != Some(Bug::NoLeaving) => {
                let Some(gateway) = self.gateway(host) else { return };
                let says_so = gateway.member.wanted == MemberState::Leaving;
                if says_so && gateway.core.may_leave() {
                    return self.timer(host, Duration::ZERO, Timer::LetGo(LEAVES_AT_LAST));
                }
                if !says_so && gateway.core.may_say_that_it_leaves() && !gateway.desk.executes() {
                    self.member_wants(host, MemberState::Leaving);
                }
                self.timer(host, Duration::from_millis(50), Timer::LetGo(round + 1));
            }
            5..=LEAVES_AT_LAST => {
                self.member_says_goodbye(host);
                let has_left = self.bug != Some(Bug::NoLeaving);
                if let Some(gateway) = self.gateway(host) {
                    gateway.has_left = has_left;
                }
                self.timer(host, Duration::from_millis(200), Timer::LetGo(LEAVES_AT_LAST + 1));
            }
            _ => self.crash(host, false),
        }
    }

    pub fn pause(&mut self, host: usize, time: Duration) {
        let Some(life) = self.life_of(host) else { return };
        if self.hosts[host].paused.is_some() || self.healed {
            return;
        }
        if let Some(by) = self.gateway(host).map(|gateway| gateway.me) {
            self.note(Fact::Paused { by });
        }
        self.hosts[host].paused = Some(Vec::new());
        self.after(time, Event::Resume { host, life });
    }
}

/// What a gateway without fences would do.
fn unfenced(bug: Option<Bug>, input: &Input<Sim>) -> Option<Effect<Sim>> {
    match input {
        Input::Received(_, _, LinkMessage::Deliver { topic, at, command, .. })
            if bug == Some(Bug::NoFencing) =>
        {
            let (topic, command) = (topic.clone(), command.clone());
            Some(Effect::Place { back: ReplyTo::None, topic, at: *at, command })
        }
        _ => None,
    }
}

impl Gateway {
    /// It is in the view and ready, and stays so.
    pub fn takes_clients(&self) -> bool {
        self.in_view && self.member.wanted == MemberState::Ready
    }

    /// The topic in which that leaves nobody.
    fn emptied_by(&mut self, standing: &MembershipCount) -> Option<Topic> {
        let topic = &standing.topic;
        self.standing.insert((topic.clone(), standing.shard), standing.clients);
        let here = self.standing.range((topic.clone(), 0)..=(topic.clone(), u8::MAX));
        here.map(|(_, clients)| clients).sum::<u32>().eq(&0).then(|| topic.clone())
    }
}

/// As it is written down: of a view its number is enough.
fn brief_input(input: &Input<Sim>) -> String {
    match input {
        Input::View(view) => format!("View {}", view::epoch(view)),
        Input::Received(peer, session, LinkMessage::View(view)) => {
            format!("Received({peer}, {session}, View {})", view::epoch(view))
        }
        input => format!("{input:?}"),
    }
}

fn brief_effect(effect: &Effect<Sim>) -> String {
    match effect {
        Effect::Installed(view) => format!("Installed {}", view::epoch(view)),
        Effect::Send(peer, LinkMessage::View(view)) => format!("Say({peer}, View {})", view::epoch(view)),
        effect => format!("{effect:?}"),
    }
}
