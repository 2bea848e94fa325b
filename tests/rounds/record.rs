//! What is written down in a round. Nothing here judges; `check` does.

use std::collections::{BTreeMap, HashSet};

/// Microseconds since the round began.
pub type Micros = u64;
/// Of a receipt: term and count.
pub type Epoch = (u64, u64);

/// A message's number: publishers one after the other, each in the order of its sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    pub publisher: u16,
    pub number: u32,
}

/// A message to one group, and every attempt to send it.
#[derive(Debug, Clone)]
pub struct Message {
    pub name: Name,
    pub group: u16,
    /// At least one.
    pub attempts: Vec<Attempt>,
}

#[derive(Debug, Clone)]
pub struct Attempt {
    pub sent: Micros,
    /// Or given up.
    pub answered: Micros,
    /// Which pipelined stream, and the place in it; none for a unary call.
    pub place: Option<(u64, u64)>,
    /// The highest epoch that went with it.
    pub carried: Epoch,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Receipt(Receipt),
    /// A gRPC status other than UNAVAILABLE.
    Refused(i32),
    /// UNAVAILABLE, a broken stream, or no answer in time.
    Unanswered,
}

/// Of a `v1::Receipt`, what is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    pub complete: bool,
    pub epoch: Epoch,
    pub clients: u64,
    /// Placed by the group's home; what was not has no promised place.
    pub ordered: bool,
    /// Some gateway had carried it out before. Told apart in the table, and no excuse: a sender in one
    /// attempt is promised the order, also if gateways repeat among themselves.
    pub repeated: bool,
}

/// One client's one connection.
#[derive(Debug, Clone)]
pub struct Connection {
    pub client: u16,
    /// The process that it was made to.
    pub pid: u32,
    pub joined: Option<Joined>,
    /// In the order in which it came.
    pub got: Vec<Name>,
    /// Until then it read.
    pub read_until: Micros,
    pub end: End,
}

/// A complete answer to a join of all the client's groups.
#[derive(Debug, Clone)]
pub struct Joined {
    pub at: Micros,
    pub epoch: Epoch,
    /// Of its gateway.
    pub incarnation: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was open when the round was over.
    Open,
    /// A close frame came.
    Code(u16),
    /// The connection broke.
    Broken,
    /// It stopped reading for good, and found this when it was over: nothing, a code, or a break.
    Stalled { closed: bool },
    /// It closed in good order.
    Closed,
    /// It cut its connection.
    Cut,
}

/// What was done to a process, by process id.
#[derive(Debug, Clone, Copy)]
pub struct Deed {
    pub pid: u32,
    pub at: Micros,
    pub kind: DeedKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeedKind {
    Killed,
    Stopped,
    Paused,
    /// Cut from the register.
    Unheard,
}

/// Every view that was heard of: the incarnations of its gateways.
#[derive(Debug, Clone, Default)]
pub struct Views(pub BTreeMap<Epoch, HashSet<String>>);

impl Views {
    /// The register's watchers see views in rising order; a register that has just been started begins
    /// lower, and what it says before it has taken over is nobody's view.
    pub fn heard(&mut self, epoch: Epoch, gateways: HashSet<String>) {
        if self.0.last_key_value().is_none_or(|(last, _)| *last < epoch) {
            self.0.insert(epoch, gateways);
        }
    }

    /// Was it in this view? None if the view was not heard of and its neighbours differ.
    pub fn holds(&self, incarnation: &str, epoch: Epoch) -> Option<bool> {
        let in_view = |(_, gateways): (_, &HashSet<String>)| gateways.contains(incarnation);
        if let Some(gateways) = self.0.get(&epoch) {
            return Some(gateways.contains(incarnation));
        }
        let before = self.0.range(..epoch).next_back().is_some_and(in_view);
        let after = self.0.range(epoch..).next().is_some_and(in_view);
        (before == after).then_some(before)
    }
}

/// A round.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub messages: Vec<Message>,
    pub connections: Vec<Connection>,
    /// By client.
    pub groups_of: Vec<Vec<u16>>,
    pub views: Views,
    pub deeds: Vec<Deed>,
    /// From when until when nothing was wrong.
    pub quiet: Vec<(Micros, Micros)>,
    /// Clients that are meant to have gone, in their own way.
    pub gone_on_purpose: HashSet<u16>,
    /// Sentences about counts that differed in the end.
    pub presence_errors: Vec<String>,
    /// Sentences about processes that ended as they should not.
    pub process_errors: Vec<String>,
}
