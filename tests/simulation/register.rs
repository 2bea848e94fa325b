//! The register's core in the simulated world, and the member's side of it in a gateway.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use broadgate_proto::{
    limits::{BEAT, LEASE, MEMBERS_MAX},
    v1::{Beat, Hello, Member, MemberState, Role, View, join_reply::Reply},
};
use broadgate_register::{
    member::simulation::{Life, Step},
    server::simulation::{Core, Effect, Input, Now, Origin},
};

use super::{
    gateway::Timer,
    net::{ConnId, DIALLER, LISTENER, Msg, REGISTER},
    rng::Rng,
    world::{Event, World},
};

#[derive(Debug, Default)]
pub struct Register {
    pub core: Option<Core>,
    pub lives: u64,
    since: Duration,
    /// Open streams, and whether each was welcomed.
    streams: BTreeMap<ConnId, bool>,
}

/// A gateway's membership.
#[derive(Debug)]
pub struct Membership {
    pub life: Life,
    pub stream: Option<ConnId>,
    pub wanted: MemberState,
    said: MemberState,
    /// How often a stream was lost.
    pub lost: u32,
    /// The timer that counts.
    timer: u64,
    rng: Rng,
}

impl Membership {
    pub fn new(known: Arc<View>, rng: Rng) -> Self {
        let wanted = MemberState::Joining;
        Self { life: Life::new(known), stream: None, wanted, said: wanted, lost: 0, timer: 0, rng }
    }
}

impl World {
    pub fn register_starts(&mut self) {
        if self.register.core.is_some() {
            return;
        }
        let lives = self.register.lives + 1;
        let salt = Rng::of(&[self.seed, 8, lives]).next() as u16;
        let core = Some(Core::new(BEAT, LEASE, MEMBERS_MAX).with_salt(salt));
        self.register = Register { core, lives, since: self.now, streams: BTreeMap::new() };
        self.at(self.now, Event::RegisterTick { life: lives });
    }

    pub fn register_stops(&mut self) {
        if self.register.core.take().is_some() {
            self.node_gone(REGISTER, false);
        }
    }

    pub fn register_tick(&mut self, life: u64) {
        if self.life_of(REGISTER) == Some(life) {
            self.register_input(Input::Tick);
            self.after(LEASE / 10, Event::RegisterTick { life });
        }
    }

    pub fn register_hears(&mut self, conn: ConnId, msg: Msg) {
        let Msg::ToRegister(input) = msg else { return };
        if matches!(*input, Input::Hello { .. }) {
            self.register.streams.insert(conn, false);
        }
        if self.register.streams.contains_key(&conn) {
            self.register_input(*input);
        }
    }

    pub fn register_loses(&mut self, conn: ConnId) {
        if self.register.streams.remove(&conn).is_some() {
            self.register_input(Input::Lost { connection: conn });
        }
    }

    fn register_input(&mut self, input: Input) {
        let now = Now { up: self.now.saturating_sub(self.register.since), unix_ms: 0 };
        let Some(core) = &mut self.register.core else { return };
        for effect in core.apply(input, now) {
            match effect {
                Effect::Reply(conn, reply) => {
                    if matches!(reply, Reply::Welcome(_)) {
                        self.register.streams.insert(conn, true);
                    }
                    self.send(conn, LISTENER, Msg::FromRegister(Box::new(reply)));
                }
                Effect::Close(conn) | Effect::Refuse(conn, _) => {
                    self.register.streams.remove(&conn);
                    self.end(conn, LISTENER);
                }
                Effect::View(view) => {
                    self.tell(&"register", &view.epoch);
                    let streams: Vec<_> =
                        self.register.streams.iter().filter(|(_, is)| **is).map(|(conn, _)| *conn).collect();
                    for conn in streams {
                        self.send(
                            conn,
                            LISTENER,
                            Msg::FromRegister(Box::new(Reply::View(View::clone(&view)))),
                        );
                    }
                }
                Effect::Answer(_) | Effect::Happened(_) => {}
            }
        }
    }

    /// A gateway dials the register.
    pub fn member_dials(&mut self, host: usize) {
        if self.gateway(host).is_none_or(|gateway| gateway.member.stream.is_some()) {
            return;
        }
        let Some(conn) = self.connect(host, REGISTER) else { return self.member_redials(host) };
        let now = self.now;
        let ring_version = self.hosts[host].ring_version;
        let Some(gateway) = self.gateway(host) else { return };
        let member = &mut gateway.member;
        member.stream = Some(conn);
        member.said = member.wanted;
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
        let hello = Box::new(Hello { member: Some(described), view });
        let input = Input::Hello { connection: conn, origin: Origin::default(), hello };
        self.send(conn, DIALLER, Msg::ToRegister(Box::new(input)));
        self.member_wakes(host);
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

    fn member_step(&mut self, host: usize, step: Step) {
        match step {
            Step::Install(view) => self.view_comes(host, view),
            Step::Welcomed => {
                self.member_wakes(host);
                self.member_says_state(host);
            }
            Step::Beat(number) => {
                let Some(conn) = self.gateway(host).and_then(|gateway| gateway.member.stream) else { return };
                let _ = Beat { number };
                let beat = Input::Beat { connection: conn, number };
                self.send(conn, DIALLER, Msg::ToRegister(Box::new(beat)));
            }
            Step::Dead(_) => self.reborn(host),
            Step::Next(_) => self.member_leaves_stream(host),
            Step::Drain | Step::Nothing => {}
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
        self.member_redials(host);
    }

    /// What peers pass on, the member takes too.
    pub fn member_learns(&mut self, host: usize, view: Arc<View>) {
        let Some(gateway) = self.gateway(host) else { return };
        let (_, elsewhere) = gateway.member.life.learn(view);
        if elsewhere {
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
