//! The topics of this gateway's own clients: announced to homes, and acknowledged by them; and what the homes
//! send of them.

use std::{collections::BTreeMap, mem, sync::Arc, time::Duration};

use broadgate_proto::id::Incarnation;

use crate::{
    content::Content,
    entrances::{Entering, Entrances},
    interest::{Changes, Interest},
    membership::{DecidedClaim, LinkSession, MemberChange, MembershipCount, TopicPosition},
    needs::needs,
    settle::{Settling, WaitingOperation},
    shared::Shared,
    step::{Effect, LinkMessage, ReplyTo, Ticket},
    topic::Topic,
};

/// This gateway's interest, and what waits until homes know of it.
#[derive(Debug)]
pub(super) struct OwnTopics<C: Content> {
    interest: Interest,
    /// The number of the last claim.
    last_claim: u64,
    settling: Settling<C>,
    entrances: Entrances,
    /// Deliveries of this gateway as a home that its shards have executed, until it takes note of them.
    placed: Vec<(u64, Option<C::Answer>)>,
}

/// Interest in a topic whose home this gateway is.
pub(super) struct OwnUpdate {
    pub(super) clients: u64,
    pub(super) knows_roster: bool,
    pub(super) changes: Changes,
}

impl<C: Content> OwnTopics<C> {
    pub(super) fn new() -> Self {
        Self {
            interest: Interest::default(),
            last_claim: 0,
            settling: Settling::new(),
            entrances: Entrances::default(),
            placed: Vec::new(),
        }
    }

    pub(super) const fn interest(&self) -> &Interest {
        &self.interest
    }

    /// Whether nothing waits.
    pub(super) fn is_settled(&self) -> bool {
        self.settling.is_empty() && self.entrances.is_empty()
    }

    /// A shard's membership of a topic has changed. Returns what is to be announced of it.
    pub(super) fn set_count(
        &mut self,
        count: &MembershipCount,
        home: Option<Incarnation>,
    ) -> Option<Changes> {
        let changes = self.interest.set_count(count, &mut self.last_claim);
        self.interest.get_mut(&count.topic)?.home = home;
        Some(changes)
    }

    /// Announces this gateway's interest to a topic's home: these presence members, or all. Returns it if this
    /// gateway is the home.
    pub(super) fn announce(
        &mut self,
        shared: &mut Shared<C>,
        topic: &Topic,
        changes: Option<Changes>,
    ) -> Option<OwnUpdate> {
        let last_claim = &mut self.last_claim;
        let entry = self.interest.get_mut(topic)?;
        match entry.home {
            Some(home) if home == shared.me => {
                let (clients, knows_roster) = (entry.clients(), entry.present.is_some());
                let changes = changes.unwrap_or_else(|| entry.all_members(last_claim));
                return Some(OwnUpdate { clients, knows_roster, changes });
            }
            Some(home) => self.send_interest(shared, home, topic, changes),
            None => self.interest.forget_if_empty(topic),
        }
        None
    }

    /// An entry without clients exists only until the topic's home knows.
    pub(super) fn forget_if_empty(&mut self, topic: &Topic) {
        self.interest.forget_if_empty(topic);
    }

    /// Assigns a serial even while the link is broken: the next sync counts on from there.
    fn send_interest(
        &mut self,
        shared: &mut Shared<C>,
        home: Incarnation,
        topic: &Topic,
        changes: Option<Changes>,
    ) {
        let Some(peer) = shared.peers.get_mut(home) else { return };
        let Some(entry) = self.interest.get_mut(topic) else { return };
        peer.serial += 1;
        entry.serial = peer.serial;
        let clients = entry.clients();
        if clients == 0 {
            peer.retracted.push_back((peer.serial, topic.clone(), shared.now));
        }
        if peer.open {
            let whole = changes.is_none();
            let (serial, knows_roster) = (entry.serial, entry.present.is_some());
            let last_claim = &mut self.last_claim;
            let Changes { members, claims } = changes.unwrap_or_else(|| entry.all_members(last_claim));
            let frame = LinkMessage::InterestUpdate {
                serial,
                topic: topic.clone(),
                clients,
                members,
                claims,
                knows_roster,
            };
            shared.send(home, frame);
            if whole {
                shared.send_value(home, topic);
            }
        }
    }

    /// The link to a home has opened: announces everything to it.
    pub(super) fn announce_all(&mut self, shared: &mut Shared<C>, home: Incarnation) {
        for topic in self.interest.of_home(home) {
            self.send_interest(shared, home, &topic, None);
        }
    }

    /// A home's decisions about this gateway's claims may have been lost with its former link.
    pub(super) fn claim_again(&mut self, shared: &mut Shared<C>, home: Incarnation) {
        for topic in self.interest.claiming(home) {
            let all = self.interest.get_mut(&topic).map(|entry| entry.all_members(&mut self.last_claim));
            let claims = all.map(|all| all.claims).unwrap_or_default();
            self.send_interest(shared, home, &topic, Some(Changes { members: Vec::new(), claims }));
        }
    }

    /// The ring has changed: the topics that moved to another home; after a gap all topics, since their home
    /// may have lost them in between.
    pub(super) fn moved(&mut self, shared: &Shared<C>, gap: bool) -> Vec<Topic> {
        let mut moved = self.interest.topics();
        moved.retain(|topic| {
            let home = shared.rings.home(topic);
            let Some(entry) = self.interest.get_mut(topic).filter(|entry| gap || entry.home != home) else {
                return false;
            };
            entry.home = home;
            // An entry without clients existed for its former home only.
            self.interest.forget_if_empty(topic);
            true
        });
        moved
    }

    /// What waited for former homes waits for the new ones, if it still has to.
    pub(super) fn settle_again(&mut self, shared: &mut Shared<C>) {
        let (interest, peers) = (&self.interest, &shared.peers);
        let settled = self.settling.again(|topics| needs(interest, peers, topics));
        for waiting in settled {
            self.settled(shared, waiting, Vec::new());
        }
    }

    /// All interest for these homes has been sent. If it was not repeated as a whole, there is no checksum to
    /// compare.
    pub(super) fn send_synced(&self, shared: &mut Shared<C>, to: &[Incarnation], whole: bool) {
        let sums = if whole { self.interest.sums() } else { BTreeMap::new() };
        for &home in to {
            let Some(serial) = shared.peers.next_serial(home) else { continue };
            let sum = sums.get(&home).copied().unwrap_or_default();
            let (epoch, sum) = (shared.members.epoch, whole.then_some((sum.topics, sum.sum)));
            shared.send(home, LinkMessage::Synced { serial, epoch, sum });
        }
    }

    /// A home has acknowledged all interest updates up to this serial.
    pub(super) fn interest_acked(&mut self, shared: &mut Shared<C>, home: Incarnation, serial: u64) {
        let Some(peer) = shared.peers.get_mut(home) else { return };
        if serial <= peer.taken || serial > peer.serial {
            return;
        }
        peer.taken = serial;
        while let Some((said, topic, _)) = peer.retracted.pop_front_if(|(said, ..)| *said <= serial) {
            self.retraction_known(home, &topic, said);
        }
        for waiting in self.settling.taken(home, serial) {
            self.settled(shared, waiting, Vec::new());
        }
    }

    /// While a link is broken, a retraction cannot be acknowledged. After the link timeout nothing waits for
    /// it any longer, and the next sync retracts by omission: so a long partition costs no memory.
    pub(super) fn forget_retracted(&mut self, shared: &mut Shared<C>) {
        let (patience, now) = (2 * shared.limits.link_timeout, shared.now);
        for (home, peer) in shared.peers.iter_mut().filter(|(_, peer)| !peer.open) {
            let is_old = |(_, _, since): &mut (u64, Topic, Duration)| now >= *since + patience;
            while let Some((said, topic, _)) = peer.retracted.pop_front_if(is_old) {
                self.retraction_known(home, &topic, said);
            }
        }
    }

    fn retraction_known(&mut self, home: Incarnation, topic: &Topic, said: u64) {
        if self.interest.get(topic).is_some_and(|entry| entry.home == Some(home) && entry.serial == said) {
            self.interest.forget_if_empty(topic);
        }
    }

    /// Answers the caller when the homes have acknowledged all changes so far.
    pub(super) fn settle(&mut self, shared: &mut Shared<C>, ticket: Ticket, topics: Vec<Topic>) {
        self.wait_until_known(shared, WaitingOperation::Caller(ticket), topics);
    }

    /// A client enters a group; its shard has already reported it.
    pub(super) fn enter(
        &mut self,
        shared: &mut Shared<C>,
        ticket: Ticket,
        topic: Topic,
        user: Option<Arc<str>>,
    ) {
        let topics = vec![topic.clone()];
        let entering = Entering { ticket, topic, user, since: shared.now };
        self.wait_until_known(shared, WaitingOperation::Entering(entering), topics);
    }

    /// The shards have executed a placing.
    pub(super) fn placed_here(
        &mut self,
        shared: &mut Shared<C>,
        back: ReplyTo,
        answer: Option<C::Answer>,
        touched: Vec<Topic>,
    ) {
        if back != ReplyTo::None {
            self.wait_until_known(shared, WaitingOperation::Placed(back, answer), touched);
        }
    }

    fn wait_until_known(&mut self, shared: &mut Shared<C>, what: WaitingOperation<C>, topics: Vec<Topic>) {
        let needs = needs(&self.interest, &shared.peers, &topics);
        if needs.is_empty() {
            self.settled(shared, what, Vec::new());
        } else {
            self.settling.wait(what, topics, needs, shared.now);
        }
    }

    /// What has waited for too long does not wait any longer.
    pub(super) fn tick(&mut self, shared: &mut Shared<C>) {
        self.forget_retracted(shared);
        self.entrances.check(shared, &self.interest);
        for (waiting, missing) in self.settling.late(shared.limits.link_timeout, shared.now) {
            self.settled(shared, waiting, missing);
        }
    }

    fn settled(&mut self, shared: &mut Shared<C>, waiting: WaitingOperation<C>, missing: Vec<Incarnation>) {
        match waiting {
            WaitingOperation::Entering(entering) => {
                self.entrances.entered(shared, &self.interest, entering, &missing);
            }
            WaitingOperation::Caller(ticket) => shared.out.push(Effect::Settled(ticket, missing)),
            WaitingOperation::Placed(ReplyTo::None, _) => {}
            WaitingOperation::Placed(ReplyTo::Own(id), answer) => self.placed.push((id, answer)),
            WaitingOperation::Placed(ReplyTo::Peer(peer, session, id), answer) => {
                // A replaced link has lost its deliveries.
                if shared.peers.is_open(peer) && shared.peers.is_session(peer, session) {
                    shared.send(peer, LinkMessage::Placed { id, placed: Some(answer) });
                }
            }
        }
    }

    /// Own deliveries that the shards have executed, and the homes know what that has changed.
    pub(super) fn take_placed(&mut self) -> Vec<(u64, Option<C::Answer>)> {
        mem::take(&mut self.placed)
    }

    /// A topic's home has sent a delivery.
    pub(super) fn deliver_here(
        &mut self,
        shared: &mut Shared<C>,
        from: (Incarnation, LinkSession),
        id: u64,
        (topic, at): (Topic, TopicPosition),
        command: C::Command,
    ) {
        let (peer, session) = from;
        let is_taken = if C::is_dry(&command) {
            Self::is_home_of(shared, peer, &topic)
        } else {
            self.takes_from(shared, peer, &topic, at)
        };
        if !is_taken {
            shared.dropped("stale_delivery");
            if id > 0 {
                shared.send_if_open(peer, LinkMessage::Placed { id, placed: None });
            }
            return;
        }
        // The home knows that it concerns this gateway: a shard may have a client that it has not reported
        // yet.
        let back = if id > 0 { ReplyTo::Peer(peer, session, id) } else { ReplyTo::None };
        shared.retained.set_value(&topic, at, &command, shared.now);
        shared.out.push(Effect::Place { back, topic, at, command });
    }

    /// Accepts only from a gateway that has been the topic's home since it sent this, and only in rising
    /// order: anything else in flight was overtaken by another home.
    fn takes_from(
        &mut self,
        shared: &Shared<C>,
        peer: Incarnation,
        topic: &Topic,
        at: TopicPosition,
    ) -> bool {
        Self::is_home_of(shared, peer, topic) && self.rises(topic, at)
    }

    /// Whether a gateway has been the topic's home since it sent its last frame.
    fn is_home_of(shared: &Shared<C>, peer: Incarnation, topic: &Topic) -> bool {
        let spoke = shared.peers.get(peer).map(|peer| peer.spoke);
        spoke.is_some_and(|spoke| shared.rings.home_since(peer, topic, spoke))
    }

    /// Whether this is later than everything so far in the topic's order.
    pub(super) fn rises(&mut self, topic: &Topic, at: TopicPosition) -> bool {
        let Some(entry) = self.interest.get_mut(topic) else { return true };
        let rises = at > entry.last;
        entry.last = entry.last.max(at);
        rises
    }

    /// A topic's home has sent its roster, or changes of it.
    pub(super) fn present_here(
        &mut self,
        shared: &mut Shared<C>,
        peer: Incarnation,
        (topic, at): (&Topic, TopicPosition),
        whole: bool,
        members: Vec<MemberChange>,
    ) {
        if peer != shared.me && !self.takes_from(shared, peer, topic, at) || !self.interest.has(topic) {
            return;
        }
        let Some(entry) = self.interest.get_mut(topic) else { return };
        let members = entry.present(whole, members);
        if !members.is_empty() {
            shared.out.push(Effect::Present { topic: topic.clone(), members });
        }
        self.entrances.presence_known(shared, &self.interest, topic, &[]);
    }

    /// A topic's home has decided claims of this gateway.
    pub(super) fn decided_here(
        &mut self,
        shared: &mut Shared<C>,
        peer: Incarnation,
        (topic, at): (&Topic, TopicPosition),
        claims: &[DecidedClaim],
    ) {
        if peer != shared.me && !self.takes_from(shared, peer, topic, at) {
            return;
        }
        let Some(entry) = self.interest.get_mut(topic) else { return };
        let mut refused = Vec::new();
        for DecidedClaim { user, number, granted } in claims {
            if entry.decided(user, *number, *granted) {
                refused.push(user.clone());
            }
        }
        self.entrances.presence_known(shared, &self.interest, topic, &refused);
    }
}
