//! What a gateway is made of when it starts: its membership, its shards.

use std::{collections::HashMap, sync::Arc};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use broadgate_port::Closing;
use broadgate_proto::{
    VERSION,
    v1::{Role, View},
};
use broadgate_register::member::{self, Advertise, Member};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Bound;
use crate::{
    actor::Standings,
    client_port::{self, Shared},
    codec::encode::Encoder,
    config::{Accept, Config, ListenerKind},
    connections::Connections,
    desk::Desk,
    me::Me,
    orders::Parser,
    shard::{self, Mailbox, Message},
};

pub(super) fn join(bound: &Bound, known: Option<View>) -> Member {
    let internal = &bound.config.settings.internal;
    let advertise = match &internal.advertise {
        Some(address) => Advertise::Address(address.clone()),
        None if internal.bind.ip().is_unspecified() => Advertise::LocalPort(bound.internal_address.port()),
        None => Advertise::Address(bound.internal_address.to_string()),
    };
    let listeners: HashMap<String, String> =
        bound.client_addresses().into_iter().map(|(name, address)| (name, address.to_string())).collect();
    member::join(member::Config {
        registers: bound.config.registers.clone(),
        secret: bound.config.secret.clone(),
        role: Role::Gateway,
        name: name(bound),
        version: VERSION.to_owned(),
        services: Vec::new(),
        listeners,
        advertise,
        known,
    })
}

pub(super) fn name(bound: &Bound) -> String {
    let settings = &bound.config.settings;
    if !settings.name.is_empty() {
        return settings.name.clone();
    }
    settings.internal.advertise.clone().unwrap_or_else(|| bound.internal_address.to_string())
}

pub(super) fn new_me(bound: &Bound, member: &Member) -> Me {
    Me { incarnation: member.incarnation(), name: name(bound), over: CancellationToken::new() }
}

pub(super) fn advertised_host(config: &Config) -> String {
    let internal = &config.settings.internal;
    let advertised = internal.advertise.clone().unwrap_or_else(|| internal.bind.to_string());
    advertised.rsplit_once(':').map_or(advertised.clone(), |(host, _)| host.to_owned())
}

pub(super) fn parser(config: &Config) -> Parser {
    let speaks = |kind| config.settings.listeners.iter().any(|listener| listener.kind == kind);
    Parser {
        encoder: Encoder {
            websocket: speaks(ListenerKind::Web),
            text: speaks(ListenerKind::Text),
            frame: speaks(ListenerKind::Frame),
            // Apps may come while the gateway runs.
            pusher: speaks(ListenerKind::Web),
        },
        session_bytes_max: config.settings.limits.session_bytes_max,
        payload_bytes_max: config.settings.limits.payload_bytes_max(),
        frame_bytes_max: config.settings.limits.frame_bytes_max(),
    }
}

/// The shards as the rest of the gateway knows them.
pub(super) struct Shards {
    pub(super) mailboxes: Arc<[Mailbox]>,
    pub(super) standings: Vec<Arc<Standings>>,
    /// Wakes the homes' actor.
    pub(super) wake: Arc<Notify>,
    pub(super) threads: Vec<std::thread::JoinHandle<()>>,
}

/// The sockets of the client listeners, by listener, then by shard.
pub(super) type Sockets = Vec<Vec<std::net::TcpListener>>;

pub(super) fn start_shards(
    bound: &Bound,
    sockets: Sockets,
    ports: &Shared,
    me: &ArcSwap<Me>,
    desk: &Arc<Desk>,
) -> anyhow::Result<Shards> {
    let me = me.load();
    let mut mailboxes = Vec::new();
    let mut threads = Vec::new();
    let mut all_standings = Vec::new();
    let wake = Arc::new(Notify::new());
    let one = bound.config.settings.accept == Accept::One;
    // Not a shard's, but told to the homes in the same way.
    let standings = Arc::new(Standings::default());
    all_standings.push(Arc::clone(&standings));
    let run = getrandom::u64().context("no random number for the places of connections")?;
    let connections = Connections::new(run, standings, Arc::clone(&wake));
    // Moved, not cloned: a listener is closed when its last descriptor is.
    let mut of_shard: Vec<Vec<(usize, std::net::TcpListener)>> = Vec::new();
    of_shard.resize_with(bound.shards, Vec::new);
    let mut of_acceptor = Vec::new();
    for (number, sockets) in sockets.into_iter().enumerate() {
        for (index, socket) in sockets.into_iter().enumerate() {
            match of_shard.get_mut(index).filter(|_| !one) {
                Some(listeners) => listeners.push((number, socket)),
                None => of_acceptor.push((number, socket)),
            }
        }
    }
    for (index, listeners) in of_shard.into_iter().enumerate() {
        let standings = Arc::new(Standings::default());
        all_standings.push(Arc::clone(&standings));
        let (mailbox, thread) = shard::start(shard::Start {
            standings,
            wake_homes: Arc::clone(&wake),
            desk: Arc::clone(desk),
            index: u8::try_from(index).unwrap_or(u8::MAX),
            shards: u8::try_from(bound.shards).unwrap_or(u8::MAX),
            incarnation: me.incarnation,
            name: me.name.clone(),
            ports: ports.clone(),
            connections: Arc::clone(&connections),
            listeners,
        })?;
        mailboxes.push(mailbox);
        threads.push(thread);
    }
    let mailboxes: Arc<[Mailbox]> = mailboxes.into();
    for (number, socket) in of_acceptor {
        let listener = tokio::net::TcpListener::from_std(socket)?;
        tokio::spawn(hand_out(listener, number, Arc::clone(&mailboxes), ports.clone()));
    }
    Ok(Shards { mailboxes, standings: all_standings, wake, threads })
}

/// Where the system does not spread connections over listeners, one acceptor does. When listeners are
/// closed, it hands out what waits in the queue.
async fn hand_out(
    listener: tokio::net::TcpListener,
    number: usize,
    mailboxes: Arc<[Mailbox]>,
    ports: Shared,
) {
    let mut turn = 0;
    let mut give = async |stream, peer| {
        let Some(listener) = ports.config.settings.listeners.get(number) else { return };
        let Some(ticket) = client_port::admit(&ports.admission, &ports.config.apps, listener, &stream, peer)
        else {
            return;
        };
        match stream.into_std() {
            Ok(stream) => {
                turn += 1;
                let message = Message::Connection { listener: number, stream, ticket };
                mailboxes[turn % mailboxes.len()].send(message).await;
            }
            Err(error) => tracing::debug!(%error, "a connection was gone before it was taken"),
        }
    };
    loop {
        let accepted = tokio::select! {
            () = ports.stopping.closing.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => give(stream, peer).await,
            Err(error) => client_port::accept_failed(&error).await,
        }
    }
    let mut closing = Closing::new(listener);
    while let Some((stream, peer)) = closing.next().await {
        give(stream, peer).await;
    }
}
