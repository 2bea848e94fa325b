//! Questions of this gateway's callers to homes: asking them, and their replies.

use broadgate_proto::id::Incarnation;

use crate::{
    content::Content,
    routes::{QuestionRoutes, cost},
    shared::Shared,
    step::{Effect, HomeOp, HomeReply, LinkMessage, Ticket},
    topic::Topic,
};

impl<C: Content> QuestionRoutes<C> {
    /// A caller asks a topic's home. False if there is no room for it.
    pub(super) fn route(
        &mut self,
        shared: &mut Shared<C>,
        ticket: Option<Ticket>,
        topic: &Topic,
        op: HomeOp<C>,
    ) -> bool {
        if self.bytes() + cost(topic, &op) <= shared.limits.asked_bytes_max {
            self.add(topic, ticket, op, shared.now);
            return true;
        }
        shared.dropped("asked_full");
        if let Some(ticket) = ticket {
            shared.out.push(Effect::Answer(ticket, HomeReply::Busy));
        }
        false
    }

    /// Asks a topic's home by its link.
    pub(super) fn ask(
        &mut self,
        shared: &mut Shared<C>,
        home: Incarnation,
        (id, wanted): (u64, bool),
        topic: &Topic,
        op: HomeOp<C>,
    ) {
        let bytes = if let HomeOp::Deliver(command) = &op { C::bytes(command) } else { 0 };
        if !shared.peers.is_reachable(home, bytes) {
            // The link has not accepted what it already has: the caller would wait in vain.
            shared.dropped("link_full");
            self.answer(shared, id, HomeReply::Busy);
            return;
        }
        shared.peers.charge(home, bytes);
        let said = if wanted { id } else { 0 };
        shared.send(home, LinkMessage::Ask { id: said, topic: topic.clone(), op });
        if !wanted {
            self.finish(id);
        }
    }

    /// A home has replied. Returns the topic: other questions may have been waiting for this reply, or this one
    /// has to be asked again.
    pub(super) fn replied(&mut self, shared: &mut Shared<C>, id: u64, reply: HomeReply<C>) -> Option<Topic> {
        if matches!(reply, HomeReply::NotHome(_)) {
            return self.ask_again(id, shared.now);
        }
        self.answer(shared, id, reply)
    }

    fn answer(&mut self, shared: &mut Shared<C>, id: u64, reply: HomeReply<C>) -> Option<Topic> {
        let (topic, flight) = self.finish(id)?;
        if let Some(ticket) = flight.ticket {
            shared.out.push(Effect::Answer(ticket, reply));
        }
        Some(topic)
    }

    /// No home was reachable, or the home that accepted it does not answer. Returns the topic: its other
    /// questions may be asked now.
    pub(super) fn give_up(&mut self, shared: &mut Shared<C>, id: u64) -> Option<Topic> {
        let (topic, flight) = self.finish(id)?;
        match flight.ticket {
            Some(ticket) => shared.out.push(Effect::NoHome(ticket)),
            None => shared.dropped("no_home"),
        }
        Some(topic)
    }
}
