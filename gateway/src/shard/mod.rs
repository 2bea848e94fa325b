//! A shard is a thread that owns a part of a gateway's clients, from handshake to goodbye: no lock,
//! no atomic, nothing shared on the way of a message. Others reach it through one bounded mailbox.

#[cfg(feature = "bench")]
pub mod bench;
mod client;
mod clock;
mod directory;
mod drive;
mod events;
mod execute;
#[cfg(test)]
mod fixture;
mod leave;
mod open;
mod outbox;
mod presence;
mod pusher;
mod queries;
mod slots;
mod socket;
mod state;
mod suspects;
mod tick;
mod together;
mod walk;
mod wheel;
mod window;
mod workers;
mod write;

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use broadgate_proto::{
    id::{ClientId, Incarnation},
    limits::{BATCH_COMMANDS_MAX, MAILBOX_MAX, PUSHER_ENTRIES_MAX, PUSHER_UNANSWERED_MAX},
    v1,
};
use bytes::Bytes;
use metrics::counter;
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot},
    task::LocalSet,
    time::MissedTickBehavior,
};

use self::{clock::Clock, state::Shard, workers::Link};
pub(crate) use self::{
    execute::{Done, Part},
    open::{Candidate, Newcomer},
    presence::Seat,
    pusher::{Tenant, signed_in_group},
    queries::{Stats, first_names},
    state::Handle,
    suspects::Trying,
    workers::{WorkerKey, shard_of_seq},
};
use crate::{
    actor::{self, Entry, Standings},
    admission::Ticket,
    client_port::{self, Port},
    connections::Connections,
    desk::Desk,
    orders::Order,
};

/// Slices in which a stopping shard lets its clients go.
const DRAIN_SLICE: Duration = Duration::from_millis(100);

/// Messages that one turn takes from the mailbox: a flood of commands must not keep the sockets from being
/// written to, and has to wait in the mailbox then.
const MESSAGES_PER_TURN: usize = 32;

/// Between two looks whether the gateway has started.
const DISPATCHER_WAIT: Duration = Duration::from_millis(20);

/// Commands of clients that wait to be placed; those beyond are dropped, and their clients are told.
const COMMANDS_MAX: usize = 1024;

/// What others ask of a shard.
pub(crate) enum Message {
    /// Carry these out in this order, and answer in the same if anybody wants that.
    Execute {
        orders: Vec<Arc<Order>>,
        reply: Option<oneshot::Sender<Vec<Done>>>,
    },
    WorkerUp(NewWorker),
    WorkerDown(WorkerKey),
    /// Send it nothing new; tell when nothing is unanswered.
    WorkerLeaving {
        key: WorkerKey,
        released: oneshot::Sender<()>,
    },
    Acks {
        key: WorkerKey,
        seqs: Vec<u64>,
    },
    Decision {
        key: WorkerKey,
        seq: u64,
        decision: v1::decision::Decision,
    },
    /// A connection that the one acceptor took.
    Connection {
        listener: usize,
        stream: std::net::TcpStream,
        ticket: Ticket,
    },
    /// The gateway has another incarnation: clients of the former one are let go.
    Reborn(Incarnation),
    /// The apps were replaced.
    Apps,
    /// Let all clients go within this time; tell when nothing is left to do.
    Drain {
        over: Duration,
        done: oneshot::Sender<()>,
    },
}

/// A worker that has attached.
#[derive(Clone)]
pub(crate) struct NewWorker {
    pub(crate) key: WorkerKey,
    pub(crate) incarnation: Incarnation,
    pub(crate) name: String,
    pub(crate) services: Vec<String>,
    /// Events that one shard may leave unanswered.
    pub(crate) credit: usize,
    /// Events as they are written on the wire.
    pub(crate) out: mpsc::Sender<Bytes>,
    pub(crate) trying: Trying,
}

/// A shard's mailbox.
#[derive(Clone)]
pub(crate) struct Mailbox(mpsc::Sender<Message>);

impl Mailbox {
    /// Waits while the mailbox is full. A shard that has ended takes nothing and answers nothing.
    pub(crate) async fn send(&self, message: Message) {
        let _ = self.0.send(message).await;
    }

    /// Waits until the shard has ended, which it does by a panic only while anybody can send to it.
    pub(crate) async fn ended(&self) {
        self.0.closed().await;
    }
}

/// What a shard is started with.
pub(crate) struct Start {
    pub(crate) index: u8,
    /// How many shards share the gateway.
    pub(crate) shards: u8,
    pub(crate) incarnation: Incarnation,
    pub(crate) name: String,
    pub(crate) ports: client_port::Shared,
    pub(crate) connections: Arc<Connections>,
    /// Where it says who is in what.
    pub(crate) standings: Arc<Standings>,
    pub(crate) wake_homes: Arc<Notify>,
    pub(crate) desk: Arc<Desk>,
    /// Its own listeners, by the index of the configured one.
    pub(crate) listeners: Vec<(usize, std::net::TcpListener)>,
}

/// Starts a shard's thread.
pub(crate) fn start(start: Start) -> anyhow::Result<(Mailbox, std::thread::JoinHandle<()>)> {
    let (mailbox, messages) = mpsc::channel(MAILBOX_MAX);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .with_context(|| format!("shard {} could not start its runtime", start.index))?;
    let thread = std::thread::Builder::new()
        .name(format!("shard-{}", start.index))
        .spawn(move || LocalSet::new().block_on(&runtime, run(start, messages)))
        .context("a shard's thread could not be started: is the limit on threads too low?")?;
    Ok((Mailbox(mailbox), thread))
}

/// The shard's loop. It runs as a local task like those of its clients, so that they take turns.
async fn run(start: Start, messages: mpsc::Receiver<Message>) {
    let mut shard = Shard::new(start.index, start.incarnation, &start.name, Arc::clone(&start.ports.config));
    shard.shards = start.shards;
    shard.homes = Some((start.standings, start.wake_homes));
    let (commands, queue) = mpsc::channel(COMMANDS_MAX);
    shard.commands = Some(commands);
    let (entries, entering) = mpsc::channel(PUSHER_ENTRIES_MAX);
    shard.entries = Some(entries);
    shard.desk = Arc::clone(&start.desk);
    let shard: Handle = Rc::new(RefCell::new(shard));
    tokio::task::spawn_local(command(Rc::downgrade(&shard), Arc::clone(&start.desk), queue));
    tokio::task::spawn_local(enter(start.desk, entering));
    let port = Rc::new(Port::new(Rc::clone(&shard), &start.ports, start.connections));
    for (index, listener) in start.listeners {
        let open = start.ports.open.clone();
        tokio::task::spawn_local(client_port::accept(Rc::clone(&port), index, listener, open));
    }
    // Listeners alone hold it.
    drop(start.ports);
    let turns = Turns { shard, port };
    // Ends when every mailbox handle is gone.
    let _ = tokio::task::spawn_local(turns.run(messages)).await;
}

/// Places what clients command, in its order; nobody waits for the answers, but they are bounded: while
/// too many are awaited, nothing is placed, and the clients are not read from.
async fn command(
    shard: Weak<RefCell<Shard>>,
    desk: Arc<Desk>,
    mut queue: mpsc::Receiver<(ClientId, v1::Command)>,
) {
    let unanswered = Arc::new(Semaphore::new(PUSHER_UNANSWERED_MAX));
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, BATCH_COMMANDS_MAX).await > 0 {
        let (clients, commands): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let permits = u32::try_from(commands.len()).unwrap_or(u32::MAX);
        // It is never closed.
        let Ok(answered) = Arc::clone(&unanswered).acquire_many_owned(permits).await else { return };
        if let Some(dispatcher) = desk.dispatcher() {
            let placed = dispatcher.place(commands).await;
            tokio::task::spawn_local(async move {
                drop(placed.answers().await);
                drop(answered);
            });
        } else {
            // The gateway starts or stops.
            counter!("broadgate_gateway_homes_drops_total", "reason" => "no_dispatcher")
                .increment(commands.len() as u64);
        }
        let Some(shard) = shard.upgrade() else { return };
        shard.borrow_mut().events_placed(&clients);
    }
}

/// Tells the homes of clients that have entered groups, in their order.
async fn enter(desk: Arc<Desk>, mut queue: mpsc::Receiver<Entry>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, BATCH_COMMANDS_MAX).await > 0 {
        // While the gateway starts, clients wait; when it has stopped, this task ends with the shard.
        let dispatcher = loop {
            match desk.dispatcher() {
                Some(dispatcher) => break dispatcher,
                None => tokio::time::sleep(DISPATCHER_WAIT).await,
            }
        };
        dispatcher.homes.tell(actor::Event::Enter(std::mem::take(&mut batch))).await;
    }
}

struct Turns {
    shard: Handle,
    port: Rc<Port>,
}

impl Turns {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let turn = Rc::clone(&self.shard.borrow().turn);
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
                        tracing::warn!(?pause, "a shard was not running: clients' deadlines are moved on");
                    }
                    self.shard.borrow_mut().tick(second);
                }
            }
            let mut shard = self.shard.borrow_mut();
            shard.end_turn();
            shard.tally.turn(begun.elapsed());
        }
    }

    fn handle(&mut self, message: Message) {
        let mut shard = self.shard.borrow_mut();
        match message {
            Message::Execute { orders, reply } => {
                let parts = shard.execute_all(&orders);
                let Some(reply) = reply else { return };
                // Before the answer: who has it may ask whether the homes know.
                shard.tell_standings();
                if parts.iter().any(|done| matches!(done.part, Part::Walk(_))) {
                    drop(shard);
                    let shard = Rc::clone(&self.shard);
                    tokio::task::spawn_local(walk::finish(shard, orders, parts, reply));
                    return;
                }
                // Whoever asked may have given up waiting.
                let _ = reply.send(parts);
            }
            Message::WorkerUp(worker) => {
                let services = worker.services.iter().map(|service| service.as_str().into()).collect();
                let name = worker.name.as_str().into();
                let link =
                    Link::new(worker.incarnation, name, services, worker.credit, worker.out, worker.trying);
                shard.worker_up(worker.key, link);
            }
            Message::WorkerDown(key) => shard.worker_down(key),
            Message::WorkerLeaving { key, released } => shard.worker_leaving(key, released),
            Message::Acks { key, seqs } => shard.answered(key, &seqs),
            Message::Decision { key, seq, decision } => shard.decided(key, seq, decision),
            Message::Connection { listener, stream, ticket } => {
                drop(shard);
                client_port::adopt(&self.port, listener, stream, ticket);
            }
            Message::Reborn(incarnation) => {
                shard.close_slice(1);
                shard.be_reborn(incarnation);
            }
            Message::Apps => shard.apps_changed(),
            Message::Drain { over, done } => {
                tokio::task::spawn_local(drain(Rc::clone(&self.shard), Rc::clone(&self.port), over, done));
            }
        }
    }
}

/// Lets clients go in equal slices, then waits for their farewells, for what workers still owe, and for
/// requests that are being answered.
async fn drain(shard: Handle, port: Rc<Port>, over: Duration, done: oneshot::Sender<()>) {
    let mut slices = usize::try_from(over.as_millis() / DRAIN_SLICE.as_millis()).unwrap_or(usize::MAX).max(1);
    while slices > 0 {
        shard.borrow_mut().close_slice(slices);
        slices -= 1;
        tokio::time::sleep(DRAIN_SLICE).await;
    }
    while shard.borrow().has_unanswered() || port.has_visitors() {
        // Those whose handshake was under way.
        shard.borrow_mut().close_slice(1);
        tokio::time::sleep(DRAIN_SLICE).await;
    }
    let _ = done.send(());
}
