//! Dispatches commands: which shards and peers a command concerns, its place in the order, its merged answer.
//!
//! A command to one topic goes to the topic's home, which orders it (`via_home`). Everything else is placed,
//! one batch after the other, into the mailboxes of the shards and the queues of the peer links; both
//! keep order, so at any one client a caller's commands take effect in the order in which the caller
//! issued them. Answers are awaited separately.

mod command_ids;
mod dispatcher;
mod evidence;
mod in_flight;
mod installed;
mod latencies;
mod pending;
mod removed;
mod route;
mod status;
mod trace;
pub(crate) mod upcalls;
mod via_home;

pub(crate) use self::{
    dispatcher::Dispatcher, evidence::EvidenceSource, latencies::Latencies, pending::PlacedBatch,
};

pub(crate) use self::installed::Installed;
