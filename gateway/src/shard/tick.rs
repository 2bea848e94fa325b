//! What a shard does once a second: heartbeats, and everything that may take only so long.

use std::time::Duration;

use broadgate_proto::{
    close,
    v1::{Cause, TapKind},
};

use crate::{
    codec::{
        Protocol,
        encode::{Encoder, PING_FRAME, close_code_frame, close_frame},
    },
    config::ListenerKind,
    refusals,
    shard::{
        client::{Client, ClientStage},
        counters::Drop,
        ending::SlowBy,
        slots::Slot,
        state::Shard,
        taps::TapDetails,
        window::WindowMax,
    },
};

impl Shard {
    pub(crate) fn tick(&mut self, second: u32) {
        self.second = second;
        for (slot, key) in self.wheel.due(second) {
            self.heartbeat(slot, key);
        }
        self.reads.end_delays(&mut self.clients, second);
        self.close_backlogged();
        self.close_unassigned();
        self.try_suspects();
        self.cut_late();
        self.look_after_paused();
        self.executed.remembered.expire(Duration::from_secs(second.into()));
        self.tally.remembered(&mut self.executed.remembered);
        self.tally.outboxes(self.outboxes.bytes(&self.tls));
        self.workers.count_silence(second);
        self.tally.publish(second, self.clients.len());
        if self.clients.shard == 0 {
            refusals::tell_left_out();
        }
    }

    /// Looks at a client that may have been silent.
    fn heartbeat(&mut self, slot: Slot, key: u64) {
        let second = self.second;
        let max = WindowMax::of(&self.config.settings.limits);
        let Some(client) = self.clients.get_mut(slot).filter(|client| client.key == key && client.is_open())
        else {
            return;
        };
        if !client.may_read(max) {
            // What it may have sent is unread: it is not silent. If it is unread because it takes no
            // answers, it is closed as slow.
            client.last_in = second;
        }
        if client.pusher.as_ref().is_some_and(|pusher| pusher.is_late(second)) {
            let close = broadgate_pusher::close::UNAUTHORIZED;
            let frame = close_frame(close.code, close.reason);
            return self.close_gracefully(slot, Cause::Protocol, close.code, close.reason, Some(frame));
        }
        if client.pusher.as_ref().is_some_and(|pusher| pusher.is_unconnected(second)) {
            return self.close_unconnected(slot);
        }
        let (interval, silence) = liveness(client);
        let idle = second.saturating_sub(client.last_in);
        if silence.is_some_and(|silence| idle >= silence) {
            let close = close::SILENT;
            self.close_gracefully(
                slot,
                Cause::Silent,
                close.code,
                close.reason,
                Some(close_code_frame(close)),
            );
            return;
        }
        if let Some(interval) = interval {
            let quiet = second - client.last_in.max(client.last_ping).min(second);
            // Socket.IO clients go away without pings, also while they talk.
            let is_due = match client.protocol {
                Protocol::SocketIo => second.saturating_sub(client.last_ping) >= interval,
                _ => idle >= interval && quiet >= interval,
            };
            if is_due {
                client.last_ping = second;
                self.ping(slot);
            }
        }
        if let Some(client) = self.clients.get(slot)
            && let Some(next) = next_look(client, second)
        {
            self.wheel.put(next, (slot, key));
        }
    }

    fn ping(&mut self, slot: Slot) {
        if self.taps.is_open() {
            self.tap(slot, TapKind::Ping, &TapDetails::default());
        }
        let Some(client) = self.clients.get(slot) else { return };
        if client.protocol == Protocol::SocketIo {
            return self.ping_socketio(slot);
        }
        let listener = std::sync::Arc::clone(&client.listener);
        if listener.kind == ListenerKind::Web {
            self.push_own(slot, PING_FRAME);
        }
        if !listener.ping_payload.is_empty() {
            let encoder = Encoder {
                websocket: listener.kind == ListenerKind::Web,
                text: listener.kind == ListenerKind::Text,
                frame: listener.kind == ListenerKind::Frame,
                pusher: false,
            };
            // A full outbox closes the client as any message would.
            let frames = encoder.text(listener.ping_payload.as_bytes()).share(&self.outboxes.live);
            let _ = self.place(slot, &frames);
        }
    }

    /// When a client has just been opened: its first look is at a random second, so that clients that
    /// came together are not pinged together.
    pub(crate) fn watch_silence(&mut self, slot: Slot) {
        let second = self.second;
        let Some(client) = self.clients.get(slot) else { return };
        let Some(next) = next_look(client, second) else { return };
        let spread = u32::try_from(client.key % 1000).unwrap_or(0);
        let wait = next - second;
        let at = second + wait / 2 + wait.div_ceil(2) * spread / 1000;
        self.wheel.put(at, (slot, client.key));
    }

    fn close_backlogged(&mut self) {
        let max = seconds(self.config.settings.limits.outbox_time_max).unwrap_or(u32::MAX);
        for slot in self.outboxes.take_slow(&self.clients, self.second, max) {
            if self.clients.get(slot).is_some_and(Client::is_open) {
                self.close_slow(slot, SlowBy::Time, None);
            }
        }
    }

    /// No worker took their events in time.
    fn close_unassigned(&mut self) {
        let max = seconds(self.config.settings.limits.hold_time_max).unwrap_or(0);
        for slot in self.unsent.take_late(&self.clients, self.second, max) {
            let Some(client) = self.clients.get_mut(slot) else { continue };
            let dropped = client.events.clear();
            client.unassigned_since = None;
            // Without its sender, a handshake is refused.
            if let ClientStage::Handshake(waiting) = &mut client.stage {
                waiting.take();
            }
            self.tally.drop(Drop::NoWorker, dropped);
            let close = close::NO_WORKER;
            self.close_gracefully(
                slot,
                Cause::NoWorker,
                close.code,
                close.reason,
                Some(close_code_frame(close)),
            );
            // Its `closed` has nobody to go to either.
            if let Some(client) = self.clients.get_mut(slot).filter(|client| client.worker.is_none()) {
                let dropped = client.events.clear();
                client.unassigned_since = None;
                self.unsent.unassigned.remove(&slot);
                self.tally.drop(Drop::NoWorker, dropped);
            }
            self.free_if_done(slot);
        }
    }

    /// Farewells that were not answered in time.
    fn cut_late(&mut self) {
        let late: Vec<Slot> = self
            .closing
            .keys()
            .copied()
            .filter(|&slot| {
                let Some(ClientStage::Closing(farewell)) = self.clients.get(slot).map(|client| &client.stage)
                else {
                    return true;
                };
                self.second >= farewell.until
            })
            .collect();
        for slot in late {
            if matches!(self.clients.get(slot).map(|client| &client.stage), Some(ClientStage::Closing(_))) {
                self.abort(slot, Cause::Lost, 1006, "");
            }
            self.closing.remove(&slot);
        }
    }

    /// Clients that are not read: have they hung up?
    fn look_after_paused(&mut self) {
        for slot in self.reads.hung_up(&self.clients) {
            self.tally.drop(Drop::UnreadAtHangUp, 1);
            self.abort(slot, Cause::Lost, 1006, "");
        }
    }
}

/// After how many seconds of silence a client is pinged and closed; none is never.
fn liveness(client: &Client) -> (Option<u32>, Option<u32>) {
    match &client.pusher {
        Some(pusher) if pusher.socketio.is_some() => {
            pusher.socketio.as_ref().map_or((None, None), |socketio| socketio.liveness())
        }
        Some(pusher) => {
            let app = &pusher.tenant.app;
            (seconds(app.activity_timeout), seconds(app.activity_timeout + app.pong_timeout))
        }
        None => (seconds(client.listener.ping_interval), seconds(client.listener.silence())),
    }
}

/// The second at which a client must be looked at next; none if it is neither pinged nor closed for
/// silence.
fn next_look(client: &Client, second: u32) -> Option<u32> {
    let (interval, silence) = liveness(client);
    let silent_at = silence.map(|silence| client.last_in + silence);
    let ping_at = interval
        .filter(|_| client.listener.kind == ListenerKind::Web || !client.listener.ping_payload.is_empty())
        .map(|interval| match client.protocol {
            Protocol::SocketIo => client.last_ping + interval,
            _ => client.last_in.max(client.last_ping) + interval,
        });
    let late_at = client.pusher.as_ref().and_then(|pusher| pusher.late_at());
    silent_at.into_iter().chain(ping_at).chain(late_at).min().map(|at| at.max(second + 1))
}

/// Whole seconds; none for zero, which means never.
fn seconds(duration: Duration) -> Option<u32> {
    let seconds = duration.as_secs_f64().ceil();
    (seconds > 0.0).then_some(seconds as u32)
}
