//! The frames and placings gathered in one turn of the cluster task.

use std::{collections::BTreeMap, sync::Arc};

use broadgate_proto::{
    id::Incarnation,
    v1::{self, View},
    view::epoch,
};
use broadgate_topics::{LinkMessage, ReplyTo};
use metrics::{Counter, counter};

use crate::{
    cluster::links::views_sent,
    command::{GatewayContent, ParsedCommand},
    shard::Notice,
};

/// What to send and to place at the end of the turn.
#[derive(Default)]
pub(super) struct GatheredTurn {
    pub(super) messages: BTreeMap<Incarnation, Vec<v1::PeerMessage>>,
    pub(super) places: Vec<Placement>,
    pub(super) tally: FrameCounters,
}

/// What goes to the shards, in its order.
pub(super) enum Placement {
    Command(ReplyTo, Arc<ParsedCommand>),
    Notice(Notice),
}

/// Counters of frames sent to peers.
pub(super) struct FrameCounters {
    pub(super) asks: Counter,
    pub(super) replies: Counter,
    pub(super) deliveries: Counter,
    pub(super) placed: Counter,
    pub(super) others: Counter,
    view_numbers: Counter,
    whole_views: Counter,
}

impl Default for FrameCounters {
    fn default() -> Self {
        let of = |kind: &'static str| counter!("broadgate_gateway_peer_frames_sent_total", "kind" => kind);
        Self {
            asks: of("ask"),
            replies: of("reply"),
            deliveries: of("deliver"),
            placed: of("placed"),
            others: of("other"),
            view_numbers: views_sent("number"),
            whole_views: views_sent("whole"),
        }
    }
}

impl FrameCounters {
    pub(super) fn count(&self, frame: &LinkMessage<GatewayContent>) {
        let counter = match frame {
            LinkMessage::Ask { .. } => &self.asks,
            LinkMessage::Reply { .. } => &self.replies,
            LinkMessage::Deliver { .. } => &self.deliveries,
            LinkMessage::Placed { .. } => &self.placed,
            _ => &self.others,
        };
        counter.increment(1);
    }
}

impl GatheredTurn {
    /// `numbers` says whether the peer understands views by number.
    pub(super) fn say(&mut self, peer: Incarnation, frame: LinkMessage<GatewayContent>, numbers: bool) {
        self.tally.count(&frame);
        let message = match frame {
            LinkMessage::View(view) if numbers => {
                self.tally.view_numbers.increment(1);
                v1::peer_message::Message::ViewNumber(epoch(&view))
            }
            LinkMessage::View(view) => {
                self.tally.whole_views.increment(1);
                v1::peer_message::Message::View(View::clone(&view))
            }
            frame => super::wire::encode(frame),
        };
        self.messages.entry(peer).or_default().push(v1::PeerMessage { message: Some(message) });
    }
}
