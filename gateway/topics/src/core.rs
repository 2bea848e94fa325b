//! One gateway's part in the homes: its state, and one step.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use broadgate_proto::{
    id::Incarnation,
    limits,
    v1::{Epoch, View},
};

use crate::{
    announced::Announced,
    content::Content,
    delivery::{PendingDelivery, PublishHash},
    entrances::Entrances,
    home::TopicHomes,
    interest::{Interest, InterestCounts},
    limits::{HomesLoad, Restored, TopicLimits},
    members::{Members, Rings},
    membership::MembershipChange,
    parking::Parking,
    peer::Peer,
    remember::{Bounds, Remembered},
    report::Reports,
    retention::{HandedOver, RetainedMessages, RetentionRules},
    routes::QuestionRoutes,
    settle::Settling,
    step::{Effect, HomeReply, Input, LinkMessage},
    topic::Topic,
    watch::WatchedGroup,
};

/// How often expired entries are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How many idempotency keys of backends are remembered.
const CLAIMS: Bounds = Bounds {
    count: limits::IDEMPOTENCY_KEYS_MAX,
    bytes: limits::IDEMPOTENCY_KEYS_BYTES_MAX,
    time: limits::COMMAND_ID_TIME,
};

/// One gateway's part in the homes, for one incarnation.
#[derive(Debug)]
pub struct Core<C: Content> {
    pub(super) me: Incarnation,
    pub(super) limits: TopicLimits,
    pub(super) now: Duration,
    pub(super) members: Members,
    pub(super) rings: Rings,
    /// The last view that changed the gateways or the ring: synced means synced by it.
    pub(super) changed: Epoch,
    pub(super) peers: BTreeMap<Incarnation, Peer>,
    pub(super) interest: Interest,
    /// The number of the last claim.
    pub(super) last_claim: u64,
    pub(super) settling: Settling<C>,
    pub(super) entrances: Entrances,
    pub(super) homes: TopicHomes,
    pub(super) parked: Parking<C>,
    pub(super) deliveries: BTreeMap<u64, PendingDelivery<C>>,
    pub(super) next_delivery: u64,
    /// Rises with everything that this home places, whatever the topic.
    pub(super) number: u64,
    pub(super) routes: QuestionRoutes<C>,
    pub(super) retained: RetainedMessages<C>,
    /// Idempotency keys under which backends have published.
    pub(super) claims: Remembered<PublishHash>,
    /// Histories for homes whose link is not open yet.
    pub(super) parcels: BTreeMap<Incarnation, Vec<(Topic, HandedOver<C>)>>,
    next_sweep: Duration,
    /// The journal of an earlier run, until it is known which gateways are alive.
    pub(super) restored: Option<Restored>,
    pub(super) watched: WatchedGroup,
    pub(super) reports: Reports,
    /// At most the reports of one link timeout.
    pub(super) announced: VecDeque<Announced>,
    pub(super) out: Vec<Effect<C>>,
}

impl<C: Content> Core<C> {
    /// A gateway that knows no view yet.
    #[must_use]
    pub fn new(me: Incarnation, limits: TopicLimits) -> Self {
        Self {
            me,
            now: Duration::ZERO,
            members: Members::default(),
            rings: Rings::default(),
            changed: Epoch::default(),
            peers: BTreeMap::new(),
            interest: Interest::default(),
            last_claim: 0,
            settling: Settling::new(),
            entrances: Entrances::default(),
            homes: TopicHomes::default(),
            parked: Parking::new(limits.parking_bytes_max, limits.parking_time_max),
            deliveries: BTreeMap::new(),
            next_delivery: 1,
            number: 0,
            routes: QuestionRoutes::new(),
            retained: RetainedMessages::new(
                RetentionRules::default(),
                limits.kept_bytes_max,
                limits.kept_app_bytes_max,
            ),
            claims: Remembered::new(CLAIMS, CLAIMS),
            parcels: BTreeMap::new(),
            next_sweep: Duration::ZERO,
            restored: None,
            watched: WatchedGroup::default(),
            reports: Reports::default(),
            announced: VecDeque::new(),
            out: Vec::new(),
            limits,
        }
    }

    /// Sets which messages groups retain.
    #[must_use]
    pub fn with_retention(mut self, keeping: RetentionRules) -> Self {
        self.retained =
            RetainedMessages::new(keeping, self.limits.kept_bytes_max, self.limits.kept_app_bytes_max);
        self
    }

    /// Turns on the journal of notifications, starting from that of an earlier run.
    #[must_use]
    pub fn journaled(mut self, restored: Restored) -> Self {
        self.reports.keep_journal();
        self.restored = Some(restored);
        self
    }

    /// Executes one step. The caller must execute the effects in order.
    pub fn apply(&mut self, input: Input<C>, now: Duration) -> Vec<Effect<C>> {
        self.now = now;
        match input {
            Input::View(view) => self.install(view),
            Input::OutboundUp(peer) => self.outbound_up(peer),
            Input::OutboundDown(peer, since) => self.outbound_down(peer, since),
            Input::InboundUp(peer, session) => self.inbound_up(peer, session),
            Input::InboundDown(peer, session, since) => self.inbound_down(peer, session, since),
            Input::Received(peer, session, frame) => self.received(peer, session, frame),
            Input::Taken(peer, bytes) => self.taken(peer, bytes),
            Input::MembershipCount(standing) => self.membership_changed(&standing),
            Input::Route { ticket, topic, op } => self.route(ticket, &topic, op),
            Input::Placed { back, answer, touched } => self.placed_here(back, answer, touched),
            Input::Settle { ticket, topics } => self.settle(ticket, topics),
            Input::Enter { ticket, topic, user } => self.enter(ticket, topic, user),
            Input::Watch(patterns) => {
                let epoch = self.members.epoch;
                self.watched.watch(patterns, self.homes.topics(), epoch);
            }
            Input::Report(about) => self.reports.about(about, self.homes.topics()),
            Input::Arrived(topic, report) => self.arrived(&topic, &report),
            Input::Tick => self.tick(),
        }
        self.acknowledge();
        self.out.extend(self.retained.take_given().into_iter().map(Effect::Dropped));
        self.report_to_watchers();
        self.report();
        std::mem::take(&mut self.out)
    }

    /// Whether time alone changes anything: then [`Input::Tick`] must come soon.
    #[must_use]
    pub fn wants_ticks(&self) -> bool {
        !(self.parked.is_empty()
            && self.deliveries.is_empty()
            && self.routes.is_empty()
            && self.settling.is_empty()
            && self.entrances.is_empty()
            && !self.reports.waits()
            && self.announced.is_empty()
            && self.peers.values().all(|peer| self.is_linked(peer)))
    }

    /// The installed view.
    #[must_use]
    pub fn view(&self) -> &Arc<View> {
        &self.members.view
    }

    /// Its number.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.members.epoch
    }

    /// Whether it is another gateway of the installed view.
    #[must_use]
    pub fn knows(&self, gateway: Incarnation) -> bool {
        gateway != self.me && self.members.gateways.contains_key(&gateway)
    }

    /// The home of a topic.
    #[must_use]
    pub fn home_of(&self, topic: &Topic) -> Option<Incarnation> {
        self.rings.home(topic)
    }

    /// How many groups and uids have clients here.
    #[must_use]
    pub const fn interest_counts(&self) -> InterestCounts {
        self.interest.counts()
    }

    /// The current load.
    #[must_use]
    pub fn load(&self) -> HomesLoad {
        HomesLoad {
            homes: self.homes.len(),
            parked: self.parked.len(),
            asked: self.routes.len(),
            deliveries: self.deliveries.len(),
            unsynced: self.peers.values().filter(|peer| !self.has_synced(peer)).count(),
            kept_bytes: self.retained.bytes(),
        }
    }

    pub(super) fn send(&mut self, peer: Incarnation, frame: LinkMessage<C>) {
        self.out.push(Effect::Send(peer, frame));
    }

    fn tick(&mut self) {
        self.release();
        for id in self.late_deliveries() {
            self.give_up_on(id);
        }
        let patience = self.limits.parking_time_max + 2 * self.limits.link_timeout;
        for id in self.routes.late(self.limits.link_timeout, patience, self.now) {
            self.give_up_flight(id);
        }
        self.sweep();
        self.forget_retracted();
        self.check_entrances();
        for (waiting, missing) in self.settling.late(self.limits.link_timeout, self.now) {
            self.settled(waiting, missing);
        }
    }

    /// Once per step; not before all gateways have synced.
    fn report_to_watchers(&mut self) {
        if !self.watched.is_on() || !self.gate_is_open() {
            return;
        }
        let homes = &self.homes;
        let (news, reported) = self.watched.news(|topic| homes.get(topic));
        self.out.extend(news.into_iter().map(|(topic, change)| Effect::Group(topic, change)));
        self.out.extend(reported.map(Effect::GroupsTold));
    }

    fn sweep(&mut self) {
        if self.now < self.next_sweep {
            return;
        }
        self.next_sweep = self.now + SWEEP_INTERVAL;
        self.claims.expire(self.now);
        let (me, rings, held) = (self.me, &self.rings, &self.interest);
        self.retained.sweep(self.now, |topic| rings.home(topic) == Some(me) || held.has(topic));
    }

    /// Installs a view if it is newer, and settles which topics this gateway loses and gains by it.
    pub(super) fn install(&mut self, view: Arc<View>) {
        let next = Members::of(view);
        if next.epoch <= self.members.epoch {
            return;
        }
        let gap = !next.follows(&self.members);
        let changed = gap || next.gateways != self.members.gateways;
        let gone: Vec<_> =
            self.peers.keys().copied().filter(|peer| !next.gateways.contains_key(peer)).collect();
        self.members = next;
        self.out.push(Effect::Installed(Arc::clone(&self.members.view)));
        if changed {
            self.ring_changed(gap);
        }
        // Precedes every other frame sent in this view.
        let open: Vec<_> = self.open_peers().filter(|peer| !gone.contains(peer)).collect();
        for &peer in &open {
            self.send(peer, LinkMessage::View(Arc::clone(&self.members.view)));
        }
        if changed {
            self.lose_topics(gap);
        }
        for peer in gone {
            self.peer_gone(peer);
        }
        self.add_peers();
        if changed {
            self.move_interest(gap);
        }
        self.send_synced(&open, changed);
        if gap {
            self.reset_inbound_links();
        }
        self.restore_reported();
        self.pump_all();
        self.release();
    }

    fn ring_changed(&mut self, gap: bool) {
        self.changed = self.members.epoch;
        self.rings.change(self.me, &self.members, gap);
        for peer in self.peers.values_mut() {
            peer.unsynced_since = peer.unsynced_since.or(Some(self.now));
        }
    }

    /// Topics that moved to another home: their parked questions return to those who asked.
    fn lose_topics(&mut self, gap: bool) {
        let (me, rings) = (self.me, &self.rings);
        let whole = gap.then_some(self.members.epoch);
        self.homes.retain(|topic| rings.home(topic) == Some(me), whole);
        if gap {
            self.retained.forget_histories();
        }
        self.hand_over();
        let (me, rings) = (self.me, &self.rings);
        for topic in self.watched.lose(|topic| rings.home(topic) != Some(me)) {
            self.out.push(Effect::Group(topic, MembershipChange::Moved));
        }
        self.watched.changed_all(self.homes.topics(), self.members.epoch);
        self.move_reports(gap);
        let (me, rings) = (self.me, &self.rings);
        let others = self.parked.take_others(|topic| rings.home(topic) == Some(me));
        for asked in others {
            self.reply(asked.origin, HomeReply::NotHome(self.members.epoch));
        }
    }

    /// Histories move to the groups' next home. One that has not reached it before the ring changes again is
    /// dropped: another home may have started a new one.
    fn hand_over(&mut self) {
        let (me, rings) = (self.me, &self.rings);
        for (home, parcels) in &mut self.parcels {
            parcels.retain(|(topic, _)| rings.home(topic) == Some(*home));
        }
        for (topic, history) in self.retained.hand_over(|topic| rings.home(topic) != Some(me)) {
            if let Some(home) = rings.home(&topic) {
                let history = history.into_parcel(self.now);
                self.parcels.entry(home).or_default().push((topic, history));
            }
        }
        for peer in self.open_peers().collect::<Vec<_>>() {
            self.send_parcels(peer);
        }
        self.parcels.retain(|home, parcels| !parcels.is_empty() && self.members.gateways.contains_key(home));
    }

    /// Precedes `Synced`: the home waits for that.
    pub(super) fn send_parcels(&mut self, home: Incarnation) {
        for (topic, history) in self.parcels.remove(&home).unwrap_or_default() {
            self.send(home, LinkMessage::HandOver { topic, history });
        }
    }
}
