//! From clients to workers: who gets a client's events, and in which order.

use std::{fmt::Write as _, rc::Rc, time::Instant};

use broadgate_proto::{
    events::Envelope,
    limits::EVENTS_MESSAGE_BYTES,
    v1::{self, event::Event},
};
use tokio::sync::oneshot;

use crate::{
    config::Affinity,
    shard::{
        client::ClientStage,
        clients::ShardClients,
        slots::Slot,
        state::{Shard, UnsentEvents},
        taps::event_name,
        window::{UnansweredEvent, WindowMax},
        worker_links::{WorkerKey, WorkerLink},
    },
};

impl UnsentEvents {
    /// No worker takes the client's events: it waits, unread, for `hold_time_max`.
    fn wait_for_worker(&mut self, clients: &mut ShardClients, slot: Slot, second: u32) {
        let client = clients.get_mut(slot).filter(|client| !client.events.is_empty());
        let Some(client) = client else { return };
        client.unassigned_since.get_or_insert(second);
        self.unassigned.insert(slot);
    }

    /// Clients whose events no worker has taken for so many seconds.
    pub(super) fn take_late(&mut self, clients: &ShardClients, second: u32, max: u32) -> Vec<Slot> {
        let is_late = |slot: &Slot| {
            let since = clients.get(*slot).and_then(|client| client.unassigned_since);
            since.is_some_and(|since| second.saturating_sub(since) >= max)
        };
        self.unassigned.extract_if(is_late).collect()
    }
}

impl Shard {
    /// Queues an event of a client for its worker, if its listener or app names a service.
    pub(crate) fn emit(&mut self, slot: Slot, event: Event) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.service.is_empty() {
            return;
        }
        client.events.push(event);
        self.pump(slot);
    }

    /// Sends as many of a client's events as its worker takes now.
    pub(crate) fn pump(&mut self, slot: Slot) {
        // A client that is going has no more business with workers than what is still unanswered.
        if self.clients.get(slot).is_none_or(|client| !client.is_open() && client.events.is_empty()) {
            return;
        }
        if self.clients.get(slot).is_some_and(|client| client.worker.is_none()) && !self.assign(slot) {
            self.unsent.wait_for_worker(&mut self.clients, slot, self.second);
            return;
        }
        while self.send_next(slot) {}
    }

    fn send_next(&mut self, slot: Slot) -> bool {
        let shard = self.clients.shard;
        let Some(client) = self.clients.get_mut(slot) else { return false };
        let Some(key) = client.worker else { return false };
        let Some(link) = self.workers.get_mut(key) else { return false };
        if link.leaving || client.moving {
            // Its next event goes to the successor, once the last one is answered.
            return !client.events.in_flight() && client.events.has_unsent() && self.rebind(slot);
        }
        if client.events.closes_behind_others() {
            return false;
        }
        let Some(entry) = client.events.unsent() else { return false };
        if entry.is_suspect() {
            link.queue_suspect(slot, client);
            return false;
        }
        if !link.has_credit() {
            if !client.in_line {
                client.in_line = true;
                link.line.push_back((slot, client.key));
            }
            return false;
        }
        let seq = link.next_seq(shard);
        link.times.sent(link.sent(), seq, Instant::now);
        entry.seq = Some(seq);
        link.unanswered.insert(seq, (slot, client.key));
        self.write(key, slot, seq, None);
        true
    }

    /// Writes an event of a client to a worker's batch, with what the worker learns about its client:
    /// the one of its window that has this number, or another.
    pub(super) fn write(&mut self, worker: WorkerKey, slot: Slot, seq: u64, other: Option<&Event>) {
        let id = self.clients.id_of(slot);
        let Some(client) = self.clients.get(slot) else { return };
        let Some(link) = self.workers.get_mut(worker) else { return };
        let own = client.events.sent_as(seq);
        let Some(event) = other.or_else(|| own.map(|entry| &entry.event)) else { return };
        let redelivered = own.is_some_and(UnansweredEvent::is_redelivered);
        self.tally.now.events += 1;
        self.tally.now.redelivered += u64::from(redelivered);
        self.unsent.id_text.clear();
        // A text takes whatever is written to it.
        let _ = write!(self.unsent.id_text, "{id}");
        let envelope = Envelope {
            seq,
            client_id: &self.unsent.id_text,
            app: &client.app,
            listener: &client.listener.name,
            service: &client.service,
            uid: self.directory.uid(slot).map_or(&*client.last_uid, |uid| &**uid),
            session: client.session.as_ref().map(|session| (&*session.json, session.version)),
            redelivered,
        };
        if link.batch.is_empty() {
            self.unsent.batched.push(worker);
        }
        link.batch.write(&envelope, event);
        let full = link.batch.len() >= EVENTS_MESSAGE_BYTES;
        if self.taps.is_open() {
            let (worker, name) = (Rc::clone(&link.name), event_name(event));
            self.tap_event(slot, seq, &worker, name);
        }
        self.turn.request();
        if full {
            self.send_batch(worker);
        }
    }

    pub(crate) fn send_batch(&mut self, key: WorkerKey) {
        let Some(link) = self.workers.get_mut(key).filter(|link| !link.batch.is_empty()) else { return };
        if link.out.send(link.batch.take()).is_err() {
            tracing::error!(worker = %link.name, "worker's queue is full despite unused credit: detaching it");
            self.worker_down(key);
        }
    }

    /// Gives a client a worker; false if there is none.
    fn assign(&mut self, slot: Slot) -> bool {
        let Some(picked) = self.pick(slot) else { return false };
        let Some(client) = self.clients.get_mut(slot) else { return false };
        let Some(link) = self.workers.get_mut(picked) else { return false };
        client.worker = Some(picked);
        client.moving = false;
        client.unassigned_since = None;
        link.clients += 1;
        self.unsent.unassigned.remove(&slot);
        let adopts = std::mem::replace(&mut client.had_worker, true)
            && !matches!(client.stage, ClientStage::Handshake(_));
        if adopts {
            let groups = self.directory.groups(slot).map(ToString::to_string).collect();
            client.events.push_adopted(Event::Adopted(v1::Adopted { groups }));
        }
        client.wake();
        true
    }

    fn pick(&self, slot: Slot) -> Option<WorkerKey> {
        let client = self.clients.get(slot)?;
        let affinity = &self.config.settings.affinity;
        let id = self.clients.id_of(slot).to_string();
        let key: &[u8] = match affinity {
            Affinity::Uid => self.directory.uid(slot).map_or(id.as_bytes(), |uid| uid.as_bytes()),
            Affinity::Header(_) | Affinity::Query(_) => {
                client.affinity.as_deref().map_or(id.as_bytes(), str::as_bytes)
            }
            Affinity::Client | Affinity::LeastLoaded => id.as_bytes(),
        };
        self.workers.pick(&client.service, affinity, key)
    }

    /// Takes a client from its worker and gives it to another, if there is one. Nothing of it may be
    /// unanswered.
    fn rebind(&mut self, slot: Slot) -> bool {
        let shard = self.clients.shard;
        let Some(client) = self.clients.get_mut(slot) else { return false };
        let key = client.key;
        let former = client.worker.take();
        client.moving = false;
        client.in_line = false;
        if let Some(link) = former.and_then(|former| self.workers.get_mut(former)) {
            link.clients -= 1;
            if !link.leaving {
                let seq = link.next_seq(shard);
                link.unanswered.insert(seq, (slot, key));
                if let Some(former) = former {
                    self.write(former, slot, seq, Some(&Event::Moved(v1::Moved {})));
                }
            }
        }
        if self.assign(slot) {
            return true;
        }
        self.unsent.wait_for_worker(&mut self.clients, slot, self.second);
        false
    }

    pub(crate) fn worker_up(&mut self, key: WorkerKey, link: WorkerLink) {
        self.workers.add(key, link);
        for slot in self.clients.taken() {
            self.reconsider(slot);
        }
    }

    /// After a change among the workers: who has none gets one, and who should have another gets it
    /// once nothing is unanswered.
    pub(crate) fn reconsider(&mut self, slot: Slot) {
        let keeps = self.config.settings.affinity == Affinity::LeastLoaded;
        let Some(client) = self.clients.get(slot).filter(|client| !client.service.is_empty()) else { return };
        let Some(current) = client.worker else { return self.pump(slot) };
        let leaving = self.workers.get(current).is_none_or(|link| link.leaving);
        if !leaving && (keeps || self.pick(slot) == Some(current)) {
            return;
        }
        if let Some(client) = self.clients.get_mut(slot) {
            client.moving = true;
            if !client.events.in_flight() {
                self.rebind(slot);
                self.pump(slot);
            }
        }
    }

    pub(crate) fn worker_leaving(&mut self, key: WorkerKey, released: oneshot::Sender<()>) {
        if let Some(link) = self.workers.get_mut(key) {
            link.out.release_to(released);
        }
        self.workers.set_leaving(key);
        for slot in self.clients.taken() {
            if self.clients.get(slot).is_some_and(|client| client.worker == Some(key)) {
                self.reconsider(slot);
            }
        }
        if let Some(link) = self.workers.get_mut(key) {
            link.release_if_done();
        }
    }

    /// The worker has answered events.
    pub(crate) fn answered(&mut self, key: WorkerKey, seqs: &[u64]) {
        for &seq in seqs {
            let Some(link) = self.workers.get_mut(key) else { return };
            // An unknown number is a repeated answer.
            let Some((slot, client_key)) = link.unanswered.remove(&seq) else { continue };
            if let Some(time) = link.times.answered(seq, Instant::now) {
                self.tally.worker_answer(time);
            }
            if link.suspects.is_trying() {
                link.suspects.answered(seq);
            }
            link.release_if_done();
            self.on_answer(slot, client_key, seq);
        }
        self.go_on_trying(key);
        self.serve_line(key);
    }

    fn on_answer(&mut self, slot: Slot, client_key: u64, seq: u64) {
        let max = WindowMax::of(&self.config.settings.limits);
        if self.taps.is_open() {
            self.tap_answered(slot, client_key, seq);
        }
        let Some(client) = self.clients.get_mut(slot).filter(|client| client.key == client_key) else {
            return;
        };
        let could_read = client.may_read(max);
        let event = client.events.answer(seq);
        if let (Some(Event::Handshake(_)), ClientStage::Handshake(waiting)) = (&event, &mut client.stage) {
            // An acknowledgement is no decision: dropping the sender refuses the handshake.
            waiting.take();
        }
        if !could_read && client.may_read(max) {
            client.wake();
        }
        let moves =
            client.moving || client.worker.and_then(|own| self.workers.get(own)).is_none_or(|l| l.leaving);
        if moves {
            self.reconsider(slot);
        }
        self.pump(slot);
        self.free_if_done(slot);
    }

    /// A worker has decided about a handshake.
    pub(crate) fn decided(&mut self, key: WorkerKey, seq: u64, decision: v1::decision::Decision) {
        let waiting = self.workers.get(key).and_then(|link| link.unanswered.get(&seq).copied());
        if let Some((slot, client_key)) = waiting
            && let Some(client) = self.clients.get_mut(slot).filter(|client| client.key == client_key)
            && let ClientStage::Handshake(waiting) = &mut client.stage
            && let Some(waiting) = waiting.take()
        {
            let _ = waiting.send(decision);
        }
        self.answered(key, &[seq]);
    }

    /// Clients that waited for the worker's credit go on.
    pub(super) fn serve_line(&mut self, key: WorkerKey) {
        loop {
            let Some(link) = self.workers.get_mut(key) else { return };
            if !link.has_credit() {
                return;
            }
            let Some((slot, client_key)) = link.line.pop_front() else { return };
            if let Some(client) = self.clients.get_mut(slot).filter(|client| client.key == client_key) {
                client.in_line = false;
                self.pump(slot);
            }
        }
    }
}
