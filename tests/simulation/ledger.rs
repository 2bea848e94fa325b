//! The ledger of several registers, as etcd is: it delays and refuses, its answers are lost, its writes come late, it
//! forgets the newest ones, and is restored from an old copy. And what `register/src/server/ledger.rs` does.

use std::{sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    limits::{LEDGER_LEASE, LEDGER_LOOK, LEDGER_RENEW},
    v1::{Epoch, View},
};
use broadgate_register::server::simulation::{CommitOutcome, Elected, FromLedger, Guard, Write};

use super::{
    bugs::Bug,
    history::Fact,
    misfortune::SUSPICION,
    net::register_node,
    register::register_address,
    rng::Rng,
    world::{Event, World},
};

/// After this long nobody waits for an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Default)]
struct State {
    /// At which it was written; 0 for never.
    revision: i64,
    views: Vec<Arc<View>>,
    removed: Vec<Incarnation>,
}

impl State {
    fn epoch(&self) -> Option<Epoch> {
        self.views.last().and_then(|view| view.epoch)
    }
}

#[derive(Debug, Clone, Copy)]
struct Leader {
    guard: Guard,
    by: usize,
    until: Duration,
}

#[derive(Debug)]
pub struct Ledger {
    revision: i64,
    leader: Option<Leader>,
    state: State,
    former: Vec<State>,
    /// When it went back last.
    forgot: Option<Duration>,
    away_until: Duration,
    troubled_until: Duration,
    rng: Rng,
}

/// A register's side of it.
#[derive(Debug, Clone, Copy)]
pub struct Lead {
    guard: Guard,
    /// At which the state was written last, as far as it knows.
    revision: i64,
    until: Duration,
}

#[derive(Debug)]
pub enum LedgerStep {
    Look,
    Renew(Guard),
    /// A write comes to the ledger; what becomes of it is answered, or not.
    Apply {
        write: Arc<Write>,
        revision: i64,
        answered: bool,
    },
    /// The answer to a write, and at which revision the state was written then.
    Written {
        guard: Guard,
        number: u64,
        outcome: CommitOutcome,
        revision: i64,
    },
    Says(Box<FromLedger>),
}

impl LedgerStep {
    pub const fn is_at_the_ledger(&self) -> bool {
        matches!(self, Self::Apply { .. })
    }
}

impl Ledger {
    pub fn of(seed: u64) -> Self {
        Self {
            revision: 0,
            leader: None,
            state: State::default(),
            former: Vec::new(),
            forgot: None,
            away_until: Duration::ZERO,
            troubled_until: Duration::ZERO,
            rng: Rng::of(&[seed, 9]),
        }
    }

    pub fn is_away_until(&mut self, until: Duration) {
        self.away_until = self.away_until.max(until);
    }

    pub fn is_troubled_until(&mut self, until: Duration) {
        self.troubled_until = self.troubled_until.max(until);
    }

    pub fn revoke(&mut self) {
        self.leader = None;
    }

    pub fn heal(&mut self, now: Duration) {
        (self.away_until, self.troubled_until) = (now, now);
    }

    fn leader(&self, now: Duration) -> Option<Leader> {
        self.leader.filter(|leader| now < leader.until)
    }

    fn delay(&mut self) -> Duration {
        let late = if self.rng.percent(3) { 300 } else { 0 };
        Duration::from_micros(self.rng.between(300, 12_000)) + Duration::from_millis(late)
    }

    /// Compares and writes in one step, as `register/src/server/ledger/store.rs` has etcd do.
    fn apply(&mut self, write: &Write, revision: i64, now: Duration, guarded: bool) -> CommitOutcome {
        let leads = self.leader(now).is_some_and(|leader| leader.guard == write.guard);
        if guarded && !leads {
            return CommitOutcome::Refused("another register was elected".to_owned());
        }
        if self.state.revision != revision && guarded {
            return match self.state.epoch() == Some(write.epoch()) {
                true => CommitOutcome::Done,
                false => CommitOutcome::Refused("the ledger is not as it was left".to_owned()),
            };
        }
        self.revision += 1;
        self.former.push(self.state.clone());
        self.state.revision = self.revision;
        self.state.views.retain(|view| view.epoch >= Some(write.oldest));
        self.state.views.extend(write.views.iter().cloned());
        self.state.removed.clone_from(&write.removed);
        CommitOutcome::Done
    }
}

impl World {
    pub fn leading_register(&self) -> Option<usize> {
        self.ledger.leader(self.now).map(|leader| leader.by)
    }

    fn will(&mut self, no: usize, delay: Duration, step: LedgerStep) {
        if let Some(life) = self.life_of(register_node(no)) {
            self.after(delay, Event::Ledger { no, life, step });
        }
    }

    fn says(&mut self, no: usize, said: FromLedger) {
        let delay = self.ledger.delay();
        self.will(no, delay, LedgerStep::Says(Box::new(said)));
    }

    fn is_away(&self) -> bool {
        self.now < self.ledger.away_until
    }

    pub fn ledger_step(&mut self, no: usize, step: LedgerStep) {
        match step {
            LedgerStep::Look => self.register_looks(no),
            LedgerStep::Renew(guard) => self.register_renews(no, guard),
            LedgerStep::Apply { write, revision, answered } => {
                self.ledger_applies(no, &write, revision, answered)
            }
            LedgerStep::Written { guard, number, outcome, revision } => {
                if let Some(lead) = self.registers[no].lead.as_mut().filter(|lead| lead.guard == guard)
                    && outcome == CommitOutcome::Done
                {
                    lead.revision = revision;
                }
                self.register_hears_ledger(no, FromLedger::Written { guard, number, outcome });
            }
            LedgerStep::Says(said) => self.register_hears_ledger(no, *said),
        }
    }

    /// It stands for election where nobody leads.
    fn register_looks(&mut self, no: usize) {
        if self.registers[no].lead.is_some() {
            return;
        }
        if self.is_away() {
            self.says(no, FromLedger::Leader(None));
        } else if let Some(leader) = self.ledger.leader(self.now) {
            let at = register_address(leader.by).to_string();
            self.says(no, FromLedger::Leader(Some(at)));
        } else {
            self.ledger.revision += 1;
            let (guard, until) = (self.ledger.revision, self.now + LEDGER_LEASE);
            self.ledger.leader = Some(Leader { guard, by: no, until });
            let State { revision, views, removed } = self.ledger.state.clone();
            self.registers[no].lead = Some(Lead { guard, revision, until });
            let until = until - self.registers[no].since;
            let salt = self.ledger.rng.next() as u16;
            let elected = Elected { guard, until, salt, views, removed };
            self.says(no, FromLedger::Elected(Box::new(elected)));
            return self.will(no, LEDGER_RENEW, LedgerStep::Renew(guard));
        }
        let jitter = Duration::from_millis(self.ledger.rng.below(50));
        self.will(no, LEDGER_LOOK + jitter, LedgerStep::Look);
    }

    fn register_renews(&mut self, no: usize, guard: Guard) {
        let now = self.now;
        let Some(lead) = self.registers[no].lead.filter(|lead| lead.guard == guard) else { return };
        if self.is_away() && now < lead.until {
            return self.will(no, Duration::from_millis(200), LedgerStep::Renew(guard));
        }
        let leads = self.ledger.leader(now).is_some_and(|leader| leader.guard == guard);
        if self.is_away() || !leads {
            self.registers[no].lead = None;
            self.says(no, FromLedger::Lost { guard, why: "the lease has ended".to_owned() });
            return self.will(no, LEDGER_LOOK, LedgerStep::Look);
        }
        let until = now + LEDGER_LEASE;
        if let Some(leader) = &mut self.ledger.leader {
            leader.until = until;
        }
        self.registers[no].lead = Some(Lead { until, ..lead });
        let until = until - self.registers[no].since;
        self.says(no, FromLedger::Renewed { guard, until });
        self.will(no, LEDGER_RENEW, LedgerStep::Renew(guard));
    }

    /// A register writes: that takes a while, and in troubled times the write or its answer is lost, or it comes when
    /// nobody waits for it any more.
    pub fn register_writes(&mut self, no: usize, write: Arc<Write>) {
        let Some(lead) = self.registers[no].lead.filter(|lead| lead.guard == write.guard) else { return };
        let (guard, number, revision) = (write.guard, write.number, lead.revision);
        if self.bug == Some(Bug::ShownBeforeCommit) {
            let done = FromLedger::Written { guard, number, outcome: CommitOutcome::Done };
            self.will(no, Duration::ZERO, LedgerStep::Says(Box::new(done)));
        }
        let troubled = self.now < self.ledger.troubled_until;
        let kind = if troubled { self.ledger.rng.below(10) } else { 9 };
        let away = self.is_away();
        let (lost, late) = (away || kind < 3, (3..5).contains(&kind));
        let answered = !(lost || late || kind == 5);
        if !lost {
            let more = if late { self.ledger.rng.between(300, 5000) } else { 0 };
            let delay = self.ledger.delay() + Duration::from_millis(more);
            self.will(no, delay, LedgerStep::Apply { write, revision, answered });
        }
        if !answered {
            let outcome = CommitOutcome::Unknown("no answer".to_owned());
            let patience = Duration::from_millis(self.ledger.rng.between(200, 600)).min(ANSWER_TIME_MAX);
            self.will(no, patience, LedgerStep::Written { guard, number, outcome, revision });
        }
    }

    fn ledger_applies(&mut self, no: usize, write: &Write, revision: i64, answered: bool) {
        let guarded = self.bug != Some(Bug::CommitWithoutGuard);
        let before = self.ledger.revision;
        let outcome = self.ledger.apply(write, revision, self.now, guarded);
        if self.ledger.revision > before {
            for view in &write.views {
                let (epoch, before) = (view.epoch.unwrap_or_default(), view.before.unwrap_or_default());
                self.note(Fact::Committed { epoch, before });
            }
        }
        if answered {
            let (guard, number, revision) = (write.guard, write.number, self.ledger.state.revision);
            let delay = self.ledger.delay();
            self.will(no, delay, LedgerStep::Written { guard, number, outcome, revision });
        }
    }

    /// It leads no more, and says so to the ledger.
    pub fn register_resigns(&mut self, no: usize, guard: Guard) {
        if self.registers[no].lead.is_some_and(|lead| lead.guard == guard) {
            self.registers[no].lead = None;
            self.will(no, LEDGER_LOOK, LedgerStep::Look);
        }
        if !self.is_away() && self.ledger.leader.is_some_and(|leader| leader.guard == guard) {
            self.ledger.leader = None;
        }
    }

    /// It has what it had so many writes ago.
    pub fn ledger_goes_back(&mut self, writes: usize, leader_too: bool) {
        let former = &mut self.ledger.former;
        let Some(at) = former.len().checked_sub(writes.min(former.len()).max(1)) else { return };
        let Some(state) = former.drain(at..).next() else { return };
        self.ledger.state = state;
        if !leader_too {
            self.ledger.leader = None;
        }
        // What members know of a branch that is lost is lost too if they have not reported it before the next loss.
        if self.ledger.forgot.is_some_and(|forgot| self.now < forgot + SUSPICION) {
            self.suspect_until = self.suspect_until.max(self.now + SUSPICION);
        }
        self.ledger.forgot = Some(self.now);
        self.note(Fact::Forgotten);
    }
}
