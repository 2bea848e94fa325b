//! Who came into what, and out of it; and what was not placed for whom.

use std::collections::VecDeque;

use broadgate_proto::limits::SENT_ASKED_MAX;

use crate::recorder::sends::TopicHash;

pub(super) type MoveRing = MemoryRing<MoveEntry>;
pub(super) type DropRing = MemoryRing<DropEntry>;

/// A client came to be in a topic, or is in it no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundMove {
    pub(crate) number: u64,
    pub(crate) at_ms: u64,
    pub(crate) joined: bool,
}

#[derive(Debug)]
pub(super) struct MoveEntry {
    client: u64,
    topic: TopicHash,
    at_ms: u64,
    /// Shifted by one: the last bit is whether it joined.
    number: u64,
}

const _: () = assert!(size_of::<MoveEntry>() == 32);

/// A message was not placed for a client.
#[derive(Debug)]
pub(super) struct DropEntry {
    pub(super) client: u64,
    /// The hash of its id.
    pub(super) command: u64,
    pub(super) at_ms: u64,
    pub(super) reason: &'static str,
}

const _: () = assert!(size_of::<DropEntry>() == 40);

/// Entries in a ring, with the time since when none is forgotten.
#[derive(Debug)]
pub(super) struct MemoryRing<E> {
    max: usize,
    entries: VecDeque<E>,
    since_ms: u64,
}

impl<E> MemoryRing<E> {
    pub(super) fn new(max: usize, now_ms: u64) -> Self {
        Self { max, entries: VecDeque::with_capacity(max), since_ms: if max == 0 { 0 } else { now_ms } }
    }

    pub(super) fn is_on(&self) -> bool {
        self.max > 0
    }

    /// Since when none is forgotten; 0 if none is remembered.
    pub(super) fn since_ms(&self) -> u64 {
        self.since_ms
    }

    fn push(&mut self, entry: E, at_ms: impl Fn(&E) -> u64) {
        if self.max == 0 {
            return;
        }
        if self.entries.len() == self.max
            && let Some(gone) = self.entries.pop_front()
        {
            self.since_ms = self.since_ms.max(at_ms(&gone));
        }
        self.entries.push_back(entry);
    }
}

impl MoveRing {
    pub(super) fn moved(&mut self, entry: FoundMove, client: u64, topic: TopicHash) {
        let number = entry.number << 1 | u64::from(entry.joined);
        self.push(MoveEntry { client, topic, at_ms: entry.at_ms, number }, |gone| gone.at_ms);
    }

    /// A client's newest moves in and out of a topic, the oldest of them first.
    pub(super) fn find(&self, client: u64, topic: TopicHash) -> Vec<FoundMove> {
        let is_own = |entry: &&MoveEntry| entry.client == client && entry.topic == topic;
        let found = self.entries.iter().rev().filter(is_own).take(SENT_ASKED_MAX).map(|entry| FoundMove {
            number: entry.number >> 1,
            at_ms: entry.at_ms,
            joined: entry.number & 1 == 1,
        });
        let mut found: Vec<FoundMove> = found.collect();
        found.reverse();
        found
    }
}

impl DropRing {
    pub(super) fn dropped(&mut self, entry: DropEntry) {
        self.push(entry, |gone| gone.at_ms);
    }

    /// Why a command was not placed for a client, if that is remembered.
    pub(super) fn find(&self, client: u64, command: u64) -> Option<&'static str> {
        let mut newest = self.entries.iter().rev();
        newest.find(|entry| entry.client == client && entry.command == command).map(|entry| entry.reason)
    }
}
