//! A script: what people, callers and misfortune do in one run. Made from a seed; any step may be left out.
//! `misfortune.rs` says what goes wrong, and `deeds.rs` does what a script says.

use std::{fmt, time::Duration};

use broadgate_topics::Topic;

use super::rng::Rng;

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

/// A lease, two link timeouts, and some for reports to arrive.
const CALM_MILLIS: u64 = 5000 + 2 * 2000 + 4000;

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

    /// A calm life in which gateways only drain and start: no send is incomplete.
    pub fn rolling(seed: u64) -> Self {
        let mut script = Self::calm(seed);
        for step in &mut script.steps {
            if let Action::Crash { host, .. } = step.what {
                step.what = Action::Drain { host };
            }
        }
        script
    }

    /// Whether nobody has to be missed by anybody.
    pub fn is_rolling(&self) -> bool {
        self.calm && !self.steps.iter().any(|step| matches!(step.what, Action::Crash { .. }))
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
}

fn presence(no: u64) -> Topic {
    Topic::group(APP, &format!("p{no}"))
}

/// The last one is bound exclusively only.
fn uid(no: u64) -> Topic {
    Topic::uid(APP, &format!("u{no}"))
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
