//! Who did it: callers in `why`, the audit's lines, and the events of the cluster.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use broadgate_proto::v1;
use serde_json::{Value, json};

use crate::{
    harness::*,
    operator,
    tokens::{self, TokensFile, as_json},
};

const SECRET: &str = "secret-of-the-audit-0123456789abcdef";

/// A file beside the cluster, removed with this.
pub struct AuditFile(PathBuf);

impl AuditFile {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("broadgate-{name}-{}.jsonl", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    pub fn section(&self) -> String {
        format!("[gateway.audit]\nfile = {:?}", self.0)
    }

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap_or_default()
    }

    /// The first line of which this is true, as soon as there is one.
    pub async fn line(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        until(what, async || Self::lines(&self.0).into_iter().find(|line| is_it(line))).await
    }
}

impl Drop for AuditFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        let _ = std::fs::remove_file(self.0.with_extension("1"));
    }
}

/// The end of a client, once it is known.
async fn end_of(cluster: &Cluster, gateway: usize, client: &str) -> Value {
    let body = json!({ "client_id": client }).to_string();
    until("the end is known", async || {
        let (_, reply) = as_json(&cluster.internal[gateway], "Ended", &cluster.secret, &body).await;
        reply["ended"].get(0).cloned()
    })
    .await
}

/// The id of a client of this gateway.
pub async fn id_of(cluster: &Cluster, gateway: &str, client: &Client) -> String {
    until("the client is listed", async || {
        let body = json!({"of": {"all": true}, "fields": ["CLIENT_FIELD_CONNECTION"]}).to_string();
        let (_, page) = as_json(&cluster.internal[0], "ListClients", &cluster.secret, &body).await;
        // Two connections to different gateways may have the same local port.
        let is_it = |found: &&Value| found["address"] == client.local.as_str() && found["gateway"] == gateway;
        Some(page["clients"].as_array()?.iter().find(is_it)?["client_id"].as_str()?.to_owned())
    })
    .await
}

/// A client is closed by a caller at another gateway, and why names the caller, for each kind of caller.
#[tokio::test]
async fn why_names_who_closed_a_client() {
    let mut tokens = TokensFile::new("callers");
    let ann = tokens.add("ann", &["--role", "operator"]);
    let cluster = Cluster::quiet(2).secret(SECRET).gateway(&tokens.setting()).start().await;
    let here = &cluster.internal[0];
    let mut clients = Vec::new();
    for number in 0..5 {
        let client = cluster.client_at(1).await;
        let id = id_of(&cluster, "gateway-2", &client).await;
        let bind = json!({"client_id": id, "uid": format!("user-{number}")}).to_string();
        assert_eq!(as_json(here, "Bind", SECRET, &bind).await.0, 200);
        clients.push((client, id));
    }
    // The caller's own word does not count.
    let close =
        |number: usize| json!({"to": {"uids": [format!("user-{number}")]}, "by": "token:ben"}).to_string();
    assert_eq!(as_json(here, "Close", &ann, &close(0)).await.1["clients"], 1);
    assert_eq!(as_json(here, "Close", SECRET, &close(1)).await.1["clients"], 1);
    let bearer = format!("Bearer {SECRET}");
    let worker = [
        ("Content-Type", "application/json"),
        ("Host", "x"),
        ("Authorization", &bearer),
        ("broadgate-worker", "chat-1"),
    ];
    assert_eq!(crate::http::post(here, "Close", &worker, &close(2)).await.1["clients"], 1);
    // To one client, and by an exclusive bind of another one.
    let (_, one) = &clients[3];
    let only = json!({"to": {"clients": [one]}}).to_string();
    assert_eq!(as_json(here, "Close", &ann, &only).await.1["clients"], 1);
    let other = cluster.client_at(0).await;
    let found = id_of(&cluster, "gateway-1", &other).await;
    let alone = json!({"client_id": found, "uid": "user-4", "exclusive": true}).to_string();
    assert_eq!(as_json(here, "Bind", &ann, &alone).await.0, 200);
    for ((_, id), by) in
        clients.iter().zip(["token:ann", "secret", "worker:chat-1", "token:ann", "token:ann"])
    {
        let end = end_of(&cluster, 0, id).await;
        assert_eq!((&end["by"], &end["gateway"]), (&json!(by), &json!("gateway-2")), "{end}");
        assert!(!end["command_id"].as_str().unwrap().is_empty());
    }
    // By its id, each is known as what it is.
    let end = end_of(&cluster, 0, &clients[2].1).await;
    let id = end["command_id"].as_str().unwrap();
    let (code, text, err) = cluster.run(&["why", "--command", id]);
    assert_eq!(code, 0, "{err}");
    for said in [
        &*format!("{id} sent nothing: it is an order\n"),
        "worker:chat-1: close {\"app\":\"default\",\"uids\":[\"user-2\"]}, 1 client [json from 127.0.0.1, command ",
        "it closed 1 client, as far",
        "(uid user-2) of app default on gateway-2\n",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let (code, out, _) = cluster.run(&["why", "--command", id, "--app", "default", "--json"]);
    let order = operator::json(&out)["order"].clone();
    assert_eq!((code, &order["audit"]["who"]), (0, &json!("worker:chat-1")), "{out}");
    assert_eq!(order["ended"][0]["uid"], "user-2", "{out}");
    let (code, text, _) = cluster.run(&["why", "--uid", "user-0"]);
    assert!(code == 0 && text.contains("of token:ann"), "{text}");
}

/// What callers did is written down: who, from where, what, to whom, and what came of it; nothing that was said.
#[tokio::test]
async fn audit_has_who_did_what() {
    let (mut tokens, file) = (TokensFile::new("audit"), AuditFile::new("audit"));
    let ann = tokens.add("ann", &["--role", "operator", "--right", "payload"]);
    let cluster =
        Cluster::quiet(1).secret(SECRET).gateway(&tokens.setting()).more(&file.section()).start().await;
    let here = &cluster.internal[0];
    let close = json!({"to": {"uids": ["42"]}, "text": "farewell", "command_id": "c-1"}).to_string();
    assert_eq!(as_json(here, "Close", &ann, &close).await.0, 200);
    // An operator's order is answered when its line is queued.
    let line = file.line("the close", |line| line["what"] == "close").await;
    let told = ["who", "role", "how", "from", "command_id", "gateway"].map(|key| line[key].as_str().unwrap());
    assert_eq!(told, ["token:ann", "operator", "json", "127.0.0.1", "c-1", "gateway-1"]);
    assert_eq!(
        (&line["on"], &line["clients"], &line["complete"]),
        (&json!({"app": "default", "uids": ["42"]}), &json!(0), &json!(true))
    );
    assert_eq!(std::fs::metadata(&file.0).unwrap().permissions().mode() & 0o777, 0o600);

    // The command line over its stream; refusals; looks at payloads; a login.
    let token = tokens.file_of("ann");
    let (code, _, err) = cluster.run(&["kick", "--uid", "43", "--token-file", &token]);
    assert_eq!(code, 0, "{err}");
    let (code, ..) = cluster.run(&["kick", "--all", "--yes", "--token-file", &token]);
    assert_eq!(code, 6);
    let unknown = format!("bgt_{}", "x".repeat(43));
    assert_eq!(as_json(here, "WhoAmI", &unknown, "{}").await.0, 401);
    assert_eq!(as_json(here, "WhoAmI", &ann, "{}").await.0, 200);
    assert_eq!(as_json(here, "History", &ann, "{\"group\":\"room\"}").await.0, 200);
    assert_eq!(as_json(here, "History", SECRET, "{\"group\":\"room-of-a-program\"}").await.0, 200);
    assert_eq!(as_json(here, "Dissolve", SECRET, "{\"groups\":[\"room\"]}").await.0, 200);
    let line = file.line("the kick", |line| line["on"]["uids"] == json!(["43"])).await;
    assert_eq!((&line["who"], &line["how"]), (&json!("token:ann"), &json!("cli")));
    for (what, who) in [
        ("denied", "token:ann"),
        ("token_refused", "token:?"),
        ("login", "token:ann"),
        ("history", "token:ann"),
        ("dissolve", "secret"),
    ] {
        let line = file.line(what, |line| line["what"] == what).await;
        assert_eq!(line["who"], who, "{line}");
    }
    let all = std::fs::read_to_string(&file.0).unwrap();
    for never in ["farewell", &ann, &unknown, SECRET, "room-of-a-program"] {
        assert!(!all.contains(never), "{never} is in {all}");
    }
    // The events have the lines, too.
    let (code, text, _) = cluster.run(&["events", "--kind", "audit", "--json"]);
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lines: Vec<Value> = events
        .iter()
        .map(|event| serde_json::from_str(event["audit_json"].as_str().unwrap()).unwrap())
        .collect();
    assert!(code == 0 && lines.iter().any(|line| line["command_id"] == "c-1"), "{text}");

    let (_, text, _) = cluster.run(&["events", "--kind", "audit"]);
    assert!(text.contains(", 0 clients [json from 127.0.0.1, command c-1]\n"), "{text}");
    assert!(text.contains(" [cli from 127.0.0.1, command "), "{text}");
    let (code, text, err) = cluster.run(&["why", "--command", "c-1"]);
    assert!(code == 0 && text.contains("token:ann: close") && !text.contains("it closed"), "{text}{err}");
    let (code, _, err) = cluster.run(&["why", "--command", "c-2"]);
    assert!(code == 4 && err.contains("nor of a close or another order of the audit"), "{err}");

    // Rotated: what comes after SIGHUP is in the new file.
    std::fs::rename(&file.0, file.0.with_extension("1")).unwrap();
    cluster.gateways[0].signal("HUP");
    until("the new file has lines", async || {
        let close = json!({"to": {"uids": ["after"]}}).to_string();
        assert_eq!(as_json(here, "Close", &ann, &close).await.0, 200);
        (!AuditFile::lines(&file.0).is_empty()).then_some(())
    })
    .await;
}

/// Who was refused is written down with what was asked and whom it concerned, by every way to ask.
#[tokio::test]
async fn each_refusal_has_its_line() {
    let (mut tokens, file) = (TokensFile::new("refused"), AuditFile::new("refused"));
    let sam = tokens.add("sam", &["--role", "operator", "--app", "shop"]);
    tokens.add("ann", &["--role", "reader"]);
    let files = ["sam", "ann"].map(|name| (name, tokens.file_of(name)));
    let cluster =
        Cluster::quiet(1).secret(SECRET).gateway(&tokens.setting()).more(&file.section()).start().await;
    let here = &cluster.internal[0];
    for (path, on) in [
        ("Admin/Drain", json!({"call": "Drain", "gateway": ""})),
        ("Gateway/WatchGroups", json!({"call": "WatchGroups", "app": "default"})),
    ] {
        let code = tokens::status(here, &format!("/broadgate.v1.{path}"), &sam).await;
        assert_eq!(code, tonic::Code::PermissionDenied, "{path}");
        file.line(path, |line| line["who"] == "token:sam" && line["on"] == on).await;
    }
    let (status, _) = as_json(here, "GetApp", &sam, "{\"app\":\"blog\"}").await;
    assert_eq!(status, 403);
    let app = json!({"call": "GetApp", "app": "blog"});
    file.line("GetApp as JSON", |line| line["on"] == app && line["how"] == "json").await;
    let uid = json!({"call": "Close", "app": "default", "uids": ["bob"]});
    let tap = json!({"call": "Tap", "app": "default", "of": {"uid": "bob"}, "payload": true});
    for (who, args, on) in [
        (&files[0], &["kick", "--uid", "bob"][..], json!({"call": "GetApp", "app": "default"})),
        (&files[1], &["kick", "--uid", "bob"], uid),
        (&files[1], &["tap", "--uid", "bob", "--payload"], tap),
    ] {
        let (code, _, err) = cluster.run(&[args, &["--token-file", &who.1]].concat());
        assert_eq!(code, 6, "{args:?}: {err}");
        let name = format!("token:{}", who.0);
        let is_it = |line: &Value| line["what"] == "denied" && line["who"] == name && line["on"] == on;
        file.line(&format!("{args:?}"), is_it).await;
    }
}

/// A full disk stops no order; it is named by the log, the doctor and the events.
#[tokio::test]
async fn full_disk_of_the_audit_is_named() {
    let cluster = Cluster::quiet(1).more("[gateway.audit]\nfile = \"/dev/full\"").start().await;
    let here = &cluster.internal[0];
    let (code, text, _) = cluster.run(&["doctor", "--only", "audit"]);
    assert_eq!(code, 0, "nothing is lost yet: {text}");
    assert_eq!(as_json(here, "Close", "", "{\"to\":{\"uids\":[\"42\"]}}").await.0, 200);
    cluster.gateways[0].logged("lines of the audit are lost: /dev/full: ").await;
    let (code, text, _) = cluster.run(&["doctor", "--only", "audit"]);
    assert!(code == 1 && text.contains("gateway-1 loses lines of the audit: /dev/full"), "{code} {text}");
    let (_, text, _) = cluster.run(&["events", "--kind", "alarm"]);
    assert!(text.contains("lines of the audit are lost"), "{text}");
    // A file that cannot be opened is refused at the start.
    let (code, text) = operator::run(
        &["gateway"],
        &[
            ("BROADGATE_GATEWAY__AUDIT__FILE", "/nonexistent/a.jsonl"),
            ("BROADGATE_GATEWAY__INTERNAL__BIND", "127.0.0.1:0"),
            ("BROADGATE_GATEWAY__LISTENERS", "[{name=\"web\",kind=\"web\",bind=\"127.0.0.1:0\"}]"),
        ],
    );
    assert!(code != 0 && text.contains("gateway.audit.file /nonexistent/a.jsonl"), "{code} {text}");
}

/// Events come from all gateways through any of them, in the order of time, and are followed.
#[tokio::test]
async fn events_tell_what_happened() {
    let mut cluster = Cluster::quiet(2).register("lease = \"2s\"\nbeat = \"500ms\"").start().await;
    let mut follower = std::process::Command::new(env!("CARGO_BIN_EXE_broadgate"))
        .args(["events", "--follow", "--json", "--kind", "members", "--kind", "alarm"])
        .env("BROADGATE_ADDR", &cluster.internal[0])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (lines, told) = std::sync::mpsc::channel();
    let out = BufReader::new(follower.stdout.take().unwrap());
    let reading = std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            let _ = lines.send(serde_json::from_str::<Value>(&line).unwrap());
        }
    });
    let mut seen: Vec<Value> = Vec::new();
    let mut follow = async |what: &str, is_it: &dyn Fn(&Value) -> bool| {
        until(what, || {
            seen.extend(told.try_iter());
            std::future::ready(seen.iter().find(|event| is_it(event)).cloned())
        })
        .await
    };
    let is = |event: &Value, what: &str, text: &str| {
        event["what"] == what && event["text"].as_str().is_some_and(|told| told.contains(text))
    };
    follow("the first events", &|event| is(event, "joined", "gateway-2")).await;
    cluster.add_gateway().await;
    follow("the third gateway joins", &|event| is(event, "joined", "gateway-3")).await;
    cluster.gateways[2].kill();
    let gone = follow("it is gone", &|event| is(event, "gone", "gateway-3")).await;
    cluster.register = None;
    let lost = follow("the register is lost", &|event| event["what"] == "register_lost").await;
    assert!(gone["number"].as_u64() > Some(0) && lost["kind"] == "alarm", "{gone} {lost}");
    follower.kill().unwrap();
    follower.wait().unwrap();
    reading.join().unwrap();
    let mut numbers: Vec<(String, u64)> =
        seen.iter().map(|event| (event["gateway"].to_string(), event["number"].as_u64().unwrap())).collect();
    let count = numbers.len();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), count, "each is shown once");
    // Through the other gateway, those of both.
    let other = cluster.internal[1].clone();
    let (code, text, err) = cluster.run(&["events", "--kind", "members", "--since", "1h", "--addr", &other]);
    assert!(code == 0 || code == 3, "{code} {err}");
    assert!(
        text.contains("gateway-1, gateway-2: gateway gateway-3")
            || text.contains("gateway-2, gateway-1: gateway gateway-3"),
        "{text}"
    );
    let request = v1::EventsRequest { kinds: vec!["nonsense".to_owned()], ..v1::EventsRequest::default() };
    let (status, refused) = as_json(&other, "Events", "", &json!({"kinds": request.kinds}).to_string()).await;
    assert!(status == 400 && refused.to_string().contains("members, settings, alarm, audit"), "{refused}");
}
