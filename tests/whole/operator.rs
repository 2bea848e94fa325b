//! The operator's commands, as they are typed.

use std::process::{Command, Stdio};

use broadgate_proto::v1;
use serde_json::Value;

use crate::harness::*;

pub fn json(text: &str) -> Value {
    first_json(text).unwrap_or_else(|| panic!("no JSON: {text}"))
}

/// The JSON that a text begins with.
pub fn first_json(text: &str) -> Option<Value> {
    serde_json::Deserializer::from_str(text).into_iter().next()?.ok()
}

/// Runs an operator's command without a cluster: exit code, and stderr before stdout.
pub fn run(args: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broadgate"));
    command.args(args).stdin(Stdio::null()).env_remove("BROADGATE_SECRET");
    for (key, value) in environment {
        command.env(key, value);
    }
    let output = command.output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    (output.status.code().unwrap_or(-1), text)
}

#[tokio::test]
async fn cluster_answers_queries_and_commands() {
    let cluster = Cluster::quiet(2).start().await;
    let (mut a, mut b) = (cluster.client(0).await, cluster.client(1).await);
    let mut caller = cluster.caller(0).await;
    caller.bind(bind(&a.id, "ann")).await.unwrap();
    caller.join(join(&[&a.id, &b.id], &["room"])).await.unwrap();

    let (code, out, _) = cluster.run(&["status", "--json"]);
    let status = json(&out);
    assert_eq!(code, 0);
    assert!(status["epoch"].is_string() && status["register"]["heard"] == true, "{out}");
    assert_eq!(status["gateways"].as_array().unwrap().len(), 2);
    assert!(status["workers"].as_array().unwrap().is_empty());
    let (_, table, _) = cluster.run(&["status"]);
    assert!(table.contains("gateway-1") && table.contains("ready"), "{table}");

    let (code, out, _) = cluster.run(&["send", "--group", "room", "--except-uid", "ann", "hello"]);
    assert_eq!((code, out.lines().next().unwrap()), (0, "sent to 1 client on 2 gateways"));
    b.hears(&["hello"]).await;
    let (_, out, _) = cluster.run(&["send", "--json", "--client", &a.id, "--binary", "raw"]);
    assert_eq!(json(&out)["clients"], 1);
    assert_eq!(&a.message().await.into_data()[..], b"raw");

    empty_lists_say_so(&cluster);
    let (_, out, err) = cluster.run(&["clients", "--group", "room"]);
    assert!(err.is_empty(), "{err}");
    assert!(out.contains(&a.id) && out.contains(&b.id), "{out}");
    let (_, out, _) = cluster.run(&["clients", "--json", "--limit", "1"]);
    assert!(!json(&out)["next_cursor"].as_str().unwrap().is_empty());
    let (_, out, _) = cluster.run(&["client", &a.id]);
    assert!(out.contains("ann") && out.contains(&a.local), "{out}");
    let (_, out, _) = cluster.run(&["groups"]);
    assert!(out.contains("room") && out.contains('2'), "{out}");
    let member = v1::PresenceMember { user_id: "ann".into(), info: "{\"seat\":7}".into() };
    let sits = v1::JoinGroupsRequest { member: Some(member), ..join(&[&a.id], &["room"]) };
    cluster.caller(1).await.join(sits).await.unwrap();
    let (_, out, _) = cluster.run(&["roster", "room"]);
    assert!(out.contains("ann") && out.contains("\"seat\":7"), "{out}");
    let (_, out, _) = cluster.run(&["roster", "--json", "room"]);
    assert_eq!(json(&out)["total"], 1);
    let (_, out, _) = cluster.run(&["uids", "--json"]);
    assert_eq!(json(&out)["names"][0]["name"], "ann");

    let (code, _, err) = cluster.run(&["client", &"0".repeat(30)]);
    assert_eq!(code, 4, "{err}");
    let (code, _, err) = cluster.run(&["send", "--client", &"0".repeat(30), "x"]);
    assert_eq!(code, 4, "{err}");
    let (code, _, err) = cluster.run(&["kick", "--all"]);
    assert!(code == 2 && err.contains("--yes"), "{err}");
    let (code, _, _) = cluster.run(&["kick", "--uid", "ann", "--code", "4001", "--reason", "out"]);
    assert_eq!((code, a.closed().await.code), (0, 4001));
    let (code, _, _) = cluster.run(&["kick", "--all", "--yes"]);
    assert_eq!((code, b.closed().await.code), (0, 1000));
    for refused in [
        &["kick", "--all", "--yes", "--code", "5"][..],
        &["send", "--group", "", "x"],
        &["roster", ""],
        &["clients", "--cursor", "nonsense"],
        &["status", "--addr", "nonsense"],
        &["status", "--addr", "https://127.0.0.1:7200"],
        &["drain", "gateway-1", "--register", "nonsense"],
        &["send", "--except-uid", "ann", "x"],
        &["kick", "--except-client", &a.id],
        &["kick", "--except-group", "room", "--yes"],
    ] {
        let (code, _, err) = cluster.run(refused);
        assert_eq!(code, 2, "{refused:?}: {err}");
    }
    // An app that is not there is no empty one.
    let nobody = "0".repeat(30);
    let url = format!("ws://{}/ws", cluster.web(0));
    for command in [
        &["status"][..],
        &["clients"],
        &["client", &nobody],
        &["groups"],
        &["roster", "room"],
        &["uids"],
        &["send", "--all", "x"],
        &["kick", "--all", "--yes"],
        &["bench", "fanout", "--clients", "1", "--messages", "1", "--url", &url],
    ] {
        let (code, _, err) = cluster.run(&[command, &["--app", "none"]].concat());
        assert!(code == 4 && err.contains("no app \"none\""), "{command:?}: {code} {err}");
    }
}

/// A flag that does not exist is no message.
#[tokio::test]
async fn misspelt_flags_are_not_sent() {
    let cluster = Cluster::quiet(1).start().await;
    let (code, _, err) = cluster.run(&["send", "--group", "room", "--dryrun"]);
    assert!(code == 2 && err.contains("--dry-run"), "{code}: {err}");
    let (code, out, err) = cluster.run(&["send", "--group", "nobody", "--", "--dryrun"]);
    assert!(code == 0 && out.contains("0 clients"), "{code}: {out}{err}");
}

/// An answer shows what is known, and says what is not.
#[tokio::test]
async fn answers_name_missing_gateways_and_omit_unrequested_fields() {
    let cluster = Cluster::quiet(1).start().await;
    let mut client = cluster.client(0).await;
    let gone = "0".repeat(30);
    let (code, out, _) = cluster.run(&["send", "--client", &client.id, "--client", &gone, "some"]);
    assert!(code == 0 && out.contains(&format!("not connected: {gone}\n")), "{code} {out}");
    client.hears(&["some"]).await;
    let (_, out, _) = cluster.run(&["clients", "--json"]);
    let listed = &json(&out)["clients"][0];
    assert!(listed["messages_in"].is_u64() && listed["groups"].is_array(), "{listed}");
    assert!(listed.get("session").is_none(), "{listed}");
    let (_, out, _) = cluster.run(&["client", &client.id]);
    assert!(out.contains("never set"), "{out}");
}

/// A gateway is drained through another one, and waited for.
#[tokio::test]
async fn drain_waits_until_the_gateway_has_left() {
    let mut cluster = Cluster::quiet(2).start().await;
    let other = cluster.internal[1].clone();
    let (code, out, err) = cluster.run(&["drain", "gateway-1", "--addr", &other, "--wait=60s"]);
    assert!(code == 0 && out.contains("has left"), "{out}{err}");
    assert_eq!(cluster.gateways[0].ended().await.code(), Some(0));
    let (code, _, err) = cluster.run(&["drain", "gateway-1", "--addr", &other]);
    assert!(code == 4, "{code} {err}");
    // The last one, through itself: nobody is left who could say that it has gone.
    let (code, out, err) = cluster.run(&["drain", "gateway-2", "--addr", &other, "--wait=60s"]);
    assert!(code == 0 && out.contains("has left"), "{out}{err}");
    assert_eq!(cluster.gateways[1].ended().await.code(), Some(0));
}

/// Who waits for a drain sees how many clients are left.
#[tokio::test]
async fn drain_shows_how_many_clients_are_left() {
    let mut cluster = Cluster::quiet(2).ready_delay("3s").start().await;
    let _clients = [cluster.client_at(0).await, cluster.client_at(0).await];
    let other = cluster.internal[1].clone();
    let (code, out, err) = cluster.run(&["drain", "gateway-1", "--addr", &other, "--wait=60s"]);
    assert!(
        code == 0
            && out.contains("has left")
            && err.contains("gateway-1 (")
            && err.contains(") drains: 2 clients left"),
        "{out}{err}"
    );
    assert_eq!(cluster.gateways[0].ended().await.code(), Some(0));
}

/// When a drain that was waited for returns, another process can have every port of the gateway.
#[tokio::test]
async fn drained_gateway_has_released_its_ports() {
    let cluster = Cluster::quiet(1).start().await;
    let ports = [free_address(), free_address(), free_address()];
    let flags: Vec<String> = ["--internal-bind", "--client-bind", "--metrics-bind"]
        .iter()
        .zip(ports)
        .map(|(flag, port)| format!("{flag}={port}"))
        .chain([format!("--register={}", cluster.register_address)])
        .collect();
    let mut args = vec!["gateway", "--name=leaves", "--ready-delay=0s"];
    args.extend(flags.iter().map(String::as_str));
    for _ in 0..3 {
        let mut gateway = Process::start(&cluster.dir, "leaves", &args, &[]);
        until("it is in the view", async || {
            let view = cluster.view().await?;
            let ready = v1::MemberState::Ready;
            let is_it = |member: &v1::Member| member.name == "leaves" && member.state() == ready;
            view.members.iter().any(is_it).then_some(())
        })
        .await;
        let (code, out, err) = cluster.run(&["drain", "leaves", "--wait=60s"]);
        assert!(code == 0 && out.contains(&format!("nothing listens on {}", ports[0])), "{out}{err}");
        for port in ports {
            std::net::TcpListener::bind(port).unwrap_or_else(|error| panic!("{port}: {error}"));
        }
        assert_eq!(gateway.ended().await.code(), Some(0));
    }
}

/// Commands find cluster and secret where the roles do.
#[tokio::test]
async fn commands_read_the_roles_configuration() {
    let cluster = Cluster::of(0).start().await;
    let secret = cluster.dir.join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
    let (register, internal) = (free_address(), free_address());
    let config = cluster.dir.join("secret.toml");
    let text = format!(
        "[cluster]\nregister = [\"{register}\"]\nsecret_file = {secret:?}\n[register]\nbind = \"{register}\"\n\
         [gateway]\nname = \"only\"\ninternal = {{ bind = \"{internal}\" }}\n\
         [[gateway.listeners]]\nname = \"web\"\nkind = \"web\"\nbind = \"127.0.0.1:0\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    let start = |role: &str| {
        Process::start(&cluster.dir, &format!("secret-{role}"), &[role, "--config", &config], &[])
    };
    let _register = start("register");
    let mut gateway = start("gateway");
    gateway.logged("internal=").await;
    until("the gateway is ready", async || {
        let (code, text) = run(&["status", "--json"], &[("BROADGATE_CONFIG", &config)]);
        (code == 0 && text.contains("\"only\"")).then_some(())
    })
    .await;
    let (code, text) = run(&["status", "--addr", &internal.to_string()], &[]);
    assert!(code == 2 && text.contains("no shared secret and no token was sent"), "{code} {text}");
    let (code, text) = run(&["drain", "only", "--config", &config, "--wait"], &[]);
    assert!(code == 0 && text.contains("has left"), "{code} {text}");
    assert_eq!(gateway.ended().await.code(), Some(0));
}

/// Beside the header; scripts see it by themselves.
fn empty_lists_say_so(cluster: &Cluster) {
    for (args, said) in [
        (&["clients", "--uid", "nobody"][..], "no connected client fits that, in app \"default\"\n"),
        (&["clients", "--slow"], "no connected client fits that, in app \"default\"\n"),
        (&["groups", "--prefix", "x"], "no group with this prefix has clients, in app \"default\"\n"),
        (&["uids", "--group", "x"], "no member of that has a uid, in app \"default\"\n"),
        (&["roster", "x"], "no user is present in group \"x\", in app \"default\"\n"),
    ] {
        let (code, out, err) = cluster.run(args);
        assert_eq!((code, &*err, out.lines().count()), (0, said, 1), "{args:?}: {out}");
        let (code, out, err) = cluster.run(&[args, &["--json"]].concat());
        assert_eq!((code, &*err), (0, ""), "{args:?}: {out}");
    }
}

#[test]
fn small_commands_work() {
    let (code, secret) = run(&["secret"], &[]);
    assert!(code == 0 && secret.trim().len() >= 32, "{secret}");
    assert_ne!(run(&["secret"], &[]).1, secret);
    let (_, version) = run(&["version", "--json"], &[]);
    assert_eq!(json(&version)["version"], env!("CARGO_PKG_VERSION"));
    let (code, app) = run(&["apps", "new", "1", "--json"], &[]);
    assert!(code == 0 && json(&app)["keys"][0]["secret"].as_str().unwrap().len() == 64, "{app}");
    assert!(run(&["completions", "bash"], &[]).1.contains("broadgate"));
    let (code, long) = run(&["kick", "--uid", "42", "--note", &"x".repeat(3000)], &[]);
    assert!(code == 2 && long.contains("the note has 3000 bytes: at most 256"), "{long}");
    assert!(long.len() < 500, "{long}");
    let (_, help) = run(&["--help"], &[]);
    assert!(help.contains("7100") && help.contains("Exit codes"), "{help}");
}
