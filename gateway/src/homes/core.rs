//! One gateway's part in the homes: its state, and one step.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    limits,
    v1::{Epoch, View},
};

use super::{
    home::Homes,
    interest::Interest,
    links::Peer,
    members::{Members, Rings},
    parking::Parking,
    routes::Routes,
    serve::Delivery,
    settle::Settling,
    step::{Content, Effect, Frame, Input, Reply},
    topic::Topic,
};

/// How long and how much.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A gateway that was not heard for this long is not waited for.
    pub link_timeout: Duration,
    /// What a home cannot do yet waits at most this long.
    pub parking_time_max: Duration,
    /// And at most this much.
    pub parking_bytes_max: usize,
    /// Commands on a link that its peer has not taken; beyond, it is not asked.
    pub untaken_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            link_timeout: limits::LINK_TIMEOUT,
            parking_time_max: limits::PARKING_TIME_MAX,
            parking_bytes_max: limits::PARKING_BYTES_MAX,
            untaken_bytes_max: limits::LINK_UNTAKEN_BYTES_MAX,
        }
    }
}

/// What a gateway's homes have to do at the moment, for metrics and tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Topics that anybody holds and whose home this is.
    pub homes: usize,
    /// Questions that wait for gateways to sync.
    pub parked: usize,
    /// Questions of callers that are not answered.
    pub asked: usize,
    /// Deliveries that are not answered.
    pub deliveries: usize,
    /// Gateways of the view that have not said what they hold.
    pub unsynced: usize,
}

/// One gateway's part in the homes, for one incarnation.
#[derive(Debug)]
pub struct Core<C: Content> {
    pub(super) me: Incarnation,
    pub(super) limits: Limits,
    pub(super) now: Duration,
    pub(super) members: Members,
    pub(super) rings: Rings,
    /// The view in which the gateways or the ring changed last: who has synced by it is known.
    pub(super) changed: Epoch,
    pub(super) peers: BTreeMap<Incarnation, Peer>,
    pub(super) held: Interest,
    pub(super) settling: Settling<C>,
    pub(super) homes: Homes,
    pub(super) parked: Parking<C>,
    pub(super) deliveries: BTreeMap<u64, Delivery<C>>,
    pub(super) next_delivery: u64,
    /// Rises with everything that this home places, in whatever topic.
    pub(super) number: u64,
    pub(super) routes: Routes<C>,
    pub(super) out: Vec<Effect<C>>,
}

impl<C: Content> Core<C> {
    /// A gateway that knows no view yet.
    #[must_use]
    pub fn new(me: Incarnation, limits: Limits) -> Self {
        Self {
            me,
            now: Duration::ZERO,
            members: Members::default(),
            rings: Rings::default(),
            changed: Epoch::default(),
            peers: BTreeMap::new(),
            held: Interest::default(),
            settling: Settling::new(),
            homes: Homes::default(),
            parked: Parking::new(limits.parking_bytes_max, limits.parking_time_max),
            deliveries: BTreeMap::new(),
            next_delivery: 1,
            number: 0,
            routes: Routes::new(),
            out: Vec::new(),
            limits,
        }
    }

    /// One step. Effects are to be carried out in their order.
    pub fn apply(&mut self, input: Input<C>, now: Duration) -> Vec<Effect<C>> {
        self.now = now;
        match input {
            Input::View(view) => self.install(view),
            Input::Opened(peer) => self.opened(peer),
            Input::Closed(peer) => self.closed(peer),
            Input::Heard(peer, session) => self.heard(peer, session),
            Input::Unheard(peer, session, since) => self.unheard(peer, session, since),
            Input::Said(peer, session, frame) => self.said(peer, session, frame),
            Input::Taken(peer, bytes) => self.taken(peer, bytes),
            Input::Standing(standing) => self.standing(&standing),
            Input::Route { ticket, topic, op } => self.route(ticket, &topic, op),
            Input::Placed { back, answer, touched } => self.placed_here(back, answer, touched),
            Input::Settle { ticket, topics } => self.settle(ticket, topics),
            Input::Tick => self.tick(),
        }
        self.acknowledge();
        std::mem::take(&mut self.out)
    }

    /// Is there anything that time alone changes? Then [`Input::Tick`] must come soon.
    #[must_use]
    pub fn wants_ticks(&self) -> bool {
        !(self.parked.is_empty()
            && self.deliveries.is_empty()
            && self.routes.is_empty()
            && self.settling.is_empty()
            && self.peers.values().all(|peer| self.has_synced(peer)))
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

    /// Where a topic has its home.
    #[must_use]
    pub fn home_of(&self, topic: &Topic) -> Option<Incarnation> {
        self.rings.home(topic)
    }

    /// How much there is to do.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            homes: self.homes.len(),
            parked: self.parked.len(),
            asked: self.routes.len(),
            deliveries: self.deliveries.len(),
            unsynced: self.peers.values().filter(|peer| !self.has_synced(peer)).count(),
        }
    }

    pub(super) fn say(&mut self, peer: Incarnation, frame: Frame<C>) {
        self.out.push(Effect::Say(peer, frame));
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
        for (waiting, missing) in self.settling.late(self.limits.link_timeout, self.now) {
            self.settled(waiting, missing);
        }
    }

    /// A view is installed if it is newer. What it takes from us and gives to us is settled here.
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
        // Said before anything that is said in this view.
        let open: Vec<_> = self.open_peers().filter(|peer| !gone.contains(peer)).collect();
        for &peer in &open {
            self.say(peer, Frame::View(Arc::clone(&self.members.view)));
        }
        if changed {
            self.lose_topics(gap);
        }
        for peer in gone {
            self.peer_gone(peer);
        }
        self.add_peers();
        if changed {
            self.move_holds(gap);
        }
        self.say_synced(&open, changed);
        if gap {
            self.hear_anew();
        }
        self.pump_all();
        self.release();
    }

    fn ring_changed(&mut self, gap: bool) {
        self.changed = self.members.epoch;
        self.rings.change(&self.members, gap);
        for peer in self.peers.values_mut() {
            peer.unsynced_since = peer.unsynced_since.or(Some(self.now));
        }
    }

    /// Topics that have another home now: their questions go back to whoever asked.
    fn lose_topics(&mut self, gap: bool) {
        let (me, rings) = (self.me, &self.rings);
        let anew = gap.then_some(self.members.epoch);
        self.homes.retain(|topic| rings.home(topic) == Some(me), anew);
        let others = self.parked.take_others(|topic| rings.home(topic) == Some(me));
        for asked in others {
            self.reply(asked.origin, Reply::NotHome(self.members.epoch));
        }
    }
}
