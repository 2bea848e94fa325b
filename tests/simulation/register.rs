//! The registers' cores in the simulated world, and the member's side of it in a gateway.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    limits::{BEAT, LEASE, MEMBERS_MAX},
    v1::{Beat, Epoch, Hello, Member, MemberState, Role, View, join_reply::Reply},
    view,
};
use broadgate_register::{
    member::simulation::{FollowStep, Following, Looks, Redial, Rival, RivalAction},
    server::simulation::{Core, Effect, FromLedger, Input, Now, PeerOrigin, Replica},
};

use super::{
    bugs::Bug,
    gateway::Timer,
    history::Fact,
    ledger::{Lead, LedgerStep},
    misfortune::SUSPICION,
    net::{ConnId, DIALLER, LISTENER, Msg, register_node},
    rng::Rng,
    world::{Event, World},
};

#[derive(Debug, Default)]
pub struct Register {
    pub core: Option<Replica>,
    pub lives: u64,
    pub since: Duration,
    /// In the ledger, as the task knows that writes there.
    pub lead: Option<Lead>,
    /// When it will be woken for a view that waits.
    wake: Option<Duration>,
    /// What has happened to a paused one, in order.
    pub paused: Option<Vec<Event>>,
    /// Open streams, and whether each was welcomed.
    streams: BTreeMap<ConnId, bool>,
}

/// A gateway's membership.
#[derive(Debug)]
pub struct Membership {
    pub life: Following,
    pub stream: Option<ConnId>,
    pub wanted: MemberState,
    said: MemberState,
    /// How often a stream was lost.
    pub lost: u32,
    /// The timer that counts.
    timer: u64,
    rng: Rng,
    redial: Redial,
    /// It has looked for the active register.
    aimed: bool,
    /// Which register is next is decided already.
    chosen: bool,
    /// The register has taken it in.
    pub welcomed: bool,
    looks: Looks,
    /// Another register knows gateways that this one does not: no answer is complete.
    pub outside: bool,
}

impl Membership {
    pub fn new(known: Arc<View>, registers: &[usize], rng: Rng) -> Self {
        let wanted = MemberState::Joining;
        let redial = Redial::new(registers.iter().map(|no| register_address(*no).to_string()).collect());
        Self {
            life: Following::new(known),
            stream: None,
            wanted,
            said: wanted,
            lost: 0,
            timer: 0,
            rng,
            redial,
            aimed: false,
            chosen: false,
            welcomed: false,
            looks: Looks::new(register_address(0)),
            outside: false,
        }
    }

    /// Which registers it knows.
    pub fn knows(&self) -> impl Iterator<Item = usize> {
        self.redial.all().iter().filter_map(|register| register_called(register))
    }
}

/// How often a member looks at the registers that it knows; see `register/src/member/rivals.rs`.
const LOOK_MILLIS: [u64; 2] = [500, 1500];
/// A register that takes longer to answer is not seen.
const LOOK_TIME_MAX: Duration = Duration::from_secs(1);

pub fn register_address(no: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, no as u8], 7100))
}

fn register_called(register: &str) -> Option<usize> {
    [0, 1, 2].into_iter().find(|no| register_address(*no).to_string() == register)
}

impl World {
    pub fn register_starts(&mut self, no: usize) {
        if self.registers[no].core.is_some() {
            return;
        }
        let lives = self.registers[no].lives + 1;
        let chance: &[u64] = if no == 0 { &[self.seed, 8, lives] } else { &[self.seed, 8, lives, no as u64] };
        let salt = Rng::of(chance).next() as u16;
        let core = if self.script.ledger {
            self.at(self.now, Event::Ledger { no, life: lives, step: LedgerStep::Look });
            Replica::over_ledger(BEAT, LEASE)
        } else {
            Replica::in_memory(Core::new(BEAT, LEASE, MEMBERS_MAX).with_salt(salt))
        };
        self.registers[no] = Register { core: Some(core), lives, since: self.now, ..Register::default() };
        self.at(self.now, Event::RegisterTick { no, life: lives });
    }

    pub fn register_stops(&mut self, no: usize) {
        if self.registers[no].core.take().is_some() {
            self.node_gone(register_node(no), false);
        }
    }

    pub fn register_pauses(&mut self, no: usize, time: Duration) {
        // A member tries each for two seconds: with two that hang it may find the third only after a lease.
        if self.registers.iter().any(|other| other.paused.is_some()) {
            self.suspect_until = self.suspect_until.max(self.now + time + SUSPICION);
        }
        let register = &mut self.registers[no];
        if register.core.is_some() && register.paused.is_none() {
            register.paused = Some(Vec::new());
            let life = register.lives;
            self.after(time, Event::RegisterResumes { no, life });
        }
    }

    /// It goes on, and finds all that has come meanwhile.
    pub fn register_resumes(&mut self, no: usize, life: u64) {
        if self.life_of(register_node(no)) != Some(life) {
            return;
        }
        for event in self.registers[no].paused.take().unwrap_or_default() {
            self.happen(event);
        }
    }

    pub fn register_hears_ledger(&mut self, no: usize, said: FromLedger) {
        let now = Now { up: self.now.saturating_sub(self.registers[no].since), unix_ms: 0 };
        let Some(core) = &mut self.registers[no].core else { return };
        let effects = core.ledger(said, now);
        self.register_acts(no, effects);
    }

    pub fn register_tick(&mut self, no: usize, life: u64) {
        if self.life_of(register_node(no)) == Some(life) {
            self.register_input(no, Input::Tick);
            self.after(LEASE / 10, Event::RegisterTick { no, life });
        }
    }

    /// A view waits: the register's task sleeps until it has to be made.
    pub fn register_wakes(&mut self, no: usize, life: u64) {
        if self.life_of(register_node(no)) == Some(life) {
            self.registers[no].wake = None;
            self.register_input(no, Input::Tick);
        }
    }

    fn register_sleeps(&mut self, no: usize) {
        let register = &mut self.registers[no];
        let wake = register.core.as_ref().and_then(Replica::wakes_at).map(|wake| register.since + wake);
        if wake.is_some() && register.wake.is_none_or(|earlier| wake < Some(earlier)) {
            register.wake = wake;
            let (life, at) = (register.lives, wake.unwrap_or_default().max(self.now));
            self.at(at, Event::RegisterWake { no, life });
        }
    }

    pub fn register_hears(&mut self, no: usize, conn: ConnId, msg: Msg) {
        let Msg::ToRegister(input) = msg else { return };
        if matches!(*input, Input::Hello { .. }) {
            self.registers[no].streams.insert(conn, false);
        }
        if self.registers[no].streams.contains_key(&conn) {
            self.register_input(no, *input);
        }
    }

    pub fn register_loses(&mut self, no: usize, conn: ConnId) {
        if self.registers[no].streams.remove(&conn).is_some() {
            self.register_input(no, Input::Lost { connection: conn });
        }
    }

    /// A member tells a register of a higher term, and where that is.
    pub fn register_told(&mut self, no: usize, epoch: Epoch, by: usize) {
        let register = register_address(by).to_string();
        self.register_input(no, Input::StepDown { epoch, register });
    }

    pub fn register_hears_false_report(&mut self, term: u64) {
        let stranger = Member {
            incarnation: Incarnation::from_bits(u64::MAX >> 16).to_string(),
            role: Role::Worker.into(),
            name: "stranger".to_owned(),
            ..Member::default()
        };
        let view = View { epoch: Some(Epoch::new(term, 1)), ..View::default() };
        let hello = Box::new(Hello { member: Some(stranger), view: Some(view), ..Hello::default() });
        let connection = ConnId::MAX;
        self.register_input(0, Input::Hello { connection, origin: PeerOrigin::default(), hello });
        self.register_input(0, Input::Goodbye { connection });
    }

    fn register_input(&mut self, no: usize, input: Input) {
        let now = Now { up: self.now.saturating_sub(self.registers[no].since), unix_ms: 0 };
        let Some(core) = &mut self.registers[no].core else { return };
        let effects = core.apply(input, now);
        self.register_acts(no, effects);
    }

    fn register_acts(&mut self, no: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Commit(write) => self.register_writes(no, write),
                Effect::Follow(guard) => {
                    for conn in std::mem::take(&mut self.registers[no].streams).into_keys() {
                        self.end(conn, LISTENER);
                    }
                    self.register_resigns(no, guard);
                }
                Effect::Reply(conn, reply) => {
                    if matches!(reply, Reply::Welcome(_)) {
                        self.registers[no].streams.insert(conn, true);
                    }
                    self.send(conn, LISTENER, Msg::FromRegister(Box::new(reply)));
                }
                Effect::Show(conn, view) => {
                    let view = Reply::View(View::clone(&view));
                    self.send(conn, LISTENER, Msg::FromRegister(Box::new(view)));
                }
                Effect::Close(conn) | Effect::Refuse(conn, _) => {
                    self.registers[no].streams.remove(&conn);
                    self.end(conn, LISTENER);
                }
                Effect::View(view) => {
                    self.tell(&"register", &view.epoch);
                    if self.script.ledger {
                        self.note(Fact::Shown { no, epoch: view.epoch.unwrap_or_default() });
                    }
                    let streams = &self.registers[no].streams;
                    let streams: Vec<_> =
                        streams.iter().filter(|(_, is)| **is).map(|(conn, _)| *conn).collect();
                    for conn in streams {
                        self.send(
                            conn,
                            LISTENER,
                            Msg::FromRegister(Box::new(Reply::View(View::clone(&view)))),
                        );
                    }
                }
                Effect::Happened(happened) => self.tell(&"register happened", &happened),
                Effect::Answer(_) | Effect::AnswerNewest(_) => {}
            }
        }
        self.register_sleeps(no);
    }

    /// A gateway dials the register.
    pub fn member_dials(&mut self, host: usize) {
        if self.gateway(host).is_none_or(|gateway| gateway.member.stream.is_some()) {
            return;
        }
        self.member_aims(host);
        let Some(no) = self.gateway(host).and_then(|gateway| register_called(gateway.member.redial.target()))
        else {
            return;
        };
        if self.member_is_sent_to_the_leader(host, no) {
            return self.member_redials(host);
        }
        let Some(conn) = self.connect(host, register_node(no)) else {
            if let Some(gateway) = self.gateway(host) {
                gateway.member.redial.next();
            }
            return self.member_redials(host);
        };
        let now = self.now;
        let ring_version = self.hosts[host].ring_version;
        let Some(gateway) = self.gateway(host) else { return };
        let member = &mut gateway.member;
        member.stream = Some(conn);
        member.said = member.wanted;
        member.welcomed = false;
        member.looks = Looks::new(register_address(no));
        member.life.greeted(now);
        let known = View::clone(member.life.known());
        let view = Some(known).filter(|view| view.epoch.is_some_and(|epoch| epoch.term > 0));
        let described = Member {
            incarnation: gateway.me.to_string(),
            role: Role::Gateway.into(),
            name: format!("g{host}"),
            address: address(host),
            state: gateway.member.wanted.into(),
            ring_version,
            ..Member::default()
        };
        let hello = Box::new(Hello { member: Some(described), view, ..Hello::default() });
        let input = Input::Hello { connection: conn, origin: PeerOrigin::default(), hello };
        self.send(conn, DIALLER, Msg::ToRegister(Box::new(input)));
        self.member_wakes(host);
        self.member_will_look(host, conn);
    }

    /// A register that stands by takes nobody in, and names the one that leads if it knows it.
    fn member_is_sent_to_the_leader(&mut self, host: usize, no: usize) -> bool {
        let answers = self.answers(host, no) && self.registers[no].paused.is_none();
        let Some(core) = self.registers[no].core.as_ref().filter(|core| answers && core.view().is_none())
        else {
            return false;
        };
        let leader = core.leader().map(str::to_owned);
        let Some(gateway) = self.gateway(host) else { return true };
        match leader {
            Some(leader) => gateway.member.redial.refer(&leader),
            None => gateway.member.redial.next(),
        }
        true
    }

    /// The active registers that a host reaches.
    fn look(&self, host: usize, knows: &[usize]) -> Vec<Rival> {
        let mut seen = Vec::new();
        for &no in knows {
            let answers = self.answers(host, no) && self.registers[no].paused.is_none();
            let core = self.registers[no].core.as_ref().filter(|_| answers);
            let Some(view) = core.and_then(Replica::view).cloned() else { continue };
            if view::epoch(&view).term > 0 && !view.members.is_empty() {
                let address = register_address(no);
                seen.push(Rival { register: address.to_string(), address, view });
            }
        }
        seen
    }

    /// Does a register that runs answer this host in time?
    pub fn answers(&self, host: usize, no: usize) -> bool {
        let node = register_node(no);
        let time = self.net.slowness(host, node) + self.net.slowness(node, host);
        !self.has_hole(host, node) && !self.has_hole(node, host) && time < LOOK_TIME_MAX
    }

    /// A member that begins goes to the register that is active, if it knows several.
    fn member_aims(&mut self, host: usize) {
        let Some(gateway) = self.gateway(host) else { return };
        let knows: Vec<_> = gateway.member.knows().collect();
        if std::mem::replace(&mut gateway.member.aimed, true) || knows.len() < 2 {
            return;
        }
        let active = self.look(host, &knows).into_iter().max_by_key(Rival::term);
        if let (Some(active), Some(gateway)) = (active, self.gateway(host)) {
            gateway.member.redial.aim(&active.register);
        }
    }

    fn member_will_look(&mut self, host: usize, conn: ConnId) {
        if self.script.registers.is_empty() || self.bug == Some(Bug::NoLooking) {
            return;
        }
        let Some(gateway) = self.gateway(host) else { return };
        let wait = gateway.member.rng.between(LOOK_MILLIS[0], LOOK_MILLIS[1]);
        self.timer(host, Duration::from_millis(wait), Timer::Look(conn));
    }

    /// It looks at the registers that it knows, and acts as `register/src/member/link.rs` does.
    pub fn member_looks(&mut self, host: usize, conn: ConnId) {
        let Some(gateway) = self.gateway(host).filter(|gateway| gateway.member.stream == Some(conn)) else {
            return;
        };
        let welcomed = gateway.member.welcomed;
        let knows: Vec<_> = gateway.member.knows().collect();
        let seen = self.look(host, &knows);
        self.member_will_look(host, conn);
        let losing = self.seed % 2 == 1 && !self.healed;
        let Some(gateway) = self.gateway(host).filter(|_| welcomed) else { return };
        let member = &mut gateway.member;
        let RivalAction { higher, lower, active, outside } = member.looks.take(seen, member.life.known());
        if active.is_some() || member.outside {
            member.outside = !outside.is_empty();
        }
        let (epoch, by) = (view::epoch(member.life.known()), register_called(member.redial.target()));
        if let Some(higher) = &higher {
            member.redial.aim(&higher.register);
            member.chosen = true;
        }
        // In some lives most of these are lost on the way, so that halves last.
        let lost = losing && member.rng.percent(70);
        for rival in lower.into_iter().filter(|_| !lost) {
            if let (Some(no), Some(by)) = (register_called(&rival.register), by) {
                self.after(Duration::from_millis(3), Event::RegisterTold { no, epoch, by });
            }
        }
        if higher.is_some() {
            self.member_leaves_stream(host);
        }
    }

    fn member_redials(&mut self, host: usize) {
        let Some(gateway) = self.gateway(host) else { return };
        let wait = gateway.member.rng.between(100, 800);
        self.timer(host, Duration::from_millis(wait), Timer::MemberDial);
    }

    fn member_wakes(&mut self, host: usize) {
        let now = self.now;
        let Some(gateway) = self.gateway(host) else { return };
        gateway.member.timer += 1;
        let (number, wake) = (gateway.member.timer, gateway.member.life.wake());
        self.timer(host, wake.saturating_sub(now), Timer::Member(number));
    }

    pub fn member_timer(&mut self, host: usize, number: u64) {
        let now = self.now;
        let Some(gateway) = self.gateway(host) else { return };
        if gateway.member.timer != number || gateway.member.stream.is_none() {
            return;
        }
        let step = gateway.member.life.tick(now);
        self.member_step(host, step);
        if self.gateway(host).is_some_and(|gateway| gateway.member.stream.is_some()) {
            self.member_wakes(host);
        }
    }

    pub fn member_hears(&mut self, host: usize, conn: ConnId, reply: Reply) {
        let now = self.now;
        let Some(gateway) = self.gateway(host) else { return };
        if gateway.member.stream != Some(conn) {
            return;
        }
        let step = gateway.member.life.reply(reply, now);
        self.member_step(host, step);
    }

    fn member_step(&mut self, host: usize, step: FollowStep) {
        match step {
            FollowStep::Install(view) => self.view_comes(host, view),
            FollowStep::Welcomed => {
                if let Some(gateway) = self.gateway(host) {
                    gateway.member.welcomed = true;
                    gateway.member.outside = false;
                }
                self.member_wakes(host);
                self.member_says_state(host);
            }
            FollowStep::Beat(number) => {
                let Some(conn) = self.gateway(host).and_then(|gateway| gateway.member.stream) else { return };
                let _ = Beat { number };
                let beat = Input::Beat { connection: conn, number };
                self.send(conn, DIALLER, Msg::ToRegister(Box::new(beat)));
            }
            FollowStep::Dead(_) => self.reborn(host),
            FollowStep::Next(_) => {
                if let Some(gateway) = self.gateway(host) {
                    gateway.member.redial.next();
                    gateway.member.chosen = true;
                }
                self.member_leaves_stream(host);
            }
            FollowStep::Elsewhere(register) => {
                if let Some(gateway) = self.gateway(host) {
                    gateway.member.redial.refer(&register);
                    gateway.member.chosen = true;
                }
                self.member_leaves_stream(host);
            }
            FollowStep::Drain(_) | FollowStep::Nothing => {}
        }
    }

    pub fn member_leaves_stream(&mut self, host: usize) {
        if let Some(conn) = self.gateway(host).and_then(|gateway| gateway.member.stream) {
            self.give_up(conn, DIALLER);
        }
    }

    pub fn member_loses(&mut self, host: usize) {
        let Some(gateway) = self.gateway(host) else { return };
        gateway.member.stream = None;
        gateway.member.lost += 1;
        // Refused, or not heard at all: the next one's turn.
        let was_in = std::mem::replace(&mut gateway.member.welcomed, false);
        if !std::mem::replace(&mut gateway.member.chosen, false) && !was_in {
            gateway.member.redial.next();
        }
        self.member_redials(host);
    }

    /// What peers pass on, the member takes too.
    pub fn member_learns(&mut self, host: usize, view: Arc<View>) {
        let Some(gateway) = self.gateway(host) else { return };
        let (_, elsewhere) = gateway.member.life.learn(view);
        if elsewhere && gateway.member.stream.is_some() {
            gateway.member.redial.next();
            gateway.member.chosen = true;
            self.member_leaves_stream(host);
        }
    }

    pub fn member_wants(&mut self, host: usize, state: MemberState) {
        if let Some(gateway) = self.gateway(host) {
            gateway.member.wanted = state;
            self.member_says_state(host);
        }
    }

    fn member_says_state(&mut self, host: usize) {
        let Some(gateway) = self.gateway(host) else { return };
        let Some(conn) = gateway.member.stream.filter(|_| gateway.member.said != gateway.member.wanted)
        else {
            return;
        };
        let state = gateway.member.wanted;
        gateway.member.said = state;
        let input = Input::SetState { connection: conn, state };
        self.send(conn, DIALLER, Msg::ToRegister(Box::new(input)));
    }

    pub fn member_says_goodbye(&mut self, host: usize) {
        if let Some(conn) = self.gateway(host).and_then(|gateway| gateway.member.stream) {
            self.send(conn, DIALLER, Msg::ToRegister(Box::new(Input::Goodbye { connection: conn })));
        }
    }
}

pub fn address(host: usize) -> String {
    format!("10.0.0.{host}:7000")
}

pub fn host_at(address: &str) -> Option<usize> {
    address.strip_prefix("10.0.0.")?.strip_suffix(":7000")?.parse().ok()
}
