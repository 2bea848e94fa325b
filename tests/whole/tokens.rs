//! Operators with tokens: what each role may do, over every road to a gateway.

use std::{collections::HashMap, path::PathBuf};

use broadgate_proto::{DESCRIPTORS, secret::Secret};
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};
use tonic::{Code, Request, client::Grpc, codegen::http::uri::PathAndQuery, transport::Endpoint};
use tonic_prost::ProstCodec;

use crate::{harness::*, http::post, operator};

const SECRET: &str = "secret-of-tokens-0123456789abcdefgh";

/// A tokens file beside the cluster, and the tokens by their names.
pub struct TokensFile {
    pub path: PathBuf,
    pub texts: HashMap<String, String>,
}

impl TokensFile {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("broadgate-{name}-{}.toml", std::process::id()));
        std::fs::write(&path, "# nobody yet\n").unwrap();
        Self { path, texts: HashMap::new() }
    }

    /// `broadgate token new`.
    pub fn add(&mut self, name: &str, flags: &[&str]) -> String {
        let path = self.path.display().to_string();
        let (code, out) =
            operator::run(&[&["token", "new", name, "--json", "--file", &path], flags].concat(), &[]);
        assert_eq!(code, 0, "{out}");
        let token = operator::json(&out)["token"].as_str().unwrap().to_owned();
        assert!(token.starts_with("bgt_") && token.len() == 47, "256 bits");
        self.texts.insert(name.to_owned(), token.clone());
        token
    }

    pub fn remove(&self, name: &str) {
        let path = self.path.display().to_string();
        let (code, out) = operator::run(&["token", "remove", name, "--file", &path], &[]);
        assert_eq!(code, 0, "{out}");
    }

    /// The key of the gateway's settings.
    pub fn setting(&self) -> String {
        format!("tokens_file = {:?}", self.path)
    }

    /// A token in a file of its own, as its holder has it.
    pub fn file_of(&self, name: &str) -> String {
        let path = self.path.with_extension(name);
        std::fs::write(&path, format!("{}\n", self.texts[name])).unwrap();
        path.display().to_string()
    }
}

impl Drop for TokensFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        for name in self.texts.keys() {
            let _ = std::fs::remove_file(self.path.with_extension(name));
        }
    }
}

/// The roles, in their order.
const ROLES: [&str; 3] = ["reader", "operator", "admin"];

/// What each call needs: the least role, and whether its answer is a payload. Written down once more: the gateway's
/// own table is what is tested.
fn needs(service: &str, call: &str) -> Option<(&'static str, bool)> {
    Some(match (service, call) {
        ("Peer" | "Worker" | "Register", _) => return None,
        ("Gateway", "GetSession") => ("reader", true),
        ("Admin", "Drain") => ("operator", false),
        (
            "Gateway",
            "Send" | "Close" | "Bind" | "Unbind" | "Join" | "Leave" | "Dissolve" | "SetSession"
            | "MergeSession",
        ) => ("operator", false),
        (
            "Gateway",
            "Roster" | "History" | "LastValue" | "Online" | "Count" | "GetClient" | "ListClients"
            | "ListUids" | "ListGroups" | "Status" | "GetApp" | "WatchGroups" | "WatchPusher" | "Commands",
        )
        | ("Observe", "Ended" | "Sends" | "Top" | "Inspect" | "Tap" | "Events" | "WhoAmI" | "Gateways") => {
            ("reader", false)
        }
        other => panic!("{other:?} is not in this table: say who may call it"),
    })
}

/// The status of a call with an empty request, over gRPC; of a stream that opens, OK.
pub async fn status(address: &str, path: &str, bearer: &str) -> Code {
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let mut request = Request::new(tokio_stream::iter([()]));
    if !bearer.is_empty() {
        request.metadata_mut().insert("authorization", format!("Bearer {bearer}").parse().unwrap());
    }
    let path: PathAndQuery = path.parse().unwrap();
    let called = soon("the call is answered", grpc.streaming(request, path, ProstCodec::<(), ()>::default()));
    match called.await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

fn is_refused(code: Code) -> bool {
    matches!(code, Code::PermissionDenied | Code::Unauthenticated)
}

/// Every call of the contract, by every role, over gRPC and as JSON, with empty requests, which concern the app
/// named `default` or all.
#[tokio::test]
async fn every_call_by_every_role() {
    let mut tokens = TokensFile::new("roles");
    for role in ROLES {
        tokens.add(role, &["--role", role]);
    }
    tokens.add("eyes", &["--role", "reader", "--right", "payload"]);
    tokens.add("foreign", &["--role", "admin", "--app", "other", "--right", "payload"]);
    tokens.add("late", &["--role", "admin", "--expires", "1h"]);
    let text = std::fs::read_to_string(&tokens.path).unwrap();
    let expires = text.lines().find(|line| line.starts_with("expires = ")).unwrap();
    std::fs::write(&tokens.path, text.replace(expires, "expires = 2020-01-01T00:00:00Z")).unwrap();
    let cluster = Cluster::quiet(1).secret(SECRET).gateway(&tokens.setting()).start().await;
    let address = &cluster.internal[0];
    let unknown = format!("bgt_{}", "x".repeat(43));
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let mut calls = 0;
    for service in pool.services() {
        for method in service.methods() {
            calls += 1;
            let (service, call) = (service.name(), method.name());
            let path = format!("/broadgate.v1.{service}/{call}");
            let needs = needs(service, call);
            let is_json = ["Gateway", "Observe"].contains(&service)
                && !method.is_server_streaming()
                && !method.is_client_streaming();
            for (name, text) in &tokens.texts {
                let allowed = needs.is_some_and(|(least, is_payload)| {
                    let role = match name.as_str() {
                        "eyes" => "reader",
                        "foreign" | "late" => "admin",
                        role => role,
                    };
                    let rank = |role| ROLES.iter().position(|other| *other == role);
                    let sees = ["eyes", "foreign"].contains(&name.as_str());
                    let is_caller = ["WhoAmI", "Commands"].contains(&call);
                    let in_app = name != "foreign" || is_caller;
                    name != "late" && rank(role) >= rank(least) && (sees || !is_payload) && in_app
                });
                let code = status(address, &path, text).await;
                assert_eq!(!is_refused(code), allowed, "{path} by {name}: {code:?}");
                if name == "late" {
                    assert_eq!(code, Code::Unauthenticated, "{path}");
                }
                if is_json {
                    let (status, body) = as_json(address, call, text, "{}").await;
                    assert_eq!(![401, 403].contains(&status), allowed, "{call} by {name}: {status} {body}");
                }
            }
            for stranger in ["", &unknown, "x"] {
                assert_eq!(
                    status(address, &path, stranger).await,
                    Code::Unauthenticated,
                    "{path} by {stranger:?}"
                );
            }
            assert!(!is_refused(status(address, &path, SECRET).await), "{path} with the secret");
        }
    }
    assert!(calls > 30, "the contract was found");
    let metrics = cluster.gateways[0].log();
    assert!(!tokens.texts.values().any(|text| metrics.contains(text.as_str())), "no token is logged");
}

pub async fn as_json(address: &str, call: &str, bearer: &str, body: &str) -> (u16, Value) {
    let authorization = format!("Bearer {bearer}");
    let mut headers = vec![("Content-Type", "application/json"), ("Host", "127.0.0.1")];
    if !bearer.is_empty() {
        headers.push(("Authorization", &authorization));
    }
    post(address, call, &headers, body).await
}

/// What messages, sessions and presence members hold is for those with the right payload.
#[tokio::test]
async fn payloads_are_hidden_without_the_right() {
    let mut tokens = TokensFile::new("payloads");
    let reader = tokens.add("reader", &["--role", "operator"]);
    let eyes = tokens.add("eyes", &["--role", "operator", "--right", "payload"]);
    let kept = "[[gateway.groups]]\napp = \"default\"\npattern = \"*\"\nhistory_messages = 10\n\
                history_time = \"1m\"\nlast_value_time = \"1m\"";
    let cluster = Cluster::quiet(1).gateway(&tokens.setting()).more(kept).start().await;
    let client = cluster.client(0).await;
    let address = &cluster.internal[0];
    let id = &client.id;
    let member = json!({"user_id": "ann", "info": "{\"hidden\":1}"});
    let join = json!({"clients": [id], "groups": ["room"], "member": member});
    // Without a secret, callers on this machine need no token.
    assert_eq!(as_json(address, "Join", "", &join.to_string()).await.0, 200);
    let send = json!({"to": {"groups": ["room"]}, "text": "hidden"});
    assert_eq!(as_json(address, "Send", "", &send.to_string()).await.0, 200);
    let session = json!({"client_id": id, "json": {"hidden": 1}});
    assert_eq!(as_json(address, "SetSession", "", &session.to_string()).await.0, 200);
    let all = json!({"of": {"all": true}, "fields": ["CLIENT_FIELD_SESSION", "CLIENT_FIELD_UID"]});
    for (call, body) in [
        ("History", json!({"group": "room"})),
        ("LastValue", json!({"group": "room"})),
        ("Roster", json!({"group": "room"})),
        ("GetClient", json!({"client_id": id})),
        ("ListClients", all),
        ("MergeSession", json!({"client_id": id, "json": {"more": 1}})),
    ] {
        let (status, shown) = as_json(address, call, &eyes, &body.to_string()).await;
        assert!(status == 200 && shown.to_string().contains("hidden"), "{call}: {status} {shown}");
        let (status, hidden) = as_json(address, call, &reader, &body.to_string()).await;
        assert!(status == 200 && !hidden.to_string().contains("hidden"), "{call}: {status} {hidden}");
    }
    let (status, _) = as_json(address, "GetSession", &reader, &json!({"client_id": id}).to_string()).await;
    assert_eq!(status, 403);
    // The same over the stream of commands, which the command line uses.
    for (name, sees) in [("reader", false), ("eyes", true)] {
        let file = tokens.file_of(name);
        for command in [&["roster", "room", "--json"][..], &["client", id, "--json"]] {
            let (code, out, err) = cluster.run(&[command, &["--token-file", &file]].concat());
            assert_eq!((code, out.contains("hidden")), (0, sees), "{command:?} by {name}: {out}{err}");
        }
        for command in [&["roster", "room"][..], &["history", "room", "--payload"], &["client", id]] {
            let (code, out, err) = cluster.run(&[command, &["--token-file", &file]].concat());
            let is_told = (out + &err).contains("hidden: this token has no right payload");
            assert_eq!((code, is_told), (0, !sees), "{command:?} by {name}: {err}");
        }
    }
}

/// The command line shows a token, and says what it does not allow by exit code 6.
#[tokio::test]
async fn command_line_is_an_operator_with_a_token() {
    let mut tokens = TokensFile::new("command-line");
    let ann = tokens.add("ann", &["--role", "reader"]);
    tokens.add("ben", &["--role", "operator", "--app", "default"]);
    tokens.add("sue", &["--role", "operator", "--app", "shop"]);
    let cluster = Cluster::quiet(2).secret(SECRET).gateway(&tokens.setting()).start().await;
    let (ben, sue) = (tokens.file_of("ben"), tokens.file_of("sue"));
    let secretless = |args: &[&str], environment: &[(&str, &str)]| {
        let here = [
            ("BROADGATE_ADDR", cluster.internal[0].as_str()),
            ("BROADGATE_REGISTER", &cluster.register_address),
        ];
        operator::run(args, &[&here, environment].concat())
    };
    let by_ann = |args: &[&str]| secretless(args, &[("BROADGATE_TOKEN", &ann)]);
    let by_ben = |args: &[&str]| secretless(&[args, &["--token-file", &ben]].concat(), &[]);
    let by_sue = |args: &[&str]| secretless(&[args, &["--token-file", &sue]].concat(), &[]);
    for (who, (code, text), wanted, said) in [
        ("ann", by_ann(&["status"]), 0, "gateway-2"),
        ("ann", by_ann(&["clients"]), 0, ""),
        ("ann", by_ann(&["send", "--all", "x"]), 6, "needs the role operator"),
        // A dry run is a send: readers have counts and lists.
        ("ann", by_ann(&["send", "--dry-run", "--all", "x"]), 6, "needs the role operator"),
        ("ben", by_ben(&["send", "--all", "x"]), 0, "sent to 0 clients"),
        ("ben", by_ben(&["send", "--dry-run", "--all", "x"]), 0, "would be sent to 0 clients"),
        ("ben", by_ben(&["send", "--trace", "--all", "x"]), 0, "took it from token:ben, 1 B"),
        ("ben", by_ben(&["kick", "--uid", "x"]), 0, "closed 0 clients"),
        ("ben", by_ben(&["kick", "--uid", "x"]), 0, "no connected client is meant"),
        ("ben", by_ben(&["kick", "--all", "--yes"]), 6, "closing all clients of an app needs the role admin"),
        ("ben", by_ben(&["kick", "--uid", "x", "--at-once"]), 6, "closing clients at once"),
        ("ben", by_ben(&["clients", "--app", "shop"]), 6, "is not for the app \"shop\""),
        ("ben", by_ben(&["status"]), 6, "concerns all apps"),
        ("ben", by_ben(&["tap", "--whole-app", "--for", "1s"]), 0, "the whole app: 0 clients"),
        ("sue", by_sue(&["status"]), 6, "it needs apps = [\"*\"]"),
        ("sue", by_sue(&["events"]), 6, "it needs apps = [\"*\"]"),
        ("sue", by_sue(&["clients"]), 6, "is not for the app \"default\""),
        ("nobody", secretless(&["status"], &[]), 2, "shared secret"),
        (
            "nobody",
            secretless(&["status"], &[("BROADGATE_TOKEN", "x")]),
            2,
            "BROADGATE_TOKEN: it is not a token",
        ),
        ("nobody", secretless(&["status"], &[("BROADGATE_SECRET", &ann)]), 2, "as tokens do"),
    ] {
        assert!(code == wanted && text.contains(said), "{who}: {code}, not {wanted} with {said:?}: {text}");
        assert!(!text.contains(&ann), "no token is shown: {text}");
    }
    // Workers and members have the secret: a token does not make one.
    let member = |args: &[&str]| secretless(&[args, &["--token-file", &ben]].concat(), &[]);
    let (code, text) = member(&["drain", "gateway-1", "--register", &cluster.register_address]);
    assert!(code == 2 && text.contains("tokens are for the internal ports of gateways"), "{code} {text}");
    // An operator who has both is the token: what may do less.
    let (code, _, text) = cluster.run(&["kick", "--all", "--yes", "--token-file", &ben]);
    assert_eq!(code, 6, "{text}");
    let (_, whole) = as_json(&cluster.internal[1], "WhoAmI", &ann, "{}").await;
    let wanted = json!({"who": "token:ann", "role": "reader", "apps": ["*"], "rights": [], "expires_at_ms": 0,
        "gateway": "gateway-2"});
    assert_eq!(whole, wanted);
    let (_, whole) = as_json(&cluster.internal[1], "WhoAmI", SECRET, "{}").await;
    assert_eq!(
        (&whole["who"], &whole["role"], &whole["rights"]),
        (&json!("secret"), &json!("admin"), &json!(["payload"]))
    );
}

/// The file is read again: what is added counts, what is removed does not, and what is broken changes nothing.
#[tokio::test]
async fn tokens_are_read_again() {
    let mut tokens = TokensFile::new("again");
    let first = tokens.add("first", &["--role", "reader"]);
    let cluster = Cluster::quiet(1).secret(SECRET).gateway(&tokens.setting()).start().await;
    let address = &cluster.internal[0];
    let status = async |text: &str| as_json(address, "WhoAmI", text, "{}").await.0;
    assert_eq!(status(&first).await, 200);
    let second = tokens.add("second", &["--role", "reader"]);
    until("the new token counts", async || (status(&second).await == 200).then_some(())).await;
    let good = std::fs::read_to_string(&tokens.path).unwrap();
    std::fs::write(&tokens.path, format!("{good}\n[[tokens]]\nname = \"third\"\n")).unwrap();
    let said = "the tokens stay as they were: ";
    let why = cluster.gateways[0].logged(said).await;
    assert!(why.contains(".toml:"), "the line is named: {why}");
    assert_eq!((status(&first).await, status(&second).await), (200, 200));
    std::fs::write(&tokens.path, good).unwrap();
    tokens.remove("first");
    until("the removed token does not count", async || (status(&first).await == 401).then_some(())).await;
    assert_eq!(status(&second).await, 200);
}

/// Commands that print until they are stopped end when their token is removed, and say so; else by Ctrl-C.
#[tokio::test]
async fn streams_of_the_command_line_end_with_their_token() {
    let mut tokens = TokensFile::new("ends");
    let ann = tokens.add("ann", &["--role", "reader"]);
    tokens.add("ben", &["--role", "reader"]);
    let kept = "[[gateway.groups]]\napp = \"default\"\npattern = \"*\"\nhistory_messages = 10\n\
                history_time = \"5m\"";
    let cluster = Cluster::quiet(2).secret(SECRET).gateway(&tokens.setting()).more(kept).start().await;
    let client = cluster.client_at(0).await;
    let address = &cluster.internal[0];
    let id = until("the client is listed", async || {
        let (_, all) = as_json(address, "ListClients", SECRET, "{\"of\":{\"all\":true}}").await;
        all["clients"][0]["client_id"].as_str().map(str::to_owned)
    });
    let join = json!({"clients": [id.await], "groups": ["room"]}).to_string();
    assert_eq!(as_json(address, "Join", SECRET, &join).await.1["clients"], 1);
    let send = json!({"to": {"groups": ["room"]}, "text": "x", "command_id": "first-one"}).to_string();
    assert_eq!(as_json(address, "Send", SECRET, &send).await.0, 200);
    let start = |name: &str, args: &[&str], token: &str| {
        let here = [("BROADGATE_ADDR", cluster.internal[0].as_str()), ("BROADGATE_TOKEN", token)];
        Process::start(&cluster.dir, name, args, &here)
    };
    let all = [
        ("watch", &["watch", "--group", "*"][..]),
        ("events", &["events", "--follow"]),
        ("history", &["history", "room", "--follow"]),
        ("tap", &["tap", "--whole-app"]),
    ];
    let mut stopped = start("stopped", all[1].1, &ann);
    stopped.logged("gateway-2").await;
    stopped.signal("INT");
    assert_eq!(stopped.ended().await.code(), Some(0), "{}", stopped.log());
    let mut running: Vec<Process> = all.iter().map(|(name, args)| start(name, args, &ann)).collect();
    for (process, first) in running.iter().zip(["room", "gateway-2", "first", "payloads hidden"]) {
        process.logged(first).await;
    }
    tokens.remove("ann");
    for process in &mut running {
        let process = std::cell::RefCell::new(process);
        let ended = until("the command ends", || async {
            // A tap ends at its next event.
            drop(cluster.client_at(0).await);
            process.borrow_mut().has_ended()
        });
        let (ended, log) = (ended.await, process.borrow().log());
        assert_eq!(ended.code(), Some(6), "{log}");
        assert!(log.contains("the token is unknown here") && !log.contains("wrong secret"), "{log}");
        assert!(!log.contains("was not sent"), "{log}");
    }
    drop(client);
}

/// Tokens are made, listed and removed, and what else stands in the file stays.
#[test]
fn tokens_are_made_listed_and_removed() {
    let mut tokens = TokensFile::new("listed");
    let path = tokens.path.display().to_string();
    let token =
        tokens.add("ann", &["--role", "operator", "--app", "shop", "--app", "blog", "--expires", "30d"]);
    tokens.add("ben", &["--role", "admin", "--right", "payload"]);
    let text = std::fs::read_to_string(&tokens.path).unwrap();
    assert!(text.starts_with("# nobody yet\n") && !text.contains(&token), "{text}");
    let (code, out) = operator::run(&["token", "list", "--file", &path], &[]);
    assert!(code == 0 && out.contains("ann") && out.contains("shop blog") && out.contains("never"), "{out}");
    let (_, out) = operator::run(&["token", "list", "--json", "--file", &path], &[]);
    let list = operator::json(&out);
    assert_eq!(
        (&list["tokens"][1]["rights"], &list["tokens"][0]["expired"]),
        (&json!(["payload"]), &json!(false))
    );
    for (args, code, said) in [
        (&["token", "new", "ann", "--role", "reader", "--file", &path][..], 1, "already"),
        (&["token", "new", "x", "--role", "root"], 2, "expected reader, operator or admin"),
        (&["token", "new", "x", "--role", "reader", "--right", "all"], 2, "no right \"all\""),
        (&["token", "new", "a b", "--role", "reader"], 2, "broadgate: token \"a b\": a name has 1 to"),
        (&["token", "new", "x"], 2, "--role"),
        (&["token", "remove", "carl", "--file", &path], 4, "it has ann, ben"),
        (&["token", "list"], 2, "no tokens file"),
        (&["token", "list", "--file", "/nonexistent/tokens.toml"], 2, "/nonexistent/tokens.toml"),
    ] {
        let (got, out) = operator::run(args, &[]);
        assert!(got == code && out.contains(said), "{args:?}: {got} {out}");
    }
    tokens.remove("ann");
    tokens.remove("ben");
    assert_eq!(std::fs::read_to_string(&tokens.path).unwrap(), "# nobody yet\n\n");
    // To be pasted: the token first, then the entry.
    let (code, out) = operator::run(&["token", "new", "carl", "--role", "reader"], &[]);
    let entry = out[out.find("[[tokens]]").unwrap()..].to_owned();
    std::fs::write(&tokens.path, entry).unwrap();
    let (listed, text) = operator::run(&["token", "list", "--file", &path], &[]);
    assert!(code == 0 && listed == 0 && text.contains("carl"), "{out}{text}");
}

/// A profile has the token, and nothing else of the operator's goes to its cluster.
#[tokio::test]
async fn profile_shows_its_token() {
    let mut tokens = TokensFile::new("profiles");
    tokens.add("ann", &["--role", "reader"]);
    let cluster = Cluster::quiet(1).secret(SECRET).gateway(&tokens.setting()).start().await;
    let home = cluster.dir.join("home").display().to_string();
    let file = tokens.file_of("ann");
    let run = |args: &[&str]| {
        operator::run(args, &[("HOME", &home), ("XDG_CONFIG_HOME", ""), ("BROADGATE_TOKEN", "bad")])
    };
    let address = &cluster.internal[0];
    let command = format!("cat {file}");
    for (name, flags) in [("file", ["--token-file", &file]), ("program", ["--token-command", &command])] {
        let (code, text) = run(&[&["cluster", "add", name, "--address", address], &flags[..]].concat());
        assert_eq!(code, 0, "{text}");
        let (code, text) = run(&["status", "--cluster", name]);
        assert!(code == 0 && text.contains("gateway-1"), "{name}: {code} {text}");
        let (code, text) = run(&["kick", "--uid", "x", "--cluster", name]);
        assert_eq!(code, 6, "{name}: {text}");
    }
    let (code, text) = run(&["status", "--cluster", "file", "--token-file", &file]);
    assert_eq!(code, 2, "one cluster's token does not go to another: {text}");
    let (code, text) = run(&["cluster", "add", "none", "--address", address, "--token-command", "false"]);
    assert!(code == 2 && text.contains("exit status: 1"), "{text}");
    assert!(Secret::of_token(&tokens.texts["ann"]).is_ok());
}

/// An operator drains a gateway with a token: through another gateway, which asks the register.
#[tokio::test]
async fn gateway_is_drained_with_a_token() {
    let mut tokens = TokensFile::new("drained");
    tokens.add("ann", &["--role", "operator"]);
    tokens.add("ben", &["--role", "reader"]);
    let (ann, ben) = (tokens.file_of("ann"), tokens.file_of("ben"));
    let mut cluster = Cluster::quiet(2).secret(SECRET).gateway(&tokens.setting()).start().await;
    let other = cluster.internal[1].clone();
    let (code, _, err) = cluster.run(&["drain", "gateway-1", "--addr", &other, "--token-file", &ben]);
    assert!(code == 6 && err.contains("needs the role operator"), "{code} {err}");
    let (code, _, err) = cluster.run(&["drain", "gateway-9", "--addr", &other, "--token-file", &ann]);
    assert_eq!(code, 4, "{err}");
    let (code, out, err) =
        cluster.run(&["drain", "gateway-1", "--addr", &other, "--token-file", &ann, "--wait=60s"]);
    assert!(code == 0 && out.contains("has left"), "{code} {out}{err}");
    assert_eq!(cluster.gateways[0].ended().await.code(), Some(0));
    let (_, told, _) = cluster.run(&["events", "--kind", "audit", "--addr", &other]);
    assert!(told.contains(r#"token:ann: drain {"gateway":"gateway-1"}"#), "{told}");
}
