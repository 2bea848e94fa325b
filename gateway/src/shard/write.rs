//! Placing messages in outboxes, and writing what outboxes hold.
//!
//! Clients with pending output are queued, at most once each. A turn writes to the first of them, then
//! handles new input, whose output is merged for clients that are still queued; the others are queued again.
//! So under load one write carries the output of a whole round, and a lone message leaves at once.

use std::{io::IoSlice, num::NonZeroU32, rc::Rc, task::Poll};

use broadgate_proto::{limits::OUTBOX_LOW_WATER_BYTES, v1::Cause};
use bytes::Bytes;

use crate::{
    codec::encode::{Frames, SharedFrame},
    shard::{
        client::{Client, ClientStage},
        clients::ShardClients,
        counters::Drop,
        ending::SlowBy,
        outbox::{Piece, SLICES_MAX},
        slots::Slot,
        state::{Outboxes, Shard},
        turn::Turn,
    },
};

/// Clients that are written to in one turn: some 200 µs.
const WRITES_PER_TURN: usize = 64;

impl Shard {
    /// Places a shared message in a client's outbox.
    pub(crate) fn place(&mut self, slot: Slot, frames: &Frames<SharedFrame>) -> Result<(), Drop> {
        let limits = &self.config.settings.limits;
        let Some(client) = self.clients.get_mut(slot).filter(|client| client.is_open()) else {
            return Err(Drop::Closing);
        };
        let Some(frame) = client.protocol.pick(frames) else {
            if self.taps.is_open() {
                self.tap_dropped(slot, Drop::Protocol, Some(frames));
            }
            return Err(Drop::Protocol);
        };
        if client.outbox.bytes() + frame.len() > limits.outbox_bytes_max
            || client.outbox.frames() >= limits.outbox_messages_max
        {
            // One message that was admitted always fits.
            if !client.outbox.is_empty() {
                return self.place_late(slot, frames);
            }
        }
        client.outbox.push(Rc::clone(frame));
        self.outboxes.waiting_frames += 1;
        client.sent.messages += 1;
        client.sent.bytes += frames.payload as u64;
        self.tally.now.messages_out += 1;
        self.tally.now.bytes_out += frames.payload as u64;
        let is_tapped = client.taps != 0;
        self.outboxes.queue(slot, client, &mut self.turn);
        if is_tapped {
            self.tap_placed(slot, frames);
        }
        Ok(())
    }

    /// A client whose outbox is full may still be queued: then the gateway is late, not the client.
    fn place_late(&mut self, slot: Slot, frames: &Frames<SharedFrame>) -> Result<(), Drop> {
        let bytes_before = self.clients.get(slot).map_or(0, |client| client.outbox.bytes());
        self.flush(slot);
        match self.clients.get(slot).filter(|client| client.is_open()) {
            Some(client) if client.outbox.bytes() < bytes_before => self.place(slot, frames),
            Some(client) => {
                if self.taps.is_open() {
                    self.tap_dropped(slot, Drop::Slow, Some(frames));
                }
                let is_many = client.outbox.frames() >= self.config.settings.limits.outbox_messages_max;
                let by = if is_many { SlowBy::Messages } else { SlowBy::Bytes };
                let refused = client.protocol.pick(frames).map(|frame| frame.len());
                self.close_slow(slot, by, refused);
                Err(Drop::Slow)
            }
            None => Err(Drop::Closing),
        }
    }

    /// Places something of the gateway's own for one client: an answer to what it said, a ping, a close
    /// frame.
    pub(crate) fn push_own(&mut self, slot: Slot, frame: Bytes) {
        if let Some(client) = self.clients.get_mut(slot) {
            client.answers = client.answers.saturating_add(u32::try_from(frame.len()).unwrap_or(u32::MAX));
        }
        self.push(slot, self.outboxes.live.frame(frame));
    }

    /// Places a frame of the gateway's own that several clients get.
    pub(crate) fn push(&mut self, slot: Slot, frame: SharedFrame) {
        let bytes_max = self.config.settings.limits.outbox_bytes_max;
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.outbox.bytes() > bytes_max && client.is_open() {
            self.close_slow(slot, SlowBy::Bytes, Some(frame.len()));
            return;
        }
        let before = client.outbox.frames();
        client.outbox.push(frame);
        self.outboxes.waiting_frames += client.outbox.frames() - before;
        self.outboxes.queue(slot, client, &mut self.turn);
    }

    /// Writes to the first in the line; who is left has the next turn.
    pub(crate) fn flush_some(&mut self) {
        for _ in 0..WRITES_PER_TURN {
            let Some(slot) = self.outboxes.dirty.pop_front() else { break };
            if let Some(client) = self.clients.get_mut(slot) {
                client.dirty = false;
                self.flush(slot);
            }
        }
        if self.outboxes.dirty.is_empty() {
            // A burst is given back.
            self.outboxes.dirty.shrink_to(1024);
        } else {
            self.turn.request();
        }
    }

    /// Writes to everybody in the line: there will be no other turn.
    pub(crate) fn flush_all(&mut self) {
        while !self.outboxes.dirty.is_empty() {
            self.flush_some();
        }
    }

    /// Writes what the socket takes. What it does not take waits for the client's own task, which the
    /// kernel wakes.
    pub(crate) fn flush(&mut self, slot: Slot) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let goes_on = if self.taps.is_open() {
            self.flush_tapped(slot)
        } else {
            self.outboxes.write(slot, client, self.second, &mut self.tally.now.writes)
        };
        if !goes_on {
            self.abort(slot, Cause::Lost, 1006, "");
        }
    }
}

impl Outboxes {
    /// The client has pending output: it is queued, unless it is already.
    pub(super) fn queue(&mut self, slot: Slot, client: &mut Client, turn: &mut Turn) {
        if !client.dirty {
            client.dirty = true;
            self.dirty.push_back(slot);
            turn.request();
        }
    }

    /// So many frames are in no outbox any more.
    pub(super) fn left(&mut self, frames: usize) {
        self.waiting_frames = self.waiting_frames.saturating_sub(frames);
    }

    /// Writes what the socket takes; false if it is broken.
    pub(super) fn write(&mut self, slot: Slot, client: &mut Client, second: u32, writes: &mut u64) -> bool {
        let Client { stream: Some(stream), outbox, waker, .. } = client else { return true };
        let before = outbox.frames();
        while !outbox.is_empty() {
            *writes += 1;
            let written = match outbox.piece(&mut self.joined) {
                Piece::One(bytes) => stream.poll_write(waker.as_ref(), bytes),
                Piece::Several => {
                    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                    let count = outbox.slices(&mut slices);
                    stream.poll_write_vectored(waker.as_ref(), &slices[..count])
                }
            };
            match written {
                Poll::Ready(Ok(written)) if written > 0 => outbox.advance(written),
                Poll::Ready(_) => {
                    self.left(before - outbox.frames());
                    return false;
                }
                Poll::Pending => break,
            }
        }
        self.left(before - outbox.frames());
        if outbox.bytes() > OUTBOX_LOW_WATER_BYTES {
            client.backlog_since.get_or_insert(NonZeroU32::new(second).unwrap_or(NonZeroU32::MIN));
            self.backlogged.insert(slot);
        } else {
            if client.backlog_since.take().is_some() {
                self.backlogged.remove(&slot);
            }
            // It takes its answers: what it says may be read again.
            if std::mem::take(&mut client.answers) as usize > OUTBOX_LOW_WATER_BYTES {
                client.wake();
            }
        }
        end_if_done(client);
        true
    }

    /// Clients whose outbox has been above its low-water mark for so many seconds.
    pub(super) fn take_slow(&mut self, clients: &ShardClients, second: u32, max: u32) -> Vec<Slot> {
        let is_slow = |slot: &Slot| {
            let since = clients.get(*slot).and_then(|client| client.backlog_since);
            since.is_some_and(|since| second.saturating_sub(since.get()) >= max)
        };
        self.backlogged.extract_if(is_slow).collect()
    }
}

/// After the farewell is written, our side ends; the peer's end, or the deadline, cuts the rest.
/// Cutting at once would make the kernel send a reset, which can overtake the close frame.
fn end_if_done(client: &mut Client) {
    if let ClientStage::Closing(farewell) = &mut client.stage
        && client.outbox.is_empty()
        && farewell.answered
        && !farewell.ended
    {
        // The client's task is woken when what has not ended can go on.
        farewell.ended = client.stream.as_mut().is_none_or(|stream| stream.end(client.waker.as_ref()));
    }
}
