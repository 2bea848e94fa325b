//! What a gateway is made of when it starts: its membership, its shards.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
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
    admission::Admission,
    codec::encode::Encoder,
    config::{Accept, Config, ListenerKind},
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

pub(super) fn start_shards(bound: &Bound, me: &ArcSwap<Me>, desk: &Arc<Desk>) -> anyhow::Result<Shards> {
    let limits = &bound.config.settings.limits;
    let admission = Admission::new(limits.clients_max, limits.clients_per_ip_max);
    let me = me.load();
    let mut mailboxes = Vec::new();
    let mut threads = Vec::new();
    let mut all_standings = Vec::new();
    let wake = Arc::new(Notify::new());
    let one = bound.config.settings.accept == Accept::One;
    for index in 0..bound.shards {
        let mut listeners = Vec::new();
        for (number, sockets) in bound.clients.sockets.iter().enumerate() {
            if let Some(socket) = sockets.get(index).filter(|_| !one) {
                listeners.push((number, socket.try_clone()?));
            }
        }
        let standings = Arc::new(Standings::default());
        all_standings.push(Arc::clone(&standings));
        let (mailbox, thread) = shard::start(shard::Start {
            standings,
            wake_homes: Arc::clone(&wake),
            desk: Arc::clone(desk),
            index: u8::try_from(index).unwrap_or(u8::MAX),
            incarnation: me.incarnation,
            name: me.name.clone(),
            config: Arc::clone(&bound.config),
            admission: Arc::clone(&admission),
            listeners,
        })?;
        mailboxes.push(mailbox);
        threads.push(thread);
    }
    let mailboxes: Arc<[Mailbox]> = mailboxes.into();
    if one {
        for (number, sockets) in bound.clients.sockets.iter().enumerate() {
            for socket in sockets {
                let listener = tokio::net::TcpListener::from_std(socket.try_clone()?)?;
                let accepting = bound.accepting.clone();
                tokio::spawn(hand_out(listener, number, Arc::clone(&mailboxes), accepting));
            }
        }
    }
    Ok(Shards { mailboxes, standings: all_standings, wake, threads })
}

/// Where the system does not spread connections over listeners, one acceptor does.
pub(super) async fn hand_out(
    listener: tokio::net::TcpListener,
    number: usize,
    mailboxes: Arc<[Mailbox]>,
    accepting: CancellationToken,
) {
    for turn in 0usize.. {
        let accepted = tokio::select! {
            () = accepting.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => {
                let mailbox = &mailboxes[turn % mailboxes.len()];
                mailbox.send(Message::Connection { listener: number, stream }).await;
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed; trying again in 100 ms");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
