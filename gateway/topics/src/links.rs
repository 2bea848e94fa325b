//! The links to other gateways: what opening, losing and receiving mean for each part.

use std::{sync::Arc, time::Duration};

use broadgate_proto::{id::Incarnation, v1::Epoch};

use crate::{
    content::Content,
    core::Core,
    home::GatewayInterest,
    interest::Sum,
    ledger::LedgerUpdate,
    membership::LinkSession,
    parking::{Question, ReplyTarget},
    retention::History,
    shared::Shared,
    step::{Effect, LinkMessage},
};

/// Why links are reset that nothing is wrong with; any other reason is a fault.
pub const VIEWS_MISSED: &str = "views were missed: its interest may be lost here";

impl<C: Content> Core<C> {
    /// The outbound link is up: sends the peer everything.
    pub(super) fn outbound_up(&mut self, peer: Incarnation) {
        let Self { shared, own, homes, .. } = self;
        if !shared.peers.outbound_up(peer) {
            return;
        }
        shared.send(peer, LinkMessage::View(Arc::clone(&shared.members.view)));
        self.parcels.send(shared, peer);
        own.announce_all(shared, peer);
        homes.reporting.send_ledgers(shared, peer);
        own.send_synced(shared, &[peer], true);
        homes.resend_rosters(shared, own, peer);
        homes.send_values(shared, peer);
        self.pump_all();
        self.release();
    }

    /// What was sent and not acknowledged may be lost.
    pub(super) fn outbound_down(&mut self, peer: Incarnation, since: Duration) {
        if self.shared.peers.outbound_down(peer, since) {
            self.link_lost(peer);
        }
    }

    /// The peer has opened a link: once it has synced there, that replaces everything that it announced
    /// before.
    pub(super) fn inbound_up(&mut self, peer: Incarnation, session: LinkSession) {
        let now = self.shared.now;
        let Some(was_open) = self.shared.peers.inbound_up(peer, session, now) else { return };
        if was_open {
            self.link_lost(peer);
        }
        self.own.claim_again(&mut self.shared, peer);
    }

    pub(super) fn inbound_down(&mut self, peer: Incarnation, session: LinkSession, since: Duration) {
        if self.shared.peers.inbound_down(peer, session, since) {
            self.link_lost(peer);
            self.release();
        }
    }

    /// Neither its questions nor its answers can be relied on.
    fn link_lost(&mut self, peer: Incarnation) {
        self.miss(peer);
        self.pump_all();
    }

    fn miss(&mut self, peer: Incarnation) {
        let leaves = self.shared.peers.is_leaving(peer);
        self.missed(peer, leaves);
    }

    /// What it owes will not come. A gateway that leaves has answered all that was placed among its clients, so it
    /// owes nothing.
    fn missed(&mut self, peer: Incarnation, leaves: bool) {
        self.homes.miss(&mut self.shared, peer, leaves);
        self.take_replies();
        self.routes.lost(peer, self.shared.now);
    }

    /// It is not in the view: dead, whatever it may still send.
    pub(super) fn peer_gone(&mut self, peer: Incarnation) {
        let leaves = self.shared.peers.is_leaving(peer);
        self.shared.peers.remove(peer);
        self.missed(peer, leaves);
        self.homes.lose(&mut self.shared, &mut self.own, |gateway, _| gateway == peer);
    }

    /// Frames of a replaced link, or of a gateway outside the view, are dropped.
    pub(super) fn received(&mut self, peer: Incarnation, session: LinkSession, frame: LinkMessage<C>) {
        let Self { shared, own, homes, .. } = self;
        if !shared.peers.is_session(peer, session) {
            return shared.dropped("not_of_the_view");
        }
        match frame {
            LinkMessage::View(view) => {
                let epoch = broadgate_proto::view::epoch(&view);
                // No register could make a term above this one.
                if !epoch.is_credible(shared.members.epoch.term) {
                    return shared.dropped("view_of_a_false_term");
                }
                // A gateway that sees a higher epoch installs it before it acts.
                self.install(view);
                if self.shared.peers.spoke(peer, epoch) {
                    self.pump_all();
                }
            }
            LinkMessage::InterestUpdate { serial, topic, clients, members, claims, knows_roster } => {
                let update = GatewayInterest { clients, members: &members, claims, knows_roster };
                homes.interest(shared, own, (peer, session), &topic, update);
                shared.peers.accepted(peer, serial);
            }
            LinkMessage::Synced { serial, epoch, sum } => {
                shared.peers.accepted(peer, serial);
                let sum = sum.map(|(topics, sum)| Sum { topics, sum });
                self.peer_synced(peer, session, epoch, sum);
            }
            LinkMessage::InterestAck(serial) => own.interest_acked(shared, peer, serial),
            LinkMessage::Ask { id, topic, op } => {
                let origin = if id == 0 { ReplyTarget::None } else { ReplyTarget::Peer(peer, id) };
                let since = shared.now;
                self.offer(Question { origin, topic, op, since });
            }
            LinkMessage::Reply { id, reply } => {
                if let Some(topic) = self.routes.replied(shared, id, reply) {
                    self.pump(&topic);
                }
            }
            LinkMessage::Deliver { id, topic, at, command } => {
                own.deliver_here(shared, (peer, session), id, (topic, at), command)
            }
            LinkMessage::Placed { id, placed } => {
                homes.placed_by(shared, own, peer, id, placed);
                self.take_replies();
            }
            LinkMessage::HandOver { topic, history } => {
                if shared.is_home(&topic)
                    && let Some(history) = History::of_parcel(history, shared.now)
                {
                    shared.retained.take_over(&topic, history);
                }
            }
            LinkMessage::Value { topic, at, age, command } => {
                let since = shared.now.saturating_sub(age);
                shared.retained.set_value(&topic, at, &command, since);
            }
            LinkMessage::Present { topic, at, whole, members } => {
                own.present_here(shared, peer, (&topic, at), whole, members);
            }
            LinkMessage::ClaimDecisions { topic, at, claims } => {
                own.decided_here(shared, peer, (&topic, at), &claims);
            }
            LinkMessage::Reported { serial, topic, whole, more, notified } => {
                let update = LedgerUpdate { to: shared.me, topic, whole, more, notified };
                homes.reporting.reported_by(shared, peer, session, update);
                shared.peers.accepted(peer, serial);
            }
        }
    }

    /// A peer has synced: what it announced before and has not repeated is void.
    fn peer_synced(&mut self, peer: Incarnation, session: LinkSession, epoch: Epoch, said: Option<Sum>) {
        let Self { shared, own, homes, .. } = self;
        homes.lose(shared, own, |gateway, announced_in| gateway == peer && announced_in != session);
        homes.reporting.synced(peer, session);
        // In another view it has chosen other homes.
        if epoch == shared.members.epoch && said.is_some_and(|said| homes.topics.sum_of(peer) != said) {
            shared.out.push(Effect::ResetPeer(peer, "its interest does not match its checksum"));
        }
        shared.peers.synced(peer, epoch);
        self.release();
    }
}

impl<C: Content> Shared<C> {
    /// After a gap in the views, this home may have lost what peers announced, and they may not know that:
    /// they may have missed the view that caused it. So they have to announce it again.
    pub(super) fn reset_inbound_links(&mut self) {
        self.out.extend(self.peers.inbound().map(|peer| Effect::ResetPeer(peer, VIEWS_MISSED)));
    }
}
