//! What the parts of a core share: the view, the peers, retained messages, and the effects of a step.

use std::time::Duration;

use broadgate_proto::{id::Incarnation, v1::Epoch};

use crate::{
    content::Content,
    limits::TopicLimits,
    members::{Members, Rings},
    peer::PeerTable,
    retention::{RetainedMessages, RetentionRules},
    step::{Effect, LinkMessage},
    topic::Topic,
};

#[derive(Debug)]
pub(super) struct Shared<C: Content> {
    pub(super) me: Incarnation,
    pub(super) limits: TopicLimits,
    pub(super) now: Duration,
    pub(super) members: Members,
    pub(super) rings: Rings,
    /// The first of the last views in which this gateway is not on the ring; none while it is.
    pub(super) off_ring_since: Option<Epoch>,
    /// The first view in which this gateway leaves.
    pub(super) leaves_since: Option<Epoch>,
    pub(super) peers: PeerTable,
    pub(super) retained: RetainedMessages<C>,
    pub(super) out: Vec<Effect<C>>,
}

impl<C: Content> Shared<C> {
    pub(super) fn new(me: Incarnation, limits: TopicLimits, rules: RetentionRules) -> Self {
        Self {
            me,
            limits,
            now: Duration::ZERO,
            members: Members::default(),
            rings: Rings::default(),
            off_ring_since: None,
            leaves_since: None,
            peers: PeerTable::new(limits),
            retained: RetainedMessages::new(rules, limits.retained_bytes_max, limits.retained_app_bytes_max),
            out: Vec::new(),
        }
    }

    /// Whether this gateway is the topic's home.
    pub(super) fn is_home(&self, topic: &Topic) -> bool {
        self.rings.home(topic) == Some(self.me)
    }

    /// Whether this gateway has been the topic's home in every view since the one in which that gateway speaks.
    pub(super) fn has_been_home_since_spoken(&self, gateway: Incarnation, topic: &Topic) -> bool {
        if gateway == self.me {
            return self.is_home(topic);
        }
        self.peers.get(gateway).is_some_and(|peer| self.rings.home_since(self.me, topic, peer.spoke))
    }

    /// Whether a home may answer.
    pub(super) fn gate_is_open(&self) -> bool {
        self.peers.are_ready(self.now)
    }

    pub(super) fn dropped(&mut self, reason: &'static str) {
        self.out.push(Effect::Dropped(reason));
    }

    pub(super) fn send(&mut self, peer: Incarnation, frame: LinkMessage<C>) {
        self.out.push(Effect::Send(peer, frame));
    }

    pub(super) fn send_if_open(&mut self, peer: Incarnation, frame: LinkMessage<C>) {
        if self.peers.is_open(peer) {
            self.send(peer, frame);
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
}
