//! From facts to what is posted, for every endpoint of every app. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use xxhash_rust::xxh3::xxh3_128;

use super::{
    alarms::Alarms,
    event::{DropReason, EndpointEvent, WebhookEffect},
    fact::{Fact, TrackedFact},
    queue::EndpointQueue,
    retry::Chance,
    settle::Settle,
};
use crate::apps::{App, AppTable, Webhook};

/// An endpoint: its app, its URL, and which of this URL it is. It stays the same while anything else
/// about it changes, also over restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct EndpointId(pub(super) u128);

impl EndpointId {
    fn new(app: &str, url: &str, which: usize) -> Self {
        Self(xxh3_128(format!("{app}\0{url}\0{which}").as_bytes()))
    }
}

/// What is to be done, and for which endpoint.
pub(super) type EndpointEffect = Vec<(EndpointId, WebhookEffect)>;

/// The shortest time to the next wake-up: whatever goes wrong, nothing spins.
const WAKE_MIN: Duration = Duration::from_millis(1);

/// Everything that is known about webhooks.
pub(super) struct WebhookCore {
    /// Of this run of the gateway, for the ids of events.
    run: u64,
    next_id: u64,
    next_seq: u64,
    chance: Chance,
    apps: HashMap<String, WebhookTenant>,
    endpoints: BTreeMap<EndpointId, EndpointState>,
    alarms: Alarms<AlarmOwner>,
}

#[derive(Default)]
struct WebhookTenant {
    settle: Settle,
    endpoints: Vec<EndpointId>,
}

struct EndpointState {
    webhook: Webhook,
    queue: EndpointQueue,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum AlarmOwner {
    App(String),
    Endpoint(EndpointId),
}

impl WebhookCore {
    /// `run` is by chance: it makes ids differ from those of other runs.
    pub(super) fn new(run: u64) -> Self {
        Self {
            run,
            next_id: 0,
            next_seq: 0,
            chance: Chance(run),
            apps: HashMap::new(),
            endpoints: BTreeMap::new(),
            alarms: Alarms::new(),
        }
    }

    /// The apps are these. Endpoints that are not among them end; those that are keep their queue, and
    /// are returned so that the caller knows where to post.
    pub(super) fn apps(
        &mut self,
        table: &AppTable,
        out: &mut EndpointEffect,
    ) -> Vec<(EndpointId, Arc<App>, usize)> {
        let mut all = Vec::new();
        let mut former = std::mem::take(&mut self.endpoints);
        let mut tenants = std::mem::take(&mut self.apps);
        for app in table.iter().filter(|app| !app.webhooks.is_empty()) {
            let mut tenant = tenants.remove(&app.id).unwrap_or_default();
            tenant.endpoints.clear();
            for (index, webhook) in app.webhooks.iter().enumerate() {
                let same = app.webhooks[..index].iter().filter(|other| other.url == webhook.url);
                let id = EndpointId::new(&app.id, &webhook.url, same.count());
                let queue = former.remove(&id).map(|endpoint| endpoint.queue);
                let mut queue =
                    queue.unwrap_or_else(|| EndpointQueue::new(webhook.batch, self.chance.next()));
                queue.batch = webhook.batch;
                self.endpoints.insert(id, EndpointState { webhook: webhook.clone(), queue });
                tenant.endpoints.push(id);
                all.push((id, Arc::clone(app), index));
            }
            self.apps.insert(app.id.clone(), tenant);
        }
        for gone in tenants.into_keys() {
            self.alarms.set(&AlarmOwner::App(gone), None);
        }
        for (id, endpoint) in former {
            self.alarms.set(&AlarmOwner::Endpoint(id), None);
            let mut effects = Vec::new();
            endpoint.queue.close(&mut effects);
            out.extend(effects.into_iter().map(|effect| (id, effect)));
        }
        all
    }

    /// Something has happened; `at_ms` is the wall clock's.
    pub(super) fn fact(
        &mut self,
        now: Duration,
        at_ms: u64,
        app: &str,
        news: TrackedFact,
        out: &mut EndpointEffect,
    ) {
        let Some(tenant) = self.apps.get_mut(app) else { return };
        let mut facts = Vec::new();
        tenant.settle.take(now, news, &mut facts);
        self.tell(now, at_ms, app, facts, out);
    }

    /// Another gateway reports a channel's events from now on: those held back here are posted now,
    /// since nobody here would hear of a return.
    pub(super) fn moved(
        &mut self,
        now: Duration,
        at_ms: u64,
        app: &str,
        channel: &str,
        out: &mut EndpointEffect,
    ) {
        let Some(tenant) = self.apps.get_mut(app) else { return };
        let mut facts = Vec::new();
        tenant.settle.release(channel, &mut facts);
        self.tell(now, at_ms, app, facts, out);
    }

    /// Is anybody's going held back?
    pub(super) fn waits_for_returns(&self) -> bool {
        self.apps.values().any(|tenant| tenant.settle.waits_for_returns())
    }

    /// What an earlier run has left behind, under the numbers that it had there.
    pub(super) fn restore(
        &mut self,
        now: Duration,
        kept: Vec<(EndpointId, Arc<EndpointEvent>)>,
        out: &mut EndpointEffect,
    ) {
        for (id, event) in kept {
            self.next_seq = self.next_seq.max(event.seq + 1);
            let Some(endpoint) = self.endpoints.get_mut(&id) else {
                out.push((id, WebhookEffect::Dropped { event, reason: DropReason::EndpointGone }));
                continue;
            };
            let mut effects = Vec::new();
            endpoint.queue.push(now, event, &mut effects);
            out.extend(effects.into_iter().map(|effect| (id, effect)));
            self.poll(now, id, out);
        }
    }

    /// A post has arrived, or has not.
    pub(super) fn done(
        &mut self,
        now: Duration,
        id: EndpointId,
        flight: u64,
        arrived: bool,
        out: &mut EndpointEffect,
    ) {
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        let mut effects = Vec::new();
        endpoint.queue.done(now, flight, arrived, &mut effects);
        out.extend(effects.into_iter().map(|effect| (id, effect)));
        self.poll(now, id, out);
    }

    /// Does what is due now.
    pub(super) fn wake(&mut self, now: Duration, at_ms: u64, out: &mut EndpointEffect) {
        while let Some(who) = self.alarms.due(now) {
            match who {
                AlarmOwner::Endpoint(id) => self.poll(now, id, out),
                AlarmOwner::App(app) => {
                    let mut facts = Vec::new();
                    if let Some(tenant) = self.apps.get_mut(&app) {
                        tenant.settle.due(now, &mut facts);
                    }
                    self.tell(now, at_ms, &app, facts, out);
                }
            }
        }
    }

    /// When `wake` has something to do.
    pub(super) fn next(&self) -> Option<Duration> {
        self.alarms.next()
    }

    /// The gateway stops: events that are held back are posted now.
    pub(super) fn flush(&mut self, now: Duration, at_ms: u64, out: &mut EndpointEffect) {
        let mut apps: Vec<String> = self.apps.keys().cloned().collect();
        apps.sort();
        for app in apps {
            let mut facts = Vec::new();
            if let Some(tenant) = self.apps.get_mut(&app) {
                tenant.settle.flush(&mut facts);
            }
            self.tell(now, at_ms, &app, facts, out);
        }
    }

    /// Events and bytes that wait for the endpoints of one app.
    pub(super) fn waiting(&self, app: &str) -> (usize, usize) {
        let endpoints = self.apps.get(app).into_iter().flat_map(|tenant| &tenant.endpoints);
        let queues = endpoints.filter_map(|id| self.endpoints.get(id)).map(|endpoint| &endpoint.queue);
        queues.fold((0, 0), |(events, bytes), queue| (events + queue.len(), bytes + queue.bytes()))
    }

    /// Events that wait anywhere.
    pub(super) fn len(&self) -> usize {
        self.endpoints.values().map(|endpoint| endpoint.queue.len()).sum()
    }

    fn tell(
        &mut self,
        now: Duration,
        at_ms: u64,
        app: &str,
        facts: Vec<TrackedFact>,
        out: &mut EndpointEffect,
    ) {
        let Some(tenant) = self.apps.get(app) else { return };
        let next = tenant.settle.next().map(|next| next.max(now + WAKE_MIN));
        let ids = tenant.endpoints.clone();
        self.alarms.set(&AlarmOwner::App(app.to_owned()), next);
        for news in facts {
            self.publish(now, at_ms, &ids, &news, out);
        }
    }

    fn publish(
        &mut self,
        now: Duration,
        at_ms: u64,
        ids: &[EndpointId],
        news: &TrackedFact,
        out: &mut EndpointEffect,
    ) {
        let TrackedFact { fact, arrival } = news;
        let mut texts: Option<(Arc<str>, Arc<str>)> = None;
        self.next_id += 1;
        for &id in ids {
            let Some(endpoint) = self.endpoints.get_mut(&id) else { continue };
            if !wants(&endpoint.webhook, fact) {
                continue;
            }
            let (channel, json) = texts.get_or_insert_with(|| {
                let event_id = format!("{:016x}-{:x}", self.run, self.next_id);
                (fact.channel().into(), fact.json(&event_id).into())
            });
            let (channel, json) = (Arc::clone(channel), Arc::clone(json));
            let event = EndpointEvent { seq: self.next_seq, channel, at_ms, json, arrival: arrival.clone() };
            let event = Arc::new(event);
            self.next_seq += 1;
            let mut effects = vec![WebhookEffect::Queued(Arc::clone(&event))];
            endpoint.queue.push(now, event, &mut effects);
            out.extend(effects.into_iter().map(|effect| (id, effect)));
            self.poll(now, id, out);
        }
    }

    fn poll(&mut self, now: Duration, id: EndpointId, out: &mut EndpointEffect) {
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        let mut effects = Vec::new();
        endpoint.queue.poll(now, &mut effects);
        out.extend(effects.into_iter().map(|effect| (id, effect)));
        let next = endpoint.queue.next().map(|next| next.max(now + WAKE_MIN));
        self.alarms.set(&AlarmOwner::Endpoint(id), next);
    }
}

fn wants(webhook: &Webhook, fact: &Fact) -> bool {
    let channel = fact.channel();
    webhook.events.contains(&fact.kind())
        && channel.starts_with(&webhook.channel_prefix)
        && channel.ends_with(&webhook.channel_suffix)
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
