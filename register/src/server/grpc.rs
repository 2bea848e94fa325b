//! The register's gRPC service: turns calls into the hub's requests, and nothing else.

use std::{net::IpAddr, pin::Pin, time::Duration};

use broadgate_proto::{
    limits::{NAME_BYTES_MAX, ORDER_GIVER_BYTES_MAX},
    said::{self, HOW_HEADER, NOTE_HEADER},
    secret::WORKER_HEADER,
    v1::{
        DrainReply, DrainRequest, JoinReply, JoinRequest, LeaveReply, LeaveRequest, MemberState, OrderGiver,
        StepDownReply, StepDownRequest, View, WatchRequest, join_request, register_server::Register,
    },
};
use futures_util::{Stream, StreamExt as _};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::server::TcpConnectInfo};

use super::{
    check::PeerOrigin,
    hub::{self, StreamEnds},
    step::{ConnectionId, Input, OperatorAnswer, RegisterRefusal},
};

/// From the opening of a Join stream to its Hello.
const HELLO_TIME_MAX: Duration = Duration::from_secs(5);

type JoinReplies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service's side of the hub.
pub(super) struct Service {
    pub hub: mpsc::Sender<hub::HubRequest>,
    /// What every caller has shown.
    pub shown: &'static str,
}

impl Service {
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> hub::HubRequest) -> Result<T, Status> {
        let (sender, answer) = oneshot::channel();
        self.hub.send(request(sender)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }

    async fn command(&self, input: Input) -> Result<OperatorAnswer, Status> {
        let answer: Result<OperatorAnswer, RegisterRefusal> =
            self.ask(|answer| hub::HubRequest::Command(input, answer)).await?;
        answer.map_err(Status::from)
    }
}

#[tonic::async_trait]
impl Register for Service {
    type JoinStream = JoinReplies<JoinReply>;
    type WatchStream = JoinReplies<View>;

    async fn join(
        &self,
        request: Request<Streaming<JoinRequest>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let origin = origin(&request);
        let opened = self.ask(|opened| hub::HubRequest::Open { watch: false, opened }).await??;
        let StreamEnds { connection, outgoing, closed } = opened;
        let hub = self.hub.clone();
        broadgate_tasks::spawn("member's stream", async move {
            // Also after a panic the hub hears that the connection is closed.
            let read = read(&hub, connection, origin, request.into_inner());
            let read = broadgate_tasks::contain("member's stream", read);
            // The hub's word counts first: what a dismissed connection still says goes nowhere.
            tokio::select! {
                biased;
                () = closed.cancelled() => {}
                _ = read => {}
            }
            let _ = hub.send(hub::HubRequest::Closed(connection)).await;
        });
        let replies = ReceiverStream::new(outgoing).map(|next| next.map(hub::StreamItem::into_reply));
        Ok(Response::new(Box::pin(replies)))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known_term = request.into_inner().known_term;
        let opened = self.ask(|opened| hub::HubRequest::Open { watch: true, opened }).await??;
        let StreamEnds { connection, outgoing, closed } = opened;
        let hub = self.hub.clone();
        let gone = WatchEnd { hub, connection, _closed: closed };
        let views = ReceiverStream::new(outgoing).filter_map(move |next| {
            let _alive = &gone;
            std::future::ready(next.map(|item| item.into_view(known_term)).transpose())
        });
        Ok(Response::new(Box::pin(views)))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<LeaveReply>, Status> {
        let OrderGiver { who, how, from, note } = giver(&request, self.shown)?;
        let incarnation = request.into_inner().incarnation;
        let answer = self.command(Input::Leave { incarnation: incarnation.clone() }).await?;
        tracing::info!(incarnation, who, how, from, note, "a member was removed by an operator");
        Ok(Response::new(LeaveReply { epoch: Some(answer.epoch) }))
    }

    async fn step_down(&self, request: Request<StepDownRequest>) -> Result<Response<StepDownReply>, Status> {
        let StepDownRequest { epoch, register } = request.into_inner();
        let epoch = epoch.unwrap_or_default();
        let answer = self.command(Input::StepDown { epoch, register }).await?;
        Ok(Response::new(StepDownReply { epoch: Some(answer.epoch) }))
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<DrainReply>, Status> {
        let own = giver(&request, self.shown)?;
        let DrainRequest { gateway, by } = request.into_inner();
        if by.as_ref().is_some_and(|by| by.encoded_len() > ORDER_GIVER_BYTES_MAX) {
            let sentence = format!("`by` has more than {ORDER_GIVER_BYTES_MAX} bytes");
            return Err(Status::invalid_argument(sentence));
        }
        // The port's check has let in only what may do everything, and gateways that say for whom they ask.
        let by = by.unwrap_or(own);
        let OrderGiver { who, how, from, note } = by.clone();
        let answer = self.command(Input::Drain { gateway, by: Some(Box::new(by)) }).await?;
        let incarnation = answer.incarnation.to_string();
        tracing::info!(incarnation, who, how, from, note, "a gateway is asked to drain");
        Ok(Response::new(DrainReply { epoch: Some(answer.epoch), incarnation }))
    }
}

/// Frees a watcher's place when its stream is dropped.
struct WatchEnd {
    hub: mpsc::Sender<hub::HubRequest>,
    connection: ConnectionId,
    _closed: tokio_util::sync::CancellationToken,
}

impl Drop for WatchEnd {
    fn drop(&mut self) {
        // If the hub is too busy now, it frees the place at the next view, which cannot be sent.
        let _ = self.hub.try_send(hub::HubRequest::Closed(self.connection));
    }
}

/// Reads one member's stream until it ends or is silent before its Hello.
async fn read(
    hub: &mpsc::Sender<hub::HubRequest>,
    connection: ConnectionId,
    origin: PeerOrigin,
    mut requests: Streaming<JoinRequest>,
) {
    let Ok(first) = tokio::time::timeout(HELLO_TIME_MAX, requests.message()).await else {
        metrics::counter!("broadgate_register_disconnects_total", "reason" => "no_hello").increment(1);
        return;
    };
    let mut next = first;
    while let Ok(Some(JoinRequest { request })) = next {
        // A request of a later version is not understood, and harms nobody.
        if let Some(request) = request
            && hub.send(hub::HubRequest::Input(input(connection, origin, request))).await.is_err()
        {
            return;
        }
        next = requests.message().await;
    }
}

fn input(connection: ConnectionId, origin: PeerOrigin, request: join_request::Request) -> Input {
    use join_request::Request as R;
    match request {
        R::Hello(hello) => Input::Hello { connection, origin, hello: Box::new(hello) },
        R::Beat(beat) => Input::Beat { connection, number: beat.number },
        R::SetState(set) => {
            let state = MemberState::try_from(set.state).unwrap_or(MemberState::Unspecified);
            Input::SetState { connection, state }
        }
        R::Goodbye(_) => Input::Goodbye { connection },
    }
}

/// Who gives an order, which shows the same as every caller of a register, and says the rest in its headers.
fn giver<T>(request: &Request<T>, shown: &str) -> Result<OrderGiver, Status> {
    let headers = request.metadata();
    let said = |header: &str| headers.get(header).and_then(|value| value.to_str().ok());
    let worker = said(WORKER_HEADER).filter(|name| name.len() <= NAME_BYTES_MAX);
    let note =
        headers.get(NOTE_HEADER).map_or(Ok(None), |note| said::note_of_header(note.as_encoded_bytes()));
    Ok(OrderGiver {
        who: worker.map_or_else(|| shown.to_owned(), |name| format!("worker:{name}")),
        how: said(HOW_HEADER).and_then(said::program).unwrap_or("grpc").to_owned(),
        from: origin(request).address.map(|address| address.to_string()).unwrap_or_default(),
        note: note.map_err(|error| Status::invalid_argument(error.to_string()))?.unwrap_or_default(),
    })
}

fn origin<T>(request: &Request<T>) -> PeerOrigin {
    let Some(info) = request.extensions().get::<TcpConnectInfo>() else { return PeerOrigin::default() };
    let address = info.remote_addr().map(|address| address.ip().to_canonical());
    let here = info.local_addr().map(|address| address.ip().to_canonical());
    let remote = address.is_some_and(|ip: IpAddr| !ip.is_loopback()) && address != here;
    PeerOrigin { address, remote }
}

fn stopping() -> Status {
    Status::unavailable("the register is stopping: try the next one")
}
