//! Serving the topics whose home this gateway is: ordering, forwarding, gathering, counting.

use std::collections::{BTreeMap, BTreeSet};

use broadgate_proto::id::Incarnation;

use crate::{
    content::Content,
    core::Core,
    delivery::{PendingDelivery, PublishHash},
    home::{GatewayInterest, TopicHome},
    membership::{DecidedClaim, LinkSession, MemberChange, TopicPosition},
    parking::{Question, ReplyTarget},
    step::{Effect, HomeOp, HomeOutcome, HomeReply, LinkMessage, ReplyTo},
    topic::{Topic, TopicKind},
};

impl<C: Content> Core<C> {
    /// A peer asks this gateway as a topic's home.
    pub(super) fn asked_by(&mut self, peer: Incarnation, id: u64, topic: Topic, op: HomeOp<C>) {
        let origin = if id == 0 { ReplyTarget::None } else { ReplyTarget::Peer(peer, id) };
        self.offer(Question { origin, topic, op });
    }

    /// Serves a question, or parks it until all gateways have synced.
    pub(super) fn offer(&mut self, asked: Question<C>) {
        if self.rings.home(&asked.topic) != Some(self.me) {
            return self.reply(asked.origin, HomeReply::NotHome(self.members.epoch));
        }
        if self.parked.is_empty() && self.gate_is_open() {
            return self.serve(asked);
        }
        if let Err(asked) = self.parked.park(asked, self.now) {
            self.out.push(Effect::Dropped("parking_full"));
            self.reply(asked.origin, HomeReply::Busy);
        }
    }

    /// Serves the parked questions that need not wait any longer.
    pub(super) fn release(&mut self) {
        let open = self.gate_is_open();
        let mut answers = Vec::new();
        if open {
            for topic in self.homes.claimed() {
                let Some((changes, decided)) = self.homes.get_mut(&topic).map(TopicHome::decide) else {
                    continue;
                };
                self.tell_present(&topic, changes);
                answers.push((topic, decided));
            }
            for topic in self.homes.untold() {
                self.tell_whole(&topic, None);
            }
        }
        if self.unsynced().is_empty() {
            for topic in self.homes.open_ended() {
                self.tell_whole(&topic, None);
            }
        }
        for (topic, decided) in answers {
            self.answer_claims(&topic, decided);
        }
        while let Some(asked) = self.parked.next(open, self.now) {
            self.serve(asked);
        }
    }

    fn serve(&mut self, asked: Question<C>) {
        let Question { origin, topic, op } = asked;
        let epoch = self.members.epoch;
        match op {
            HomeOp::Deliver(command) => self.deliver(origin, topic, command),
            HomeOp::Count(topics) => {
                // A topic that has moved would be counted as empty.
                if topics.iter().any(|topic| self.rings.home(topic) != Some(self.me)) {
                    return self.reply(origin, HomeReply::Moved);
                }
                let count = |topic| self.homes.get(topic).map_or(0, super::home::TopicHome::clients);
                let clients = topics.iter().map(count).collect();
                self.reply(origin, HomeReply::Counted { epoch, clients, missing: self.unsynced() });
            }
            HomeOp::Roster { limit, after } => {
                let roster = self.homes.get(&topic).and_then(|home| home.roster.as_ref());
                let members = roster.map(|roster| roster.page(limit, &after).collect()).unwrap_or_default();
                let total = roster.map_or(0, |roster| roster.len() as u64);
                self.reply(origin, HomeReply::Roster { epoch, members, total, missing: self.unsynced() });
            }
            HomeOp::History { since, limit } => {
                let page = self.retained.page(&topic, since, limit, self.now);
                self.reply(origin, HomeReply::History { epoch, page });
            }
            HomeOp::Last => {
                let age = |since| self.now.saturating_sub(since);
                let value = self.retained.value(&topic, self.now);
                let command = value.map(|value| (value.command.clone(), age(value.since)));
                self.reply(origin, HomeReply::Last { epoch, command, missing: self.unsynced() });
            }
            // A value may have been sent meanwhile.
            HomeOp::Missed => {
                if self.reports.has(&topic) && self.retained.value(&topic, self.now).is_none() {
                    self.out.push(Effect::Missed(topic));
                }
            }
            HomeOp::Claim(print) => {
                let (app, key) = (topic.app(), topic.name());
                let known = self.claims.get(app, key).map(|PublishHash(known)| *known);
                if known.is_none() {
                    self.claims.put(app, key, PublishHash(print), self.now);
                }
                self.reply(origin, HomeReply::Claimed(known.is_none_or(|known| known == print)));
            }
        }
    }

    /// The next position in a topic's order.
    fn next_place(&mut self, topic: &Topic) -> TopicPosition {
        self.number += 1;
        let tenure = self.homes.get(topic).map_or(self.members.epoch, |home| home.tenure);
        TopicPosition { tenure, number: self.number }
    }

    fn deliver(&mut self, origin: ReplyTarget, topic: Topic, command: C::Command) {
        let at = self.next_place(&topic);
        if self.reports.has(&topic) {
            self.out.push(Effect::Ordered(topic.clone(), command.clone()));
        }
        let bytes = C::bytes(&command);
        let mut delivery = PendingDelivery {
            origin,
            topic: topic.clone(),
            epoch: self.members.epoch,
            waiting: BTreeSet::new(),
            answer: None,
            gateways: 0,
            missing: self.unsynced().into_iter().collect(),
            stale: false,
            since: self.now,
            position: self.retained.add(&topic, at, &command, self.now),
            expects: None,
        };
        let wanted = origin != ReplyTarget::None;
        let id = if wanted { self.next_delivery } else { 0 };
        for gateway in self.concerned(&topic, &command) {
            if gateway == self.me {
                self.rises(&topic, at);
                let back = if wanted { ReplyTo::Own(id) } else { ReplyTo::None };
                let (topic, command) = (topic.clone(), command.clone());
                self.out.push(Effect::Place { back, topic, at, command });
            } else if self.is_reachable(gateway, bytes) {
                if let Some(peer) = self.peers.get_mut(&gateway) {
                    peer.untaken += bytes;
                }
                let (topic, command) = (topic.clone(), command.clone());
                self.send(gateway, LinkMessage::Deliver { id, topic, at, command });
            } else {
                self.out.push(Effect::Dropped("peer_unreachable"));
                delivery.missing.insert(gateway);
                continue;
            }
            delivery.waiting.insert(gateway);
        }
        if wanted {
            if let Some(also) = C::also(&command) {
                // What is placed from now on concerns it, although its interest is still to come.
                self.homes.take(&topic, self.members.epoch).expect(id, also);
                delivery.expects = Some(topic);
            }
            self.next_delivery += 1;
            self.deliveries.insert(id, delivery);
            self.conclude_if_done(id);
        }
    }

    /// The gateways that a command concerns: all with clients in the topic.
    fn concerned(&self, topic: &Topic, command: &C::Command) -> BTreeSet<Incarnation> {
        let mut concerned: BTreeSet<_> = if topic.kind() == TopicKind::All {
            self.members.gateways.keys().copied().collect()
        } else {
            self.homes.get(topic).into_iter().flat_map(super::home::TopicHome::concerned).collect()
        };
        concerned.extend(C::also(command).filter(|also| self.members.gateways.contains_key(also)));
        concerned
    }

    /// A gateway answers a delivery.
    pub(super) fn placed_by(&mut self, gateway: Incarnation, id: u64, placed: Option<Option<C::Answer>>) {
        let Some(delivery) = self.deliveries.get_mut(&id) else { return };
        if !delivery.waiting.remove(&gateway) {
            return;
        }
        match placed {
            Some(answer) => {
                delivery.gateways += 1;
                if let Some(answer) = answer {
                    C::merge(&mut delivery.answer, answer);
                }
            }
            None => {
                delivery.stale = true;
                let topic = delivery.topic.clone();
                self.take_over_from_scratch(gateway, &topic);
            }
        }
        self.conclude_if_done(id);
    }

    /// A gateway in the same view refuses this home's order: in a view that this one has not seen, it
    /// accepted a later position. From now on this home's positions are later.
    fn take_over_from_scratch(&mut self, gateway: Incarnation, topic: &Topic) {
        let epoch = self.members.epoch;
        let agrees = self.peers.get(&gateway).is_some_and(|peer| peer.spoke == epoch);
        if let Some(home) = self.homes.get_mut(topic).filter(|home| agrees && home.tenure < epoch) {
            home.take_over(epoch);
            self.release();
        }
    }

    /// The answers that a gateway owes will not come.
    pub(super) fn miss(&mut self, gateway: Incarnation) {
        let concerned: Vec<u64> = self
            .deliveries
            .iter()
            .filter(|(_, delivery)| delivery.waiting.contains(&gateway))
            .map(|(id, _)| *id)
            .collect();
        for id in concerned {
            if let Some(delivery) = self.deliveries.get_mut(&id) {
                delivery.waiting.remove(&gateway);
                delivery.missing.insert(gateway);
            }
            self.conclude_if_done(id);
        }
    }

    pub(super) fn late_deliveries(&self) -> Vec<u64> {
        let late = self.deliveries.iter().take_while(|(_, delivery)| {
            // They were numbered one after the other.
            self.now >= delivery.since + self.limits.link_timeout
        });
        late.map(|(id, _)| *id).collect()
    }

    pub(super) fn give_up_on(&mut self, id: u64) {
        if let Some(delivery) = self.deliveries.get_mut(&id) {
            let late = std::mem::take(&mut delivery.waiting);
            delivery.missing.extend(late);
        }
        self.conclude_if_done(id);
    }

    fn conclude_if_done(&mut self, id: u64) {
        if self.deliveries.get(&id).is_none_or(|delivery| !delivery.waiting.is_empty()) {
            return;
        }
        let Some(delivery) = self.deliveries.remove(&id) else { return };
        if let Some(topic) = &delivery.expects {
            if let Some(home) = self.homes.get_mut(topic) {
                home.met(id);
            }
            self.homes.forget_if_idle(topic);
        }
        let reply = if delivery.stale {
            HomeReply::NotHome(self.members.epoch)
        } else {
            HomeReply::Done(HomeOutcome {
                epoch: delivery.epoch,
                answer: delivery.answer,
                gateways: delivery.gateways,
                missing: delivery.missing.into_iter().collect(),
                position: delivery.position,
            })
        };
        self.reply(delivery.origin, reply);
    }

    pub(super) fn reply(&mut self, origin: ReplyTarget, reply: HomeReply<C>) {
        match origin {
            ReplyTarget::None => {}
            ReplyTarget::Own(id) => self.routed(id, reply),
            ReplyTarget::Peer(peer, id) => self.send_if_open(peer, LinkMessage::Reply { id, reply }),
        }
    }

    /// A gateway announces its interest in a topic.
    pub(super) fn interest_at_home(
        &mut self,
        gateway: Incarnation,
        session: LinkSession,
        topic: &Topic,
        update: GatewayInterest<'_>,
    ) {
        // It has not installed this view yet; it will repeat it to the right home.
        if self.rings.home(topic) != Some(self.me) {
            return;
        }
        self.watched.changed(topic);
        let open = self.gate_is_open();
        let home = self.homes.take(topic, self.members.epoch);
        let (mut changes, new) = home.apply(gateway, session, update);
        // Before every gateway has synced, the number of users is unknown.
        let (come, decided) = if open { home.decide() } else { Default::default() };
        changes.extend(come);
        self.reports.changed(topic, &changes);
        let told = home.roster.as_ref().is_some_and(|roster| roster.sent);
        if told && new {
            self.tell_whole(topic, Some(gateway));
        }
        if new {
            self.send_value(gateway, topic);
        }
        if told {
            self.tell_present(topic, changes);
        } else if open && self.homes.get(topic).is_some_and(|home| home.roster.is_some()) {
            self.tell_whole(topic, None);
        }
        self.answer_claims(topic, decided);
        self.homes.forget_if_idle(topic);
    }

    /// After the roster change has been sent: a client that is in is in the roster that it gets.
    fn answer_claims(&mut self, topic: &Topic, decided: Vec<(Incarnation, DecidedClaim)>) {
        let mut by_gateway: BTreeMap<Incarnation, Vec<DecidedClaim>> = BTreeMap::new();
        for (gateway, decided) in decided {
            by_gateway.entry(gateway).or_default().push(decided);
        }
        for (gateway, claims) in by_gateway {
            let at = self.next_place(topic);
            if gateway != self.me {
                self.send_if_open(gateway, LinkMessage::ClaimDecisions { topic: topic.clone(), at, claims });
            } else if self.rises(topic, at) {
                self.decided_here(gateway, topic, at, &claims);
            }
        }
    }

    /// Sends the whole roster to one interested gateway, or to all. Users of a gateway that has not synced
    /// may be missing: then the roster is not marked as complete.
    fn tell_whole(&mut self, topic: &Topic, to: Option<Incarnation>) {
        let whole = self.unsynced().is_empty() || topic.is_silent();
        let Some(home) = self.homes.get_mut(topic) else { return };
        let Some(roster) = &mut home.roster else { return };
        roster.sent |= to.is_none();
        roster.open_ended = !whole || roster.open_ended && to.is_some();
        if topic.is_silent() {
            return;
        }
        let members = roster.all();
        let to: Vec<_> = home.interested().filter(|holder| to.is_none_or(|to| to == *holder)).collect();
        self.tell(topic, &to, whole, &members);
    }

    /// An interested gateway may have missed something while the link to it was broken.
    pub(super) fn tell_again(&mut self, gateway: Incarnation) {
        for topic in self.homes.rosters_known_to(gateway) {
            self.tell_whole(&topic, Some(gateway));
        }
    }

    /// Sends joins and leaves to all interested gateways.
    pub(super) fn tell_present(&mut self, topic: &Topic, changes: Vec<MemberChange>) {
        self.watched.changed(topic);
        self.reports.changed(topic, &changes);
        let Some(home) = self.homes.get(topic) else { return };
        if changes.is_empty() || topic.is_silent() || home.roster.as_ref().is_none_or(|roster| !roster.sent) {
            return;
        }
        let to: Vec<_> = home.interested().collect();
        self.tell(topic, &to, false, &changes);
    }

    fn tell(&mut self, topic: &Topic, to: &[Incarnation], whole: bool, members: &[MemberChange]) {
        let at = self.next_place(topic);
        for &gateway in to {
            let members = members.to_vec();
            if gateway == self.me {
                if self.rises(topic, at) {
                    self.present_here(gateway, topic, at, whole, members);
                }
            } else {
                let topic = topic.clone();
                self.send_if_open(gateway, LinkMessage::Present { topic, at, whole, members });
            }
        }
    }
}
