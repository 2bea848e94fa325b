//! What a shard answers to commands, and what it remembers of them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    v1::{self, answer::Answer},
};
use broadgate_topics::{Topic, remember::HeapSize};

use crate::{
    command::{CommandRefusal, EvidenceQuestion},
    shard::{counters::ShardCounts, slots::Slot},
};

/// What one shard answers to one command.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly every part is an answer, and it is moved twice")]
pub(crate) enum PartialAnswer {
    Answer(Answer),
    Stats(Stats),
    /// There is more to look at than fits a turn: these clients, by name.
    Walk(Vec<Vec<Slot>>),
    /// The one client that the command names lives in another shard.
    Elsewhere,
}

/// What one shard has done, and the topics whose members that may have changed.
#[derive(Debug)]
pub(crate) struct ShardOutcome {
    pub(crate) part: PartialAnswer,
    pub(crate) touched: Vec<Topic>,
}

/// What is kept of a command that was carried out. Nearly all are receipts that only count.
#[derive(Debug)]
pub(crate) enum Remembrance {
    Clients(u64),
    /// The session was changed; how it is now is known to the client.
    Session,
    Answer(Box<Answer>),
}

impl Remembrance {
    pub(crate) fn of(answer: &Answer) -> Self {
        match answer {
            Answer::Receipt(receipt) if receipt.drops.is_empty() => Self::Clients(receipt.clients),
            Answer::Session(_) => Self::Session,
            answer => Self::Answer(Box::new(answer.clone())),
        }
    }
}

impl HeapSize for Remembrance {
    fn heap_bytes(&self) -> usize {
        match self {
            Self::Clients(_) | Self::Session => 0,
            Self::Answer(answer) => size_of::<Answer>() + answer_bytes(answer),
        }
    }
}

/// What an answer has on the heap, roughly: only texts and lists can be large.
pub(super) fn answer_bytes(answer: &Answer) -> usize {
    const OVERHEAD_BYTES: usize = 64;
    match answer {
        Answer::Receipt(receipt) => {
            let unknown = receipt.unknown_clients.iter().map(|client| client.len() + OVERHEAD_BYTES);
            receipt.drops.len() * 2 * OVERHEAD_BYTES + unknown.sum::<usize>()
        }
        Answer::Error(error) => error.message.len() + OVERHEAD_BYTES,
        // Questions have no ids.
        _ => OVERHEAD_BYTES,
    }
}

pub(crate) fn error(refused: CommandRefusal) -> PartialAnswer {
    PartialAnswer::Answer(Answer::Error(refused))
}

pub(super) fn one() -> v1::Receipt {
    v1::Receipt { clients: 1, ..v1::Receipt::default() }
}

/// What a shard knows of its own troubles.
#[derive(Debug, Default)]
pub(crate) struct ShardEvidence {
    pub(crate) asked: Arc<EvidenceQuestion>,
    pub(crate) slow: u64,
    pub(crate) held: u64,
    pub(crate) paused: u64,
    pub(crate) outboxes_bytes: u64,
    /// In this minute and the one before.
    pub(crate) drops: Vec<(&'static str, u64)>,
    /// How long ago it was last not running, in seconds, and for how long.
    pub(crate) pause: Option<(u32, Duration)>,
    pub(crate) silent_workers: Vec<v1::SilentWorker>,
}

/// What a shard says of itself.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Its number.
    pub(crate) shard: u8,
    /// Since its start.
    pub(crate) totals: ShardCounts,
    /// CPU time of its thread.
    pub(crate) cpu: Duration,
    pub(crate) outboxes_bytes: u64,
    pub(crate) slow: u64,
    pub(crate) held: u64,
    pub(crate) paused: u64,
    pub(crate) clients: u64,
    pub(crate) messages_in_per_s: u64,
    pub(crate) messages_out_per_s: u64,
    pub(crate) workers: BTreeMap<Incarnation, v1::WorkerStatus>,
    /// If it was asked for.
    pub(crate) evidence: Option<ShardEvidence>,
}
