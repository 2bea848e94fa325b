//! What goes into the state machine and what comes out.

use std::{sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    v1::{Epoch, Hello, Member, MemberState, OrderGiver, View, join_reply::Reply},
    view::LEASE_ENDED,
};

use super::check::PeerOrigin;

/// One Join stream; the caller numbers them and never uses a number again.
pub type ConnectionId = u64;

/// What time it is, as the caller sees it.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Since the register started; leases are counted in it.
    pub up: Duration,
    /// Wall clock, for people only.
    pub unix_ms: u64,
}

/// What can happen to a register.
#[derive(Debug, Clone)]
pub enum Input {
    /// A connection says who it is.
    Hello { connection: ConnectionId, origin: PeerOrigin, hello: Box<Hello> },
    /// A member lives.
    Beat { connection: ConnectionId, number: u64 },
    /// A member's state has changed.
    SetState { connection: ConnectionId, state: MemberState },
    /// A clean leave.
    Goodbye { connection: ConnectionId },
    /// A stream broke: a silent member, not a leave.
    Lost { connection: ConnectionId },
    /// An operator knows that a process is gone.
    Leave { incarnation: String },
    /// An operator wants a gateway to drain.
    Drain { gateway: String, by: Option<Box<OrderGiver>> },
    /// Another register is active under this epoch, and is found at this address, if that is known.
    StepDown { epoch: Epoch, register: String },
    /// Time has passed.
    Tick,
}

impl Input {
    /// Which connection said it, if one did.
    pub const fn sender(&self) -> Option<ConnectionId> {
        match self {
            Self::Hello { connection, .. }
            | Self::Beat { connection, .. }
            | Self::SetState { connection, .. }
            | Self::Goodbye { connection } => Some(*connection),
            Self::Lost { .. }
            | Self::Leave { .. }
            | Self::Drain { .. }
            | Self::StepDown { .. }
            | Self::Tick => None,
        }
    }
}

/// What the ledger of a register has done.
#[derive(Debug, Clone)]
pub enum FromLedger {
    /// Another register leads, at this address; nobody does if there is none.
    Leader(Option<String>),
    /// This register leads.
    Elected(Box<Elected>),
    /// It leads until then, if it is the one that was elected at this revision.
    Renewed { guard: Guard, until: Duration },
    /// What became of a write.
    Written { guard: Guard, number: u64, outcome: CommitOutcome },
    /// It leads no more.
    Lost { guard: Guard, why: String },
}

/// At which revision of the ledger a register was elected. A write is refused if another one was since.
pub type Guard = i64;

/// An election, and what the ledger had then.
#[derive(Debug, Clone)]
pub struct Elected {
    pub guard: Guard,
    /// By this register's clock, counted from before the question.
    pub until: Duration,
    pub salt: u16,
    /// The last views, in order; none in a ledger that nobody has written to.
    pub views: Vec<Arc<View>>,
    /// The incarnations that were removed last.
    pub removed: Vec<Incarnation>,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It is committed.
    Done,
    /// Another register leads, or the ledger is not what it was.
    Refused(String),
    /// Nobody knows: it may be committed, or be so later.
    Unknown(String),
}

/// One write: all of it or nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    pub guard: Guard,
    /// In order, within one guard.
    pub number: u64,
    /// In order; at least one.
    pub views: Vec<Arc<View>>,
    /// The incarnations that were removed last, oldest first.
    pub removed: Vec<Incarnation>,
    /// Views before this one are deleted.
    pub oldest: Epoch,
}

impl Write {
    /// Of the newest view.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.views.last().and_then(|view| view.epoch).unwrap_or_default()
    }
}

/// What a register does.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write this to the ledger, and say what became of it.
    Commit(Arc<Write>),
    /// It leads no more: end every stream, and give the election of this guard up.
    Follow(Guard),
    /// To one connection.
    Reply(ConnectionId, Reply),
    /// A view that one member has missed.
    Show(ConnectionId, Arc<View>),
    /// End this connection's stream.
    Close(ConnectionId),
    /// End this connection's stream with an error.
    Refuse(ConnectionId, RegisterRefusal),
    /// A new view, to every welcomed member and every watcher.
    View(Arc<View>),
    /// To the operator whose command was applied: the first of those that wait.
    Answer(Result<OperatorAnswer, RegisterRefusal>),
    /// To the operator whose command has just come, and was not applied: others may wait before it.
    AnswerNewest(Result<OperatorAnswer, RegisterRefusal>),
    /// For logs and metrics.
    Happened(Happened),
}

/// An operator's command was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorAnswer {
    /// The view in which it shows.
    pub epoch: Epoch,
    /// Whom it was about.
    pub incarnation: Incarnation,
}

/// Why something is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterRefusal {
    /// Repeating will not help.
    #[error("{0}")]
    Invalid(String),
    /// Nobody of this name or incarnation.
    #[error("{0}")]
    NotFound(String),
    /// A limit was met.
    #[error("{0}")]
    Full(String),
    /// Another member has what this one must have alone, and is alive.
    #[error("{0}")]
    Taken(String),
    /// Not now.
    #[error("{0}")]
    Unavailable(String),
    /// Not here: another register leads, at this address if it is known.
    #[error("this register stands by{}", elsewhere(leader.as_deref()))]
    StandsBy { leader: Option<String> },
}

fn elsewhere(leader: Option<&str>) -> String {
    match leader {
        Some(leader) => format!("; the one at {leader} leads"),
        None => ", and no register leads now: try again".to_owned(),
    }
}

impl RegisterRefusal {
    /// The label of the metric.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::NotFound(_) => "not_found",
            Self::Full(_) => "full",
            Self::Taken(_) => "taken",
            Self::Unavailable(_) => "unavailable",
            Self::StandsBy { .. } => "standby",
        }
    }
}

/// Why a member is not in the view any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalReason {
    /// Not heard for a lease.
    Lease,
    /// Said goodbye.
    Leave,
    /// A newer gateway took its address.
    Replaced,
    /// An operator took it out.
    Operator,
    /// An earlier register had removed it.
    Earlier,
}

impl RemovalReason {
    /// The label of the metric.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Leave => "leave",
            Self::Replaced => "replaced",
            Self::Operator => "operator",
            Self::Earlier => "earlier",
        }
    }

    /// The sentence for the member.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Lease => LEASE_ENDED,
            Self::Leave => "said goodbye",
            Self::Replaced => "a newer gateway advertises the same address",
            Self::Operator => "an operator took it out",
            Self::Earlier => "an earlier register had removed it",
        }
    }
}

/// What logs and metrics tell.
#[derive(Debug, Clone, PartialEq)]
pub enum Happened {
    /// A new incarnation.
    Joined(Member),
    /// A known incarnation on a new connection.
    Redialled(Member),
    /// A member is gone.
    Removed(Member, RemovalReason),
    /// A view of another register was taken over.
    TookOver { from: Epoch, term: u64, members: usize },
    /// This register leads, with so many stored members.
    Led { stored: Epoch, members: usize },
    /// It leads no more.
    Deposed { why: String },
    /// A write was committed.
    Committed { took: Duration },
    /// Nobody knows what became of a write.
    WriteUnknown { why: String },
    /// A member knows a view that the ledger has not: it has lost data, or is used for the first time.
    LedgerBehind { ledger: Epoch, reported: Epoch },
    /// Another register is active under a higher term.
    SteppedDown { from: Epoch, higher: Epoch, members: usize },
}
