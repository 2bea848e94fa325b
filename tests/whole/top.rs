//! `broadgate top`, and what gateways count for it.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use broadgate_proto::{
    limits::SURVEYS_MAX,
    v1::{self, TopBy, TopReply, TopRequest, TopSort, observe_client::ObserveClient},
};
use serde_json::Value;

use crate::harness::*;

/// Sends to a group until it is dropped.
struct Publisher(tokio::task::JoinHandle<()>);

impl Publisher {
    async fn start(cluster: &Cluster, group: &str) -> Self {
        let (mut caller, group) = (cluster.caller(0).await, group.to_owned());
        Self(tokio::spawn(async move {
            loop {
                let _ = caller.send(text(groups(&[&group]), "0123456789")).await;
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }))
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn counters(cluster: &Cluster, gateway: usize) -> v1::GatewayCounters {
    let status = cluster.status(gateway).await.unwrap();
    let name = format!("gateway-{}", gateway + 1);
    status.gateways.into_iter().find(|known| known.name == name).unwrap().counters.unwrap()
}

#[tokio::test]
async fn gateways_count_what_they_carry() {
    let cluster = Cluster::quiet(2).start().await;
    let mut clients = Vec::new();
    for gateway in [0, 0, 1] {
        clients.push(cluster.client(gateway).await);
    }
    let ids: Vec<&str> = clients.iter().map(|client| client.id.as_str()).collect();
    let mut caller = cluster.caller(0).await;
    caller.join(join(&ids, &["g"])).await.unwrap();
    let before = [counters(&cluster, 0).await, counters(&cluster, 1).await];
    for _ in 0..5 {
        caller.send(text(groups(&["g"]), "0123456789")).await.unwrap();
    }
    let after = [counters(&cluster, 0).await, counters(&cluster, 1).await];
    for (gateway, copies) in [(0, 10), (1, 5)] {
        let (before, after) = (&before[gateway], &after[gateway]);
        assert_eq!(after.messages_out - before.messages_out, copies);
        assert_eq!(after.bytes_out - before.bytes_out, copies * 10);
        assert!(after.at_us > before.at_us && !after.shards.is_empty());
        assert_eq!(after.shards.iter().map(|shard| shard.clients).sum::<u64>(), copies / 5);
        assert!(after.shards.iter().all(|shard| shard.cpu_us > 0), "{after:?}");
        assert!(after.homes_busy_us > 0, "{after:?}");
    }
    assert_eq!(cluster.run(&["kick", "--client", &clients[2].id]).0, 0);
    clients[1].goodbye(1000, "").await;
    for (gateway, cause) in [(0, "client"), (1, "command")] {
        until(&format!("a close by {cause} is counted"), async || {
            (counters(&cluster, gateway).await.closes.get(cause) == Some(&1)).then_some(())
        })
        .await;
    }
}

/// Asks until the gateways have measured, and the answer has what is expected.
async fn measured(cluster: &Cluster, request: TopRequest, has: impl Fn(&TopReply) -> bool) -> TopReply {
    let address = format!("http://{}", cluster.internal[1]);
    let observe = ObserveClient::connect(address).await.unwrap();
    until("top has measured", async || {
        let reply = observe.clone().top(request.clone()).await.unwrap().into_inner();
        (reply.measured_ms > 0 && has(&reply)).then_some(reply)
    })
    .await
}

#[tokio::test]
async fn what_is_busy_is_found_and_named() {
    let cluster = Cluster::quiet(2).start().await;
    let (near, far) = (cluster.client(0).await, cluster.client(1).await);
    let idle = cluster.client(1).await;
    let mut caller = cluster.caller(0).await;
    caller.join(join(&[&near.id, &far.id], &["loud"])).await.unwrap();
    caller.join(join(&[&idle.id], &["quiet"])).await.unwrap();
    caller.bind(bind(&far.id, "ann")).await.unwrap();
    let _publisher = Publisher::start(&cluster, "loud").await;
    let by =
        |by: TopBy, sort: TopSort| TopRequest { by: by.into(), sort: sort.into(), ..TopRequest::default() };

    let loud = |reply: &TopReply| {
        reply
            .groups
            .first()
            .is_some_and(|row| row.group == "loud" && row.clients == 2 && row.messages_per_s > 1.0)
    };
    let reply = measured(&cluster, by(TopBy::Groups, TopSort::Out), loud).await;
    let row = &reply.groups[0];
    assert!(row.deliveries_per_s > 1.5 * row.messages_per_s, "each has two copies: {row:?}");
    assert!(row.bytes_per_s > 9.0 * row.deliveries_per_s, "{row:?}");
    assert!((row.app == "default", row.home.starts_with("gateway-")) == (true, true), "{row:?}");
    assert!(reply.coverage.unwrap().complete);
    // By its members the quiet one is listed as well.
    let members = by(TopBy::Groups, TopSort::Clients);
    let reply = measured(&cluster, members, |reply| reply.groups.len() == 2).await;
    let names: Vec<&str> = reply.groups.iter().map(|row| row.group.as_str()).collect();
    assert_eq!(names, ["loud", "quiet"]);

    let both =
        |reply: &TopReply| reply.clients.iter().filter(|row| row.messages_out_per_s > 1.0).count() == 2;
    let reply = measured(&cluster, by(TopBy::Clients, TopSort::Bytes), both).await;
    let row = reply.clients.iter().find(|row| row.client_id == far.id).unwrap();
    assert_eq!((&*row.uid, &*row.gateway, &*row.app), ("ann", "gateway-2", "default"));
    assert!(!reply.clients[..2].iter().any(|row| row.client_id == idle.id), "{reply:?}");

    let busy = |reply: &TopReply| reply.apps.first().is_some_and(|row| row.messages_out_per_s > 2.0);
    let reply = measured(&cluster, by(TopBy::Apps, TopSort::Out), busy).await;
    let row = &reply.apps[0];
    assert_eq!((&*row.app, row.clients, row.clients_at_a_gateway), ("default", 3, 2));

    // Another app has nothing of it.
    let other = TopRequest { app: "other".into(), ..by(TopBy::Groups, TopSort::Out) };
    assert!(measured(&cluster, other, |_| true).await.groups.is_empty());
}

/// Each caller by its name: a worker, a token's holder, an app's backend, and those with the secret.
#[tokio::test]
async fn who_commands_most_is_named() {
    let cluster = Cluster::quiet(2).start().await;
    let mut caller = cluster.caller(0).await;
    let worker = format!("http://{}", cluster.internal[1]);
    let mut worker = v1::gateway_client::GatewayClient::connect(worker).await.unwrap();
    for _ in 0..3 {
        caller.send(text(groups(&["g"]), "0123456789")).await.unwrap();
        let mut request = tonic::Request::new(text(groups(&["g"]), "0123"));
        request.metadata_mut().insert("broadgate-worker", "chat-1".parse().unwrap());
        worker.send(request).await.unwrap();
    }
    let callers = TopRequest { by: TopBy::Callers.into(), app: "default".into(), ..TopRequest::default() };
    let reply = measured(&cluster, callers, |reply| {
        reply.callers.len() == 2 && reply.callers.iter().all(|row| row.sends_per_s > 0.0)
    })
    .await;
    let row = |who: &str| reply.callers.iter().find(|row| row.caller == who).unwrap();
    // The questions of this test concern the app as well.
    assert_eq!(
        (row("worker:chat-1").commands, &row("worker:chat-1").gateways[..]),
        (3, &["gateway-2".to_owned()][..])
    );
    assert!(row("local").commands >= 3, "{reply:?}");
    let (local, worker) = (row("local"), row("worker:chat-1"));
    assert!((local.bytes_per_s - 10.0 * local.sends_per_s).abs() < 1e-6, "{local:?}");
    assert!((worker.bytes_per_s - 4.0 * worker.sends_per_s).abs() < 1e-6, "{worker:?}");
    assert!(local.last_at_ms > 0 && local.gateways.contains(&"gateway-1".to_owned()), "{local:?}");
}

/// Asks for the top in JSON; the whole answer.
async fn as_json(cluster: &Cluster, body: &str) -> String {
    let request = format!(
        "POST /v1/Top HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        cluster.internal[0],
        body.len()
    );
    let address = cluster.internal[0].parse().unwrap();
    let answer = crate::malformed_input::answer(address, request.as_bytes(), false).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn questions_that_are_too_many_or_wrong_are_refused() {
    let cluster = Cluster::quiet(1).start().await;
    let mut observe = ObserveClient::connect(format!("http://{}", cluster.internal[0])).await.unwrap();
    let wrong = observe.top(TopRequest { by: 99, ..TopRequest::default() }).await.unwrap_err();
    assert_eq!(wrong.code(), tonic::Code::InvalidArgument, "{wrong}");
    // As JSON, by its names.
    let answer = as_json(&cluster, r#"{"by":"TOP_BY_APPS"}"#).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""app":"default""#), "{answer}");
    let answer = as_json(&cluster, r#"{"by":"TOP_BY_APP"}"#).await;
    let why = r#"invalid by \"TOP_BY_APP\": expected TOP_BY_GROUPS, TOP_BY_CLIENTS, TOP_BY_APPS, "#;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(why), "{answer}");
    let mut refused = 0;
    for number in 0..20 {
        let app = format!("app-{number}");
        let answer = observe.top(TopRequest { by: TopBy::Groups.into(), app, ..TopRequest::default() }).await;
        refused += usize::from(answer.is_err_and(|status| status.code() == tonic::Code::Unavailable));
    }
    assert_eq!(refused, 20 - (SURVEYS_MAX - 1), "one measures clients, of all apps");
}

#[tokio::test]
async fn workers_are_timed() {
    let cluster = Cluster::of(1).start().await;
    let mut worker = TestWorker::attach(&cluster.internal[0], 1).await;
    let mut client = cluster.client_at(0).await;
    let opened = worker.event().await;
    worker.ack(&opened).await;
    for number in 0..3 {
        client.say(&number.to_string()).await;
        let event = worker.takes(&number.to_string()).await;
        worker.ack(&event).await;
    }
    until("an answer is timed", async || {
        let status = cluster.status(0).await?;
        let worker = status.workers.first()?;
        assert!(worker.answers_timed <= 1, "one in 64 is timed: {worker:?}");
        (worker.answers_timed == 1 && worker.answers_us > 0 && worker.events_sent >= 3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_prints_once_for_pipes_and_scripts() {
    let cluster = Cluster::quiet(2).start().await;
    let client = cluster.client(1).await;
    cluster.caller(0).await.join(join(&[&client.id], &["loud"])).await.unwrap();
    let _publisher = Publisher::start(&cluster, "loud").await;
    let run = |args: &[&str]| tokio::task::block_in_place(|| cluster.run(args));
    // A slow machine may need several looks.
    let row = until("the group is loud", async || {
        let (code, out, problem) = run(&["top", "--json", "--interval", "1s"]);
        assert_eq!((code, problem.as_str()), (0, ""), "{out}");
        let value: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(value["gateways"].as_array().unwrap().len(), 2, "{value}");
        value["groups"].as_array()?.first().cloned().filter(|row| row["messages_per_s"].as_f64() > Some(0.0))
    })
    .await;
    assert_eq!((&row["group"], &row["clients"]), (&"loud".into(), &1.into()), "{row}");
    for (view, words) in [
        ("groups", &["default/loud", "gateway-1", "gateway-2", "OUT/S*"][..]),
        ("clients", &[&*client.id, "OUTBOX"]),
        ("apps", &["default", "REFUSED"]),
        ("workers", &["UNANSWERED", "gateway-1"]),
        ("callers", &["COMMANDS/S*", "local", "gateway-1"]),
    ] {
        let (code, out, _) = run(&["top", view, "--interval", "1s"]);
        assert_eq!(code, 0, "{out}");
        for word in words {
            assert!(out.contains(word), "{view}, {word}: {out}");
        }
    }
    let (_, out, _) = run(&["top", "--filter", "no such group", "--interval", "500ms"]);
    assert!(out.contains("GROUP") && !out.contains("default/loud"), "{out}");
    for (args, words) in [
        (&["top", "workers", "--sort", "bytes"][..], "are sorted by"),
        (&["top", "--interval", "10ms"], "500ms"),
        (&["top", "publishers"], "possible values"),
    ] {
        let (code, _, problem) = run(args);
        assert!(code == 2 && problem.contains(words), "{problem}");
    }
}

/// `broadgate top` on a pseudo-terminal of its own.
struct Screen {
    process: Child,
    typed: File,
    printed: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

/// Says to the test below that a screen has started it.
const ON_A_SCREEN: &str = "TEST_ON_A_SCREEN";

/// Started by a screen as a process of its own, which becomes the program.
#[test]
#[ignore = "it leaves its terminal and becomes another program"]
fn becomes_top_on_a_terminal() {
    assert!(std::env::var_os(ON_A_SCREEN).is_some(), "only for the tests below");
    take_terminal();
    let program = env!("CARGO_BIN_EXE_broadgate");
    let error = Command::new(program).args(["top", "--interval", "500ms"]).exec();
    panic!("{program}: {error}");
}

impl Screen {
    fn start(cluster: &Cluster) -> Self {
        let pty = Pty::open();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "top::becomes_top_on_a_terminal", "--nocapture"])
            .env(ON_A_SCREEN, "1")
            .env("BROADGATE_ADDR", &cluster.internal[0])
            .env("TERM", "xterm-256color")
            .env_remove("BROADGATE_SECRET")
            .envs(cluster.environment())
            .stdin(pty.terminal())
            .stdout(pty.terminal())
            .stderr(pty.terminal())
            .spawn()
            .unwrap();
        let typed = File::from(pty.controller);
        let mut controller = typed.try_clone().unwrap();
        let printed = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&printed);
        // It ends when the program has closed the terminal.
        let reader = std::thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(count @ 1..) = controller.read(&mut some) {
                all.lock().unwrap().extend_from_slice(&some[..count]);
            }
        });
        Self { process, typed, printed, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.printed.lock().unwrap()).into_owned()
    }

    async fn shows(&self, word: &str) {
        until(&format!("the screen shows {word:?}"), async || self.text().contains(word).then_some(())).await;
    }

    /// Only what changes is written, letter by letter: this asks for the whole screen.
    async fn redraws(&mut self, word: &str) {
        let screen = std::cell::RefCell::new(self);
        until(&format!("the screen shows {word:?}"), async || {
            screen.borrow_mut().press("\u{c}");
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            screen.borrow().text().contains(word).then_some(())
        })
        .await;
    }

    fn press(&mut self, keys: &str) {
        self.typed.write_all(keys.as_bytes()).unwrap();
    }

    fn signal(&self, name: &str) {
        signal(self.process.id(), name);
    }

    /// How often the terminal was taken over, and given back.
    fn taken(&self) -> (usize, usize) {
        let text = self.text();
        (text.matches("\u{1b}[?1049h").count(), text.matches("\u{1b}[?1049l").count())
    }

    fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    }

    /// Its code, when all that it has printed is read.
    async fn ends(&mut self) -> Option<i32> {
        let process = std::cell::RefCell::new(&mut self.process);
        let status = until("the program ends", async || process.borrow_mut().try_wait().unwrap()).await;
        until("all is read", async || self.reader.is_finished().then_some(())).await;
        status.code()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn the_terminal_is_taken_and_given_back() {
    let cluster = Cluster::quiet(1).start().await;
    let client = cluster.client(0).await;
    cluster.caller(0).await.join(join(&[&client.id], &["room"])).await.unwrap();
    let publisher = Publisher::start(&cluster, "room").await;
    let mut screen = Screen::start(&cluster);
    screen.shows("gateway-1").await;
    screen.redraws("default/room").await;
    screen.press("c");
    screen.redraws(&client.id).await;
    screen.press("y");
    screen.redraws("top clients --sort out").await;
    assert_eq!(screen.taken(), (1, 0));
    screen.press("q");
    assert_eq!(screen.ends().await, Some(0));
    assert_eq!(screen.taken(), (1, 1));
    drop(publisher);

    let mut screen = Screen::start(&cluster);
    screen.shows("gateway-1").await;
    screen.signal("TERM");
    assert_eq!(screen.ends().await, Some(0));
    assert_eq!(screen.taken(), (1, 1));
}

#[tokio::test]
async fn job_control_stops_and_continues_it() {
    let cluster = Cluster::quiet(1).start().await;
    let mut screen = Screen::start(&cluster);
    screen.shows("gateway-1").await;
    screen.signal("TSTP");
    until("it is stopped", async || screen.is_stopped().then_some(())).await;
    screen.signal("CONT");
    until("it goes on", async || (screen.taken() == (2, 1)).then_some(())).await;
    screen.press("q");
    assert_eq!(screen.ends().await, Some(0));
    assert_eq!(screen.taken(), (2, 2));
}

/// A gateway that hangs is named, and does not hold the screen up.
#[tokio::test]
async fn a_gateway_that_hangs_is_named() {
    let cluster = Cluster::quiet(2).start().await;
    let screen = Screen::start(&cluster);
    screen.shows("gateway-2").await;
    cluster.gateways[1].signal("STOP");
    screen.shows("ANSWER").await;
    cluster.gateways[1].signal("CONT");
}
