//! A worker from its join to its leave.

use std::{
    collections::HashMap,
    future::Future,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, atomic::Ordering},
};

use anyhow::Context as _;
use broadgate_proto::{
    VERSION,
    id::Incarnation,
    limits,
    v1::{Member, MemberState, Role, View, WorkerHello},
    view,
};
use broadgate_register::member::{self, Advertise, ClusterMember, MemberEvent};
use broadgate_tasks::Tasks;
use futures_util::FutureExt as _;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::Instant,
};

use crate::{
    cluster::Cluster,
    worker::{
        config::WorkerConfig,
        context::Context,
        core::WorkerCore,
        handler::Handler,
        job::Orders,
        link::{self},
        meters::Meters,
        offers,
        timer::Timer,
    },
};

/// What a failed task means.
const ENDS: &str = "the worker exits, to be restarted";

struct WorkerLife<H> {
    config: WorkerConfig,
    core: Arc<WorkerCore<H>>,
    member: ClusterMember,
    /// What the cluster client and the timers follow, also across incarnations.
    views: watch::Sender<Arc<View>>,
    identity: watch::Sender<Incarnation>,
    links: HashMap<Incarnation, Orders>,
    /// Each ends when its gateway has left, or has released this worker.
    link_tasks: JoinSet<LinkEnd>,
    orders: Orders,
    timers: Tasks,
    /// What takes events of Pusher clients, by app.
    offers: Tasks,
    ready: bool,
    /// The log has said so.
    ready_logged: bool,
}

/// How the link to one gateway ended.
struct LinkEnd {
    incarnation: Incarnation,
    gateway: Arc<str>,
    /// An error if it panicked.
    ended: Result<(), String>,
}

/// Runs a worker until `shutdown`, or until the cluster refuses it or one of its tasks fails.
pub(crate) async fn run<H: Handler>(
    config: WorkerConfig,
    timers: Vec<Timer>,
    handler: H,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let mut life = WorkerLife::join(config, handler);
    for (number, timer) in (1..).zip(timers) {
        let service = life.core.hello.services.first().cloned().unwrap_or_default();
        let ticking = timer.run(life.core.context.clone(), life.views.subscribe(), service);
        life.timers.spawn(&format!("timer-{number}"), ticking);
    }
    let served = life.serve(shutdown).await;
    // No tick is under way while the worker stops.
    life.timers = Tasks::default();
    match served {
        Ok(()) => life.stop().await,
        // The others see it go at once.
        Err(_) => life.member.leave().await,
    }
    served
}

fn join(config: &WorkerConfig, known: Option<View>) -> ClusterMember {
    member::join(member::Config {
        registers: config.registers.clone(),
        credentials: config.credentials(),
        role: Role::Worker,
        name: config.name.clone(),
        version: VERSION.to_owned(),
        services: config.services.clone(),
        listeners: HashMap::new(),
        advertise: Advertise::None,
        known,
    })
}

impl<H: Handler> WorkerLife<H> {
    fn join(config: WorkerConfig, handler: H) -> Self {
        let member = join(&config, None);
        let (views, followed) = watch::channel(Arc::default());
        let (identity, incarnation) = watch::channel(member.incarnation());
        let cluster = Cluster::with_views(followed, config.credentials(), &config.app, config.timeout);
        let hello = WorkerHello {
            incarnation: String::new(),
            name: config.name.clone(),
            services: config.services.clone(),
            events_max: config.events_max,
            version: VERSION.to_owned(),
        };
        let context = Context { cluster, name: config.name.as_str().into(), incarnation };
        let (meters, runner_panicked) = (Meters::new(), Notify::new());
        let core = Arc::new(WorkerCore { handler, context, hello, meters, runner_panicked });
        Self {
            config,
            core,
            member,
            views,
            identity,
            links: HashMap::new(),
            link_tasks: JoinSet::new(),
            orders: Orders::default(),
            timers: Tasks::default(),
            offers: Tasks::default(),
            ready: false,
            ready_logged: false,
        }
    }

    async fn serve(&mut self, shutdown: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
        let core = self.core.clone();
        let mut shutdown = pin!(shutdown);
        let mut started = pin!(core.handler.started(&core.context));
        let mut views = self.member.views();
        views.mark_changed();
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => return Ok(()),
                result = &mut started, if !self.ready => {
                    result.context("the worker could not start")?;
                    self.ready = true;
                    self.member.set_state(MemberState::Ready);
                    self.install();
                    for app in self.config.pusher_apps.clone() {
                        let name = format!("Pusher events of {app}");
                        let taking = offers::run(core.clone(), app, self.orders.leaving.clone());
                        self.offers.spawn_fallible(&name, taking);
                    }
                    self.tell_ready();
                }
                Ok(()) = views.changed() => {
                    self.views.send_replace(views.borrow_and_update().clone());
                    self.install();
                    self.tell_ready();
                }
                event = self.member.event() => match event {
                    MemberEvent::Drain { .. } => return Ok(()),
                    MemberEvent::Removed { reason } => {
                        self.rejoin(&reason);
                        views = self.member.views();
                        views.mark_changed();
                    }
                    MemberEvent::Failed { sentence } => return Err(anyhow::anyhow!(sentence).context(ENDS)),
                    MemberEvent::Refused { sentence, fatal: true } => anyhow::bail!(sentence),
                    MemberEvent::Refused { sentence, fatal: false } => tracing::warn!("{sentence}"),
                },
                Some(Ok(link)) = self.link_tasks.join_next() => self.link_ended(link)?,
                failed = self.timers.failed() => return Err(failed.context(ENDS)),
                failed = self.offers.failed() => return Err(failed.context(ENDS)),
                () = core.runner_panicked.notified() => {
                    return Err(anyhow::anyhow!("task \"clients\" failed: it panicked").context(ENDS));
                }
            }
        }
    }

    /// Says once that the worker is ready: not before a register has taken it in, which may never happen.
    fn tell_ready(&mut self) {
        let me = self.member.incarnation();
        if self.ready && !self.ready_logged && view::find(&self.views.borrow(), me).is_some() {
            self.ready_logged = true;
            tracing::info!(name = self.config.name, incarnation = %me, "the worker is ready");
        }
    }

    /// Links every gateway of the view that has none, and tells the links of those that have gone.
    fn install(&mut self) {
        let now = self.views.borrow().clone();
        // Nothing is known yet: no reason to drop anything.
        if view::epoch(&now) == broadgate_proto::v1::Epoch::default() {
            return;
        }
        for (incarnation, orders) in &self.links {
            match view::find(&now, *incarnation) {
                Some(gateway) => {
                    orders.draining.store(view::goes(gateway), Ordering::Relaxed);
                }
                None => end(orders),
            }
        }
        if !self.ready || self.orders.leaving.is_cancelled() {
            return;
        }
        let with_clients = |gateway: &&Member| !gateway.address.is_empty() && !view::is_leaving(gateway);
        for gateway in view::gateways(&now).filter(with_clients) {
            let Ok(incarnation) = gateway.incarnation.parse::<Incarnation>() else { continue };
            if self.links.contains_key(&incarnation) {
                continue;
            }
            let orders = Orders { leaving: self.orders.leaving.clone(), ..Orders::default() };
            self.links.insert(incarnation, orders.clone());
            let gateway: Arc<str> = gateway.name.as_str().into();
            let strike = broadgate_tasks::strike(&link_name(&gateway));
            let running = link::run(self.core.clone(), incarnation, gateway.clone(), orders);
            let watched = async {
                tokio::select! {
                    () = running => {}
                    never = strike => match never {},
                }
            };
            self.link_tasks.spawn(async move {
                let ended = AssertUnwindSafe(watched).catch_unwind().await;
                let ended = ended.map_err(|panic| broadgate_tasks::text_of(&*panic).to_owned());
                LinkEnd { incarnation, gateway, ended }
            });
        }
    }

    fn link_ended(&mut self, LinkEnd { incarnation, gateway, ended }: LinkEnd) -> anyhow::Result<()> {
        // It stays out of the links only if it has left the view: incarnations never return.
        self.links.remove(&incarnation);
        ended.map_err(|panic| {
            let name = link_name(&gateway);
            anyhow::anyhow!("task {name:?} failed: it panicked: {panic}").context(ENDS)
        })
    }

    /// The register has given this incarnation up: comes back as another.
    fn rejoin(&mut self, reason: &str) {
        tracing::warn!(reason, "removed from the cluster: joining again");
        let known = View::clone(&self.views.borrow());
        self.member = join(&self.config, Some(known));
        self.identity.send_replace(self.member.incarnation());
        self.ready_logged = false;
        if self.ready {
            self.member.set_state(MemberState::Ready);
        }
    }

    /// Takes nothing new, handles what has come, leaves.
    async fn stop(mut self) {
        self.member.set_state(MemberState::Draining);
        self.orders.leaving.cancel();
        self.release().await;
        let core = &self.core;
        // Also what a handler does before it returns its future.
        let stopping = async { core.handler.stopping(&core.context).await };
        let stopping = AssertUnwindSafe(stopping).catch_unwind().await;
        self.core.note("stopping", stopping);
        self.member.leave().await;
        tracing::info!(name = self.config.name, "the worker has left the cluster");
    }

    /// Waits until every gateway has released this worker and all events are handled, within the stop time.
    async fn release(&mut self) {
        let deadline = Instant::now() + self.config.stop_time;
        let mut views = self.member.views();
        let mut offers = pin!(std::mem::take(&mut self.offers).join(self.config.stop_time));
        let mut offers_end = false;
        while !(self.link_tasks.is_empty() && offers_end) {
            tokio::select! {
                _ = &mut offers, if !offers_end => offers_end = true,
                Some(Ok(link)) = self.link_tasks.join_next() => {
                    if let Err(error) = self.link_ended(link) {
                        tracing::error!("{error:#}");
                    }
                }
                Ok(()) = views.changed() => {
                    self.views.send_replace(views.borrow_and_update().clone());
                    self.install();
                }
                () = tokio::time::sleep_until(deadline) => {
                    tracing::warn!(
                        gateways = self.link_tasks.len(),
                        "not released by all gateways in time: their events go to other workers"
                    );
                    self.link_tasks.abort_all();
                    break;
                }
            }
        }
    }
}

fn link_name(gateway: &str) -> String {
    format!("link to {gateway}")
}

/// A gateway that drained first has said all it had to say, perhaps a moment ago; from any other
/// nothing is to come.
fn end(orders: &Orders) {
    if !orders.draining.load(Ordering::Relaxed) {
        orders.gone.cancel();
    } else if !orders.gone.is_cancelled() {
        let gone = orders.gone.clone();
        broadgate_tasks::spawn("end of a link", async move {
            tokio::time::sleep(limits::LINK_TIMEOUT).await;
            gone.cancel();
        });
    }
}
