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
    v1::{MemberState, Role, View, WorkerHello},
    view,
};
use broadgate_register::member::{self, Advertise, Member, MemberEvent};
use futures_util::FutureExt as _;
use tokio::{sync::watch, task::JoinSet, time::Instant};

use crate::{
    cluster::Cluster,
    worker::{
        config::WorkerConfig,
        context::Context,
        core::Core,
        handler::Handler,
        job::Orders,
        link::{self},
        meters::Meters,
        offers,
        timer::Timer,
    },
};

struct Life<H> {
    config: WorkerConfig,
    core: Arc<Core<H>>,
    member: Member,
    /// What the cluster client and the timers follow, also across incarnations.
    views: watch::Sender<Arc<View>>,
    identity: watch::Sender<Incarnation>,
    links: HashMap<Incarnation, Orders>,
    tasks: JoinSet<Incarnation>,
    orders: Orders,
    /// What takes events of Pusher clients, by app.
    offers: JoinSet<()>,
    ready: bool,
    /// The log has said so.
    told: bool,
}

/// Runs a worker until `shutdown`, or until the cluster refuses it.
pub(crate) async fn run<H: Handler>(
    config: WorkerConfig,
    timers: Vec<Timer>,
    handler: H,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let mut life = Life::join(config, handler);
    // Ticking ends when this is dropped, as the worker begins to stop or has failed.
    let mut ticking = JoinSet::new();
    for timer in timers {
        let service = life.core.hello.services.first().cloned().unwrap_or_default();
        ticking.spawn(timer.run(life.core.context.clone(), life.views.subscribe(), service));
    }
    life.serve(shutdown).await?;
    drop(ticking);
    life.stop().await;
    Ok(())
}

fn join(config: &WorkerConfig, known: Option<View>) -> Member {
    member::join(member::Config {
        registers: config.registers.clone(),
        secret: config.secret.clone(),
        role: Role::Worker,
        name: config.name.clone(),
        version: VERSION.to_owned(),
        services: config.services.clone(),
        listeners: HashMap::new(),
        advertise: Advertise::None,
        known,
    })
}

impl<H: Handler> Life<H> {
    fn join(config: WorkerConfig, handler: H) -> Self {
        let member = join(&config, None);
        let (views, followed) = watch::channel(Arc::default());
        let (identity, incarnation) = watch::channel(member.incarnation());
        let cluster = Cluster::with_views(followed, config.secret.clone(), &config.app, config.timeout);
        let hello = WorkerHello {
            incarnation: String::new(),
            name: config.name.clone(),
            services: config.services.clone(),
            events_max: config.events_max,
            version: VERSION.to_owned(),
        };
        let context = Context { cluster, name: config.name.as_str().into(), incarnation };
        let core = Arc::new(Core { handler, context, hello, meters: Meters::new() });
        Self {
            config,
            core,
            member,
            views,
            identity,
            links: HashMap::new(),
            tasks: JoinSet::new(),
            orders: Orders::default(),
            offers: JoinSet::new(),
            ready: false,
            told: false,
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
                        self.offers.spawn(offers::run(core.clone(), app, self.orders.leaving.clone()));
                    }
                    self.tell_ready();
                }
                Ok(()) = views.changed() => {
                    self.views.send_replace(views.borrow_and_update().clone());
                    self.install();
                    self.tell_ready();
                }
                event = self.member.event() => match event {
                    MemberEvent::Drain => return Ok(()),
                    MemberEvent::Removed { reason } => {
                        self.rejoin(&reason);
                        views = self.member.views();
                        views.mark_changed();
                    }
                    MemberEvent::Refused { sentence, fatal: true } => anyhow::bail!(sentence),
                    MemberEvent::Refused { sentence, fatal: false } => tracing::warn!("{sentence}"),
                },
                Some(ended) = self.tasks.join_next() => self.ended(ended),
            }
        }
    }

    /// Says once that the worker is ready: not before a register has taken it in, which may never happen.
    fn tell_ready(&mut self) {
        let me = self.member.incarnation();
        if self.ready && !self.told && view::find(&self.views.borrow(), me).is_some() {
            self.told = true;
            tracing::info!(name = self.config.name, incarnation = %me, "the worker is ready");
        }
    }

    /// Links every gateway of the view that has none, and tells the links of those that have gone.
    fn install(&mut self) {
        let now = self.views.borrow().clone();
        // Nothing is known yet: that is no reason to let go of anything.
        if view::epoch(&now) == broadgate_proto::v1::Epoch::default() {
            return;
        }
        for (incarnation, orders) in &self.links {
            match view::find(&now, *incarnation) {
                Some(gateway) => {
                    orders.draining.store(gateway.state() == MemberState::Draining, Ordering::Relaxed);
                }
                None => end(orders),
            }
        }
        if !self.ready || self.orders.leaving.is_cancelled() {
            return;
        }
        for gateway in view::gateways(&now).filter(|gateway| !gateway.address.is_empty()) {
            let Ok(incarnation) = gateway.incarnation.parse::<Incarnation>() else { continue };
            if self.links.contains_key(&incarnation) {
                continue;
            }
            let orders = Orders { leaving: self.orders.leaving.clone(), ..Orders::default() };
            self.links.insert(incarnation, orders.clone());
            let (core, name) = (self.core.clone(), gateway.name.as_str().into());
            self.tasks.spawn(async move {
                link::run(core, incarnation, name, orders).await;
                incarnation
            });
        }
    }

    fn ended(&mut self, ended: Result<Incarnation, tokio::task::JoinError>) {
        match ended {
            // It stays out of the links only if it has left the view: incarnations never return.
            Ok(incarnation) => drop(self.links.remove(&incarnation)),
            Err(error) => tracing::error!(%error, "a gateway's link failed"),
        }
    }

    /// The register has given this incarnation up: comes back as another.
    fn rejoin(&mut self, reason: &str) {
        tracing::warn!(reason, "removed from the cluster: joining again");
        let known = View::clone(&self.views.borrow());
        self.member = join(&self.config, Some(known));
        self.identity.send_replace(self.member.incarnation());
        self.told = false;
        if self.ready {
            self.member.set_state(MemberState::Ready);
        }
    }

    /// Takes nothing new, handles what has come, leaves.
    async fn stop(mut self) {
        self.member.set_state(MemberState::Draining);
        self.orders.leaving.cancel();
        let deadline = Instant::now() + self.config.stop_time;
        let mut views = self.member.views();
        while !(self.tasks.is_empty() && self.offers.is_empty()) {
            tokio::select! {
                Some(_) = self.offers.join_next() => {}
                Some(ended) = self.tasks.join_next() => self.ended(ended),
                Ok(()) = views.changed() => {
                    self.views.send_replace(views.borrow_and_update().clone());
                    self.install();
                }
                () = tokio::time::sleep_until(deadline) => {
                    tracing::warn!(
                        gateways = self.tasks.len(),
                        "not released by all gateways in time: their events go to other workers"
                    );
                    self.tasks.abort_all();
                    self.offers.abort_all();
                    break;
                }
            }
        }
        let stopping = self.core.handler.stopping(&self.core.context);
        let stopping = AssertUnwindSafe(stopping).catch_unwind().await;
        self.core.note("stopping", stopping);
        self.member.leave().await;
        tracing::info!(name = self.config.name, "the worker has left the cluster");
    }
}

/// A gateway that drained first has said all it had to say, perhaps a moment ago; from any other
/// nothing is to come.
fn end(orders: &Orders) {
    if !orders.draining.load(Ordering::Relaxed) {
        orders.gone.cancel();
    } else if !orders.gone.is_cancelled() {
        let gone = orders.gone.clone();
        tokio::spawn(async move {
            tokio::time::sleep(limits::LINK_TIMEOUT).await;
            gone.cancel();
        });
    }
}
