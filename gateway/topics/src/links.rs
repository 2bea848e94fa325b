//! The other gateways of the view: their links, their frames, and whether they have synced.

use std::time::Duration;

use broadgate_proto::{id::Incarnation, v1::Epoch};

use crate::{
    content::Content,
    core::Core,
    home::GatewayInterest,
    interest::{Changes, Sum},
    ledger::LedgerUpdate,
    membership::LinkSession,
    peer::Peer,
    retention::History,
    step::{Effect, LinkMessage},
};

/// Why links are reset that nothing is wrong with; any other reason is a fault.
pub const VIEWS_MISSED: &str = "views were missed: its interest may be lost here";

impl<C: Content> Core<C> {
    pub(super) fn has_synced(&self, peer: &Peer) -> bool {
        peer.session.is_some() && peer.synced.is_some_and(|epoch| epoch >= self.changed)
    }

    /// Whether both links are up and the peer has synced on its own.
    pub(super) fn is_linked(&self, peer: &Peer) -> bool {
        peer.open && self.has_synced(peer)
    }

    /// A gateway that has not synced is waited for, unless it has been silent for the link timeout, or
    /// unsynced for the parking time. So is one that has synced before our link to it is open, as when both
    /// links are opened at once: what it is concerned by could not be sent to it.
    fn is_waited_for(&self, peer: &Peer) -> bool {
        let timeout = self.limits.link_timeout;
        let closed = !peer.open && self.now < peer.closed_since + timeout;
        let silent = peer.session.is_none() && self.now >= peer.silent_since + timeout;
        let stubborn =
            peer.unsynced_since.is_some_and(|since| self.now >= since + self.limits.parking_time_max);
        closed || !self.has_synced(peer) && !silent && !stubborn
    }

    /// Whether a home may answer.
    pub(super) fn gate_is_open(&self) -> bool {
        !self.peers.values().any(|peer| self.is_waited_for(peer))
    }

    /// Gateways of the view that have not synced.
    pub(super) fn unsynced(&self) -> Vec<Incarnation> {
        self.peers.iter().filter(|(_, peer)| !self.has_synced(peer)).map(|(peer, _)| *peer).collect()
    }

    /// Whether it can be asked, and can answer. A peer knows that its link to us is open only once it has
    /// sent something on it: until then it could not send its answer.
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

    /// The outbound link is up: sends the peer everything.
    pub(super) fn outbound_up(&mut self, peer: Incarnation) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.open = true;
        known.untaken = 0;
        self.send(peer, LinkMessage::View(self.members.view.clone()));
        self.send_parcels(peer);
        for topic in self.interest.of_home(peer) {
            self.send_interest(peer, &topic, None);
        }
        self.send_ledgers(peer);
        self.send_synced(&[peer], true);
        self.tell_again(peer);
        self.send_values(peer);
        self.pump_all();
        self.release();
    }

    /// What was sent and not acknowledged may be lost.
    pub(super) fn outbound_down(&mut self, peer: Incarnation, since: Duration) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.open = false;
        known.closed_since = since;
        known.untaken = 0;
        self.link_lost(peer);
    }

    /// The peer has opened a link: once it has synced there, that replaces everything that it announced
    /// before.
    pub(super) fn inbound_up(&mut self, peer: Incarnation, session: LinkSession) {
        let now = self.now;
        let Some(known) = self.peers.get_mut(&peer) else { return };
        if known.session.is_some_and(|open| open >= session) {
            return;
        }
        let was_open = known.session.replace(session).is_some();
        known.spoke = Epoch::default();
        known.synced = None;
        known.acknowledge = None;
        // It is back: wait for its sync again. Parked questions have a limit of their own.
        known.unsynced_since = Some(now);
        if was_open {
            self.link_lost(peer);
        }
        // Its decisions about this gateway's claims may have been lost with its former link.
        for topic in self.interest.claiming(peer) {
            let all = self.interest.get_mut(&topic).map(|held| held.all_members(&mut self.last_claim));
            let claims = all.map(|all| all.claims).unwrap_or_default();
            self.send_interest(peer, &topic, Some(Changes { members: Vec::new(), claims }));
        }
    }

    pub(super) fn inbound_down(&mut self, peer: Incarnation, session: LinkSession, since: Duration) {
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

    /// After a gap in the views, this home may have lost what peers announced, and they may not know that:
    /// they may have missed the view that caused it. So they have to announce it again.
    pub(super) fn reset_inbound_links(&mut self) {
        for (peer, known) in &self.peers {
            if known.session.is_some() {
                self.out.push(Effect::ResetPeer(*peer, VIEWS_MISSED));
            }
        }
    }

    /// Neither its questions nor its answers can be relied on.
    fn link_lost(&mut self, peer: Incarnation) {
        self.miss(peer);
        self.routes.lost(peer, self.now);
        self.pump_all();
    }

    /// It is not in the view: dead, whatever it may still send.
    pub(super) fn peer_gone(&mut self, peer: Incarnation) {
        self.peers.remove(&peer);
        self.miss(peer);
        self.routes.lost(peer, self.now);
        for (topic, changes) in self.homes.lose(|gateway, _| gateway == peer) {
            self.tell_present(&topic, changes);
        }
    }

    /// Frames of a replaced link, or of a gateway outside the view, are dropped.
    pub(super) fn received(&mut self, peer: Incarnation, session: LinkSession, frame: LinkMessage<C>) {
        if self.peers.get(&peer).is_none_or(|known| known.session != Some(session)) {
            self.out.push(Effect::Dropped("not_of_the_view"));
            return;
        }
        match frame {
            LinkMessage::View(view) => {
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
            LinkMessage::InterestUpdate { serial, topic, clients, members, claims, knows_roster } => {
                self.interest_at_home(
                    peer,
                    session,
                    &topic,
                    GatewayInterest { clients, members: &members, claims, knows_roster },
                );
                self.note_accepted(peer, serial);
            }
            LinkMessage::Synced { serial, epoch, sum } => {
                self.note_accepted(peer, serial);
                let sum = sum.map(|(topics, sum)| Sum { topics, sum });
                self.peer_synced(peer, session, epoch, sum);
            }
            LinkMessage::InterestAck(serial) => self.interest_acked(peer, serial),
            LinkMessage::Ask { id, topic, op } => self.asked_by(peer, id, topic, op),
            LinkMessage::Reply { id, reply } => self.routed(id, reply),
            LinkMessage::Deliver { id, topic, at, command } => {
                self.deliver_here(peer, session, id, topic, at, command)
            }
            LinkMessage::Placed { id, placed } => self.placed_by(peer, id, placed),
            LinkMessage::HandOver { topic, history } => {
                if self.rings.home(&topic) == Some(self.me)
                    && let Some(history) = History::of_parcel(history, self.now)
                {
                    self.retained.take_over(&topic, history);
                }
            }
            LinkMessage::Value { topic, at, age, command } => {
                let since = self.now.saturating_sub(age);
                self.retained.set_value(&topic, at, &command, since);
            }
            LinkMessage::Present { topic, at, whole, members } => {
                self.present_here(peer, &topic, at, whole, members);
            }
            LinkMessage::ClaimDecisions { topic, at, claims } => self.decided_here(peer, &topic, at, &claims),
            LinkMessage::Reported { serial, topic, whole, more, notified } => {
                let update = LedgerUpdate { to: self.me, topic, whole, more, notified };
                self.reported_by(peer, session, update);
                self.note_accepted(peer, serial);
            }
        }
    }

    fn note_accepted(&mut self, peer: Incarnation, serial: u64) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.acknowledge = Some(serial);
        }
    }

    /// Once per step: one acknowledgement for everything that a peer sent in it.
    pub(super) fn acknowledge(&mut self) {
        let due: Vec<_> = self
            .peers
            .iter_mut()
            .filter(|(_, peer)| peer.open)
            .filter_map(|(gateway, peer)| Some((*gateway, peer.acknowledge.take()?)))
            .collect();
        for (peer, serial) in due {
            self.send(peer, LinkMessage::InterestAck(serial));
        }
    }

    /// A peer has synced: what it announced before and has not repeated is void.
    fn peer_synced(&mut self, peer: Incarnation, session: LinkSession, epoch: Epoch, said: Option<Sum>) {
        for (topic, changes) in self.homes.lose(|gateway, heard| gateway == peer && heard != session) {
            self.tell_present(&topic, changes);
        }
        self.reports.synced(peer, session);
        // In another view it has chosen other homes.
        if epoch == self.members.epoch && said.is_some_and(|said| self.homes.sum_of(peer) != said) {
            self.out.push(Effect::ResetPeer(peer, "its interest does not match its checksum"));
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
