//! A client's socket: its task, reading and decoding. Writing is in `write.rs`; which client is read when, in
//! `read_queue.rs` and `read_budget.rs`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Context, Poll},
};

use broadgate_proto::v1::{self, Cause, event::Event, message::Payload};
use bytes::{Buf as _, Bytes};
use tokio::io::ReadBuf;

use crate::{
    codec::{Allowance, ClientInput, Protocol, encode::close_code_frame},
    observers::SaidPayload,
    shard::{
        client::{Client, ClientStage},
        counters::Drop,
        ending::EndDetails,
        slots::Slot,
        state::{SCRATCH_BYTES, Shard, ShardHandle},
        window::WindowMax,
    },
};

/// Reads of one client in a row, before others have their turn.
const READS_PER_TURN: usize = 4;
/// Frames of one client in a row: some 10 µs. A read may hold ten thousand.
const FRAMES_PER_TURN: u32 = 64;

/// What one step of reading found.
enum ReadStep {
    More,
    Wait,
}

/// The whole life of a client's socket: it is polled whenever the socket can be read or written, and
/// whenever the shard wakes it; it ends when the socket is gone.
pub(crate) fn drive(shard: ShardHandle, slot: Slot, key: u64) -> impl Future<Output = ()> {
    std::future::poll_fn(move |cx| guard(&shard, slot, key, |shard| shard.poll_client(slot, key, cx)))
}

/// A panic at one client's bytes ends this client, and no other.
fn guard(shard: &ShardHandle, slot: Slot, key: u64, poll: impl FnOnce(&mut Shard) -> Poll<()>) -> Poll<()> {
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let shard = &mut shard.borrow_mut();
        broadgate_tasks::strike_once_now("client");
        poll(shard)
    }));
    polled.unwrap_or_else(|panic| {
        broadgate_tasks::note("client", &*panic);
        shard.borrow_mut().end_panicked(slot, key);
        Poll::Ready(())
    })
}

impl Shard {
    /// Ends a client at whose bytes the shard panicked.
    fn end_panicked(&mut self, slot: Slot, key: u64) {
        // It was lent for the read: without it everybody's next read would look like the end of the stream.
        if self.reads.scratch.is_empty() {
            self.reads.scratch = vec![0; SCRATCH_BYTES].into();
        }
        if self.clients.get(slot).is_some_and(|client| client.key == key) {
            self.abort(slot, Cause::Lost, 1006, "");
        }
        self.reads.ask(&mut self.turn);
    }

    pub(super) fn poll_client(&mut self, slot: Slot, key: u64, cx: &mut Context<'_>) -> Poll<()> {
        let Some(client) = self.clients.get_mut(slot).filter(|client| client.key == key) else {
            self.reads.ask(&mut self.turn);
            return Poll::Ready(());
        };
        if !client.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            client.waker = Some(cx.waker().clone());
        }
        if !client.outbox.is_empty() || client.is_ending() {
            self.flush(slot);
        }
        let may_read = self
            .clients
            .get_mut(slot)
            .is_some_and(|client| self.reads.may_take_a_turn(slot, client, &mut self.turn));
        if may_read {
            self.read_turn(slot, cx);
        }
        let alive = self.clients.get(slot).is_some_and(|client| client.key == key && client.stream.is_some());
        if alive { Poll::Pending } else { Poll::Ready(()) }
    }

    fn read_turn(&mut self, slot: Slot, cx: &mut Context<'_>) {
        let mut allowance = Allowance::of(FRAMES_PER_TURN);
        for turn in 0.. {
            match self.read_step(slot, cx, &mut allowance) {
                ReadStep::Wait => break,
                ReadStep::More if turn == READS_PER_TURN || allowance.left == 0 => {
                    if let Some(client) = self.clients.get_mut(slot) {
                        self.reads.line_up(slot, client, &mut self.turn);
                    }
                    break;
                }
                ReadStep::More => {}
            }
        }
        self.reads.unread.take_frames(FRAMES_PER_TURN - allowance.left);
    }

    fn read_step(&mut self, slot: Slot, cx: &mut Context<'_>, allowance: &mut Allowance) -> ReadStep {
        let max = WindowMax::of(&self.config.settings.limits);
        let Some(client) = self.clients.get_mut(slot) else { return ReadStep::Wait };
        if !client.may_read(max) {
            self.reads.paused.insert(slot);
            return ReadStep::Wait;
        }
        self.reads.paused.remove(&slot);
        if client.stopped_early {
            client.stopped_early = false;
            let mut undecoded = std::mem::take(&mut client.undecoded);
            let left = self.decode(slot, &undecoded, allowance);
            undecoded.advance(undecoded.len() - left);
            self.keep(slot, undecoded);
            return ReadStep::More;
        }
        let mut scratch = std::mem::take(&mut self.reads.scratch);
        let step = self.read_socket(slot, &mut scratch, cx, allowance);
        self.reads.scratch = scratch;
        step
    }

    fn read_socket(
        &mut self,
        slot: Slot,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
        allowance: &mut Allowance,
    ) -> ReadStep {
        let second = self.second;
        let Some(client) = self.clients.get_mut(slot) else { return ReadStep::Wait };
        let Some(stream) = &mut client.stream else { return ReadStep::Wait };
        let mut buffer = ReadBuf::new(scratch);
        match stream.poll_read(cx, &mut buffer) {
            Poll::Pending => ReadStep::Wait,
            Poll::Ready(Err(_)) => {
                self.abort(slot, Cause::Lost, 1006, "");
                ReadStep::Wait
            }
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                self.on_end(slot);
                ReadStep::Wait
            }
            Poll::Ready(Ok(())) => {
                client.last_in = second;
                let filled = buffer.filled().len();
                self.reads.unread.take_bytes(filled);
                let left = self.decode(slot, &scratch[..filled], allowance);
                self.keep(slot, Bytes::copy_from_slice(&scratch[filled - left..filled]));
                // Less than asked for: the socket is empty, most likely. The next poll finds out.
                ReadStep::More
            }
        }
    }

    /// The peer has ended its stream.
    fn on_end(&mut self, slot: Slot) {
        let Some(client) = self.clients.get(slot) else { return };
        let websocket = client.protocol.is_websocket();
        match client.stage {
            ClientStage::Closing(_) => self.abort(slot, Cause::Client, 1000, ""),
            _ if websocket => self.abort(slot, Cause::Lost, 1006, ""),
            _ => self.close_gracefully(slot, Cause::Client, 1000, "", None),
        }
    }

    /// Decodes what came behind the handshake.
    pub(crate) fn decode_first(&mut self, slot: Slot, read: &[u8]) {
        let left = self.decode(slot, read, &mut Allowance::of(FRAMES_PER_TURN));
        self.keep(slot, Bytes::copy_from_slice(&read[read.len() - left..]));
    }

    /// What was read and not decoded comes first the next time.
    fn keep(&mut self, slot: Slot, undecoded: Bytes) {
        if let Some(client) = self.clients.get_mut(slot).filter(|_| !undecoded.is_empty()) {
            client.undecoded = undecoded;
        }
    }

    /// Decodes what was read, and handles each message, until the window is full or the allowance is spent;
    /// returns how many bytes are left.
    fn decode(&mut self, slot: Slot, mut input: &[u8], allowance: &mut Allowance) -> usize {
        let limits = &self.config.settings.limits;
        let (max, no_messages_max) = (WindowMax::of(limits), limits.frames_per_second_max);
        let second = self.second;
        let mut answer = Vec::new();
        let mut left = 0;
        loop {
            let Some(client) = self.clients.get_mut(slot) else { return 0 };
            if !client.may_read(max) {
                if client.is_open() {
                    client.stopped_early = true;
                    left = input.len();
                }
                break;
            }
            if client.broken {
                return 0;
            }
            let Some(codec) = &mut client.codec else { return 0 };
            let next = codec.next(&mut input, &mut answer, allowance);
            let no_messages = std::mem::take(&mut allowance.no_messages);
            if no_messages > 0
                && !client.no_messages.take_some(second, no_messages, no_messages_max)
                && client.is_open()
            {
                self.close_for_rate(slot, "frames_per_second_max");
                self.tally.drop(Drop::AfterClose, usize::from(matches!(next, Ok(Some(_)))));
                continue;
            }
            match next {
                Ok(None) => {
                    // Others have their turn first.
                    client.stopped_early = !input.is_empty();
                    left = input.len();
                    break;
                }
                Ok(Some(message)) if client.is_open() => self.on_input(slot, message, &mut answer),
                Ok(Some(ClientInput::Close(..))) => self.on_close_answered(slot),
                Ok(Some(_)) => self.tally.drop(Drop::AfterClose, 1),
                Err(violation) if client.is_open() => {
                    client.broken = true;
                    let close = violation.close_code();
                    self.close_gracefully(
                        slot,
                        Cause::Protocol,
                        close.code,
                        close.reason,
                        Some(close_code_frame(close)),
                    );
                    // Its answer could not be decoded: our side ends with the close frame (RFC 6455
                    // section 7.1.7), and the socket goes when the peer's has ended.
                    self.on_close_answered(slot);
                    return 0;
                }
                Err(_) => {
                    self.abort(slot, Cause::Protocol, 1002, "");
                    return 0;
                }
            }
        }
        // A close reply of the decoder has already gone with the farewell.
        let still_open = self.clients.get(slot).is_some_and(Client::is_open);
        if !answer.is_empty() && still_open {
            self.push_own(slot, Bytes::from(answer));
        }
        left
    }

    /// It sends more in a second than this setting allows.
    fn close_for_rate(&mut self, slot: Slot, limit: &'static str) {
        self.ending = EndDetails::of(limit);
        let close = broadgate_proto::close::TOO_MANY_MESSAGES;
        self.close_gracefully(slot, Cause::Protocol, close.code, close.reason, Some(close_code_frame(close)));
    }

    fn on_input(&mut self, slot: Slot, input: ClientInput, answer: &mut Vec<u8>) {
        let rate_max = self.config.settings.limits.messages_per_second_max;
        let second = self.second;
        let payload = match input {
            ClientInput::Close(code, reason) => {
                let reply = Bytes::from(std::mem::take(answer));
                self.close_gracefully(slot, Cause::Client, code, &reason, Some(reply));
                self.on_close_answered(slot);
                return;
            }
            ClientInput::Text(text) => Payload::Text(text),
            ClientInput::Binary(bytes) => Payload::Binary(bytes),
        };
        let len = said(&payload).bytes.len();
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.received.messages += 1;
        client.received.bytes += len as u64;
        self.tally.now.messages_in += 1;
        self.tally.now.bytes_in += len as u64;
        if !client.rate.take(second, rate_max) {
            return self.close_for_rate(slot, "messages_per_second_max");
        }
        let (is_raw, is_socketio) = (client.pusher.is_none(), client.protocol == Protocol::SocketIo);
        if self.taps.is_open() {
            self.tap_in(slot, said(&payload));
        }
        if is_raw {
            return self.emit(slot, Event::Message(v1::Message { payload: Some(payload) }));
        }
        match payload {
            Payload::Text(text) if is_socketio => self.on_socketio_text(slot, &text),
            Payload::Text(text) => self.on_pusher_text(slot, &text),
            Payload::Binary(_) if is_socketio => self.on_socketio_binary(slot),
            Payload::Binary(_) => self.on_pusher_binary(slot),
        }
    }
}

fn said(payload: &Payload) -> SaidPayload<'_> {
    match payload {
        Payload::Text(text) => SaidPayload { is_text: true, bytes: text.as_bytes() },
        Payload::Binary(bytes) => SaidPayload { is_text: false, bytes },
    }
}
