//! The task that owns this gateway's topics.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use broadgate_proto::{
    id::{ClientId, Incarnation},
    limits::{BATCH_COMMANDS_MAX, LEASE},
    v1::{self, View},
};
use broadgate_tasks::Spawner;
use broadgate_topics::{
    Core, HomeReply, Input, LinkMessage, LinkSession, NotPresent, RetentionRules, Ticket, Topic, TopicLimits,
};
use metrics::gauge;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{
        alarm::Alarm,
        gathered::GatheredTurn,
        handle::{ClusterEvent, ClusterHandle, HelloAnswer, LeaveStep, OutgoingLink, Routed},
        reports::ReportReceivers,
        watchers::Watchers,
    },
    command::{CommandRefusal, GatewayContent},
    recorder::UnheardSends,
    shard::{EnterUpcall, PendingCounts, Pool},
    webhooks::Journal,
};

/// The tick interval while time matters.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// Waiters for a group's state.
pub(super) enum Waiter {
    Client(ClientId),
    Claim(oneshot::Sender<Option<NotPresent>>),
}

/// The actor's dependencies.
pub(crate) struct ActorDeps {
    pub(crate) shards: Pool,
    /// Each shard's pending counts, and what wakes the actor for them.
    pub(crate) pending_counts: Vec<Arc<PendingCounts>>,
    pub(crate) wake: Arc<Notify>,
    /// Where sends that reach nobody are remembered.
    pub(crate) unheard: Arc<UnheardSends>,
    /// Called when a view was installed.
    pub(crate) installed: OnView,
    /// The journal of notifications, if there is a spool.
    pub(crate) journal: Option<Arc<Journal>>,
    pub(crate) spawner: Spawner,
}

/// Followers of the installed views.
pub(crate) type OnView = Box<dyn Fn(&Arc<View>) + Send + Sync>;

pub(crate) struct Actor {
    pub(super) me: Incarnation,
    pub(super) limits: TopicLimits,
    pub(super) retention: RetentionRules,
    pub(super) core: Core<GatewayContent>,
    pub(super) deps: ActorDeps,
    pub(super) homes: ClusterHandle,
    pub(super) links: BTreeMap<Incarnation, OutgoingLink>,
    pub(super) sessions: BTreeMap<Incarnation, (LinkSession, CancellationToken)>,
    pub(super) callers: HashMap<Ticket, oneshot::Sender<Routed>>,
    pub(super) settling: HashMap<Ticket, oneshot::Sender<Vec<Incarnation>>>,
    pub(super) entering: HashMap<Ticket, Waiter>,
    pub(super) next_ticket: Ticket,
    pub(super) started: Instant,
    pub(super) alarm: Alarm,
    pub(super) watchers: Watchers,
    pub(super) reports: ReportReceivers,
    pub(super) turn: GatheredTurn,
    /// Batches that the shards execute, whose answers come back as an event.
    pub(super) placing: usize,
    /// The gateway leaves, and waits for this step.
    pub(super) leave: Option<(LeaveStep, oneshot::Sender<()>)>,
}

/// A core that starts from the journal.
pub(super) fn core(
    me: Incarnation,
    limits: TopicLimits,
    retention: &RetentionRules,
    journal: Option<&Journal>,
) -> Core<GatewayContent> {
    let core = Core::new(me, limits).with_retention(retention.clone());
    match journal {
        Some(journal) => core.journaled(journal.restored()),
        None => core,
    }
}

impl Actor {
    pub(crate) fn new(
        me: Incarnation,
        limits: TopicLimits,
        retention: RetentionRules,
        deps: ActorDeps,
        homes: ClusterHandle,
    ) -> Self {
        Self {
            me,
            core: core(me, limits, &retention, deps.journal.as_deref()),
            limits,
            retention,
            reports: ReportReceivers::new(Arc::clone(&deps.wake)),
            deps,
            homes,
            links: BTreeMap::new(),
            sessions: BTreeMap::new(),
            callers: HashMap::new(),
            settling: HashMap::new(),
            entering: HashMap::new(),
            next_ticket: 1,
            started: Instant::now(),
            alarm: Alarm::new(LEASE),
            watchers: Watchers::default(),
            turn: GatheredTurn::default(),
            placing: 0,
            leave: None,
        }
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<ClusterEvent>, stop: CancellationToken) {
        let wake = Arc::clone(&self.deps.wake);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        let mut busy = Duration::ZERO;
        loop {
            let begun;
            tokio::select! {
                () = stop.cancelled() => return,
                _ = events.recv_many(&mut batch, BATCH_COMMANDS_MAX) => begun = Instant::now(),
                () = wake.notified() => begun = Instant::now(),
                _ = tick.tick(), if self.core.wants_ticks() => {
                    begun = Instant::now();
                    self.apply(Input::Tick);
                }
                _ = second.tick() => {
                    begun = Instant::now();
                    // Expired entries are removed in time.
                    self.apply(Input::Tick);
                    if let Some(none) = self.watchers.sweep() {
                        self.apply(Input::Watch(none));
                    }
                    self.publish();
                }
            }
            // Before the events: one of them may ask whether the homes have acknowledged these.
            for pending_counts in self.deps.pending_counts.clone() {
                for count in pending_counts.take() {
                    self.apply(Input::MembershipCount(count));
                }
            }
            self.homes.set_interest(self.core.interest_counts());
            for event in batch.drain(..) {
                self.handle(event);
            }
            for (topic, report) in self.reports.arrived(self.me) {
                self.apply(Input::Arrived(topic, report));
            }
            self.act().await;
            self.leave_on();
            busy += begun.elapsed();
            self.homes.set_busy(busy);
        }
    }

    /// Reports that the step is reached for which leaving waits.
    fn leave_on(&mut self) {
        let Some((step, _)) = &self.leave else { return };
        let reached = match step {
            LeaveStep::Answered => self.placing == 0 && self.core.may_say_that_it_leaves(),
            LeaveStep::Known => self.core.may_leave(),
        };
        if reached && let Some((_, reply)) = self.leave.take() {
            // The gateway may have stopped waiting.
            let _ = reply.send(());
        }
    }

    pub(super) fn handle(&mut self, event: ClusterEvent) {
        match event {
            ClusterEvent::View(view) => self.apply(Input::View(view)),
            ClusterEvent::Greet { peer, view, reply } => {
                self.apply(Input::View(view));
                let known = self.core.knows(peer);
                let _ = reply.send(HelloAnswer { view: Arc::clone(self.core.view()), known });
            }
            ClusterEvent::OutboundUp { me, peer, link } if me == self.me => {
                self.links.insert(peer, link);
                self.apply(Input::OutboundUp(peer));
            }
            ClusterEvent::OutboundDown { peer, generation, since } => {
                if self.links.get(&peer).is_some_and(|link| link.generation == generation) {
                    self.links.remove(&peer);
                    let since = since.saturating_duration_since(self.started);
                    self.apply(Input::OutboundDown(peer, since));
                }
            }
            // The link was opened by a former incarnation: it must send this one's hello.
            ClusterEvent::InboundUp { peer, cut, .. } if !self.core.knows(peer) => cut.cancel(),
            ClusterEvent::InboundUp { peer, session, cut } => {
                self.sessions.insert(peer, (session, cut));
                self.apply(Input::InboundUp(peer, session));
            }
            ClusterEvent::InboundDown { peer, session, since } => {
                if self.sessions.get(&peer).is_some_and(|(known, _)| *known == session) {
                    self.sessions.remove(&peer);
                }
                let since = since.saturating_duration_since(self.started);
                self.apply(Input::InboundDown(peer, session, since));
            }
            ClusterEvent::Received { peer, session, frames } => {
                for frame in frames {
                    self.apply(Input::Received(peer, session, frame));
                }
            }
            ClusterEvent::Refuse { peer, id, refused } => self.refuse(peer, id, refused),
            ClusterEvent::Taken { peer, generation, bytes } => {
                if self.links.get(&peer).is_some_and(|link| link.generation == generation) {
                    self.apply(Input::Taken(peer, bytes));
                }
            }
            ClusterEvent::Route { topic, op, reply } => {
                let ticket = reply.map(|reply| {
                    let ticket = self.ticket();
                    self.callers.insert(ticket, reply);
                    ticket
                });
                self.apply(Input::Route { ticket, topic, op });
            }
            ClusterEvent::Settle { topics, reply } => {
                let ticket = self.ticket();
                self.settling.insert(ticket, reply);
                self.apply(Input::Settle { ticket, topics });
            }
            ClusterEvent::Enter(entries) => {
                for EnterUpcall { client, topic, user } in entries {
                    self.enter(Waiter::Client(client), topic, user);
                }
            }
            ClusterEvent::Claim { topic, user, reply } => {
                self.enter(Waiter::Claim(reply), topic, Some(user));
            }
            ClusterEvent::Placed { me, placed } if me == self.me => {
                self.placing -= 1;
                for (back, answer, touched) in placed {
                    self.apply(Input::Placed { back, answer, touched });
                }
            }
            // Of a former incarnation.
            ClusterEvent::OutboundUp { .. } | ClusterEvent::Placed { .. } => {}
            ClusterEvent::Watch(watcher) => {
                let patterns = self.watchers.add(watcher);
                self.apply(Input::Watch(patterns));
            }
            ClusterEvent::Report(about, channels) => {
                self.reports.start(about.clone(), channels);
                self.apply(Input::Report(about));
            }
            ClusterEvent::Leave(step, reply) => self.leave = Some((step, reply)),
            ClusterEvent::Reborn(me) => self.reset_incarnation(me),
        }
    }

    pub(super) fn enter(&mut self, waiter: Waiter, topic: Topic, user: Option<Arc<str>>) {
        let ticket = self.ticket();
        self.entering.insert(ticket, waiter);
        self.apply(Input::Enter { ticket, topic, user });
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        self.next_ticket
    }

    pub(super) fn refuse(&mut self, peer: Incarnation, id: u64, refused: CommandRefusal) {
        let done = broadgate_topics::HomeOutcome {
            epoch: self.core.epoch(),
            answer: Some(v1::answer::Answer::Error(refused)),
            gateways: 0,
            missing: Vec::new(),
            position: None,
            trace: None,
        };
        if id > 0 {
            self.say(peer, LinkMessage::Reply { id, reply: HomeReply::Done(done) });
        }
    }

    pub(super) fn reset_incarnation(&mut self, me: Incarnation) {
        self.me = me;
        self.core = core(me, self.limits, &self.retention, self.deps.journal.as_deref());
        self.turn = GatheredTurn::default();
        self.placing = 0;
        self.links.clear();
        for (_, cut) in std::mem::take(&mut self.sessions).into_values() {
            cut.cancel();
        }
        // Waiters learn by the drop that the state is unknown.
        self.callers.clear();
        self.settling.clear();
        self.entering.clear();
        self.watchers = Watchers::default();
        self.apply(Input::Report(self.reports.about()));
    }

    pub(super) fn apply(&mut self, input: Input<GatewayContent>) {
        let effects = self.core.apply(input, self.started.elapsed());
        for effect in effects {
            self.effect(effect);
        }
    }

    /// Once a second, for metrics.
    pub(super) fn publish(&mut self) {
        let halved = self.alarm.is_on(self.started.elapsed());
        gauge!("broadgate_gateway_cluster_majority_lost").set(f64::from(u8::from(halved)));
        let load = self.core.load();
        self.homes.set_waiting(load.unsynced as u64, load.parked as u64);
        gauge!("broadgate_gateway_homes").set(load.homes as f64);
        gauge!("broadgate_gateway_retained_bytes").set(load.retained_bytes as f64);
        gauge!("broadgate_gateway_homes_parked").set(load.parked as f64);
        gauge!("broadgate_gateway_homes_asked").set(load.asked as f64);
        gauge!("broadgate_gateway_homes_deliveries").set(load.deliveries as f64);
        gauge!("broadgate_gateway_peers_unsynced").set(load.unsynced as f64);
    }
}
