//! Graceful stop.

use std::{sync::Arc, time::Duration};

use broadgate_proto::v1::MemberState;
use broadgate_register::member::ClusterMember;
use tokio::sync::{mpsc, oneshot};

use super::bound::Bound;
use crate::{
    dispatch::Dispatcher,
    shard::{Mailbox, ShardMessage},
};

/// How long emptying and closing the client listeners may take.
const CLOSE_LISTENERS_TIME_MAX: Duration = Duration::from_secs(2);
/// Clients closed per second, unless the drain time asks for more.
const DRAIN_CLIENTS_PER_SECOND: usize = 1000;

impl Bound {
    /// Reports "not ready", empties and closes the listeners, then closes clients in slices. In this order, a client
    /// that reconnects at once reaches another gateway. What is acknowledged is finished.
    pub(super) async fn drain(
        &self,
        member: &ClusterMember,
        mailboxes: &[Mailbox],
        dispatcher: &Arc<Dispatcher>,
        listening: &mut mpsc::Receiver<()>,
    ) {
        let stop = &self.config.settings.stop;
        self.health.set_ready(false);
        self.stopping.draining.cancel();
        member.set_state(MemberState::Draining);
        tracing::info!(ready_delay = ?stop.ready_delay, drain = ?stop.drain, "draining");
        tokio::time::sleep(stop.ready_delay).await;
        self.stopping.closing.cancel();
        // Ends when every listener is closed; nothing is ever sent.
        if tokio::time::timeout(CLOSE_LISTENERS_TIME_MAX, listening.recv()).await.is_err() {
            tracing::warn!("client listeners are slow to close: new connections may be reset");
        }
        let clients = dispatcher.own_clients().await;
        let unhurried = Duration::from_millis(clients as u64 * 1000 / DRAIN_CLIENTS_PER_SECOND as u64);
        // The last clients need time to receive their close frames.
        let over = unhurried.min(stop.drain * 4 / 5);
        let mut waiting = Vec::new();
        for mailbox in mailboxes {
            let (done, drained) = oneshot::channel();
            mailbox.send(ShardMessage::Drain { over, done }).await;
            waiting.push(drained);
        }
        let all = futures_util::future::join_all(waiting);
        if tokio::time::timeout(stop.drain, all).await.is_err() {
            tracing::warn!("drain time is over: aborting the remaining connections");
        } else {
            tracing::info!(clients, "drained");
        }
    }
}
