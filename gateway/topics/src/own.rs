//! The interest of this gateway's own clients: announced to homes, and acknowledged by them.

use std::{collections::BTreeMap, time::Duration};

use broadgate_proto::id::Incarnation;

use crate::{
    content::Content,
    core::Core,
    home::GatewayInterest,
    interest::Changes,
    membership::{DecidedClaim, LinkSession, MemberChange, MembershipCount, TopicPosition},
    settle::WaitingOperation,
    step::{Effect, LinkMessage, ReplyTo, Ticket},
    topic::Topic,
};

/// The session number of this gateway's own interest, which crosses no link.
const OWN: LinkSession = 0;

impl<C: Content> Core<C> {
    /// A shard's membership of a topic has changed.
    pub(super) fn membership_changed(&mut self, standing: &MembershipCount) {
        let changes = self.interest.stand(standing, &mut self.last_claim);
        let topic = &standing.topic;
        let home = self.rings.home(topic);
        let Some(held) = self.interest.get_mut(topic) else { return };
        held.home = home;
        self.announce(topic, Some(changes));
    }

    /// Announces this gateway's interest to a topic's home: these presence members, or all.
    fn announce(&mut self, topic: &Topic, changes: Option<Changes>) {
        let last_claim = &mut self.last_claim;
        let Some(held) = self.interest.get_mut(topic) else { return };
        match held.home {
            Some(home) if home == self.me => {
                let (clients, knows_roster) = (held.clients(), held.present.is_some());
                let Changes { members, claims } = changes.unwrap_or_else(|| held.all_members(last_claim));
                self.interest_at_home(
                    self.me,
                    OWN,
                    topic,
                    GatewayInterest { clients, members: &members, claims, knows_roster },
                );
                self.interest.forget_if_empty(topic);
            }
            Some(home) => self.send_interest(home, topic, changes),
            None => self.interest.forget_if_empty(topic),
        }
    }

    /// Assigns a serial even while the link is broken: the next sync counts on from there.
    pub(super) fn send_interest(&mut self, home: Incarnation, topic: &Topic, changes: Option<Changes>) {
        let Some(peer) = self.peers.get_mut(&home) else { return };
        let Some(held) = self.interest.get_mut(topic) else { return };
        peer.serial += 1;
        held.serial = peer.serial;
        let clients = held.clients();
        if clients == 0 {
            peer.retracted.push_back((peer.serial, topic.clone(), self.now));
        }
        if peer.open {
            let whole = changes.is_none();
            let (serial, knows_roster) = (held.serial, held.present.is_some());
            let last_claim = &mut self.last_claim;
            let Changes { members, claims } = changes.unwrap_or_else(|| held.all_members(last_claim));
            let frame = LinkMessage::InterestUpdate {
                serial,
                topic: topic.clone(),
                clients,
                members,
                claims,
                knows_roster,
            };
            self.send(home, frame);
            if whole {
                self.send_value(home, topic);
            }
        }
    }

    /// Sends the group's last value: it outlives its home where another gateway retains it.
    pub(super) fn send_value(&mut self, to: Incarnation, topic: &Topic) {
        let Some(value) = self.retained.value(topic, self.now) else { return };
        let age = self.now.saturating_sub(value.since);
        let frame =
            LinkMessage::Value { topic: topic.clone(), at: value.at, age, command: value.command.clone() };
        self.send_if_open(to, frame);
    }

    /// The link to a peer has opened: it may have missed the last values of this home's topics, and a client
    /// that enters there gets its own gateway's.
    pub(super) fn send_values(&mut self, to: Incarnation) {
        let concerns = |topic: &Topic| {
            self.homes.get(topic).is_some_and(|home| home.interested().any(|gateway| gateway == to))
        };
        let mut topics: Vec<_> =
            self.retained.with_value().filter(|topic| concerns(topic)).cloned().collect();
        // A seed replays a cluster: hash-map order must not show.
        topics.sort_unstable();
        for topic in topics {
            self.send_value(to, &topic);
        }
    }

    /// The ring has changed: announces topics that moved to their new home; after a gap all topics, since
    /// their home may have lost them in between.
    pub(super) fn move_interest(&mut self, gap: bool) {
        for topic in self.interest.topics() {
            let home = self.rings.home(&topic);
            let Some(held) = self.interest.get_mut(&topic).filter(|held| gap || held.home != home) else {
                continue;
            };
            held.home = home;
            // An entry without clients existed for its former home only.
            self.interest.forget_if_empty(&topic);
            self.announce(&topic, None);
        }
        let (held, peers) = (&self.interest, &self.peers);
        let settled = self.settling.again(|topics| needs(held, peers, topics));
        for waiting in settled {
            self.settled(waiting, Vec::new());
        }
    }

    /// All interest for these homes has been sent. If it was not repeated as a whole, there is no checksum to
    /// compare.
    pub(super) fn send_synced(&mut self, to: &[Incarnation], whole: bool) {
        let sums = if whole { self.interest.sums() } else { BTreeMap::new() };
        for &home in to {
            let Some(peer) = self.peers.get_mut(&home) else { continue };
            peer.serial += 1;
            let serial = peer.serial;
            let sum = sums.get(&home).copied().unwrap_or_default();
            let (epoch, sum) = (self.members.epoch, whole.then_some((sum.topics, sum.sum)));
            self.send(home, LinkMessage::Synced { serial, epoch, sum });
        }
    }

    /// A home has acknowledged all interest updates up to this serial.
    pub(super) fn interest_acked(&mut self, home: Incarnation, serial: u64) {
        let Some(peer) = self.peers.get_mut(&home) else { return };
        if serial <= peer.taken || serial > peer.serial {
            return;
        }
        peer.taken = serial;
        while let Some((said, topic, _)) = peer.retracted.front().filter(|(said, ..)| *said <= serial) {
            if self.interest.get(topic).is_some_and(|held| held.home == Some(home) && held.serial == *said) {
                self.interest.forget_if_empty(topic);
            }
            peer.retracted.pop_front();
        }
        for waiting in self.settling.taken(home, serial) {
            self.settled(waiting, Vec::new());
        }
    }

    /// While a link is broken, a retraction cannot be acknowledged. After the link timeout nothing waits for
    /// it any longer, and the next sync retracts by omission: so a long partition costs no memory.
    pub(super) fn forget_retracted(&mut self) {
        let (patience, now) = (2 * self.limits.link_timeout, self.now);
        for (home, peer) in self.peers.iter_mut().filter(|(_, peer)| !peer.open) {
            let is_old = |(_, _, since): &mut (u64, Topic, Duration)| now >= *since + patience;
            while let Some((said, topic, _)) = peer.retracted.pop_front_if(is_old) {
                if self
                    .interest
                    .get(&topic)
                    .is_some_and(|held| held.home == Some(*home) && held.serial == said)
                {
                    self.interest.forget_if_empty(&topic);
                }
            }
        }
    }

    /// Answers the caller when the homes have acknowledged all changes so far.
    pub(super) fn settle(&mut self, ticket: Ticket, topics: Vec<Topic>) {
        self.wait_until_known(WaitingOperation::Caller(ticket), topics);
    }

    pub(super) fn wait_until_known(&mut self, what: WaitingOperation<C>, topics: Vec<Topic>) {
        let needs = needs(&self.interest, &self.peers, &topics);
        if needs.is_empty() {
            self.settled(what, Vec::new());
        } else {
            self.settling.wait(what, topics, needs, self.now);
        }
    }

    pub(super) fn settled(&mut self, waiting: WaitingOperation<C>, missing: Vec<Incarnation>) {
        match waiting {
            WaitingOperation::Entering(entering) => self.entered(entering, &missing),
            WaitingOperation::Caller(ticket) => self.out.push(Effect::Settled(ticket, missing)),
            WaitingOperation::Placed(back, answer) => self.placed_and_known(back, answer),
        }
    }

    /// The shards have executed a placing.
    pub(super) fn placed_here(&mut self, back: ReplyTo, answer: Option<C::Answer>, touched: Vec<Topic>) {
        if back == ReplyTo::None {
            return;
        }
        self.wait_until_known(WaitingOperation::Placed(back, answer), touched);
    }

    fn placed_and_known(&mut self, back: ReplyTo, answer: Option<C::Answer>) {
        match back {
            ReplyTo::None => {}
            ReplyTo::Own(id) => self.placed_by(self.me, id, Some(answer)),
            ReplyTo::Peer(peer, session, id) => {
                // A replaced link has lost its deliveries.
                let same =
                    self.peers.get(&peer).is_some_and(|peer| peer.open && peer.session == Some(session));
                if same {
                    self.send(peer, LinkMessage::Placed { id, placed: Some(answer) });
                }
            }
        }
    }

    /// A topic's home has sent a delivery.
    pub(super) fn deliver_here(
        &mut self,
        peer: Incarnation,
        session: LinkSession,
        id: u64,
        topic: Topic,
        at: TopicPosition,
        command: C::Command,
    ) {
        if !self.takes_from(peer, &topic, at) {
            self.out.push(Effect::Dropped("stale_delivery"));
            if id > 0 {
                self.send_if_open(peer, LinkMessage::Placed { id, placed: None });
            }
            return;
        }
        // The home knows that it concerns this gateway: a shard may have a client that it has not reported
        // yet.
        let back = if id > 0 { ReplyTo::Peer(peer, session, id) } else { ReplyTo::None };
        self.retained.set_value(&topic, at, &command, self.now);
        self.out.push(Effect::Place { back, topic, at, command });
    }

    /// Accepts only from a gateway that has been the topic's home since it sent this, and only in rising
    /// order: anything else in flight was overtaken by another home.
    fn takes_from(&mut self, peer: Incarnation, topic: &Topic, at: TopicPosition) -> bool {
        let Some(spoke) = self.peers.get(&peer).map(|peer| peer.spoke) else { return false };
        if !self.rings.home_since(peer, topic, spoke) {
            return false;
        }
        self.rises(topic, at)
    }

    pub(super) fn rises(&mut self, topic: &Topic, at: TopicPosition) -> bool {
        let Some(held) = self.interest.get_mut(topic) else { return true };
        let rises = at > held.last;
        held.last = held.last.max(at);
        rises
    }

    /// A topic's home has sent its roster, or changes of it.
    pub(super) fn present_here(
        &mut self,
        peer: Incarnation,
        topic: &Topic,
        at: TopicPosition,
        whole: bool,
        members: Vec<MemberChange>,
    ) {
        if peer != self.me && !self.takes_from(peer, topic, at) || !self.interest.has(topic) {
            return;
        }
        let Some(held) = self.interest.get_mut(topic) else { return };
        let members = held.present(whole, members);
        if !members.is_empty() {
            self.out.push(Effect::Present { topic: topic.clone(), members });
        }
        self.presence_known(topic, &[]);
    }

    /// A topic's home has decided claims of this gateway.
    pub(super) fn decided_here(
        &mut self,
        peer: Incarnation,
        topic: &Topic,
        at: TopicPosition,
        claims: &[DecidedClaim],
    ) {
        if peer != self.me && !self.takes_from(peer, topic, at) {
            return;
        }
        let Some(held) = self.interest.get_mut(topic) else { return };
        let mut refused = Vec::new();
        for DecidedClaim { user, number, granted } in claims {
            if held.decided(user, *number, *granted) {
                refused.push(user.clone());
            }
        }
        self.presence_known(topic, &refused);
    }

    pub(super) fn send_if_open(&mut self, peer: Incarnation, frame: LinkMessage<C>) {
        if self.peers.get(&peer).is_some_and(|peer| peer.open) {
            self.send(peer, frame);
        }
    }
}

/// The serials that homes must acknowledge until they know all changes in these topics.
pub(super) fn needs(
    held: &super::interest::Interest,
    peers: &BTreeMap<Incarnation, crate::peer::Peer>,
    topics: &[Topic],
) -> BTreeMap<Incarnation, u64> {
    let mut needs = BTreeMap::new();
    for held in topics.iter().filter_map(|topic| held.get(topic)) {
        if let Some(home) = held.home
            && peers.get(&home).is_some_and(|peer| peer.taken < held.serial)
        {
            let need = needs.entry(home).or_insert(0);
            *need = held.serial.max(*need);
        }
    }
    needs
}
