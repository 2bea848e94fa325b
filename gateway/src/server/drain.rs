//! Graceful stop: first the clients are closed, then the gateway leaves the cluster.

use std::{sync::Arc, time::Duration};

use broadgate_proto::{v1::MemberState, view};
use broadgate_register::member::{ClusterMember, RegisterStatus};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};

use super::{bound::Bound, follow::MembershipFollower};
use crate::{
    cluster::LeaveStep,
    dispatch::Dispatcher,
    shard::{Mailbox, ShardMessage},
    webhooks::Webhooks,
};

/// How long emptying and closing the client listeners may take.
const CLOSE_LISTENERS_TIME_MAX: Duration = Duration::from_secs(2);
/// Clients closed per second, unless the drain time asks for more.
const DRAIN_CLIENTS_PER_SECOND: usize = 1000;

impl Bound {
    /// Closes the clients, then leaves so that no other gateway waits for an answer of this one.
    pub(super) async fn stop(
        &self,
        member: &mut ClusterMember,
        seen: &mut MembershipFollower,
        (mailboxes, webhooks, listening): (&[Mailbox], &Webhooks, &mut mpsc::Receiver<()>),
    ) {
        self.health.set_ready(false);
        self.stopping.draining.cancel();
        member.set_state(MemberState::Draining);
        let dispatcher = Arc::clone(&seen.dispatcher);
        let closing = async {
            self.drain(mailboxes, &dispatcher, listening).await;
            // It is still the home of its channels: it reports what has happened in them until now.
            webhooks.drain(self.config.settings.stop.drain).await;
            // So that the journal records what has arrived.
            dispatcher.homes.catch_up().await;
            dispatcher.own_clients().await
        };
        let clients = seen.until(member, closing).await;
        if clients > 0 || !is_missed(&dispatcher, &member.register()) {
            return;
        }
        let until = Instant::now() + dispatcher.link_timeout;
        let answered = reach(&dispatcher, LeaveStep::Answered, until, member.registers());
        if seen.until(member, answered).await {
            member.set_state(MemberState::Leaving);
            let known = reach(&dispatcher, LeaveStep::Known, until, member.registers());
            if seen.until(member, known).await {
                return;
            }
        }
        tracing::info!("not every gateway knows that this one leaves: answers may name it as missing");
    }

    /// Reports "not ready", empties and closes the listeners, then closes clients in slices. In this order, a client
    /// that reconnects at once reaches another gateway. What is acknowledged is finished.
    async fn drain(
        &self,
        mailboxes: &[Mailbox],
        dispatcher: &Arc<Dispatcher>,
        listening: &mut mpsc::Receiver<()>,
    ) {
        let stop = &self.config.settings.stop;
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

/// Whether other gateways could wait for this one's answers, and a register lives that tells them that it leaves.
fn is_missed(dispatcher: &Dispatcher, register: &RegisterStatus) -> bool {
    let installed = dispatcher.installed.borrow();
    let has_peers = view::gateways(&installed.view).count() > 1;
    register.heard && installed.inside.is_some() && has_peers
}

/// Waits for a step. False if it is not reached by then, or no register lives.
async fn reach(
    dispatcher: &Dispatcher,
    step: LeaveStep,
    until: Instant,
    mut register: watch::Receiver<RegisterStatus>,
) -> bool {
    let reached = async {
        tokio::select! {
            () = dispatcher.homes.leave(step) => true,
            _ = register.wait_for(|register| !register.heard) => false,
        }
    };
    timeout_at(until, reached).await.unwrap_or(false)
}
