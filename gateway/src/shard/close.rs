//! How a client goes: in good order with a farewell, or cut.

use std::rc::Rc;

use broadgate_proto::{
    close,
    id::{ClientId, Incarnation},
    limits::ENDED_GROUPS_MAX,
    v1::{self, Cause, event::Event},
};
use bytes::Bytes;

use crate::{
    codec::{
        Protocol,
        encode::{EMPTY_CLOSE_FRAME, close_code_frame, close_frame},
    },
    config::Config,
    recorder::{ClientEnd, EndPlace, LoudestGroup},
    refusals::now_ms,
    shard::{
        client::{Client, ClientStage, ClosePhase},
        counters::Drop,
        ending::{ClosingEnd, EndDetails, RejoinCause, SlowBy},
        slots::Slot,
        socket::Stream,
        state::Shard,
    },
};

impl Shard {
    /// Takes a client out of the directory, tells its worker, and places the farewell behind what
    /// its outbox holds. The socket follows when that is written and answered, or at the deadline.
    pub(crate) fn close_gracefully(
        &mut self,
        slot: Slot,
        cause: Cause,
        code: u16,
        reason: &str,
        farewell: Option<Bytes>,
    ) {
        let until = self.second + close_seconds(&self.config);
        let Some(client) = self.clients.get_mut(slot).filter(|client| client.is_open()) else { return };
        // Only WebSocket peers answer a close.
        let websocket = client.protocol.is_websocket();
        client.enter(ClientStage::Closing(ClosePhase { until, answered: !websocket, ended: false }));
        let protocol = client.protocol;
        let pusher = client.pusher.as_ref().filter(|_| protocol == Protocol::Pusher);
        let own = pusher.and_then(|_| broadgate_pusher::close::for_cause(cause));
        let (code, reason) = own.map_or((code, reason), |close| (close.code, close.reason));
        // Where the server of Socket.IO closes, too, it does so without a code.
        let is_bare =
            protocol == Protocol::SocketIo && matches!(cause, Cause::Silent | Cause::Drain | Cause::Command);
        let farewell = match own {
            Some(close) => farewell.map(|_| close_frame(close.code, close.reason)),
            None if is_bare => farewell.map(|_| EMPTY_CLOSE_FRAME),
            None => farewell,
        };
        let before = (client.outbox.frames(), client.outbox.bytes());
        // A command is for good. After every other close a client connects again.
        if protocol == Protocol::SocketIo && cause == Cause::Command {
            self.say_disconnected(slot);
        }
        if let Some(frame) = farewell.filter(|_| websocket) {
            self.push_own(slot, frame);
        }
        let recorded = self.forget(slot, cause, code, reason);
        if let Some(client) = self.clients.get_mut(slot) {
            let (frames, bytes) = (client.outbox.frames(), client.outbox.bytes());
            let farewell = (frames.saturating_sub(before.0), bytes.saturating_sub(before.1));
            // What a slow client does not get is counted already.
            let recorded = recorded.filter(|_| cause != Cause::Slow);
            self.closing.insert(slot, ClosingEnd { recorded, farewell });
            self.outboxes.queue(slot, client, &mut self.turn);
            client.wake();
        }
    }

    /// Cuts the connection now; what is unsent is lost.
    pub(crate) fn abort(&mut self, slot: Slot, cause: Cause, code: u16, reason: &str) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let was_open = client.is_open();
        let waiting = (client.outbox.frames(), client.outbox.bytes());
        if was_open {
            self.ending.unsent = (waiting.0 as u64, waiting.1 as u64);
        }
        self.tally.drop(Drop::Unsent, client.outbox.frames());
        self.outboxes.left(client.outbox.frames());
        client.outbox = super::outbox::Outbox::default();
        client.stream = None;
        client.codec = None;
        client.admitted = None;
        client.enter(ClientStage::Gone);
        client.wake();
        client.waker = None;
        if let Some(ClosingEnd { recorded: Some(place), farewell }) = self.closing.remove(&slot) {
            let unsent = (waiting.0.saturating_sub(farewell.0), waiting.1.saturating_sub(farewell.1));
            self.ends.add_unsent(&place, (unsent.0 as u64, unsent.1 as u64));
        }
        self.outboxes.backlogged.remove(&slot);
        self.reads.paused.remove(&slot);
        if was_open {
            self.forget(slot, cause, code, reason);
        }
        self.free_if_done(slot);
    }

    /// The peer has answered our close, or we its.
    pub(crate) fn on_close_answered(&mut self, slot: Slot) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        if let ClientStage::Closing(farewell) = &mut client.stage {
            farewell.answered = true;
            self.outboxes.queue(slot, client, &mut self.turn);
        }
    }

    /// The client does not take what is sent to it: what it has not begun to take is dropped, so that
    /// the close code may still reach it. `refused` is the message for which there was no room, in bytes.
    pub(crate) fn close_slow(&mut self, slot: Slot, by: SlowBy, refused: Option<usize>) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let before = (client.outbox.frames(), client.outbox.bytes());
        let sealed = client.stream.as_ref().map_or(0, Stream::begun);
        client.outbox.keep_begun(sealed);
        let dropped = before.0 - client.outbox.frames();
        if client.is_open() {
            // Also what was begun: somebody who does not read will hardly take the rest.
            let (frames, bytes) = (before.0 + refused.iter().len(), before.1 + refused.unwrap_or_default());
            self.ending = EndDetails { limit: by.limit(), unsent: (frames as u64, bytes as u64) };
        }
        self.outboxes.left(dropped);
        self.tally.drop(by.reason(), dropped);
        let close = close::SLOW;
        self.close_gracefully(slot, Cause::Slow, close.code, close.reason, Some(close_code_frame(close)));
    }

    /// Lets every client go in slices: as many now as leave none at the end. `why` says that the gateway was removed from
    /// the cluster.
    pub(crate) fn close_slice(&mut self, slices_left: usize, why: Option<RejoinCause>) {
        let open: Vec<Slot> =
            self.clients.iter().filter(|(_, client)| client.is_open()).map(|(slot, _)| slot).collect();
        let now = open.len().div_ceil(slices_left.max(1));
        let close = close::COME_BACK;
        for slot in open.into_iter().take(now) {
            self.ending = EndDetails::of(why.map_or("", RejoinCause::label));
            self.close_gracefully(
                slot,
                Cause::Drain,
                close.code,
                close.reason,
                Some(close_code_frame(close)),
            );
        }
    }

    /// This gateway is another incarnation now. Workers hear from the view that the clients of the
    /// former one are lost, and must not hear of them under ids that were never theirs.
    pub(crate) fn reset_incarnation(&mut self, incarnation: Incarnation) {
        for slot in self.clients.taken() {
            if let Some(client) = self.clients.get_mut(slot) {
                client.events.clear();
                client.service = "".into();
            }
            self.free_if_done(slot);
        }
        self.clients.incarnation = incarnation;
    }

    /// A client is no longer one: out of the directory, and its worker hears of it after everything
    /// else that the client did.
    fn forget(&mut self, slot: Slot, cause: Cause, code: u16, reason: &str) -> Option<EndPlace> {
        self.tally.close(cause);
        let uid = self.directory.uid(slot).cloned();
        let loudest = if cause == Cause::Slow { self.directory.loudest(slot, self.second) } else { None };
        self.forget_socketio(slot);
        let taps = if self.taps.is_open() { self.taps_of(slot, None) } else { 0 };
        let groups = self.directory.exit(slot);
        self.turn.request();
        let id = self.clients.id_of(slot);
        if let Some(client) = self.clients.get_mut(slot) {
            let command = self.executed.commanded.as_deref().filter(|_| cause == Cause::Command);
            client.log_end(id, uid.as_deref(), (cause, code, reason), command.map(|command| &*command.id));
            client.last_uid = uid.as_deref().unwrap_or_default().into();
        }
        if taps != 0 {
            self.tap_closed(taps, slot, (cause, code, reason));
        }
        let recorded = self.record_end(slot, id, (cause, code, reason), uid, &groups, loudest);
        let groups = groups.iter().map(ToString::to_string).collect();
        let closed = v1::Closed { cause: cause.into(), code: code.into(), reason: reason.to_owned(), groups };
        self.offers.closed(&self.clients, slot, &closed, &mut self.turn);
        self.emit(slot, Event::Closed(closed));
        recorded
    }

    /// For operators who ask why.
    fn record_end(
        &mut self,
        slot: Slot,
        client_id: ClientId,
        (cause, code, reason): (Cause, u16, &str),
        uid: Option<Rc<str>>,
        groups: &[Rc<str>],
        loudest: Option<LoudestGroup>,
    ) -> Option<EndPlace> {
        let EndDetails { limit, mut unsent } = std::mem::take(&mut self.ending);
        let client = self.clients.get(slot).filter(|_| self.ends.keeps(cause))?;
        if let Some(pending) = &client.pending {
            let (messages, bytes) = pending.waiting();
            unsent = (unsent.0 + messages, unsent.1 + bytes);
        }
        let command = self.executed.commanded.as_ref().filter(|_| cause == Cause::Command);
        let worker = client.worker.and_then(|key| self.workers.get(key));
        let since = |second: u32| self.second.saturating_sub(second);
        self.ends.record(ClientEnd {
            client: client_id,
            app: Rc::clone(&client.app),
            uid,
            listener: client.listener.name.as_str().into(),
            protocol: client.protocol.name(),
            address: client.address,
            opened_at_ms: client.opened_at_ms,
            ended_at_ms: now_ms(),
            cause,
            code,
            reason: reason.into(),
            limit: if limit.is_empty() { client.limit_of(cause, code) } else { limit },
            command: command.cloned(),
            groups: groups.iter().take(ENDED_GROUPS_MAX).cloned().collect(),
            groups_total: u32::try_from(groups.len()).unwrap_or(u32::MAX),
            unsent,
            backlog_s: client.backlog_since.map_or(0, |second| since(second.get())),
            silent_s: since(client.last_in),
            worker: worker.map(|link| Rc::clone(&link.name)),
            unanswered: u32::try_from(client.events.len()).unwrap_or(u32::MAX),
            received: (client.received.messages, client.received.bytes),
            sent: (client.sent.messages, client.sent.bytes),
            loudest: loudest.map(Box::new),
        })
    }

    /// A slot is free once its socket is gone and its worker has answered everything.
    pub(crate) fn free_if_done(&mut self, slot: Slot) {
        let Some(client) = self.clients.get(slot) else { return };
        if !matches!(client.stage, ClientStage::Gone) || !client.events.is_empty() {
            return;
        }
        if let Some(link) = client.worker.and_then(|key| self.workers.get_mut(key)) {
            link.clients -= 1;
        }
        self.unsent.unassigned.remove(&slot);
        self.clients.remove(slot);
    }
}

fn close_seconds(config: &Config) -> u32 {
    u32::try_from(config.settings.limits.close_time_max.as_secs()).unwrap_or(u32::MAX).max(1)
}

impl Client {
    /// The setting whose limit a client has met that ends so, where the cause tells.
    fn limit_of(&self, cause: Cause, code: u16) -> &'static str {
        match cause {
            Cause::Silent if self.protocol == Protocol::Pusher => "pong_timeout",
            Cause::Silent if self.protocol == Protocol::SocketIo => "",
            Cause::Silent => "silence_max",
            Cause::NoWorker => "hold_time_max",
            Cause::Protocol if code == close::TOO_LARGE.code => "message_bytes_max",
            Cause::Protocol if code == broadgate_pusher::close::UNAUTHORIZED.code => "authorized_within",
            _ => "",
        }
    }

    /// The line of its end: who, why, and by which command.
    fn log_end(
        &self,
        id: ClientId,
        uid: Option<&str>,
        (cause, code, reason): (Cause, u16, &str),
        command: Option<&str>,
    ) {
        tracing::debug!(
            client = %id,
            app = &*self.app,
            uid,
            address = %self.address,
            cause = cause.as_str_name(),
            code,
            reason,
            command,
            messages_in = self.received.messages,
            messages_out = self.sent.messages,
            "client closed"
        );
    }
}
