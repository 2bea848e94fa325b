//! Questions of this gateway's callers to homes, until they are answered.
//!
//! Nothing goes to a topic's new home while a former one owes an answer; what the former one has not answered
//! is asked again, in order, under its own id.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use broadgate_proto::id::Incarnation;

use crate::{
    content::Content,
    step::{HomeOp, Ticket},
    topic::Topic,
};

/// One question in flight.
#[derive(Debug)]
pub(super) struct RoutedQuestion<C: Content> {
    pub(super) id: u64,
    pub(super) ticket: Option<Ticket>,
    pub(super) op: HomeOp<C>,
    bytes: usize,
    /// The gateway that was asked; none if it has to be asked, for the first time or again.
    to: Option<Incarnation>,
    /// When it was first asked.
    since: Duration,
    /// Since when no home was reachable for it.
    stuck: Duration,
}

/// The overhead of a question besides its texts, in bytes.
const OVERHEAD_BYTES: usize = 256;

/// A question's size in memory.
pub(super) fn cost<C: Content>(topic: &Topic, op: &HomeOp<C>) -> usize {
    let more = match op {
        HomeOp::Deliver(command) => C::bytes(command),
        HomeOp::Count(topics) => topics.iter().map(|topic| OVERHEAD_BYTES + topic.name().len()).sum(),
        HomeOp::Roster { .. }
        | HomeOp::History { .. }
        | HomeOp::Last
        | HomeOp::Inspect
        | HomeOp::Missed
        | HomeOp::Claim(_) => 0,
    };
    OVERHEAD_BYTES + topic.name().len() + more
}

/// All questions in flight.
#[derive(Debug)]
pub(super) struct QuestionRoutes<C: Content> {
    topics: HashMap<Topic, VecDeque<RoutedQuestion<C>>>,
    index: BTreeMap<u64, Topic>,
    bytes: usize,
    next: u64,
}

impl<C: Content> QuestionRoutes<C> {
    pub(super) fn new() -> Self {
        Self { topics: HashMap::new(), index: BTreeMap::new(), bytes: 0, next: 1 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Their size in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, topic: &Topic, ticket: Option<Ticket>, op: HomeOp<C>, now: Duration) -> u64 {
        let id = self.next;
        self.next += 1;
        let bytes = cost(topic, &op);
        self.bytes += bytes;
        let flight = RoutedQuestion { id, ticket, op, bytes, to: None, since: now, stuck: now };
        self.topics.entry(topic.clone()).or_default().push_back(flight);
        self.index.insert(id, topic.clone());
        id
    }

    /// The questions that may go to the home now, in order: all that have not been asked, unless another
    /// gateway owes an answer.
    pub(super) fn due(&mut self, topic: &Topic, home: Incarnation) -> Vec<(u64, bool, HomeOp<C>)> {
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

    /// The gateway was not the home: ask again.
    pub(super) fn ask_again(&mut self, id: u64, now: Duration) -> Option<Topic> {
        let topic = self.index.get(&id)?.clone();
        let flight = self.topics.get_mut(&topic)?.iter_mut().find(|flight| flight.id == id)?;
        flight.to = None;
        flight.stuck = now;
        Some(topic)
    }

    /// The question is answered, or given up.
    pub(super) fn finish(&mut self, id: u64) -> Option<(Topic, RoutedQuestion<C>)> {
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

    /// The questions to this gateway may be lost: ask again.
    pub(super) fn lost(&mut self, gateway: Incarnation, now: Duration) {
        for flight in self.topics.values_mut().flatten().filter(|flight| flight.to == Some(gateway)) {
            flight.to = None;
            flight.stuck = now;
        }
    }

    /// The questions that had no reachable home for `stuck`, or no answer for `unanswered`.
    pub(super) fn late(&self, stuck: Duration, unanswered: Duration, now: Duration) -> Vec<u64> {
        let flights = self.topics.values().flatten();
        let late = flights.filter(|flight| {
            flight.to.is_none() && now >= flight.stuck + stuck || now >= flight.since + unanswered
        });
        let mut ids: Vec<_> = late.map(|flight| flight.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Every topic with a question to ask.
    pub(super) fn topics_due(&self) -> Vec<Topic> {
        let due = self.topics.iter().filter(|(_, flights)| flights.iter().any(|flight| flight.to.is_none()));
        let mut topics: Vec<_> = due.map(|(topic, _)| topic.clone()).collect();
        topics.sort_unstable();
        topics
    }
}
