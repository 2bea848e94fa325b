//! What callers of this gateway have asked of homes, until it is answered.
//!
//! Nothing goes to a topic's new home while something is unanswered at a former one; what was not
//! answered there is asked again, in order, under its own id.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use broadgate_proto::id::Incarnation;

use crate::{
    content::Content,
    step::{Op, Ticket},
    topic::Topic,
};

/// One question on its way.
#[derive(Debug)]
pub(super) struct Flight<C: Content> {
    pub(super) id: u64,
    pub(super) ticket: Option<Ticket>,
    pub(super) op: Op<C>,
    bytes: usize,
    /// Whom it was asked of; none if that has to be done, for the first time or again.
    to: Option<Incarnation>,
    /// When it was first asked.
    since: Duration,
    /// Since when it could not be asked of anybody.
    stuck: Duration,
}

/// What a question costs besides its texts, in bytes.
const OVERHEAD_BYTES: usize = 256;

/// What a question takes in memory.
pub(super) fn cost<C: Content>(topic: &Topic, op: &Op<C>) -> usize {
    let more = match op {
        Op::Deliver(command) => C::bytes(command),
        Op::Count(topics) => topics.iter().map(|topic| OVERHEAD_BYTES + topic.name().len()).sum(),
        Op::Roster { .. } | Op::History { .. } | Op::Last | Op::Missed | Op::Claim(_) => 0,
    };
    OVERHEAD_BYTES + topic.name().len() + more
}

/// All questions on their way.
#[derive(Debug)]
pub(super) struct Routes<C: Content> {
    topics: HashMap<Topic, VecDeque<Flight<C>>>,
    index: BTreeMap<u64, Topic>,
    bytes: usize,
    next: u64,
}

impl<C: Content> Routes<C> {
    pub(super) fn new() -> Self {
        Self { topics: HashMap::new(), index: BTreeMap::new(), bytes: 0, next: 1 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// What they take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, topic: &Topic, ticket: Option<Ticket>, op: Op<C>, now: Duration) -> u64 {
        let id = self.next;
        self.next += 1;
        let bytes = cost(topic, &op);
        self.bytes += bytes;
        let flight = Flight { id, ticket, op, bytes, to: None, since: now, stuck: now };
        self.topics.entry(topic.clone()).or_default().push_back(flight);
        self.index.insert(id, topic.clone());
        id
    }

    /// Those that may be asked of the home now, in order: all that are not asked, unless something is
    /// unanswered at another gateway.
    pub(super) fn due(&mut self, topic: &Topic, home: Incarnation) -> Vec<(u64, bool, Op<C>)> {
        let Some(flights) = self.topics.get_mut(topic) else { return Vec::new() };
        if flights.iter().any(|flight| flight.to.is_some_and(|to| to != home)) {
            return Vec::new();
        }
        let mut due = Vec::new();
        for flight in flights.iter_mut().filter(|flight| flight.to.is_none()) {
            flight.to = Some(home);
            due.push((flight.id, flight.ticket.is_some(), flight.op.clone()));
        }
        due
    }

    /// It was not the home, or not any more: to be asked again.
    pub(super) fn ask_again(&mut self, id: u64, now: Duration) -> Option<Topic> {
        let topic = self.index.get(&id)?.clone();
        let flight = self.topics.get_mut(&topic)?.iter_mut().find(|flight| flight.id == id)?;
        flight.to = None;
        flight.stuck = now;
        Some(topic)
    }

    /// It was answered, or nobody waits for it.
    pub(super) fn finish(&mut self, id: u64) -> Option<(Topic, Flight<C>)> {
        let topic = self.index.remove(&id)?;
        let flights = self.topics.get_mut(&topic)?;
        let at = flights.iter().position(|flight| flight.id == id)?;
        let flight = flights.remove(at)?;
        self.bytes -= flight.bytes;
        if flights.is_empty() {
            self.topics.remove(&topic);
        }
        Some((topic, flight))
    }

    /// What was asked of this gateway may have been lost: to be asked again.
    pub(super) fn lost(&mut self, gateway: Incarnation, now: Duration) {
        for flight in self.topics.values_mut().flatten().filter(|flight| flight.to == Some(gateway)) {
            flight.to = None;
            flight.stuck = now;
        }
    }

    /// Those that could not be asked for so long, or were not answered for so long.
    pub(super) fn late(&self, stuck: Duration, unanswered: Duration, now: Duration) -> Vec<u64> {
        let flights = self.topics.values().flatten();
        let late = flights.filter(|flight| {
            flight.to.is_none() && now >= flight.stuck + stuck || now >= flight.since + unanswered
        });
        let mut ids: Vec<_> = late.map(|flight| flight.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Every topic with something to be asked.
    pub(super) fn topics_due(&self) -> Vec<Topic> {
        let due = self.topics.iter().filter(|(_, flights)| flights.iter().any(|flight| flight.to.is_none()));
        let mut topics: Vec<_> = due.map(|(topic, _)| topic.clone()).collect();
        topics.sort_unstable();
        topics
    }
}
