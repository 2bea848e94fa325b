//! What all outboxes of a shard hold together, and who is closed when that is too much.

use std::cmp::Reverse;

use broadgate_proto::v1::Cause;

use crate::{
    config::GatewayLimits,
    shard::{
        clients::ShardClients,
        ending::SlowBy,
        outbox::Outbox,
        slots::Slot,
        state::{Outboxes, Shard},
        tls::TlsShared,
    },
};

/// What a frame in an outbox takes besides the frame itself: its place in a list that grows by doubling.
const PLACE_BYTES: usize = 16;
/// Clients that are closed in one turn at most: some milliseconds.
const CLOSED_PER_TURN: usize = 1024;

impl Outboxes {
    /// What waits in all of them, in bytes of memory: a frame counts once, however many clients have it, and
    /// what TLS has sealed of it for one client besides.
    pub(crate) fn bytes(&self, tls: &TlsShared) -> usize {
        self.live.bytes() + self.waiting_frames * PLACE_BYTES + tls.sealed()
    }
}

/// A shard's share of what the gateway's outboxes may hold. One full outbox always fits.
fn share(limits: &GatewayLimits, shards: u8) -> usize {
    (limits.outboxes_bytes_max / usize::from(shards.max(1))).max(limits.frame_bytes_max())
}

/// Those of whom most waits first.
fn fullest(clients: &ShardClients) -> Vec<Slot> {
    let weight = |outbox: &Outbox| outbox.bytes() + outbox.frames() * PLACE_BYTES;
    let waiting = clients.iter().filter(|(_, client)| !client.outbox.is_empty());
    let mut all: Vec<_> = waiting.map(|(slot, client)| (Reverse(weight(&client.outbox)), slot)).collect();
    all.sort_unstable();
    all.into_iter().map(|(_, slot)| slot).collect()
}

impl Shard {
    /// Closes those of whom most waits, until a quarter of the share is free again, so that this is rare.
    pub(super) fn relieve(&mut self) {
        let max = share(&self.config.settings.limits, self.shards);
        let before = self.outboxes.bytes(&self.tls);
        if before <= max || self.outboxes.relieved == self.second {
            return;
        }
        let enough = max - max / 4;
        let mut closed = 0;
        for slot in fullest(&self.clients) {
            if self.outboxes.bytes(&self.tls) <= enough || closed == CLOSED_PER_TURN {
                break;
            }
            // Nobody is called slow whom the gateway has not just tried to write to.
            self.flush(slot);
            closed += usize::from(self.close_for_room(slot));
        }
        let after = self.outboxes.bytes(&self.tls);
        if after >= before {
            self.outboxes.relieved = self.second;
        }
        tracing::warn!(
            shard = self.clients.shard,
            before,
            after,
            closed,
            "what waits for clients is more than this shard's share of outboxes_bytes_max: those who have \
             most of it were closed as slow"
        );
        if after > max {
            self.turn.request();
        }
    }

    /// Closes a client as slow, or cuts one that is being closed and does not take what is left; false if
    /// it has taken everything.
    fn close_for_room(&mut self, slot: Slot) -> bool {
        let Some(client) = self.clients.get(slot).filter(|client| !client.outbox.is_empty()) else {
            return false;
        };
        if client.is_open() {
            self.close_slow(slot, SlowBy::All, None);
        } else {
            self.abort(slot, Cause::Slow, 1006, "");
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};

    use super::*;
    use crate::shard::{
        client::Client,
        fixture::{limits, shard, to_group},
        socket::Stream,
        window::WindowMax,
    };

    #[tokio::test]
    async fn those_of_whom_most_waits_are_closed_first() {
        const CLIENTS: usize = 40;
        let groups: Vec<String> = (0..CLIENTS).map(|number| format!("g{number}")).collect();
        let names: Vec<&str> = groups.iter().map(String::as_str).collect();
        // The share is the largest frame: a payload of 1 MiB, and what is around it.
        let tight = GatewayLimits { outbox_bytes_max: 100_000, outboxes_bytes_max: 1, ..limits() };
        let (shard, others) = shard(&names, tight).await;
        let slots = shard.borrow().clients.taken();
        for (slot, other) in slots.iter().zip(&others) {
            set_socket_recv_buffer_size(other, 4096).unwrap();
            let shard = shard.borrow();
            let Some(Stream::Tcp(stream)) = &shard.clients.get(*slot).unwrap().stream else { panic!() };
            set_socket_send_buffer_size(stream, 4096).unwrap();
        }
        let mut shard = shard.borrow_mut();
        let max = share(&shard.config.settings.limits, shard.shards);
        let mut id = 0;
        // What is shared counts once.
        let text = "x".repeat(50_000);
        for number in 0..CLIENTS {
            // The sockets' own buffers are filled first.
            while shard.clients.get(slots[number]).unwrap().outbox.bytes() < 20_000 + 1000 * number {
                id += 1;
                shard.execute_all(&[to_group(
                    names[number],
                    &id.to_string(),
                    &text[..20_000 + 500 * number],
                )]);
                shard.flush(slots[number]);
            }
            let waiting: usize = shard.clients.iter().map(|(_, client)| client.outbox.frames()).sum();
            assert_eq!(shard.outboxes.waiting_frames, waiting);
            if shard.outboxes.bytes(&shard.tls) > max {
                break;
            }
        }
        let before: Vec<(usize, Slot)> = slots
            .iter()
            .map(|&slot| (shard.clients.get(slot).unwrap().outbox.bytes(), slot))
            .filter(|(bytes, _)| *bytes > 0)
            .collect();
        assert!(
            shard.outboxes.bytes(&shard.tls) > max && before.len() < CLIENTS,
            "{}",
            shard.outboxes.bytes(&shard.tls)
        );
        shard.relieve();
        assert!(shard.outboxes.bytes(&shard.tls) <= max, "{}", shard.outboxes.bytes(&shard.tls));
        let is_open = |slot: Slot| shard.clients.get(slot).is_some_and(Client::is_open);
        let closed: Vec<usize> =
            before.iter().filter(|(_, slot)| !is_open(*slot)).map(|(bytes, _)| *bytes).collect();
        let stay = before.iter().filter(|(_, slot)| is_open(*slot)).map(|(bytes, _)| *bytes);
        let most = stay.max().expect("somebody stays");
        assert!(!closed.is_empty() && closed.iter().all(|bytes| *bytes >= most), "{closed:?} {most}");
        let all_others = slots.iter().filter(|slot| before.iter().all(|(_, waits)| waits != *slot));
        assert!(all_others.copied().all(is_open), "nothing waits for them");
    }

    #[tokio::test]
    async fn a_client_that_does_not_take_its_answers_is_not_read() {
        let (shard, others) = shard(&["g"], limits()).await;
        let mut shard = shard.borrow_mut();
        let slot = shard.clients.taken()[0];
        let max = WindowMax::of(&limits());
        let may_read = |shard: &Shard| shard.clients.get(slot).unwrap().may_read(max);
        // What others send to it is no reason.
        for id in 0..4 {
            shard.execute_all(&[to_group("g", &id.to_string(), &"x".repeat(30_000))]);
        }
        assert!(may_read(&shard));
        for _ in 0..700 {
            assert!(may_read(&shard));
            shard.push_own(slot, vec![0x8a; 100].into());
            if !may_read(&shard) {
                break;
            }
        }
        assert!(!may_read(&shard));
        shard.flush(slot);
        assert!(may_read(&shard), "all of it was written");
        drop(others);
    }
}
