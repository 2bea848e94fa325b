//! One pipelined stream of commands to one gateway.
//!
//! Callers put commands into a bounded queue. The stream to the gateway is polled by the
//! connection itself: it takes all that waits, numbers it, and hands it out as one batch, without
//! a task or channel of its own between a caller and the socket.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
};

use broadgate_proto::{
    limits,
    secret::Secret,
    v1::{Answer, AnswerBatch, Command, CommandBatch, answer, command, gateway_client::GatewayClient},
};
use futures_util::Stream;
use metrics::counter;
use slab::Slab;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};

use super::error::CommandError;
use crate::dial::{self, Backoff};

/// Commands of all callers that wait to be written to one gateway.
const QUEUE_MAX: usize = 1024;
/// Commands written to one gateway and not answered; beyond, no more are written.
const UNANSWERED_MAX: usize = 65_536;
/// A batch is not made larger than this, unless one command alone is.
const BATCH_BYTES_MAX: usize = limits::GRPC_MESSAGE_BYTES_MAX / 4;
/// One command: a quarter is left for the batch around it.
const COMMAND_BYTES_MAX: usize = limits::GRPC_MESSAGE_BYTES_MAX / 4 * 3;

/// What became of a command at this gateway.
#[derive(Debug)]
pub(crate) enum Reply {
    Answered(answer::Answer),
    /// Written; the stream broke before an answer came.
    Unanswered,
    /// Never written; here it is again.
    NotWritten(command::Command),
    /// Nothing was written, and nothing will be.
    Refused(CommandError),
}

struct Queued {
    command: command::Command,
    /// None if nobody waits for the answer.
    reply: Option<oneshot::Sender<Reply>>,
}

/// The handle of a link; it ends when this is dropped or [`Link::retire`]d.
pub(crate) struct Link {
    pub(crate) name: String,
    queue: mpsc::Sender<Queued>,
    flight: Arc<Flight>,
    channel: Channel,
    secret: Secret,
    start: Once,
    gone: CancellationToken,
}

const NEW: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

/// What callers, the stream and the supervisor share.
struct Flight {
    name: String,
    status: AtomicU8,
    state: Mutex<State>,
}

struct State {
    queue: mpsc::Receiver<Queued>,
    /// Taken from the queue, but too large for the batch that was being made.
    held: Option<Queued>,
    unanswered: Slab<Option<oneshot::Sender<Reply>>>,
    /// Which stream may take commands; those before it are dead.
    stream: u64,
    open: bool,
    /// Woken when the stream may go on.
    waker: Option<Waker>,
}

impl Link {
    /// A link that dials when its first command comes.
    pub(crate) fn new(name: &str, address: &str, secret: &Secret) -> Result<Self, String> {
        let (queue, receiver) = mpsc::channel(QUEUE_MAX);
        let state = State {
            queue: receiver,
            held: None,
            unanswered: Slab::new(),
            stream: 0,
            open: false,
            waker: None,
        };
        let flight = Flight { name: name.to_owned(), status: AtomicU8::new(NEW), state: Mutex::new(state) };
        Ok(Self {
            name: name.to_owned(),
            queue,
            flight: Arc::new(flight),
            channel: dial::channel(address)?,
            secret: secret.clone(),
            start: Once::new(),
            gone: CancellationToken::new(),
        })
    }

    /// The connection, shared with the other calls to this gateway.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Did the last try to open a stream fail, or the stream break?
    pub(crate) fn is_down(&self) -> bool {
        self.flight.status.load(Ordering::Relaxed) == DOWN
    }

    /// Is a stream open?
    pub(crate) fn is_up(&self) -> bool {
        self.flight.status.load(Ordering::Relaxed) == UP
    }

    /// Gives a command to the gateway and waits for what becomes of it.
    pub(crate) async fn call(&self, command: command::Command) -> Reply {
        self.start();
        let (sender, receiver) = oneshot::channel();
        match self.queue.send(Queued { command, reply: Some(sender) }).await {
            Ok(()) => receiver.await.unwrap_or(Reply::Unanswered),
            Err(back) => Reply::NotWritten(back.0.command),
        }
    }

    /// Gives a command to the gateway and does not wait for its answer.
    pub(crate) async fn post(&self, command: command::Command) -> Result<(), command::Command> {
        self.start();
        self.queue.send(Queued { command, reply: None }).await.map_err(|back| back.0.command)
    }

    /// The gateway has left the view: take no more, wait shortly for what is unanswered.
    pub(crate) fn retire(&self) {
        self.gone.cancel();
    }

    fn start(&self) {
        self.start.call_once(|| {
            let client = GatewayClient::with_interceptor(self.channel.clone(), self.secret.sender())
                .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX);
            let (flight, gone) = (self.flight.clone(), self.gone.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = supervise(&flight, client) => {}
                    () = retired(&flight, &gone) => {}
                }
                flight.end();
            });
        });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

type Client = GatewayClient<
    tonic::service::interceptor::InterceptedService<Channel, broadgate_proto::secret::SendSecret>,
>;

/// Keeps a stream open, for ever.
async fn supervise(flight: &Arc<Flight>, mut client: Client) {
    let mut backoff = Backoff::default();
    loop {
        let outgoing = Outgoing { flight: flight.clone(), stream: flight.next_stream() };
        match client.commands(outgoing).await {
            Ok(answers) => {
                backoff.reset();
                flight.opened();
                let why = read(flight, answers.into_inner()).await;
                counter!("cluster_link_breaks_total").increment(1);
                tracing::debug!(gateway = flight.name, why, "the command stream broke");
                flight.broken();
            }
            Err(status) => {
                tracing::debug!(gateway = flight.name, %status, "no command stream");
                flight.refused(&status);
            }
        }
        tokio::time::sleep(backoff.next(dial::random())).await;
    }
}

async fn read(flight: &Flight, mut answers: tonic::Streaming<AnswerBatch>) -> String {
    loop {
        match answers.message().await {
            Ok(Some(batch)) => flight.answered(batch),
            Ok(None) => return "the gateway ended it".to_owned(),
            Err(status) => return status.message().to_owned(),
        }
    }
}

/// Returns when the link is not wanted any more and what was written is answered, or is late.
async fn retired(flight: &Flight, gone: &CancellationToken) {
    gone.cancelled().await;
    flight.close();
    let late = tokio::time::Instant::now() + limits::LINK_TIMEOUT;
    while flight.lock().unanswered.iter().next().is_some() && tokio::time::Instant::now() < late {
        tokio::time::sleep(limits::LINK_TIMEOUT / 20).await;
    }
}

impl Flight {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_stream(&self) -> u64 {
        let mut state = self.lock();
        state.stream += 1;
        state.stream
    }

    fn opened(&self) {
        let mut state = self.lock();
        state.open = true;
        self.status.store(UP, Ordering::Relaxed);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// The stream is dead: what was written on it may have happened. What waits, waits on.
    fn broken(&self) {
        let mut state = self.lock();
        state.open = false;
        self.status.store(DOWN, Ordering::Relaxed);
        let lost: Vec<_> = state.unanswered.drain().collect();
        drop(state);
        if !lost.is_empty() {
            counter!("cluster_commands_failed_total", "reason" => "unanswered").increment(lost.len() as u64);
        }
        for reply in lost.into_iter().flatten() {
            let _ = reply.send(Reply::Unanswered);
        }
    }

    /// No stream could be opened: what waits goes back to its callers, who may know another way.
    fn refused(&self, status: &Status) {
        let fatal = matches!(status.code(), tonic::Code::Unauthenticated | tonic::Code::Unimplemented);
        self.status.store(DOWN, Ordering::Relaxed);
        for Queued { command, reply } in self.lock().take_queue() {
            counter!("cluster_commands_failed_total", "reason" => "not_written").increment(1);
            let Some(reply) = reply else { continue };
            let _ = reply.send(if fatal {
                Reply::Refused(CommandError::from_status(status))
            } else {
                Reply::NotWritten(command)
            });
        }
    }

    fn answered(&self, batch: AnswerBatch) {
        let mut state = self.lock();
        for Answer { id, answer } in batch.answers {
            let waiting = usize::try_from(id).ok().and_then(|key| state.unanswered.try_remove(key));
            match (waiting, answer) {
                (Some(Some(reply)), Some(answer)) => drop(reply.send(Reply::Answered(answer))),
                (Some(None), Some(answer::Answer::Error(error))) => {
                    counter!("cluster_commands_failed_total", "reason" => "refused").increment(1);
                    tracing::debug!(gateway = self.name, error.message, "a posted command was refused");
                }
                // An answer that nobody asked for, or of a kind that this version does not know:
                // its caller, if there is one, hears that there was no answer.
                _ => {}
            }
        }
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    fn close(&self) {
        let mut state = self.lock();
        state.queue.close();
        let back = state.take_queue();
        drop(state);
        for Queued { command, reply } in back {
            if let Some(reply) = reply {
                let _ = reply.send(Reply::NotWritten(command));
            }
        }
    }

    fn end(&self) {
        self.close();
        self.next_stream();
        self.broken();
    }
}

impl State {
    fn take_queue(&mut self) -> Vec<Queued> {
        let mut taken: Vec<_> = self.held.take().into_iter().collect();
        while let Ok(queued) = self.queue.try_recv() {
            taken.push(queued);
        }
        taken
    }

    fn next_queued(&mut self, cx: &mut Context<'_>) -> Poll<Option<Queued>> {
        match self.held.take() {
            Some(held) => Poll::Ready(Some(held)),
            None => self.queue.poll_recv(cx),
        }
    }

    fn batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<CommandBatch>> {
        let mut commands = Vec::new();
        let mut bytes = 0;
        while commands.len() < limits::BATCH_COMMANDS_MAX && bytes < BATCH_BYTES_MAX {
            let Queued { command, reply } = match self.next_queued(cx) {
                Poll::Ready(Some(queued)) => queued,
                // Pending, or no more will come: still the stream must not end before its answers.
                _ => break,
            };
            // Its caller has given up: it must not happen behind their back.
            if reply.as_ref().is_some_and(oneshot::Sender::is_closed) {
                counter!("cluster_commands_failed_total", "reason" => "given_up").increment(1);
                continue;
            }
            let size = command.encoded_len();
            if size > COMMAND_BYTES_MAX {
                let sentence =
                    format!("the command has {size} bytes: at most {COMMAND_BYTES_MAX} are allowed");
                if let Some(reply) = reply {
                    let _ = reply.send(Reply::Refused(CommandError::invalid(sentence)));
                }
                continue;
            }
            if bytes + size > BATCH_BYTES_MAX && !commands.is_empty() {
                self.held = Some(Queued { command, reply });
                break;
            }
            bytes += size;
            let id = self.unanswered.insert(reply) as u64;
            commands.push(Command { id, command: Some(command), after: None });
        }
        if commands.is_empty() { Poll::Pending } else { Poll::Ready(Some(CommandBatch { commands })) }
    }
}

/// What the connection writes.
struct Outgoing {
    flight: Arc<Flight>,
    stream: u64,
}

impl Stream for Outgoing {
    type Item = CommandBatch;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<CommandBatch>> {
        let mut state = self.flight.lock();
        if state.stream != self.stream {
            return Poll::Ready(None);
        }
        // Nothing is written before the gateway has agreed to the stream, so that what it refuses
        // is known not to have happened.
        if !state.open || state.unanswered.len() >= UNANSWERED_MAX {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.batch(cx)
    }
}
