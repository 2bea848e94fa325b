//! The other gateways of the view: their links, what they say, and whether they have synced.

use std::time::Duration;

use broadgate_proto::{id::Incarnation, v1::Epoch};

use crate::{
    account::Word,
    content::Content,
    core::Core,
    home::Hold,
    interest::{Changes, Sum},
    keep::History,
    membership::Session,
    peer::Peer,
    step::{Effect, Frame},
};

impl<C: Content> Core<C> {
    pub(super) fn has_synced(&self, peer: &Peer) -> bool {
        peer.session.is_some() && peer.synced.is_some_and(|epoch| epoch >= self.changed)
    }

    /// A gateway that has not synced is waited for, unless it was not heard for the link timeout, or
    /// would not sync for as long as anything may wait.
    fn is_waited_for(&self, peer: &Peer) -> bool {
        let silent = peer.session.is_none() && self.now >= peer.silent_since + self.limits.link_timeout;
        let stubborn =
            peer.unsynced_since.is_some_and(|since| self.now >= since + self.limits.parking_time_max);
        !self.has_synced(peer) && !silent && !stubborn
    }

    /// May a home answer?
    pub(super) fn gate_is_open(&self) -> bool {
        !self.peers.values().any(|peer| self.is_waited_for(peer))
    }

    /// Gateways of the view that have not said what they hold.
    pub(super) fn unsynced(&self) -> Vec<Incarnation> {
        self.peers.iter().filter(|(_, peer)| !self.has_synced(peer)).map(|(peer, _)| *peer).collect()
    }

    /// Can it be asked something, and answer? That its link to us is open is known to it only when it
    /// has said something there: until then it could not say its answer.
    pub(super) fn is_reachable(&self, peer: Incarnation, bytes: usize) -> bool {
        self.peers.get(&peer).is_some_and(|peer| {
            peer.open && peer.has_spoken() && peer.untaken + bytes <= self.limits.untaken_bytes_max
        })
    }

    pub(super) fn taken(&mut self, peer: Incarnation, bytes: usize) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.untaken = peer.untaken.saturating_sub(bytes);
        }
    }

    pub(super) fn open_peers(&self) -> impl Iterator<Item = Incarnation> {
        self.peers.iter().filter(|(_, peer)| peer.open).map(|(peer, _)| *peer)
    }

    pub(super) fn add_peers(&mut self) {
        for &gateway in self.members.gateways.keys() {
            if gateway != self.me {
                self.peers.entry(gateway).or_insert_with(|| Peer::new(self.now));
            }
        }
    }

    /// The peer hears us: it is told everything.
    pub(super) fn opened(&mut self, peer: Incarnation) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.open = true;
        known.untaken = 0;
        self.say(peer, Frame::View(self.members.view.clone()));
        self.say_parcels(peer);
        for topic in self.held.of_home(peer) {
            self.say_hold(peer, &topic, None);
        }
        self.say_reported(peer);
        self.say_synced(&[peer], true);
        self.tell_again(peer);
        self.pump_all();
    }

    /// What we said and it has not taken may be lost.
    pub(super) fn closed(&mut self, peer: Incarnation) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.open = false;
        known.untaken = 0;
        self.link_lost(peer);
    }

    /// The peer opens a link: what it says there replaces what it said before, once it has synced.
    pub(super) fn heard(&mut self, peer: Incarnation, session: Session) {
        let now = self.now;
        let Some(known) = self.peers.get_mut(&peer) else { return };
        if known.session.is_some_and(|open| open >= session) {
            return;
        }
        let was_open = known.session.replace(session).is_some();
        known.spoke = Epoch::default();
        known.synced = None;
        known.acknowledge = None;
        // It is back: what it has to say is waited for anew. What is parked has a limit of its own.
        known.unsynced_since = Some(now);
        if was_open {
            self.link_lost(peer);
        }
        // What it decided about claims of ours may have been lost with its former link.
        for topic in self.held.claiming(peer) {
            let all = self.held.get_mut(&topic).map(|held| held.all_members(&mut self.last_claim));
            let claims = all.map(|all| all.claims).unwrap_or_default();
            self.say_hold(peer, &topic, Some(Changes { members: Vec::new(), claims }));
        }
    }

    pub(super) fn unheard(&mut self, peer: Incarnation, session: Session, since: Duration) {
        let Some(known) = self.peers.get_mut(&peer).filter(|known| known.session == Some(session)) else {
            return;
        };
        known.session = None;
        known.synced = None;
        known.acknowledge = None;
        known.silent_since = since;
        known.unsynced_since = known.unsynced_since.or(Some(since));
        self.link_lost(peer);
        self.release();
    }

    /// After a gap in the views, what was said to us as a home may be lost here, and who said it may not
    /// know: it may have missed the view that lost it. So it has to be said again.
    pub(super) fn hear_anew(&mut self) {
        for (peer, known) in &self.peers {
            if known.session.is_some() {
                self.out.push(Effect::Mistrust(*peer, "views were skipped: what it holds may be lost here"));
            }
        }
    }

    /// Neither what was asked of it nor what it answered can be counted on.
    fn link_lost(&mut self, peer: Incarnation) {
        self.miss(peer);
        self.routes.lost(peer, self.now);
        self.pump_all();
    }

    /// It is not in the view: dead, whatever it may still say.
    pub(super) fn peer_gone(&mut self, peer: Incarnation) {
        self.peers.remove(&peer);
        self.miss(peer);
        self.routes.lost(peer, self.now);
        for (topic, changes) in self.homes.lose(|gateway, _| gateway == peer) {
            self.tell_present(&topic, changes);
        }
    }

    /// Frames of a link that has been replaced, or of who is not in the view, are not taken.
    pub(super) fn said(&mut self, peer: Incarnation, session: Session, frame: Frame<C>) {
        if self.peers.get(&peer).is_none_or(|known| known.session != Some(session)) {
            self.out.push(Effect::Dropped("not_of_the_view"));
            return;
        }
        match frame {
            Frame::View(view) => {
                let epoch = broadgate_proto::view::epoch(&view);
                // No register could make a term above this one.
                if !epoch.is_credible(self.members.epoch.term) {
                    self.out.push(Effect::Dropped("view_of_a_false_term"));
                    return;
                }
                // A gateway that sees a higher epoch installs it before it acts.
                self.install(view);
                if let Some(known) = self.peers.get_mut(&peer) {
                    let first = !known.has_spoken();
                    known.spoke = epoch;
                    if first {
                        self.pump_all();
                    }
                }
            }
            Frame::Hold { serial, topic, clients, members, claims, told } => {
                self.hold_at_home(peer, session, &topic, Hold { clients, members: &members, claims, told });
                self.note_taken(peer, serial);
            }
            Frame::Synced { serial, epoch, sum } => {
                self.note_taken(peer, serial);
                let sum = sum.map(|(topics, sum)| Sum { topics, sum });
                self.peer_synced(peer, session, epoch, sum);
            }
            Frame::Held(serial) => self.hold_taken(peer, serial),
            Frame::Ask { id, topic, op } => self.asked_by(peer, id, topic, op),
            Frame::Reply { id, reply } => self.routed(id, reply),
            Frame::Deliver { id, topic, at, command } => {
                self.deliver_here(peer, session, id, topic, at, command)
            }
            Frame::Placed { id, placed } => self.placed_by(peer, id, placed),
            Frame::HandOver { topic, history } => {
                if self.rings.home(&topic) == Some(self.me)
                    && let Some(history) = History::of_parcel(history, self.now)
                {
                    self.kept.take_over(&topic, history);
                }
            }
            Frame::Value { topic, at, age, command } => {
                let since = self.now.saturating_sub(age);
                self.kept.set_value(&topic, at, &command, since);
            }
            Frame::Present { topic, at, whole, members } => {
                self.present_here(peer, &topic, at, whole, members);
            }
            Frame::Decided { topic, at, claims } => self.decided_here(peer, &topic, at, &claims),
            Frame::Reported { serial, topic, whole, more, told } => {
                let word = Word { to: self.me, topic, whole, more, told };
                self.reported_by(peer, session, word);
                self.note_taken(peer, serial);
            }
        }
    }

    fn note_taken(&mut self, peer: Incarnation, serial: u64) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.acknowledge = Some(serial);
        }
    }

    /// Once a step: one acknowledgement for all that a peer said in it.
    pub(super) fn acknowledge(&mut self) {
        let due: Vec<_> = self
            .peers
            .iter_mut()
            .filter(|(_, peer)| peer.open)
            .filter_map(|(gateway, peer)| Some((*gateway, peer.acknowledge.take()?)))
            .collect();
        for (peer, serial) in due {
            self.say(peer, Frame::Held(serial));
        }
    }

    /// A peer has said everything that it holds: what it said before and not again is no more.
    fn peer_synced(&mut self, peer: Incarnation, session: Session, epoch: Epoch, said: Option<Sum>) {
        for (topic, changes) in self.homes.lose(|gateway, heard| gateway == peer && heard != session) {
            self.tell_present(&topic, changes);
        }
        self.reports.synced(peer, session);
        // In another view than ours it has chosen other homes.
        if epoch == self.members.epoch && said.is_some_and(|said| self.homes.sum_of(peer) != said) {
            self.out.push(Effect::Mistrust(peer, "it does not hold what it said before"));
        }
        let changed = self.changed;
        if let Some(known) = self.peers.get_mut(&peer) {
            known.synced = Some(epoch);
            if epoch >= changed {
                known.unsynced_since = None;
            }
        }
        self.release();
    }
}
