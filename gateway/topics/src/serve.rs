//! The topics whose home this gateway is: ordering, forwarding, gathering, counting.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use broadgate_proto::{id::Incarnation, limits, v1::Epoch};

use crate::{
    content::Content,
    delivery::{Deliveries, PendingDelivery, PublishHash},
    heir::Reporting,
    home::{GatewayInterest, TopicHome, TopicHomes},
    inspect::inspect,
    membership::{DecidedClaim, LinkSession, MemberChange, MembershipChange, TopicPosition},
    own::OwnTopics,
    parking::{Parking, Question, ReplyTarget},
    remember::{Bounds, Remembered},
    shared::Shared,
    step::{Effect, HomeOp, HomeOutcome, HomeReply, LinkMessage, ReplyTo},
    topic::{Topic, TopicKind},
    trace::PendingTrace,
    watch::WatchedGroup,
};

/// How many idempotency keys of backends are remembered.
const CLAIMS: Bounds = Bounds {
    count: limits::IDEMPOTENCY_KEYS_MAX,
    bytes: limits::IDEMPOTENCY_KEYS_BYTES_MAX,
    time: limits::COMMAND_ID_TIME,
};

/// This gateway as a home: its topics, what waits for them, and those who follow what happens in them. What it
/// sends to its own clients' topics goes to [`OwnTopics`].
#[derive(Debug)]
pub(super) struct Homes<C: Content> {
    pub(super) topics: TopicHomes,
    pub(super) parked: Parking<C>,
    pub(super) deliveries: Deliveries<C>,
    /// Rises with everything that this home places, whatever the topic.
    number: u64,
    /// Idempotency keys under which backends have published.
    pub(super) claims: Remembered<PublishHash>,
    pub(super) watched: WatchedGroup,
    pub(super) reporting: Reporting,
    /// Replies to this gateway's own callers, until they are taken.
    replies: VecDeque<(u64, HomeReply<C>)>,
}

impl<C: Content> Homes<C> {
    pub(super) fn new(shared: &Shared<C>) -> Self {
        Self {
            topics: TopicHomes::default(),
            parked: Parking::new(shared.limits.parking_bytes_max, shared.limits.parking_time_max),
            deliveries: Deliveries::new(),
            number: 0,
            claims: Remembered::new(CLAIMS, CLAIMS),
            watched: WatchedGroup::default(),
            reporting: Reporting::default(),
            replies: VecDeque::new(),
        }
    }

    /// The next reply to a caller of this gateway.
    pub(super) fn take_reply(&mut self) -> Option<(u64, HomeReply<C>)> {
        self.replies.pop_front()
    }

    /// Serves a question, or parks it until all gateways have synced.
    pub(super) fn offer(&mut self, shared: &mut Shared<C>, own: &mut OwnTopics<C>, asked: Question<C>) {
        if !shared.is_home(&asked.topic) {
            let epoch = shared.members.epoch;
            return self.reply(shared, asked.origin, HomeReply::NotHome(epoch));
        }
        if self.parked.is_empty() && shared.gate_is_open() {
            return self.serve(shared, own, asked);
        }
        if let Err(asked) = self.parked.park(asked, shared.now) {
            shared.dropped("parking_full");
            self.reply(shared, asked.origin, HomeReply::Busy);
        }
    }

    /// Serves the parked questions that need not wait any longer.
    pub(super) fn release(&mut self, shared: &mut Shared<C>, own: &mut OwnTopics<C>) {
        let open = shared.gate_is_open();
        let mut answers = Vec::new();
        if open {
            for topic in self.topics.claimed() {
                let Some((changes, decided)) = self.topics.get_mut(&topic).map(TopicHome::decide) else {
                    continue;
                };
                self.send_presence(shared, own, &topic, changes);
                answers.push((topic, decided));
            }
            for topic in self.topics.unsent_rosters() {
                self.send_roster(shared, own, &topic, None);
            }
        }
        if shared.peers.unsynced().is_empty() {
            for topic in self.topics.open_ended() {
                self.send_roster(shared, own, &topic, None);
            }
        }
        for (topic, decided) in answers {
            self.answer_claims(shared, own, &topic, decided);
        }
        while let Some(asked) = self.parked.next(open, shared.now) {
            self.serve(shared, own, asked);
        }
    }

    fn serve(&mut self, shared: &mut Shared<C>, own: &mut OwnTopics<C>, asked: Question<C>) {
        let Question { origin, topic, op, since } = asked;
        let epoch = shared.members.epoch;
        match op {
            HomeOp::Deliver(command) => self.deliver(shared, own, (origin, since), topic, command),
            HomeOp::Count(topics) => {
                // A topic that has moved would be counted as empty.
                if !topics.iter().all(|topic| shared.is_home(topic)) {
                    return self.reply(shared, origin, HomeReply::Moved);
                }
                let count = |topic| self.topics.get(topic).map_or(0, super::home::TopicHome::clients);
                let clients = topics.iter().map(count).collect();
                let missing = shared.peers.unsynced();
                self.reply(shared, origin, HomeReply::Counted { epoch, clients, missing });
            }
            HomeOp::Roster { limit, after } => {
                let roster = self.topics.get(&topic).and_then(|home| home.roster.as_ref());
                let members = roster.map(|roster| roster.page(limit, &after).collect()).unwrap_or_default();
                let total = roster.map_or(0, |roster| roster.len() as u64);
                let missing = shared.peers.unsynced();
                self.reply(shared, origin, HomeReply::Roster { epoch, members, total, missing });
            }
            HomeOp::History { since, limit } => {
                let page = shared.retained.page(&topic, since, limit, shared.now);
                self.reply(shared, origin, HomeReply::History { epoch, page });
            }
            HomeOp::Inspect => {
                let state = inspect(shared, &self.topics, &topic);
                self.reply(shared, origin, HomeReply::Inspected(Box::new(state)));
            }
            HomeOp::Last => {
                let age = |since| shared.now.saturating_sub(since);
                let value = shared.retained.value(&topic, shared.now);
                let command = value.map(|value| (value.command.clone(), age(value.since)));
                let missing = shared.peers.unsynced();
                self.reply(shared, origin, HomeReply::Last { epoch, command, missing });
            }
            // A value may have been sent meanwhile.
            HomeOp::Missed => {
                if self.reporting.has(&topic) && shared.retained.value(&topic, shared.now).is_none() {
                    shared.out.push(Effect::Missed(topic));
                }
            }
            HomeOp::Claim(print) => {
                let (app, key) = (topic.app(), topic.name());
                let known = self.claims.get(app, key).map(|PublishHash(known)| *known);
                if known.is_none() {
                    self.claims.put(app, key, PublishHash(print), shared.now);
                }
                self.reply(shared, origin, HomeReply::Claimed(known.is_none_or(|known| known == print)));
            }
        }
    }

    /// The next position in a topic's order.
    fn next_place(&mut self, epoch: Epoch, topic: &Topic, now: Duration) -> TopicPosition {
        self.number += 1;
        let tenure = self.topics.get_mut(topic).map_or(epoch, |home| {
            home.placed = Some((self.number, now));
            home.tenure
        });
        TopicPosition { tenure, number: self.number }
    }

    /// Where the topic's order is, for what takes no place in it.
    fn present_place(&self, epoch: Epoch, topic: &Topic) -> TopicPosition {
        let tenure = self.topics.get(topic).map_or(epoch, |home| home.tenure);
        TopicPosition { tenure, number: self.number }
    }

    fn deliver(
        &mut self,
        shared: &mut Shared<C>,
        own: &mut OwnTopics<C>,
        (origin, asked): (ReplyTarget, Duration),
        topic: Topic,
        command: C::Command,
    ) {
        let is_dry = C::is_dry(&command);
        let at = if is_dry {
            self.present_place(shared.members.epoch, &topic)
        } else {
            self.next_place(shared.members.epoch, &topic, shared.now)
        };
        if !is_dry && self.reporting.has(&topic) {
            shared.out.push(Effect::Ordered(topic.clone(), command.clone()));
        }
        let bytes = C::bytes(&command);
        let mut delivery = PendingDelivery {
            origin,
            topic: topic.clone(),
            epoch: shared.members.epoch,
            waiting: BTreeSet::new(),
            answer: None,
            gateways: 0,
            missing: shared.peers.unsynced().into_iter().collect(),
            stale: false,
            since: shared.now,
            // A command that is not retained has none.
            position: shared.retained.add(&topic, at, &command, shared.now),
            trace: PendingTrace::of(shared, asked, at, &command),
            expects: None,
        };
        let wanted = origin != ReplyTarget::None;
        let id = if wanted { self.deliveries.next() } else { 0 };
        let concerned = self.concerned(shared, &topic, &command);
        if concerned.is_empty() && !is_dry {
            shared.out.push(Effect::Unheard(command.clone()));
        }
        for gateway in concerned {
            if gateway == shared.me {
                if !is_dry {
                    own.rises(&topic, at);
                }
                let back = if wanted { ReplyTo::Own(id) } else { ReplyTo::None };
                let (topic, command) = (topic.clone(), command.clone());
                shared.out.push(Effect::Place { back, topic, at, command });
            } else if shared.peers.is_reachable(gateway, bytes) {
                shared.peers.charge(gateway, bytes);
                let (topic, command) = (topic.clone(), command.clone());
                shared.send(gateway, LinkMessage::Deliver { id, topic, at, command });
            } else {
                shared.dropped("peer_unreachable");
                delivery.missing.insert(gateway);
                delivery.trace.iter_mut().for_each(|pending| pending.unreachable(gateway));
                continue;
            }
            delivery.waiting.insert(gateway);
        }
        if wanted {
            if let Some(also) = C::also(&command) {
                // What is placed from now on concerns it, although its interest is still to come.
                self.topics.take(&topic, shared.members.epoch, shared.now).expect(id, also);
                delivery.expects = Some(topic);
            }
            self.deliveries.add(delivery);
            self.conclude_if_done(shared, id);
        }
    }

    /// The gateways that a command concerns: all with clients in the topic. Of those that leave, none has clients.
    fn concerned(&self, shared: &Shared<C>, topic: &Topic, command: &C::Command) -> BTreeSet<Incarnation> {
        let mut concerned: BTreeSet<_> = if topic.kind() == TopicKind::All {
            shared.members.gateways.keys().copied().collect()
        } else {
            self.topics.get(topic).into_iter().flat_map(super::home::TopicHome::concerned).collect()
        };
        concerned.extend(C::also(command).filter(|also| shared.members.gateways.contains_key(also)));
        if !shared.members.leaving.is_empty() {
            concerned.retain(|gateway| !shared.members.leaving.contains(gateway));
        }
        concerned
    }

    /// A gateway answers a delivery.
    pub(super) fn placed_by(
        &mut self,
        shared: &mut Shared<C>,
        own: &mut OwnTopics<C>,
        gateway: Incarnation,
        id: u64,
        placed: Option<Option<C::Answer>>,
    ) {
        let Some(stale) = self.deliveries.placed(gateway, id, placed) else { return };
        if let Some(topic) = stale {
            self.take_over_from_scratch(shared, own, gateway, &topic);
        }
        self.conclude_if_done(shared, id);
    }

    /// A gateway in the same view refuses this home's order: in a view that this one has not seen, it
    /// accepted a later position. From now on this home's positions are later.
    fn take_over_from_scratch(
        &mut self,
        shared: &mut Shared<C>,
        own: &mut OwnTopics<C>,
        gateway: Incarnation,
        topic: &Topic,
    ) {
        let epoch = shared.members.epoch;
        let agrees = shared.peers.get(gateway).is_some_and(|peer| peer.spoke == epoch);
        if let Some(home) = self.topics.get_mut(topic).filter(|home| agrees && home.tenure < epoch) {
            home.take_over(epoch, shared.now);
            self.release(shared, own);
        }
    }

    /// The answers that a gateway owes will not come; they are missing unless it leaves.
    pub(super) fn miss(&mut self, shared: &mut Shared<C>, gateway: Incarnation, leaves: bool) {
        for id in self.deliveries.miss(gateway, leaves) {
            self.conclude_if_done(shared, id);
        }
    }

    /// What has waited for too long does not wait any longer.
    pub(super) fn tick(&mut self, shared: &mut Shared<C>, own: &mut OwnTopics<C>) {
        self.release(shared, own);
        for id in self.deliveries.give_up(shared.limits.link_timeout, shared.now, &shared.members.leaving) {
            self.conclude_if_done(shared, id);
        }
    }

    fn conclude_if_done(&mut self, shared: &mut Shared<C>, id: u64) {
        let Some(delivery) = self.deliveries.take_if_done(id) else { return };
        if let Some(topic) = &delivery.expects {
            if let Some(home) = self.topics.get_mut(topic) {
                home.met(id);
            }
            self.topics.forget_if_idle(topic);
        }
        let reply = if delivery.stale {
            HomeReply::NotHome(shared.members.epoch)
        } else {
            HomeReply::Done(HomeOutcome {
                epoch: delivery.epoch,
                answer: delivery.answer,
                gateways: delivery.gateways,
                missing: delivery.missing.into_iter().collect(),
                position: delivery.position,
                trace: delivery.trace.map(|pending| Box::new(pending.ended(shared.now))),
            })
        };
        self.reply(shared, delivery.origin, reply);
    }

    fn reply(&mut self, shared: &mut Shared<C>, origin: ReplyTarget, reply: HomeReply<C>) {
        match origin {
            ReplyTarget::None => {}
            ReplyTarget::Own(id) => self.replies.push_back((id, reply)),
            ReplyTarget::Peer(peer, id) => shared.send_if_open(peer, LinkMessage::Reply { id, reply }),
        }
    }

    /// A gateway announces its interest in a topic.
    pub(super) fn interest(
        &mut self,
        shared: &mut Shared<C>,
        own: &mut OwnTopics<C>,
        (gateway, session): (Incarnation, LinkSession),
        topic: &Topic,
        update: GatewayInterest<'_>,
    ) {
        // It has not installed this view yet: it will repeat it, as it is then, to the right home. That may be this
        // gateway again, and what it said before is outdated.
        if !shared.has_been_home_since_spoken(gateway, topic) {
            return;
        }
        self.watched.changed(topic);
        let open = shared.gate_is_open();
        let home = self.topics.take(topic, shared.members.epoch, shared.now);
        let (mut changes, new) = home.apply(gateway, session, update);
        // Before every gateway has synced, the number of users is unknown.
        let (come, decided) = if open { home.decide() } else { Default::default() };
        changes.extend(come);
        self.reporting.changed(topic, &changes);
        let is_sent = home.roster.as_ref().is_some_and(|roster| roster.sent);
        if is_sent && new {
            self.send_roster(shared, own, topic, Some(gateway));
        }
        if new {
            shared.send_value(gateway, topic);
        }
        if is_sent {
            self.send_presence(shared, own, topic, changes);
        } else if open && self.topics.get(topic).is_some_and(|home| home.roster.is_some()) {
            self.send_roster(shared, own, topic, None);
        }
        self.answer_claims(shared, own, topic, decided);
        self.topics.forget_if_idle(topic);
    }

    /// After the roster change has been sent: a client that is in is in the roster that it gets.
    fn answer_claims(
        &mut self,
        shared: &mut Shared<C>,
        own: &mut OwnTopics<C>,
        topic: &Topic,
        decided: Vec<(Incarnation, DecidedClaim)>,
    ) {
        let mut by_gateway: BTreeMap<Incarnation, Vec<DecidedClaim>> = BTreeMap::new();
        for (gateway, decided) in decided {
            by_gateway.entry(gateway).or_default().push(decided);
        }
        for (gateway, claims) in by_gateway {
            let at = self.next_place(shared.members.epoch, topic, shared.now);
            if gateway != shared.me {
                shared
                    .send_if_open(gateway, LinkMessage::ClaimDecisions { topic: topic.clone(), at, claims });
            } else if own.rises(topic, at) {
                own.decided_here(shared, gateway, (topic, at), &claims);
            }
        }
    }

    /// Sends the whole roster to one interested gateway, or to all. Users of a gateway that has not synced
    /// may be missing: then the roster is not marked as complete.
    fn send_roster(
        &mut self,
        shared: &mut Shared<C>,
        own: &mut OwnTopics<C>,
        topic: &Topic,
        to: Option<Incarnation>,
    ) {
        let whole = shared.peers.unsynced().is_empty() || topic.is_silent();
        let Some(home) = self.topics.get_mut(topic) else { return };
        let Some(roster) = &mut home.roster else { return };
        roster.sent |= to.is_none();
        roster.open_ended = !whole || roster.open_ended && to.is_some();
        if topic.is_silent() {
            return;
        }
        let members = roster.all();
        let to: Vec<_> = home.interested().filter(|holder| to.is_none_or(|to| to == *holder)).collect();
        self.send_present(shared, own, topic, &to, (whole, &members));
    }

    /// An interested gateway may have missed something while the link to it was broken.
    pub(super) fn resend_rosters(
        &mut self,
        shared: &mut Shared<C>,
        own: &mut OwnTopics<C>,
        gateway: Incarnation,
    ) {
        for topic in self.topics.rosters_known_to(gateway) {
            self.send_roster(shared, own, &topic, Some(gateway));
        }
    }

    /// The link to a peer has opened: it may have missed the last values of this home's topics, and a client
    /// that enters there gets its own gateway's.
    pub(super) fn send_values(&self, shared: &mut Shared<C>, to: Incarnation) {
        let concerns = |topic: &Topic| {
            self.topics.get(topic).is_some_and(|home| home.interested().any(|gateway| gateway == to))
        };
        let mut topics: Vec<_> =
            shared.retained.with_value().filter(|topic| concerns(topic)).cloned().collect();
        // A seed replays a cluster: hash-map order must not show.
        topics.sort_unstable();
        for topic in topics {
            shared.send_value(to, &topic);
        }
    }

    /// Sends joins and leaves to all interested gateways.
    pub(super) fn send_presence(
        &mut self,
        shared: &mut Shared<C>,
        own: &mut OwnTopics<C>,
        topic: &Topic,
        changes: Vec<MemberChange>,
    ) {
        self.watched.changed(topic);
        self.reporting.changed(topic, &changes);
        let Some(home) = self.topics.get(topic) else { return };
        if changes.is_empty() || topic.is_silent() || home.roster.as_ref().is_none_or(|roster| !roster.sent) {
            return;
        }
        let to: Vec<_> = home.interested().collect();
        self.send_present(shared, own, topic, &to, (false, &changes));
    }

    fn send_present(
        &mut self,
        shared: &mut Shared<C>,
        own: &mut OwnTopics<C>,
        topic: &Topic,
        to: &[Incarnation],
        (whole, members): (bool, &[MemberChange]),
    ) {
        let at = self.next_place(shared.members.epoch, topic, shared.now);
        for &gateway in to {
            let members = members.to_vec();
            if gateway == shared.me {
                if own.rises(topic, at) {
                    own.present_here(shared, gateway, (topic, at), whole, members);
                }
            } else {
                let topic = topic.clone();
                shared.send_if_open(gateway, LinkMessage::Present { topic, at, whole, members });
            }
        }
    }

    /// A gateway is gone, or has synced: what it has announced, all or of these sessions, is void.
    pub(super) fn lose(
        &mut self,
        shared: &mut Shared<C>,
        own: &mut OwnTopics<C>,
        lost: impl Fn(Incarnation, LinkSession) -> bool,
    ) {
        for (topic, changes) in self.topics.lose(lost) {
            self.send_presence(shared, own, &topic, changes);
        }
    }

    /// The ring has changed: the topics that moved to another home; after a gap all of them are taken over
    /// from scratch.
    pub(super) fn lose_topics(&mut self, shared: &Shared<C>, gap: bool) {
        let whole = gap.then_some(shared.members.epoch);
        self.topics.retain(|topic| shared.is_home(topic), whole, shared.now);
    }

    /// Questions about topics that moved to another home return to those who asked.
    pub(super) fn return_parked(&mut self, shared: &mut Shared<C>) {
        let others = self.parked.take_others(|topic| shared.is_home(topic));
        for asked in others {
            let epoch = shared.members.epoch;
            self.reply(shared, asked.origin, HomeReply::NotHome(epoch));
        }
    }

    /// Those who watch groups see which have moved.
    pub(super) fn move_watched(&mut self, shared: &mut Shared<C>) {
        for topic in self.watched.lose(|topic| !shared.is_home(topic)) {
            shared.out.push(Effect::Group(topic, MembershipChange::Moved));
        }
        self.watched.changed_all(self.topics.topics(), shared.members.epoch);
    }

    /// Once per step; not before all gateways have synced.
    pub(super) fn report(&mut self, shared: &mut Shared<C>) {
        if self.watched.is_on() && shared.gate_is_open() {
            let topics = &self.topics;
            let (news, reported) = self.watched.news(|topic| topics.get(topic));
            shared.out.extend(news.into_iter().map(|(topic, change)| Effect::Group(topic, change)));
            shared.out.extend(reported.map(Effect::GroupsComplete));
        }
        self.reporting.report(shared, &self.topics);
    }
}
