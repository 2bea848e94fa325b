//! Starts a gateway's membership and its shards.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use broadgate_port::ClosingListener;
use broadgate_proto::{
    VERSION,
    v1::{Role, View},
};
use broadgate_register::member::{self, Advertise, ClusterMember};
use broadgate_tasks::Tasks;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    codec::encode::Encoder,
    command::Parser,
    config::{AcceptMode, Config, ListenerKind},
    dispatch::upcalls,
    identity::Identity,
    ingress::{self, ClientPortShared},
    observers::Observers,
    recorder::UnheardSends,
    refusals::now_ms,
    server::bound::Bound,
    shard::{self, AppConnections, Mailbox, Messages, PendingCounts, Pool, ShardMessage, Upcalls},
};

pub(super) fn join(bound: &Bound, known: Option<View>) -> ClusterMember {
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
        credentials: bound.config.credentials.clone(),
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
    name_of(&bound.config, bound.internal_address)
}

/// The default name of a gateway, from the address that it listens on.
pub(super) fn name_of(config: &Config, internal: SocketAddr) -> String {
    let settings = &config.settings;
    if !settings.name.is_empty() {
        return settings.name.clone();
    }
    settings.internal.advertise.clone().unwrap_or_else(|| internal.to_string())
}

pub(super) fn new_me(bound: &Bound, member: &ClusterMember) -> Identity {
    Identity { incarnation: member.incarnation(), name: name(bound), over: CancellationToken::new() }
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
            // Apps may be added while the gateway runs.
            pusher: speaks(ListenerKind::Web),
        },
        session_bytes_max: config.settings.limits.session_bytes_max,
        payload_bytes_max: config.settings.limits.payload_bytes_max(),
        frame_bytes_max: config.settings.limits.frame_bytes_max(),
        apps: config.apps.clone(),
    }
}

/// The shards as the rest of the gateway knows them, before their threads have started.
pub(super) struct Shards {
    pub(super) pool: Pool,
    messages: Vec<Messages>,
    /// One for each shard, and a last one for what belongs to no shard.
    pub(super) pending_counts: Vec<Arc<PendingCounts>>,
    /// Wakes the homes' actor.
    pub(super) wake: Arc<Notify>,
    /// What homes here have sent to nobody.
    pub(super) unheard: Arc<UnheardSends>,
}

impl Shards {
    pub(super) fn new(count: usize, sends_max: usize) -> Self {
        let (mailboxes, messages): (Vec<_>, Vec<_>) = (0..count).map(|_| Mailbox::new()).unzip();
        let pending_counts = (0..=count).map(|_| Arc::default()).collect();
        let pool = Pool { shards: mailboxes.into() };
        let unheard = Arc::new(UnheardSends::new(sends_max, now_ms()));
        Self { pool, messages, pending_counts, wake: Arc::default(), unheard }
    }

    /// Connection counts of apps belong to no shard, but are reported to the homes in the same way.
    pub(super) fn places(&self) -> anyhow::Result<Arc<AppConnections>> {
        let run = getrandom::u64().context("no random number for the places of connections")?;
        let pending_counts = self.pending_counts.last().map(Arc::clone).unwrap_or_default();
        Ok(AppConnections::new(run, pending_counts, Arc::clone(&self.wake)))
    }
}

/// The sockets of the client listeners, by listener, then by shard.
pub(super) type Sockets = Vec<Vec<std::net::TcpListener>>;

/// Sockets with the indexes of their listeners.
type Listening = Vec<(usize, std::net::TcpListener)>;

/// Divides the sockets between the shards and the single acceptor. Moved, not cloned: a listener is
/// closed when its last descriptor is.
fn deal(sockets: Sockets, shards: usize, one: bool) -> (Vec<Listening>, Listening) {
    let mut of_shard: Vec<Listening> = Vec::new();
    of_shard.resize_with(shards, Vec::new);
    let mut of_acceptor = Vec::new();
    for (number, sockets) in sockets.into_iter().enumerate() {
        for (index, socket) in sockets.into_iter().enumerate() {
            match of_shard.get_mut(index).filter(|_| !one) {
                Some(listeners) => listeners.push((number, socket)),
                None => of_acceptor.push((number, socket)),
            }
        }
    }
    (of_shard, of_acceptor)
}

/// Starts the threads of the shards, and the acceptor where the system does not spread connections.
pub(super) fn start_shards(
    bound: &Bound,
    sockets: Sockets,
    shards: Shards,
    me: &Identity,
    ports: &ClientPortShared,
    observers: &Observers,
    tasks: &mut Tasks,
) -> anyhow::Result<()> {
    let one = bound.config.settings.accept == AcceptMode::One;
    let (of_shard, of_acceptor) = deal(sockets, bound.shards, one);
    let each = of_shard.into_iter().zip(shards.messages).zip(shards.pending_counts);
    for (index, ((listeners, messages), pending_counts)) in each.enumerate() {
        let index = u8::try_from(index).unwrap_or(u8::MAX);
        let (upcalls, queues) = Upcalls::new();
        let shared = ports.clone();
        let attach = move |shard: &shard::ShardHandle, tasks: &mut JoinSet<()>| {
            upcalls::serve(shard, &shared.dispatcher, &shared.authorizer, queues, tasks);
            ingress::open(shard, &shared, listeners, tasks)
        };
        let name = shard::thread_name(index);
        let thread = shard::start(shard::Start {
            index,
            shards: u8::try_from(bound.shards).unwrap_or(u8::MAX),
            incarnation: me.incarnation,
            name: me.name.clone(),
            config: Arc::clone(&bound.config),
            messages,
            pending_counts,
            wake_homes: Arc::clone(&shards.wake),
            upcalls,
            observers: observers.clone(),
            places: Arc::clone(&ports.places),
            refusals: Arc::clone(&ports.refusals),
            callers: ports.dispatcher.upgrade().map(|dispatcher| Arc::clone(&dispatcher.callers)),
            unheard: Arc::clone(&shards.unheard),
            attach: Box::new(attach),
            end: tasks.thread_end(&name),
        })?;
        tasks.keep_thread(&name, thread);
    }
    for (number, socket) in of_acceptor {
        let listener = tokio::net::TcpListener::from_std(socket)?;
        let handing = hand_out(listener, number, Arc::clone(&shards.pool.shards), ports.clone());
        tasks.spawn(&format!("acceptor-{number}"), handing);
    }
    Ok(())
}

/// Where the system does not spread connections over listeners, one acceptor does. When listeners are
/// closed, it hands out what waits in the queue.
async fn hand_out(
    listener: tokio::net::TcpListener,
    number: usize,
    mailboxes: Arc<[Mailbox]>,
    ports: ClientPortShared,
) {
    let mut turn = 0;
    let mut give = async |stream, peer| {
        let Some(listener) = ports.config.settings.listeners.get(number) else { return };
        let Some(ticket) = ingress::admit(&ports.admission, &ports.refusals, listener, &stream, peer) else {
            return;
        };
        match stream.into_std() {
            Ok(stream) => {
                turn += 1;
                let message = ShardMessage::Connection { listener: number, stream, ticket };
                mailboxes[turn % mailboxes.len()].send(message).await;
            }
            Err(error) => tracing::debug!(%error, "connection closed before it was accepted"),
        }
    };
    loop {
        let accepted = tokio::select! {
            () = ports.stopping.closing.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => give(stream, peer).await,
            Err(error) => ingress::accept_failed(&error).await,
        }
    }
    let mut closing = ClosingListener::new(listener);
    while let Some((stream, peer)) = closing.next().await {
        give(stream, peer).await;
    }
}
