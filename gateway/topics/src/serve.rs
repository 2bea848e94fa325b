//! The topics whose home this gateway is: it orders, passes on, gathers, counts.

use std::collections::{BTreeMap, BTreeSet};

use broadgate_proto::id::Incarnation;

use crate::{
    content::Content,
    core::Core,
    delivery::{Delivery, Print},
    home::{Hold, Home},
    membership::{At, Decided, MemberChange, Session},
    parking::{Asked, Origin},
    step::{Back, Done, Effect, Frame, Op, Reply},
    topic::{Kind, Topic},
};

impl<C: Content> Core<C> {
    /// A peer asks us as a topic's home.
    pub(super) fn asked_by(&mut self, peer: Incarnation, id: u64, topic: Topic, op: Op<C>) {
        let origin = if id == 0 { Origin::Nobody } else { Origin::Peer(peer, id) };
        self.offer(Asked { origin, topic, op });
    }

    /// Takes a question, or lets it wait until it is known who holds what.
    pub(super) fn offer(&mut self, asked: Asked<C>) {
        if self.rings.home(&asked.topic) != Some(self.me) {
            return self.reply(asked.origin, Reply::NotHome(self.members.epoch));
        }
        if self.parked.is_empty() && self.gate_is_open() {
            return self.serve(asked);
        }
        if let Err(asked) = self.parked.park(asked, self.now) {
            self.out.push(Effect::Dropped("parking_full"));
            self.reply(asked.origin, Reply::Busy);
        }
    }

    /// Serves what need not wait any longer.
    pub(super) fn release(&mut self) {
        let open = self.gate_is_open();
        let mut answers = Vec::new();
        if open {
            for topic in self.homes.claimed() {
                let Some((changes, decided)) = self.homes.get_mut(&topic).map(Home::decide) else { continue };
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

    fn serve(&mut self, asked: Asked<C>) {
        let Asked { origin, topic, op } = asked;
        let epoch = self.members.epoch;
        match op {
            Op::Deliver(command) => self.deliver(origin, topic, command),
            Op::Count(topics) => {
                // One that is not ours any more would be counted as empty.
                if topics.iter().any(|topic| self.rings.home(topic) != Some(self.me)) {
                    return self.reply(origin, Reply::Moved);
                }
                let count = |topic| self.homes.get(topic).map_or(0, super::home::Home::clients);
                let clients = topics.iter().map(count).collect();
                self.reply(origin, Reply::Counted { epoch, clients, missing: self.unsynced() });
            }
            Op::Roster { limit, after } => {
                let roster = self.homes.get(&topic).and_then(|home| home.roster.as_ref());
                let members = roster.map(|roster| roster.page(limit, &after).collect()).unwrap_or_default();
                let total = roster.map_or(0, |roster| roster.len() as u64);
                self.reply(origin, Reply::Roster { epoch, members, total, missing: self.unsynced() });
            }
            Op::History { since, limit } => {
                let page = self.kept.page(&topic, since, limit, self.now);
                self.reply(origin, Reply::History { epoch, page });
            }
            Op::Last => {
                let age = |since| self.now.saturating_sub(since);
                let value = self.kept.value(&topic, self.now);
                let command = value.map(|value| (value.command.clone(), age(value.since)));
                self.reply(origin, Reply::Last { epoch, command, missing: self.unsynced() });
            }
            // One may have been sent meanwhile.
            Op::Missed => {
                if self.reports.has(&topic) && self.kept.value(&topic, self.now).is_none() {
                    self.out.push(Effect::Missed(topic));
                }
            }
            Op::Claim(print) => {
                let (app, key) = (topic.app(), topic.name());
                let known = self.claims.get(app, key).map(|Print(known)| *known);
                if known.is_none() {
                    self.claims.put(app, key, Print(print), self.now);
                }
                self.reply(origin, Reply::Claimed(known.is_none_or(|known| known == print)));
            }
        }
    }

    /// The next place in a topic's order.
    fn next_place(&mut self, topic: &Topic) -> At {
        self.number += 1;
        let tenure = self.homes.get(topic).map_or(self.members.epoch, |home| home.tenure);
        At { tenure, number: self.number }
    }

    fn deliver(&mut self, origin: Origin, topic: Topic, command: C::Command) {
        let at = self.next_place(&topic);
        if self.reports.has(&topic) {
            self.out.push(Effect::Ordered(topic.clone(), command.clone()));
        }
        let bytes = C::bytes(&command);
        let mut delivery = Delivery {
            origin,
            topic: topic.clone(),
            epoch: self.members.epoch,
            waiting: BTreeSet::new(),
            answer: None,
            gateways: 0,
            missing: self.unsynced().into_iter().collect(),
            stale: false,
            since: self.now,
            position: self.kept.add(&topic, at, &command, self.now),
            expects: None,
        };
        let wanted = origin != Origin::Nobody;
        let id = if wanted { self.next_delivery } else { 0 };
        for gateway in self.concerned(&topic, &command) {
            if gateway == self.me {
                self.rises(&topic, at);
                let back = if wanted { Back::Own(id) } else { Back::Nobody };
                let (topic, command) = (topic.clone(), command.clone());
                self.out.push(Effect::Place { back, topic, at, command });
            } else if self.is_reachable(gateway, bytes) {
                if let Some(peer) = self.peers.get_mut(&gateway) {
                    peer.untaken += bytes;
                }
                let (topic, command) = (topic.clone(), command.clone());
                self.say(gateway, Frame::Deliver { id, topic, at, command });
            } else {
                self.out.push(Effect::Dropped("peer_unreachable"));
                delivery.missing.insert(gateway);
                continue;
            }
            delivery.waiting.insert(gateway);
        }
        if wanted {
            if let Some(also) = C::also(&command) {
                // What is placed from now on concerns it, although its hold is still to come.
                self.homes.take(&topic, self.members.epoch).expect(id, also);
                delivery.expects = Some(topic);
            }
            self.next_delivery += 1;
            self.deliveries.insert(id, delivery);
            self.conclude_if_done(id);
        }
    }

    /// Whom a command concerns: everybody with clients of the topic.
    fn concerned(&self, topic: &Topic, command: &C::Command) -> BTreeSet<Incarnation> {
        let mut concerned: BTreeSet<_> = if topic.kind() == Kind::All {
            self.members.gateways.keys().copied().collect()
        } else {
            self.homes.get(topic).into_iter().flat_map(super::home::Home::concerned).collect()
        };
        concerned.extend(C::also(command).filter(|also| self.members.gateways.contains_key(also)));
        concerned
    }

    /// A gateway says what became of a delivery.
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
                self.take_over_anew(gateway, &topic);
            }
        }
        self.conclude_if_done(id);
    }

    /// A gateway in our own view refuses what we have ordered: in a view that we have not seen it took
    /// a later order than ours. From now on ours is later.
    fn take_over_anew(&mut self, gateway: Incarnation, topic: &Topic) {
        let epoch = self.members.epoch;
        let agrees = self.peers.get(&gateway).is_some_and(|peer| peer.spoke == epoch);
        if let Some(home) = self.homes.get_mut(topic).filter(|home| agrees && home.tenure < epoch) {
            home.take_over(epoch);
            self.release();
        }
    }

    /// What a gateway has not answered, it will not.
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
            // They were made one after the other.
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
            Reply::NotHome(self.members.epoch)
        } else {
            Reply::Done(Done {
                epoch: delivery.epoch,
                answer: delivery.answer,
                gateways: delivery.gateways,
                missing: delivery.missing.into_iter().collect(),
                position: delivery.position,
            })
        };
        self.reply(delivery.origin, reply);
    }

    pub(super) fn reply(&mut self, origin: Origin, reply: Reply<C>) {
        match origin {
            Origin::Nobody => {}
            Origin::Own(id) => self.routed(id, reply),
            Origin::Peer(peer, id) => self.say_if_open(peer, Frame::Reply { id, reply }),
        }
    }

    /// A gateway says how its clients stand in a topic.
    pub(super) fn hold_at_home(
        &mut self,
        gateway: Incarnation,
        session: Session,
        topic: &Topic,
        hold: Hold<'_>,
    ) {
        // It has not installed our view yet; it will say so again to the right one.
        if self.rings.home(topic) != Some(self.me) {
            return;
        }
        self.watched.changed(topic);
        let open = self.gate_is_open();
        let home = self.homes.take(topic, self.members.epoch);
        let (mut changes, new) = home.hold(gateway, session, hold);
        // Before everybody has said who is present, nobody knows how many there are.
        let (come, decided) = if open { home.decide() } else { Default::default() };
        changes.extend(come);
        self.reports.changed(topic, &changes);
        let told = home.roster.as_ref().is_some_and(|roster| roster.told);
        if told && new {
            self.tell_whole(topic, Some(gateway));
        }
        if new {
            self.say_value(gateway, topic);
        }
        if told {
            self.tell_present(topic, changes);
        } else if open && self.homes.get(topic).is_some_and(|home| home.roster.is_some()) {
            self.tell_whole(topic, None);
        }
        self.answer_claims(topic, decided);
        self.homes.forget_if_idle(topic);
    }

    /// After everybody was told who has come by it: a client that is in is in what it is told.
    fn answer_claims(&mut self, topic: &Topic, decided: Vec<(Incarnation, Decided)>) {
        let mut by_gateway: BTreeMap<Incarnation, Vec<Decided>> = BTreeMap::new();
        for (gateway, decided) in decided {
            by_gateway.entry(gateway).or_default().push(decided);
        }
        for (gateway, claims) in by_gateway {
            let at = self.next_place(topic);
            if gateway != self.me {
                self.say_if_open(gateway, Frame::Decided { topic: topic.clone(), at, claims });
            } else if self.rises(topic, at) {
                self.decided_here(gateway, topic, at, &claims);
            }
        }
    }

    /// Tells one holder, or all, everybody who is present. Whom a gateway announced that has not synced
    /// may be missing there: nobody is told then that this is all.
    fn tell_whole(&mut self, topic: &Topic, to: Option<Incarnation>) {
        let whole = self.unsynced().is_empty() || topic.is_silent();
        let Some(home) = self.homes.get_mut(topic) else { return };
        let Some(roster) = &mut home.roster else { return };
        roster.told |= to.is_none();
        roster.open_ended = !whole || roster.open_ended && to.is_some();
        if topic.is_silent() {
            return;
        }
        let members = roster.all();
        let to: Vec<_> = home.holders().filter(|holder| to.is_none_or(|to| to == *holder)).collect();
        self.tell(topic, &to, whole, &members);
    }

    /// A holder may have missed something while our link to it was broken.
    pub(super) fn tell_again(&mut self, gateway: Incarnation) {
        for topic in self.homes.told_to(gateway) {
            self.tell_whole(&topic, Some(gateway));
        }
    }

    /// Tells all holders who has come and gone.
    pub(super) fn tell_present(&mut self, topic: &Topic, changes: Vec<MemberChange>) {
        self.watched.changed(topic);
        self.reports.changed(topic, &changes);
        let Some(home) = self.homes.get(topic) else { return };
        if changes.is_empty() || topic.is_silent() || home.roster.as_ref().is_none_or(|roster| !roster.told) {
            return;
        }
        let to: Vec<_> = home.holders().collect();
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
                self.say_if_open(gateway, Frame::Present { topic, at, whole, members });
            }
        }
    }
}
