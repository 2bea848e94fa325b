//! What a home knows of a topic, for operators.

use std::time::Duration;

use broadgate_proto::{id::Incarnation, v1::Epoch};

/// How a topic stands at its home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInspection {
    /// The home's view.
    pub epoch: Epoch,
    /// The home.
    pub home: Incarnation,
    /// The gateway that would be the home without it.
    pub next: Option<Incarnation>,
    /// In which view it became the home, and how long ago; none if the topic has no clients.
    pub since: Option<(Epoch, Duration)>,
    /// The number of the last message that it has placed, and its age.
    pub placed: Option<(u64, Duration)>,
    /// The gateways with clients in it.
    pub clients: Vec<(Incarnation, u64)>,
    /// How many users are present.
    pub present: u64,
    /// Its history, if there is one.
    pub history: Option<HistoryInspection>,
    /// The age and the bytes of its last value.
    pub last: Option<(Duration, usize)>,
    /// Gateways that have not synced.
    pub missing: Vec<Incarnation>,
}

/// How a history stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryInspection {
    /// How many messages it has, and may have.
    pub messages: (usize, usize),
    /// The offsets of the oldest and of the newest.
    pub offsets: (u64, u64),
    /// The age of the oldest, and at which one is dropped.
    pub age: (Duration, Duration),
    /// Bytes of the commands.
    pub bytes: usize,
}
