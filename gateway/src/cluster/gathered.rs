//! The frames and placings gathered in one turn of the cluster task.

use std::{collections::BTreeMap, sync::Arc};

use broadgate_proto::{id::Incarnation, v1};
use broadgate_topics::{Frame, ReplyTo};
use metrics::{Counter, counter};

use crate::{
    command::{GatewayContent, ParsedCommand},
    shard::Notice,
};

/// What to send and to place at the end of the turn.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) says: BTreeMap<Incarnation, Vec<v1::PeerMessage>>,
    pub(super) places: Vec<Placement>,
    pub(super) tally: Tally,
}

/// What goes to the shards, in its order.
pub(super) enum Placement {
    Command(ReplyTo, Arc<ParsedCommand>),
    Notice(Notice),
}

/// Counters of frames sent to peers.
pub(super) struct Tally {
    pub(super) asks: Counter,
    pub(super) replies: Counter,
    pub(super) deliveries: Counter,
    pub(super) placed: Counter,
    pub(super) others: Counter,
}

impl Default for Tally {
    fn default() -> Self {
        let of = |kind: &'static str| counter!("broadgate_gateway_peer_frames_sent_total", "kind" => kind);
        Self {
            asks: of("ask"),
            replies: of("reply"),
            deliveries: of("deliver"),
            placed: of("placed"),
            others: of("other"),
        }
    }
}

impl Tally {
    pub(super) fn count(&self, frame: &Frame<GatewayContent>) {
        let counter = match frame {
            Frame::Ask { .. } => &self.asks,
            Frame::Reply { .. } => &self.replies,
            Frame::Deliver { .. } => &self.deliveries,
            Frame::Placed { .. } => &self.placed,
            _ => &self.others,
        };
        counter.increment(1);
    }
}

impl Turn {
    pub(super) fn say(&mut self, peer: Incarnation, frame: Frame<GatewayContent>) {
        self.tally.count(&frame);
        self.says
            .entry(peer)
            .or_default()
            .push(v1::PeerMessage { message: Some(super::wire::encode(frame)) });
    }
}
