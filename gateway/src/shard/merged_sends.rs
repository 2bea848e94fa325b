//! Orders that came together. Messages to one topic that follow each other are placed together: each
//! client is looked at once, and gets them all.

use std::{sync::Arc, time::Duration};

use broadgate_proto::v1::answer::Answer;

use crate::{
    codec::encode::{Frames, SharedFrame},
    command::{ClientFilter, ParsedCommand},
    shard::{
        execute::ExecutedClients,
        outcome::{PartialAnswer, Remembrance, ShardOutcome},
        state::{Executed, Shard},
    },
};

impl Executed {
    /// Remembers that it is being carried out; false if it was before.
    fn begin(&mut self, order: &ParsedCommand, second: u32) -> bool {
        let ParsedCommand::Once { app, id, .. } = order else { return true };
        let is_new = self.remembered.get(app, id).is_none();
        if is_new {
            self.remember(order, Remembrance::Clients(0), second);
        }
        is_new
    }

    pub(super) fn remember(&mut self, order: &ParsedCommand, what: Remembrance, second: u32) {
        if let ParsedCommand::Once { app, id, .. } = order {
            self.remembered.put(app, id, what, Duration::from_secs(second.into()));
        }
    }
}

impl Shard {
    /// Carries orders out in their order.
    pub(crate) fn execute_all(&mut self, orders: &[Arc<ParsedCommand>]) -> Vec<ShardOutcome> {
        let mut done = Vec::with_capacity(orders.len());
        let mut rest = orders;
        while let Some(first) = rest.first() {
            let alike = rest.iter().take_while(|order| order.is_sent_like(first)).count();
            // What its caller repeats is answered by itself, after what it repeats.
            let new = rest[..alike]
                .iter()
                .take_while(|order| alike > 1 && self.executed.begin(order, self.second))
                .count();
            if new == 0 {
                done.push(self.execute_once(first));
                rest = &rest[1..];
            } else {
                self.send_together(&rest[..new], &mut done);
                rest = &rest[new..];
            }
        }
        done
    }

    /// Sends several messages to one topic, none of which was sent before.
    fn send_together(&mut self, orders: &[Arc<ParsedCommand>], done: &mut Vec<ShardOutcome>) {
        let Some(ParsedCommand::Send { to, .. }) = orders.first().map(|order| order.inner()) else { return };
        let shared: Vec<_> = orders.iter().map(|order| order.frames().share(&self.outboxes.live)).collect();
        if self.taps.is_open() {
            self.taps.begin(orders.iter().map(|order| &**order).zip(shared.iter().map(Some)));
        }
        let outcomes = self.send_all(to, &shared);
        if self.taps.is_open() {
            self.taps.end();
        }
        for (place, (order, outcome)) in orders.iter().zip(outcomes).enumerate() {
            self.note_sent(order, place, (outcome.clients, outcome.drops()));
            let answer = Answer::Receipt(outcome.receipt());
            self.executed.remember(order, Remembrance::of(&answer), self.second);
            done.push(ShardOutcome { part: PartialAnswer::Answer(answer), touched: Vec::new() });
        }
    }

    /// Places messages, in their order, in the outbox of everybody in an audience.
    pub(crate) fn send_all(
        &mut self,
        to: &ClientFilter,
        messages: &[Frames<SharedFrame>],
    ) -> Vec<ExecutedClients> {
        self.sent.begin();
        let mut unknown = ExecutedClients::default();
        let bytes = messages.iter().map(|frames| frames.payload).sum();
        let slots = self.select(to, (messages.len(), bytes), &mut unknown);
        let mut outcomes = vec![unknown; messages.len()];
        for &slot in &slots {
            let waits = self.clients.get(slot).is_some_and(|client| client.is_subscribing(&to.groups));
            for (frames, outcome) in messages.iter().zip(&mut outcomes) {
                outcome.count(slot, if waits { self.defer(slot, frames) } else { self.place(slot, frames) });
            }
        }
        self.selected = slots;
        if self.taps.is_open() {
            self.tap_sent(to, messages, &outcomes);
        }
        for (place, outcome) in outcomes.iter().enumerate() {
            self.note_drops(to, place, outcome);
        }
        outcomes
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        config::GatewayLimits,
        shard::fixture::{frames, limits, read, receipts, shard, to_group},
    };

    #[tokio::test]
    async fn what_comes_together_is_sent_once_in_order_and_answered_one_by_one() {
        let (shard, mut others) = shard(&["g", "g", "h"], limits()).await;
        let orders = [
            to_group("g", "1", "a"),
            to_group("g", "2", "b"),
            // A repeat, in the middle of those that it came with.
            to_group("g", "1", "a"),
            to_group("g", "3", "c"),
            to_group("h", "4", "d"),
            to_group("g", "5", "e"),
        ];
        let done = shard.borrow_mut().execute_all(&orders);
        let once = |clients| (clients, false);
        assert_eq!(receipts(&done), [once(2), once(2), (2, true), once(2), once(1), once(2)]);
        let again = shard.borrow_mut().execute_all(&orders[1..4]);
        assert_eq!(receipts(&again), [(2, true), (2, true), (2, true)]);
        shard.borrow_mut().flush_some();
        for (other, texts) in others.iter_mut().zip(["abce", "abce", "d"]) {
            read(other, &frames(texts)).await;
        }
    }

    #[tokio::test]
    async fn late_flush_does_not_mark_client_slow() {
        let few = GatewayLimits { outbox_messages_max: 4, ..limits() };
        let (shard, mut others) = shard(&["g"], few).await;
        let texts = "abcdefghijklmnopqrstuvwxyz";
        let orders: Vec<_> =
            texts.chars().map(|text| to_group("g", &text.to_string(), &text.to_string())).collect();
        let done = shard.borrow_mut().execute_all(&orders);
        assert!(receipts(&done).iter().all(|receipt| *receipt == (1, false)), "{done:?}");
        shard.borrow_mut().flush_some();
        read(&mut others[0], &frames(texts)).await;
    }
}
