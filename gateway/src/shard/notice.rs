//! What homes tell of topics to the gateways with clients in them: no command, and nobody waits for an answer.

use broadgate_proto::id::ClientId;
use broadgate_topics::{Entered, PresenceChange, Topic};

use super::state::Shard;
use crate::command::GatewayContent;

/// A notice to a shard.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Presence members of a group have come and gone: Pusher clients in it receive the changes.
    Present { topic: Topic, members: Vec<PresenceChange> },
    /// A Pusher client follows a group from here.
    Entered { client: ClientId, topic: Topic, entered: Entered<GatewayContent> },
}

impl Shard {
    pub(super) fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Present { topic, members } => self.send_presence(topic, members),
            Notice::Entered { client, topic, entered } => {
                if let Some(slot) = self.clients.find(*client) {
                    self.entered(slot, topic, entered);
                }
            }
        }
    }
}
