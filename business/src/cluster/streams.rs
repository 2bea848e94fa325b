//! A stream to every gateway of the view, kept open: what watches read.

use std::{collections::HashMap, future::Future, sync::Arc};

use broadgate_proto::{
    id::Incarnation,
    limits,
    secret::SendSecret,
    v1::{View, gateway_client::GatewayClient},
    view,
};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Response, Status, Streaming};

use crate::{
    cluster::{error::CommandError, handle::Cluster},
    dial::{self, Backoff},
};

/// Events that streams have brought and the watch has not taken; the rest waits in the gateways.
const EVENTS_QUEUED_MAX: usize = 1;

pub(super) type GatewayStub =
    GatewayClient<tonic::service::interceptor::InterceptedService<tonic::transport::Channel, SendSecret>>;

/// The call that opens a stream at every gateway.
pub(super) trait StreamRequest: Clone + Send + Sync + 'static {
    /// A message of the stream.
    type Item: Send + 'static;

    fn ask(
        self,
        gateway: Incarnation,
        client: &mut GatewayStub,
    ) -> impl Future<Output = Result<Response<Streaming<Self::Item>>, Status>> + Send;
}

/// An event of the stream to a gateway.
#[derive(Debug)]
pub(super) enum StreamEvent<T> {
    /// Events come on a new stream from now on.
    Opened,
    Item(T),
    /// Its stream has ended; it is opened again.
    Broke,
    /// The gateway refuses for good.
    Refused(CommandError),
    /// It has left the view, and its stream has ended. Only after [`Streams::finish`].
    Gone,
}

/// The streams to all gateways, and their events.
pub(super) struct Streams<A: StreamRequest> {
    // Its views go on for as long as there is one.
    cluster: Cluster,
    request: A,
    open: HashMap<Incarnation, StreamHandle>,
    events: mpsc::Sender<(Incarnation, StreamEvent<A::Item>)>,
    incoming: mpsc::Receiver<(Incarnation, StreamEvent<A::Item>)>,
}

/// The handle of a stream, which ends when this is dropped.
struct StreamHandle {
    again: Arc<Notify>,
    finish: CancellationToken,
    _running: DropGuard,
}

impl<A: StreamRequest> Streams<A> {
    pub(super) fn new(cluster: Cluster, request: A) -> Self {
        let (events, incoming) = mpsc::channel(EVENTS_QUEUED_MAX);
        Self { cluster, request, open: HashMap::new(), events, incoming }
    }

    /// A stream to every gateway of the view, in whatever state: also a leaving one has events. Returns
    /// the gateways that are not in the view: [`Self::end`] or [`Self::finish`] theirs.
    pub(super) fn follow(&mut self, view: &View) -> Vec<Incarnation> {
        let mut gone: Vec<_> = self.open.keys().copied().collect();
        for gateway in view::gateways(view).filter(|gateway| !gateway.address.is_empty()) {
            let Ok(incarnation) = gateway.incarnation.parse::<Incarnation>() else { continue };
            gone.retain(|other| *other != incarnation);
            if self.open.contains_key(&incarnation) {
                continue;
            }
            match self.open(incarnation, &gateway.name, &gateway.address) {
                Ok(stream) => drop(self.open.insert(incarnation, stream)),
                Err(why) => tracing::warn!(gateway = gateway.name, why, "cannot watch a gateway"),
            }
        }
        gone
    }

    /// The next event. Cancel safe: nothing is lost.
    pub(super) async fn next(&mut self) -> Option<(Incarnation, StreamEvent<A::Item>)> {
        self.incoming.recv().await
    }

    /// Opens the stream again, so that the gateway sends the whole state.
    pub(super) fn reopen(&self, gateway: Incarnation) {
        self.open.get(&gateway).inspect(|stream| stream.again.notify_one());
    }

    /// Drops the stream.
    pub(super) fn end(&mut self, gateway: Incarnation) {
        self.open.remove(&gateway);
    }

    /// Does not open the stream again. Events that the gateway sent before it left still count, if they come soon.
    pub(super) fn finish(&self, gateway: Incarnation) {
        self.open.get(&gateway).inspect(|stream| stream.finish.cancel());
    }

    fn open(&self, gateway: Incarnation, name: &str, address: &str) -> Result<StreamHandle, String> {
        // A connection of its own: while it is not read, it must not hold up commands.
        let credentials = self.cluster.credentials();
        let channel = dial::channel(address, credentials.tls.as_ref())?;
        let client = GatewayClient::with_interceptor(channel, credentials.sender())
            // All groups of a gateway may come as one message.
            .max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX);
        let (again, finish) = (Arc::new(Notify::new()), CancellationToken::new());
        let reader = StreamReader {
            gateway,
            name: name.to_owned(),
            events: self.events.clone(),
            again: again.clone(),
            finish: finish.clone(),
        };
        let ended = CancellationToken::new();
        let (reading, stop) = (reader.run(client, self.request.clone()), ended.clone());
        let events = self.events.clone();
        broadgate_tasks::spawn("watched gateway", async move {
            let guarded = async {
                if broadgate_tasks::contain("watched gateway", reading).await.is_none() {
                    let status = Status::internal("watching this gateway panicked: see the log");
                    let refused = StreamEvent::Refused(CommandError::from_status(&status));
                    // The receiver may have been dropped.
                    let _ = events.send((gateway, refused)).await;
                }
            };
            tokio::select! {
                () = guarded => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(StreamHandle { again, finish, _running: ended.drop_guard() })
    }
}

/// Reads one stream and forwards its events.
struct StreamReader<T> {
    gateway: Incarnation,
    name: String,
    events: mpsc::Sender<(Incarnation, StreamEvent<T>)>,
    again: Arc<Notify>,
    finish: CancellationToken,
}

impl<T: Send + 'static> StreamReader<T> {
    async fn report(&self, events: StreamEvent<T>) {
        // A receiver that was dropped ends this stream.
        let _ = self.events.send((self.gateway, events)).await;
    }

    async fn run<A: StreamRequest<Item = T>>(self, client: GatewayStub, request: A) {
        let late = async {
            self.finish.cancelled().await;
            tokio::time::sleep(limits::LINK_TIMEOUT).await;
        };
        tokio::select! {
            () = self.keep_open(client, request) => {}
            () = late => {}
        }
        self.finish.cancelled().await;
        self.report(StreamEvent::Gone).await;
    }

    /// Until the gateway refuses for good, or its stream ends and is the last.
    async fn keep_open<A: StreamRequest<Item = T>>(&self, mut client: GatewayStub, request: A) {
        let mut backoff = Backoff::default();
        let gateway = self.gateway;
        loop {
            match request.clone().ask(gateway, &mut client).await {
                Ok(response) => {
                    self.report(StreamEvent::Opened).await;
                    tokio::select! {
                        end = self.read(response.into_inner()) => {
                            backoff.reset();
                            tracing::debug!(%gateway, ?end, "the stream of a watched gateway broke");
                        }
                        // Each time later, until the gateway knows as much as we do.
                        () = self.again.notified() => tracing::debug!(%gateway, "watching a gateway again"),
                    }
                    self.report(StreamEvent::Broke).await;
                }
                Err(status) if is_final(&status) => {
                    return self.report(StreamEvent::Refused(self.refusal(&status))).await;
                }
                Err(status) => tracing::debug!(%gateway, %status, "cannot watch a gateway"),
            }
            tokio::select! {
                biased;
                () = self.finish.cancelled() => return,
                () = tokio::time::sleep(backoff.next(dial::random())) => {}
            }
        }
    }

    async fn read(&self, mut messages: Streaming<T>) -> Result<(), Status> {
        while let Some(message) = messages.message().await? {
            self.report(StreamEvent::Item(message)).await;
        }
        Ok(())
    }

    fn refusal(&self, status: &Status) -> CommandError {
        if status.code() == Code::Unimplemented && status.message().is_empty() {
            let name = &self.name;
            return CommandError::from_status(&Status::unimplemented(format!(
                "gateway {name} does not know this watch: it is older than this program, update it first"
            )));
        }
        CommandError::from_status(status)
    }
}

/// Repeating would not help.
fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument | Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented
    )
}
