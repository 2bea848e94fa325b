//! Who is in a topic, and what is told of that.

use std::{fmt::Debug, sync::Arc};

use broadgate_proto::v1::Epoch;

use crate::topic::Topic;

/// One run of a peer's stream to us; the shell numbers them, rising.
pub type Session = u64;

/// How one presence member stands at a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberChange {
    /// Who.
    pub user: Arc<str>,
    /// What others see of them; none if the last client in this name has gone.
    pub info: Option<Arc<str>>,
}

/// Somebody wants to be present in a group that holds only so many users: the group's home decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub user: Arc<str>,
    /// What others see of them.
    pub info: Arc<str>,
    /// The gateway's number for this claim: an answer to an earlier one is not taken for it.
    pub number: u64,
    /// The most users that may be present, this one included.
    pub max: u32,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Whose.
    pub user: Arc<str>,
    /// The claim's number.
    pub number: u64,
    /// Is there room, or were they present already?
    pub granted: bool,
}

/// A presence member has come or gone, as our clients are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComeOrGone {
    /// Who.
    pub user: Arc<str>,
    /// What others see, or saw, of them.
    pub info: Arc<str>,
    /// Have they come?
    pub here: bool,
}

/// A place in a topic's order: the epoch in which its home took it over, and a number that rises with
/// everything that this home places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct At {
    /// When the home took it over.
    pub tenure: Epoch,
    /// The home's count.
    pub number: u64,
}

/// What has happened in a group, by its home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupChange {
    /// It has clients, and these are present: told first, and when the home has taken the group over.
    Is(Vec<MemberChange>),
    /// Somebody has come.
    Joined(Arc<str>, Arc<str>),
    /// The last client of somebody has gone.
    Left(Arc<str>),
    /// Its last client has gone.
    Vacated,
    /// Another gateway is its home now, and will tell of it.
    Moved,
}

/// What has happened in a group whose home we are: told once, also over the home's death.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// It has clients now and had none.
    Occupied,
    /// Its last client has gone.
    Vacated,
    /// The first client in somebody's name has come.
    Came(Arc<str>),
    /// The last client in somebody's name has gone.
    Left(Arc<str>),
    /// So many clients are in it now.
    Count(u64),
    /// Another gateway is its home now, and will report of it.
    Moved,
}

/// How the clients of one shard stand in a topic now.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Which topic.
    pub topic: Topic,
    /// Which shard.
    pub shard: u8,
    /// How many clients the shard has in it.
    pub clients: u32,
    /// Presence members of the shard that have changed.
    pub members: Vec<StandingMember>,
}

/// How the clients of one shard stand for one presence member of a topic now.
#[derive(Debug, Clone)]
pub struct StandingMember {
    /// Who.
    pub user: Arc<str>,
    /// What others see of them.
    pub info: Arc<str>,
    /// How many clients stand for them.
    pub clients: u32,
    /// They are present only if that makes no more users than this.
    pub max: Option<u32>,
}
