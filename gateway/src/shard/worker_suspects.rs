//! Events at which workers may have died.
//!
//! When a worker's stream ends, everything that it had not answered goes to other workers: any of it, or
//! none, may be the reason. What was unanswered at the end of a second stream, too, is a *suspect*: it is
//! handed out on trial, alone, while the worker gets nothing else from this gateway: one shard claims the
//! worker for its trials, and the others are *quiet*, which means that they send it nothing and that it has
//! answered all of theirs. An innocent event is answered; an event at which the worker ends alone is given up.
//! So a crash costs nothing, and an event that kills workers kills three.
//!
//! A trial does not last for ever, since an honest worker may think for long; each is longer than the one
//! before. If the worker does not answer everything else in time, a trial takes place all the same, and
//! convicts nobody. Each gateway judges for itself: what kills a worker at one gateway while another tries an
//! innocent event there convicts that. Trials begin at a shard's tick, so two gateways rarely try at the same
//! moment.

use broadgate_proto::{
    close,
    limits::{EVENT_DEATHS_FREE, EVENT_DEATHS_MAX},
    v1::{Cause, event::Event},
};

use crate::{
    codec::encode::close_code_frame,
    shard::{
        client::{Client, ClientStage},
        counters::Drop as Dropped,
        slots::Slot,
        state::Shard,
        window::UnansweredEvent,
        worker_links::{WorkerKey, WorkerLink},
        worker_trials::Trial,
    },
};

/// A shard waits so many seconds for a worker to answer everything else before a trial begins: the others see
/// within one that they are to be quiet.
const EMPTY_SECONDS: u32 = 3;

impl WorkerLink {
    /// Has the worker nothing of this gateway to answer?
    fn is_alone(&self) -> bool {
        self.unanswered.is_empty() && self.suspects.others_are_quiet()
    }

    /// A client's next event may be what workers die of: it waits for its trial.
    pub(super) fn queue_suspect(&mut self, slot: Slot, client: &mut Client) {
        if !client.in_line {
            client.in_line = true;
            self.suspects.line.push_back((slot, client.key));
        }
    }
}

impl UnansweredEvent {
    pub(super) fn is_suspect(&self) -> bool {
        self.deaths > EVENT_DEATHS_FREE
    }
}

impl Shard {
    /// Once a second: trials begin, and end that have taken too long.
    pub(super) fn try_suspects(&mut self) {
        let busy =
            |link: &WorkerLink| link.guarded || !link.suspects.line.is_empty() || link.suspects.others_try();
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
        let has_suspects = !link.suspects.line.is_empty() && !link.leaving;
        if link.suspects.others_try() || has_suspects && !link.suspects.claim() {
            link.guarded = true;
            if link.unanswered.is_empty() {
                link.suspects.be_quiet();
            }
            return;
        }
        if !has_suspects {
            return self.end_guard(key);
        }
        link.guarded = true;
        let since = *link.suspects.waiting_since.get_or_insert(second);
        if link.is_alone() || second >= since + EMPTY_SECONDS {
            self.begin_trial(key);
        }
    }

    /// The worker has answered something, and may be ready for the next trial.
    pub(super) fn go_on_trying(&mut self, key: WorkerKey) {
        let Some(link) = self.workers.get_mut(key) else { return };
        if !link.guarded || link.suspects.trial.is_some() || !link.unanswered.is_empty() {
            return;
        }
        if !link.suspects.claimed {
            return link.suspects.be_quiet();
        }
        if link.suspects.others_are_quiet() {
            self.begin_trial(key);
        }
    }

    fn begin_trial(&mut self, key: WorkerKey) {
        let (second, shard) = (self.second, self.clients.shard);
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
            let alone = link.is_alone();
            let seq = link.next_seq(shard);
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
            link.suspects.go_on();
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
    fn give_up(&mut self, slot: Slot, entry: &UnansweredEvent) {
        self.tally.drop(Dropped::WorkerKiller, 1);
        let Some(client) = self.clients.get_mut(slot) else { return };
        if let (Event::Handshake(_), ClientStage::Handshake(waiting)) = (&entry.event, &mut client.stage) {
            // Without its sender, a handshake is refused.
            waiting.take();
        }
        tracing::error!(
            client = %self.clients.id_of(slot), service = %self.clients.get(slot).map_or("", |client| &client.service),
            seq = entry.seq, bytes = entry.event.encoded_len(), workers = entry.deaths, kind = kind(&entry.event),
            "workers die of an event: dropping it and closing its client; check how the worker handles it"
        );
        let close = close::WORKER_KILLER;
        self.close_gracefully(slot, Cause::Event, close.code, close.reason, Some(close_code_frame(close)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::worker_trials::{Suspects, Trying};

    /// Two shards' suspects of one worker.
    fn two() -> [Suspects; 2] {
        let trying = Trying::new(2);
        [Suspects::new(trying.clone()), Suspects::new(trying)]
    }

    fn try_one(suspects: &mut Suspects) {
        let alone = suspects.others_are_quiet();
        suspects.trial = Some(Trial { seq: 7, until: 4, alone });
    }

    #[test]
    fn trial_convicts_only_while_every_other_shard_is_quiet() {
        let [mut one, mut other] = two();
        assert!(one.claim() && one.claim() && !other.claim() && other.others_try() && !one.others_try());
        // The other has something unanswered: that may be to blame.
        try_one(&mut one);
        assert_eq!(one.convicted(), None);
        other.be_quiet();
        assert_eq!(one.convicted(), None, "it was not alone from the beginning");
        try_one(&mut one);
        assert_eq!(one.convicted(), Some(7));
        // The stream ends for the other shard first.
        drop(other);
        assert_eq!(one.convicted(), Some(7));
    }

    #[test]
    fn shard_that_goes_on_during_a_trial_makes_it_uncertain() {
        let [mut one, mut other] = two();
        assert!(one.claim());
        other.be_quiet();
        try_one(&mut one);
        other.go_on();
        assert_eq!(one.convicted(), None);
    }

    #[test]
    fn claim_goes_from_shard_to_shard() {
        let [mut one, mut other] = two();
        assert!(one.claim() && !other.claim());
        other.be_quiet();
        one.go_on();
        assert!(!other.others_try() && other.claim() && !one.claim());
        assert!(!other.others_are_quiet(), "the first one goes on by itself");
        one.be_quiet();
        one.be_quiet();
        assert!(other.others_are_quiet());
        other.go_on();
        one.go_on();
        let court = one.trying.court();
        assert_eq!((court.quiet, court.claimed), (0, false));
    }

    #[test]
    fn single_shard_is_alone() {
        let mut only = Suspects::new(Trying::new(1));
        assert!(only.claim());
        try_one(&mut only);
        assert_eq!(only.convicted(), Some(7));
        only.answered(7);
        assert_eq!(only.convicted(), None);
    }
}
