//! One pipelined stream of commands to one gateway: the handle, and what keeps the stream open.
//!
//! When the stream breaks, what was written and all that has an order comes back at once: its callers
//! decide in which order, and by which gateway, it is repeated. What has no order and was not written
//! waits for the next stream; if none can be opened, that comes back, too. What nobody waits for is
//! dropped instead, and counted.

use std::sync::{Arc, Once};

use broadgate_proto::{
    COMMAND_BYTES_HEADER, limits,
    v1::{AnswerBatch, command, gateway_client::GatewayClient},
};
use broadgate_tls::Credentials;
use metrics::counter;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

pub(super) use super::flight::{CallReply, Run};
use super::{
    flight::{CallsInFlight, OutgoingCall, QueuedCall, Status},
    marks::EpochMark,
};
use crate::dial::{self, Backoff};

/// Commands of all callers that wait to be written to one gateway.
const QUEUE_MAX: usize = 1024;

/// A place in the queue to a gateway, for one command.
pub(crate) struct QueueSlot<'a> {
    permit: mpsc::Permit<'a, QueuedCall>,
    run: Run,
}

impl QueueSlot<'_> {
    /// The stream that is there now, or will be next.
    pub(crate) const fn run(&self) -> Run {
        self.run
    }

    /// Gives a command to the gateway, by whichever stream; what becomes of it will be heard.
    pub(crate) fn call(self, command: command::Command) -> oneshot::Receiver<CallReply> {
        let (reply, receiver) = oneshot::channel();
        self.permit.send(QueuedCall { command, reply: Some(reply), run: None });
        receiver
    }

    /// Gives a command that the gateway does not answer.
    pub(crate) fn post(self, command: command::Command) {
        self.permit.send(QueuedCall { command, reply: None, run: None });
    }

    /// As [`Place::call`], but by this stream only: it comes back when that ends before.
    pub(crate) fn call_in_run(self, command: command::Command) -> oneshot::Receiver<CallReply> {
        let (reply, receiver) = oneshot::channel();
        self.permit.send(QueuedCall { command, reply: Some(reply), run: Some(self.run) });
        receiver
    }

    /// As [`Place::post`], but by this stream only.
    pub(crate) fn post_in_run(self, command: command::Command) {
        self.permit.send(QueuedCall { command, reply: None, run: Some(self.run) });
    }
}

/// The handle of a link; it ends when this is dropped or [`CallerLink::retire`]d.
pub(crate) struct CallerLink {
    pub(crate) name: String,
    queue: mpsc::Sender<QueuedCall>,
    flight: Arc<CallsInFlight>,
    channel: Channel,
    credentials: Credentials,
    start: Once,
    gone: CancellationToken,
}

impl CallerLink {
    /// A link that dials when its first command comes.
    pub(crate) fn new(
        name: &str,
        address: &str,
        credentials: &Credentials,
        seen: &Arc<EpochMark>,
    ) -> Result<Self, String> {
        let (queue, receiver) = mpsc::channel(QUEUE_MAX);
        Ok(Self {
            name: name.to_owned(),
            queue,
            flight: Arc::new(CallsInFlight::new(name, receiver, seen.clone())),
            channel: dial::channel(address, credentials.tls.as_ref())?,
            credentials: credentials.clone(),
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
        self.flight.is(Status::Down)
    }

    /// Is a stream open?
    pub(crate) fn is_up(&self) -> bool {
        self.flight.is(Status::Up)
    }

    /// A place in the queue; none if it is full, or the link is retired.
    pub(crate) fn try_place(&self) -> Option<QueueSlot<'_>> {
        self.start();
        self.queue.try_reserve().ok().map(|permit| self.at(permit))
    }

    /// A place in the queue, as soon as there is one; none if the link is retired.
    pub(crate) async fn place(&self) -> Option<QueueSlot<'_>> {
        self.start();
        self.queue.reserve().await.ok().map(|permit| self.at(permit))
    }

    fn at<'a>(&self, permit: mpsc::Permit<'a, QueuedCall>) -> QueueSlot<'a> {
        QueueSlot { permit, run: self.flight.run() }
    }

    /// The gateway has left the view: take no more, wait shortly for what is unanswered.
    pub(crate) fn retire(&self) {
        self.gone.cancel();
    }

    fn start(&self) {
        self.start.call_once(|| {
            let client = GatewayClient::with_interceptor(self.channel.clone(), self.credentials.sender())
                .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_HIGHEST);
            let (flight, gone) = (self.flight.clone(), self.gone.clone());
            broadgate_tasks::spawn("command stream", async move {
                tokio::select! {
                    () = supervise_again(&flight, client) => {}
                    () = retired(&flight, &gone) => {}
                }
                flight.end().await;
            });
        });
    }
}

impl Drop for CallerLink {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

type CallsStub = GatewayClient<
    tonic::service::interceptor::InterceptedService<Channel, broadgate_proto::secret::SendSecret>,
>;

/// A panic ends one stream: what it had to answer is given back, and the next one is opened.
async fn supervise_again(flight: &Arc<CallsInFlight>, client: CallsStub) {
    let mut backoff = Backoff::default();
    while broadgate_tasks::contain("command stream", supervise(flight, client.clone())).await.is_none() {
        flight.broken();
        tokio::time::sleep(backoff.next(dial::random())).await;
    }
}

/// Keeps a stream open, until the link is retired.
async fn supervise(flight: &Arc<CallsInFlight>, mut client: CallsStub) {
    let mut backoff = Backoff::default();
    loop {
        let outgoing = OutgoingCall::new(flight);
        match client.commands(outgoing).await {
            Ok(answers) => {
                backoff.reset();
                let max = answers.metadata().get(COMMAND_BYTES_HEADER);
                flight.opened(max.and_then(|max| max.to_str().ok()?.parse().ok()));
                let why = read(flight, answers.into_inner()).await;
                if flight.has_ended() {
                    return;
                }
                counter!("broadgate_cluster_link_breaks_total").increment(1);
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

async fn read(flight: &CallsInFlight, mut answers: tonic::Streaming<AnswerBatch>) -> String {
    loop {
        match answers.message().await {
            Ok(Some(batch)) => flight.answered(batch),
            Ok(None) => return "the gateway ended it".to_owned(),
            Err(status) => return status.message().to_owned(),
        }
    }
}

/// Returns when the link is not wanted any more and what was given is written and answered, or is late.
async fn retired(flight: &CallsInFlight, gone: &CancellationToken) {
    gone.cancelled().await;
    flight.close();
    let late = tokio::time::Instant::now() + limits::LINK_TIMEOUT;
    while flight.is_waiting() && tokio::time::Instant::now() < late {
        tokio::time::sleep(limits::LINK_TIMEOUT / 20).await;
    }
    // What nobody answers has been read when the gateway ends its side, too.
    if flight.end_writing() {
        tokio::time::sleep_until(late).await;
    }
}
