//! What a home has been asked and cannot answer yet, because it does not know yet who holds what.

use std::{collections::VecDeque, time::Duration};

use broadgate_proto::id::Incarnation;

use crate::{content::Content, step::Op, topic::Topic};

/// Bookkeeping of one parked question, beside its payload.
const OVERHEAD_BYTES: usize = 128;

/// To whom the home's reply goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// To nobody.
    Nobody,
    /// To a caller of this gateway, by the number of its flight.
    Own(u64),
    /// To a peer, by the number of its ask.
    Peer(Incarnation, u64),
}

/// One question.
#[derive(Debug)]
pub(super) struct Asked<C: Content> {
    pub(super) origin: Origin,
    pub(super) topic: Topic,
    pub(super) op: Op<C>,
}

/// First in, first out, within a time and a size.
#[derive(Debug)]
pub(super) struct Parking<C: Content> {
    waiting: VecDeque<(Duration, Asked<C>)>,
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

    /// Gives it back if there is no room.
    pub(super) fn park(&mut self, asked: Asked<C>, now: Duration) -> Result<(), Asked<C>> {
        let bytes = size(&asked);
        if self.bytes + bytes > self.bytes_max {
            return Err(asked);
        }
        self.bytes += bytes;
        self.waiting.push_back((now + self.time_max, asked));
        Ok(())
    }

    /// The next one: if the gate is open, or if it has waited long enough.
    pub(super) fn next(&mut self, open: bool, now: Duration) -> Option<Asked<C>> {
        let (until, _) = self.waiting.front()?;
        if !open && now < *until {
            return None;
        }
        let (_, asked) = self.waiting.pop_front()?;
        self.bytes -= size(&asked);
        Some(asked)
    }

    /// Takes out what concerns other topics than these, in order.
    pub(super) fn take_others(&mut self, stays: impl Fn(&Topic) -> bool) -> Vec<Asked<C>> {
        let (stay, go): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(_, asked)| stays(&asked.topic));
        self.waiting = stay;
        self.bytes = self.waiting.iter().map(|(_, asked)| size(asked)).sum();
        go.into_iter().map(|(_, asked)| asked).collect()
    }
}

fn size<C: Content>(asked: &Asked<C>) -> usize {
    OVERHEAD_BYTES
        + match &asked.op {
            Op::Deliver(command) => C::bytes(command),
            Op::Count(topics) => topics.iter().map(|topic| topic.key().len()).sum(),
            Op::Roster { after, .. } => after.len(),
            Op::History { .. } | Op::Last | Op::Missed | Op::Claim(_) => 0,
        }
}
