//! Which workers are attached to this gateway.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use broadgate_proto::{
    id::Incarnation,
    limits::{EVENTS_PER_WORKER_DEFAULT, EVENTS_PER_WORKER_MAX},
    name,
    v1::{self, WorkerHello},
};
use broadgate_tasks::Spawner;
use bytes::Bytes;
use metrics::gauge;
use tokio::sync::{mpsc, oneshot};

use crate::{
    identity::Identity,
    shard::{Mailbox, NewWorker, ShardMessage, Trying, WorkerKey, shard_of_seq},
};

/// Announces workers to the shards.
pub(crate) struct Attachments {
    pub(super) shards: Arc<[Mailbox]>,
    pub(crate) me: Arc<ArcSwap<Identity>>,
    pub(super) next: AtomicU64,
    spawner: Spawner,
}

/// One worker's stream, as the shards know it. On drop the shards are informed.
pub(crate) struct AttachedWorker {
    pub(super) key: WorkerKey,
    pub(super) shards: Arc<[Mailbox]>,
    spawner: Spawner,
}

impl Attachments {
    pub(crate) fn new(shards: Arc<[Mailbox]>, me: Arc<ArcSwap<Identity>>, spawner: Spawner) -> Self {
        Self { shards, me, next: AtomicU64::new(1), spawner }
    }

    /// Adds a worker; the receiver gets its events.
    pub(super) async fn attach(
        &self,
        hello: WorkerHello,
    ) -> Result<(AttachedWorker, mpsc::Receiver<Bytes>), String> {
        let incarnation: Incarnation = hello.incarnation.parse().map_err(|error| format!("{error}"))?;
        name::check_visible("name", &hello.name).map_err(|error| error.to_string())?;
        if hello.services.is_empty() {
            return Err("services is empty: name at least one".to_owned());
        }
        for service in &hello.services {
            name::check("services", service).map_err(|error| error.to_string())?;
        }
        let asked = if hello.events_max == 0 { EVENTS_PER_WORKER_DEFAULT } else { hello.events_max };
        let events_max = asked.min(EVENTS_PER_WORKER_MAX) as usize;
        let credit = (events_max / self.shards.len()).max(1);
        let (out, events) = mpsc::channel(credit * self.shards.len());
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let worker = NewWorker {
            key,
            incarnation,
            name: hello.name,
            services: hello.services,
            credit,
            out,
            trying: Trying::new(self.shards.len()),
        };
        tracing::info!(worker = %worker.name, services = ?worker.services, "worker attached");
        gauge!("broadgate_gateway_workers").increment(1);
        // From here on the drop informs the shards of its end, too.
        let attached =
            AttachedWorker { key, shards: Arc::clone(&self.shards), spawner: self.spawner.clone() };
        for shard in self.shards.iter() {
            shard.send(ShardMessage::WorkerUp(worker.clone())).await;
        }
        Ok((attached, events))
    }
}

impl AttachedWorker {
    /// Hands answers to the shards whose events they answer.
    pub(super) async fn acks(&self, seqs: Vec<u64>) {
        let mut lists: Vec<Vec<u64>> = vec![Vec::new(); self.shards.len()];
        for seq in seqs {
            if let Some(list) = lists.get_mut(usize::from(shard_of_seq(seq))) {
                list.push(seq);
            }
        }
        for (shard, seqs) in self.shards.iter().zip(lists) {
            if !seqs.is_empty() {
                shard.send(ShardMessage::Acks { key: self.key, seqs }).await;
            }
        }
    }

    pub(super) async fn decision(&self, seq: u64, decision: v1::decision::Decision) {
        if let Some(shard) = self.shards.get(usize::from(shard_of_seq(seq))) {
            shard.send(ShardMessage::Decision { key: self.key, seq, decision }).await;
        }
    }

    /// Sends it nothing new. Each receiver ends when a shard has nothing unanswered any more.
    pub(super) async fn leaving(&self) -> Vec<oneshot::Receiver<()>> {
        let mut waiting = Vec::with_capacity(self.shards.len());
        for shard in self.shards.iter() {
            let (released, done) = oneshot::channel();
            shard.send(ShardMessage::WorkerLeaving { key: self.key, released }).await;
            waiting.push(done);
        }
        waiting
    }
}

impl Drop for AttachedWorker {
    fn drop(&mut self) {
        gauge!("broadgate_gateway_workers").decrement(1);
        let (key, shards) = (self.key, Arc::clone(&self.shards));
        // A full mailbox must not lose this, and a drop cannot wait.
        self.spawner.spawn("end of a worker's stream", async move {
            for shard in shards.iter() {
                shard.send(ShardMessage::WorkerDown(key)).await;
            }
        });
    }
}
