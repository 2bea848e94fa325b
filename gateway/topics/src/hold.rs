//! What our own clients are in: told to the homes, and waited for.

use std::{collections::BTreeMap, time::Duration};

use broadgate_proto::id::Incarnation;

use crate::{
    content::Content,
    core::Core,
    home::Hold,
    interest::Changes,
    membership::{At, Decided, MemberChange, Session, Standing},
    settle::Waiting,
    step::{Back, Effect, Frame, Ticket},
    topic::Topic,
};

/// What a gateway says of its own clients comes over no link.
const OWN: Session = 0;

impl<C: Content> Core<C> {
    /// A shard's clients have changed.
    pub(super) fn standing(&mut self, standing: &Standing) {
        let changes = self.held.stand(standing, &mut self.last_claim);
        let topic = &standing.topic;
        let home = self.rings.home(topic);
        let Some(held) = self.held.get_mut(topic) else { return };
        held.home = home;
        self.announce(topic, Some(changes));
    }

    /// Tells a topic's home how our clients stand: these presence members, or all.
    fn announce(&mut self, topic: &Topic, changes: Option<Changes>) {
        let last_claim = &mut self.last_claim;
        let Some(held) = self.held.get_mut(topic) else { return };
        match held.home {
            Some(home) if home == self.me => {
                let (clients, told) = (held.clients(), held.present.is_some());
                let Changes { members, claims } = changes.unwrap_or_else(|| held.all_members(last_claim));
                self.hold_at_home(self.me, OWN, topic, Hold { clients, members: &members, claims, told });
                self.held.forget_if_empty(topic);
            }
            Some(home) => self.say_hold(home, topic, changes),
            None => self.held.forget_if_empty(topic),
        }
    }

    /// A hold gets its serial even while the link is broken: the next sync counts on from there.
    pub(super) fn say_hold(&mut self, home: Incarnation, topic: &Topic, changes: Option<Changes>) {
        let Some(peer) = self.peers.get_mut(&home) else { return };
        let Some(held) = self.held.get_mut(topic) else { return };
        peer.serial += 1;
        held.serial = peer.serial;
        let clients = held.clients();
        if clients == 0 {
            peer.retracted.push_back((peer.serial, topic.clone(), self.now));
        }
        if peer.open {
            let whole = changes.is_none();
            let (serial, told) = (held.serial, held.present.is_some());
            let last_claim = &mut self.last_claim;
            let Changes { members, claims } = changes.unwrap_or_else(|| held.all_members(last_claim));
            let frame = Frame::Hold { serial, topic: topic.clone(), clients, members, claims, told };
            self.say(home, frame);
            if whole {
                self.say_value(home, topic);
            }
        }
    }

    /// The group's last value: it survives its home where anybody else keeps it.
    pub(super) fn say_value(&mut self, to: Incarnation, topic: &Topic) {
        let Some(value) = self.kept.value(topic, self.now) else { return };
        let age = self.now.saturating_sub(value.since);
        let frame = Frame::Value { topic: topic.clone(), at: value.at, age, command: value.command.clone() };
        self.say_if_open(to, frame);
    }

    /// The ring has changed: topics with another home are told to it. After a gap all are: in between
    /// their home may have lost them.
    pub(super) fn move_holds(&mut self, gap: bool) {
        for topic in self.held.topics() {
            let home = self.rings.home(&topic);
            let Some(held) = self.held.get_mut(&topic).filter(|held| gap || held.home != home) else {
                continue;
            };
            held.home = home;
            // An entry without clients was kept for its former home only.
            self.held.forget_if_empty(&topic);
            self.announce(&topic, None);
        }
        let (held, peers) = (&self.held, &self.peers);
        let settled = self.settling.again(|topics| needs(held, peers, topics));
        for waiting in settled {
            self.settled(waiting, Vec::new());
        }
    }

    /// Everything that these peers are the homes of has been said. Where nothing was said anew, there is
    /// nothing to compare either.
    pub(super) fn say_synced(&mut self, to: &[Incarnation], anew: bool) {
        let sums = if anew { self.held.sums() } else { BTreeMap::new() };
        for &home in to {
            let Some(peer) = self.peers.get_mut(&home) else { continue };
            peer.serial += 1;
            let serial = peer.serial;
            let sum = sums.get(&home).copied().unwrap_or_default();
            let (epoch, sum) = (self.members.epoch, anew.then_some((sum.topics, sum.sum)));
            self.say(home, Frame::Synced { serial, epoch, sum });
        }
    }

    /// A home has taken all holds up to this serial.
    pub(super) fn hold_taken(&mut self, home: Incarnation, serial: u64) {
        let Some(peer) = self.peers.get_mut(&home) else { return };
        if serial <= peer.taken || serial > peer.serial {
            return;
        }
        peer.taken = serial;
        while let Some((said, topic, _)) = peer.retracted.front().filter(|(said, ..)| *said <= serial) {
            if self.held.get(topic).is_some_and(|held| held.home == Some(home) && held.serial == *said) {
                self.held.forget_if_empty(topic);
            }
            peer.retracted.pop_front();
        }
        for waiting in self.settling.taken(home, serial) {
            self.settled(waiting, Vec::new());
        }
    }

    /// While a link is broken, what is retracted on it cannot be taken. Nobody waits for that any more after
    /// the link timeout, and the next sync says it by leaving it out: so a long partition costs nothing.
    pub(super) fn forget_retracted(&mut self) {
        let (patience, now) = (2 * self.limits.link_timeout, self.now);
        for (home, peer) in self.peers.iter_mut().filter(|(_, peer)| !peer.open) {
            let is_old = |(_, _, since): &mut (u64, Topic, Duration)| now >= *since + patience;
            while let Some((said, topic, _)) = peer.retracted.pop_front_if(is_old) {
                if self.held.get(&topic).is_some_and(|held| held.home == Some(*home) && held.serial == said) {
                    self.held.forget_if_empty(&topic);
                }
            }
        }
    }

    /// Tells the caller when the homes know what has changed here so far.
    pub(super) fn settle(&mut self, ticket: Ticket, topics: Vec<Topic>) {
        self.wait_until_known(Waiting::Caller(ticket), topics);
    }

    pub(super) fn wait_until_known(&mut self, what: Waiting<C>, topics: Vec<Topic>) {
        let needs = needs(&self.held, &self.peers, &topics);
        if needs.is_empty() {
            self.settled(what, Vec::new());
        } else {
            self.settling.wait(what, topics, needs, self.now);
        }
    }

    pub(super) fn settled(&mut self, waiting: Waiting<C>, missing: Vec<Incarnation>) {
        match waiting {
            Waiting::Entering(entering) => self.entered(entering, &missing),
            Waiting::Caller(ticket) => self.out.push(Effect::Settled(ticket, missing)),
            Waiting::Placed(back, answer) => self.placed_and_known(back, answer),
        }
    }

    /// Our shards have carried something out.
    pub(super) fn placed_here(&mut self, back: Back, answer: Option<C::Answer>, touched: Vec<Topic>) {
        if back == Back::Nobody {
            return;
        }
        self.wait_until_known(Waiting::Placed(back, answer), touched);
    }

    fn placed_and_known(&mut self, back: Back, answer: Option<C::Answer>) {
        match back {
            Back::Nobody => {}
            Back::Own(id) => self.placed_by(self.me, id, Some(answer)),
            Back::Peer(peer, session, id) => {
                // A link that was replaced has lost its deliveries.
                let same =
                    self.peers.get(&peer).is_some_and(|peer| peer.open && peer.session == Some(session));
                if same {
                    self.say(peer, Frame::Placed { id, placed: Some(answer) });
                }
            }
        }
    }

    /// A topic's home gives us something to place.
    pub(super) fn deliver_here(
        &mut self,
        peer: Incarnation,
        session: Session,
        id: u64,
        topic: Topic,
        at: At,
        command: C::Command,
    ) {
        if !self.takes_from(peer, &topic, at) {
            self.out.push(Effect::Dropped("stale_delivery"));
            if id > 0 {
                self.say_if_open(peer, Frame::Placed { id, placed: None });
            }
            return;
        }
        // The home says that it concerns us: our shards may know of a client of which they have not told
        // us yet.
        let back = if id > 0 { Back::Peer(peer, session, id) } else { Back::Nobody };
        self.kept.set_value(&topic, at, &command, self.now);
        self.out.push(Effect::Place { back, topic, at, command });
    }

    /// Only a gateway that has been the topic's home since it spoke is believed, and only in rising
    /// order: whatever else is still under way was overtaken by another home.
    fn takes_from(&mut self, peer: Incarnation, topic: &Topic, at: At) -> bool {
        let Some(spoke) = self.peers.get(&peer).map(|peer| peer.spoke) else { return false };
        if !self.rings.home_since(peer, topic, spoke) {
            return false;
        }
        self.rises(topic, at)
    }

    pub(super) fn rises(&mut self, topic: &Topic, at: At) -> bool {
        let Some(held) = self.held.get_mut(topic) else { return true };
        let rises = at > held.last;
        held.last = held.last.max(at);
        rises
    }

    /// A topic's home tells who is present.
    pub(super) fn present_here(
        &mut self,
        peer: Incarnation,
        topic: &Topic,
        at: At,
        whole: bool,
        members: Vec<MemberChange>,
    ) {
        if peer != self.me && !self.takes_from(peer, topic, at) || !self.held.has(topic) {
            return;
        }
        let Some(held) = self.held.get_mut(topic) else { return };
        let members = held.present(whole, members);
        if !members.is_empty() {
            self.out.push(Effect::Present { topic: topic.clone(), members });
        }
        self.present_told(topic, &[]);
    }

    /// A topic's home has decided about claims of ours.
    pub(super) fn decided_here(&mut self, peer: Incarnation, topic: &Topic, at: At, claims: &[Decided]) {
        if peer != self.me && !self.takes_from(peer, topic, at) {
            return;
        }
        let Some(held) = self.held.get_mut(topic) else { return };
        let mut refused = Vec::new();
        for Decided { user, number, granted } in claims {
            if held.decided(user, *number, *granted) {
                refused.push(user.clone());
            }
        }
        self.present_told(topic, &refused);
    }

    pub(super) fn say_if_open(&mut self, peer: Incarnation, frame: Frame<C>) {
        if self.peers.get(&peer).is_some_and(|peer| peer.open) {
            self.say(peer, frame);
        }
    }
}

/// Which holds must be taken until what has changed in these topics is known to their homes.
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
