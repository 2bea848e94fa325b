//! Parked questions: a home cannot answer them before all gateways have synced.

use std::{collections::VecDeque, time::Duration};

use broadgate_proto::id::Incarnation;

use crate::{content::Content, step::HomeOp, topic::Topic};

/// Bookkeeping of one parked question, beside its payload.
const OVERHEAD_BYTES: usize = 128;

/// The recipient of a home's reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyTarget {
    /// None.
    None,
    /// A caller of this gateway, by the number of its flight.
    Own(u64),
    /// A peer, by the number of its question.
    Peer(Incarnation, u64),
}

/// One question.
#[derive(Debug)]
pub(super) struct Question<C: Content> {
    pub(super) origin: ReplyTarget,
    pub(super) topic: Topic,
    pub(super) op: HomeOp<C>,
    /// When it came.
    pub(super) since: Duration,
}

/// A first-in first-out queue, bounded in time and size.
#[derive(Debug)]
pub(super) struct Parking<C: Content> {
    waiting: VecDeque<(Duration, Question<C>)>,
    bytes: usize,
    bytes_max: usize,
    time_max: Duration,
}

impl<C: Content> Parking<C> {
    pub(super) const fn new(bytes_max: usize, time_max: Duration) -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, bytes_max, time_max }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the question if there is no room.
    pub(super) fn park(&mut self, asked: Question<C>, now: Duration) -> Result<(), Question<C>> {
        let bytes = size(&asked);
        if self.bytes + bytes > self.bytes_max {
            return Err(asked);
        }
        self.bytes += bytes;
        self.waiting.push_back((now + self.time_max, asked));
        Ok(())
    }

    /// The next question, if the gate is open or it has waited long enough.
    pub(super) fn next(&mut self, open: bool, now: Duration) -> Option<Question<C>> {
        let (until, _) = self.waiting.front()?;
        if !open && now < *until {
            return None;
        }
        let (_, asked) = self.waiting.pop_front()?;
        self.bytes -= size(&asked);
        Some(asked)
    }

    /// Removes the questions about other topics than these, in order.
    pub(super) fn take_others(&mut self, stays: impl Fn(&Topic) -> bool) -> Vec<Question<C>> {
        let (stay, go): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(_, asked)| stays(&asked.topic));
        self.waiting = stay;
        self.bytes = self.waiting.iter().map(|(_, asked)| size(asked)).sum();
        go.into_iter().map(|(_, asked)| asked).collect()
    }
}

fn size<C: Content>(asked: &Question<C>) -> usize {
    OVERHEAD_BYTES
        + match &asked.op {
            HomeOp::Deliver(command) => C::bytes(command),
            HomeOp::Count(topics) => topics.iter().map(|topic| topic.key().len()).sum(),
            HomeOp::Roster { after, .. } => after.len(),
            HomeOp::History { .. } | HomeOp::Last | HomeOp::Inspect | HomeOp::Missed | HomeOp::Claim(_) => 0,
        }
}
