//! The shards of a gateway: commands and notices to those of them that they concern.

use std::{collections::HashSet, sync::Arc, time::Instant};

use broadgate_proto::v1::{self, answer::Answer};
use broadgate_topics::Topic;
use tokio::sync::oneshot;

use crate::{
    command::{Concerns, ParsedCommand, merge, not_found, placed_hop, tidy},
    shard::{
        mailbox::{Mailbox, ShardMessage},
        notice::Notice,
        outcome::{PartialAnswer, ShardOutcome, Stats},
    },
};

/// The mailboxes of the shards, in order.
#[derive(Clone)]
pub(crate) struct Pool {
    pub(crate) shards: Arc<[Mailbox]>,
}

/// Orders that are in the mailboxes.
pub(crate) struct Executing {
    orders: Vec<(usize, Arc<ParsedCommand>)>,
    /// The shards that were asked.
    shards: Vec<AskedShard>,
    /// When they were, if an order is traced.
    traced_since: Option<Instant>,
}

/// A shard that was asked: which of the orders, and its answer to come.
struct AskedShard {
    number: usize,
    places: Vec<usize>,
    parts: oneshot::Receiver<Vec<ShardOutcome>>,
}

/// What all shards together have made of one order.
pub(crate) struct Carried {
    /// The index that it was given under.
    pub(crate) index: usize,
    pub(crate) answer: Answer,
    /// Topics whose members that may have changed.
    pub(crate) touched: Vec<Topic>,
}

impl Pool {
    /// The same for orders that nobody wants answered.
    pub(crate) async fn carry_out(&self, orders: Vec<(usize, Arc<ParsedCommand>)>) {
        let mut lists: Vec<Vec<Arc<ParsedCommand>>> = vec![Vec::new(); self.shards.len()];
        for (_, order) in orders {
            self.shards_of(&order, |shard| lists[shard].push(Arc::clone(&order)));
        }
        for (mailbox, orders) in self.shards.iter().zip(lists) {
            if !orders.is_empty() {
                mailbox.send(ShardMessage::Execute { orders, reply: None }).await;
            }
        }
    }

    /// Puts notices into the mailboxes of the shards that they concern, keeping their order.
    pub(crate) async fn notify(&self, notices: Vec<Notice>) {
        let mut lists: Vec<Vec<Arc<Notice>>> = vec![Vec::new(); self.shards.len()];
        for notice in notices.into_iter().map(Arc::new) {
            match &*notice {
                Notice::Present { .. } => lists.iter_mut().for_each(|list| list.push(Arc::clone(&notice))),
                Notice::Entered { client, .. } => {
                    if let Some(list) = lists.get_mut(usize::from(client.shard)) {
                        list.push(notice);
                    }
                }
            }
        }
        for (mailbox, notices) in self.shards.iter().zip(lists) {
            if !notices.is_empty() {
                mailbox.send(ShardMessage::Notify(notices)).await;
            }
        }
    }

    /// Tells every shard that the taps have changed. Returns how many clients fit the one at this place, which is new:
    /// from then on it shows what happens.
    pub(crate) async fn tap(&self, place: usize) -> u64 {
        let mut answers = Vec::with_capacity(self.shards.len());
        for mailbox in self.shards.iter() {
            let (reply, answer) = oneshot::channel();
            mailbox.send(ShardMessage::Taps(Some((place, reply)))).await;
            answers.push(answer);
        }
        let mut clients = 0;
        for answer in answers {
            // A shard that has ended has no clients either.
            clients += answer.await.unwrap_or_default();
        }
        clients
    }

    /// Tells every shard that a tap has ended.
    pub(crate) async fn tap_ended(&self) {
        for mailbox in self.shards.iter() {
            mailbox.send(ShardMessage::Taps(None)).await;
        }
    }

    /// Puts orders into the mailboxes of the shards that they concern, keeping their order.
    pub(crate) async fn execute(&self, orders: Vec<(usize, Arc<ParsedCommand>)>) -> Executing {
        let mut lists: Vec<Vec<usize>> = vec![Vec::new(); self.shards.len()];
        for (place, (_, order)) in orders.iter().enumerate() {
            self.shards_of(order, |shard| lists[shard].push(place));
        }
        let traced_since = orders.iter().any(|(_, order)| order.is_traced()).then(Instant::now);
        let mut shards = Vec::new();
        for (number, (mailbox, places)) in self.shards.iter().zip(lists).enumerate() {
            if places.is_empty() {
                continue;
            }
            let list = places.iter().map(|&place| Arc::clone(&orders[place].1)).collect();
            let (reply, parts) = oneshot::channel();
            mailbox.send(ShardMessage::Execute { orders: list, reply: Some(reply) }).await;
            shards.push(AskedShard { number, places, parts });
        }
        Executing { orders, shards, traced_since }
    }

    /// Calls `to` for every shard that an order concerns: a client's shard alone is asked about it, all
    /// are asked about everything else.
    fn shards_of(&self, order: &ParsedCommand, to: impl FnMut(usize)) {
        let every = 0..self.shards.len();
        // A shard that does not exist cannot answer that it does not know the client.
        if let Some(shard) = order.only_client().map(|client| usize::from(client.shard))
            && every.contains(&shard)
        {
            return std::iter::once(shard).for_each(to);
        }
        match order.concerns() {
            Concerns::All => every.for_each(to),
            Concerns::Some(homes) => {
                let named: HashSet<usize> =
                    homes.values().flatten().map(|client| usize::from(client.shard)).collect();
                let all_exist = named.iter().all(|shard| every.contains(shard));
                every.filter(|shard| !all_exist || named.contains(shard)).for_each(to);
            }
        }
    }
}

impl Executing {
    /// What became of each order. Questions about this gateway itself are not asked in this way.
    pub(crate) async fn done(self) -> Vec<Carried> {
        self.answers(|_| v1::StatusReply::default()).await
    }

    /// Every order's answer.
    pub(crate) async fn answers(self, stats: impl Fn(Vec<Stats>) -> v1::StatusReply) -> Vec<Carried> {
        let mut merged: Vec<Option<Answer>> = self.orders.iter().map(|_| None).collect();
        let mut counted: Vec<Vec<Stats>> = self.orders.iter().map(|_| Vec::new()).collect();
        let mut touched: Vec<Vec<Topic>> = self.orders.iter().map(|_| Vec::new()).collect();
        let mut hops: Vec<(usize, v1::HopShard)> = Vec::new();
        for AskedShard { number, places, parts } in self.shards {
            // A shard that has ended has no clients either.
            for (place, done) in places.into_iter().zip(parts.await.unwrap_or_default()) {
                touched[place].extend(done.touched);
                if self.traced_since.is_some() && self.orders[place].1.is_traced() {
                    hops.extend(shard_hop(number, &done.part).map(|hop| (place, hop)));
                }
                match done.part {
                    PartialAnswer::Answer(answer) => merge(&mut merged[place], answer),
                    PartialAnswer::Stats(part) => counted[place].push(part),
                    // Shards finish their walks before they answer.
                    PartialAnswer::Walk(_) | PartialAnswer::Elsewhere => {}
                }
            }
        }
        let mut all = Vec::with_capacity(self.orders.len());
        let parts = self.orders.into_iter().zip(merged).zip(counted).zip(touched);
        for (place, ((((index, order), answer), counted), mut touched)) in parts.enumerate() {
            let answer = match (answer, order.one_client()) {
                _ if !counted.is_empty() => Some(Answer::Status(stats(counted))),
                (None, Some(client)) => Some(Answer::Error(not_found(client))),
                (answer, _) => answer,
            };
            let mut answer = answer.unwrap_or(Answer::Receipt(v1::Receipt::default()));
            tidy(&order, &mut answer);
            if let Answer::Receipt(receipt) = &mut answer {
                receipt.gateways = 1;
                if let Some(since) = self.traced_since.filter(|_| order.is_traced()) {
                    let own = hops.iter().filter(|(of, _)| *of == place).map(|(_, hop)| hop.clone());
                    receipt.trace = Some(placed_hop(since.elapsed(), own.collect()));
                }
            }
            touched.sort_unstable();
            touched.dedup();
            all.push(Carried { index, answer, touched });
        }
        all
    }
}

/// A shard's part in the trace of a send.
fn shard_hop(number: usize, part: &PartialAnswer) -> Option<v1::HopShard> {
    let PartialAnswer::Answer(Answer::Receipt(receipt)) = part else { return None };
    let shard = u32::try_from(number).unwrap_or(u32::MAX);
    Some(v1::HopShard { shard, clients: receipt.clients, drops: receipt.drops.clone() })
}
