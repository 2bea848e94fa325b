//! Events at which workers may have died.
//!
//! When a worker's stream ends, everything that it had not answered goes to other workers: any of it, or
//! none, may be the reason. What was unanswered at the end of a second stream, too, is a *suspect*: it is
//! handed out on trial, alone, while the worker gets nothing else from this shard and no suspect of any
//! other shard. Whoever is innocent is answered; an event at which the worker ends alone is given up. So a
//! crash costs nothing, and an event that kills workers kills three.
//!
//! A trial does not last for ever, since an honest worker may think for long; each is longer than the one
//! before. Trials begin at the shard's tick: two gateways rarely try at the same moment.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{client::Stage, directory::Slot, state::Shard, window::Entry, workers::WorkerKey};
use crate::{codec::encode::close_code_frame, shard::tally::Drop as Dropped};
use broadgate_proto::{
    close,
    limits::{EVENT_DEATHS_FREE, EVENT_DEATHS_MAX},
    v1::{Cause, event::Event},
};

/// A shard waits so many seconds for a worker to answer everything else before a trial begins.
const EMPTY_SECONDS: u32 = 2;

/// Does any shard of the gateway try a suspect at this worker?
pub(crate) type Trying = Arc<AtomicBool>;

/// The suspects of one worker's stream at one shard.
pub(crate) struct Suspects {
    /// Clients whose next event is a suspect, each once.
    line: VecDeque<(Slot, u64)>,
    trial: Option<Trial>,
    /// Suspects whose trial was over before they were answered.
    long: Vec<u64>,
    /// Since which second suspects wait for the worker to have nothing else.
    waiting_since: Option<u32>,
    trying: Trying,
}

struct Trial {
    seq: u64,
    until: u32,
    /// The worker had nothing else of this shard.
    alone: bool,
}

impl Suspects {
    pub(crate) fn new(trying: Trying) -> Self {
        Self { line: VecDeque::new(), trial: None, long: Vec::new(), waiting_since: None, trying }
    }

    /// The event that is to blame for the end of the worker, if that is certain.
    fn convicted(&self) -> Option<u64> {
        self.trial.as_ref().filter(|trial| trial.alone && self.long.is_empty()).map(|trial| trial.seq)
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

    fn begin(&mut self) -> bool {
        !self.trying.swap(true, Ordering::AcqRel)
    }

    fn end_trial(&mut self) -> Option<u64> {
        let ended = self.trial.take()?;
        self.trying.store(false, Ordering::Release);
        Some(ended.seq)
    }
}

impl Drop for Suspects {
    fn drop(&mut self) {
        self.end_trial();
    }
}

impl Entry {
    pub(super) fn is_suspect(&self) -> bool {
        self.deaths > EVENT_DEATHS_FREE
    }
}

impl Shard {
    /// A client's next event may be what workers die of: it waits for its trial.
    pub(super) fn suspect(&mut self, worker: WorkerKey, slot: Slot) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let Some(link) = self.workers.get_mut(worker) else { return };
        if !client.in_line {
            client.in_line = true;
            link.suspects.line.push_back((slot, client.key));
        }
    }

    /// Once a second: trials begin, and end that have taken too long.
    pub(super) fn try_suspects(&mut self) {
        let busy = |link: &super::workers::Link| link.guarded || !link.suspects.line.is_empty();
        let keys: Vec<_> = self.workers.iter().filter(|(_, link)| busy(link)).map(|(key, _)| key).collect();
        for key in keys {
            self.look_at_trial(key);
        }
    }

    fn look_at_trial(&mut self, key: WorkerKey) {
        let second = self.second;
        let Some(link) = self.workers.get_mut(key) else { return };
        if let Some(trial) = &link.suspects.trial {
            if second >= trial.until {
                let long = link.suspects.end_trial();
                link.suspects.long.extend(long);
                // What has waited meanwhile goes before the next one.
                self.end_guard(key);
            }
            return;
        }
        if link.suspects.line.is_empty() {
            return self.end_guard(key);
        }
        link.guarded = true;
        let since = *link.suspects.waiting_since.get_or_insert(second);
        if link.unanswered.is_empty() || second >= since + EMPTY_SECONDS {
            self.begin_trial(key);
        }
    }

    /// The worker has answered something, and may be ready for the next trial.
    pub(super) fn go_on_trying(&mut self, key: WorkerKey) {
        let ready = self
            .workers
            .get(key)
            .is_some_and(|link| link.guarded && link.suspects.trial.is_none() && link.unanswered.is_empty());
        if ready {
            self.begin_trial(key);
        }
    }

    fn begin_trial(&mut self, key: WorkerKey) {
        let second = self.second;
        loop {
            let Some(link) = self.workers.get_mut(key) else { return };
            if link.leaving {
                return self.end_guard(key);
            }
            let Some((slot, client_key)) = link.suspects.line.pop_front() else { return self.end_guard(key) };
            let client = self.clients.get_mut(slot);
            let client = client.filter(|client| client.key == client_key && client.worker == Some(key));
            let Some(client) = client else { continue };
            client.in_line = false;
            let Some(entry) = client.events.unsent().filter(|entry| entry.is_suspect()) else {
                self.pump(slot);
                continue;
            };
            if !link.suspects.begin() {
                // Another shard tries one at this worker: the next tick looks again.
                client.in_line = true;
                link.suspects.line.push_front((slot, client_key));
                return self.end_guard(key);
            }
            let alone = link.unanswered.is_empty();
            let seq = link.next_seq(self.index);
            let until = second + (1 << entry.deaths.min(5));
            entry.seq = Some(seq);
            link.suspects.trial = Some(Trial { seq, until, alone });
            link.suspects.waiting_since = None;
            link.guarded = true;
            link.unanswered.insert(seq, (slot, client_key));
            return self.write(key, slot, seq, None);
        }
    }

    /// The worker gets what others have for it again.
    fn end_guard(&mut self, key: WorkerKey) {
        if let Some(link) = self.workers.get_mut(key) {
            link.guarded = false;
            link.suspects.waiting_since = None;
        }
        self.serve_line(key);
    }

    /// The worker's stream is gone: what it has not answered goes to another, but for an event that is to
    /// blame for it.
    pub(crate) fn worker_down(&mut self, key: WorkerKey) {
        let convicted = self.workers.remove(key).and_then(|link| link.suspects.convicted());
        for slot in self.clients.taken() {
            let Some(client) = self.clients.get_mut(slot).filter(|client| client.worker == Some(key)) else {
                continue;
            };
            client.worker = None;
            client.in_line = false;
            for entry in client.events.lost(convicted) {
                self.give_up(slot, &entry);
            }
            self.pump(slot);
            self.free_if_done(slot);
        }
    }

    /// No worker survives an event: it is not handed out any more, and its client is closed.
    fn give_up(&mut self, slot: Slot, entry: &Entry) {
        self.tally.drop(Dropped::WorkerKiller, 1);
        let Some(client) = self.clients.get_mut(slot) else { return };
        if let (Event::Handshake(_), Stage::Handshake(waiting)) = (&entry.event, &mut client.stage) {
            // Without its sender, a handshake is refused.
            waiting.take();
        }
        tracing::error!(
            client = %self.id_of(slot), service = %self.clients.get(slot).map_or("", |client| &client.service),
            seq = entry.seq, bytes = entry.event.encoded_len(), workers = entry.deaths, kind = kind(&entry.event),
            "workers die at an event: it is given up and its client closed, see what the worker does with it"
        );
        let close = close::WORKER_KILLER;
        self.let_go(slot, Cause::Event, close.code, close.reason, Some(close_code_frame(close)));
    }
}

const _: () = assert!(EVENT_DEATHS_FREE < EVENT_DEATHS_MAX);

const fn kind(event: &Event) -> &'static str {
    match event {
        Event::Handshake(_) => "handshake",
        Event::Opened(_) => "opened",
        Event::Message(_) => "message",
        Event::Closed(_) => "closed",
        Event::Adopted(_) => "adopted",
        Event::Moved(_) => "moved",
    }
}
