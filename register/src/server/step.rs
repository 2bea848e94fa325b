//! What goes into the state machine and what comes out.

use std::{sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    v1::{Epoch, Hello, Member, MemberState, View, join_reply::Reply},
};

use super::check::Origin;

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
    Hello { connection: ConnectionId, origin: Origin, hello: Box<Hello> },
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
    Drain { gateway: String },
    /// Another register is active under this epoch, and is found at this address, if that is known.
    StepDown { epoch: Epoch, register: String },
    /// Time has passed.
    Tick,
}

impl Input {
    /// Which connection said it, if one did.
    pub const fn said_by(&self) -> Option<ConnectionId> {
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

/// What a register does.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// To one connection.
    Reply(ConnectionId, Reply),
    /// A view that one member has missed.
    Show(ConnectionId, Arc<View>),
    /// End this connection's stream.
    Close(ConnectionId),
    /// End this connection's stream with an error.
    Refuse(ConnectionId, Refusal),
    /// A new view, to every welcomed member and every watcher.
    View(Arc<View>),
    /// To the operator whose Leave or Drain was applied.
    Answer(Result<Answer, Refusal>),
    /// For logs and metrics.
    Happened(Happened),
}

/// An operator's command was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The view in which it shows.
    pub epoch: Epoch,
    /// Whom it was about.
    pub incarnation: Incarnation,
}

/// Why something is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
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
}

impl Refusal {
    /// The label of the metric.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::NotFound(_) => "not_found",
            Self::Full(_) => "full",
            Self::Taken(_) => "taken",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

/// Why a member is not in the view any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
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

impl Reason {
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
            Self::Lease => "not heard for a lease",
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
    Removed(Member, Reason),
    /// A view of another register was taken over.
    TookOver { from: Epoch, term: u64, members: usize },
    /// Another register is active under a higher term.
    SteppedDown { from: Epoch, higher: Epoch, members: usize },
}
