//! The order of reading: a client with more input than one turn handles is queued, and what a shard reads
//! between two looks at its mailbox is bounded.

use crate::shard::{
    client::{Client, ReadTurn},
    clients::ShardClients,
    read_budget::ReadBudget,
    slots::Slot,
    socket::{HangUp, Stream},
    state::Reads,
    turn::Turn,
};

/// Queued clients that are read in one turn.
const READERS_PER_TURN: usize = 16;

impl Reads {
    /// A client's socket may have something. Does it have its turn now?
    pub(super) fn may_take_a_turn(&mut self, slot: Slot, client: &mut Client, turn: &mut Turn) -> bool {
        match client.reading {
            ReadTurn::InLine => false,
            ReadTurn::Next => {
                client.reading = ReadTurn::Freely;
                self.ask(turn);
                true
            }
            ReadTurn::Freely if self.unread.is_spent() => {
                self.line_up(slot, client, turn);
                false
            }
            ReadTurn::Freely => true,
        }
    }

    /// It has more to read, and others come first.
    pub(super) fn line_up(&mut self, slot: Slot, client: &mut Client, turn: &mut Turn) {
        if client.reading != ReadTurn::InLine {
            client.reading = ReadTurn::InLine;
            self.readers.push_back(slot);
            turn.request();
        }
    }

    /// Those in the line have their turn when the mailbox has had its own.
    pub(super) fn ask(&self, turn: &mut Turn) {
        if !self.readers.is_empty() {
            turn.request();
        }
    }

    /// Wakes the first in the line; the next turn comes when the first of them has been read.
    pub(super) fn serve(&mut self, clients: &mut ShardClients) {
        self.unread = ReadBudget::default();
        for _ in 0..READERS_PER_TURN {
            let Some(slot) = self.readers.pop_front() else { break };
            // It may be another's slot by now.
            if let Some(client) = clients.get_mut(slot).filter(|it| it.reading == ReadTurn::InLine) {
                client.reading = ReadTurn::Next;
                client.wake();
            }
        }
        if self.readers.is_empty() {
            // A burst is given back.
            self.readers.shrink_to(1024);
        }
    }

    /// A second has passed: those that had to wait are read again.
    pub(super) fn end_delays(&mut self, clients: &mut ShardClients, second: u32) {
        let still = std::mem::take(&mut self.delayed);
        for slot in still {
            let Some(client) = clients.get_mut(slot) else { continue };
            let Some(pusher) = &mut client.pusher else { continue };
            if pusher.not_before > second {
                self.delayed.push(slot);
            } else if std::mem::take(&mut pusher.not_before) > 0 {
                client.wake();
            }
        }
    }

    /// Clients that are not read and have hung up.
    pub(super) fn hung_up(&mut self, clients: &ShardClients) -> Vec<Slot> {
        let mut hung_up = Vec::new();
        self.paused.retain(|&slot| {
            let Some(client) = clients.get(slot) else { return false };
            let websocket = client.protocol.is_websocket();
            // A WebSocket client that ends its stream without a close is gone. A `text` or `frame`
            // client may end its side and still want the answers to what it sent.
            match client.stream.as_ref().map_or(HangUp::No, Stream::hang_up) {
                HangUp::Broken => hung_up.push(slot),
                HangUp::Ended if websocket => hung_up.push(slot),
                _ => {}
            }
            true
        });
        hung_up
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::{
        config::GatewayLimits,
        shard::{
            fixture::{limits, shard},
            read_budget::FRAMES_PER_TURN,
            state::Shard,
        },
    };

    const PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];

    const EMPTY_TEXT: [u8; 6] = [0x81, 0x80, 0, 0, 0, 0];

    /// The messages that were taken from each client.
    fn taken(shard: &Shard, slots: &[Slot]) -> Vec<usize> {
        let of = |client: &Client| client.received.messages as usize;
        slots.iter().map(|&slot| shard.clients.get(slot).map_or(0, of)).collect()
    }

    #[tokio::test]
    async fn turns_are_bounded_and_everybody_in_the_line_has_the_same() {
        const CLIENTS: usize = 150;
        const TEXTS: usize = 3000;
        let groups = vec!["g"; CLIENTS];
        let (shard, mut others) = shard(&groups, limits()).await;
        for other in &mut others {
            other.write_all(&EMPTY_TEXT.repeat(TEXTS)).await.unwrap();
        }
        let slots = shard.borrow().clients.taken();
        assert_eq!(slots.len(), CLIENTS);
        let cx = &mut Context::from_waker(Waker::noop());
        let (mut before, mut turns) = (vec![0; CLIENTS], 0);
        while before.iter().sum::<usize>() < CLIENTS * TEXTS {
            turns += 1;
            assert!(turns < 100_000, "nobody is read any more: {before:?}");
            // The runtime sees which sockets can be read.
            tokio::task::yield_now().await;
            let mut shard = shard.borrow_mut();
            let is_first = turns == 1;
            let polled: Vec<Slot> = slots
                .iter()
                .copied()
                .filter(|&slot| {
                    is_first || shard.clients.get(slot).is_some_and(|it| it.reading != ReadTurn::InLine)
                })
                .collect();
            for &slot in &polled {
                let key = shard.clients.get(slot).unwrap().key;
                assert!(shard.poll_client(slot, key, cx).is_pending());
            }
            let now = taken(&shard, &slots);
            let each: Vec<usize> = now.iter().zip(&before).map(|(now, before)| now - before).collect();
            assert!(each.iter().all(|taken| *taken <= 64), "one client's turn: {each:?}");
            let all: usize = each.iter().sum();
            assert!(all <= FRAMES_PER_TURN as usize + 16 * 64, "a turn of {all} frames");
            let (most, least) = (now.iter().max().unwrap(), now.iter().min().unwrap());
            assert!(turns > 90 || most - least <= 512, "{least} to {most} in turn {turns}");
            before = now;
            shard.end_turn();
        }
        assert!(turns >= CLIENTS * TEXTS / (FRAMES_PER_TURN as usize + 16 * 64), "{turns}");
        assert!(shard.borrow().reads.readers.len() <= CLIENTS);
    }

    #[tokio::test]
    async fn control_frames_and_fragments_have_a_rate() {
        for (frame, closes) in [(PING, true), (EMPTY_TEXT, false)] {
            let few = GatewayLimits { frames_per_second_max: 100, ..limits() };
            let (shard, mut others) = shard(&["g"], few).await;
            others[0].write_all(&frame.repeat(101)).await.unwrap();
            let slot = shard.borrow().clients.taken()[0];
            let cx = &mut Context::from_waker(Waker::noop());
            let is_open = || shard.borrow().clients.get(slot).is_some_and(Client::is_open);
            for _ in 0..1000 {
                tokio::task::yield_now().await;
                let mut shard = shard.borrow_mut();
                let key = shard.clients.get(slot).unwrap().key;
                let _ = shard.poll_client(slot, key, cx);
                shard.end_turn();
            }
            assert_eq!(is_open(), !closes, "{frame:x?}");
        }
    }
}
