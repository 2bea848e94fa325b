//! Views between gateways: by number, as changes, and whole to those of the version before.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use broadgate_proto::{
    id::Incarnation,
    v1::{
        self, Epoch, Hello, JoinRequest, LinkBeat, Member, MemberState, PeerBatch, PeerFrame, PeerHello,
        PeerMessage, PeerReply, Role, Synced, View, ViewQuestion, join_request, peer_client::PeerClient,
        peer_frame::Frame, peer_message::Message, peer_reply::Reply, peer_server::Peer,
        peer_server::PeerServer, register_client::RegisterClient,
    },
    view::{epoch, find},
    view_change,
};
use futures_util::Stream;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::harness::*;

const LONG_LEASE: &str = "lease = \"60s\"\nbeat = \"1s\"";

/// A gateway's end of the link that another one has opened to it.
struct Link {
    frames: Streaming<PeerFrame>,
    replies: mpsc::Sender<Result<PeerReply, Status>>,
}

/// Hands every link to the test.
struct FakePort(mpsc::Sender<Link>);

#[tonic::async_trait]
impl Peer for FakePort {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<PeerReply, Status>> + Send>>;

    async fn link(
        &self,
        request: Request<Streaming<PeerFrame>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let (replies, out) = mpsc::channel(64);
        let _ = self.0.send(Link { frames: request.into_inner(), replies }).await;
        Ok(Response::new(Box::pin(ReceiverStream::new(out))))
    }
}

impl Link {
    async fn reply(&self, reply: Reply) {
        self.replies.send(Ok(PeerReply { reply: Some(reply) })).await.unwrap();
    }

    /// The next frame that is no beat.
    async fn frame(&mut self) -> Frame {
        loop {
            match soon("a frame", self.frames.message()).await.unwrap().unwrap().frame.unwrap() {
                Frame::Beat(beat) => self.reply(Reply::Beat(beat)).await,
                frame => return frame,
            }
        }
    }

    async fn hello(&mut self) -> PeerHello {
        match self.frame().await {
            Frame::Hello(hello) => hello,
            other => panic!("{other:?}"),
        }
    }

    /// The next announcement of a view.
    async fn announced(&mut self) -> Message {
        loop {
            let Frame::Batch(batch) = self.frame().await else { continue };
            let views = batch.messages.into_iter().filter_map(|message| message.message);
            let mut views =
                views.filter(|message| matches!(message, Message::View(_) | Message::ViewNumber(_)));
            if let Some(view) = views.next() {
                return view;
            }
        }
    }
}

/// A member of the cluster that a test plays: it does not beat.
struct FakeMember {
    member: Member,
    _requests: mpsc::Sender<JoinRequest>,
    _replies: Streaming<v1::JoinReply>,
}

impl FakeMember {
    async fn join(cluster: &Cluster, number: u64, role: Role, address: String) -> Self {
        let member = Member {
            incarnation: Incarnation::from_bits(number).to_string(),
            role: role.into(),
            name: format!("fake-{number}"),
            state: MemberState::Ready.into(),
            ring_version: broadgate_proto::ring::RING_VERSION,
            address,
            ..Member::default()
        };
        let register = format!("http://{}", cluster.register_address);
        let mut register = RegisterClient::connect(register).await.unwrap();
        let (requests, queue) = mpsc::channel(4);
        let hello = Hello { member: Some(member.clone()), ..Hello::default() };
        requests.send(JoinRequest { request: Some(join_request::Request::Hello(hello)) }).await.unwrap();
        let replies = register.join(ReceiverStream::new(queue)).await.unwrap().into_inner();
        Self { member, _requests: requests, _replies: replies }
    }

    /// A gateway, and the links that are opened to it.
    async fn gateway(cluster: &Cluster, number: u64) -> (Self, mpsc::Receiver<Link>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (opened, links) = mpsc::channel(4);
        let server = Server::builder().add_service(PeerServer::new(FakePort(opened)));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (Self::join(cluster, number, Role::Gateway, address).await, links)
    }

    /// Opens a link to a gateway, with the number of a view only.
    async fn dial_by_number(&self, cluster: &Cluster, gateway: usize, number: Epoch) -> Dialled {
        self.say_hello(
            cluster,
            gateway,
            PeerHello { epoch: Some(number), numbers: true, ..PeerHello::default() },
        )
        .await
    }

    /// Opens a link to a gateway; as the version before if it understands no numbers.
    async fn dial(&self, cluster: &Cluster, gateway: usize, view: View, numbers: bool) -> Dialled {
        let epoch = view.epoch.filter(|_| numbers);
        self.say_hello(
            cluster,
            gateway,
            PeerHello { view: Some(view), epoch, numbers, ..PeerHello::default() },
        )
        .await
    }

    async fn say_hello(&self, cluster: &Cluster, gateway: usize, hello: PeerHello) -> Dialled {
        let to = cluster.view().await.unwrap();
        let name = format!("gateway-{}", gateway + 1);
        let to = to.members.into_iter().find(|member| member.name == name).unwrap().incarnation;
        let (frames, queue) = mpsc::channel(64);
        let (incarnation, name) = (self.member.incarnation.clone(), self.member.name.clone());
        let hello = PeerHello { incarnation, name, to, ..hello };
        frames.send(PeerFrame { frame: Some(Frame::Hello(hello)) }).await.unwrap();
        let address = format!("http://{}", cluster.internal[gateway]);
        let mut client = PeerClient::connect(address).await.unwrap();
        let replies = client.link(ReceiverStream::new(queue)).await.unwrap().into_inner();
        Dialled { frames, replies }
    }
}

/// The end of a link that a test has opened.
struct Dialled {
    frames: mpsc::Sender<PeerFrame>,
    replies: Streaming<PeerReply>,
}

impl Dialled {
    async fn send(&self, frame: Frame) {
        self.frames.send(PeerFrame { frame: Some(frame) }).await.unwrap();
    }

    async fn batch(&self, messages: impl IntoIterator<Item = Message>) {
        let messages = messages.into_iter().map(|message| PeerMessage { message: Some(message) }).collect();
        self.send(Frame::Batch(PeerBatch { messages })).await;
    }

    async fn reply(&mut self) -> Reply {
        soon("a reply", self.replies.message()).await.unwrap().unwrap().reply.unwrap()
    }

    async fn hello(&mut self) -> PeerHello {
        match self.reply().await {
            Reply::Hello(hello) => hello,
            other => panic!("{other:?}"),
        }
    }

    async fn question(&mut self) -> ViewQuestion {
        match self.reply().await {
            Reply::ViewQuestion(question) => question,
            other => panic!("{other:?}"),
        }
    }
}

/// The view that has all of these.
async fn view_with(cluster: &Cluster, names: &[&str]) -> View {
    until("the view has them", async || {
        let view = cluster.view().await?;
        names.iter().all(|name| view.members.iter().any(|member| member.name == *name)).then_some(view)
    })
    .await
}

/// A view that no register has made, with one more worker.
fn next(view: &View, number: u64) -> View {
    let Epoch { term, count } = epoch(view);
    let mut members = view.members.clone();
    members.push(Member {
        incarnation: Incarnation::from_bits(u64::MAX - number).to_string(),
        role: Role::Worker.into(),
        name: format!("new-{number}"),
        ..Member::default()
    });
    members.sort_by(|one, other| one.incarnation.cmp(&other.incarnation));
    View { epoch: Some(Epoch::new(term, count + 1)), before: view.epoch, members }
}

async fn has_installed(cluster: &Cluster, view: &View) {
    until("the gateway has installed the view", async || {
        let status = cluster.status(0).await?;
        (status.view? == *view).then_some(())
    })
    .await;
}

#[tokio::test]
async fn gateway_asks_for_a_view_that_it_has_not_and_holds_back_what_follows() {
    let cluster = Cluster::quiet(1).register(LONG_LEASE).start().await;
    let (fake, _links) = FakeMember::gateway(&cluster, 7).await;
    let view = view_with(&cluster, &["fake-7"]).await;
    has_installed(&cluster, &view).await;
    let mut link = fake.dial(&cluster, 0, view.clone(), true).await;
    let hello = link.hello().await;
    assert_eq!((hello.view, hello.epoch, hello.numbers), (None, view.epoch, true));

    let (second, third) = (next(&view, 1), next(&next(&view, 1), 2));
    let synced = Synced { serial: 1, epoch: third.epoch, ..Synced::default() };
    link.batch([Message::ViewNumber(epoch(&third)), Message::Synced(synced)]).await;
    let question = link.question().await;
    assert_eq!(question.epoch, third.epoch);
    assert!(question.known.contains(&epoch(&view)), "{question:?}");
    // What belongs to no view goes on meanwhile; neither batch is taken.
    link.batch([]).await;
    link.send(Frame::Beat(LinkBeat { number: 9 })).await;
    assert_eq!(link.reply().await, Reply::Beat(LinkBeat { number: 9 }));

    // Changes to a view that it has not: it asks for the whole.
    link.send(Frame::View(view_change::between(&second, &third))).await;
    assert_eq!(link.question().await, ViewQuestion { epoch: third.epoch, known: Vec::new() });
    link.send(Frame::View(view_change::between(&view, &third))).await;
    assert_eq!(link.reply().await, Reply::Taken(2), "both batches");
    has_installed(&cluster, &third).await;
}

#[tokio::test]
async fn view_that_is_announced_and_never_sent_ends_the_link() {
    let cluster = Cluster::quiet(1).register(LONG_LEASE).start().await;
    let (fake, _links) = FakeMember::gateway(&cluster, 7).await;
    let view = view_with(&cluster, &["fake-7"]).await;
    let mut link = fake.dial(&cluster, 0, view.clone(), true).await;
    link.hello().await;
    link.batch([Message::ViewNumber(epoch(&next(&view, 1)))]).await;
    link.question().await;
    let ended = async {
        loop {
            // It may have ended meanwhile.
            let beat = Frame::Beat(LinkBeat { number: 1 });
            let _ = link.frames.send(PeerFrame { frame: Some(beat) }).await;
            if let Err(status) = link.replies.message().await {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let status = soon("the link is ended", ended).await;
    assert!(status.message().contains("and not sent it"), "{status:?}");
}

#[tokio::test]
async fn hello_that_names_an_unknown_view_is_followed_by_a_question() {
    let cluster = Cluster::quiet(1).register(LONG_LEASE).start().await;
    let (fake, _links) = FakeMember::gateway(&cluster, 7).await;
    let view = view_with(&cluster, &["fake-7"]).await;
    let newest = next(&view, 1);
    let mut link = fake.dial_by_number(&cluster, 0, epoch(&newest)).await;
    let question = link.question().await;
    assert_eq!(question.epoch, newest.epoch);
    link.send(Frame::View(view_change::whole(&newest))).await;
    assert_eq!(link.hello().await.epoch, newest.epoch);
    has_installed(&cluster, &newest).await;
}

/// A newcomer that knows a view two ahead is greeted when the one between is here, or late.
#[tokio::test]
async fn hello_with_a_view_behind_a_gap_waits_for_those_between() {
    let cluster = Cluster::quiet(1).register(LONG_LEASE).limits("link_timeout = \"8s\"").start().await;
    let (fake, _links) = FakeMember::gateway(&cluster, 7).await;
    let view = view_with(&cluster, &["fake-7"]).await;
    has_installed(&cluster, &view).await;
    let later = next(&next(&view, 1), 2);
    let began = Instant::now();
    let mut link = fake.dial(&cluster, 0, later.clone(), true).await;
    assert_eq!(link.hello().await.epoch, later.epoch);
    assert!(began.elapsed() >= Duration::from_secs(2), "a quarter of the timeout: {:?}", began.elapsed());
    has_installed(&cluster, &later).await;
}

#[tokio::test]
async fn views_are_announced_by_number_and_sent_as_changes_when_asked_for() {
    let cluster = Cluster::quiet(1).register(LONG_LEASE).start().await;
    let (_fake, mut links) = FakeMember::gateway(&cluster, 7).await;
    let mut link = soon("the gateway dials", links.recv()).await.unwrap();
    let hello = link.hello().await;
    let view = hello.view.clone().expect("it does not know yet what this gateway understands");
    assert!(hello.numbers && hello.epoch == view.epoch);
    link.reply(Reply::Hello(PeerHello { view: None, epoch: view.epoch, numbers: true, ..hello })).await;
    assert_eq!(link.announced().await, Message::ViewNumber(epoch(&view)));

    let _worker = FakeMember::join(&cluster, 8, Role::Worker, String::new()).await;
    let Message::ViewNumber(number) = link.announced().await else { panic!("not by number") };
    assert!(number > epoch(&view));
    let answers = [(vec![epoch(&view)], 1), (vec![Epoch::new(1, 1)], 3), (vec![], 3)];
    for (known, put) in answers {
        link.reply(Reply::ViewQuestion(ViewQuestion { epoch: Some(number), known: known.clone() })).await;
        let change = loop {
            if let Frame::View(change) = link.frame().await {
                break change;
            }
        };
        assert_eq!((change.epoch, change.put.len()), (Some(number), put), "{known:?}");
        let made = view_change::apply(change, Some(&view)).unwrap();
        assert_eq!(made, view_with(&cluster, &["fake-7", "fake-8"]).await);
    }
}

#[tokio::test]
async fn gateway_of_the_version_before_gets_whole_views_and_is_understood() {
    let cluster = Cluster::quiet(1).register(LONG_LEASE).start().await;
    let (fake, mut links) = FakeMember::gateway(&cluster, 7).await;
    let mut inbound = soon("the gateway dials", links.recv()).await.unwrap();
    let hello = inbound.hello().await;
    let view = hello.view.clone().unwrap();
    inbound.reply(Reply::Hello(PeerHello { numbers: false, epoch: None, ..hello })).await;
    assert_eq!(inbound.announced().await, Message::View(view.clone()));
    let _worker = FakeMember::join(&cluster, 8, Role::Worker, String::new()).await;
    let newer = view_with(&cluster, &["fake-7", "fake-8"]).await;
    assert_eq!(inbound.announced().await, Message::View(newer.clone()));

    has_installed(&cluster, &newer).await;
    let mut outbound = fake.dial(&cluster, 0, view, false).await;
    assert_eq!(outbound.hello().await.view, Some(newer.clone()));
    let newest = next(&newer, 1);
    outbound.batch([Message::View(newest.clone())]).await;
    assert_eq!(outbound.reply().await, Reply::Taken(1));
    has_installed(&cluster, &newest).await;
}

/// The register reaches one gateway only.
#[tokio::test]
async fn gateway_that_hears_nothing_of_the_register_follows_its_peer() {
    let mut cluster = Cluster::quiet(1).register(LONG_LEASE).start().await;
    let register = cluster.register_address.clone();
    let proxy = Proxy::in_front_of(register.parse().unwrap()).await;
    cluster.register_address = proxy.address.to_string();
    let second = cluster.add_gateway().await;
    cluster.register_address = register;
    cluster.linked().await;
    proxy.cut(cluster.gateways[second].id(), Fault::Blackhole);
    for number in 20..24 {
        let _worker = FakeMember::join(&cluster, number, Role::Worker, String::new()).await;
        let incarnation = Incarnation::from_bits(number);
        until("the gateway that is cut off has the worker in its view", async || {
            find(&cluster.status(second).await?.view?, incarnation).map(drop)
        })
        .await;
    }
    cluster.synced().await;
}
