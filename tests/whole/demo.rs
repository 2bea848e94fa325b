//! What the README shows, on the cluster that it starts: `broadgate up`, its chat, its commands, its worker.

use broadgate_business::{Worker, WorkerConfig};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{documents, harness::*, http::post, operator::run, up::free_base};

/// The README's worker; the documents' test compares the text.
#[allow(dead_code)]
#[path = "../../business/examples/readme.rs"]
mod readme;

/// A cluster of `broadgate up`, ended with its guard.
struct Up {
    process: Process,
    base: u16,
    // Dropped last.
    _one: Cluster,
}

impl Up {
    async fn start(more: &[&str]) -> Self {
        let one = Cluster::of(0).start().await;
        let base = free_base();
        let (port, state) =
            (format!("--base-port={base}"), format!("--state={}", one.dir.join("s").display()));
        let args = [&["up", &port, &state], more].concat();
        let process = Process::start(&one.dir, "up", &args, &[]);
        until("the cluster is ready", async || process.log().contains("The cluster is ready").then_some(()))
            .await;
        Self { process, base, _one: one }
    }

    fn internal(&self) -> String {
        format!("127.0.0.1:{}", self.base + 10)
    }

    /// A page on one of the gateways.
    async fn page(&self, gateway: u16) -> Client {
        Client::connect(&format!("ws://127.0.0.1:{}/ws", self.base + 20 + gateway)).await
    }

    /// A page in a room of the chat, with what it got on entering.
    async fn window(&self, gateway: u16, nick: &str, room: &str) -> (Client, Value, Value) {
        let mut page = self.page(gateway).await;
        request(&mut page, json!({"type": "hello", "nick": nick})).await;
        let welcome = next(&mut page).await;
        assert_eq!((&welcome["type"], &welcome["nick"]), (&"welcome".into(), &nick.into()), "{welcome}");
        assert_eq!(welcome["gateway"], format!("gateway-{}", gateway + 1));
        page.id = welcome["id"].as_str().unwrap().to_owned();
        request(&mut page, json!({"type": "join", "room": room})).await;
        let (history, roster) = (next(&mut page).await, next(&mut page).await);
        assert_eq!((&history["type"], &roster["type"]), (&"history".into(), &"roster".into()));
        assert_eq!((&history["room"], &roster["complete"]), (&room.into(), &true.into()));
        (page, history, roster)
    }

    /// A command as it is typed, at this cluster.
    fn run(&self, args: &[&str]) -> (i32, String) {
        run(&[args, &["--addr", &self.internal()]].concat(), &[])
    }

    /// The README's curl line, as far as it is HTTP.
    async fn curl(&self) {
        let headers = [("Content-Type", "application/json"), ("Host", "127.0.0.1:7200")];
        let (status, receipt) =
            post(&self.internal(), "Send", &headers, &documents::readme_curl_body()).await;
        assert_eq!(status, 200, "{receipt}");
    }
}

async fn request(page: &mut Client, message: Value) {
    page.say(&message.to_string()).await;
}

/// The next message but the time, which comes every ten seconds. Plain text is a JSON string here.
async fn next(page: &mut Client) -> Value {
    loop {
        let text = page.hear().await;
        match serde_json::from_str::<Value>(&text) {
            Ok(message) if message["type"] == "time" => {}
            Ok(message) => return message,
            Err(_) => return Value::String(text),
        }
    }
}

fn nicks(roster: &Value) -> Vec<&str> {
    roster["members"].as_array().unwrap().iter().map(|member| member["nick"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_readmes_commands_act_on_the_demo_chat() {
    let up = Up::start(&[]).await;
    let (mut ann, history, roster) = up.window(0, "ann", "lobby").await;
    assert_eq!((history["messages"].as_array().unwrap().len(), nicks(&roster)), (0, vec!["ann"]));
    let (mut bob, _, roster) = up.window(1, "bob", "lobby").await;
    assert_eq!(nicks(&roster), ["ann", "bob"]);
    let member = json!({"nick": "bob", "gateway": "gateway-2"});
    assert_eq!(next(&mut ann).await, json!({"type": "joined", "room": "lobby", "member": member}));

    request(&mut ann, json!({"type": "say", "text": "hi bob"})).await;
    for page in [&mut ann, &mut bob] {
        let said = next(page).await;
        assert_eq!((&said["from"], &said["text"]), (&"ann".into(), &"hi bob".into()), "{said}");
    }
    // The README's curl and its `send` are plain messages, which the page shows as they are.
    up.curl().await;
    let (code, out) = up.run(&["send", "--group", "lobby", "from the shell"]);
    assert!(code == 0 && out.contains("sent to 2 clients on 2 gateways"), "{out}");
    for page in [&mut ann, &mut bob] {
        assert_eq!(next(page).await, "hello, lobby");
        assert_eq!(next(page).await, "from the shell");
    }

    // Who enters later sees what was said, and neither arrivals nor departures.
    let (mut bob_too, history, roster) = up.window(0, "bob", "lobby").await;
    let messages = history["messages"].as_array().unwrap();
    assert_eq!(
        (messages.len(), &messages[1], &messages[2]),
        (3, &"hello, lobby".into(), &"from the shell".into())
    );
    assert_eq!(serde_json::from_str::<Value>(messages[0].as_str().unwrap()).unwrap()["text"], "hi bob");
    assert_eq!((nicks(&roster), &roster["total"]), (vec!["ann", "bob"], &2.into()));
    for page in [&mut ann, &mut bob] {
        assert_eq!(next(page).await["type"], "joined");
    }

    let (code, out) = up.run(&["clients", "--group", "lobby"]);
    assert!(code == 0 && [&ann.id, &bob.id, &bob_too.id].iter().all(|id| out.contains(*id)), "{out}");
    let (_, out) = up.run(&["roster", "lobby"]);
    assert!(out.contains("ann") && out.contains("{\"gateway\":\"gateway-1\"}"), "{out}");
    let (_, out) = up.run(&["client", &ann.id]);
    assert!(out.contains("ann") && out.contains("{\"room\":\"lobby\"}"), "{out}");
    let (_, out) = up.run(&["uids"]);
    assert!(out.lines().any(|line| line.split_whitespace().eq(["bob", "2"])), "{out}");

    // A private message reaches every window of both people. One of bob's two windows leaves: he is still there.
    request(&mut ann, json!({"type": "private", "to": "bob", "text": "psst"})).await;
    for page in [&mut ann, &mut bob, &mut bob_too] {
        assert_eq!(next(page).await["text"], "psst");
    }
    request(&mut ann, json!({"type": "private", "to": "nobody", "text": "psst"})).await;
    assert_eq!(next(&mut ann).await["error"], "Nobody called nobody is connected.");
    bob_too.goodbye(1000, "").await;
    let (code, _) = up.run(&["kick", "--uid", "ann", "--code", "4001", "--reason", "no shouting"]);
    let closed = ann.closed().await;
    assert_eq!((code, closed.code, &closed.reason[..]), (0, 4001, "no shouting"));
    assert_eq!(next(&mut bob).await, json!({"type": "left", "room": "lobby", "member": {"nick": "ann"}}));
    request(&mut bob, json!({"type": "who"})).await;
    assert_eq!(nicks(&next(&mut bob).await), ["bob"]);

    // Another room has its own people and history.
    request(&mut bob, json!({"type": "join", "room": "coffee"})).await;
    assert_eq!(next(&mut bob).await, json!({"type": "history", "room": "coffee", "messages": []}));
    assert_eq!(nicks(&next(&mut bob).await), ["bob"]);
    let (_, out) = up.run(&["roster", "--json", "lobby"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["total"], 0, "{out}");
    assert!(up.process.log().lines().all(|line| !line.contains("ERROR")), "{}", up.process.log());
}

#[tokio::test]
async fn refused_chat_requests_are_answered() {
    let up = Up::start(&["--gateways=1"]).await;
    let mut page = up.page(0).await;
    for (message, words) in [
        (json!({"type": "who"}), "Say hello first"),
        (json!({"type": "hello", "nick": " "}), "1 to 30 characters"),
        (json!({"type": "dance"}), "Not a message of this chat"),
    ] {
        request(&mut page, message).await;
        let answer = next(&mut page).await;
        assert!(answer["error"].as_str().unwrap().contains(words), "{answer}");
    }
    request(&mut page, json!({"type": "hello", "nick": "ann"})).await;
    assert_eq!(next(&mut page).await["type"], "welcome");
    for (message, words) in [
        (json!({"type": "say", "text": "hi"}), "Join a room first"),
        (json!({"type": "hello", "nick": "bob"}), "connect again to change the nickname"),
        (json!({"type": "private", "to": "x".repeat(1000), "text": "hi"}), "is connected"),
    ] {
        request(&mut page, message).await;
        let answer = next(&mut page).await;
        assert!(answer["error"].as_str().unwrap().contains(words), "{answer}");
    }
}

/// `up --workers 0`, and the README's worker beside it: what one page says, every page hears.
#[tokio::test]
async fn the_readmes_worker_runs_beside_up() {
    let up = Up::start(&["--workers=0"]).await;
    let config =
        WorkerConfig { registers: vec![format!("127.0.0.1:{}", up.base)], ..WorkerConfig::default() };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let worker = tokio::spawn(Worker::new(config).run(readme::shout(), async { drop(stopped.await) }));
    let (mut one, mut other) = (up.page(0).await, up.page(1).await);
    until("both are in the lobby", async || {
        let (_, out) = up.run(&["groups"]);
        out.lines().any(|line| line.split_whitespace().eq(["lobby", "2"])).then_some(())
    })
    .await;
    // As the chat's page does first; that it comes back tells the page that this is not the chat.
    request(&mut one, json!({"type": "hello", "nick": "ann"})).await;
    for page in [&mut one, &mut other] {
        assert_eq!(next(page).await["type"], "hello");
    }
    other.say("shouted").await;
    up.curl().await;
    let mut heard = [Vec::new(), Vec::new()];
    for (page, heard) in [&mut one, &mut other].into_iter().zip(&mut heard) {
        heard.extend([next(page).await, next(page).await]);
        heard.sort_by_key(Value::to_string);
        assert_eq!(*heard, ["hello, lobby", "shouted"]);
    }
    stop.send(()).unwrap();
    soon("the worker stops", worker).await.unwrap().unwrap();
}

#[test]
fn bare_command_prints_help() {
    let (code, out) = run(&[], &[]);
    assert!(
        code == 2 && out.contains("Usage: broadgate <COMMAND>") && out.contains("Default ports"),
        "{out}"
    );
}

#[test]
fn too_high_base_port_is_refused() {
    let (code, out) = run(&["up", "--base-port=65520"], &[]);
    assert!(code == 2 && out.contains("beyond 65535; give at most 65502"), "{code}: {out}");
    assert_eq!(out.trim().lines().count(), 1, "{out}");
}

/// `up --tls`: the processes among each other, the commands that it prints, the chat page and its socket.
#[tokio::test]
async fn demo_runs_over_tls() {
    let mut up = Up::start(&["--tls"]).await;
    let log = up.process.log();
    let config = log.split(" --config ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    assert!(log.contains(&format!("https://127.0.0.1:{}/", up.base + 20)), "{log}");
    let (code, out) = up.run(&["status", "--config", &config]);
    assert!(code == 0 && out.contains("chat-1"), "{code} {out}");
    let (code, out) = up.run(&["status"]);
    assert!(code == 5, "{code} {out}");
    let ca = std::path::Path::new(&config).with_file_name("ca.pem");
    let roots = broadgate_tls::load_roots(&ca, &mut broadgate_tls::FileReads::default()).unwrap();
    let mut trusting = broadgate_tls::client_config(roots, None).unwrap();
    trusting.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = broadgate_tls::tokio_rustls::TlsConnector::from(std::sync::Arc::new(trusting));
    let connect = async || {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", up.base + 20)).await.unwrap();
        connector.connect("localhost".try_into().unwrap(), stream).await.unwrap()
    };
    let (mut page, mut text) = (connect().await, String::new());
    page.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    soon("the chat page comes", page.read_to_string(&mut text)).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("<html"), "{text}");
    let url = format!("wss://localhost:{}/ws", up.base + 20);
    let (mut chat, _) = tokio_tungstenite::client_async(&url, connect().await).await.unwrap();
    let hello = json!({"type": "hello", "nick": "ann"}).to_string();
    chat.send(tokio_tungstenite::tungstenite::Message::text(hello)).await.unwrap();
    let welcome = soon("the chat answers", chat.next()).await.unwrap().unwrap().into_text().unwrap();
    assert!(welcome.contains("welcome") && welcome.contains("ann"), "{welcome}");
    up.process.signal("INT");
    assert_eq!(up.process.ended().await.code(), Some(0));
    assert!(!ca.exists(), "the certificates end with the demo");
}
