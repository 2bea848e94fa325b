//! A client's socket: reading, decoding, and writing what its outbox holds.

use std::{
    io::IoSlice,
    task::{Context, Poll, Waker},
};

use broadgate_proto::v1::{self, Cause, event::Event, message::Payload};
use bytes::Bytes;
use tokio::io::ReadBuf;

use super::{
    client::{Client, Stage},
    directory::Slot,
    outbox::SLICES_MAX,
    socket::Stream,
    state::{Handle, Shard},
};
use crate::{
    codec::{
        Input,
        encode::{Frames, close_code_frame},
    },
    tally::Drop,
};

/// Reads of one client in a row, before others have their turn.
const READS_PER_TURN: usize = 4;

/// What one step of reading found.
enum Step {
    More,
    Wait,
}

/// The whole life of a client's socket: it is polled whenever the socket can be read or written, and
/// whenever the shard wakes it; it ends when the socket is gone.
pub(crate) async fn drive(shard: Handle, slot: Slot, key: u64) {
    std::future::poll_fn(|cx| shard.borrow_mut().poll_client(slot, key, cx)).await;
}

impl Shard {
    fn poll_client(&mut self, slot: Slot, key: u64, cx: &mut Context<'_>) -> Poll<()> {
        let Some(client) = self.clients.get_mut(slot).filter(|client| client.key == key) else {
            return Poll::Ready(());
        };
        if !client.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            client.waker = Some(cx.waker().clone());
        }
        if !client.outbox.is_empty() {
            self.flush(slot);
        }
        for turn in 0.. {
            match self.read_step(slot, cx) {
                Step::Wait => break,
                Step::More if turn == READS_PER_TURN => {
                    cx.waker().wake_by_ref();
                    break;
                }
                Step::More => {}
            }
        }
        let alive = self.clients.get(slot).is_some_and(|client| client.key == key && client.stream.is_some());
        if alive { Poll::Pending } else { Poll::Ready(()) }
    }

    fn read_step(&mut self, slot: Slot, cx: &mut Context<'_>) -> Step {
        let events_max = self.config.settings.limits.events_per_client_max;
        let Some(client) = self.clients.get_mut(slot) else { return Step::Wait };
        if !client.may_read(events_max) {
            self.paused.insert(slot);
            return Step::Wait;
        }
        self.paused.remove(&slot);
        if client.stopped_early {
            client.stopped_early = false;
            let undecoded = std::mem::take(&mut client.undecoded);
            self.decode(slot, &undecoded);
            return Step::More;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let step = self.read_socket(slot, &mut scratch, cx);
        self.scratch = scratch;
        step
    }

    fn read_socket(&mut self, slot: Slot, scratch: &mut [u8], cx: &mut Context<'_>) -> Step {
        let second = self.second;
        let Some(client) = self.clients.get_mut(slot) else { return Step::Wait };
        let Some(stream) = &mut client.stream else { return Step::Wait };
        let mut buffer = ReadBuf::new(scratch);
        match stream.poll_read(cx, &mut buffer) {
            Poll::Pending => Step::Wait,
            Poll::Ready(Err(_)) => {
                self.cut(slot, Cause::Lost, 1006, "");
                Step::Wait
            }
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                self.on_end(slot);
                Step::Wait
            }
            Poll::Ready(Ok(())) => {
                client.last_in = second;
                let filled = buffer.filled().len();
                self.decode(slot, &scratch[..filled]);
                // Less than asked for: the socket is empty, most likely. The next poll finds out.
                Step::More
            }
        }
    }

    /// The peer has ended its stream.
    fn on_end(&mut self, slot: Slot) {
        let Some(client) = self.clients.get(slot) else { return };
        let websocket = client.codec.as_ref().is_some_and(|codec| codec.is_websocket());
        match client.stage {
            Stage::Closing(_) => self.cut(slot, Cause::Client, 1000, ""),
            _ if websocket => self.cut(slot, Cause::Lost, 1006, ""),
            _ => self.let_go(slot, Cause::Client, 1000, "", None),
        }
    }

    /// Decodes what was read, and handles each message, until the window is full.
    pub(crate) fn decode(&mut self, slot: Slot, mut input: &[u8]) {
        let events_max = self.config.settings.limits.events_per_client_max;
        let mut answer = Vec::new();
        loop {
            let Some(client) = self.clients.get_mut(slot) else { return };
            if !client.may_read(events_max) {
                if client.is_open() {
                    client.stopped_early = true;
                    client.undecoded = input.to_vec();
                }
                break;
            }
            if client.broken {
                return;
            }
            let Some(codec) = &mut client.codec else { return };
            match codec.next(&mut input, &mut answer) {
                Ok(None) => break,
                Ok(Some(message)) if client.is_open() => self.on_input(slot, message, &mut answer),
                Ok(Some(Input::Close(..))) => self.on_close_answered(slot),
                Ok(Some(_)) => self.tally.drop(Drop::AfterClose, 1),
                Err(violation) if client.is_open() => {
                    client.broken = true;
                    let close = violation.close_code();
                    tracing::debug!(client = %self.id_of(slot), reason = violation.reason(), "client broke its protocol");
                    self.let_go(
                        slot,
                        Cause::Protocol,
                        close.code,
                        close.reason,
                        Some(close_code_frame(close)),
                    );
                    return;
                }
                Err(_) => {
                    self.cut(slot, Cause::Protocol, 1002, "");
                    return;
                }
            }
        }
        // A close reply of the decoder has already gone with the farewell.
        let still_open = self.clients.get(slot).is_some_and(Client::is_open);
        if !answer.is_empty() && still_open {
            self.push_own(slot, Bytes::from(answer));
        }
    }

    fn on_input(&mut self, slot: Slot, input: Input, answer: &mut Vec<u8>) {
        let rate_max = self.config.settings.limits.messages_per_second_max;
        let second = self.second;
        let Some(client) = self.clients.get_mut(slot) else { return };
        let payload = match input {
            Input::Close(code, reason) => {
                let reply = Bytes::from(std::mem::take(answer));
                self.let_go(slot, Cause::Client, code, &reason, Some(reply));
                self.on_close_answered(slot);
                return;
            }
            Input::Text(text) => Payload::Text(text),
            Input::Binary(bytes) => Payload::Binary(bytes),
        };
        let len = match &payload {
            Payload::Text(text) => text.len(),
            Payload::Binary(bytes) => bytes.len(),
        };
        client.traffic.messages_in += 1;
        client.traffic.bytes_in += len as u64;
        self.tally.now.messages_in += 1;
        self.tally.now.bytes_in += len as u64;
        if !client.rate.take(second, rate_max) {
            let close = broadgate_proto::close::TOO_MANY_MESSAGES;
            self.let_go(slot, Cause::Protocol, close.code, close.reason, Some(close_code_frame(close)));
            return;
        }
        if client.pusher.is_none() {
            return self.emit(slot, Event::Message(v1::Message { payload: Some(payload) }));
        }
        match payload {
            Payload::Text(text) => self.on_pusher_text(slot, &text),
            Payload::Binary(_) => self.on_pusher_binary(slot),
        }
    }

    /// Places a shared message in a client's outbox; false if the client could not take it.
    pub(crate) fn place(&mut self, slot: Slot, frames: &Frames) -> Result<(), Drop> {
        let limits = &self.config.settings.limits;
        let Some(client) = self.clients.get_mut(slot).filter(|client| client.is_open()) else {
            return Err(Drop::Closing);
        };
        let frame = client.codec.as_ref().and_then(|codec| codec.pick(frames)).ok_or(Drop::Protocol)?;
        let outbox = &mut client.outbox;
        if outbox.bytes() + frame.len() > limits.outbox_bytes_max
            || outbox.frames() >= limits.outbox_messages_max
        {
            self.close_slow(slot);
            return Err(Drop::Slow);
        }
        outbox.push(frame.clone());
        client.traffic.messages_out += 1;
        client.traffic.bytes_out += frames.payload as u64;
        self.tally.now.messages_out += 1;
        self.tally.now.bytes_out += frames.payload as u64;
        self.mark_dirty(slot);
        Ok(())
    }

    /// Places something of the gateway's own: a pong, a ping, a close frame.
    pub(crate) fn push_own(&mut self, slot: Slot, frame: Bytes) {
        let bytes_max = self.config.settings.limits.outbox_bytes_max;
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.outbox.bytes() > bytes_max && client.is_open() {
            self.close_slow(slot);
            return;
        }
        client.outbox.push(frame);
        self.mark_dirty(slot);
    }

    pub(crate) fn mark_dirty(&mut self, slot: Slot) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        if !client.dirty {
            client.dirty = true;
            self.dirty.push(slot);
            self.ask_turn();
        }
    }

    /// Writes what the socket takes. What it does not take waits for the client's own task, which the
    /// kernel wakes.
    pub(crate) fn flush(&mut self, slot: Slot) {
        let second = self.second;
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.dirty = false;
        let Some(stream) = &mut client.stream else { return };
        let waker = client.waker.clone();
        let mut cx = Context::from_waker(waker.as_ref().unwrap_or(Waker::noop()));
        while !client.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = client.outbox.slices(&mut slices);
            self.tally.now.writes += 1;
            match stream.poll_write(&mut cx, &slices[..count]) {
                Poll::Ready(Ok(written)) if written > 0 => client.outbox.advance(written),
                Poll::Ready(_) => return self.cut(slot, Cause::Lost, 1006, ""),
                Poll::Pending => break,
            }
        }
        if client.outbox.bytes() > broadgate_proto::limits::OUTBOX_LOW_WATER_BYTES {
            client.backlog_since.get_or_insert(second);
            self.backlogged.insert(slot);
        } else if client.backlog_since.take().is_some() {
            self.backlogged.remove(&slot);
        }
        if client.outbox.is_empty() {
            end_if_done(client, stream_end(&mut cx));
        }
    }

    pub(crate) fn id_of(&self, slot: Slot) -> broadgate_proto::id::ClientId {
        self.id(slot, self.clients.get(slot).map_or(0, |client| client.key))
    }
}

/// How to end our side of a stream.
fn stream_end<'a>(cx: &'a mut Context<'_>) -> impl FnOnce(&mut Stream) + 'a {
    |stream| {
        let _ = stream.poll_shutdown(cx);
    }
}

/// After the farewell is written, our side ends; the peer's end, or the deadline, cuts the rest.
/// Cutting at once would make the kernel send a reset, which can overtake the close frame.
fn end_if_done(client: &mut Client, end: impl FnOnce(&mut Stream)) {
    if let Stage::Closing(farewell) = &mut client.stage
        && farewell.answered
        && !farewell.ended
    {
        farewell.ended = true;
        if let Some(stream) = &mut client.stream {
            end(stream);
        }
    }
}
