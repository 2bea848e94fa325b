//! The task that feeds the core and does what it decides.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use broadgate_proto::v1;
use metrics::{counter, gauge, histogram};
use tokio::{
    sync::{oneshot, watch},
    task::{self, JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use super::{
    core::{EndpointEffect, EndpointId, WebhookCore},
    event::{DropReason, EndpointEvent, WebhookEffect},
    fact,
    health::HealthChange,
    post::PostTarget,
    send::{PostFailure, PostSender},
    spool::{Spool, SpooledEvent},
};
use crate::{
    apps::Apps,
    fair_queue::{FairReceiver, QueueItem, Says},
};

/// Facts that are taken in one turn.
const TURN_FACTS_MAX: usize = 256;
/// Lost events of an endpoint are logged at most once within this.
const LOSS_TOLD_INTERVAL: Duration = Duration::from_secs(60);

/// Input of the task.
pub(super) enum RunInput {
    Fact {
        app: String,
        news: fact::TrackedFact,
    },
    /// Another gateway is the home of a channel now.
    Moved {
        app: String,
        channel: String,
    },
    Drain(Drain),
    /// Answered with what still waits, when the spool is on disk.
    Stop(oneshot::Sender<usize>),
}

impl QueueItem for RunInput {
    fn about(&self) -> Option<(&str, &str)> {
        match self {
            Self::Fact { app, news } => Some((app, news.fact.channel())),
            Self::Moved { app, channel } => Some((app, channel)),
            Self::Drain(_) | Self::Stop(_) => None,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Fact { app, news } => app.len() + news.fact.bytes(),
            Self::Moved { app, channel } => app.len() + channel.len(),
            Self::Drain(_) | Self::Stop(_) => 0,
        }
    }

    fn says(&self) -> Says<'_> {
        match self {
            Self::Fact { news, .. } => news.fact.says(),
            _ => Says::Once,
        }
    }
}

/// Answered when nothing waits any more. Until `hold_until`, what is held back may still be undone.
pub(super) struct Drain {
    pub(super) hold_until: Option<Instant>,
    pub(super) done: oneshot::Sender<()>,
}

/// What the task is made of.
pub(super) struct Shell {
    core: WebhookCore,
    apps: Apps,
    changes: watch::Receiver<u64>,
    inbox: FairReceiver<RunInput>,
    spool: Option<Spool>,
    sender: Option<PostSender>,
    targets: HashMap<EndpointId, Arc<PostTarget>>,
    losses: HashMap<EndpointId, Losses>,
    posts: JoinSet<Result<(), PostFailure>>,
    under_way: HashMap<task::Id, (EndpointId, u64, Instant)>,
    started: Instant,
    draining: Option<Drain>,
    failing: FailingEndpoints,
}

/// Endpoints that fail, for anybody who asks: as many as there are endpoints.
#[derive(Debug, Clone, Default)]
pub(crate) struct FailingEndpoints(Arc<Mutex<BTreeMap<EndpointId, v1::FailingWebhook>>>);

impl FailingEndpoints {
    pub(crate) fn list(&self) -> Vec<v1::FailingWebhook> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<EndpointId, v1::FailingWebhook>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events of an endpoint that were lost since that was told.
#[derive(Default)]
struct Losses {
    count: u64,
    logged: Option<Instant>,
}

impl Shell {
    pub(super) fn new(
        apps: &Apps,
        inbox: FairReceiver<RunInput>,
        spool: Option<(Spool, Vec<SpooledEvent>)>,
        run: u64,
    ) -> Self {
        let (spool, kept) = spool.unzip();
        let mut shell = Self {
            core: WebhookCore::new(run),
            apps: apps.clone(),
            changes: apps.changes(),
            inbox,
            spool,
            sender: None,
            targets: HashMap::new(),
            losses: HashMap::new(),
            posts: JoinSet::new(),
            under_way: HashMap::new(),
            started: Instant::now(),
            draining: None,
            failing: FailingEndpoints::default(),
        };
        shell.follow_apps(kept.unwrap_or_default());
        shell
    }

    pub(super) fn failing(&self) -> FailingEndpoints {
        self.failing.clone()
    }

    #[cfg(test)]
    pub(super) fn inbox(&self) -> &FairReceiver<RunInput> {
        &self.inbox
    }

    /// With another sender than the one that trusts whom the machine trusts.
    #[cfg(test)]
    pub(super) fn with_sender(mut self, sender: PostSender) -> Self {
        self.sender = Some(sender);
        self
    }

    /// Until it is stopped, or its last handle is dropped.
    pub(super) async fn run(mut self) {
        let mut inputs = Vec::with_capacity(TURN_FACTS_MAX);
        let stopped = loop {
            let next = self.core.next().map(|at| self.started + at);
            let hold_until = self.draining.as_ref().and_then(|drain| drain.hold_until);
            let next = next.into_iter().chain(hold_until).min();
            tokio::select! {
                open = self.inbox.take(TURN_FACTS_MAX, &mut inputs) => if !open { break None },
                Some(ended) = self.posts.join_next_with_id() => self.landed(ended),
                Ok(()) = self.changes.changed() => self.follow_apps(Vec::new()),
                () = sleep_until(next.unwrap_or(self.started)), if next.is_some() => {}
            }
            let mut stopped = None;
            for input in inputs.drain(..) {
                match input {
                    RunInput::Fact { app, news } => self.fact(&app, news),
                    RunInput::Moved { app, channel } => self.moved(&app, &channel),
                    RunInput::Drain(drain) => self.draining = Some(drain),
                    RunInput::Stop(done) => stopped = Some(done),
                }
            }
            if stopped.is_some() {
                break stopped;
            }
            self.wake();
        };
        let mut out = EndpointEffect::new();
        self.core.flush(self.started.elapsed(), wall_ms(), &mut out);
        self.act(out, None);
        let left = self.core.len();
        // It waits for the disk.
        let spool = self.spool.take();
        let _ = broadgate_tasks::blocking("webhook spool", move || drop(spool)).await;
        stopped.map(|stopped| stopped.send(left));
    }

    fn fact(&mut self, app: &str, news: fact::TrackedFact) {
        let mut out = EndpointEffect::new();
        self.core.fact(self.started.elapsed(), wall_ms(), app, news, &mut out);
        self.act(out, None);
    }

    fn wake(&mut self) {
        let (now, mut out) = (self.started.elapsed(), EndpointEffect::new());
        self.core.wake(now, wall_ms(), &mut out);
        let waits = self.core.waits_for_returns();
        let flushes = self.draining.as_mut().is_some_and(|drain| {
            drain.hold_until = drain.hold_until.filter(|until| waits && *until > Instant::now());
            drain.hold_until.is_none()
        });
        if flushes {
            self.core.flush(now, wall_ms(), &mut out);
        }
        self.act(out, None);
        if flushes && self.core.len() == 0 {
            self.draining.take().map(|drain| drain.done.send(()));
        }
    }

    fn moved(&mut self, app: &str, channel: &str) {
        let mut out = EndpointEffect::new();
        self.core.moved(self.started.elapsed(), wall_ms(), app, channel, &mut out);
        self.act(out, None);
    }

    /// A post has ended.
    fn landed(&mut self, ended: Result<(task::Id, Result<(), PostFailure>), JoinError>) {
        let (task, result) = match ended {
            Ok(ended) => ended,
            Err(error) => (error.id(), Err(PostFailure::Internal(error.to_string()))),
        };
        let Some((id, flight, since)) = self.under_way.remove(&task) else { return };
        let label = result.as_ref().err().map_or("ok", PostFailure::label);
        counter!("broadgate_gateway_webhook_posts_total", "outcome" => label).increment(1);
        histogram!("broadgate_gateway_webhook_post_seconds").record(since.elapsed());
        let mut out = EndpointEffect::new();
        self.core.done(self.started.elapsed(), id, flight, result.is_ok(), &mut out);
        self.act(out, result.err().as_ref());
    }

    /// The apps may differ; `kept` is what an earlier run has left.
    fn follow_apps(&mut self, kept: Vec<SpooledEvent>) {
        let mut out = EndpointEffect::new();
        let endpoints = self.core.apps(&self.apps.load(), &mut out);
        if self.sender.is_none() && !endpoints.is_empty() {
            match PostSender::new() {
                Ok(sender) => self.sender = Some(sender),
                Err(error) => tracing::error!(%error, "webhooks are off: TLS setup failed"),
            }
        }
        let targets = endpoints.into_iter().filter_map(|(id, app, webhook)| {
            let target = PostTarget::new(&app, webhook);
            if target.is_none() {
                tracing::error!(app = app.id, webhook, "invalid webhook: check its url and headers");
            }
            Some((id, Arc::new(target?)))
        });
        let former = std::mem::replace(&mut self.targets, targets.collect());
        self.losses.retain(|id, _| self.targets.contains_key(id));
        self.failing.lock().retain(|id, _| self.targets.contains_key(id));
        if !kept.is_empty() {
            tracing::info!(events = kept.len(), "posting webhook events of an earlier run");
        }
        self.core.restore(self.started.elapsed(), kept, &mut out);
        self.act(out, None);
        for target in former.into_values() {
            self.measure(&target.app);
        }
    }

    /// Does what the core has decided. `why` is what a post has just failed of.
    fn act(&mut self, out: EndpointEffect, why: Option<&PostFailure>) {
        let mut touched = BTreeSet::new();
        for (id, effect) in out {
            touched.insert(id);
            match effect {
                WebhookEffect::Queued(event) => self.spool.iter().for_each(|spool| spool.add(id, &event)),
                WebhookEffect::Post { flight, events } => self.post(id, flight, events),
                WebhookEffect::Delivered { event, waited } => {
                    self.spool.iter().for_each(|spool| spool.done(event.seq));
                    histogram!("broadgate_gateway_webhook_delivery_seconds").record(waited);
                }
                WebhookEffect::Dropped { event, reason } => {
                    self.spool.iter().for_each(|spool| spool.done(event.seq));
                    self.lost(id, reason);
                }
                WebhookEffect::News(news) => self.tell(id, news, why),
            }
        }
        let apps: BTreeSet<String> =
            touched.iter().filter_map(|id| Some(self.targets.get(id)?.app.clone())).collect();
        apps.iter().for_each(|app| self.measure(app));
    }

    fn post(&mut self, id: EndpointId, flight: u64, events: Vec<Arc<EndpointEvent>>) {
        let (target, sender) = (self.targets.get(&id).cloned(), self.sender.clone());
        let task = self.posts.spawn(async move {
            let (Some(target), Some(sender)) = (target, sender) else {
                return Err(PostFailure::Internal("see the errors at start".to_owned()));
            };
            sender.post(target.request(&events)).await
        });
        self.under_way.insert(task.id(), (id, flight, Instant::now()));
    }

    fn tell(&self, id: EndpointId, news: HealthChange, why: Option<&PostFailure>) {
        let Some(target) = self.targets.get(&id) else { return };
        let (app, url) = (&target.app, &target.address);
        match news {
            HealthChange::Fails => {
                let why = why.map(ToString::to_string).unwrap_or_default();
                tracing::warn!(%app, %url, why, "webhook endpoint is failing; retrying");
                let failing = v1::FailingWebhook { app: app.clone(), url: url.clone(), why };
                self.failing.lock().insert(id, failing);
            }
            HealthChange::Works { given_up } => {
                tracing::info!(%app, %url, given_up, "webhook endpoint has recovered");
                self.failing.lock().remove(&id);
            }
        }
    }

    fn lost(&mut self, id: EndpointId, reason: DropReason) {
        counter!("broadgate_gateway_webhook_drops_total", "reason" => reason.label()).increment(1);
        let Some(target) = self.targets.get(&id) else { return };
        let losses = self.losses.entry(id).or_default();
        losses.count += 1;
        if losses.logged.is_none_or(|logged| logged.elapsed() >= LOSS_TOLD_INTERVAL) {
            let (app, url, events) = (&target.app, &target.address, losses.count);
            tracing::error!(%app, %url, events, reason = reason.label(), "webhook events were dropped: check the endpoint");
            *losses = Losses { count: 0, logged: Some(Instant::now()) };
        }
    }

    fn measure(&self, app: &str) {
        let (events, bytes) = self.core.waiting(app);
        gauge!("broadgate_gateway_webhook_queue_events", "app" => app.to_owned()).set(events as f64);
        gauge!("broadgate_gateway_webhook_queue_bytes", "app" => app.to_owned()).set(bytes as f64);
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
