//! One of several registers over a ledger: leads with a core of its own, or stands by. Pure.
//!
//! What shows a view is held back until the view is committed; beats are answered meanwhile. Every write is
//! refused by the ledger if another register was elected since, so of two that believe that they lead only one
//! can show anything new.
//!
//! A register with its list in memory leads from the start and commits nothing.

use std::{sync::Arc, time::Duration};

use broadgate_proto::{
    limits::{LEDGER_COMMIT_TIME_MAX, LEDGER_VIEW_BYTES_MAX, MEMBERS_MAX, VIEW_INTERVAL},
    v1::{View, join_reply::Reply},
};

use super::{
    core::Core,
    step::{
        CommitOutcome, Effect, Elected, FromLedger, Guard, Happened, Input, Now, OperatorAnswer,
        RegisterRefusal,
    },
};

mod commits;

use commits::Commits;

/// As members learn it.
const LEDGER_NAME: &str = "etcd";

/// A register, whatever keeps its list.
#[derive(Debug)]
pub struct Replica {
    beat: Duration,
    lease: Duration,
    view_interval: Duration,
    role: ReplicaRole,
}

#[derive(Debug)]
enum ReplicaRole {
    /// The list is in memory.
    Alone(Box<Core>),
    Standby {
        /// The address of the one that leads.
        leader: Option<String>,
    },
    Leading(Box<Leading>),
}

#[derive(Debug)]
struct Leading {
    guard: Guard,
    until: Duration,
    core: Core,
    commits: Commits,
    /// The write that was repeated last; they are counted from 1.
    repeated: u64,
}

impl Replica {
    /// Keeps the list in memory.
    #[must_use]
    pub fn in_memory(core: Core) -> Self {
        let role = ReplicaRole::Alone(Box::new(core));
        Self { beat: Duration::ZERO, lease: Duration::ZERO, view_interval: VIEW_INTERVAL, role }
    }

    /// Keeps the list in a ledger, and stands by until it is elected.
    #[must_use]
    pub const fn over_ledger(beat: Duration, lease: Duration) -> Self {
        Self { beat, lease, view_interval: VIEW_INTERVAL, role: ReplicaRole::Standby { leader: None } }
    }

    /// Makes no more than one view in this time while it leads. The default is [`VIEW_INTERVAL`].
    #[must_use]
    pub const fn with_view_interval(mut self, interval: Duration) -> Self {
        self.view_interval = interval;
        self
    }

    /// When [`Input::Tick`] has to come at the latest, since a change waits for its view.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Duration> {
        match &self.role {
            ReplicaRole::Alone(core) => core.wakes_at(),
            ReplicaRole::Leading(leading) => leading.core.wakes_at(),
            ReplicaRole::Standby { .. } => None,
        }
    }

    /// The newest view that members may see; none where another register leads.
    #[must_use]
    pub fn view(&self) -> Option<&Arc<View>> {
        match &self.role {
            ReplicaRole::Alone(core) => Some(core.view()),
            ReplicaRole::Leading(leading) => Some(leading.commits.shown()),
            ReplicaRole::Standby { .. } => None,
        }
    }

    /// The address of the register that leads, where this one does not and knows it.
    #[must_use]
    pub fn leader(&self) -> Option<&str> {
        match &self.role {
            ReplicaRole::Standby { leader } => leader.as_deref(),
            ReplicaRole::Alone(_) | ReplicaRole::Leading(_) => None,
        }
    }

    /// How long the oldest view that is not committed has waited; none where nothing is to be committed.
    #[must_use]
    pub fn lag(&self, now: Now) -> Option<Duration> {
        match &self.role {
            ReplicaRole::Leading(leading) => Some(leading.commits.lag(now)),
            ReplicaRole::Alone(_) | ReplicaRole::Standby { .. } => None,
        }
    }

    /// One step of what members, operators and time do.
    pub fn apply(&mut self, input: Input, now: Now) -> Vec<Effect> {
        let mut out = self.overdue(now);
        match &mut self.role {
            ReplicaRole::Alone(core) => return core.apply(input, now),
            ReplicaRole::Standby { leader } => out.extend(refuse(&input, leader.as_deref())),
            ReplicaRole::Leading(leading) => leading.apply(input, now, &mut out),
        }
        out
    }

    /// One step of what the ledger does.
    pub fn ledger(&mut self, input: FromLedger, now: Now) -> Vec<Effect> {
        let mut out = self.overdue(now);
        match input {
            FromLedger::Leader(found) => {
                if let ReplicaRole::Standby { leader } = &mut self.role {
                    *leader = found;
                }
            }
            FromLedger::Elected(elected) => self.lead(*elected, now, &mut out),
            FromLedger::Renewed { guard, until } => {
                if let Some(leading) = self.leading(guard) {
                    leading.until = leading.until.max(until);
                }
            }
            FromLedger::Written { guard, number, outcome } => {
                let Some(leading) = self.leading(guard) else { return out };
                if let Some(why) = leading.written(number, outcome, now, &mut out) {
                    self.follow(why, &mut out);
                }
            }
            FromLedger::Lost { guard, why } => {
                if self.leading(guard).is_some() {
                    self.follow(why, &mut out);
                }
            }
        }
        out
    }

    fn leading(&mut self, guard: Guard) -> Option<&mut Leading> {
        match &mut self.role {
            ReplicaRole::Leading(leading) => Some(&mut **leading).filter(|leading| leading.guard == guard),
            ReplicaRole::Alone(_) | ReplicaRole::Standby { .. } => None,
        }
    }

    /// Looked at before anything that has come is read: after a pause another register may lead.
    fn overdue(&mut self, now: Now) -> Vec<Effect> {
        let mut out = Vec::new();
        let ReplicaRole::Leading(leading) = &self.role else { return out };
        if now.up >= leading.until {
            self.follow("its lease in the ledger was not renewed in time".to_owned(), &mut out);
        } else if leading.commits.lag(now) >= LEDGER_COMMIT_TIME_MAX {
            let why = format!("the ledger has not taken a write for {LEDGER_COMMIT_TIME_MAX:?}");
            self.follow(why, &mut out);
        }
        out
    }

    fn lead(&mut self, elected: Elected, now: Now, out: &mut Vec<Effect>) {
        if matches!(self.role, ReplicaRole::Alone(_)) {
            return;
        }
        let Elected { guard, until, salt, views, removed } = elected;
        let mut core = Core::new(self.beat, self.lease, MEMBERS_MAX)
            .with_salt(salt)
            .with_view_bytes_max(LEDGER_VIEW_BYTES_MAX)
            .with_view_interval(self.view_interval)
            .beginning_at(now);
        let shown = views.last().cloned().unwrap_or_else(|| core.view().clone());
        let stored = shown.epoch.unwrap_or_default();
        out.push(Effect::Happened(Happened::Led { stored, members: shown.members.len() }));
        let resumed = core.resume(&views, &removed, now);
        let mut leading = Leading { guard, until, core, commits: Commits::new(shown), repeated: 0 };
        leading.take(resumed, now, out);
        self.role = ReplicaRole::Leading(Box::new(leading));
    }

    fn follow(&mut self, why: String, out: &mut Vec<Effect>) {
        let ReplicaRole::Leading(leading) = &self.role else { return };
        out.push(Effect::Happened(Happened::Deposed { why }));
        out.push(Effect::Follow(leading.guard));
        self.role = ReplicaRole::Standby { leader: None };
    }
}

impl Leading {
    fn apply(&mut self, input: Input, now: Now, out: &mut Vec<Effect>) {
        // Only one register can lead over this ledger, so there is nothing to step down for: one of another
        // ledger is reported by the members that see both.
        if matches!(input, Input::StepDown { .. }) {
            let epoch = self.commits.shown().epoch.unwrap_or_default();
            let incarnation = broadgate_proto::id::Incarnation::from_bits(0);
            return out.push(Effect::AnswerNewest(Ok(OperatorAnswer { epoch, incarnation })));
        }
        if self.commits.is_full()
            && let Some(refused) = overloaded(&input)
        {
            out.push(refused);
            let Some(connection) = input.sender() else { return };
            let effects = self.core.apply(Input::Lost { connection }, now);
            return self.take(effects, now, out);
        }
        let effects = self.core.apply(input, now);
        self.take(effects, now, out);
    }

    /// Passes on what may be shown now, and starts the next write.
    fn take(&mut self, mut effects: Vec<Effect>, now: Now, out: &mut Vec<Effect>) {
        let behind = effects.iter().find_map(|effect| match effect {
            Effect::Happened(Happened::TookOver { from, .. }) => Some(*from),
            _ => None,
        });
        if let Some(reported) = behind {
            let ledger = self.commits.shown().epoch.unwrap_or_default();
            out.push(Effect::Happened(Happened::LedgerBehind { ledger, reported }));
        }
        let lag = self.commits.lag(now);
        for effect in &mut effects {
            match effect {
                Effect::Reply(_, Reply::Beat(answer)) => {
                    answer.ledger_lag_ms = u32::try_from(lag.as_millis()).unwrap_or(u32::MAX);
                }
                Effect::Reply(_, Reply::Welcome(welcome)) => LEDGER_NAME.clone_into(&mut welcome.ledger),
                _ => {}
            }
        }
        self.commits.take(effects, now, out);
        self.write(now, out);
    }

    fn write(&mut self, now: Now, out: &mut Vec<Effect>) {
        if let Some(write) = self.commits.next(self.guard, &self.core, now) {
            out.push(Effect::Commit(write));
        }
    }

    /// What became of a write. A sentence if this register leads no more.
    fn written(
        &mut self,
        number: u64,
        outcome: CommitOutcome,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Option<String> {
        let in_flight = self.commits.in_flight().filter(|write| write.number == number)?;
        match outcome {
            CommitOutcome::Done => {
                let took = self.commits.done(now, out);
                out.push(Effect::Happened(Happened::Committed { took }));
                self.write(now, out);
                None
            }
            // Applied twice it is the same; applied once by now, the ledger says so.
            CommitOutcome::Unknown(why) => {
                // Once for each write: it is repeated until it is committed, or the lead is given up.
                if std::mem::replace(&mut self.repeated, number) != number {
                    out.push(Effect::Happened(Happened::WriteUnknown { why }));
                }
                out.push(Effect::Commit(in_flight));
                None
            }
            CommitOutcome::Refused(why) => Some(why),
        }
    }
}

/// The answer to an input that comes to a register that does not lead.
fn refuse(input: &Input, leader: Option<&str>) -> Option<Effect> {
    let refusal = RegisterRefusal::StandsBy { leader: leader.map(str::to_owned) };
    match input {
        Input::Hello { connection, .. } => Some(Effect::Refuse(*connection, refusal)),
        Input::Leave { .. } | Input::Drain { .. } | Input::StepDown { .. } => {
            Some(Effect::AnswerNewest(Err(refusal)))
        }
        Input::Beat { .. }
        | Input::SetState { .. }
        | Input::Goodbye { .. }
        | Input::Lost { .. }
        | Input::Tick => None,
    }
}

/// How an input is turned away while too much waits for the ledger.
fn overloaded(input: &Input) -> Option<Effect> {
    let refusal =
        RegisterRefusal::Unavailable("too much waits for the register's ledger: try again".to_owned());
    match input {
        Input::Hello { connection, .. }
        | Input::SetState { connection, .. }
        | Input::Goodbye { connection } => Some(Effect::Refuse(*connection, refusal)),
        Input::Leave { .. } | Input::Drain { .. } => Some(Effect::AnswerNewest(Err(refusal))),
        Input::Beat { .. } | Input::Lost { .. } | Input::StepDown { .. } | Input::Tick => None,
    }
}

#[cfg(test)]
mod tests;
