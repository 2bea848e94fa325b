//! How a client comes in: a place and an id first, then, if it may, its socket.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use broadgate_proto::{
    name,
    v1::{self, event::Event},
};
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{
    admission::{AppPlace, ConnectionTicket},
    codec::{
        Codec, Protocol,
        encode::{Encoder, Frames},
    },
    command::session_object,
    config::{Affinity, Listener},
    refusals::now_ms,
    shard::{
        app_connections::ConnectionPlace,
        client::{Client, ClientSession, ClientStage, ReadTurn, Traffic},
        drive,
        outbox::Outbox,
        pusher::client::{PusherClient, PusherTenant},
        rate::Rate,
        slots::Slot,
        socket::Stream,
        socketio::client::SocketIoClient,
        state::{Shard, ShardHandle},
        window::Window,
    },
};

/// Who wants to come in.
pub(crate) struct Newcomer {
    pub(crate) listener: Arc<Listener>,
    pub(crate) app: Rc<str>,
    pub(crate) service: Rc<str>,
    pub(crate) address: SocketAddr,
    pub(crate) handshake: v1::Handshake,
    /// Its app, if it speaks the Pusher protocol.
    pub(crate) pusher: Option<(Rc<PusherTenant>, AppPlace)>,
    /// What it has besides if it speaks Socket.IO in that app.
    pub(crate) socketio: Option<SocketIoClient>,
}

/// A place taken for a newcomer. Dropped before it is opened, it gives the place back: the
/// connection has gone, or the newcomer was refused.
pub(crate) struct Candidate {
    shard: ShardHandle,
    slot: Slot,
    key: u64,
    opened: bool,
}

impl Candidate {
    /// None if the shard has no place left.
    pub(crate) fn new(shard: &ShardHandle, newcomer: &mut Newcomer) -> Option<Self> {
        let mut state = shard.borrow_mut();
        let affinity = affinity_key(&state.config.settings.affinity, &newcomer.handshake);
        let key = random()?;
        let raw = Protocol::raw(newcomer.listener.kind);
        let protocol = match (&newcomer.pusher, &newcomer.socketio) {
            (Some(_), Some(_)) => Protocol::SocketIo,
            (Some(_), None) => Protocol::Pusher,
            (None, _) => raw,
        };
        // Its first ping comes after 13 to 25 s, so that clients that came together are not pinged together.
        let last_ping = match protocol {
            Protocol::SocketIo => state.second.saturating_sub((key % 12) as u32),
            _ => 0,
        };
        let socketio = newcomer.socketio.take().map(|socketio| Box::new(socketio.start(state.second)));
        let client = Client {
            outbox: Outbox::default(),
            stream: None,
            stage: ClientStage::Handshake(None),
            sent: Traffic::default(),
            pending: None,
            backlog_since: None,
            answers: 0,
            dirty: false,
            protocol,
            taps: 0,
            key,
            codec: None,
            waker: None,
            undecoded: Bytes::new(),
            broken: false,
            stopped_early: false,
            reading: ReadTurn::Freely,
            no_messages: Rate::default(),
            events: Window::default(),
            worker: None,
            had_worker: false,
            in_line: false,
            moving: false,
            unassigned_since: None,
            service: Rc::clone(&newcomer.service),
            last_uid: "".into(),
            affinity,
            app: Rc::clone(&newcomer.app),
            listener: Arc::clone(&newcomer.listener),
            address: newcomer.address,
            opened_at_ms: 0,
            last_in: state.second,
            last_ping,
            rate: Rate::default(),
            received: Traffic::default(),
            session: None,
            pusher: newcomer
                .pusher
                .take()
                .map(|(tenant, seat)| Box::new(PusherClient::new(tenant, seat, state.second, socketio))),
            admitted: None,
        };
        let slot = state.clients.insert(client)?;
        Some(Self { shard: Rc::clone(shard), slot, key, opened: false })
    }

    /// Asks a worker whether the newcomer may come in. None if no worker decided in time.
    pub(crate) async fn ask(&self, handshake: v1::Handshake) -> Option<v1::decision::Decision> {
        let (waiting, decision) = oneshot::channel();
        {
            let mut shard = self.shard.borrow_mut();
            let client = shard.clients.get_mut(self.slot)?;
            client.enter(ClientStage::Handshake(Some(waiting)));
            shard.emit(self.slot, Event::Handshake(handshake));
        }
        let limits = {
            let shard = self.shard.borrow();
            let limits = &shard.config.settings.limits;
            (limits.groups_per_client_max, limits.session_bytes_max)
        };
        Some(usable(decision.await.ok()?, limits))
    }

    /// Its place among its app's connections in the cluster.
    pub(crate) fn hold(&self, place: ConnectionPlace) {
        let mut shard = self.shard.borrow_mut();
        let client = shard.clients.get_mut(self.slot).filter(|client| client.key == self.key);
        if let Some(pusher) = client.and_then(|client| client.pusher.as_mut()) {
            pusher.place = Some(place);
        }
    }

    /// The newcomer is a client now.
    pub(crate) fn open(
        mut self,
        stream: impl Into<Stream>,
        read: &[u8],
        admitted: Option<ConnectionTicket>,
        handshake: v1::Handshake,
        accept: Option<v1::Accept>,
    ) {
        self.opened = true;
        let shard = Rc::clone(&self.shard);
        let (slot, key) = (self.slot, self.key);
        {
            let mut state = shard.borrow_mut();
            let Some(client) = state.clients.get_mut(slot).filter(|client| client.key == key) else { return };
            client.stream = Some(stream.into());
            client.admitted = admitted;
            state.open(slot, handshake, accept);
            state.decode_first(slot, read);
        }
        broadgate_tasks::spawn_local("client", drive::drive(shard, slot, key));
    }
}

/// A newcomer that a worker took in as somebody whom it cannot be is not let in as nobody.
fn usable(decision: v1::decision::Decision, limits: (usize, usize)) -> v1::decision::Decision {
    use v1::decision::Decision;
    let Decision::Accept(accept) = &decision else { return decision };
    let Err(sentence) = check_accept(accept, limits) else { return decision };
    tracing::warn!(sentence, "invalid accept from a worker: refusing the client");
    Decision::Refuse(v1::Refuse { status: 500, body: "the worker's answer is invalid".to_owned() })
}

fn check_accept(accept: &v1::Accept, (groups_max, session_bytes_max): (usize, usize)) -> Result<(), String> {
    if !accept.uid.is_empty() {
        name::check("uid", &accept.uid).map_err(|error| error.to_string())?;
    }
    if accept.groups.len() > groups_max {
        return Err(format!("groups has {} names: at most {groups_max} are allowed", accept.groups.len()));
    }
    for group in &accept.groups {
        name::check("groups", group).map_err(|error| error.to_string())?;
    }
    session_object(&accept.session_json, session_bytes_max).map(drop)
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if self.opened {
            return;
        }
        let mut shard = self.shard.borrow_mut();
        if let Some(client) = shard.clients.get_mut(self.slot).filter(|client| client.key == self.key) {
            client.enter(ClientStage::Gone);
            client.events.clear();
            shard.free_if_done(self.slot);
        }
    }
}

impl Shard {
    fn open(&mut self, slot: Slot, handshake: v1::Handshake, accept: Option<v1::Accept>) {
        let second = self.second;
        let limits = &self.config.settings.limits;
        let (message_bytes_max, groups_max) = (limits.message_bytes_max, limits.groups_per_client_max);
        let session_bytes_max = limits.session_bytes_max;
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.enter(ClientStage::Open);
        let larger = client.pusher.as_ref().map_or(0, |pusher| pusher.message_bytes_max());
        client.codec = Some(Codec::new(client.protocol, larger.max(message_bytes_max)));
        client.last_in = second;
        client.opened_at_ms = now_ms();
        let app = Rc::clone(&client.app);
        self.directory.enter(slot, &app);
        self.tally.now.opened += 1;
        self.watch_silence(slot);
        let mut greeting = None;
        if let Some(accept) = accept {
            greeting = accept.greeting;
            if !accept.uid.is_empty() {
                self.directory.bind(slot, &accept.uid);
            }
            for group in &accept.groups {
                self.directory.join(slot, group, groups_max);
            }
            if let (false, Ok(value)) =
                (accept.session_json.is_empty(), session_object(&accept.session_json, session_bytes_max))
                && let Some(client) = self.clients.get_mut(slot)
            {
                client.session = Some(Box::new(ClientSession { json: value.to_string().into(), version: 1 }));
            }
        }
        if self.taps.is_open() {
            self.tap_opened(slot);
        }
        if let Some(client) = self.clients.get(slot) {
            let (id, listener, path) = (self.clients.id_of(slot), &*client.listener.name, &*handshake.path);
            tracing::debug!(client = %id, app = &*app, address = %client.address, listener, path, "client opened");
        }
        self.turn.request();
        if self.is_socketio(slot) {
            self.greet_socketio(slot);
        } else {
            self.greet_pusher(slot);
        }
        self.emit(slot, Event::Opened(handshake));
        self.offers.opened(&self.clients, slot, &mut self.turn);
        if let Some(frames) = greeting.map(|greeting| greet(&greeting)) {
            // A new outbox has room.
            let _ = self.place(slot, &frames.share(&self.outboxes.live));
        }
        // Its app may have been disabled since the handshake began.
        let table = self.config.apps.load();
        self.follow_app(slot, &table);
    }
}

fn greet(greeting: &v1::accept::Greeting) -> Frames {
    let encoder = Encoder { websocket: true, text: true, frame: true, pusher: false };
    match greeting {
        v1::accept::Greeting::Text(text) => encoder.text(text.as_bytes()),
        v1::accept::Greeting::Binary(bytes) => encoder.binary(bytes),
    }
}

fn affinity_key(affinity: &Affinity, handshake: &v1::Handshake) -> Option<Box<str>> {
    match affinity {
        Affinity::Header(name) => {
            let header = handshake.headers.iter().find(|header| header.name == *name)?;
            Some(header.value.as_str().into())
        }
        Affinity::Query(name) => {
            let value =
                handshake.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
            Some(value.into())
        }
        Affinity::Client | Affinity::Uid | Affinity::LeastLoaded => None,
    }
}

fn random() -> Option<u64> {
    // Without randomness ids could be guessed: better to take nobody in.
    getrandom::u64().ok()
}
