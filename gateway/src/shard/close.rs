//! How a client goes: in good order with a farewell, or cut.

use broadgate_proto::{
    close,
    id::{ClientId, Incarnation},
    v1::{self, Cause, event::Event},
};
use bytes::Bytes;

use crate::{
    codec::{
        Protocol,
        encode::{EMPTY_CLOSE_FRAME, close_code_frame, close_frame},
    },
    config::Config,
    shard::{
        client::{Client, ClientStage, ClosePhase},
        counters::Drop,
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
        self.closing.insert(slot);
        // A command is for good. After every other close a client connects again.
        if protocol == Protocol::SocketIo && cause == Cause::Command {
            self.say_disconnected(slot);
        }
        if let Some(frame) = farewell.filter(|_| websocket) {
            self.push_own(slot, frame);
        }
        self.forget(slot, cause, code, reason);
        if let Some(client) = self.clients.get_mut(slot) {
            self.outboxes.queue(slot, client, &mut self.turn);
            client.wake();
        }
    }

    /// Cuts the connection now; what is unsent is lost.
    pub(crate) fn abort(&mut self, slot: Slot, cause: Cause, code: u16, reason: &str) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let was_open = client.is_open();
        self.tally.drop(Drop::Unsent, client.outbox.frames());
        self.outboxes.left(client.outbox.frames());
        client.outbox = super::outbox::Outbox::default();
        client.stream = None;
        client.codec = None;
        client.admitted = None;
        client.enter(ClientStage::Gone);
        client.wake();
        client.waker = None;
        self.closing.remove(&slot);
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
    /// the close code may still reach it.
    pub(crate) fn close_slow(&mut self, slot: Slot) {
        self.close_slow_because(slot, Drop::Slow);
    }

    /// The same, with the reason for which its messages are dropped.
    pub(crate) fn close_slow_because(&mut self, slot: Slot, reason: Drop) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let before = client.outbox.frames();
        let sealed = client.stream.as_ref().map_or(0, Stream::begun);
        client.outbox.keep_begun(sealed);
        let dropped = before - client.outbox.frames();
        self.outboxes.left(dropped);
        self.tally.drop(reason, dropped);
        let close = close::SLOW;
        self.close_gracefully(slot, Cause::Slow, close.code, close.reason, Some(close_code_frame(close)));
    }

    /// Lets every client go in slices: as many now as leave none at the end.
    pub(crate) fn close_slice(&mut self, slices_left: usize) {
        let open: Vec<Slot> =
            self.clients.iter().filter(|(_, client)| client.is_open()).map(|(slot, _)| slot).collect();
        let now = open.len().div_ceil(slices_left.max(1));
        let close = close::COME_BACK;
        for slot in open.into_iter().take(now) {
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
    fn forget(&mut self, slot: Slot, cause: Cause, code: u16, reason: &str) {
        self.tally.close(cause);
        let uid = self.directory.uid(slot).map(ToString::to_string);
        self.forget_socketio(slot);
        let groups = self.directory.exit(slot).iter().map(ToString::to_string).collect();
        self.turn.request();
        let id = self.clients.id_of(slot);
        if let Some(client) = self.clients.get_mut(slot) {
            let command = self.executed.commanded.as_deref().filter(|_| cause == Cause::Command);
            client.log_end(id, uid.as_deref(), (cause, code, reason), command);
            client.last_uid = uid.unwrap_or_default().into();
        }
        let closed = v1::Closed { cause: cause.into(), code: code.into(), reason: reason.to_owned(), groups };
        self.offers.closed(&self.clients, slot, &closed, &mut self.turn);
        self.emit(slot, Event::Closed(closed));
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
