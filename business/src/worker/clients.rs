//! The clients of one gateway whose events this worker takes.

use std::{
    collections::HashMap,
    future::{Future as _, poll_fn},
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use broadgate_proto::{
    id::ClientId,
    v1::{self, Cause, Event, Handshake, event},
};
use futures_util::FutureExt as _;
use tokio_util::task::TaskTracker;

use crate::{
    cluster::parse_session,
    worker::{
        client::{Client, ClientShared},
        core::{RunnerWatch, WorkerCore},
        handler::{Closed, Decision, Handler, Message},
        job::HandlerJob,
        out::{FramesOut, OutFrame},
        queue::StreamAttachment,
    },
};

/// Clients whose handlers one task runs, as long as they need not wait.
const TOGETHER_MAX: usize = 32;
/// And for as long as that takes no longer: others go to another thread then.
const TOGETHER_TIME_MAX: Duration = Duration::from_micros(200);

/// Owned by the link's task; the runners share only what is behind its `Arc`s.
pub(crate) struct Clients<H> {
    core: Arc<WorkerCore<H>>,
    gateway: Arc<str>,
    table: HashMap<ClientId, Arc<ClientShared>>,
    /// Clients that have something to be handled, and nobody who does.
    starting: Vec<Arc<ClientShared>>,
    /// Numbers the streams of this link.
    stream: u64,
    runner_view: Arc<RunnerView>,
    runners: TaskTracker,
}

/// What runners need to know of their link.
#[derive(Default)]
struct RunnerView {
    attached: AtomicU64,
    /// Clients whose last event has been handled.
    ended: Mutex<Vec<ClientId>>,
}

impl RunnerView {
    fn attached(&self) -> StreamAttachment {
        StreamAttachment::from_bits(self.attached.load(Ordering::Acquire))
    }

    fn set(&self, attached: StreamAttachment) {
        self.attached.store(attached.to_bits(), Ordering::Release);
    }

    fn take_ended(&self) -> Vec<ClientId> {
        std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<H: Handler> Clients<H> {
    pub(crate) fn new(core: Arc<WorkerCore<H>>, gateway: Arc<str>) -> Self {
        let (table, runner_view, runners) = (HashMap::new(), Arc::default(), TaskTracker::new());
        Self { core, gateway, table, starting: Vec::new(), stream: 0, runner_view, runners }
    }

    /// A stream is open. The gateway names this worker's clients again, and gives all
    /// unanswered events out again, here or to another worker.
    pub(crate) fn attached(&mut self) {
        self.sweep();
        self.stream += 1;
        self.runner_view.set(StreamAttachment::Live(self.stream));
        self.core.meters.attached.increment(1.0);
        // A client with an event still in its handler stays, so that what comes next waits for it.
        self.table.retain(|_, shared| !shared.lock().queue.is_idle());
        let woken = self.table.values().filter(|shared| shared.lock().queue.wake());
        self.starting.extend(woken.cloned());
        self.start();
    }

    /// The stream has ended: what waits must wait on.
    pub(crate) fn detached(&self) {
        if matches!(self.runner_view.attached(), StreamAttachment::Live(_)) {
            self.core.meters.attached.decrement(1.0);
            self.runner_view.set(StreamAttachment::Broken);
        }
    }

    /// Forgets the clients whose last event has been handled.
    pub(crate) fn sweep(&mut self) {
        for id in self.runner_view.take_ended() {
            self.table.remove(&id);
        }
    }

    /// Puts an event into its client's queue; [`Clients::start`] has it handled.
    pub(crate) fn take(&mut self, event: Event, out: &FramesOut) {
        self.core.meters.unanswered.increment(1.0);
        let id = event.client_id.parse::<ClientId>();
        match (event.event.as_ref(), id) {
            (Some(event::Event::Handshake(_)), _) => self.decide(event, out.clone()),
            (Some(kind), Ok(id)) => {
                self.core.meters.count(kind);
                self.queue(id, event, out);
            }
            _ => {
                // From a newer gateway, or malformed: answered, so that its client is not held.
                self.core.meters.unknown.increment(1);
                self.core.meters.unanswered.decrement(1.0);
                let (out, seq) = (out.clone(), event.seq);
                self.runners.spawn(async move { out.send(OutFrame::Ack(seq)).await });
            }
        }
    }

    fn queue(&mut self, id: ClientId, event: Event, out: &FramesOut) {
        let shared = match self.table.get(&id) {
            Some(shared) => shared.clone(),
            None => {
                let shared =
                    Arc::new(ClientShared::new(id, &event, &self.gateway, self.core.context.cluster()));
                self.table.insert(id, shared.clone());
                shared
            }
        };
        let Some(kind) = event.event else { return };
        let last = matches!(kind, event::Event::Closed(_) | event::Event::Moved(_));
        let job = HandlerJob {
            seq: event.seq,
            redelivered: event.redelivered,
            uid: event.uid,
            session: event.session,
            event: kind,
            out: Some(out.clone()),
        };
        let start = {
            let mut state = shared.lock();
            state.stream = self.stream;
            state.goes = last;
            state.queue.push(self.stream, job)
        };
        if start {
            self.starting.push(shared);
        }
    }

    /// Has the events handled that have come.
    pub(crate) fn start(&mut self) {
        while !self.starting.is_empty() {
            let rest = self.starting.split_off(self.starting.len().min(TOGETHER_MAX));
            let several = std::mem::replace(&mut self.starting, rest);
            let (core, runner_view) = (self.core.clone(), self.runner_view.clone());
            self.runners.spawn(run_several(core, runner_view, self.runners.clone(), several));
        }
    }

    /// Asks the handler whether a client may come in; nothing of that client can come before.
    fn decide(&self, event: Event, out: FramesOut) {
        let Some(event::Event::Handshake(handshake)) = event.event else { return };
        self.core.meters.count(&event::Event::Handshake(Handshake::default()));
        let (core, seq) = (self.core.clone(), event.seq);
        self.runners.spawn(async move {
            let _watch = RunnerWatch(&core.runner_panicked);
            // Also what a handler does before it returns its future.
            let asked = async { core.handler.authorize(&core.context, handshake).await };
            let decision = AssertUnwindSafe(asked).catch_unwind().await.unwrap_or_else(|_| {
                core.meters.panics.increment(1);
                tracing::error!("the handler panicked in authorize: the client is refused");
                Decision::refuse(500, "the application failed")
            });
            core.meters.unanswered.decrement(1.0);
            let _ = out.send(OutFrame::Decision(v1::Decision { seq, decision: Some(decision.0) })).await;
        });
    }

    /// The gateway has left the view: its clients are gone, and nobody else will tell of them.
    /// After a clean leave there is nothing to tell unless clients are left.
    pub(crate) async fn lost(&mut self, clean: bool, incarnation: &str) {
        self.sweep();
        let stream = self.stream;
        self.table.retain(|_, shared| shared.lock().stream == stream);
        if !clean || !self.table.is_empty() {
            self.core.meters.gateways_lost.increment(1);
            let (core, gateway) = (&self.core, &self.gateway);
            let handled = async { core.handler.gateway_lost(&core.context, gateway, incarnation).await };
            let handled = AssertUnwindSafe(handled).catch_unwind().await;
            core.note("gateway_lost", handled);
        }
        self.runner_view.set(StreamAttachment::Lost(stream));
        for shared in self.table.values() {
            let start = {
                let mut state = shared.lock();
                if state.goes {
                    state.queue.wake()
                } else {
                    self.core.meters.unanswered.increment(1.0);
                    state.queue.push(stream, lost_job())
                }
            };
            if start {
                self.starting.push(shared.clone());
            }
        }
        self.start();
    }

    /// Waits until everything that may be handled has been.
    pub(crate) async fn finish(self) {
        self.runners.close();
        self.runners.wait().await;
    }
}

/// The end of a client whose gateway was lost.
fn lost_job() -> HandlerJob {
    let closed = v1::Closed { cause: Cause::GatewayLost.into(), code: 1006, ..v1::Closed::default() };
    HandlerJob {
        seq: 0,
        redelivered: false,
        uid: String::new(),
        session: None,
        event: event::Event::Closed(closed),
        out: None,
    }
}

/// Runs the clients one after the other; one that has to wait goes on in a task of its own. Most handlers
/// need not wait, and a task for each would cost more than they do.
async fn run_several<H: Handler>(
    core: Arc<WorkerCore<H>>,
    runner_view: Arc<RunnerView>,
    runners: TaskTracker,
    clients: Vec<Arc<ClientShared>>,
) {
    let began = Instant::now();
    let mut clients = clients.into_iter();
    let mut place = None;
    while let Some(shared) = clients.next() {
        let running = run_client(core.clone(), runner_view.clone(), shared);
        // The room of the one before is used again.
        let mut one = match place.take() {
            Some(room) => reuse(room, running),
            None => Box::pin(running),
        };
        if poll_fn(|cx| Poll::Ready(one.as_mut().poll(cx))).await.is_pending() {
            runners.spawn(one);
        } else {
            place = Some(one);
        }
        if began.elapsed() > TOGETHER_TIME_MAX {
            for late in clients.by_ref() {
                runners.spawn(run_client(core.clone(), runner_view.clone(), late));
            }
        }
    }
}

fn reuse<F>(mut room: Pin<Box<F>>, future: F) -> Pin<Box<F>> {
    room.set(future);
    room
}

/// Handles one client's events in turn, until none waits.
async fn run_client<H: Handler>(
    core: Arc<WorkerCore<H>>,
    runner_view: Arc<RunnerView>,
    shared: Arc<ClientShared>,
) {
    let _watch = RunnerWatch(&core.runner_panicked);
    broadgate_tasks::strike_now("clients");
    let mut client = Client { shared, redelivered: false };
    while let Some(job) = next(&core, &runner_view, &client) {
        let HandlerJob { seq, redelivered, event, out, .. } = job;
        client.redelivered = redelivered;
        let last = matches!(event, event::Event::Closed(_) | event::Event::Moved(_));
        let what = name(&event);
        let handled = AssertUnwindSafe(handle(&core, &client, event)).catch_unwind().await;
        core.note(what, handled);
        core.meters.unanswered.decrement(1.0);
        if last {
            runner_view.ended.lock().unwrap_or_else(PoisonError::into_inner).push(client.shared.key);
        }
        if let Some(out) = out {
            // The stream may be gone; then the gateway gives the event out again.
            let _ = out.send(OutFrame::Ack(seq)).await;
        }
    }
}

fn next<H>(core: &WorkerCore<H>, runner_view: &RunnerView, client: &Client) -> Option<HandlerJob> {
    let mut state = client.shared.lock();
    let mut job = state.queue.next(runner_view.attached(), |_| {
        core.meters.unanswered.decrement(1.0);
        core.meters.given_out_again.increment(1);
    })?;
    if job.out.is_some() {
        state.learn(&job.uid, job.session.take());
    }
    Some(job)
}

const fn name(event: &event::Event) -> &'static str {
    match event {
        event::Event::Handshake(_) => "authorize",
        event::Event::Opened(_) => "opened",
        event::Event::Message(_) => "message",
        event::Event::Closed(_) => "closed",
        event::Event::Adopted(_) => "adopted",
        event::Event::Moved(_) => "moved",
    }
}

async fn handle<H: Handler>(
    core: &WorkerCore<H>,
    client: &Client,
    event: event::Event,
) -> anyhow::Result<()> {
    let handler = &core.handler;
    match event {
        event::Event::Message(message) => handler.message(client, Message::from_wire(message)).await,
        event::Event::Opened(handshake) => handler.opened(client, handshake).await,
        event::Event::Closed(closed) => handler.closed(client, closed_of(client, closed)).await,
        event::Event::Adopted(adopted) => handler.adopted(client, adopted.groups).await,
        event::Event::Moved(_) => handler.moved(client).await,
        event::Event::Handshake(_) => Ok(()),
    }
}

fn closed_of(client: &Client, closed: v1::Closed) -> Closed {
    Closed {
        cause: closed.cause(),
        code: u16::try_from(closed.code).unwrap_or(1006),
        reason: closed.reason,
        groups: closed.groups,
        uid: client.uid(),
        session: parse_session(&client.shared.session_json()),
    }
}
