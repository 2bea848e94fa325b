//! Virtual time: one queue of events, and everybody to whom they happen.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt::Debug,
    hash::{DefaultHasher, Hash},
    time::Duration,
};

use broadgate_proto::{id::Incarnation, v1::Epoch};
use broadgate_topics::{Report, Topic};

use super::{
    bugs::Bug,
    caller::Caller,
    calls::Call,
    gateway::{Gateway, Timer},
    history::{ClientNo, CmdNo, Fact, History, Outcome, Record},
    ledger::{Ledger, LedgerStep},
    net::{ConnId, Msg, Net, REGISTERS, register_at},
    register::Register,
    rng::Rng,
    script::Script,
    shards::Client,
};

/// What can happen.
#[derive(Debug)]
pub enum Event {
    Step(usize),
    Arrive {
        conn: ConnId,
        end: usize,
        msg: Msg,
    },
    /// It is there, and its node takes it when it is awake.
    Read {
        conn: ConnId,
        end: usize,
        msg: Msg,
    },
    Ended {
        conn: ConnId,
        end: usize,
    },
    /// For one run of a node only.
    Timer {
        node: usize,
        life: u64,
        timer: Timer,
    },
    RegisterTick {
        no: usize,
        life: u64,
    },
    RegisterWake {
        no: usize,
        life: u64,
    },
    RegisterUp {
        no: usize,
    },
    /// A paused register goes on.
    RegisterResumes {
        no: usize,
        life: u64,
    },
    /// Between a register and its ledger.
    Ledger {
        no: usize,
        life: u64,
        step: LedgerStep,
    },
    /// A member tells a register of the one that it follows, which is of a higher term.
    RegisterTold {
        no: usize,
        epoch: Epoch,
        by: usize,
    },
    /// In lives with two registers: is the cluster in two halves?
    Halves,
    Resume {
        host: usize,
        life: u64,
    },
    Mend {
        from: usize,
        to: usize,
    },
    Quick {
        from: usize,
        to: usize,
    },
    /// A caller's request comes to its gateway.
    Called {
        host: usize,
        call: Call,
    },
    /// And its answer back.
    Answered {
        caller: usize,
        cmd: CmdNo,
        attempt: u32,
        outcome: Outcome,
    },
    Patience {
        caller: usize,
        cmd: CmdNo,
        attempt: u32,
    },
    Again {
        caller: usize,
        cmd: CmdNo,
    },
    Reconnect {
        slot: usize,
    },
    /// A report reaches its receiver.
    Reported {
        host: usize,
        life: u64,
        topic: Topic,
        report: Report,
        awaited: bool,
    },
    Heal,
    Quiet,
    LastPublish,
    End,
}

struct Queued {
    at: Duration,
    number: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// A machine on which gateways run, one after the other.
#[derive(Debug, Default)]
pub struct Host {
    pub gateway: Option<Box<Gateway>>,
    pub lives: u64,
    pub ring_version: u32,
    /// What has happened to a paused gateway, in order.
    pub paused: Option<Vec<Event>>,
}

/// Whether and how a run is written down.
#[derive(Debug, Default)]
pub struct Trace {
    pub on: bool,
    pub print: bool,
    pub hash: DefaultHasher,
}

pub struct World {
    pub seed: u64,
    pub now: Duration,
    pub bug: Option<Bug>,
    pub script: Script,
    queue: BinaryHeap<Reverse<Queued>>,
    number: u64,
    pub hosts: Vec<Host>,
    pub net: Net,
    /// Of which most lives have one.
    pub registers: [Register; 3],
    /// Of lives in which registers keep their list in one.
    pub ledger: Ledger,
    pub callers: Vec<Caller>,
    /// All clients that ever were.
    pub clients: Vec<Client>,
    /// The people behind them: which client each has now.
    pub slots: Vec<Option<ClientNo>>,
    pub history: History,
    pub trace: Trace,
    /// Until then the living may be taken for dead: somebody slept, or was cut off.
    pub suspect_until: Duration,
    /// Faults have stopped.
    pub healed: bool,
    done: bool,
}

/// How long after the last fault everything must be right: a lease and two link timeouts.
const QUIET_AFTER: Duration = Duration::from_secs(5 + 2 * 2);

/// How much later that is where two registers run: two looks, a lease in which one refuses, and another one
/// for those that come back.
const AGREED_AFTER: Duration = Duration::from_secs(15);

impl World {
    pub fn new(script: Script, bug: Option<Bug>, trace: Trace) -> Self {
        let seed = script.seed;
        let hosts = (0..script.hosts).map(|_| Host::default()).collect();
        let callers = (0..script.callers).map(|no| Caller::new(seed, no, no % script.hosts)).collect();
        let mut world = Self {
            seed,
            now: Duration::ZERO,
            bug,
            queue: BinaryHeap::new(),
            number: 0,
            hosts,
            net: Net::default(),
            registers: Default::default(),
            ledger: Ledger::of(seed),
            callers,
            clients: Vec::new(),
            slots: vec![None; script.clients],
            history: Vec::new(),
            trace,
            suspect_until: Duration::ZERO,
            healed: false,
            done: false,
            script,
        };
        world.registers_start();
        for index in 0..world.script.steps.len() {
            let at = world.script.steps[index].at;
            world.at(at, Event::Step(index));
        }
        let heal = world.script.length;
        world.at(heal, Event::Heal);
        world
    }

    /// Everything, to the end.
    pub fn run(&mut self) {
        while let Some(Reverse(next)) = self.queue.pop() {
            self.now = next.at;
            self.happen(next.event);
            if self.done {
                return;
            }
        }
    }

    pub fn at(&mut self, at: Duration, event: Event) {
        self.number += 1;
        self.queue.push(Reverse(Queued { at: at.max(self.now), number: self.number, event }));
    }

    pub fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    pub fn timer(&mut self, host: usize, delay: Duration, timer: Timer) {
        if let Some(life) = self.life_of(host) {
            self.after(delay, Event::Timer { node: host, life, timer });
        }
    }

    pub fn note(&mut self, fact: Fact) {
        self.tell(&"fact", &fact);
        self.history.push(Record { now: self.now, fact });
    }

    /// Writes a line of the trace.
    pub fn tell(&mut self, what: &dyn Debug, details: &dyn Debug) {
        if self.trace.on {
            let line = format!("{:>10.4} {what:?} {details:?}", self.now.as_secs_f64());
            line.hash(&mut self.trace.hash);
            if self.trace.print {
                println!("{line}");
            }
        }
    }

    /// The run of whatever lives at a node.
    pub fn life_of(&self, node: usize) -> Option<u64> {
        if let Some(register) = register_at(node).map(|no| &self.registers[no]) {
            return register.core.is_some().then_some(register.lives);
        }
        let host = self.hosts.get(node)?;
        host.gateway.is_some().then_some(host.lives)
    }

    pub fn host_of(&self, gateway: Incarnation) -> Option<usize> {
        self.hosts.iter().position(|host| host.gateway.as_ref().is_some_and(|g| g.me == gateway))
    }

    pub fn gateway(&mut self, host: usize) -> Option<&mut Gateway> {
        self.hosts[host].gateway.as_deref_mut()
    }

    pub fn live_hosts(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|&host| self.hosts[host].gateway.is_some()).collect()
    }

    /// What happens to a paused process waits.
    fn held(&mut self, event: Event) -> Option<Event> {
        let host = match &event {
            Event::Ledger { step, .. } if step.is_at_the_ledger() => None,
            Event::RegisterTick { no, .. } | Event::RegisterWake { no, .. } | Event::Ledger { no, .. } => {
                Some(REGISTERS[*no])
            }
            Event::Read { conn, end, .. } | Event::Ended { conn, end } => {
                self.net.conns.get(conn).map(|conn| conn.nodes[*end])
            }
            Event::Timer { node, .. } => Some(*node),
            Event::Called { host, .. } | Event::Reported { host, .. } => Some(*host),
            _ => None,
        };
        if let Some(waiting) = host.and_then(register_at).and_then(|no| self.registers[no].paused.as_mut()) {
            waiting.push(event);
            return None;
        }
        if let Some(waiting) = host.and_then(|host| self.hosts.get_mut(host)).and_then(|h| h.paused.as_mut())
        {
            waiting.push(event);
            return None;
        }
        Some(event)
    }

    pub fn happen(&mut self, event: Event) {
        let Some(event) = self.held(event) else { return };
        match event {
            Event::Step(index) => self.step(index),
            Event::Arrive { conn, end, msg } => self.arrive(conn, end, msg),
            Event::Read { conn, end, msg } => self.read(conn, end, msg),
            Event::Ended { conn, end } => self.ended(conn, end),
            Event::Timer { node, life, timer } => {
                if self.life_of(node) == Some(life) {
                    self.gateway_timer(node, timer);
                }
            }
            Event::RegisterTick { no, life } => self.register_tick(no, life),
            Event::RegisterWake { no, life } => self.register_wakes(no, life),
            Event::RegisterUp { no } => self.register_starts(no),
            Event::RegisterResumes { no, life } => self.register_resumes(no, life),
            // A write that is on its way needs its register no more.
            Event::Ledger { no, life, step } => {
                if step.is_at_the_ledger() || self.life_of(REGISTERS[no]) == Some(life) {
                    self.ledger_step(no, step);
                }
            }
            Event::RegisterTold { no, epoch, by } => self.register_told(no, epoch, by),
            Event::Halves => self.look_for_halves(),
            Event::Resume { host, life } => self.resume(host, life),
            Event::Mend { from, to } => self.mend(from, to),
            Event::Quick { from, to } => self.path(from, to).slow = Duration::ZERO,
            Event::Called { host, call } => self.called(host, call),
            Event::Answered { caller, cmd, attempt, outcome } => self.answered(caller, cmd, attempt, outcome),
            Event::Patience { caller, cmd, attempt } => {
                self.answered(caller, cmd, attempt, Outcome::Refused("no answer"));
            }
            Event::Again { caller, cmd } => self.again(caller, cmd),
            Event::Reconnect { slot } => self.reconnect(slot),
            Event::Reported { host, life, topic, report, awaited } => {
                self.reported(host, life, topic, report, awaited);
            }
            Event::Heal => self.heal(),
            Event::Quiet => self.quiet(),
            Event::LastPublish => self.last_publish(),
            Event::End => self.done = true,
        }
    }

    /// A process that slept goes on, and finds all that has come meanwhile.
    fn resume(&mut self, host: usize, life: u64) {
        if self.life_of(host) != Some(life) {
            return;
        }
        let Some(waiting) = self.hosts[host].paused.take() else { return };
        if let Some(by) = self.gateway(host).map(|gateway| gateway.me) {
            self.note(Fact::Resumed { by });
        }
        for event in waiting {
            self.happen(event);
        }
    }

    /// All faults stop; the remaining processes must converge.
    fn heal(&mut self) {
        self.healed = true;
        self.net.heal();
        let nodes: Vec<_> = (0..self.hosts.len()).chain(REGISTERS).collect();
        for &from in &nodes {
            for &to in &nodes {
                self.mend(from, to);
            }
        }
        for host in 0..self.hosts.len() {
            if let Some(life) = self.life_of(host) {
                self.resume(host, life);
            }
        }
        for no in 0..REGISTERS.len() {
            self.register_resumes(no, self.registers[no].lives);
        }
        self.ledger.heal(self.now);
        self.registers_start();
        // Where several registers run, the first host knows all.
        if self.live_hosts().is_empty() || self.has_several_registers() {
            self.start_gateway(0, 1);
        }
        let more = if self.has_several_registers() { AGREED_AFTER } else { Duration::ZERO };
        self.after(QUIET_AFTER + more, Event::Quiet);
    }

    fn registers_start(&mut self) {
        self.register_starts(0);
        if self.script.ledger {
            self.register_starts(1);
            self.register_starts(2);
        } else if self.has_several_registers() {
            self.register_starts(1);
            if !self.healed {
                self.at(self.now, Event::Halves);
            }
        }
    }

    pub fn has_several_registers(&self) -> bool {
        !self.script.registers.is_empty()
    }

    /// Now everything must agree: asked through every gateway.
    fn quiet(&mut self) {
        let mut gateways = Vec::new();
        for host in self.live_hosts() {
            if let Some(gateway) = self.gateway(host) {
                gateways.push((gateway.me, gateway.core.epoch(), gateway.core.load()));
            }
        }
        self.note(Fact::Quiet { gateways });
        for host in self.live_hosts() {
            self.ask_everything(host);
        }
        self.after(Duration::from_secs(1), Event::LastPublish);
        self.after(Duration::from_secs(4), Event::End);
    }

    fn last_publish(&mut self) {
        let hosts = self.live_hosts();
        let mut rng = Rng::of(&[self.seed, 7]);
        for topic in self.script.topics() {
            if let Some(&host) = hosts.get(rng.index(hosts.len())) {
                self.publish_last(host, topic);
            }
        }
    }
}
