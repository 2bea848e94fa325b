//! A shard's thread and the turn of its loop.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use broadgate_proto::id::Incarnation;
use broadgate_tasks::ThreadEnd;
use metrics::counter;
use tokio::{
    sync::{Notify, oneshot},
    task::{JoinError, JoinSet, LocalSet},
    time::MissedTickBehavior,
};

use crate::{
    admission::ConnectionTicket,
    callers::CallerCounts,
    config::Config,
    observers::Observers,
    recorder::UnheardSends,
    refusals::Refusals,
    shard::{
        app_connections::AppConnections,
        client_lists,
        clock::Clock,
        mailbox::{Messages, ShardMessage},
        outcome::PartialAnswer,
        pending_counts::PendingCounts,
        state::{Shard, ShardHandle},
        survey,
        upcalls::Upcalls,
        worker_links::WorkerLink,
        worker_stream::WorkerOut,
    },
};

/// Slices in which a stopping shard lets its clients go.
const DRAIN_SLICE: Duration = Duration::from_millis(100);

/// Messages that one turn takes from the mailbox: a flood of commands must not keep the sockets from being
/// written to, and has to wait in the mailbox then.
const MESSAGES_PER_TURN: usize = 32;

/// What brings connections to a shard. It lives on the shard's thread.
pub(crate) trait Ingress {
    /// Takes a connection that another thread accepted and admitted.
    fn adopt(&self, listener: usize, stream: std::net::TcpStream, ticket: ConnectionTicket);
    /// Are there connections that are not clients?
    fn has_visitors(&self) -> bool;
}

/// Called on a shard's thread.
pub(crate) type Attach = Box<dyn FnOnce(&ShardHandle, &mut JoinSet<()>) -> Box<dyn Ingress> + Send>;

/// What a shard is started with.
pub(crate) struct Start {
    pub(crate) index: u8,
    /// How many shards share the gateway.
    pub(crate) shards: u8,
    pub(crate) incarnation: Incarnation,
    pub(crate) name: String,
    pub(crate) config: Arc<Config>,
    pub(crate) messages: Messages,
    /// Where it says who is in what.
    pub(crate) pending_counts: Arc<PendingCounts>,
    pub(crate) wake_homes: Arc<Notify>,
    pub(crate) upcalls: Upcalls,
    /// Where Pusher clients count as connections of their app in the cluster.
    pub(crate) places: Arc<AppConnections>,
    /// Where refusals of what its clients ask for are remembered.
    pub(crate) refusals: Arc<Refusals>,
    /// Where commands are counted by their callers.
    pub(crate) callers: Option<Arc<CallerCounts>>,
    /// What homes at this gateway have sent to nobody.
    pub(crate) unheard: Arc<UnheardSends>,
    /// Who wants to know what Pusher clients do.
    pub(crate) observers: Observers,
    /// Called on its thread: starts what brings it connections, and what serves its upcalls.
    pub(crate) attach: Attach,
    /// Tells that the thread has ended.
    pub(crate) end: ThreadEnd,
}

/// The name of a shard's thread.
pub(crate) fn thread_name(index: u8) -> String {
    format!("shard-{index}")
}

/// Starts a shard's thread.
pub(crate) fn start(start: Start) -> anyhow::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .with_context(|| format!("shard {} could not start its runtime", start.index))?;
    std::thread::Builder::new()
        .name(thread_name(start.index))
        .spawn(move || LocalSet::new().block_on(&runtime, run(start)))
        .context("a shard's thread could not be started: is the limit on threads too low?")
}

/// The shard's loop. It runs as a local task like those of its clients, so that they take turns.
async fn run(start: Start) {
    // Also when it ends by a panic.
    let _end = start.end;
    let mut shard = Shard::new(start.index, start.incarnation, &start.name, start.config);
    shard.shards = start.shards;
    shard.deps.homes = Some((start.pending_counts, start.wake_homes));
    shard.deps.upcalls = Some(start.upcalls);
    shard.taps.taps = start.observers.taps.clone();
    shard.offers.observers = start.observers;
    shard.deps.places = Some(start.places);
    shard.deps.refusals = Some(start.refusals);
    shard.deps.callers = start.callers;
    shard.deps.unheard = Some(start.unheard);
    let shard: ShardHandle = Rc::new(RefCell::new(shard));
    let mut tasks = JoinSet::new();
    let ingress = (start.attach)(&shard, &mut tasks);
    let turns = ThreadTurns { shard, ingress: ingress.into() };
    // Ends when every mailbox handle is gone.
    let mut turns = tokio::task::spawn_local(turns.run(start.messages));
    let strike = broadgate_tasks::strike(&thread_name(start.index));
    let mut strike = std::pin::pin!(strike);
    loop {
        let ended = tokio::select! {
            ended = &mut turns => ended,
            Some(ended) = tasks.join_next() => match ended {
                // A listener was closed.
                Ok(()) => continue,
                panicked => panicked,
            },
            never = &mut strike => match never {},
        };
        if let Err(Ok(panic)) = ended.map_err(JoinError::try_into_panic) {
            std::panic::resume_unwind(panic);
        }
        return;
    }
}

struct ThreadTurns {
    shard: ShardHandle,
    ingress: Rc<dyn Ingress>,
}

impl ThreadTurns {
    async fn run(mut self, mut messages: Messages) {
        let turn = self.shard.borrow().turn.wake();
        let started = Instant::now();
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut clock = Clock::default();
        let mut batch = Vec::new();
        loop {
            let begun;
            tokio::select! {
                count = messages.recv_many(&mut batch, MESSAGES_PER_TURN) => {
                    begun = Instant::now();
                    if count == 0 {
                        return self.shard.borrow_mut().flush_all();
                    }
                    for message in batch.drain(..) {
                        self.handle(message);
                    }
                }
                () = turn.notified() => {
                    begun = Instant::now();
                    // What has come while clients were written to goes with what is still to be written.
                    for _ in 0..MESSAGES_PER_TURN {
                        let Ok(message) = messages.try_recv() else { break };
                        self.handle(message);
                    }
                }
                due = second.tick() => {
                    begun = Instant::now();
                    let late = begun.saturating_duration_since(due.into_std());
                    self.shard.borrow_mut().tally.lag(late);
                    let (second, pause) = clock.tick(started.elapsed());
                    if let Some(pause) = pause {
                        counter!("broadgate_gateway_pauses_total").increment(1);
                        tracing::warn!(?pause, "shard was not running: moving clients' deadlines");
                    }
                    let mut shard = self.shard.borrow_mut();
                    shard.tally.pause = pause.map(|pause| (second, pause)).or(shard.tally.pause);
                    shard.tick(second);
                }
            }
            let mut shard = self.shard.borrow_mut();
            shard.end_turn();
            shard.tally.turn(begun.elapsed());
        }
    }

    fn handle(&mut self, message: ShardMessage) {
        let mut shard = self.shard.borrow_mut();
        match message {
            ShardMessage::Execute { orders, reply } => {
                let parts = shard.execute_all(&orders);
                let Some(reply) = reply else { return };
                // Before the answer: who has it may ask whether the homes know.
                shard.send_counts();
                for scope in shard.surveys.take_new() {
                    broadgate_tasks::spawn_local("survey", survey::run(Rc::clone(&self.shard), scope));
                }
                if parts.iter().any(|done| matches!(done.part, PartialAnswer::Walk(_))) {
                    drop(shard);
                    let shard = Rc::clone(&self.shard);
                    broadgate_tasks::spawn_local(
                        "list of clients",
                        client_lists::finish(shard, orders, parts, reply),
                    );
                    return;
                }
                // The caller may have given up.
                let _ = reply.send(parts);
            }
            ShardMessage::Notify(notices) => notices.iter().for_each(|notice| shard.notice(notice)),
            ShardMessage::WorkerUp(worker) => {
                let services = worker.services.iter().map(|service| service.as_str().into()).collect();
                let name = worker.name.as_str().into();
                let link = WorkerLink::new(
                    worker.incarnation,
                    name,
                    services,
                    worker.credit,
                    WorkerOut::new(worker.out),
                    worker.trying,
                );
                shard.worker_up(worker.key, link);
            }
            ShardMessage::WorkerDown(key) => shard.worker_down(key),
            ShardMessage::WorkerLeaving { key, released } => shard.worker_leaving(key, released),
            ShardMessage::Acks { key, seqs } => shard.answered(key, &seqs),
            ShardMessage::Decision { key, seq, decision } => shard.decided(key, seq, decision),
            ShardMessage::Connection { listener, stream, ticket } => {
                drop(shard);
                self.ingress.adopt(listener, stream, ticket);
            }
            ShardMessage::Reborn(incarnation, why) => {
                shard.close_slice(1, Some(why));
                shard.reset_incarnation(incarnation);
            }
            ShardMessage::Apps => shard.apps_changed(),
            ShardMessage::Taps(asked) => shard.taps_changed(asked),
            ShardMessage::Drain { over, done } => {
                let drained = drain(Rc::clone(&self.shard), Rc::clone(&self.ingress), over, done);
                broadgate_tasks::spawn_local("drain", drained);
            }
        }
    }
}

/// Lets clients go in equal slices, then waits for their farewells, for what workers still owe, and for
/// requests that are being answered.
async fn drain(shard: ShardHandle, ingress: Rc<dyn Ingress>, over: Duration, done: oneshot::Sender<()>) {
    let mut slices = usize::try_from(over.as_millis() / DRAIN_SLICE.as_millis()).unwrap_or(usize::MAX).max(1);
    while slices > 0 {
        shard.borrow_mut().close_slice(slices, None);
        slices -= 1;
        tokio::time::sleep(DRAIN_SLICE).await;
    }
    while shard.borrow().clients.has_unanswered() || ingress.has_visitors() {
        // Those whose handshake was under way.
        shard.borrow_mut().close_slice(1, None);
        tokio::time::sleep(DRAIN_SLICE).await;
    }
    let _ = done.send(());
}
