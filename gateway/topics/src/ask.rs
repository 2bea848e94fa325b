//! Questions of this gateway's callers to homes.

use crate::{
    content::Content,
    core::Core,
    parking::{Question, ReplyTarget},
    routes,
    step::{Effect, HomeOp, HomeReply, LinkMessage, Ticket},
    topic::Topic,
};

impl<C: Content> Core<C> {
    /// A caller asks a topic's home.
    pub(super) fn route(&mut self, ticket: Option<Ticket>, topic: &Topic, op: HomeOp<C>) {
        if self.routes.bytes() + routes::cost(topic, &op) > self.limits.asked_bytes_max {
            self.out.push(Effect::Dropped("asked_full"));
            if let Some(ticket) = ticket {
                self.out.push(Effect::Answer(ticket, HomeReply::Busy));
            }
            return;
        }
        self.routes.add(topic, ticket, op, self.now);
        self.pump(topic);
    }

    /// Sends the home every question that may be sent now.
    fn pump(&mut self, topic: &Topic) {
        let Some(home) = self.rings.home(topic) else { return };
        if home != self.me && !self.is_reachable(home, 0) {
            return;
        }
        for (id, wanted, op) in self.routes.due(topic, home) {
            if home == self.me {
                let origin = if wanted { ReplyTarget::Own(id) } else { ReplyTarget::None };
                if !wanted {
                    self.routes.finish(id);
                }
                self.offer(Question { origin, topic: topic.clone(), op });
            } else {
                self.ask(home, id, wanted, topic, op);
            }
        }
    }

    fn ask(
        &mut self,
        home: broadgate_proto::id::Incarnation,
        id: u64,
        wanted: bool,
        topic: &Topic,
        op: HomeOp<C>,
    ) {
        let bytes = if let HomeOp::Deliver(command) = &op { C::bytes(command) } else { 0 };
        if !self.is_reachable(home, bytes) {
            // The link has not accepted what it already has: the caller would wait in vain.
            self.out.push(Effect::Dropped("link_full"));
            self.answer(id, HomeReply::Busy);
            return;
        }
        if let Some(peer) = self.peers.get_mut(&home) {
            peer.untaken += bytes;
        }
        let said = if wanted { id } else { 0 };
        self.send(home, LinkMessage::Ask { id: said, topic: topic.clone(), op });
        if !wanted {
            self.routes.finish(id);
        }
    }

    pub(super) fn pump_all(&mut self) {
        for topic in self.routes.topics_due() {
            self.pump(&topic);
        }
    }

    /// A home has replied.
    pub(super) fn routed(&mut self, id: u64, reply: HomeReply<C>) {
        if matches!(reply, HomeReply::NotHome(_)) {
            if let Some(topic) = self.routes.ask_again(id, self.now) {
                self.pump(&topic);
            }
            return;
        }
        self.answer(id, reply);
    }

    fn answer(&mut self, id: u64, reply: HomeReply<C>) {
        let Some((topic, flight)) = self.routes.finish(id) else { return };
        if let Some(ticket) = flight.ticket {
            self.out.push(Effect::Answer(ticket, reply));
        }
        // Other questions may have been waiting for this reply.
        self.pump(&topic);
    }

    /// No home was reachable, or the home that accepted it does not answer.
    pub(super) fn give_up_flight(&mut self, id: u64) {
        let Some((topic, flight)) = self.routes.finish(id) else { return };
        match flight.ticket {
            Some(ticket) => self.out.push(Effect::NoHome(ticket)),
            None => self.out.push(Effect::Dropped("no_home")),
        }
        self.pump(&topic);
    }
}
