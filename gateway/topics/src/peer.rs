//! The other gateways of the view: their links, and how far each has synced.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use broadgate_proto::{id::Incarnation, v1::Epoch};

use crate::{limits::TopicLimits, members::Members, membership::LinkSession, topic::Topic};

/// What this gateway knows of another one.
#[derive(Debug)]
pub(super) struct Peer {
    /// It has announced that it has no clients any more: nothing concerns it, and nothing is missing without it.
    leaving: bool,
    /// Our link to it is open.
    pub(super) open: bool,
    /// When it was last heard on our link to it, if that is not open.
    closed_since: Duration,
    /// The session of its link to us, if it is open.
    pub(super) session: Option<LinkSession>,
    /// The view of its last frame on that link.
    pub(super) spoke: Epoch,
    /// Since when it has been silent, if its link is not open.
    silent_since: Duration,
    /// The view by which it has synced on that link.
    synced: Option<Epoch>,
    /// Since when it has been unsynced; none while it is synced.
    unsynced_since: Option<Duration>,
    /// The serial of the last interest update sent, and of the last that it has acknowledged.
    pub(super) serial: u64,
    pub(super) taken: u64,
    /// Topics that this gateway has left, the serial of that update, and since when. While the link is
    /// broken, only the newest: the next sync retracts older ones by omission.
    pub(super) retracted: VecDeque<(u64, Topic, Duration)>,
    /// The last of its serials that is accepted and not acknowledged.
    acknowledge: Option<u64>,
    /// Bytes of commands that it has not accepted.
    untaken: usize,
}

impl Peer {
    fn new(now: Duration) -> Self {
        Self {
            leaving: false,
            open: false,
            closed_since: now,
            session: None,
            spoke: Epoch::default(),
            silent_since: now,
            synced: None,
            unsynced_since: Some(now),
            serial: 0,
            taken: 0,
            retracted: VecDeque::new(),
            acknowledge: None,
            untaken: 0,
        }
    }

    /// Whether it has sent anything on its link to us, which is open.
    fn has_spoken(&self) -> bool {
        self.session.is_some() && self.spoke > Epoch::default()
    }

    fn has_synced(&self, changed: Epoch) -> bool {
        self.session.is_some() && self.synced.is_some_and(|epoch| epoch >= changed)
    }
}

/// All other gateways of the view.
#[derive(Debug)]
pub(super) struct PeerTable {
    known: BTreeMap<Incarnation, Peer>,
    /// The last view that changed the gateways or the ring: synced means synced by it.
    changed: Epoch,
    limits: TopicLimits,
}

impl PeerTable {
    pub(super) const fn new(limits: TopicLimits) -> Self {
        Self { known: BTreeMap::new(), changed: Epoch::new(0, 0), limits }
    }

    pub(super) fn get(&self, peer: Incarnation) -> Option<&Peer> {
        self.known.get(&peer)
    }

    pub(super) fn get_mut(&mut self, peer: Incarnation) -> Option<&mut Peer> {
        self.known.get_mut(&peer)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Incarnation, &mut Peer)> {
        self.known.iter_mut().map(|(gateway, peer)| (*gateway, peer))
    }

    /// A gateway that has not synced is waited for, unless it has been silent for the link timeout, or
    /// unsynced for the parking time. So is one that has synced before our link to it is open, as when both
    /// links are opened at once: what it is concerned by could not be sent to it.
    fn is_waited_for(&self, peer: &Peer, now: Duration) -> bool {
        if peer.leaving {
            return false;
        }
        let timeout = self.limits.link_timeout;
        let closed = !peer.open && now < peer.closed_since + timeout;
        let silent = peer.session.is_none() && now >= peer.silent_since + timeout;
        let stubborn = peer.unsynced_since.is_some_and(|since| now >= since + self.limits.parking_time_max);
        closed || !peer.has_synced(self.changed) && !silent && !stubborn
    }

    /// Whether all links are up in both directions, and every peer has synced on its own.
    pub(super) fn are_linked(&self) -> bool {
        self.known.values().all(|peer| peer.leaving || peer.open && peer.has_synced(self.changed))
    }

    /// Whether every peer has installed this view, and has accepted all that was sent to it.
    pub(super) fn know(&self, view: Epoch) -> bool {
        let knows = |peer: &Peer| peer.open && peer.has_spoken() && peer.spoke >= view;
        self.known.values().all(|peer| knows(peer) && peer.taken == peer.serial)
    }

    /// Whether it has announced that it has no clients any more.
    pub(super) fn is_leaving(&self, peer: Incarnation) -> bool {
        self.known.get(&peer).is_some_and(|peer| peer.leaving)
    }

    /// Whether none is waited for.
    pub(super) fn are_ready(&self, now: Duration) -> bool {
        !self.known.values().any(|peer| self.is_waited_for(peer, now))
    }

    /// Gateways of the view that have not synced, and may have clients.
    pub(super) fn unsynced(&self) -> Vec<Incarnation> {
        let unsynced = self.known.iter().filter(|(_, peer)| !peer.leaving && !peer.has_synced(self.changed));
        unsynced.map(|(peer, _)| *peer).collect()
    }

    /// Whether it can be asked, and can answer. A peer knows that its link to us is open only once it has
    /// sent something on it: until then it could not send its answer.
    pub(super) fn is_reachable(&self, peer: Incarnation, bytes: usize) -> bool {
        self.known.get(&peer).is_some_and(|peer| {
            peer.open && peer.has_spoken() && peer.untaken + bytes <= self.limits.untaken_bytes_max
        })
    }

    /// It is sent a command of so many bytes.
    pub(super) fn charge(&mut self, peer: Incarnation, bytes: usize) {
        if let Some(peer) = self.known.get_mut(&peer) {
            peer.untaken += bytes;
        }
    }

    /// It has accepted so many of them.
    pub(super) fn taken(&mut self, peer: Incarnation, bytes: usize) {
        if let Some(peer) = self.known.get_mut(&peer) {
            peer.untaken = peer.untaken.saturating_sub(bytes);
        }
    }

    pub(super) fn is_open(&self, peer: Incarnation) -> bool {
        self.known.get(&peer).is_some_and(|peer| peer.open)
    }

    pub(super) fn open(&self) -> Vec<Incarnation> {
        self.known.iter().filter(|(_, peer)| peer.open).map(|(peer, _)| *peer).collect()
    }

    /// The next serial on the link to it.
    pub(super) fn next_serial(&mut self, peer: Incarnation) -> Option<u64> {
        let peer = self.known.get_mut(&peer)?;
        peer.serial += 1;
        Some(peer.serial)
    }

    /// The gateways or the ring have changed with this view: all must sync by it.
    pub(super) fn must_sync(&mut self, by: Epoch, now: Duration) {
        self.changed = by;
        for peer in self.known.values_mut() {
            peer.unsynced_since = peer.unsynced_since.or(Some(now));
        }
    }

    pub(super) fn add(&mut self, me: Incarnation, members: &Members, now: Duration) {
        for &gateway in members.gateways.keys().filter(|gateway| **gateway != me) {
            let peer = self.known.entry(gateway).or_insert_with(|| Peer::new(now));
            peer.leaving = members.leaving.contains(&gateway);
        }
    }

    /// Those that are in the view no more.
    pub(super) fn outside(&self, members: &Members) -> Vec<Incarnation> {
        self.known.keys().copied().filter(|peer| !members.gateways.contains_key(peer)).collect()
    }

    pub(super) fn remove(&mut self, peer: Incarnation) {
        self.known.remove(&peer);
    }

    /// Our link to it has opened. False if it is in no view.
    pub(super) fn outbound_up(&mut self, peer: Incarnation) -> bool {
        let Some(known) = self.known.get_mut(&peer) else { return false };
        known.open = true;
        known.untaken = 0;
        true
    }

    /// Our link to it is broken. False if it is in no view.
    pub(super) fn outbound_down(&mut self, peer: Incarnation, since: Duration) -> bool {
        let Some(known) = self.known.get_mut(&peer) else { return false };
        known.open = false;
        known.closed_since = since;
        known.untaken = 0;
        true
    }

    /// It has opened a link. Returns whether that replaces one; none if the link is an old one.
    pub(super) fn inbound_up(
        &mut self,
        peer: Incarnation,
        session: LinkSession,
        now: Duration,
    ) -> Option<bool> {
        let known = self.known.get_mut(&peer)?;
        if known.session.is_some_and(|open| open >= session) {
            return None;
        }
        let was_open = known.session.replace(session).is_some();
        known.spoke = Epoch::default();
        known.synced = None;
        known.acknowledge = None;
        // It is back: wait for its sync again. Parked questions have a limit of their own.
        known.unsynced_since = Some(now);
        Some(was_open)
    }

    /// False if another link was opened meanwhile.
    pub(super) fn inbound_down(&mut self, peer: Incarnation, session: LinkSession, since: Duration) -> bool {
        let Some(known) = self.known.get_mut(&peer).filter(|known| known.session == Some(session)) else {
            return false;
        };
        known.session = None;
        known.synced = None;
        known.acknowledge = None;
        known.silent_since = since;
        known.unsynced_since = known.unsynced_since.or(Some(since));
        true
    }

    /// Whether this is the session of its open link.
    pub(super) fn is_session(&self, peer: Incarnation, session: LinkSession) -> bool {
        self.known.get(&peer).is_some_and(|known| known.session == Some(session))
    }

    /// Those with an open link to us.
    pub(super) fn inbound(&self) -> impl Iterator<Item = Incarnation> {
        self.known.iter().filter(|(_, known)| known.session.is_some()).map(|(peer, _)| *peer)
    }

    /// It has announced its view. True if that was its first frame.
    pub(super) fn spoke(&mut self, peer: Incarnation, epoch: Epoch) -> bool {
        let Some(known) = self.known.get_mut(&peer) else { return false };
        let first = !known.has_spoken();
        known.spoke = epoch;
        first
    }

    /// It has synced by this view.
    pub(super) fn synced(&mut self, peer: Incarnation, epoch: Epoch) {
        let changed = self.changed;
        if let Some(known) = self.known.get_mut(&peer) {
            known.synced = Some(epoch);
            if epoch >= changed {
                known.unsynced_since = None;
            }
        }
    }

    pub(super) fn accepted(&mut self, peer: Incarnation, serial: u64) {
        if let Some(peer) = self.known.get_mut(&peer) {
            peer.acknowledge = Some(serial);
        }
    }

    /// One acknowledgement for everything that a peer sent in a step.
    pub(super) fn acknowledgements(&mut self) -> Vec<(Incarnation, u64)> {
        let open = self.known.iter_mut().filter(|(_, peer)| peer.open);
        open.filter_map(|(gateway, peer)| Some((*gateway, peer.acknowledge.take()?))).collect()
    }

    #[cfg(test)]
    pub(super) fn retracted(&self) -> usize {
        self.known.values().map(|peer| peer.retracted.len()).sum()
    }
}
