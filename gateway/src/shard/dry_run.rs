//! Dry runs of sends: whom a message would reach.

use crate::{
    codec::encode::{Frames, SharedFrame},
    command::ClientFilter,
    shard::{
        counters::Drop,
        execute::{ExecutedClients, form_for},
        slots::Slot,
        state::Shard,
    },
};

impl Shard {
    /// What a send to this audience would do now. It counts nowhere: not as sent, not as dropped, not in a group's
    /// traffic, and taps do not see it.
    pub(super) fn dry_run(
        &mut self,
        to: &ClientFilter,
        frames: &Frames,
        by_group: &[Frames],
    ) -> broadgate_proto::v1::Receipt {
        let frames = frames.share(&self.outboxes.live);
        let by_group: Vec<Frames<SharedFrame>> =
            by_group.iter().map(|frames| frames.share(&self.outboxes.live)).collect();
        let mut tally = ExecutedClients::default();
        let slots = self.select(to, (0, 0), &mut tally);
        for &slot in &slots {
            let frames = form_for(&self.directory, slot, to, &frames, &by_group);
            tally.count(slot, self.would_place(slot, to, frames));
        }
        self.selected = slots;
        tally.receipt()
    }

    /// As `place` and `defer` decide, without what they do.
    fn would_place(
        &mut self,
        slot: Slot,
        to: &ClientFilter,
        frames: &Frames<SharedFrame>,
    ) -> Result<(), Drop> {
        let is_full = |shard: &Self| {
            let limits = &shard.config.settings.limits;
            let client = shard.clients.get(slot).filter(|client| client.is_open()).ok_or(Drop::Closing)?;
            let frame = client.protocol.pick(frames).ok_or(Drop::Protocol)?;
            if client.is_subscribing(&to.groups) {
                let (messages, bytes) = client.pending.as_ref().ok_or(Drop::Closing)?.waiting();
                return Ok(bytes + frame.len() as u64 > limits.outbox_bytes_max as u64 && messages > 0);
            }
            let bytes = client.outbox.bytes() + frame.len();
            let is_many = client.outbox.frames() >= limits.outbox_messages_max;
            Ok((bytes > limits.outbox_bytes_max || is_many) && !client.outbox.is_empty())
        };
        if is_full(self)? {
            // No client is called slow unless the gateway has just tried to write to it.
            self.flush(slot);
            if is_full(self)? {
                return Err(Drop::Slow);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        config::GatewayLimits,
        shard::fixture::{dry_to_group, frames, limits, read, receipts, shard, to_group},
    };

    #[tokio::test]
    async fn a_dry_run_says_whom_a_send_would_reach_and_sends_nothing() {
        let (shard, mut others) = shard(&["g", "g", "h"], limits()).await;
        // Among others: before them, between them and after them.
        let orders = [
            dry_to_group("g", "x"),
            to_group("g", "1", "a"),
            dry_to_group("g", "x"),
            to_group("g", "2", "b"),
            dry_to_group("nobody", "x"),
        ];
        let done = shard.borrow_mut().execute_all(&orders);
        assert_eq!(receipts(&done), [(2, false), (2, false), (2, false), (2, false), (0, false)]);
        assert!(!orders[1].is_sent_like(&orders[2]) && !orders[2].is_sent_like(&orders[1]));
        assert_eq!(shard.borrow().tally.now.messages_out, 4, "of the two sends alone");
        shard.borrow_mut().flush_some();
        let last = to_group("h", "4", "c");
        shard.borrow_mut().execute_all(&[last]);
        shard.borrow_mut().flush_some();
        for (other, texts) in others.iter_mut().zip(["ab", "ab", "c"]) {
            read(other, &frames(texts)).await;
        }
    }

    #[tokio::test]
    async fn a_client_that_takes_its_output_is_not_called_slow_by_a_dry_run() {
        let few = GatewayLimits { outbox_messages_max: 1, ..limits() };
        let (shard, mut others) = shard(&["g"], few).await;
        let orders = [to_group("g", "1", "a"), dry_to_group("g", "x")];
        let done = shard.borrow_mut().execute_all(&orders);
        assert_eq!(receipts(&done), [(1, false), (1, false)]);
        read(&mut others[0], &frames("a")).await;
    }
}
