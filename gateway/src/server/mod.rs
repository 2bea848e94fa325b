//! A gateway's life: bind, run, drain.
//!
//! | file | what |
//! |---|---|
//! | `drain.rs` | graceful stop |
//! | `files.rs` | how many connections the limit on open files allows |
//! | `listen.rs` | opening ports |
//! | `start.rs` | starting the membership and the shards |
//! | `follow.rs` | following the membership and the views |

mod bound;
mod drain;
mod files;
mod follow;
mod listen;
mod start;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use broadgate_proto::{
    limits::{self, CHANNEL_CHANGES_BYTES_MAX},
    v1::{MemberState, View},
};
use broadgate_register::member::RegisterStatus;
use broadgate_tasks::Tasks;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Admission,
    api::{self, InternalServices},
    apps::Apps,
    audit::Audit,
    authorization::Authorizer,
    callers::CallerCounts,
    channel_events,
    cluster::{self, Actor, ActorDeps, ClusterEvent, ClusterHandle, links::Peers},
    config::Config,
    dispatch::{Dispatcher, EvidenceSource, Installed, Latencies},
    fair_queue::{self, inbox},
    health::{Health, Stopping},
    identity::Identity,
    ingress::{self, Certificates},
    observers::Observers,
    redis::{ReaderStates, RedisReaders},
    refusals::Refusals,
    request_bodies::Bodies,
    server::{
        follow::{Installing, MembershipFollower, Next},
        start::{Shards, advertised_host, join, new_me, parser, start_shards},
    },
    shard::{AppConnections, Mailbox, Pool, ShardMessage},
    webhooks::{Journal, Webhooks},
    workers::Attachments,
};

pub use self::bound::Bound;

/// How long tasks and threads may take to end after the gateway has left the cluster.
const END_TIME_MAX: Duration = Duration::from_secs(2);

/// Checks the configuration and opens every port.
///
/// # Errors
/// If a setting is invalid, or something else listens on a port.
pub fn bind(mut config: Config) -> anyhow::Result<Bound> {
    config.check().map_err(anyhow::Error::msg)?;
    config.settings.limits.follow();
    let shards = config.settings.shards.map_or_else(
        || std::thread::available_parallelism().map_or(1, |cores| cores.get().min(256)),
        |shards| usize::from(shards.get()),
    );
    let clients_wanted = config.settings.limits.clients_max;
    let internal_connections_max = files::fit(&mut config, shards);
    let internal = listen::open("gateway.internal.bind", config.settings.internal.bind)?;
    let internal_address = internal.local_addr().context("the internal port has no address")?;
    let certificates = Certificates::open(&config.settings.listeners)?;
    let clients = listen::open_clients(&config, shards)?;
    let limits = &config.settings.limits;
    let admission = Admission::new(limits.clients_max, limits.clients_per_ip_max);
    let refusals = Refusals::new(config.apps.clone(), config.settings.recorder.refused_max);
    Ok(Bound {
        admission,
        refusals: Arc::new(refusals),
        config: Arc::new(config),
        internal,
        internal_address,
        internal_connections_max,
        clients_wanted,
        clients,
        certificates,
        shards,
        health: Health::default(),
        stopping: Stopping::default(),
    })
}

/// Could a gateway be started with the folder that `gateway.spool` names? Leaves it as it was.
///
/// # Errors
/// If it cannot be made or written, or a file of this gateway in it cannot be used.
pub fn check_spool(config: &Config) -> anyhow::Result<()> {
    let Some(spool) = config.settings.spool.as_deref() else { return Ok(()) };
    let internal = config.settings.internal.bind;
    let address = (internal.port() != 0).then_some(internal);
    Webhooks::check(spool, address.map(|address| start::name_of(config, address)).as_deref())
}

/// Could a gateway be started with the certificates that its listeners name?
///
/// # Errors
/// One sentence about the first that cannot be used.
pub fn check_certificates(config: &Config) -> anyhow::Result<()> {
    Certificates::open(&config.settings.listeners).map(drop)
}

impl Bound {
    /// Where the internal port listens.
    #[must_use]
    pub fn internal_address(&self) -> SocketAddr {
        self.internal_address
    }

    /// A handle of the internal port, which stays bound while a handle exists. Nothing is accepted
    /// after [`Bound::run`] has ended.
    ///
    /// # Errors
    /// If the system has no file left for it.
    pub fn internal_listener(&self) -> std::io::Result<std::net::TcpListener> {
        self.internal.try_clone()
    }

    /// Where each client listener listens, by name.
    #[must_use]
    pub fn client_addresses(&self) -> Vec<(String, SocketAddr)> {
        let names = self.config.settings.listeners.iter().map(|listener| listener.name.clone());
        names.zip(self.clients.addresses.iter().copied()).collect()
    }

    /// Cancelled when it begins to drain.
    #[must_use]
    pub fn draining(&self) -> CancellationToken {
        self.stopping.draining.clone()
    }

    /// For the readiness probe.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Serves until `shutdown`, an operator's drain or a permanent refusal, then stops gracefully.
    ///
    /// # Errors
    /// If a thread cannot be started, or the register refuses this gateway permanently.
    pub async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut tasks = Tasks::default();
        // Before clients can connect: it waits for the disk.
        let spool = self.config.settings.spool.as_deref();
        let spawner = tasks.spawner();
        let (webhooks, posting) = Webhooks::open(&self.config.apps, spool, &start::name(&self), &spawner)?;
        tasks.spawn("webhooks", posting);
        let journal = webhooks.journal().map(|path| Journal::open(path, &spawner));
        let journal = journal.transpose()?.map(Arc::new);
        let mut member = join(&self, None);
        let me = Arc::new(ArcSwap::from_pointee(new_me(&self, &member)));
        let (observers, redis) = (Observers::default(), ReaderStates::default());
        let shards = Shards::new(self.shards, self.config.settings.recorder.sends_max);
        let pool = shards.pool.clone();
        let (register_sender, register) = watch::channel(member.register());
        let stop = CancellationToken::new();
        self.watch_certificates(&stop, &mut tasks);
        let known = (&webhooks, journal.clone(), &redis, self.start_audit(&mut tasks)?);
        let dispatcher = self.start_homes(&me, &shards, register, &stop, known, &mut tasks);
        let (open, mut listening) = mpsc::channel(1);
        let ports = self.ports(open, shards.places()?, &dispatcher);
        let sockets = std::mem::take(&mut self.clients.sockets);
        start_shards(&self, sockets, shards, &me.load(), &ports, &observers, &mut tasks)?;
        let internal = self.internal(&dispatcher, &observers, &pool, &me);
        // Only the listeners keep it alive now.
        drop(ports);
        let listener = tokio::net::TcpListener::from_std(self.internal.try_clone()?)?;
        let stop_internal = CancellationToken::new();
        tasks.spawn_fallible("internal port", api::serve(internal, listener, stop_internal.clone()));
        self.start_channel_events(&dispatcher, (&webhooks, redis), &pool, &stop, &mut tasks);
        member.set_state(MemberState::Ready);

        let mut seen = MembershipFollower {
            dispatcher,
            register: register_sender,
            health: self.health.clone(),
            was_in: false,
        };
        let ended = loop {
            let next = tokio::select! {
                () = shutdown.cancelled() => Next::Stop(Ok(())),
                failed = tasks.failed() => {
                    Next::Stop(Err(failed.context("the gateway exits, to be restarted")))
                }
                next = seen.follow(&mut member) => next,
            };
            match next {
                Next::Stop(ended) => break ended,
                Next::Rejoin(why) => {
                    let known = View::clone(&seen.dispatcher.installed.borrow().view);
                    member = join(&self, Some(known));
                    let former = me.swap(Arc::new(new_me(&self, &member)));
                    former.over.cancel();
                    // Its clients are lost to the cluster; observers see that in the view.
                    observers.end();
                    seen.was_in = false;
                    seen.dispatcher.peers.forget_all();
                    seen.dispatcher.homes.send(ClusterEvent::Reborn(member.incarnation())).await;
                    for mailbox in pool.shards.iter() {
                        mailbox.send(ShardMessage::Reborn(member.incarnation(), why)).await;
                    }
                    member.set_state(MemberState::Ready);
                }
            }
        };
        if ended.is_ok() {
            let closing = (&*pool.shards, &webhooks, &mut listening);
            self.stop(&mut member, &mut seen, closing).await;
        }
        member.leave().await;
        // Not before: a peer whose link breaks while this gateway is in the view names it as missing, and a watcher
        // whose stream ends opens another one and takes it that events were lost in between.
        me.load().over.cancel();
        stop_internal.cancel();
        observers.end();
        stop.cancel();
        if let Some(journal) = journal {
            // It waits for the disk.
            let _ = broadgate_tasks::blocking("webhook journal", move || journal.close()).await;
        }
        // A shard ends with the last handle of its mailbox.
        drop((seen, pool, webhooks));
        if let (Ok(()), Err(late)) = (&ended, tasks.join(END_TIME_MAX).await) {
            tracing::warn!(?late, "aborting tasks that did not end in time");
        }
        ended
    }

    /// The task that writes down what callers do.
    fn start_audit(&self, tasks: &mut Tasks) -> anyhow::Result<Audit> {
        let file = self.config.settings.audit.file.clone();
        let (audit, writing) = Audit::open(file, self.config.events.clone())?;
        tasks.spawn("audit", writing);
        Ok(audit)
    }

    /// The task that follows the files of certificates, if there are any.
    fn watch_certificates(&self, stop: &CancellationToken, tasks: &mut Tasks) {
        let Some(certificates) = self.certificates.clone() else { return };
        let stop = stop.clone();
        tasks.spawn("certificates", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                never = certificates.watch() => match never {},
            }
        });
    }

    /// The tasks of channel events, and followers of the apps: their shards, and readers of their Redis.
    fn start_channel_events(
        &self,
        dispatcher: &Arc<Dispatcher>,
        (webhooks, redis): (&Webhooks, ReaderStates),
        pool: &Pool,
        stop: &CancellationToken,
        tasks: &mut Tasks,
    ) {
        let (channel_changes, changes) = inbox(CHANNEL_CHANGES_BYTES_MAX);
        let apps = self.config.apps.clone();
        let telling =
            channel_events::run(apps.clone(), webhooks.clone(), Arc::downgrade(dispatcher), changes);
        self.start_redis(dispatcher, redis, stop, tasks);
        tasks.spawn("channel events", telling);
        let following = FollowApps { apps, mailboxes: Arc::clone(&pool.shards), channel_changes };
        tasks.spawn("apps", following.run(dispatcher.homes.clone(), stop.clone()));
    }

    /// The task of the readers of apps' Redis.
    fn start_redis(
        &self,
        dispatcher: &Arc<Dispatcher>,
        states: ReaderStates,
        stop: &CancellationToken,
        tasks: &mut Tasks,
    ) {
        let payload_bytes_max = self.config.settings.limits.payload_bytes_max();
        let readers = RedisReaders::new(
            self.config.apps.clone(),
            Arc::downgrade(dispatcher),
            dispatcher.installed.clone(),
            payload_bytes_max,
            states,
        );
        tasks.spawn("redis", readers.run(stop.clone()));
    }

    /// What the internal port serves.
    fn internal(
        &self,
        dispatcher: &Arc<Dispatcher>,
        observers: &Observers,
        pool: &Pool,
        me: &Arc<ArcSwap<Identity>>,
    ) -> InternalServices {
        InternalServices {
            dispatcher: Arc::clone(dispatcher),
            observers: observers.clone(),
            attachments: Arc::new(Attachments::new(
                Arc::clone(&pool.shards),
                Arc::clone(me),
                dispatcher.spawner.clone(),
            )),
            credentials: self.config.credentials.clone(),
            command_bytes_max: self.config.settings.limits.payload_bytes_max() + limits::COMMAND_REST_BYTES,
            json_bytes_max: self.config.settings.limits.json_bytes_max(),
            host: advertised_host(&self.config),
            tokens: self.config.tokens.clone(),
            refusals: Arc::clone(&self.refusals),
            connections_max: self.internal_connections_max,
        }
    }

    /// What the client ports of all shards share.
    fn ports(
        &self,
        open: mpsc::Sender<()>,
        places: Arc<AppConnections>,
        dispatcher: &Arc<Dispatcher>,
    ) -> ingress::ClientPortShared {
        let limits = &self.config.settings.limits;
        ingress::ClientPortShared {
            config: Arc::clone(&self.config),
            admission: Arc::clone(&self.admission),
            refusals: Arc::clone(&self.refusals),
            // So that no app can use up all connections.
            bodies: Bodies::new(limits.api_bodies_bytes_max, limits.api_bodies_bytes_max / 2),
            health: self.health.clone(),
            stopping: self.stopping.clone(),
            places,
            authorizer: Authorizer::new(),
            dispatcher: Arc::downgrade(dispatcher),
            certificates: self.certificates.clone(),
            open,
        }
    }

    /// Starts the actor that owns the homes, and the dispatcher.
    fn start_homes(
        &self,
        me: &Arc<ArcSwap<Identity>>,
        shards: &Shards,
        register: watch::Receiver<RegisterStatus>,
        stop: &CancellationToken,
        (webhooks, journal, redis, audit): (&Webhooks, Option<Arc<Journal>>, &ReaderStates, Audit),
        tasks: &mut Tasks,
    ) -> Arc<Dispatcher> {
        let (homes, events) = ClusterHandle::new();
        let (installed_sender, installed) = watch::channel(Installed::default());
        let link_timeout = self.config.settings.limits.link_timeout;
        let retention = self.config.settings.retention_rules(&self.config.apps.load());
        let credentials = self.config.credentials.clone();
        let dispatcher = Arc::new(Dispatcher {
            me: Arc::clone(me),
            local: shards.pool.clone(),
            peers: Peers::new(credentials, Arc::clone(me), homes.clone(), link_timeout, tasks.spawner()),
            spawner: tasks.spawner(),
            homes: homes.clone(),
            retention: retention.clone(),
            parser: parser(&self.config),
            apps: self.config.apps.clone(),
            listener_services: self.config.settings.listener_services(),
            latencies: Latencies::new(),
            link_timeout,
            register: Box::new(move || register.borrow().clone()),
            redis: Box::new({
                let redis = redis.clone();
                move || redis.rows()
            }),
            outside: ArcSwap::default(),
            installed,
            started: Instant::now(),
            evidence: EvidenceSource {
                config: Arc::clone(&self.config),
                clients_wanted: self.clients_wanted,
                webhooks: webhooks.failing(),
                audit: audit.clone(),
                admission: Arc::clone(&self.admission),
                refusals: Arc::clone(&self.refusals),
            },
            audit,
            callers: Arc::new(CallerCounts::new()),
            refusals: Arc::clone(&self.refusals),
            next_id: AtomicU64::new(1),
        });
        let installing = Installing {
            dispatcher: Arc::clone(&dispatcher),
            installed: installed_sender,
            health: self.health.clone(),
            draining: self.stopping.draining.clone(),
        };
        let deps = ActorDeps {
            shards: shards.pool.clone(),
            pending_counts: shards.pending_counts.clone(),
            wake: Arc::clone(&shards.wake),
            unheard: Arc::clone(&shards.unheard),
            installed: Box::new(move |view| installing.install(view)),
            journal,
            spawner: tasks.spawner(),
        };
        let limits = self.config.settings.limits.of_homes();
        let actor = Actor::new(me.load().incarnation, limits, retention, deps, homes);
        tasks.spawn("topics", actor.run(events, stop.clone()));
        dispatcher
    }
}

/// Follows changes of the apps.
struct FollowApps {
    apps: Apps,
    mailboxes: Arc<[Mailbox]>,
    channel_changes: fair_queue::FairSender<cluster::ChannelChange>,
}

impl FollowApps {
    /// Notifies the shards and the homes whenever the apps were replaced.
    async fn run(self, homes: ClusterHandle, stop: CancellationToken) {
        let mut changes = self.apps.changes();
        loop {
            let about = channel_events::reporting(&self.apps.load());
            homes.send(ClusterEvent::Report(about, self.channel_changes.clone())).await;
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
            for mailbox in self.mailboxes.iter() {
                mailbox.send(ShardMessage::Apps).await;
            }
        }
    }
}
