//! Types of membership and presence.

use std::{fmt::Debug, sync::Arc};

use broadgate_proto::v1::Epoch;

use crate::topic::Topic;

/// One session of a peer's link to this gateway; the shell numbers them, rising.
pub type LinkSession = u64;

/// The state of one presence member at a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberChange {
    /// The user.
    pub user: Arc<str>,
    /// The member info; none if the user's last client has left.
    pub info: Option<Arc<str>>,
}

/// A claim of a user to be present in a group with a limit of users: the group's home decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The user.
    pub user: Arc<str>,
    /// The member info.
    pub info: Arc<str>,
    /// The gateway's number for this claim: a decision about an earlier one does not apply.
    pub number: u64,
    /// The most users that may be present, this one included.
    pub max: u32,
}

/// The decision about a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecidedClaim {
    /// The user.
    pub user: Arc<str>,
    /// The claim's number.
    pub number: u64,
    /// Whether there was room, or the user was present already.
    pub granted: bool,
}

/// A join or leave of a presence member, as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceChange {
    /// The user.
    pub user: Arc<str>,
    /// The user's current or last member info.
    pub info: Arc<str>,
    /// Whether it is a join.
    pub here: bool,
}

/// A position in a topic's order: the epoch in which its home took it over, and a number that rises with
/// everything that this home places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct TopicPosition {
    /// When the home took it over.
    pub tenure: Epoch,
    /// The home's count.
    pub number: u64,
}

/// A change in a group, by its home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembershipChange {
    /// It has clients, and these are present: sent first, and when the home has taken the group over.
    Is(Vec<MemberChange>),
    /// A user has joined.
    Joined(Arc<str>, Arc<str>),
    /// A user's last client has left.
    Left(Arc<str>),
    /// Its last client has left.
    Vacated,
    /// Another gateway is its home now, and will report it.
    Moved,
}

/// A fact about a group whose home this gateway is: reported once, even if the home dies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// It has clients now and had none.
    Occupied,
    /// Its last client has left.
    Vacated,
    /// A user's first client has joined.
    Joined(Arc<str>),
    /// A user's last client has left.
    Left(Arc<str>),
    /// Its number of clients now.
    Count(u64),
    /// Another gateway is its home now, and will report it.
    Moved,
}

/// One shard's clients in a topic.
#[derive(Debug, Clone)]
pub struct MembershipCount {
    /// The topic.
    pub topic: Topic,
    /// The shard.
    pub shard: u8,
    /// How many clients the shard has in it.
    pub clients: u32,
    /// Presence members of the shard that have changed.
    pub members: Vec<PresenceCount>,
}

/// One shard's clients for one presence member of a topic.
#[derive(Debug, Clone)]
pub struct PresenceCount {
    /// The user.
    pub user: Arc<str>,
    /// The member info.
    pub info: Arc<str>,
    /// How many clients the user has there.
    pub clients: u32,
    /// The user is present only if that makes no more users than this.
    pub max: Option<u32>,
}
