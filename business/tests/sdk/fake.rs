//! Gateways that do what the test says.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use broadgate_business::Secret;
use broadgate_proto::{
    id::{ClientId, Incarnation},
    v1::{
        self, Answer, AnswerBatch, Command, CommandBatch, Coverage, Epoch, Event, GatewayFrame, GatewayHello,
        MemberState, Receipt, Role, Session, WorkerFrame, answer, command, event, gateway_frame,
        gateway_server, worker_frame, worker_server,
    },
};
use broadgate_register::member::{self, Advertise, ClusterMember};
use futures_util::Stream;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};

pub use crate::{
    register::{Register, soon},
    streams::{Attachment, Observing, Watching},
};

/// What becomes of the commands that a gateway gets.
#[derive(Clone, Copy, PartialEq)]
pub enum Answers {
    Receipts,
    /// None, and the stream ends.
    Break,
    Refuse,
    /// That it cannot now.
    Unavailable,
    /// None, for as long as the stream lives.
    Silence,
}

pub struct Fake {
    pub incarnation: Incarnation,
    pub address: String,
    member: Option<ClusterMember>,
    attachments: mpsc::Receiver<Attachment>,
    watchings: mpsc::Receiver<Watching>,
    observings: mpsc::Receiver<Observing>,
    shared: Arc<Shared>,
    _running: DropGuard,
}

struct Shared {
    name: String,
    incarnation: Incarnation,
    attach: mpsc::Sender<Attachment>,
    watch: mpsc::Sender<Watching>,
    observe: mpsc::Sender<Observing>,
    commands: Mutex<Vec<Command>>,
    answers: Mutex<Answers>,
    /// What answers name.
    epoch: Mutex<Epoch>,
    /// Ends all streams of commands.
    cut: watch::Sender<()>,
    /// It takes no watcher any more.
    lost: AtomicBool,
}

struct Service(Arc<Shared>);

impl Shared {
    fn serves(&self) -> Result<(), Status> {
        if self.lost.load(Ordering::Relaxed) { Err(Status::unavailable("lost")) } else { Ok(()) }
    }
}

static KEYS: AtomicU64 = AtomicU64::new(1);

impl Fake {
    pub async fn start(register: &Register, name: &str) -> Self {
        let fake = Self::joining(register, name).await;
        fake.ready();
        fake
    }

    /// In the view, and the home of nothing yet.
    pub async fn joining(register: &Register, name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let member = member::join(member::Config {
            registers: vec![register.address.clone()],
            credentials: Secret::default().into(),
            role: Role::Gateway,
            name: name.to_owned(),
            version: "0".to_owned(),
            services: Vec::new(),
            listeners: HashMap::new(),
            advertise: Advertise::Address(address.clone()),
            known: None,
        });
        let (attach, attachments) = mpsc::channel(16);
        let (watch, watchings) = mpsc::channel(16);
        let (observe, observings) = mpsc::channel(16);
        let incarnation = member.incarnation();
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            incarnation,
            attach,
            watch,
            observe,
            commands: Mutex::default(),
            answers: Mutex::new(Answers::Receipts),
            epoch: Mutex::new(Epoch::new(1, 1)),
            cut: watch::Sender::new(()),
            lost: AtomicBool::new(false),
        });
        let stop = CancellationToken::new();
        let serving = tonic::transport::Server::builder()
            .add_service(gateway_server::GatewayServer::new(Service(shared.clone())))
            .add_service(worker_server::WorkerServer::new(Service(shared.clone())))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                done = serving => done.unwrap(),
                () = stopped.cancelled() => {}
            }
        });
        let _running = stop.drop_guard();
        Self {
            incarnation,
            address,
            member: Some(member),
            attachments,
            watchings,
            observings,
            shared,
            _running,
        }
    }

    pub fn ready(&self) {
        self.member.as_ref().unwrap().set_state(MemberState::Ready);
    }

    pub fn client(&self, slot: u32) -> String {
        let key = KEYS.fetch_add(1, Ordering::Relaxed);
        ClientId { incarnation: self.incarnation, shard: 0, slot, key }.to_string()
    }

    pub async fn attached(&mut self) -> Attachment {
        soon("a worker", self.attachments.recv()).await.unwrap()
    }

    /// The next stream of a watcher.
    pub async fn watched(&mut self) -> Watching {
        soon("a watcher", self.watchings.recv()).await.unwrap()
    }

    /// The next stream of a watcher of Pusher clients.
    pub async fn observed(&mut self) -> Observing {
        soon("an observer", self.observings.recv()).await.unwrap()
    }

    /// Out of the view, without having drained. Views do not show this at once: until then, watchers that come back
    /// find nobody, as after the end of a process.
    pub async fn lose(&mut self) {
        self.shared.lost.store(true, Ordering::Relaxed);
        self.member.take().unwrap().leave().await;
    }

    pub fn answers(&self, answers: Answers) {
        *self.shared.answers.lock().unwrap() = answers;
    }

    pub fn epoch(&self, epoch: Epoch) {
        *self.shared.epoch.lock().unwrap() = epoch;
    }

    /// Ends every stream of commands, whatever is unanswered.
    pub fn cut(&self) {
        self.shared.cut.send_replace(());
    }

    pub fn commands(&self) -> Vec<command::Command> {
        self.heard().into_iter().filter_map(|heard| heard.command).collect()
    }

    pub fn heard(&self) -> Vec<Command> {
        self.shared.commands.lock().unwrap().clone()
    }

    /// What was sent: text, and id.
    pub fn sent(&self) -> Vec<(String, String)> {
        let text = |send: v1::SendRequest| match send.payload {
            Some(v1::send_request::Payload::Text(text)) => Some((text, send.command_id)),
            _ => None,
        };
        let sends = self.commands().into_iter().filter_map(|command| match command {
            command::Command::Send(send) => text(send),
            _ => None,
        });
        sends.collect()
    }

    pub fn texts(&self) -> Vec<String> {
        self.sent().into_iter().map(|(text, _)| text).collect()
    }

    /// Waits until so many were sent.
    pub async fn hears(&self, count: usize) -> Vec<String> {
        soon("what was sent", async {
            while self.texts().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        self.texts()
    }

    pub fn view(&self) -> tokio::sync::watch::Receiver<Arc<v1::View>> {
        self.member.as_ref().unwrap().views()
    }
}

pub fn message(seq: u64, client: &str, text: &str) -> Event {
    let payload = Some(v1::message::Payload::Text(text.to_owned()));
    event(seq, client, event::Event::Message(v1::Message { payload }))
}

pub fn event(seq: u64, client: &str, event: event::Event) -> Event {
    Event {
        seq,
        client_id: client.to_owned(),
        uid: "ada".to_owned(),
        session: Some(Session { json: format!("{{\"seq\":{seq}}}"), version: seq }),
        event: Some(event),
        ..Event::default()
    }
}

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl worker_server::Worker for Service {
    type AttachStream = Out<GatewayFrame>;

    async fn attach(
        &self,
        request: Request<Streaming<WorkerFrame>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut said = request.into_inner();
        let (out, sent) = mpsc::channel(64);
        let hello = GatewayHello {
            incarnation: self.0.incarnation.to_string(),
            name: self.0.name.clone(),
            version: String::new(),
        };
        let hello = GatewayFrame { frame: Some(gateway_frame::Frame::Hello(hello)) };
        out.send(Ok(hello)).await.unwrap();
        let attach = self.0.attach.clone();
        tokio::spawn(async move {
            let first = said.message().await.unwrap().unwrap().frame;
            let Some(worker_frame::Frame::Hello(hello)) = first else { panic!("no hello: {first:?}") };
            let _ = attach.send(Attachment::new(hello, out, said)).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(sent))))
    }
}

impl Shared {
    fn answer(&self, command: Command) -> Option<Answer> {
        self.commands.lock().unwrap().push(command.clone());
        let refusal = |code, message: &str| {
            Some(answer::Answer::Error(v1::Error { code, message: message.to_owned() }))
        };
        let answer = match *self.answers.lock().unwrap() {
            Answers::Refuse => refusal(5, "no such client"),
            Answers::Unavailable => refusal(14, "not yet"),
            Answers::Silence | Answers::Break => None,
            Answers::Receipts => self.reply(command.command.as_ref().unwrap()),
        };
        Some(Answer { id: command.id, answer: Some(answer?) })
    }

    fn reply(&self, command: &command::Command) -> Option<answer::Answer> {
        let epoch = Some(*self.epoch.lock().unwrap());
        let coverage = Some(Coverage { epoch, complete: true, missing: Vec::new() });
        Some(match command {
            command::Command::Send(send) if send.no_receipt => return None,
            command::Command::Roster(roster) => {
                let members = vec![v1::PresenceMember { user_id: roster.group.clone(), info: String::new() }];
                let roster = v1::RosterReply { coverage, members, total: 7, next_cursor: String::new() };
                answer::Answer::Roster(roster)
            }
            command::Command::History(history) => {
                let position = history.since.clone();
                let recovered = position.is_some();
                answer::Answer::History(v1::HistoryReply {
                    coverage,
                    messages: Vec::new(),
                    position,
                    recovered,
                })
            }
            command::Command::LastValue(last) => {
                let payload = Some(v1::last_value_reply::Payload::Text(last.group.clone()));
                answer::Answer::LastValue(v1::LastValueReply { coverage, payload, ..Default::default() })
            }
            command::Command::Online(_) => {
                answer::Answer::Online(v1::OnlineReply { coverage, ..v1::OnlineReply::default() })
            }
            command::Command::Count(_) => {
                answer::Answer::Count(v1::CountReply { coverage, ..v1::CountReply::default() })
            }
            _ => answer::Answer::Receipt(Receipt { coverage, clients: 1, gateways: 1, ..Receipt::default() }),
        })
    }
}

macro_rules! unary {
    ($($name:ident($request:ident) -> $reply:ident;)*) => {
        #[tonic::async_trait]
        impl gateway_server::Gateway for Service {
            $(async fn $name(&self, _: Request<v1::$request>) -> Result<Response<v1::$reply>, Status> {
                Err(Status::unimplemented(stringify!($name)))
            })*

            type WatchGroupsStream = Out<v1::GroupEvents>;

            async fn watch_groups(
                &self,
                request: Request<v1::WatchGroupsRequest>,
            ) -> Result<Response<Self::WatchGroupsStream>, Status> {
                self.0.serves()?;
                let (watching, told) = Watching::of(request.into_inner())?;
                let _ = self.0.watch.send(watching).await;
                Ok(Response::new(Box::pin(ReceiverStream::new(told))))
            }

            type WatchPusherStream = Out<v1::PusherEvents>;

            async fn watch_pusher(
                &self,
                request: Request<v1::WatchPusherRequest>,
            ) -> Result<Response<Self::WatchPusherStream>, Status> {
                self.0.serves()?;
                let (observing, told) = Observing::of(request.into_inner())?;
                let _ = self.0.observe.send(observing).await;
                Ok(Response::new(Box::pin(ReceiverStream::new(told))))
            }

            type CommandsStream = Out<AnswerBatch>;

            async fn commands(
                &self,
                request: Request<Streaming<CommandBatch>>,
            ) -> Result<Response<Self::CommandsStream>, Status> {
                let (out, sent) = mpsc::channel(64);
                let mut batches = request.into_inner();
                let shared = self.0.clone();
                tokio::spawn(async move {
                    let mut cut = shared.cut.subscribe();
                    loop {
                        let batch = tokio::select! {
                            batch = batches.message() => batch,
                            _ = cut.changed() => return,
                        };
                        let Ok(Some(batch)) = batch else { return };
                        let answers: Vec<_> =
                            batch.commands.into_iter().filter_map(|command| shared.answer(command)).collect();
                        if *shared.answers.lock().unwrap() == Answers::Break {
                            return;
                        }
                        if !answers.is_empty() {
                            let _ = out.send(Ok(AnswerBatch { answers })).await;
                        }
                    }
                });
                Ok(Response::new(Box::pin(ReceiverStream::new(sent))))
            }
        }
    };
}

unary! {
    send(SendRequest) -> Receipt;
    close(CloseRequest) -> Receipt;
    bind(BindRequest) -> Receipt;
    unbind(UnbindRequest) -> Receipt;
    join(JoinGroupsRequest) -> Receipt;
    leave(LeaveGroupsRequest) -> Receipt;
    dissolve(DissolveRequest) -> Receipt;
    set_session(SetSessionRequest) -> SessionReply;
    merge_session(MergeSessionRequest) -> SessionReply;
    get_session(GetSessionRequest) -> SessionReply;
    roster(RosterRequest) -> RosterReply;
    history(HistoryRequest) -> HistoryReply;
    last_value(LastValueRequest) -> LastValueReply;
    online(OnlineRequest) -> OnlineReply;
    count(CountRequest) -> CountReply;
    get_client(GetClientRequest) -> ClientReply;
    list_clients(ListClientsRequest) -> ListClientsReply;
    list_uids(ListUidsRequest) -> ListNamesReply;
    list_groups(ListGroupsRequest) -> ListNamesReply;
    status(StatusRequest) -> StatusReply;
    get_app(GetAppRequest) -> AppReply;
}
