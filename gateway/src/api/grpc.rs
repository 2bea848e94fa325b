//! The Gateway service: each call is a command, and one stream pipelines them.

use std::{pin::Pin, sync::Arc};

use broadgate_proto::{
    COMMAND_BYTES_HEADER,
    limits::{LINK_BATCHES_MAX, PUSHER_WATCHERS_MAX},
    v1::{self, AnswerBatch, CommandBatch, answer::Answer, command::Command, gateway_server::Gateway},
};
use futures_util::{Stream, StreamExt as _, stream::FuturesUnordered};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    api::{
        calls::{CallerEvents, note_watch, place, run, watched},
        denials,
        headers::{after, patience, status},
    },
    callers::{Caller, hide_in_events, hide_in_pusher_events},
    cluster::{ClusterEvent, GroupWatcher, WATCHER_BATCHES_MAX},
    command::{observing, patterns},
    dispatch::Dispatcher,
    observers::Observers,
};

pub(crate) struct GatewayService {
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) observers: Observers,
    /// The most bytes of one command in a batch.
    pub(crate) command_bytes_max: usize,
}

type Batches = Pin<Box<dyn Stream<Item = Result<AnswerBatch, Status>> + Send>>;

/// Each unary call: its command, and the kind of its answer.
macro_rules! unary {
    ($($call:ident: $request:ty => $command:ident, $answer:ident($reply:ty);)*) => {
        #[tonic::async_trait]
        impl Gateway for GatewayService {
            $(
                async fn $call(&self, request: Request<$request>) -> Result<Response<$reply>, Status> {
                    let after = after(request.metadata())?;
                    let caller = Caller::of(request.extensions());
                    let patience = patience(request.metadata());
                    let command = Command::$command(request.into_inner());
                    match run(&self.dispatcher, &caller, command, after, patience).await {
                        Answer::$answer(reply) => Ok(Response::new(reply)),
                        Answer::Error(error) => Err(status(error)),
                        _ => Err(Status::internal("the answer does not fit the command")),
                    }
                }
            )*

            async fn get_app(
                &self,
                request: Request<v1::GetAppRequest>,
            ) -> Result<Response<v1::AppReply>, Status> {
                let caller = Caller::of(request.extensions());
                let app = request.into_inner().app;
                denials::may_call(&self.dispatcher, &caller, "GetApp", &app)?;
                self.dispatcher.app(&app).map(Response::new).map_err(status)
            }

            type WatchGroupsStream = CallerEvents<v1::GroupEvents>;

            async fn watch_groups(
                &self,
                request: Request<v1::WatchGroupsRequest>,
            ) -> Result<Response<Self::WatchGroupsStream>, Status> {
                let caller = Caller::of(request.extensions());
                let request = request.into_inner();
                denials::may_call(&self.dispatcher, &caller, "WatchGroups", &request.app)?;
                let patterns = patterns(&request).map_err(status)?;
                note_watch(&self.dispatcher, &caller, "watch_groups", &request.app).await;
                let (out, events) = mpsc::channel(WATCHER_BATCHES_MAX);
                self.dispatcher.homes.send(ClusterEvent::Watch(GroupWatcher { patterns, out })).await;
                let (call, events) = (("WatchGroups", request.app), ReceiverStream::new(events));
                let dispatcher = Arc::downgrade(&self.dispatcher);
                Ok(Response::new(watched(dispatcher, caller, call, events, hide_in_events)))
            }

            type WatchPusherStream = CallerEvents<v1::PusherEvents>;

            async fn watch_pusher(
                &self,
                request: Request<v1::WatchPusherRequest>,
            ) -> Result<Response<Self::WatchPusherStream>, Status> {
                let caller = Caller::of(request.extensions());
                let request = request.into_inner();
                denials::may_call(&self.dispatcher, &caller, "WatchPusher", &request.app)?;
                note_watch(&self.dispatcher, &caller, "watch_pusher", &request.app).await;
                self.observe(caller, request)
            }

            type CommandsStream = Batches;

            async fn commands(
                &self,
                request: Request<Streaming<CommandBatch>>,
            ) -> Result<Response<Batches>, Status> {
                let (out, answers) = mpsc::channel(64);
                // A stream is of many traces, or of none.
                let caller = Caller { traceparent: None, ..Caller::of(request.extensions()) };
                let served = serve(Arc::clone(&self.dispatcher), caller, request.into_inner(), out.clone());
                broadgate_tasks::spawn("command stream", async move {
                    if broadgate_tasks::contain("command stream", served).await.is_none() {
                        let why = "this gateway panicked at a command of the stream: see its log";
                        let _ = out.try_send(Err(Status::internal(why)));
                    }
                });
                let mut response: Response<Batches> = Response::new(ReceiverStream::new(answers).boxed());
                let max = self.command_bytes_max.into();
                response.metadata_mut().insert(COMMAND_BYTES_HEADER, max);
                Ok(response)
            }
        }
    };
}

unary! {
    send: v1::SendRequest => Send, Receipt(v1::Receipt);
    close: v1::CloseRequest => Close, Receipt(v1::Receipt);
    bind: v1::BindRequest => Bind, Receipt(v1::Receipt);
    unbind: v1::UnbindRequest => Unbind, Receipt(v1::Receipt);
    join: v1::JoinGroupsRequest => Join, Receipt(v1::Receipt);
    leave: v1::LeaveGroupsRequest => Leave, Receipt(v1::Receipt);
    dissolve: v1::DissolveRequest => Dissolve, Receipt(v1::Receipt);
    set_session: v1::SetSessionRequest => SetSession, Session(v1::SessionReply);
    merge_session: v1::MergeSessionRequest => MergeSession, Session(v1::SessionReply);
    get_session: v1::GetSessionRequest => GetSession, Session(v1::SessionReply);
    roster: v1::RosterRequest => Roster, Roster(v1::RosterReply);
    history: v1::HistoryRequest => History, History(v1::HistoryReply);
    last_value: v1::LastValueRequest => LastValue, LastValue(v1::LastValueReply);
    online: v1::OnlineRequest => Online, Online(v1::OnlineReply);
    count: v1::CountRequest => Count, Count(v1::CountReply);
    get_client: v1::GetClientRequest => GetClient, Client(v1::ClientReply);
    list_clients: v1::ListClientsRequest => ListClients, Clients(v1::ListClientsReply);
    list_uids: v1::ListUidsRequest => ListUids, Names(v1::ListNamesReply);
    list_groups: v1::ListGroupsRequest => ListGroups, Names(v1::ListNamesReply);
    status: v1::StatusRequest => Status, Status(v1::StatusReply);
}

impl GatewayService {
    /// Only for the incarnation that was asked: after a reset its streams would repeat those of its
    /// successor.
    fn observe(
        &self,
        caller: Caller,
        request: v1::WatchPusherRequest,
    ) -> Result<Response<CallerEvents<v1::PusherEvents>>, Status> {
        let observing = observing(&request).map_err(status)?;
        let me = self.dispatcher.me.load_full();
        let own = me.incarnation.to_string();
        if !request.gateway.is_empty() && request.gateway != own {
            return Err(Status::unavailable(format!("this address now belongs to the gateway {own}")));
        }
        let events = self.observers.observe(observing).ok_or_else(|| {
            let max = PUSHER_WATCHERS_MAX;
            Status::resource_exhausted(format!("{max} streams already watch Pusher clients: end some"))
        })?;
        // Ending an incarnation ends its observers afterwards.
        if me.over.is_cancelled() {
            return Err(Status::unavailable("this gateway has a new incarnation, or is stopping"));
        }
        let (dispatcher, call) = (Arc::downgrade(&self.dispatcher), ("WatchPusher", request.app));
        Ok(Response::new(watched(dispatcher, caller, call, events, hide_in_pusher_events)))
    }
}

/// Places batches in order; answers each when all its parts are answered. While too many are unanswered,
/// nothing is read.
async fn serve(
    dispatcher: Arc<Dispatcher>,
    caller: Caller,
    mut batches: Streaming<CommandBatch>,
    out: mpsc::Sender<Result<AnswerBatch, Status>>,
) {
    let mut answering = FuturesUnordered::new();
    let mut reading = true;
    while reading || !answering.is_empty() {
        tokio::select! {
            batch = batches.message(), if reading && answering.len() < LINK_BATCHES_MAX => match batch {
                Ok(Some(batch)) => {
                    let placed = place(&dispatcher, &caller, batch.commands).await;
                    if !placed.is_done() {
                        answering.push(placed.answers());
                    }
                }
                Ok(None) => reading = false,
                Err(_) => return,
            },
            Some(answers) = answering.next() => {
                // Callers that want no answers get no empty batches.
                if answers.is_empty() {
                    continue;
                }
                if out.send(Ok(AnswerBatch { answers })).await.is_err() {
                    return;
                }
            }
        }
    }
}
