//! A script: what people, callers and misfortune do in one run. Made from a seed; any step may be left out.

use std::{fmt, time::Duration};

use broadgate_topics::Topic;

use super::{
    history::{CmdNo, Wish},
    net::{OTHER_REGISTER, REGISTER, REGISTERS},
    rng::Rng,
    world::{Event, World},
};

#[derive(Debug, Clone)]
pub struct Script {
    pub seed: u64,
    pub hosts: usize,
    pub callers: usize,
    /// People with at most one client each at a time.
    pub clients: usize,
    pub groups: u64,
    pub length: Duration,
    /// One thing goes wrong at a time.
    pub calm: bool,
    /// Three registers keep their list in a ledger.
    pub ledger: bool,
    /// Several registers run, two of them by mistake unless there is a ledger, and each host knows these; empty if
    /// only one runs.
    pub registers: Vec<Vec<usize>>,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub struct Step {
    /// Its number in the script as it was made.
    pub no: u64,
    pub at: Duration,
    pub what: Action,
}

#[derive(Debug, Clone)]
pub enum Action {
    Start {
        host: usize,
        ring_version: u32,
    },
    Crash {
        host: usize,
        silently: bool,
    },
    Drain {
        host: usize,
    },
    Pause {
        host: usize,
        millis: u64,
    },
    /// Nothing gets through this way.
    Hole {
        from: usize,
        to: usize,
        millis: u64,
    },
    /// Every link that was dialled this way breaks.
    Reset {
        from: usize,
        to: usize,
    },
    Delay {
        from: usize,
        to: usize,
        by_millis: u64,
        millis: u64,
    },
    /// Nothing gets through between a host and anybody but one other, and that slowly.
    Island {
        host: usize,
        but: usize,
        by_millis: u64,
        millis: u64,
    },
    RegisterStop {
        millis: u64,
    },
    OtherRegisterStop {
        millis: u64,
    },
    /// The register that leads over the ledger dies.
    LeaderStop {
        millis: u64,
    },
    LeaderPause {
        millis: u64,
    },
    RegisterPause {
        no: usize,
        millis: u64,
    },
    /// The ledger answers nobody.
    LedgerAway {
        millis: u64,
    },
    /// Writes and answers are lost, and writes come late.
    LedgerTroubled {
        millis: u64,
    },
    /// It takes the lead from a register that has its lease.
    LedgerRevokes,
    /// Its newest writes are gone.
    LedgerForgets {
        writes: usize,
    },
    /// It has what it had so many writes ago; also the leader of now, or none.
    LedgerRestored {
        back: usize,
        leader_too: bool,
    },
    /// A stranger reports a view of a term that no register has made, and leaves.
    FalseReport {
        term: u64,
    },
    Connect {
        person: usize,
        host: usize,
    },
    Close {
        person: usize,
    },
    Slow {
        person: usize,
    },
    Move {
        caller: usize,
        host: usize,
    },
    Send {
        caller: usize,
        topics: Vec<Topic>,
        times: u64,
    },
    Fire {
        caller: usize,
        topic: Topic,
    },
    Join {
        caller: usize,
        person: usize,
        topic: Topic,
        user: Option<String>,
    },
    Leave {
        caller: usize,
        person: usize,
        topic: Topic,
    },
    Bind {
        caller: usize,
        person: usize,
        topic: Topic,
    },
    Exclusive {
        caller: usize,
        person: usize,
        topic: Topic,
    },
    JoinAll {
        caller: usize,
        uid: Topic,
        group: Topic,
    },
    Count {
        caller: usize,
        topic: Topic,
    },
    Roster {
        caller: usize,
        topic: Topic,
    },
}

pub const APP: &str = "a";

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8.3} s  #{:<4} {:?}", self.at.as_secs_f64(), self.no, self.what)
    }
}

impl Script {
    pub fn everybody(&self) -> Topic {
        Topic::all(APP)
    }

    fn group(&self, no: u64) -> Topic {
        Topic::group(APP, &format!("g{no}"))
    }

    /// Everything that can be counted; presence groups are groups too.
    pub fn topics(&self) -> Vec<Topic> {
        let mut topics: Vec<_> = (0..self.groups).map(|no| self.group(no)).collect();
        topics.extend([0, 1].map(presence));
        topics.extend([0, 1, 2].map(uid));
        topics.push(self.everybody());
        topics
    }

    /// The script of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::of(&[seed, 100]);
        let hosts = rng.between(2, 6) as usize;
        let clients = rng.between(4, 13) as usize;
        let length = Duration::from_millis(rng.between(12_000, 26_000));
        let mut script = Self {
            seed,
            hosts,
            callers: rng.between(2, 5) as usize,
            clients,
            groups: rng.between(1, 4),
            length,
            calm: false,
            ledger: false,
            registers: Vec::new(),
            steps: Vec::new(),
        };
        // Some seeds have a quiet life, some none.
        let faults = [0, 4, 10, 10, 20][rng.index(5)];
        script.begin(&mut rng);
        let mut at = 4500;
        while at < length.as_millis() as u64 - 200 {
            at += rng.between(5, 250);
            let what = if rng.percent(faults) { script.fault(&mut rng) } else { script.deed(&mut rng) };
            script.push(at, what);
        }
        script
    }

    /// A life in which gateways are killed, drained and started, each some time after the other.
    pub fn calm(seed: u64) -> Self {
        let mut rng = Rng::of(&[seed, 101]);
        let (hosts, clients) = (rng.between(2, 6) as usize, rng.between(4, 13) as usize);
        let length = Duration::from_millis(rng.between(20_000, 60_000));
        let mut script = Self {
            seed,
            hosts,
            callers: 2,
            clients,
            groups: 3,
            length,
            calm: true,
            ledger: false,
            registers: Vec::new(),
            steps: Vec::new(),
        };
        script.begin(&mut rng);
        let mut alive: Vec<bool> = (0..hosts).map(|host| script.starts(host)).collect();
        let (mut at, mut calm_until) = (4500, 5000);
        let end = length.as_millis() as u64;
        while at < end - 200 {
            at += rng.between(5, 400);
            let what = if at > calm_until && at + CALM_MILLIS < end {
                calm_until = at + CALM_MILLIS + rng.between(0, 4000);
                script.misfortune(&mut alive, &mut rng)
            } else if rng.percent(10) {
                script.listener(&mut rng)
            } else if rng.percent(60) {
                script.membership(&mut rng)
            } else {
                script.deed(&mut rng)
            };
            script.push(at, what);
        }
        script
    }

    /// A life in which two registers run. Some hosts know both, in either order, and some only one.
    pub fn two_registers(seed: u64) -> Self {
        let mut rng = Rng::of(&[seed, 102]);
        let hosts = rng.between(2, 5) as usize;
        let (callers, clients) = (rng.between(1, 4) as usize, rng.between(2, 8) as usize);
        let length = Duration::from_millis(rng.between(15_000, 25_000));
        let known = [vec![0, 1], vec![1, 0], vec![0], vec![1]];
        let mut registers = vec![known[rng.index(2)].clone()];
        registers.extend((1..hosts).map(|_| known[rng.index(4)].clone()));
        let groups = rng.between(1, 4);
        let (calm, ledger, steps) = (false, false, Vec::new());
        let mut script =
            Self { seed, hosts, callers, clients, groups, length, calm, ledger, registers, steps };
        script.begin(&mut rng);
        let faults = [0, 5, 15][rng.index(3)];
        let mut at = 4500;
        while at < length.as_millis() as u64 - 200 {
            at += rng.between(5, 250);
            let what =
                if rng.percent(faults) { script.register_fault(&mut rng) } else { script.deed(&mut rng) };
            script.push(at, what);
        }
        script
    }

    /// A life in which three registers keep their list in a ledger. In some the ledger forgets.
    pub fn ledger(seed: u64) -> Self {
        let mut rng = Rng::of(&[seed, 103]);
        let hosts = rng.between(2, 5) as usize;
        let (callers, clients) = (rng.between(1, 4) as usize, rng.between(2, 8) as usize);
        let length = Duration::from_millis(rng.between(15_000, 30_000));
        let order = [[0, 1, 2], [1, 2, 0], [2, 1, 0]];
        let registers = (0..hosts).map(|_| order[rng.index(3)].to_vec()).collect();
        let groups = rng.between(1, 4);
        let (calm, ledger, steps) = (false, true, Vec::new());
        let mut script =
            Self { seed, hosts, callers, clients, groups, length, calm, ledger, registers, steps };
        script.begin(&mut rng);
        let faults = [2, 6, 15][rng.index(3)];
        let forgets = rng.percent(30);
        let mut at = 4500;
        while at < length.as_millis() as u64 - 200 {
            at += rng.between(5, 250);
            let what = if rng.percent(faults) {
                script.ledger_fault(forgets, &mut rng)
            } else {
                script.deed(&mut rng)
            };
            script.push(at, what);
        }
        script
    }

    /// Of the registers, their ledger, and gateways, which make new views.
    fn ledger_fault(&self, forgets: bool, rng: &mut Rng) -> Action {
        let (host, no) = (rng.index(self.hosts), rng.index(3));
        let millis = [300, 1500, 2500, 5000, 8000][rng.index(5)] + rng.below(500);
        match rng.below(100) {
            0..4 => self.fault(rng),
            4..10 => Action::Crash { host, silently: rng.percent(50) },
            10..32 => Action::Start { host, ring_version: 1 },
            32..36 => Action::Drain { host },
            36..50 => Action::LeaderStop { millis },
            50..60 => Action::LeaderPause { millis },
            60..66 => Action::RegisterPause { no, millis },
            66..74 => Action::LedgerAway { millis },
            74..82 => Action::LedgerTroubled { millis },
            82..92 => Action::LedgerRevokes,
            92..96 if forgets => Action::LedgerForgets { writes: rng.between(1, 4) as usize },
            96..100 if forgets => {
                Action::LedgerRestored { back: rng.between(1, 20) as usize, leader_too: rng.percent(50) }
            }
            _ => Action::Start { host, ring_version: 1 },
        }
    }

    /// Mostly of the registers and the ways to them.
    fn register_fault(&self, rng: &mut Rng) -> Action {
        let host = rng.index(self.hosts);
        let register = [REGISTER, OTHER_REGISTER][rng.index(2)];
        let [from, to] = if rng.percent(50) { [host, register] } else { [register, host] };
        let millis = [300, 1500, 2500, 5000, 8000][rng.index(5)] + rng.below(500);
        match rng.below(10) {
            0 => self.fault(rng),
            1 => Action::Crash { host, silently: rng.percent(50) },
            2..4 => Action::Start { host, ring_version: 1 },
            4 => Action::RegisterStop { millis },
            5 => Action::OtherRegisterStop { millis },
            6..9 => Action::Hole { from, to, millis },
            _ => Action::Delay { from, to, by_millis: [50, 400, 1500][rng.index(3)], millis },
        }
    }

    /// The registers that a host knows.
    pub fn registers_of(&self, host: usize) -> &[usize] {
        self.registers.get(host).map_or(&[0], Vec::as_slice)
    }

    /// Somebody hears who is present without being so.
    fn listener(&self, rng: &mut Rng) -> Action {
        let (caller, person) = (rng.index(self.callers), rng.index(self.clients));
        Action::Join { caller, person, topic: presence(rng.below(2)), user: None }
    }

    fn starts(&self, host: usize) -> bool {
        self.steps
            .iter()
            .any(|step| matches!(step.what, Action::Start { host: started, .. } if started == host))
    }

    /// Somebody is left: what is known to nobody cannot be told.
    fn misfortune(&self, alive: &mut [bool], rng: &mut Rng) -> Action {
        let host = rng.index(self.hosts);
        let others = alive.iter().enumerate().any(|(other, alive)| *alive && other != host);
        let kind = if others { rng.below(3) } else { 0 };
        alive[host] = kind == 0;
        match kind {
            0 => Action::Start { host, ring_version: 1 },
            1 => Action::Crash { host, silently: rng.percent(50) },
            _ => Action::Drain { host },
        }
    }

    fn push(&mut self, millis: u64, what: Action) {
        let no = self.steps.len() as u64;
        self.steps.push(Step { no, at: Duration::from_millis(millis), what });
    }

    fn begin(&mut self, rng: &mut Rng) {
        let absent = if self.hosts > 2 && rng.percent(40) { 1 } else { 0 };
        let newer = rng.percent(20);
        for host in 0..self.hosts - absent {
            let ring_version = if newer && rng.percent(50) { 2 } else { 1 };
            self.push(rng.between(0, 500), Action::Start { host, ring_version });
        }
        for person in 0..self.clients {
            let host = rng.index(self.hosts);
            self.push(rng.between(1500, 2500), Action::Connect { person, host });
        }
        for _ in 0..self.clients * 2 {
            let what = self.membership(rng);
            self.push(rng.between(3000, 4400), what);
        }
    }

    fn membership(&self, rng: &mut Rng) -> Action {
        let (caller, person) = (rng.index(self.callers), rng.index(self.clients));
        match rng.below(20) {
            0..6 => Action::Join { caller, person, topic: self.group(rng.below(self.groups)), user: None },
            6..11 => {
                let user = Some(format!("user{}", rng.below(4)));
                Action::Join { caller, person, topic: presence(rng.below(2)), user }
            }
            11..14 => Action::Leave { caller, person, topic: self.group(rng.below(self.groups)) },
            14..16 => Action::Leave { caller, person, topic: presence(rng.below(2)) },
            16..18 => Action::Bind { caller, person, topic: uid(rng.below(2)) },
            18 => Action::Exclusive { caller, person, topic: uid(2) },
            _ => {
                Action::JoinAll { caller, uid: uid(rng.below(2)), group: self.group(rng.below(self.groups)) }
            }
        }
    }

    fn deed(&self, rng: &mut Rng) -> Action {
        let (caller, person, host) =
            (rng.index(self.callers), rng.index(self.clients), rng.index(self.hosts));
        let topics = self.topics();
        let mut topic = || topics[rng.index(topics.len())].clone();
        let (one, other) = (topic(), topic());
        let groups = [self.group(rng.below(self.groups)), presence(rng.below(2))];
        match rng.below(100) {
            0..40 => {
                let group = groups[rng.index(2)].clone();
                Action::Send { caller, topics: vec![group], times: rng.between(1, 5) }
            }
            40..50 => Action::Send { caller, topics: vec![one], times: rng.between(1, 4) },
            50..54 => Action::Send { caller, topics: vec![one, other], times: 1 },
            54..57 => Action::Fire { caller, topic: groups[0].clone() },
            57..80 => self.membership(rng),
            80..84 => Action::Count { caller, topic: one },
            84..87 => Action::Roster { caller, topic: groups[1].clone() },
            87..91 => Action::Connect { person, host },
            91..94 => Action::Close { person },
            94 => Action::Slow { person },
            _ => Action::Move { caller, host },
        }
    }

    fn fault(&self, rng: &mut Rng) -> Action {
        let (host, other) = (rng.index(self.hosts), rng.index(self.hosts));
        let [from, to] = if rng.percent(20) {
            if rng.percent(50) { [host, REGISTER] } else { [REGISTER, host] }
        } else {
            [host, (host + 1 + other % (self.hosts - 1)) % self.hosts]
        };
        let millis = [300, 1500, 2500, 5000, 8000][rng.index(5)] + rng.below(500);
        match rng.below(100) {
            0..10 => Action::Crash { host, silently: rng.percent(50) },
            10..32 => Action::Start { host, ring_version: 1 + u32::from(rng.percent(15)) },
            32..38 => Action::Drain { host },
            38..50 => Action::Pause { host, millis },
            50..68 => Action::Hole { from, to, millis },
            68..78 => Action::Reset { from, to },
            78..85 => {
                let but = (host + 1 + other % (self.hosts - 1)) % self.hosts;
                Action::Island { host, but, by_millis: rng.between(5, 1800), millis }
            }
            85..93 => Action::Delay { from, to, by_millis: [50, 400, 1500][rng.index(3)], millis },
            _ => Action::RegisterStop { millis },
        }
    }
}

fn presence(no: u64) -> Topic {
    Topic::group(APP, &format!("p{no}"))
}

/// The last one is bound exclusively only.
fn uid(no: u64) -> Topic {
    Topic::uid(APP, &format!("u{no}"))
}

/// A lease, two link timeouts, and some for reports to arrive.
const CALM_MILLIS: u64 = 5000 + 2 * 2000 + 4000;

/// So long after a fault a gateway may still be removed for it: its lease ends, others take over.
pub const SUSPICION: Duration = Duration::from_secs(15);

impl World {
    /// Notes whether somebody may look dead from now on.
    fn suspect(&mut self, what: &Action) {
        if let Action::Pause { millis, .. }
        | Action::Island { millis, .. }
        | Action::Hole { millis, .. }
        | Action::Delay { millis, .. } = what
        {
            let until = self.now + Duration::from_millis(*millis) + SUSPICION;
            self.suspect_until = self.suspect_until.max(until);
        }
    }

    /// What the script says now.
    pub fn step(&mut self, index: usize) {
        if self.healed {
            return;
        }
        let Step { no, what, .. } = self.script.steps[index].clone();
        self.tell(&"step", &what);
        let cmd: CmdNo = no * 16;
        self.suspect(&what);
        match what {
            Action::Start { host, ring_version } => self.start_gateway(host, ring_version),
            Action::Crash { host, silently } => self.crash(host, silently),
            Action::Drain { host } => self.drain(host),
            Action::Pause { host, millis } => self.pause(host, Duration::from_millis(millis)),
            Action::Hole { from, to, millis } => {
                self.cut(from, to);
                self.after(Duration::from_millis(millis), Event::Mend { from, to });
            }
            Action::Reset { from, to } => self.reset(from, to),
            Action::Delay { from, to, by_millis, millis } => {
                self.path(from, to).slow = Duration::from_millis(by_millis);
                self.after(Duration::from_millis(millis), Event::Quick { from, to });
            }
            Action::Island { host, but, by_millis, millis } => {
                for other in (0..self.hosts.len()).chain(REGISTERS).filter(|other| *other != host) {
                    for (from, to) in [(host, other), (other, host)] {
                        let millis = Duration::from_millis(millis);
                        if other == but {
                            self.path(from, to).slow = Duration::from_millis(by_millis);
                            self.after(millis, Event::Quick { from, to });
                        } else {
                            self.cut(from, to);
                            self.after(millis, Event::Mend { from, to });
                        }
                    }
                }
            }
            Action::RegisterStop { millis } => {
                self.register_stops(0);
                self.after(Duration::from_millis(millis), Event::RegisterUp { no: 0 });
            }
            Action::OtherRegisterStop { millis } => {
                self.register_stops(1);
                self.after(Duration::from_millis(millis), Event::RegisterUp { no: 1 });
            }
            Action::LeaderStop { .. }
            | Action::LeaderPause { .. }
            | Action::RegisterPause { .. }
            | Action::LedgerAway { .. }
            | Action::LedgerTroubled { .. }
            | Action::LedgerRevokes
            | Action::LedgerForgets { .. }
            | Action::LedgerRestored { .. } => self.ledger_suffers(&what),
            Action::FalseReport { term } => self.register_hears_false_report(term),
            Action::Connect { person, host } => self.connect_client(person, host),
            Action::Close { person } => self.person_closes(person),
            Action::Slow { person } => {
                if let Some(client) = self.slots[person] {
                    self.slow_down(client);
                }
            }
            Action::Move { caller, host } => self.move_caller(caller, host),
            Action::Send { caller, topics, times } => {
                for more in 0..times {
                    self.wish(caller, cmd + more, Wish::Send(topics.clone()));
                }
            }
            Action::Fire { caller, topic } => self.wish(caller, cmd, Wish::Fire(topic)),
            Action::JoinAll { caller, uid, group } => self.wish(caller, cmd, Wish::JoinAll(uid, group)),
            Action::Count { caller, topic } => self.wish(caller, cmd, Wish::Count(topic)),
            Action::Roster { caller, topic } => self.wish(caller, cmd, Wish::Roster(topic)),
            Action::Join { person, .. }
            | Action::Leave { person, .. }
            | Action::Bind { person, .. }
            | Action::Exclusive { person, .. } => self.about(person, cmd, what),
        }
    }

    fn about(&mut self, person: usize, cmd: CmdNo, what: Action) {
        let Some(client) = self.slots[person] else { return };
        match what {
            Action::Join { caller, topic, user, .. } => {
                self.wish(caller, cmd, Wish::Join(client, topic, user))
            }
            Action::Leave { caller, topic, .. } => self.wish(caller, cmd, Wish::Leave(client, topic)),
            Action::Bind { caller, topic, .. } => self.wish(caller, cmd, Wish::Bind(client, topic)),
            Action::Exclusive { caller, topic, .. } => self.wish(caller, cmd, Wish::Exclusive(client, topic)),
            _ => {}
        }
    }

    /// The registers that share a ledger, and the ledger.
    fn ledger_suffers(&mut self, what: &Action) {
        match *what {
            Action::LeaderStop { millis } => {
                if let Some(no) = self.leading_register() {
                    self.register_stops(no);
                    self.after(Duration::from_millis(millis), Event::RegisterUp { no });
                }
            }
            Action::LeaderPause { millis } => {
                if let Some(no) = self.leading_register() {
                    self.register_pauses(no, Duration::from_millis(millis));
                }
            }
            Action::RegisterPause { no, millis } => self.register_pauses(no, Duration::from_millis(millis)),
            Action::LedgerAway { millis } => {
                self.ledger.is_away_until(self.now + Duration::from_millis(millis))
            }
            Action::LedgerTroubled { millis } => {
                self.ledger.is_troubled_until(self.now + Duration::from_millis(millis));
            }
            Action::LedgerRevokes => self.ledger.revoke(),
            Action::LedgerForgets { writes } => self.ledger_goes_back(writes, true),
            Action::LedgerRestored { back, leader_too } => self.ledger_goes_back(back, leader_too),
            _ => {}
        }
    }

    fn person_closes(&mut self, person: usize) {
        let Some(client) = self.slots[person] else { return };
        let by = self.clients[client as usize].by;
        if let Some(host) = self.host_of(by).filter(|host| self.hosts[*host].paused.is_none()) {
            self.close_client(host, client);
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, hosts, callers, clients, groups, length, steps, calm, ledger, registers } = self;
        let length = length.as_secs_f64();
        writeln!(
            f,
            "seed {seed}{}: {hosts} hosts, {callers} callers, {clients} people, {groups} groups, {length} s",
            if *calm { " (calm)" } else { "" }
        )?;
        if !registers.is_empty() {
            let which = if *ledger { "three registers over a ledger" } else { "two registers" };
            writeln!(f, "{which}; hosts know {registers:?}")?;
        }
        steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}
