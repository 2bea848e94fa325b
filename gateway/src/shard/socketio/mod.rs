//! Clients that speak Socket.IO: their frames are decided about in `broadgate_socketio::talk`, and acted on here.
//! They are in the same channels as Pusher clients; what both have in common is in `shard/pusher/`.

pub(super) mod client;

use std::{convert::Infallible, sync::Arc};

use broadgate_proto::{
    id::ClientId,
    limits::{SOCKETIO_PING_INTERVAL, SOCKETIO_PING_TIMEOUT},
    v1::Cause,
};
use broadgate_pusher::{
    channel::{Access, is_own},
    member::ChannelMember,
    socket_id,
    talk::Subscription,
};
use broadgate_socketio::{
    engine::EngineVersion,
    outgoing::{self, OpenPacket, PresentUser},
    sid,
    talk::{self, Ignored, SocketAct, SocketRules, SocketSpeaker, SocketStage, SubscribeRequest},
};
use metrics::counter;
use tokio::sync::oneshot;

use crate::{
    authorization::{AuthQuestion, AuthRefusal, Authorized, kept_headers},
    codec::encode::{EMPTY_CLOSE_FRAME, text_frame},
    refusals::RefusalContext,
    shard::{counters::Drop, slots::Slot, state::Shard, upcalls::AuthorizeUpcall},
};

use self::client::Asking;
pub(crate) use self::client::SocketIoClient;

impl Shard {
    fn socketio(&mut self, slot: Slot) -> Option<&mut SocketIoClient> {
        self.clients.get_mut(slot)?.pusher.as_mut()?.socketio.as_deref_mut()
    }

    pub(crate) fn is_socketio(&self, slot: Slot) -> bool {
        self.clients
            .get(slot)
            .and_then(|client| client.pusher.as_ref())
            .is_some_and(|it| it.socketio.is_some())
    }

    /// The id that a client takes for its socket's, and names to its app's backend.
    fn socketio_id(&mut self, slot: Slot) -> String {
        match self.socketio(slot).and_then(|client| client.alias()) {
            Some(issued) => sid::issue(issued),
            None => socket_id::text(self.clients.id_of(slot)),
        }
    }

    /// A client in this shard that an id stands for which polling has issued.
    pub(crate) fn find_excepted(&self, id: ClientId) -> Option<Slot> {
        if sid::is_issued(&id) { self.issued_ids.get(&id.key).copied() } else { self.clients.find(id) }
    }

    /// The first frames to a client that begins with a WebSocket; one that comes over from polling has had them.
    pub(crate) fn greet_socketio(&mut self, slot: Slot) {
        let id = self.socketio_id(slot);
        let Some(pusher) = self.clients.get_mut(slot).and_then(|client| client.pusher.as_deref_mut()) else {
            return;
        };
        let message_bytes_max = pusher.message_bytes_max();
        let Some(client) = pusher.socketio.as_deref_mut() else { return };
        let (version, alias) = (client.version, client.alias());
        if client.stage == SocketStage::Opened {
            let packet = open_packet(version, &id, false, message_bytes_max);
            self.say(slot, &outgoing::open(packet));
            if version == EngineVersion::V3 {
                self.connect_socketio(slot);
            }
        }
        if let Some(alias) = alias {
            // A client that names another one's id gets none of its own.
            self.issued_ids.entry(alias).or_insert(slot);
        }
    }

    /// A client is gone: no id stands for it, and it waits for no answer.
    pub(crate) fn forget_socketio(&mut self, slot: Slot) {
        if let Some(client) = self.socketio(slot) {
            client.asking = None;
        }
        if let Some(alias) = self.socketio(slot).and_then(|client| client.alias())
            && self.issued_ids.get(&alias) == Some(&slot)
        {
            self.issued_ids.remove(&alias);
        }
    }

    /// It was to be connected by now.
    pub(crate) fn close_unconnected(&mut self, slot: Slot) {
        let reason = "it did not connect in time";
        self.close_gracefully(slot, Cause::Protocol, 1002, reason, Some(EMPTY_CLOSE_FRAME));
    }

    fn connect_socketio(&mut self, slot: Slot) {
        let id = self.socketio_id(slot);
        let Some(client) = self.socketio(slot) else { return };
        client.stage = SocketStage::Connected;
        let version = client.version;
        self.say(slot, &outgoing::connected(version, &id));
    }

    pub(crate) fn on_socketio_text(&mut self, slot: Slot, text: &str) {
        let Some(pusher) = self.clients.get(slot).and_then(|client| client.pusher.as_deref()) else { return };
        let Some(client) = pusher.socketio.as_deref() else { return };
        let app = &pusher.tenant.app;
        let rules = SocketRules { limits: &app.limits, client_events: app.client_events };
        // It does not leave the server's own groups by their names.
        let is_in = |channel: &str| !is_own(channel) && self.directory.is_member(slot, channel);
        let speaker = SocketSpeaker { version: client.version, stage: client.stage, is_in: &is_in };
        let act = talk::decide(text, &rules, &speaker);
        self.act_socketio(slot, act);
    }

    pub(crate) fn on_socketio_binary(&mut self, slot: Slot) {
        let Some(client) = self.socketio(slot) else { return };
        let act = talk::decide_binary(client.stage);
        self.act_socketio(slot, act);
    }

    fn act_socketio(&mut self, slot: Slot, act: SocketAct) {
        match act {
            SocketAct::Nothing => {}
            SocketAct::Say(frame) => self.say(slot, &frame),
            SocketAct::Connect => self.connect_socketio(slot),
            SocketAct::Subscribe(request) => self.request_subscription(slot, request),
            SocketAct::Unsubscribe(channel) => self.unsubscribe(slot, &channel),
            SocketAct::Publish { channel, event, data } => self.publish(slot, channel, event, data),
            SocketAct::Refuse { frame, why } => {
                self.note_refused(slot, "subscription", &why);
                self.say(slot, &frame);
            }
            SocketAct::Ignore(reason) => ignored(reason),
            SocketAct::Leave => {
                self.close_gracefully(slot, Cause::Client, 1000, "", Some(EMPTY_CLOSE_FRAME));
            }
            SocketAct::Close(breach) => {
                let reason = breach.to_string();
                self.close_gracefully(slot, Cause::Protocol, 1002, &reason, Some(EMPTY_CLOSE_FRAME));
            }
        }
    }

    /// A public channel is open to every client; of others the app's backend is asked.
    fn request_subscription(&mut self, slot: Slot, request: SubscribeRequest) {
        let SubscribeRequest { channel, kind, headers } = request;
        if !self.may_request_subscription(slot, &channel) {
            return;
        }
        if kind.access == Access::Public {
            return self.join_channel(slot, Subscription { channel, kind, member: None });
        }
        let (client_id, socket_id) = (self.clients.id_of(slot), self.socketio_id(slot));
        let Some(client) = self.clients.get_mut(slot) else { return };
        let address = client.address.ip();
        let Some(pusher) = client.pusher.as_deref_mut() else { return };
        let Some(socketio) = pusher.socketio.as_deref_mut() else { return };
        let question = AuthQuestion {
            app: Arc::clone(&pusher.tenant.app),
            channel: channel.clone(),
            is_presence: kind.is_presence(),
            socket_id,
            address,
            origin: socketio.origin.clone(),
            cookie: socketio.cookie.clone(),
            headers: kept_headers(&pusher.tenant.app, headers),
        };
        let (asker, waits) = oneshot::channel::<Infallible>();
        let upcall = AuthorizeUpcall { client: client_id, question, asker };
        socketio.asking = Some(Asking { channel: channel.clone(), kind, _waits: waits });
        let upcalls = self.deps.upcalls.as_ref();
        if upcalls.is_none_or(|upcalls| upcalls.authorizations.try_send(upcall).is_err()) {
            self.tally.drop(Drop::Busy, 1);
            if let Some(socketio) = self.socketio(slot) {
                socketio.asking = None;
            }
            self.say(slot, &outgoing::subscription_error(&channel, 503));
        }
    }

    /// The app's backend has said whether a client may subscribe, or has not answered.
    pub(crate) fn authorized(&mut self, client: ClientId, answer: Result<Authorized, AuthRefusal>) {
        let Some(slot) = self.clients.find(client) else { return };
        let asking = self.socketio(slot).and_then(|client| client.asking.take());
        let Some(Asking { channel, kind, .. }) = asking else { return };
        if let Some(client) = self.clients.get(slot) {
            client.wake();
        }
        match answer {
            Ok(Authorized { member }) => self.join_channel(slot, Subscription { channel, kind, member }),
            Err(refusal) => {
                self.note_refused(slot, "authorization", &format!("{channel}: {refusal}"));
                self.say(slot, &outgoing::subscription_error(&channel, refusal.status()));
            }
        }
    }

    /// Counts, remembers and logs that something was refused to a client.
    pub(crate) fn note_refused(&self, slot: Slot, reason: &'static str, why: &str) {
        let Some(client) = self.clients.get(slot) else { return };
        let (app, address) = (&*client.app, Some(client.address));
        self.deps.refuse(&RefusalContext { reason, why, address, app, ..RefusalContext::default() });
    }

    /// The roster of a presence channel: the client's own user, then all others.
    pub(crate) fn say_present(
        &mut self,
        slot: Slot,
        channel: &str,
        members: Vec<ChannelMember<'_>>,
        user: &str,
    ) {
        let id = self.socketio_id(slot);
        let (own, others): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| *member.id == *user);
        let own = own.into_iter().map(|member| PresentUser { member, socket_id: Some(&id) });
        let others = others.into_iter().map(|member| PresentUser { member, socket_id: None });
        let users: Vec<PresentUser<'_>> = own.chain(others).collect();
        self.say(slot, &outgoing::presence_subscribed(channel, &users));
    }

    /// Clients of version 4 wait for a ping whatever else they get.
    pub(crate) fn ping_socketio(&mut self, slot: Slot) {
        self.push_own(slot, text_frame(outgoing::PING));
    }

    /// Before a close that is for good: the client does not come back by itself.
    pub(crate) fn say_disconnected(&mut self, slot: Slot) {
        if self.socketio(slot).is_some_and(|client| client.stage == SocketStage::Connected) {
            self.push_own(slot, text_frame(outgoing::DISCONNECT));
        }
    }
}

fn ignored(reason: Ignored) {
    counter!("broadgate_gateway_socketio_ignored_total", "reason" => reason.label()).increment(1);
}

/// What a connection begins with.
pub(crate) fn open_packet(
    version: EngineVersion,
    sid: &str,
    is_polling: bool,
    message_bytes_max: usize,
) -> OpenPacket<'_> {
    let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    OpenPacket {
        version,
        sid,
        is_polling,
        ping_interval_ms: ms(SOCKETIO_PING_INTERVAL),
        ping_timeout_ms: ms(SOCKETIO_PING_TIMEOUT),
        message_bytes_max,
    }
}

/// A user has joined or left a presence channel: the frame for Socket.IO clients in it.
pub(super) fn presence_change(channel: &str, member: ChannelMember<'_>, here: bool) -> String {
    if here {
        outgoing::presence_joining(channel, &PresentUser { member, socket_id: None })
    } else {
        outgoing::presence_leaving(channel, &member)
    }
}
