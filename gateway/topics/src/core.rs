//! One gateway's part in the homes: it wires the parts, which own their state, and executes one step.

use std::{sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    v1::{Epoch, View},
};

use crate::{
    content::Content,
    home::GatewayInterest,
    interest::{Changes, InterestCounts},
    limits::{HomesLoad, Restored, TopicLimits},
    members::Members,
    membership::LinkSession,
    own::{OwnTopics, OwnUpdate},
    parcels::Parcels,
    parking::{Question, ReplyTarget},
    retention::RetentionRules,
    routes::QuestionRoutes,
    serve::Homes,
    shared::Shared,
    step::{Effect, Input, LinkMessage},
    topic::Topic,
};

/// How often expired entries are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The session number of this gateway's own interest, which crosses no link.
const OWN: LinkSession = 0;

/// One gateway's part in the homes, for one incarnation.
#[derive(Debug)]
pub struct Core<C: Content> {
    pub(super) shared: Shared<C>,
    /// The topics of our own clients.
    pub(super) own: OwnTopics<C>,
    /// The topics whose home we are.
    pub(super) homes: Homes<C>,
    /// Our callers' questions to homes.
    pub(super) routes: QuestionRoutes<C>,
    /// What our groups' next homes must get.
    pub(super) parcels: Parcels<C>,
    next_sweep: Duration,
}

impl<C: Content> Core<C> {
    /// A gateway that knows no view yet.
    #[must_use]
    pub fn new(me: Incarnation, limits: TopicLimits) -> Self {
        let shared = Shared::new(me, limits, RetentionRules::default());
        Self {
            own: OwnTopics::new(),
            homes: Homes::new(&shared),
            routes: QuestionRoutes::new(),
            parcels: Parcels::new(),
            next_sweep: Duration::ZERO,
            shared,
        }
    }

    /// Sets which messages groups retain.
    #[must_use]
    pub fn with_retention(mut self, keeping: RetentionRules) -> Self {
        self.shared = Shared::new(self.shared.me, self.shared.limits, keeping);
        self
    }

    /// Turns on the journal of notifications, starting from that of an earlier run.
    #[must_use]
    pub fn journaled(mut self, restored: Restored) -> Self {
        self.homes.reporting.journaled(restored);
        self
    }

    /// Executes one step. The caller must execute the effects in order.
    pub fn apply(&mut self, input: Input<C>, now: Duration) -> Vec<Effect<C>> {
        self.shared.now = now;
        let shared = &mut self.shared;
        match input {
            Input::View(view) => self.install(view),
            Input::OutboundUp(peer) => self.outbound_up(peer),
            Input::OutboundDown(peer, since) => self.outbound_down(peer, since),
            Input::InboundUp(peer, session) => self.inbound_up(peer, session),
            Input::InboundDown(peer, session, since) => self.inbound_down(peer, session, since),
            Input::Received(peer, session, frame) => self.received(peer, session, frame),
            Input::Taken(peer, bytes) => shared.peers.taken(peer, bytes),
            Input::MembershipCount(count) => {
                let home = shared.rings.home(&count.topic);
                if let Some(changes) = self.own.set_count(&count, home) {
                    self.announce(&count.topic, Some(changes));
                }
            }
            Input::Route { ticket, topic, op } => {
                if self.routes.route(shared, ticket, &topic, op) {
                    self.pump(&topic);
                }
            }
            Input::Placed { back, answer, touched } => self.own.placed_here(shared, back, answer, touched),
            Input::Settle { ticket, topics } => self.own.settle(shared, ticket, topics),
            Input::Enter { ticket, topic, user } => self.own.enter(shared, ticket, topic, user),
            Input::Watch(patterns) => {
                let (homes, epoch) = (&mut self.homes, shared.members.epoch);
                homes.watched.watch(patterns, homes.topics.topics(), epoch);
            }
            Input::Report(about) => self.homes.reporting.about(about, &self.homes.topics),
            Input::Arrived(topic, report) => self.homes.reporting.arrived(shared, &topic, &report),
            Input::Tick => self.tick(),
        }
        self.take_placed();
        let shared = &mut self.shared;
        for (peer, serial) in shared.peers.acknowledgements() {
            shared.send(peer, LinkMessage::InterestAck(serial));
        }
        shared.out.extend(shared.retained.take_given().into_iter().map(Effect::Dropped));
        self.homes.report(shared);
        std::mem::take(&mut shared.out)
    }

    /// Whether time alone changes anything: then [`Input::Tick`] must come soon.
    #[must_use]
    pub fn wants_ticks(&self) -> bool {
        !(self.homes.parked.is_empty()
            && self.homes.deliveries.is_empty()
            && self.routes.is_empty()
            && self.own.is_settled()
            && !self.homes.reporting.waits()
            && self.shared.peers.are_linked())
    }

    /// The installed view.
    #[must_use]
    pub fn view(&self) -> &Arc<View> {
        &self.shared.members.view
    }

    /// Its number.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.shared.members.epoch
    }

    /// Whether it is another gateway of the installed view.
    #[must_use]
    pub fn knows(&self, gateway: Incarnation) -> bool {
        gateway != self.shared.me && self.shared.members.gateways.contains_key(&gateway)
    }

    /// Whether nothing waits for this gateway's answer: it has answered every delivery that its shards have executed,
    /// and as a former home every command that it has ordered.
    fn owes_nothing(&self) -> bool {
        self.homes.deliveries.is_empty() && self.own.is_settled()
    }

    /// Whether this gateway, once it has no clients, may announce that it leaves. Then nobody waits for its sync any
    /// more, so the homes of its former topics must have got what it handed over.
    #[must_use]
    pub fn may_say_that_it_leaves(&self) -> bool {
        self.shared.off_ring_since.is_some_and(|since| self.shared.peers.know(since)) && self.owes_nothing()
    }

    /// Whether every other gateway has installed a view in which this one leaves, and has accepted what it sent
    /// before: from now on nobody waits for its answer.
    #[must_use]
    pub fn may_leave(&self) -> bool {
        self.shared.leaves_since.is_some_and(|since| self.shared.peers.know(since)) && self.owes_nothing()
    }

    /// The home of a topic.
    #[must_use]
    pub fn home_of(&self, topic: &Topic) -> Option<Incarnation> {
        self.shared.rings.home(topic)
    }

    /// How many groups and uids have clients here.
    #[must_use]
    pub const fn interest_counts(&self) -> InterestCounts {
        self.own.interest().counts()
    }

    /// The current load.
    #[must_use]
    pub fn load(&self) -> HomesLoad {
        HomesLoad {
            homes: self.homes.topics.len(),
            parked: self.homes.parked.len(),
            asked: self.routes.len(),
            deliveries: self.homes.deliveries.len(),
            unsynced: self.shared.peers.unsynced().len(),
            retained_bytes: self.shared.retained.bytes(),
        }
    }

    fn tick(&mut self) {
        self.homes.tick(&mut self.shared, &mut self.own);
        self.take_replies();
        let (limits, now) = (self.shared.limits, self.shared.now);
        let patience = limits.parking_time_max + 2 * limits.link_timeout;
        for id in self.routes.late(limits.link_timeout, patience, now) {
            if let Some(topic) = self.routes.give_up(&mut self.shared, id) {
                self.pump(&topic);
            }
        }
        self.sweep();
        self.own.tick(&mut self.shared);
    }

    fn sweep(&mut self) {
        let Shared { me, now, rings, retained, .. } = &mut self.shared;
        if *now < self.next_sweep {
            return;
        }
        self.next_sweep = *now + SWEEP_INTERVAL;
        self.homes.claims.expire(*now);
        let interest = self.own.interest();
        retained.sweep(*now, |topic| rings.home(topic) == Some(*me) || interest.has(topic));
    }

    /// Sends a topic's home every question that may be sent now.
    pub(super) fn pump(&mut self, topic: &Topic) {
        let me = self.shared.me;
        let Some(home) = self.shared.rings.home(topic) else { return };
        if home != me && !self.shared.peers.is_reachable(home, 0) {
            return;
        }
        for (id, wanted, op) in self.routes.due(topic, home) {
            if home == me {
                let origin = if wanted { ReplyTarget::Own(id) } else { ReplyTarget::None };
                if !wanted {
                    self.routes.finish(id);
                }
                self.offer(Question { origin, topic: topic.clone(), op, since: self.shared.now });
            } else {
                self.routes.ask(&mut self.shared, home, (id, wanted), topic, op);
            }
        }
    }

    pub(super) fn pump_all(&mut self) {
        for topic in self.routes.topics_due() {
            self.pump(&topic);
        }
    }

    pub(super) fn offer(&mut self, asked: Question<C>) {
        self.homes.offer(&mut self.shared, &mut self.own, asked);
        self.take_replies();
    }

    /// Serves what was parked, if it need not wait any longer.
    pub(super) fn release(&mut self) {
        self.homes.release(&mut self.shared, &mut self.own);
        self.take_replies();
    }

    /// What this gateway as a home replies to its own callers.
    pub(super) fn take_replies(&mut self) {
        while let Some((id, reply)) = self.homes.take_reply() {
            if let Some(topic) = self.routes.replied(&mut self.shared, id, reply) {
                self.pump(&topic);
            }
        }
    }

    /// What the shards have executed of this gateway's own deliveries.
    pub(super) fn take_placed(&mut self) {
        let me = self.shared.me;
        for (id, answer) in self.own.take_placed() {
            self.homes.placed_by(&mut self.shared, &mut self.own, me, id, Some(answer));
            self.take_replies();
        }
    }

    /// Announces this gateway's interest to a topic's home: these presence members, or all.
    fn announce(&mut self, topic: &Topic, changes: Option<Changes>) {
        let Self { shared, own, homes, .. } = self;
        let Some(OwnUpdate { clients, knows_roster, changes }) = own.announce(shared, topic, changes) else {
            return;
        };
        let Changes { members, claims } = changes;
        let update = GatewayInterest { clients, members: &members, claims, knows_roster };
        let me = shared.me;
        homes.interest(shared, own, (me, OWN), topic, update);
        own.forget_if_empty(topic);
    }

    /// Installs a view if it is newer, and settles which topics this gateway loses and gains by it.
    pub(super) fn install(&mut self, view: Arc<View>) {
        let shared = &mut self.shared;
        let next = Members::of(view);
        if next.epoch <= shared.members.epoch {
            return;
        }
        let gap = !next.follows(&shared.members);
        let changed = gap || next.gateways != shared.members.gateways;
        let gone = shared.peers.outside(&next);
        shared.members = next;
        if shared.members.has_ready(shared.me) {
            shared.off_ring_since = None;
        } else {
            shared.off_ring_since.get_or_insert(shared.members.epoch);
        }
        if shared.members.leaving.contains(&shared.me) {
            shared.leaves_since.get_or_insert(shared.members.epoch);
        }
        shared.out.push(Effect::Installed(Arc::clone(&shared.members.view)));
        if changed {
            shared.peers.must_sync(shared.members.epoch, shared.now);
            shared.rings.change(shared.me, &shared.members, gap);
        }
        // Precedes every other frame sent in this view.
        let open: Vec<_> = shared.peers.open().into_iter().filter(|peer| !gone.contains(peer)).collect();
        for &peer in &open {
            shared.send(peer, LinkMessage::View(Arc::clone(&shared.members.view)));
        }
        if changed {
            self.lose_topics(gap);
        }
        for peer in gone {
            self.peer_gone(peer);
        }
        let shared = &mut self.shared;
        shared.peers.add(shared.me, &shared.members, shared.now);
        if changed {
            for topic in self.own.moved(shared, gap) {
                self.announce(&topic, None);
            }
            self.own.settle_again(&mut self.shared);
            self.take_placed();
        }
        self.own.send_synced(&mut self.shared, &open, changed);
        if gap {
            self.shared.reset_inbound_links();
        }
        self.homes.reporting.restore_reported(&mut self.shared);
        self.pump_all();
        self.release();
    }

    /// Topics that moved to another home: their histories, watchers, reports and parked questions.
    fn lose_topics(&mut self, gap: bool) {
        let Self { shared, homes, .. } = self;
        homes.lose_topics(shared, gap);
        if gap {
            shared.retained.forget_histories();
        }
        self.parcels.hand_over(shared);
        homes.move_watched(shared);
        homes.reporting.move_reports(shared, &homes.topics, gap);
        homes.return_parked(shared);
        self.take_replies();
    }
}
