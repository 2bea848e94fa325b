//! The workers that a shard's clients can have. Pure: links are numbers, credit and queues.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use broadgate_proto::{events::EventsWriter, id::Incarnation, ring::Ring};

use crate::{
    config::Affinity,
    shard::{
        answer_times::AnswerTimes,
        send_times::SendTimes,
        slots::Slot,
        worker_stream::WorkerOut,
        worker_trials::{Suspects, Trying},
    },
};

/// One attached stream of one worker; a worker that attaches again gets another.
pub(crate) type WorkerKey = u64;

/// A worker's stream as one shard sees it.
pub(crate) struct WorkerLink {
    pub(crate) incarnation: Incarnation,
    pub(crate) name: Rc<str>,
    pub(crate) services: Vec<Rc<str>>,
    /// Where batches go. Every batch holds an event and events are bounded by `credit`, so a queue
    /// of that length is never full.
    pub(crate) out: WorkerOut,
    /// Events that this shard may leave unanswered.
    pub(crate) credit: usize,
    /// It has said that it leaves: nothing new goes to it.
    pub(crate) leaving: bool,
    /// Clients that have this worker.
    pub(crate) clients: usize,
    pub(crate) unanswered: HashMap<u64, (Slot, u64)>,
    pub(crate) batch: EventsWriter,
    /// Clients that wait for credit, each once.
    pub(crate) line: VecDeque<(Slot, u64)>,
    pub(crate) suspects: Suspects,
    /// While a suspect is tried, or is to be, nothing else is sent.
    pub(crate) guarded: bool,
    next: u64,
    pub(crate) times: AnswerTimes,
    /// Seconds in which it had something to answer, and answered nothing.
    pub(crate) silent_s: u32,
    /// For how many seconds its oldest unanswered event has waited.
    pub(crate) oldest_s: u32,
    /// Events that it had answered a second ago.
    answered: u64,
    sent_at: SendTimes,
}

#[derive(Default)]
pub(crate) struct Workers {
    links: HashMap<WorkerKey, WorkerLink>,
    rings: HashMap<Rc<str>, Ring>,
}

impl WorkerLink {
    pub(crate) fn new(
        incarnation: Incarnation,
        name: Rc<str>,
        services: Vec<Rc<str>>,
        credit: usize,
        out: WorkerOut,
        trying: Trying,
    ) -> Self {
        Self {
            incarnation,
            name,
            services,
            out,
            credit: credit.max(1),
            leaving: false,
            clients: 0,
            unanswered: HashMap::new(),
            batch: EventsWriter::default(),
            line: VecDeque::new(),
            suspects: Suspects::new(trying),
            guarded: false,
            next: 0,
            times: AnswerTimes::default(),
            silent_s: 0,
            oldest_s: 0,
            answered: 0,
            sent_at: SendTimes::default(),
        }
    }

    /// The number for the next event: the low byte says whose answer it will be.
    pub(crate) fn next_seq(&mut self, shard: u8) -> u64 {
        self.next += 1;
        self.next << 8 | u64::from(shard)
    }

    /// How many events were sent to it.
    pub(crate) fn sent(&self) -> u64 {
        self.next
    }

    /// May it be sent another event?
    pub(crate) fn has_credit(&self) -> bool {
        self.unanswered.len() < self.credit && !self.guarded
    }

    /// Reports that nothing is unanswered, if a drain waits for it.
    pub(crate) fn release_if_done(&mut self) {
        if self.leaving && self.unanswered.is_empty() {
            self.out.release();
        }
    }
}

/// The shard whose event this number names.
pub(crate) fn shard_of_seq(seq: u64) -> u8 {
    (seq & 0xff) as u8
}

impl Workers {
    /// Once a second: which of them answer nothing, or not everything?
    pub(crate) fn count_silence(&mut self, second: u32) {
        for link in self.links.values_mut() {
            let unanswered = link.unanswered.len() as u64;
            let answered = link.next.saturating_sub(unanswered);
            let is_silent = unanswered > 0 && answered == std::mem::replace(&mut link.answered, answered);
            link.silent_s = if is_silent { link.silent_s.saturating_add(1) } else { 0 };
            // As many as there is credit at most. The low byte of a number is the shard's.
            let oldest = link.unanswered.keys().min().map(|seq| seq >> 8);
            link.oldest_s = link.sent_at.note(second, link.next, oldest);
        }
    }

    pub(crate) fn add(&mut self, key: WorkerKey, link: WorkerLink) {
        self.links.insert(key, link);
        self.rebuild();
    }

    pub(crate) fn remove(&mut self, key: WorkerKey) -> Option<WorkerLink> {
        let link = self.links.remove(&key);
        self.rebuild();
        link
    }

    pub(crate) fn set_leaving(&mut self, key: WorkerKey) {
        if let Some(link) = self.links.get_mut(&key) {
            link.leaving = true;
        }
        self.rebuild();
    }

    pub(crate) fn get(&self, key: WorkerKey) -> Option<&WorkerLink> {
        self.links.get(&key)
    }

    pub(crate) fn get_mut(&mut self, key: WorkerKey) -> Option<&mut WorkerLink> {
        self.links.get_mut(&key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (WorkerKey, &WorkerLink)> {
        self.links.iter().map(|(&key, link)| (key, link))
    }

    /// The worker for a client of a service, by the key that its affinity names.
    pub(crate) fn pick(&self, service: &str, affinity: &Affinity, key: &[u8]) -> Option<WorkerKey> {
        if *affinity == Affinity::LeastLoaded {
            let candidates = self.takers(service);
            return candidates.min_by_key(|(key, link)| (link.clients, *key)).map(|(key, _)| key);
        }
        let wanted = self.rings.get(service)?.pick(key)?;
        // A worker that has just attached again may have two streams; the newer one is alive.
        self.takers(service).filter(|(_, link)| link.incarnation == wanted).map(|(key, _)| key).max()
    }

    fn takers(&self, service: &str) -> impl Iterator<Item = (WorkerKey, &WorkerLink)> {
        self.iter()
            .filter(move |(_, link)| !link.leaving && link.services.iter().any(|own| &**own == service))
    }

    fn rebuild(&mut self) {
        let mut nodes: HashMap<Rc<str>, Vec<Incarnation>> = HashMap::new();
        for link in self.links.values().filter(|link| !link.leaving) {
            for service in &link.services {
                nodes.entry(Rc::clone(service)).or_default().push(link.incarnation);
            }
        }
        self.rings = nodes.into_iter().map(|(service, nodes)| (service, Ring::new(nodes))).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(node: u64, services: &[&str]) -> WorkerLink {
        let services = services.iter().map(|&service| service.into()).collect();
        WorkerLink::new(
            Incarnation::from_bits(node),
            "w".into(),
            services,
            4,
            WorkerOut::new(tokio::sync::mpsc::channel(4).0),
            Trying::new(1),
        )
    }

    #[test]
    fn only_takers_of_the_service_are_picked_and_leavers_are_not() {
        let mut workers = Workers::default();
        assert_eq!(workers.pick("a", &Affinity::Client, b"k"), None);
        workers.add(1, link(1, &["a"]));
        workers.add(2, link(2, &["b"]));
        assert_eq!(workers.pick("a", &Affinity::Client, b"k"), Some(1));
        assert_eq!(workers.pick("b", &Affinity::LeastLoaded, b""), Some(2));
        workers.set_leaving(1);
        assert_eq!(workers.pick("a", &Affinity::Client, b"k"), None);
    }

    #[test]
    fn a_newer_stream_of_the_same_worker_wins() {
        let mut workers = Workers::default();
        workers.add(1, link(7, &["a"]));
        workers.add(2, link(7, &["a"]));
        assert_eq!(workers.pick("a", &Affinity::Client, b"k"), Some(2));
        workers.remove(2);
        assert_eq!(workers.pick("a", &Affinity::Client, b"k"), Some(1));
    }

    #[test]
    fn sequence_numbers_name_their_shard() {
        let mut link = link(1, &["a"]);
        let first = link.next_seq(3);
        assert_eq!(shard_of_seq(first), 3);
        assert_ne!(first, link.next_seq(3));
    }
}
