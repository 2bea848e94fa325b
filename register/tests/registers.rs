//! Registers and members over real sockets, in one process.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::{collections::HashMap, hash::BuildHasher as _, net::SocketAddr, sync::Arc, time::Duration};

use broadgate_proto::view;
use broadgate_proto::{
    id::Incarnation,
    secret::{Secret, SendSecret},
    v1::{
        DrainRequest, Epoch, Hello, JoinRequest, LeaveRequest, MemberState, Role, View, WatchRequest,
        join_request::Request, register_client::RegisterClient,
    },
};
use broadgate_register::{
    member::{self, Advertise, ClusterMember, MemberEvent},
    server,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, service::interceptor::InterceptedService, transport::Channel};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const LEASE: Duration = Duration::from_millis(400);
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER_SECRET: &str = "another-0123456789abcdef01234567";

/// A port that stays ours while nobody listens on it, so that no other test gets it meanwhile.
struct Port {
    address: SocketAddr,
    _held: TcpSocket,
}

impl Port {
    fn take() -> Self {
        let held = Self::bind("127.0.0.1:0".parse().unwrap());
        Self { address: held.local_addr().unwrap(), _held: held }
    }

    fn listen(&self) -> TcpListener {
        Self::bind(self.address).listen(128).unwrap()
    }

    fn bind(address: SocketAddr) -> TcpSocket {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.set_reuseport(true).unwrap();
        socket.bind(address).unwrap();
        socket
    }
}

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn on(listener: TcpListener) -> Self {
        Self::with(listener, LEASE)
    }

    fn with(listener: TcpListener, lease: Duration) -> Self {
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let secret = Secret::parse(SECRET).unwrap();
        let config = server::Config {
            credentials: secret.into(),
            beat: Duration::from_millis(50),
            lease,
            ..server::Config::default()
        };
        let task = tokio::spawn(server::run(listener, config, stop.clone().cancelled_owned()));
        Self { address, stop, task }
    }

    fn name(&self) -> String {
        self.address.to_string()
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }

    async fn client(&self) -> RegisterClient<Client> {
        let channel =
            Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap();
        RegisterClient::with_interceptor(channel, Secret::parse(SECRET).unwrap().sender())
    }
}

type Client = InterceptedService<Channel, SendSecret>;

fn config(registers: &[String], name: &str) -> member::Config {
    member::Config {
        registers: registers.to_vec(),
        credentials: Secret::parse(SECRET).unwrap().into(),
        role: Role::Worker,
        name: name.to_owned(),
        version: "0.0.0".to_owned(),
        services: vec!["chat".to_owned()],
        listeners: HashMap::new(),
        advertise: Advertise::None,
        known: None,
    }
}

fn worker(registers: &[String], name: &str) -> ClusterMember {
    member::join(config(registers, name))
}

fn gateway(registers: &[String], name: &str, port: u16) -> ClusterMember {
    let config = config(registers, name);
    member::join(member::Config { role: Role::Gateway, advertise: Advertise::LocalPort(port), ..config })
}

fn names(view: &View) -> Vec<&str> {
    let mut names: Vec<_> = view.members.iter().map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    names
}

async fn until(mut views: watch::Receiver<Arc<View>>, holds: impl Fn(&View) -> bool) -> Arc<View> {
    let found = timeout(PATIENCE, views.wait_for(|view| holds(view))).await;
    found.expect("the view did not come").unwrap().clone()
}

async fn event(member: &mut ClusterMember) -> MemberEvent {
    timeout(PATIENCE, member.event()).await.expect("no event came")
}

fn epoch(view: &View) -> Epoch {
    view::epoch(view)
}

#[tokio::test]
async fn members_join_change_and_leave_and_all_see_it() {
    let register = Running::start().await;
    let registers = [register.name()];
    let a = worker(&registers, "a");
    let b = gateway(&registers, "b", 7200);
    let watch = member::watch(registers.to_vec(), Secret::parse(SECRET).unwrap());
    for views in [a.views(), b.views(), watch.views()] {
        until(views, |view| names(view) == ["a", "b"]).await;
    }
    assert!(a.register().heard && watch.register().heard);
    assert_eq!(a.register().address, register.name());
    let view = a.views().borrow().clone();
    let found = view::find(&view, b.incarnation()).unwrap();
    assert_eq!(found.address, "127.0.0.1:7200");
    assert_eq!(found.state(), MemberState::Joining);
    assert!(found.since_ms > 0);

    b.set_state(MemberState::Ready);
    until(watch.views(), |view| view::ready_gateways(view).count() == 1).await;
    // After the first lease of a new cluster its term rises, once.
    let grown_up =
        |view: &View| epoch(view).term > u16::MAX.into() && view::ready_gateways(view).count() == 1;
    // Beats keep both in the view for longer than a lease.
    let before = until(a.views(), grown_up).await;
    let before = epoch(&before);
    tokio::time::sleep(2 * LEASE).await;
    assert_eq!(epoch(&a.views().borrow().clone()), before);
    b.leave().await;
    let after = until(watch.views(), |view| names(view) == ["a"]).await;
    // One view shows that it goes, and the next one is without it.
    assert_eq!(epoch(&after), Epoch::new(before.term, before.count + 2));
    a.leave().await;
    until(watch.views(), |view| view.members.is_empty()).await;
    register.stop().await;
}

#[tokio::test]
async fn silence_removes_and_a_dropped_member_is_silent() {
    let register = Running::start().await;
    let registers = [register.name()];
    let (a, b) = (worker(&registers, "a"), worker(&registers, "b"));
    until(a.views(), |view| names(view) == ["a", "b"]).await;
    drop(b);
    until(a.views(), |view| names(view) == ["a"]).await;
    register.stop().await;
}

#[tokio::test]
async fn members_follow_to_the_second_register_under_a_higher_term() {
    let first = Running::start().await;
    let port = Port::take();
    let registers = [first.name(), port.address.to_string()];
    let members = [worker(&registers, "a"), gateway(&registers, "b", 7201), worker(&registers, "c")];
    let watch = member::watch(registers.to_vec(), Secret::parse(SECRET).unwrap());
    let mut before = Epoch::default();
    for member in &members {
        let view = until(member.views(), |view| names(view) == ["a", "b", "c"]).await;
        before = before.max(epoch(&view));
    }
    until(watch.views(), |view| names(view) == ["a", "b", "c"]).await;
    let incarnations: Vec<_> =
        members[0].views().borrow().members.iter().map(|m| m.incarnation.clone()).collect();
    first.stop().await;
    // Nobody hears a register now, and everything goes on with the last view.
    for member in &members {
        assert_eq!(names(&member.views().borrow()), ["a", "b", "c"]);
    }
    let second = Running::on(port.listen());
    for views in members.iter().map(ClusterMember::views).chain([watch.views()]) {
        let view = until(views, |view| epoch(view).term > before.term).await;
        assert_eq!(view.members.iter().map(|m| m.incarnation.clone()).collect::<Vec<_>>(), incarnations);
    }
    // All of them live there: they are still in the view after the leases that were taken over.
    tokio::time::sleep(3 * LEASE).await;
    let settled = members[0].views().borrow().clone();
    assert_eq!(names(&settled), ["a", "b", "c"]);
    assert!(members.iter().all(|member| member.register().address == second.name()));
    second.stop().await;
}

#[tokio::test]
async fn restarted_register_recovers_all_live_members() {
    let port = Port::take();
    let register = Running::on(port.listen());
    let registers = [register.name()];
    let (a, b) = (worker(&registers, "a"), worker(&registers, "b"));
    let before = until(a.views(), |view| names(view) == ["a", "b"]).await;
    register.stop().await;
    drop(b);
    let register = Running::on(port.listen());
    let after = until(a.views(), |view| epoch(view).term > epoch(&before).term).await;
    assert_eq!(names(&after), ["a", "b"], "kept until its lease ends");
    until(a.views(), |view| names(view) == ["a"]).await;
    register.stop().await;
}

/// Whether a register that is started again hears that a member left in between. The lease is long: only a goodbye makes
/// it go.
async fn says_goodbye_late() -> bool {
    let port = Port::take();
    let lease = Duration::from_secs(60);
    let first = Running::with(port.listen(), lease);
    let registers = [first.name()];
    let stays = worker(&registers, "stays");
    let leaves = worker(&registers, "leaves");
    until(stays.views(), |view| names(view) == ["leaves", "stays"]).await;
    first.stop().await;
    let mut status = leaves.registers();
    timeout(PATIENCE, status.wait_for(|status| !status.heard)).await.unwrap().unwrap();
    let second = Running::with(port.listen(), lease);
    leaves.leave().await;
    let mut views = stays.views();
    let left = timeout(PATIENCE / 4, views.wait_for(|view| names(view) == ["stays"])).await.is_ok();
    stays.leave().await;
    second.stop().await;
    left
}

/// A process that leaves waits for a second only, in which a slow machine may not reach the register.
#[tokio::test]
async fn member_that_leaves_while_it_redials_says_goodbye() {
    for _ in 0..4 {
        if says_goodbye_late().await {
            return;
        }
    }
    panic!("it never said goodbye");
}

#[tokio::test]
async fn a_wrong_secret_is_a_sentence_said_once() {
    let register = Running::start().await;
    let secret = Secret::parse(OTHER_SECRET).unwrap();
    let mut stranger =
        member::join(member::Config { credentials: secret.into(), ..config(&[register.name()], "stranger") });
    let MemberEvent::Refused { sentence, fatal } = event(&mut stranger).await else { panic!("not refused") };
    assert!(sentence.contains("secret") && !fatal, "{sentence}");
    assert!(timeout(LEASE, stranger.event()).await.is_err(), "said twice");
    assert!(!stranger.register().heard);

    let mut nameless = worker(&[register.name()], "");
    let MemberEvent::Refused { sentence, fatal } = event(&mut nameless).await else { panic!("not refused") };
    assert!(sentence.contains("name is empty") && fatal, "{sentence}");
    register.stop().await;
}

#[tokio::test]
async fn operators_drain_and_take_out_and_the_removed_come_back_as_another() {
    let register = Running::start().await;
    let registers = [register.name()];
    let mut b = gateway(&registers, "b", 7202);
    until(b.views(), |view| names(view) == ["b"]).await;
    let mut operator = register.client().await;
    let reply = operator.drain(DrainRequest { gateway: "b".into(), by: None }).await.unwrap().into_inner();
    assert_eq!(reply.incarnation, b.incarnation().to_string());
    let MemberEvent::Drain { by } = event(&mut b).await else { panic!("not drained") };
    // As every caller of this register.
    assert_eq!((&*by.who, &*by.how, &*by.from), ("secret", "grpc", "127.0.0.1"));
    let nobody = operator.drain(DrainRequest { gateway: "nobody".into(), by: None }).await.unwrap_err();
    assert_eq!(nobody.code(), Code::NotFound);

    let incarnation = b.incarnation().to_string();
    operator.leave(LeaveRequest { incarnation: incarnation.clone() }).await.unwrap();
    assert!(matches!(event(&mut b).await, MemberEvent::Removed { .. }));
    assert_eq!(operator.leave(LeaveRequest { incarnation }).await.unwrap_err().code(), Code::NotFound);
    let known = Some(View::clone(&b.views().borrow()));
    let again = member::join(member::Config { known, ..config(&registers, "b") });
    assert_ne!(again.incarnation(), b.incarnation());
    until(again.views(), |view| view::find(view, again.incarnation()).is_some()).await;
    register.stop().await;
}

#[tokio::test]
async fn garbage_on_the_port_disturbs_no_member() {
    let register = Running::start().await;
    let a = worker(&[register.name()], "a");
    let before = until(a.views(), |view| names(view) == ["a"]).await;
    let mut open = Vec::new();
    for garbage in [
        &b"\0\xff\xfe garbage \r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM",
    ] {
        let mut stream = TcpStream::connect(register.address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        open.push(stream);
    }
    let nonsense = timeout(PATIENCE, open[0].read_to_end(&mut Vec::new())).await;
    assert!(nonsense.is_ok(), "garbage was not hung up on");
    let mut client = register.client().await;
    let silent = client.join(tokio_stream::once(JoinRequest { request: None })).await.unwrap();
    let mut beats_first = silent.into_inner();
    assert!(timeout(PATIENCE, beats_first.message()).await.unwrap().unwrap().is_none());
    let hello = Hello::default();
    let hello = JoinRequest { request: Some(Request::Hello(hello)) };
    let mut refused = client.join(tokio_stream::once(hello)).await.unwrap().into_inner();
    let status = timeout(PATIENCE, refused.message()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(epoch(&a.views().borrow().clone()), epoch(&before));
    assert!(a.register().heard);
    // The half-open connection and the watcher do not hold up the stop.
    let _watch = member::watch(vec![register.name()], Secret::parse(SECRET).unwrap());
    register.stop().await;
}

#[tokio::test]
async fn a_member_whose_first_registers_are_not_there_finds_the_last() {
    let register = Running::start().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = closed.local_addr().unwrap().to_string();
    drop(closed);
    let registers =
        [dead, "no-such-host.invalid:7100".into(), format!("localhost:{}", register.address.port())];
    let a = worker(&registers, "a");
    until(a.views(), |view| names(view) == ["a"]).await;
    assert_eq!(a.register().address, registers[2]);
    register.stop().await;
}

#[tokio::test]
async fn a_view_from_a_peer_is_installed_and_a_higher_term_is_followed() {
    let (first, second) = (Running::start().await, Running::start().await);
    let registers = [first.name(), second.name()];
    let a = worker(&registers, "a");
    until(a.views(), |view| names(view) == ["a"]).await;
    let b = worker(&[second.name()], "b");
    until(b.views(), |view| names(view) == ["b"]).await;
    // As if the second register were already ahead, by what a peer of its cluster says.
    let mut ahead = View::clone(&b.views().borrow());
    let higher = epoch(&a.views().borrow()).term.max(epoch(&ahead).term) + 9;
    ahead.epoch = Some(Epoch::new(higher, 1));
    a.learn(Arc::new(ahead));
    let view = until(a.views(), |view| epoch(view).term > higher).await;
    assert_eq!(names(&view), ["a", "b"]);
    until(b.views(), |view| names(view) == ["a", "b"]).await;
    assert_ne!(a.incarnation(), Incarnation::from_bits(0));
    first.stop().await;
    second.stop().await;
}

/// A register's address that leads there only from now on.
fn forward(port: &Port, to: SocketAddr) {
    let listener = port.listen();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut to = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
}

/// Two registers run, and the members of each do not reach the other at first.
#[tokio::test]
async fn two_registers_that_both_run_become_one() {
    let lease = Duration::from_secs(5);
    let listen = async || Running::with(TcpListener::bind("127.0.0.1:0").await.unwrap(), lease);
    let (first, second) = (listen().await, listen().await);
    let (to_first, to_second) = (Port::take(), Port::take());
    let here = [first.name(), to_second.address.to_string()];
    let there = [second.name(), to_first.address.to_string()];
    let members = [
        gateway(&here, "a", 7301),
        gateway(&here, "b", 7302),
        gateway(&there, "c", 7303),
        gateway(&there, "d", 7304),
    ];
    for (member, both) in members.iter().zip([["a", "b"], ["a", "b"], ["c", "d"], ["c", "d"]]) {
        until(member.views(), |view| names(view) == both).await;
    }
    forward(&to_first, first.address);
    forward(&to_second, second.address);
    for member in &members {
        let view = until(member.views(), |view| names(view) == ["a", "b", "c", "d"]).await;
        assert!(view::find(&view, member.incarnation()).is_some(), "nobody had to come back as another");
    }
    // It stays so, and the other register knows nobody.
    tokio::time::sleep(lease + Duration::from_secs(2)).await;
    let mut counts = Vec::new();
    for register in [&first, &second] {
        let views = register.client().await.watch(WatchRequest::default()).await.unwrap();
        counts.push(views.into_inner().message().await.unwrap().unwrap().members.len());
    }
    counts.sort_unstable();
    assert_eq!(counts, [0, 4]);
    for member in &members {
        let status = member.register();
        assert!(status.heard && status.outside.is_empty(), "{status:?}");
    }
    first.stop().await;
    second.stop().await;
}

/// Members look at their own register every second: that must not cost a view each.
#[tokio::test]
async fn watcher_that_knows_the_term_gets_no_members() {
    let register = Running::start().await;
    let member = worker(&[register.name()], "a");
    let view = until(member.views(), |view| names(view) == ["a"]).await;
    let seen = async |known_term| {
        let watched = register.client().await.watch(WatchRequest { known_term }).await.unwrap();
        watched.into_inner().message().await.unwrap().unwrap()
    };
    let term = epoch(&view).term;
    for other in [0, term + 1] {
        assert_eq!(seen(other).await, *view);
    }
    let brief = seen(term).await;
    assert_eq!((epoch(&brief), brief.members.len()), (epoch(&view), 0));
    register.stop().await;
}

/// Only one member knows both registers: it brings the others together, which know one address each.
#[tokio::test]
async fn members_that_know_one_address_are_referred_to_the_other_register() {
    let lease = Duration::from_secs(5);
    let listen = async || Running::with(TcpListener::bind("127.0.0.1:0").await.unwrap(), lease);
    let (first, second) = (listen().await, listen().await);
    let to_second = Port::take();
    let members = [
        gateway(&[first.name()], "a", 7311),
        gateway(&[first.name(), to_second.address.to_string()], "b", 7312),
        gateway(&[second.name()], "c", 7313),
    ];
    for (member, names_there) in members.iter().zip([&["a", "b"][..], &["a", "b"], &["c"]]) {
        until(member.views(), |view| names(view) == names_there).await;
    }
    // From now on one of them sees both.
    forward(&to_second, second.address);
    let mut terms = Vec::new();
    for member in &members {
        let view = until(member.views(), |view| names(view) == ["a", "b", "c"]).await;
        terms.push(epoch(&view).term);
    }
    // It stays so, and a member at an address that is not configured says so.
    tokio::time::sleep(lease + Duration::from_secs(2)).await;
    for member in &members {
        let view = until(member.views(), |view| names(view) == ["a", "b", "c"]).await;
        assert!(view::find(&view, member.incarnation()).is_some(), "nobody had to come back as another");
        terms.push(epoch(&view).term);
    }
    assert!(terms[3..].iter().all(|term| *term == terms[3]), "{terms:?}");
    let statuses: Vec<_> = members.iter().map(ClusterMember::register).collect();
    assert!(statuses.iter().all(|status| status.heard && status.outside.is_empty()), "{statuses:?}");
    let elsewhere = statuses.iter().filter(|status| status.trouble.contains("not among cluster.register"));
    assert_eq!(elsewhere.count(), 1, "{statuses:?}");
    first.stop().await;
    second.stop().await;
}

/// Two registers behind one address, by chance, as a balancer has it: members see both, and end up at one.
#[tokio::test]
async fn two_registers_behind_one_address_become_one() {
    let lease = Duration::from_secs(5);
    let listen = async || Running::with(TcpListener::bind("127.0.0.1:0").await.unwrap(), lease);
    let registers = [listen().await, listen().await];
    let balancer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = balancer.local_addr().unwrap().to_string();
    let targets: Vec<_> = registers.iter().map(|register| register.address).collect();
    tokio::spawn(async move {
        loop {
            let (mut from, _) = balancer.accept().await.unwrap();
            let by_chance = std::hash::RandomState::new().hash_one(0);
            let to = targets[(by_chance % 2) as usize];
            tokio::spawn(async move {
                let mut to = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    let known = [address];
    let a = gateway(&known, "a", 7321);
    until(a.views(), |view| names(view) == ["a"]).await;
    let b = gateway(&known, "b", 7322);
    let members = [a, b];
    for member in &members {
        until(member.views(), |view| names(view) == ["a", "b"]).await;
    }
    until(members[0].views(), |view| epoch(view) == epoch(&members[1].views().borrow())).await;
    for register in registers {
        register.stop().await;
    }
}

/// A process that starts while two registers run does not make a cluster of its own at the idle one.
#[tokio::test]
async fn newcomer_goes_to_the_register_that_has_members() {
    let (idle, active) = (Running::start().await, Running::start().await);
    let a = worker(&[active.name()], "a");
    until(a.views(), |view| names(view) == ["a"]).await;
    let b = worker(&[idle.name(), active.name()], "b");
    until(b.views(), |view| names(view) == ["a", "b"]).await;
    assert_eq!(b.register().address, active.name());
    idle.stop().await;
    active.stop().await;
}

/// A service's name as the advertised address of two gateways: the older one stays.
#[tokio::test]
async fn two_gateways_at_one_address_do_not_make_each_other_leave() {
    let register = Running::start().await;
    let registers = [register.name()];
    let at = |name| {
        let advertise = Advertise::Address("gateways.internal:7200".into());
        member::join(member::Config { role: Role::Gateway, advertise, ..config(&registers, name) })
    };
    let older = at("older");
    let before = until(older.views(), |view| names(view) == ["older"]).await;
    let mut newer = at("newer");
    let MemberEvent::Refused { sentence, fatal } = event(&mut newer).await else { panic!("not refused") };
    assert!(sentence.contains("advertise") && !fatal, "{sentence}");
    tokio::time::sleep(3 * LEASE).await;
    assert_eq!(epoch(&older.views().borrow()).count, epoch(&before).count, "nobody came or went");
    // It crashes: the other one is taken in.
    let watch = member::watch(vec![register.name()], Secret::parse(SECRET).unwrap());
    drop(older);
    until(watch.views(), |view| names(view) == ["newer"]).await;
    register.stop().await;
}
