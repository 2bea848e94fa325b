//! What is under way to one gateway.
//!
//! Callers put commands into a bounded queue. The stream to the gateway is polled by the
//! connection itself: it takes all that waits, numbers it, and hands it out as one batch, without
//! a task or channel of its own between a caller and the socket.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use broadgate_proto::{
    limits,
    v1::{Answer, AnswerBatch, Command, CommandBatch, Epoch, answer, command},
};
use futures_util::Stream;
use metrics::counter;
use slab::Slab;
use tokio::sync::{mpsc, oneshot};

use super::{
    error::CommandError,
    marks::{self, EpochMark},
};

/// Commands written to one gateway and not answered; beyond, no more are written.
const UNANSWERED_MAX: usize = 65_536;
/// A batch is not made larger than this, unless one command alone is.
const BATCH_BYTES_MAX: usize = limits::GRPC_MESSAGE_BYTES_MAX / 4;
/// One command to a gateway that does not say what it takes: a quarter is left for the batch around it.
const COMMAND_BYTES_MAX: usize = limits::GRPC_MESSAGE_BYTES_MAX / 4 * 3;
/// What is not answered has no number of its own, what is has one from here on.
const NO_ID: u64 = 0;
const FIRST_ID: u64 = 1;

/// What became of a command at this gateway.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every reply is an answer: a box would cost each of them"
)]
pub(crate) enum CallReply {
    Answered(answer::Answer),
    /// Written; the stream broke before an answer came.
    Unanswered,
    /// Never written: it has not happened.
    NotWritten,
    /// Nothing was written, and nothing will be.
    Refused(CommandError),
}

/// One stream, from the end of the one before it to its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run(u64);

impl Run {
    /// Another than any of any link before.
    fn next() -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        Self(RUNS.fetch_add(1, Ordering::Relaxed))
    }
}

pub(super) struct QueuedCall {
    pub(super) command: command::Command,
    /// None if nobody waits for the answer: the gateway sends none.
    pub(super) reply: Option<oneshot::Sender<CallReply>>,
    /// The only stream that may have it; none if every one may.
    pub(super) run: Option<Run>,
}

impl QueuedCall {
    /// It will not be written.
    fn give_back(self, reply: CallReply, reason: &'static str) {
        counter!("broadgate_cluster_commands_failed_total", "reason" => reason).increment(1);
        if let Some(waiting) = self.reply {
            let _ = waiting.send(reply);
        }
    }
}

/// How the link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// Nothing was tried yet.
    New,
    Up,
    /// The last try to open a stream failed, or the stream broke.
    Down,
}

/// What callers, the stream and the supervisor share.
pub(super) struct CallsInFlight {
    pub(super) name: String,
    status: AtomicU8,
    /// A copy of the state's, to be read without the lock.
    run: AtomicU64,
    seen: Arc<EpochMark>,
    state: Mutex<FlightState>,
}

struct FlightState {
    queue: mpsc::Receiver<QueuedCall>,
    /// Taken from the queue, but not written yet.
    unwritten: VecDeque<QueuedCall>,
    unanswered: Slab<oneshot::Sender<CallReply>>,
    /// Which stream may take commands; those before it are dead.
    stream: u64,
    /// What one command may have, as the gateway says.
    command_bytes_max: usize,
    /// What was queued for another run goes back.
    run: Run,
    open: bool,
    /// All has been written that will be: the gateway may end its answers, too.
    ended: bool,
    /// Woken when the stream may go on.
    waker: Option<Waker>,
}

impl CallsInFlight {
    pub(super) fn new(name: &str, queue: mpsc::Receiver<QueuedCall>, seen: Arc<EpochMark>) -> Self {
        let run = Run::next();
        let state = FlightState {
            queue,
            unwritten: VecDeque::new(),
            unanswered: Slab::new(),
            stream: 0,
            command_bytes_max: COMMAND_BYTES_MAX,
            run,
            open: false,
            ended: false,
            waker: None,
        };
        Self {
            name: name.to_owned(),
            status: AtomicU8::new(Status::New as u8),
            run: AtomicU64::new(run.0),
            seen,
            state: Mutex::new(state),
        }
    }

    pub(super) fn is(&self, status: Status) -> bool {
        self.status.load(Ordering::Relaxed) == status as u8
    }

    /// For which stream a command is given now.
    pub(super) fn run(&self) -> Run {
        Run(self.run.load(Ordering::Acquire))
    }

    /// Has something been written and not been answered, or not been written?
    pub(super) fn is_waiting(&self) -> bool {
        let state = self.lock();
        !(state.unanswered.is_empty() && state.unwritten.is_empty())
    }

    pub(super) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    fn lock(&self) -> MutexGuard<'_, FlightState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_stream(&self) -> u64 {
        let mut state = self.lock();
        state.stream += 1;
        state.stream
    }

    pub(super) fn opened(&self, command_bytes_max: Option<usize>) {
        let mut state = self.lock();
        state.command_bytes_max = command_bytes_max.unwrap_or(COMMAND_BYTES_MAX);
        state.open = true;
        self.status.store(Status::Up as u8, Ordering::Relaxed);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// The stream is dead: what was written on it may have happened. What may go by any other waits.
    pub(super) fn broken(&self) {
        let (lost, back) = {
            let mut state = self.lock();
            state.open = false;
            self.end_run(&mut state);
            let taken = state.take_queue().into_iter();
            let (waits, back): (Vec<_>, Vec<_>) = taken.partition(|queued| queued.run.is_none());
            state.unwritten.extend(waits);
            (state.unanswered.drain().collect::<Vec<_>>(), back)
        };
        if !lost.is_empty() {
            counter!("broadgate_cluster_commands_failed_total", "reason" => "unanswered")
                .increment(lost.len() as u64);
        }
        for reply in lost {
            let _ = reply.send(CallReply::Unanswered);
        }
        for queued in back {
            queued.give_back(CallReply::NotWritten, "not_written");
        }
    }

    /// No stream could be opened: what waits goes back to its callers, who may know another way.
    pub(super) fn refused(&self, status: &tonic::Status) {
        use tonic::Code;
        let fatal =
            matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented);
        let back = {
            let mut state = self.lock();
            self.end_run(&mut state);
            state.take_queue()
        };
        for queued in back {
            let reply = if fatal {
                CallReply::Refused(CommandError::from_status(status))
            } else {
                CallReply::NotWritten
            };
            queued.give_back(reply, "not_written");
        }
    }

    /// What was given to this run only, and is still being given, comes back.
    fn end_run(&self, state: &mut FlightState) {
        self.status.store(Status::Down as u8, Ordering::Relaxed);
        state.run = Run::next();
        self.run.store(state.run.0, Ordering::Release);
    }

    pub(super) fn answered(&self, batch: AnswerBatch) {
        // Before any caller goes on: its next command comes after what it has heard.
        for answer in &batch.answers {
            self.seen.note(marks::coverage(answer));
        }
        let mut state = self.lock();
        for Answer { id, answer } in batch.answers {
            let key = id.checked_sub(FIRST_ID).and_then(|key| usize::try_from(key).ok());
            let waiting = key.and_then(|key| state.unanswered.try_remove(key));
            let Some(reply) = waiting else {
                if let (NO_ID, Some(answer::Answer::Error(error))) = (id, answer) {
                    counter!("broadgate_cluster_commands_failed_total", "reason" => "refused").increment(1);
                    tracing::debug!(
                        gateway = self.name,
                        error.message,
                        "a gateway refused a command sent without a receipt"
                    );
                }
                continue;
            };
            let _ = reply.send(match answer {
                Some(answer) => CallReply::Answered(answer),
                None => CallReply::Refused(CommandError::unexpected()),
            });
        }
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Nothing is taken any more. What was posted is still written, if there is a stream to write it to;
    /// everything else comes back.
    pub(super) fn close(&self) {
        let back = {
            let mut state = self.lock();
            state.queue.close();
            let (open, run) = (state.open, state.run);
            let taken = state.take_queue().into_iter();
            let (last, back): (Vec<_>, Vec<_>) = taken.partition(|queued| {
                open && queued.reply.is_none() && queued.run.is_none_or(|only| only == run)
            });
            state.unwritten.extend(last);
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
            back
        };
        for queued in back {
            queued.give_back(CallReply::NotWritten, "not_written");
        }
    }

    /// Tells the gateway that nothing more comes; false if there is no stream to tell it by.
    pub(super) fn end_writing(&self) -> bool {
        let mut state = self.lock();
        state.ended = state.open;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        state.ended
    }

    /// Nothing is taken any more, and everything comes back.
    pub(super) async fn end(&self) {
        self.next_stream();
        self.broken();
        self.close();
        // Who had a place in the queue just before may still put a command there.
        while let Some(queued) = poll_fn(|cx| self.lock().queue.poll_recv(cx)).await {
            queued.give_back(CallReply::NotWritten, "not_written");
        }
    }
}

impl FlightState {
    fn take_queue(&mut self) -> Vec<QueuedCall> {
        let mut taken = Vec::from(std::mem::take(&mut self.unwritten));
        while let Ok(queued) = self.queue.try_recv() {
            taken.push(queued);
        }
        taken
    }

    fn next_queued(&mut self, cx: &mut Context<'_>) -> Poll<Option<QueuedCall>> {
        match self.unwritten.pop_front() {
            Some(unwritten) => Poll::Ready(Some(unwritten)),
            None => self.queue.poll_recv(cx),
        }
    }

    fn batch(&mut self, cx: &mut Context<'_>, after: Option<Epoch>) -> Poll<Option<CommandBatch>> {
        let mut commands = Vec::new();
        let mut bytes = 0;
        while commands.len() < limits::BATCH_COMMANDS_MAX && bytes < BATCH_BYTES_MAX {
            let queued = match self.next_queued(cx) {
                Poll::Ready(Some(queued)) => queued,
                Poll::Pending => break,
                // No more will come: still the stream must not end before its answers.
                Poll::Ready(None) => {
                    self.waker = Some(cx.waker().clone());
                    break;
                }
            };
            // It was given to the stream before this one: what was written there comes first.
            if queued.run.is_some_and(|run| run != self.run) {
                queued.give_back(CallReply::NotWritten, "not_written");
                continue;
            }
            // Its caller has given up: it must not happen behind their back.
            if queued.reply.as_ref().is_some_and(oneshot::Sender::is_closed) {
                queued.give_back(CallReply::NotWritten, "given_up");
                continue;
            }
            let size = queued.command.encoded_len();
            let max = self.command_bytes_max;
            if size > max {
                let sentence = format!("the command has {size} bytes: at most {max} are allowed");
                queued.give_back(CallReply::Refused(CommandError::invalid(sentence)), "too_large");
                continue;
            }
            if bytes + size > BATCH_BYTES_MAX && !commands.is_empty() {
                self.unwritten.push_front(queued);
                break;
            }
            bytes += size;
            let id = match queued.reply {
                Some(reply) => self.unanswered.insert(reply) as u64 + FIRST_ID,
                None => NO_ID,
            };
            commands.push(Command { id, command: Some(queued.command), after });
        }
        if commands.is_empty() { Poll::Pending } else { Poll::Ready(Some(CommandBatch { commands })) }
    }
}

/// What the connection writes.
pub(super) struct OutgoingCall {
    flight: Arc<CallsInFlight>,
    stream: u64,
}

impl OutgoingCall {
    /// What is written from now on; every stream before is dead.
    pub(super) fn new(flight: &Arc<CallsInFlight>) -> Self {
        Self { flight: flight.clone(), stream: flight.next_stream() }
    }
}

impl Stream for OutgoingCall {
    type Item = CommandBatch;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<CommandBatch>> {
        let mut state = self.flight.lock();
        if state.stream != self.stream || state.ended {
            return Poll::Ready(None);
        }
        // Nothing is written before the gateway has agreed to the stream, so that what it refuses
        // is known not to have happened.
        if !state.open || state.unanswered.len() >= UNANSWERED_MAX {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.batch(cx, self.flight.seen.after())
    }
}
