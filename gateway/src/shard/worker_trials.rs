//! Trials of events at which workers may have died, as the shards of a gateway share them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::shard::slots::Slot;

/// The trials of one worker's stream, as the shards of the gateway share them. Looked at once a second, and
/// while there are suspects.
#[derive(Clone)]
pub(crate) struct Trying(pub(super) Arc<Mutex<Court>>);

pub(super) struct Court {
    pub(super) shards: usize,
    /// A shard tries suspects, or is about to.
    pub(super) claimed: bool,
    /// Shards that send nothing and have nothing unanswered. What a shard had when the stream ended stays: the
    /// one that tries may look later.
    pub(super) quiet: usize,
}

impl Trying {
    pub(crate) fn new(shards: usize) -> Self {
        Self(Arc::new(Mutex::new(Court { shards, claimed: false, quiet: 0 })))
    }

    pub(super) fn court(&self) -> MutexGuard<'_, Court> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The suspects of one worker's stream at one shard.
pub(crate) struct Suspects {
    /// Clients whose next event is a suspect, each once.
    pub(super) line: VecDeque<(Slot, u64)>,
    pub(super) trial: Option<Trial>,
    /// Suspects whose trial was over before they were answered.
    pub(super) long: Vec<u64>,
    /// Since which second suspects wait for the worker to have nothing else.
    pub(super) waiting_since: Option<u32>,
    pub(super) trying: Trying,
    /// This shard has claimed the worker.
    pub(super) claimed: bool,
    /// This shard is quiet while another tries.
    pub(super) quiet: bool,
}

pub(super) struct Trial {
    pub(super) seq: u64,
    pub(super) until: u32,
    /// The worker had nothing else of this gateway.
    pub(super) alone: bool,
}

impl Suspects {
    pub(crate) fn new(trying: Trying) -> Self {
        let (line, long) = (VecDeque::new(), Vec::new());
        Self { line, trial: None, long, waiting_since: None, trying, claimed: false, quiet: false }
    }

    /// The event that is to blame for the end of the worker, if that is certain.
    pub(super) fn convicted(&self) -> Option<u64> {
        let certain = |trial: &&Trial| trial.alone && self.long.is_empty() && self.others_are_quiet();
        self.trial.as_ref().filter(certain).map(|trial| trial.seq)
    }

    pub(crate) fn answered(&mut self, seq: u64) {
        if self.trial.as_ref().is_some_and(|trial| trial.seq == seq) {
            self.end_trial();
        }
        self.long.retain(|long| *long != seq);
    }

    /// Is there any trial whose answer matters?
    pub(crate) fn is_trying(&self) -> bool {
        self.trial.is_some() || !self.long.is_empty()
    }

    /// Claims the worker for the trials of this shard; false if another shard has.
    pub(super) fn claim(&mut self) -> bool {
        if !self.claimed {
            let mut court = self.trying.court();
            if court.claimed {
                return false;
            }
            court.claimed = true;
            court.quiet -= usize::from(self.quiet);
            (self.claimed, self.quiet) = (true, false);
        }
        true
    }

    pub(super) fn others_try(&self) -> bool {
        !self.claimed && self.trying.court().claimed
    }

    pub(super) fn others_are_quiet(&self) -> bool {
        let court = self.trying.court();
        court.quiet + 1 >= court.shards
    }

    pub(super) fn be_quiet(&mut self) {
        if !self.quiet {
            self.quiet = true;
            self.trying.court().quiet += 1;
        }
    }

    /// The worker gets what this shard has for it again.
    pub(super) fn go_on(&mut self) {
        if self.claimed || self.quiet {
            let mut court = self.trying.court();
            court.quiet -= usize::from(self.quiet);
            court.claimed &= !self.claimed;
        }
        (self.claimed, self.quiet) = (false, false);
        self.waiting_since = None;
    }

    pub(super) fn end_trial(&mut self) -> Option<u64> {
        self.trial.take().map(|ended| ended.seq)
    }
}

impl Drop for Suspects {
    /// Others may claim the worker. Quiet is what the shard was: the one that tries may look later.
    fn drop(&mut self) {
        if self.claimed {
            self.trying.court().claimed = false;
        }
    }
}
