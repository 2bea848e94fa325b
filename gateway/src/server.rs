//! A gateway's life: bind, run, drain.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use broadgate_proto::{
    VERSION, limits,
    v1::{MemberState, Role, View},
};
use broadgate_register::member::{self, Advertise, Member, MemberEvent, RegisterStatus, ring::Ring, view};
use metrics::gauge;
use tokio::sync::{Notify, broadcast::error::RecvError, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    actor::{Actor, Around, Event, Homes, Standings},
    admission::Admission,
    api::{self, Internal},
    codec::encode::Encoder,
    commands::{Dispatcher, Installed, Local},
    config::{Accept, Config, ListenerKind},
    homes,
    listen::{self, ClientListeners},
    me::Me,
    orders::Parser,
    peers::Peers,
    shard::{self, Mailbox, Message},
    workers::Attachments,
};

/// Files that are not clients: listeners, links, logs.
const FILES_RESERVED: u64 = 256;
/// A membership that is over says why within this.
const LAST_WORD_TIME_MAX: Duration = Duration::from_secs(5);
/// So many clients are let go in a second, unless the drain time asks for more.
const DRAIN_CLIENTS_PER_SECOND: usize = 1000;

/// A gateway whose ports are open, and which does nothing yet.
pub struct Bound {
    config: Arc<Config>,
    internal: std::net::TcpListener,
    internal_address: SocketAddr,
    clients: ClientListeners,
    shards: usize,
    health: Health,
    /// Cancelled when the gateway takes nobody in any more.
    accepting: CancellationToken,
}

/// How a gateway does, for probes.
#[derive(Clone, Default)]
pub struct Health(Arc<AtomicBool>);

impl Health {
    /// Is it in a view, and not draining?
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Checks the configuration and opens every port.
///
/// # Errors
/// If a setting does not hold, or something else listens on a port.
pub fn bind(mut config: Config) -> anyhow::Result<Bound> {
    config.check().map_err(anyhow::Error::msg)?;
    fit_open_files(&mut config);
    let shards = config.settings.shards.map_or_else(
        || std::thread::available_parallelism().map_or(1, |cores| cores.get().min(256)),
        |shards| usize::from(shards.get()),
    );
    let internal = listen::open("gateway.internal.bind", config.settings.internal.bind)?;
    let internal_address = internal.local_addr().context("the internal port has no address")?;
    let clients = listen::open_clients(&config, shards)?;
    Ok(Bound {
        config: Arc::new(config),
        internal,
        internal_address,
        clients,
        shards,
        health: Health::default(),
        accepting: CancellationToken::new(),
    })
}

/// A gateway must not accept what it has no files for.
fn fit_open_files(config: &mut Config) {
    let wanted = config.settings.limits.clients_max as u64 + FILES_RESERVED;
    let allowed = rlimit::increase_nofile_limit(wanted).unwrap_or(wanted);
    let limit = &mut config.settings.limits.clients_max;
    let fits = usize::try_from(allowed.saturating_sub(FILES_RESERVED)).unwrap_or(usize::MAX).max(1);
    if *limit <= fits {
        tracing::info!(clients_max = *limit, open_files = allowed, "client limit");
    } else if *limit == limits::CLIENTS_MAX {
        tracing::info!(
            clients_max = fits,
            open_files = allowed,
            "client limit, which the open-files limit sets"
        );
    } else {
        tracing::warn!(
            open_files = allowed,
            configured = *limit,
            taken = fits,
            "the open-files limit allows fewer clients than gateway.limits.clients_max: raise `ulimit -n`"
        );
    }
    *limit = fits.min(*limit);
}

impl Bound {
    /// Where the internal port listens.
    #[must_use]
    pub fn internal_address(&self) -> SocketAddr {
        self.internal_address
    }

    /// Where each client listener listens, by name.
    #[must_use]
    pub fn client_addresses(&self) -> Vec<(String, SocketAddr)> {
        let names = self.config.settings.listeners.iter().map(|listener| listener.name.clone());
        names.zip(self.clients.addresses.iter().copied()).collect()
    }

    /// For the readiness probe.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Serves until `shutdown`, an operator's drain, or a refusal for good; then stops in good order.
    ///
    /// # Errors
    /// If a thread cannot be started, or the register refuses this gateway for good.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut member = join(&self, None);
        let me = Arc::new(ArcSwap::from_pointee(new_me(&self, &member)));
        let shards = start_shards(&self, &me)?;
        let mailboxes = Arc::clone(&shards.mailboxes);
        let (register_sender, register) = watch::channel(member.register());
        let stop_homes = CancellationToken::new();
        let dispatcher = self.start_homes(&me, &shards, register, &stop_homes);
        let internal = Internal {
            dispatcher: Arc::clone(&dispatcher),
            attachments: Arc::new(Attachments::new(Arc::clone(&mailboxes), Arc::clone(&me))),
            secret: self.config.secret.clone(),
            host: advertised_host(&self.config),
        };
        let listener = tokio::net::TcpListener::from_std(self.internal.try_clone()?)?;
        let stop_internal = CancellationToken::new();
        let serving = tokio::spawn(api::serve(internal, listener, stop_internal.clone()));
        member.set_state(MemberState::Ready);

        let mut seen =
            Seen { dispatcher, register: register_sender, health: self.health.clone(), was_in: false };
        let ended = loop {
            let next = tokio::select! {
                () = shutdown.cancelled() => Next::Stop(Ok(())),
                next = seen.follow(&mut member) => next,
            };
            match next {
                Next::Stop(ended) => break ended,
                Next::JoinAnew => {
                    let known = View::clone(&seen.dispatcher.installed.borrow().view);
                    member = join(&self, Some(known));
                    let former = me.swap(Arc::new(new_me(&self, &member)));
                    former.over.cancel();
                    seen.was_in = false;
                    seen.dispatcher.peers.forget_all();
                    seen.dispatcher.homes.tell(Event::Reborn(member.incarnation())).await;
                    for mailbox in mailboxes.iter() {
                        mailbox.send(Message::Reborn(member.incarnation())).await;
                    }
                    member.set_state(MemberState::Ready);
                }
            }
        };
        if ended.is_ok() {
            self.drain(&member, &mailboxes, &seen.dispatcher).await;
        }
        me.load().over.cancel();
        member.leave().await;
        stop_internal.cancel();
        stop_homes.cancel();
        // Its connections end with their streams, which have just been ended.
        let _ = tokio::time::timeout(Duration::from_secs(1), serving).await;
        drop((seen, mailboxes));
        drop(shards.threads);
        ended
    }

    /// Starts the actor that owns the homes, and what places commands.
    fn start_homes(
        &self,
        me: &Arc<ArcSwap<Me>>,
        shards: &Shards,
        register: watch::Receiver<RegisterStatus>,
        stop: &CancellationToken,
    ) -> Arc<Dispatcher> {
        let (homes, events) = Homes::new();
        let (installed_sender, installed) = watch::channel(Installed::default());
        let link_timeout = self.config.settings.limits.link_timeout;
        let keeping = self.config.settings.keeping();
        let secret = self.config.secret.clone();
        let local = Local { shards: Arc::clone(&shards.mailboxes) };
        let dispatcher = Arc::new(Dispatcher {
            me: Arc::clone(me),
            local: local.clone(),
            peers: Peers::new(secret, Arc::clone(me), homes.clone(), link_timeout),
            homes: homes.clone(),
            keeping: keeping.clone(),
            parser: parser(&self.config),
            link_timeout,
            register: Box::new(move || register.borrow().clone()),
            installed,
            started: Instant::now(),
            next_id: AtomicU64::new(1),
        });
        let installing = Installing {
            dispatcher: Arc::clone(&dispatcher),
            installed: installed_sender,
            health: self.health.clone(),
        };
        let around = Around {
            local,
            standings: shards.standings.clone(),
            wake: Arc::clone(&shards.wake),
            installed: Box::new(move |view| installing.install(view)),
        };
        let limits = homes::Limits { link_timeout, ..homes::Limits::default() };
        let actor = Actor::new(me.load().incarnation, limits, keeping, around, homes);
        tokio::spawn(actor.run(events, stop.clone()));
        dispatcher
    }

    /// Not ready, then nothing new, then clients in slices; what is acknowledged is finished.
    async fn drain(&self, member: &Member, mailboxes: &[Mailbox], dispatcher: &Arc<Dispatcher>) {
        let stop = &self.config.settings.stop;
        self.health.0.store(false, Ordering::Relaxed);
        member.set_state(MemberState::Draining);
        tracing::info!(ready_delay = ?stop.ready_delay, drain = ?stop.drain, "draining");
        tokio::time::sleep(stop.ready_delay).await;
        let clients = dispatcher.own_clients().await;
        let unhurried = Duration::from_millis(clients as u64 * 1000 / DRAIN_CLIENTS_PER_SECOND as u64);
        // The last ones need time for their farewells.
        let over = unhurried.min(stop.drain * 4 / 5);
        let mut waiting = Vec::new();
        self.accepting.cancel();
        for mailbox in mailboxes {
            let (done, drained) = oneshot::channel();
            mailbox.send(Message::StopAccepting).await;
            mailbox.send(Message::Drain { over, done }).await;
            waiting.push(drained);
        }
        let all = futures_util::future::join_all(waiting);
        if tokio::time::timeout(stop.drain, all).await.is_err() {
            tracing::warn!("the drain time is over: what is left is cut");
        } else {
            tracing::info!(clients, "drained");
        }
    }
}

/// What ends the quiet time of a gateway.
enum Next {
    Stop(anyhow::Result<()>),
    JoinAnew,
}

/// What follows the membership.
struct Seen {
    dispatcher: Arc<Dispatcher>,
    register: watch::Sender<RegisterStatus>,
    health: Health,
    /// This incarnation has been in a view.
    was_in: bool,
}

impl Seen {
    /// Follows views until something must be done.
    async fn follow(&mut self, member: &mut Member) -> Next {
        let mut views = member.every_view();
        let mut installed = self.dispatcher.installed.clone();
        let mut second = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                view = views.recv() => {
                    let view = match view {
                        Ok(view) => view,
                        // The homes notice the gap.
                        Err(RecvError::Lagged(_)) => member.views().borrow().clone(),
                        Err(RecvError::Closed) => return self.last_word(member).await,
                    };
                    self.dispatcher.homes.tell(Event::View(view)).await;
                }
                Ok(()) = installed.changed() => {
                    let view = installed.borrow_and_update().view.clone();
                    self.register.send_replace(member.register());
                    if self.is_out(&view, member) {
                        let reason = "a peer knows a view without this gateway".to_owned();
                        return self.act(MemberEvent::Removed { reason }).unwrap_or(Next::JoinAnew);
                    }
                    member.learn(view);
                }
                _ = second.tick() => {
                    // Whether the register is heard is only for answers and gauges.
                    let register = member.register();
                    gauge!("gateway_register_heard").set(f64::from(u8::from(register.heard)));
                    self.register.send_replace(register);
                }
                event = member.event() => {
                    if let Some(next) = self.act(event) {
                        return next;
                    }
                }
            }
        }
    }

    /// Was this incarnation in a view, and is it in the newest no more?
    fn is_out(&mut self, view: &View, member: &Member) -> bool {
        let is_in = view::find(view, member.incarnation()).is_some();
        self.was_in |= is_in;
        self.was_in && !is_in
    }

    /// What an event of the membership means for the gateway.
    fn act(&self, event: MemberEvent) -> Option<Next> {
        match event {
            MemberEvent::Removed { reason } => {
                tracing::warn!(reason, "removed from the view: letting clients go and joining anew");
                self.health.0.store(false, Ordering::Relaxed);
                Some(Next::JoinAnew)
            }
            MemberEvent::Drain => {
                tracing::info!("an operator asked this gateway to drain");
                Some(Next::Stop(Ok(())))
            }
            MemberEvent::Refused { sentence, fatal: true } => {
                Some(Next::Stop(Err(anyhow::anyhow!(sentence))))
            }
            MemberEvent::Refused { sentence, fatal: false } => {
                tracing::error!("{sentence}");
                None
            }
        }
    }

    /// The views have ended: the membership is over, and its last event says why.
    async fn last_word(&self, member: &mut Member) -> Next {
        let reasons = async {
            loop {
                if let Some(next) = self.act(member.event().await) {
                    return next;
                }
            }
        };
        tokio::time::timeout(LAST_WORD_TIME_MAX, reasons).await.unwrap_or_else(|_| {
            Next::Stop(Err(anyhow::anyhow!(
                "the thread that belongs to the cluster has ended without a reason"
            )))
        })
    }
}

/// What follows the views that the homes have installed.
struct Installing {
    dispatcher: Arc<Dispatcher>,
    installed: watch::Sender<Installed>,
    health: Health,
}

impl Installing {
    fn install(&self, view: &Arc<View>) {
        let epoch = view::epoch(view);
        gauge!("gateway_epoch_term").set(epoch.term as f64);
        gauge!("gateway_epoch_count").set(epoch.count as f64);
        gauge!("gateway_peers").set(view::gateways(view).count().saturating_sub(1) as f64);
        let me = self.dispatcher.me.load().incarnation;
        let mine = view::find(view, me);
        let ready = mine.is_some_and(|me| me.state() == MemberState::Ready);
        let inside = mine.map(|_| me);
        // Before the view is told: whoever reads there that this gateway is ready finds it so.
        self.health.0.store(ready, Ordering::Relaxed);
        self.dispatcher.peers.follow(view);
        let ring = Some(Arc::new(Ring::of_view(view)));
        self.installed.send_replace(Installed { view: Arc::clone(view), ring, inside });
    }
}

fn join(bound: &Bound, known: Option<View>) -> Member {
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

fn name(bound: &Bound) -> String {
    let settings = &bound.config.settings;
    if !settings.name.is_empty() {
        return settings.name.clone();
    }
    settings.internal.advertise.clone().unwrap_or_else(|| bound.internal_address.to_string())
}

fn new_me(bound: &Bound, member: &Member) -> Me {
    Me { incarnation: member.incarnation(), name: name(bound), over: CancellationToken::new() }
}

fn advertised_host(config: &Config) -> String {
    let internal = &config.settings.internal;
    let advertised = internal.advertise.clone().unwrap_or_else(|| internal.bind.to_string());
    advertised.rsplit_once(':').map_or(advertised.clone(), |(host, _)| host.to_owned())
}

fn parser(config: &Config) -> Parser {
    let speaks = |kind| config.settings.listeners.iter().any(|listener| listener.kind == kind);
    Parser {
        encoder: Encoder {
            websocket: speaks(ListenerKind::Web),
            text: speaks(ListenerKind::Text),
            frame: speaks(ListenerKind::Frame),
        },
        session_bytes_max: config.settings.limits.session_bytes_max,
    }
}

/// The shards as the rest of the gateway knows them.
struct Shards {
    mailboxes: Arc<[Mailbox]>,
    standings: Vec<Arc<Standings>>,
    /// Wakes the homes' actor.
    wake: Arc<Notify>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

fn start_shards(bound: &Bound, me: &ArcSwap<Me>) -> anyhow::Result<Shards> {
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
async fn hand_out(
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
