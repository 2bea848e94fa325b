//! Serves the shards' requests to the rest of the gateway. The tasks run on the shards' threads.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    sync::{Arc, Weak as SharedWeak},
};

use broadgate_proto::{
    id::ClientId,
    limits::{BATCH_COMMANDS_MAX, PUSHER_UNANSWERED_MAX},
};
use broadgate_topics::{HomeOp, Topic};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use metrics::counter;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use crate::{
    authorization::Authorizer,
    cluster::ClusterEvent,
    command::ChannelEvent,
    dispatch::dispatcher::Dispatcher,
    shard::{AuthorizeUpcall, EnterUpcall, Shard, ShardHandle, UpcallQueues},
};

/// Serves a shard's upcalls until the shard ends. It does not keep the dispatcher alive: the dispatcher has
/// the shards' mailboxes, and a shard ends with the last handle of its mailbox.
pub(crate) fn serve(
    shard: &ShardHandle,
    dispatcher: &SharedWeak<Dispatcher>,
    authorizer: &Authorizer,
    queues: UpcallQueues,
    tasks: &mut JoinSet<()>,
) {
    let UpcallQueues { events, entries, missed, authorizations } = queues;
    tasks.spawn_local(authorize(Rc::downgrade(shard), authorizer.clone(), authorizations));
    tasks.spawn_local(publish(Rc::downgrade(shard), dispatcher.clone(), events));
    tasks.spawn_local(enter(dispatcher.clone(), entries));
    tasks.spawn_local(report_missed(dispatcher.clone(), missed));
}

/// Places events of clients, in order. Their answers are not awaited one by one, but bounded: while too
/// many are outstanding, nothing is placed, and the clients are not read.
async fn publish(
    shard: Weak<RefCell<Shard>>,
    dispatcher: SharedWeak<Dispatcher>,
    mut queue: mpsc::Receiver<(ClientId, ChannelEvent)>,
) {
    let unanswered = Arc::new(Semaphore::new(PUSHER_UNANSWERED_MAX));
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, BATCH_COMMANDS_MAX).await > 0 {
        let (clients, events): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let permits = u32::try_from(events.len()).unwrap_or(u32::MAX);
        // It is never closed.
        let Ok(answered) = Arc::clone(&unanswered).acquire_many_owned(permits).await else { return };
        if let Some(dispatcher) = dispatcher.upgrade() {
            let placed = dispatcher.place_events(events.into_iter().map(|event| (event, None))).await;
            let (shard, clients) = (Weak::clone(&shard), clients.clone());
            broadgate_tasks::spawn_local("answers to clients", async move {
                let answers = placed.answers().await;
                drop(answered);
                if let Some(shard) = shard.upgrade() {
                    shard.borrow_mut().events_refused(&clients, answers);
                }
            });
        } else {
            // The gateway is stopping.
            counter!("broadgate_gateway_homes_drops_total", "reason" => "no_dispatcher")
                .increment(events.len() as u64);
            let Some(shard) = shard.upgrade() else { return };
            let mut shard = shard.borrow_mut();
            clients.iter().for_each(|client| shard.event_refused(*client, "the gateway is stopping"));
        }
        let Some(shard) = shard.upgrade() else { return };
        shard.borrow_mut().clients.events_placed(&clients);
    }
}

/// Reports clients that entered groups to the groups' homes, in order.
async fn enter(dispatcher: SharedWeak<Dispatcher>, mut queue: mpsc::Receiver<EnterUpcall>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, BATCH_COMMANDS_MAX).await > 0 {
        let Some(dispatcher) = dispatcher.upgrade() else { return };
        dispatcher.homes.send(ClusterEvent::Enter(std::mem::take(&mut batch))).await;
    }
}

/// Asks apps' backends whether clients may subscribe. The authorizer bounds how much is under way; a shard has one
/// question of each client at most.
async fn authorize(
    shard: Weak<RefCell<Shard>>,
    authorizer: Authorizer,
    mut queue: mpsc::Receiver<AuthorizeUpcall>,
) {
    let mut asking = FuturesUnordered::new();
    loop {
        tokio::select! {
            asked = queue.recv() => {
                let Some(AuthorizeUpcall { client, question, asker }) = asked else { return };
                let authorizer = authorizer.clone();
                asking.push(async move { (client, authorizer.ask(question, asker).await) });
            }
            Some((client, answer)) = asking.next() => {
                let Some(shard) = shard.upgrade() else { return };
                shard.borrow_mut().authorized(client, answer);
            }
        }
    }
}

/// A channel's home tells webhooks of a missing last value, once for all gateways.
async fn report_missed(dispatcher: SharedWeak<Dispatcher>, mut queue: mpsc::Receiver<Topic>) {
    while let Some(topic) = queue.recv().await {
        let Some(dispatcher) = dispatcher.upgrade() else { return };
        dispatcher.homes.offer(ClusterEvent::Route { topic, op: HomeOp::Missed, reply: None });
    }
}
