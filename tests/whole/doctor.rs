//! `broadgate doctor`, `drain --check` and the lists of clients that something holds up: each fault is planted, its
//! check finds it, and no other one does; a healthy cluster warns of nothing.

use std::collections::BTreeMap;

use broadgate_proto::v1;
use serde_json::Value;

use crate::{
    apps::replace,
    harness::*,
    operator::{first_json, json},
    pusher::{APPS, Pusher, sign},
    tokens::TokensFile,
    webhooks::hooked,
};

const OLD: &str = "doctors-old-secret-0123456789abcdef";
const NEW: &str = "doctors-new-secret-0123456789abcdef";

/// What the doctor finds: the level of each check that is not well, and all that is said.
fn examine(cluster: &Cluster) -> (BTreeMap<String, String>, String) {
    let (code, out, err) = cluster.run(&["doctor", "--strict", "--json", "--timeout", "3s"]);
    let Some(reply) = first_json(&out) else {
        // A machine that is busy answers late.
        return (BTreeMap::from([("nothing".to_owned(), code.to_string())]), err);
    };
    let mut bad = BTreeMap::new();
    for check in reply["checks"].as_array().unwrap_or_else(|| panic!("{out}{err}")) {
        let text = |key: &str| check[key].as_str().unwrap().to_owned();
        if check["level"] != "ok" {
            bad.insert(text("check"), text("level"));
        }
    }
    assert_eq!(code, i32::from(!bad.is_empty()), "{out}{err}");
    (bad, out)
}

/// Waits until the doctor finds this, and nothing else.
pub async fn finds(cluster: &Cluster, check: &str, level: &str, said: &str) {
    let expected = BTreeMap::from([(check.to_owned(), level.to_owned())]);
    until(&format!("the doctor finds {check}: {said}"), async || {
        let (bad, out) = examine(cluster);
        // Gateways do not all know it at the same moment.
        if bad == expected && out.contains(said) {
            return Some(());
        }
        println!("found {bad:?}: {out}");
        None
    })
    .await;
}

async fn is_healthy(cluster: &Cluster) {
    until("the doctor finds nothing", async || {
        let (bad, out) = examine(cluster);
        if !bad.is_empty() {
            println!("{out}");
        }
        bad.is_empty().then_some(())
    })
    .await;
}

fn echo(cluster: &Cluster, name: &str) -> Process {
    let register = format!("--register={}", cluster.register_address);
    let args = ["worker", "echo", &register, &format!("--name={name}")];
    Process::start(&cluster.dir, name, &args, &cluster.environment())
}

/// How often a healthy cluster is examined; `BROADGATE_HEALTHY_ROUNDS` says another number, such as 100.
fn healthy_rounds() -> usize {
    std::env::var("BROADGATE_HEALTHY_ROUNDS").map_or(15, |rounds| rounds.parse().unwrap())
}

/// A healthy cluster in use: nothing is found, again and again.
#[tokio::test]
async fn healthy_cluster_warns_of_nothing() {
    let cluster = Cluster::of(3).more(APPS).start().await;
    let _worker = echo(&cluster, "echo");
    is_healthy(&cluster).await;
    let mut clients = Vec::new();
    for number in 0..6 {
        clients.push(cluster.client_at(number % 3).await);
    }
    for round in 0..healthy_rounds() {
        let client = &mut clients[round % 6];
        let text = format!("round {round}");
        client.say(&text).await;
        client.hears(&[&text]).await;
        let (bad, out) = examine(&cluster);
        assert!(bad.is_empty(), "round {round}: {out}");
    }
    let (code, out, _) = cluster.run(&["doctor"]);
    let (_, list, _) = cluster.run(&["doctor", "--list"]);
    // Below its heading.
    let checks = list.lines().count() - 1;
    assert!(list.contains("capacity") && checks >= 20, "{list}");
    assert!(code == 0 && out.starts_with("ok    answers") && out.lines().count() == checks, "{out}");
    let (_, out, _) = cluster.run(&["doctor", "--only", "links,views"]);
    assert!(out.contains("6 links up") && out.lines().count() == 2, "{out}");
    let (code, _, err) = cluster.run(&["doctor", "--only", "likns"]);
    assert!(code == 2 && err.contains("no check \"likns\""), "{err}");
}

/// What cannot be heard is named: the register, a gateway, one direction of a link. The proxies go on while a command
/// is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_heard_is_named() {
    // Nobody is removed while the test looks.
    let settings = Cluster::quiet(3).proxied().register("beat = \"500ms\"\nlease = \"60s\"");
    let mut cluster = settings.start().await;
    is_healthy(&cluster).await;
    // The gateway that is asked cannot reach the other one; the doctor can.
    cluster.cut(0, 1, Fault::Close);
    finds(&cluster, "links", "fail", "gateway-1 does not reach gateway-2; gateway-2 reaches gateway-1").await;
    let (code, out, _) = cluster.run(&["drain", "gateway-3", "--check"]);
    assert!(code == 1 && out.contains("FAIL  links"), "{out}");
    cluster.mend(0, 1);
    is_healthy(&cluster).await;

    cluster.gateways[2].signal("STOP");
    finds(&cluster, "answers", "fail", "gateway-3 does not answer: ").await;
    // Who does not wait for long learns it, too, and nothing of the gateway that was asked.
    until("a short timeout names the one that does not answer", async || {
        let (code, out, err) = cluster.run(&["doctor", "--timeout", "1500ms"]);
        println!("{err}");
        (code == 1 && out.contains("gateway-3 does not answer") && !out.contains("gateway-1 ")).then_some(())
    })
    .await;
    // As long as a shard's pause is.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    cluster.gateways[2].signal("CONT");
    finds(&cluster, "shards", "warn", "gateway-3 was not running for ").await;

    let mut register = cluster.register.take().unwrap();
    register.signal("TERM");
    register.ended().await;
    drop(register);
    until("the register is missed", async || {
        let (bad, _) = examine(&cluster);
        (bad.get("register").map(String::as_str) == Some("fail")).then_some(())
    })
    .await;
    let (code, out, err) = cluster.run(&["doctor", "--only", "register"]);
    assert!(code == 1 && out.contains("gateway-2 does not hear the register"), "{out}{err}");
    let (code, out, _) = cluster.run(&["drain", "gateway-1", "--check"]);
    assert!(code == 1 && out.contains("FAIL  register"), "{out}");
}

/// One that has only just stopped is named although it is in no view when the answer comes, as long as it is away.
#[tokio::test]
async fn gateway_that_has_just_stopped_is_named() {
    let cluster = Cluster::quiet(3).start().await;
    is_healthy(&cluster).await;
    cluster.gateways[2].signal("STOP");
    // At once, not until something is found: that is what the first look has to do.
    let (code, out, err) = cluster.run(&["doctor", "--timeout", "10s"]);
    assert!(code == 1 && out.contains("gateway-3 "), "{out}{err}");
    let (code, out, err) = cluster.run(&["drain", "gateway-1", "--check"]);
    assert!(code == 1 && out.contains("gateway-3 "), "{out}{err}");
    finds(&cluster, "removed", "fail", "gateway-3 was removed ").await;
    let (code, _, err) = cluster.run(&["drain", "gateway-3", "--check"]);
    assert!(code == 4 && err.contains("it was removed ") && err.contains("did not beat"), "{err}");
    cluster.gateways[2].signal("CONT");
    // It joins as another incarnation, and was not running meanwhile.
    finds(&cluster, "shards", "warn", "gateway-3 was not running for ").await;
}

/// A worker that hangs is no member any more, and its service has nobody; one whose work others do is only missed.
#[tokio::test]
async fn worker_that_hangs_is_named() {
    let cluster = Cluster::of(2).start().await;
    let only = echo(&cluster, "echo-1");
    is_healthy(&cluster).await;
    only.signal("STOP");
    until("its service is missed, and it is named", async || {
        let (bad, out) = examine(&cluster);
        let expected = BTreeMap::from([("services".to_owned(), "fail".to_owned())]);
        (bad == expected && out.contains("echo-1 was removed ")).then_some(())
    })
    .await;
    let _other = echo(&cluster, "echo-2");
    finds(&cluster, "removed", "warn", "echo-1 was removed ").await;
}

/// A worker that answers all clients but one.
#[tokio::test]
async fn worker_that_leaves_one_client_without_an_answer_is_named() {
    let cluster = Cluster::of(1).start().await;
    let mut worker = TestWorker::attach(&cluster.internal[0], 7).await;
    let (mut lively, mut stuck) = (cluster.client(0).await, cluster.client(0).await);
    stuck.say("stuck").await;
    let answering = tokio::spawn(async move {
        let mut unanswered = None;
        loop {
            let event = worker.event().await;
            if said(&event) == Some("stuck") {
                unanswered = Some(event);
                continue;
            }
            worker.ack(&event).await;
            if said(&event) == Some("answer it")
                && let Some(event) = unanswered.take()
            {
                worker.ack(&event).await;
            }
        }
    });
    let expected = BTreeMap::from([("workers".to_owned(), "warn".to_owned())]);
    let named = async {
        loop {
            lively.say("answered at once").await;
            let (bad, out) = examine(&cluster);
            let (_, top, _) = cluster.run(&["top", "workers", "--once", "--json"]);
            let oldest = first_json(&top).and_then(|top| top["workers"][0]["oldest_unanswered_s"].as_u64());
            // At a shard of its own, the client is all that the worker has there: so it has answered nothing.
            let said = ["test-7 answers others, and one of ", "test-7 has answered none of "];
            if bad == expected && said.iter().any(|said| out.contains(said)) && oldest >= Some(20) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    soon("it is named", named).await;
    lively.say("answer it").await;
    is_healthy(&cluster).await;
    answering.abort();
    drop(stuck);
}

/// A gateway by itself: what it is asked for is not what a cluster says.
#[tokio::test]
async fn gateway_that_never_joined_is_named() {
    let cluster = Cluster::quiet(1).start().await;
    let [internal, register] = [(); 2].map(|()| free_address());
    let path = cluster.dir.join("alone.toml");
    let config = format!(
        "[cluster]\nregister = [\"{register}\"]\n[gateway.internal]\nbind = \"{internal}\"\n\
         [[gateway.listeners]]\nname = \"web\"\nkind = \"web\"\nbind = \"127.0.0.1:0\"\n"
    );
    std::fs::write(&path, config).unwrap();
    let args = ["gateway", "--config", &path.display().to_string()];
    let _alone = Process::start(&cluster.dir, "alone", &args, &cluster.environment());
    until("it is in no cluster", async || {
        let (code, out, _) = cluster.run(&["doctor", "--addr", &internal.to_string()]);
        (code == 1 && out.contains("is in no cluster") && out.contains(&register.to_string())).then_some(())
    })
    .await;
}

/// A gateway that the register does not take in: the cluster names it, and it says so itself.
#[tokio::test]
async fn gateway_that_the_register_refuses_is_named() {
    let mut cluster = Cluster::quiet(2).secret(OLD).start().await;
    is_healthy(&cluster).await;
    let start = |file: &str, name: &str, secret: &str| {
        let internal = free_address();
        let path = cluster.dir.join(format!("{file}.toml"));
        let register = &cluster.register_address;
        let config = format!(
            "[cluster]\nregister = [\"{register}\"]\n[gateway]\nname = \"{name}\"\n[gateway.internal]\n\
             bind = \"{internal}\"\n[[gateway.listeners]]\nname = \"web\"\nkind = \"web\"\nbind = \"127.0.0.1:0\"\n"
        );
        std::fs::write(&path, config).unwrap();
        let args = ["gateway", "--config", &path.display().to_string()];
        let mut environment = cluster.environment();
        environment.retain(|(name, _)| *name != "BROADGATE_SECRET");
        environment.push(("BROADGATE_SECRET", secret));
        (Process::start(&cluster.dir, file, &args, &environment), internal.to_string())
    };
    let (mut foreign, address) = start("foreign", "gateway-3", NEW);
    let said = "gateway gateway-3 at 127.0.0.1 is not in the cluster: the register has refused it";
    finds(&cluster, "refused", "warn", said).await;
    let (code, out, err) = cluster.run(&["status"]);
    assert!(code == 0 && out.contains(&format!("warning: {said}")), "{out}{err}");
    assert!(
        out.contains("the shared secret is missing or differs") && out.contains("; give it the secret"),
        "{out}"
    );
    let (_, out, _) = cluster.run(&["status", "--json"]);
    let status = first_json(&out).unwrap();
    let refused = &status["refused"][0];
    assert_eq!((&refused["name"], &refused["reason"]), (&"gateway-3".into(), &"secret".into()), "{out}");
    assert!(refused["count"].as_u64() >= Some(1) && refused["last_at_ms"].as_u64() > Some(0), "{out}");

    let (mut twin, twins) = start("twin", "gateway-1", OLD);
    until("the twin is named, too", async || {
        let (_, out, _) = cluster.run(&["doctor"]);
        out.contains(&format!("gateway gateway-1 at {twins} is not in the cluster")).then_some(())
    })
    .await;
    for (address, name, secret) in [(&address, "gateway-3", NEW), (&twins, "gateway-1", OLD)] {
        cluster.secret = secret.to_owned();
        until("it says so itself", async || {
            let (code, out, _) = cluster.run(&["doctor", "--addr", address]);
            let said = format!("{name} is in no cluster: it is refused by the register");
            (code == 1 && out.contains(&said)).then_some(())
        })
        .await;
        let (_, out, _) = cluster.run(&["doctor", "--addr", address]);
        let unknown = out.lines().find(|line| line.starts_with('?')).unwrap_or_else(|| panic!("{out}"));
        assert!(unknown.contains(" secrets") && unknown.contains("is in no cluster"), "{out}");
        let (_, out, _) = cluster.run(&["status", "--addr", address]);
        assert!(out.contains(&format!("warning: {name} is in no cluster: the register ")), "{out}");
    }
    foreign.kill();
    twin.kill();
    cluster.secret = OLD.to_owned();
    // As soon as it is let in, what kept it out is over.
    cluster.add_gateway().await;
    until("only the twin is left", async || {
        let (_, out, _) = cluster.run(&["status"]);
        (out.contains("gateway gateway-1 at") && !out.contains("gateway gateway-3 at")).then_some(())
    })
    .await;
}

/// An app whose backend's Redis does not answer loses what is published there.
#[tokio::test]
async fn redis_that_is_not_read_is_named() {
    let redis = free_address();
    let shop = format!(
        "[[apps]]\nid = \"shop\"\n[[apps.keys]]\nkey = \"shop-key\"\nsecret = \"secret-of-the-shop\"\n\
         [apps.redis]\nurl = \"redis://{redis}\"\nprefix = \"laravel-\"\n"
    );
    let cluster = Cluster::quiet(1).more(&shop).start().await;
    finds(&cluster, "redis", "fail", &format!("redis://{redis} is not read: ")).await;
}

/// Gateways that were given different files.
#[tokio::test]
async fn gateways_that_differ_are_named() {
    let mut cluster = Cluster::quiet(3).more(APPS).secret(OLD).start().await;
    is_healthy(&cluster).await;
    let path = cluster.dir.join("gateway-2.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    // A change of the apps is read at run time.
    let apps = "id = \"shop\"\n";
    assert!(config.contains(apps));
    replace(&path, &config.replace(apps, &format!("{apps}origins = [\"https://shop.example\"]\n")));
    cluster.gateways[1].signal("HUP");
    finds(&cluster, "same", "warn", "apps of gateway-2 differ: shop.origins").await;
    replace(&path, &config.replace(apps, &format!("{apps}no_such_key = 1\n")));
    cluster.gateways[1].signal("HUP");
    // What is in use is again what the others have; only the file is not.
    until("the former apps stay", async || {
        let (bad, out) = examine(&cluster);
        (bad.contains_key("apps") && out.contains("gateway-2 goes on with the former apps: ")).then_some(())
    })
    .await;
    replace(&path, &config);
    cluster.gateways[1].signal("HUP");
    is_healthy(&cluster).await;
    // As a change of the secret begins.
    cluster.secret = format!("{NEW} {OLD}");
    cluster.restart_gateway(2).await;
    let said = "gateway-3 knows the new and the old secret, gateway-1, gateway-2 only the old one";
    finds(&cluster, "secrets", "warn", said).await;
}

/// A gateway whose secret is another one than its neighbours': both sides are named, whichever of them is asked. The
/// register knows both, as during a change that went wrong.
#[tokio::test]
async fn gateway_with_another_secret_is_named() {
    let mut cluster = Cluster::quiet(2).secret(OLD).start().await;
    cluster.register = None;
    cluster.secret = format!("{NEW} {OLD}");
    cluster.start_register().await;
    cluster.secret = NEW.to_owned();
    cluster.add_gateway().await;
    cluster.secret = OLD.to_owned();
    let said = "gateway-3 does not accept the secret of gateway-1, gateway-2";
    finds(&cluster, "secrets", "fail", said).await;
    cluster.internal.swap(0, 2);
    cluster.secret = NEW.to_owned();
    finds(&cluster, "secrets", "fail", "gateway-1, gateway-2 do not accept the secret of gateway-3").await;
    // The log has it, too.
    cluster.gateways[0].logged("peer link keeps breaking for the same reason").await;
    cluster.internal.swap(0, 2);
    cluster.secret = OLD.to_owned();
    cluster.restart_gateway(2).await;
    is_healthy(&cluster).await;
}

/// A file of tokens that cannot be used leaves the former ones, of which one may have been taken away.
#[tokio::test]
async fn tokens_file_that_cannot_be_used_is_named() {
    let mut tokens = TokensFile::new("doctor");
    tokens.add("ann", &["--role", "reader"]);
    let cluster = Cluster::quiet(2).gateway(&tokens.setting()).start().await;
    is_healthy(&cluster).await;
    let text = std::fs::read_to_string(&tokens.path).unwrap();
    replace(&tokens.path, &text.replace("reader", "root"));
    finds(&cluster, "tokens", "warn", "gateway-1, gateway-2 go on with the tokens of ").await;
    replace(&tokens.path, &text);
    is_healthy(&cluster).await;
    std::fs::remove_file(&tokens.path).unwrap();
    finds(&cluster, "tokens", "warn", "No such file").await;
}

/// Listeners and workers that do not fit, and workers that do not answer.
#[tokio::test]
async fn workers_that_are_missing_or_silent_are_named() {
    let cluster = Cluster::of(2).limits("hold_time_max = \"300s\"\nevents_per_client_max = 1").start().await;
    let mut client = cluster.client(0).await;
    client.say("one").await;
    let said = "no worker takes service \\\"default\\\" of listener \\\"web\\\" at gateway-1, gateway-2, 1 client wait";
    finds(&cluster, "services", "fail", said).await;
    let listed = until("the client is listed as held", async || {
        let (code, out, err) = cluster.run(&["clients", "--held", "--json"]);
        assert_eq!(code, 0, "{err}");
        json(&out)["clients"].as_array().unwrap().first().cloned()
    })
    .await;
    assert_eq!(listed["client_id"], Value::from(client.id.clone()));

    // It takes the events, and answers none.
    let mut worker = TestWorker::attach(&cluster.internal[0], 7).await;
    let other = TestWorker::attach(&cluster.internal[1], 7).await;
    let opened = worker.event().await;
    worker.ack(&opened).await;
    let event = worker.event().await;
    client.say("two").await;
    finds(&cluster, "workers", "warn", "test-7 has answered none of 1 event for ").await;
    let (_, out, _) = cluster.run(&["clients", "--held"]);
    assert_eq!(out.lines().count(), 1, "{out}");
    let (_, out, _) = cluster.run(&["clients", "--paused"]);
    assert!(out.contains(&client.id) && out.contains("test-7"), "{out}");
    let (_, out, _) = cluster.run(&["clients", "--paused", "--uid", "nobody"]);
    assert!(!out.contains(&client.id), "{out}");
    worker.ack(&event).await;
    worker.takes("two").await;
    is_healthy(&cluster).await;
    drop(other);
    finds(&cluster, "workers", "warn", "test-7 is attached to 1 of 2 gateways").await;
}

/// A gateway that is full, and may have fewer files than it is to have clients.
#[tokio::test]
async fn what_is_full_is_named() {
    let cluster = Cluster::quiet(2).limits("clients_max = 10").start().await;
    is_healthy(&cluster).await;
    let mut clients = Vec::new();
    for _ in 0..9 {
        clients.push(cluster.client_at(1).await);
    }
    finds(&cluster, "capacity", "warn", "gateway-2 has 9 of 10 clients").await;
    let (code, out, _) = cluster.run(&["drain", "gateway-2", "--check"]);
    assert!(code == 0 && out.contains("9 clients, and the others have room for 10"), "{out}");
    clients.push(cluster.client_at(1).await);
    finds(&cluster, "capacity", "fail", "gateway-2 has 10 of 10 clients: it refuses others").await;
    clients.push(cluster.client_at(0).await);
    let (code, out, err) = cluster.run(&["drain", "gateway-2", "--check"]);
    assert!(code == 1 && out.contains("FAIL  room"), "{out}");
    assert!(err.contains("gateway-2 should not be restarted now"), "{err}");
    let (code, _, err) = cluster.run(&["drain", "gateway-9", "--check"]);
    assert!(code == 4 && err.contains("no gateway \"gateway-9\""), "{err}");
    drop(clients);
    is_healthy(&cluster).await;
    assert_eq!(cluster.run(&["drain", "gateway-2", "--check"]).0, 0);
}

/// An app that has as many connections as it may, and a channel with as many members; but not a stranger who is refused,
/// nor one user too many.
#[tokio::test]
async fn limits_that_refuse_an_apps_users_are_named() {
    let limits = "id = \"shop\"\nconnections_max = 2\norigins = [\"https://www.example.com\"]\n\
                  limits = { presence_members_max = 1 }";
    let cluster = Cluster::quiet(2).more(&APPS.replace("id = \"shop\"", limits)).start().await;
    is_healthy(&cluster).await;
    let url = format!("ws://{}/app/shop-key?protocol=7", cluster.web(0));
    let origin = [("origin", "https://www.example.com")];
    let mut first = Pusher::of(Client::try_connect(&url, &origin).await.unwrap()).await;
    let other = url.replace(&cluster.web(0).to_string(), &cluster.web(1).to_string());
    let mut second = Pusher::of(Client::try_connect(&other, &origin).await.unwrap()).await;
    let too_many = async || {
        let mut client = Client::try_connect(&url, &origin).await.unwrap();
        assert_eq!(client.closed().await.code, 4004);
    };
    too_many().await;
    for number in 0..5 {
        let strange = [("origin", &*format!("https://{number}.example.org"))];
        let mut stranger = Client::try_connect(&url, &strange).await.unwrap();
        assert_eq!(stranger.closed().await.code, 4009);
    }
    is_healthy(&cluster).await;
    until("the full app is named", async || {
        too_many().await;
        let (bad, out) = examine(&cluster);
        println!("{out}");
        let said = "app \\\"shop\\\" has 2 of 2 connections (connections_max): ";
        (bad == warns_of_limits() && out.contains(said)).then_some(())
    })
    .await;
    first.join("presence-room", "ann").await;
    let refused = async {
        loop {
            let channel_data = r#"{"user_id":"bob"}"#;
            let auth = sign(&format!("{}:presence-room:{channel_data}", second.socket_id));
            let data =
                serde_json::json!({"channel": "presence-room", "auth": auth, "channel_data": channel_data});
            second.say("pusher:subscribe", data).await;
            assert_eq!(second.hear().await["event"], "pusher:subscription_error");
            let (bad, out) = examine(&cluster);
            let said = "channel \\\"presence-room\\\" has its 1 members (limits.presence_members_max): ";
            if bad == warns_of_limits() && out.contains(said) {
                break;
            }
            println!("{out}");
        }
    };
    soon("the full channel is named", refused).await;
}

fn warns_of_limits() -> BTreeMap<String, String> {
    BTreeMap::from([("limits".to_owned(), "warn".to_owned())])
}

/// No machine allows so many files; and one gateway alone must not leave.
#[tokio::test]
async fn limit_on_open_files_is_named() {
    let cluster = Cluster::quiet(1).limits("clients_max = 100000000").start().await;
    finds(&cluster, "files", "warn", "of the 100000000 clients of clients_max").await;
    let (code, out, _) = cluster.run(&["drain", "gateway-1", "--check", "--json"]);
    assert!(code == 1 && json(&out)["may_restart"] == false, "{out}");
    assert!(out.contains("there is no other gateway"), "{out}");
}

/// A client that does not read: first its outbox fills, then it is closed.
#[tokio::test]
async fn clients_that_do_not_read_are_named() {
    let limits = "outbox_bytes_max = 2000000\noutboxes_bytes_max = 2010000\noutbox_time_max = \"300s\"";
    let cluster = Cluster::quiet(2).limits(limits).start().await;
    let client = cluster.client(1).await;
    let caller = cluster.caller(0).await;
    let payload = "x".repeat(50_000);
    // Until the kernel's buffers are full, and then most of the outbox.
    until("the outbox is nearly full", async || {
        caller.clone().send(text(all(), &payload)).await.unwrap();
        (cluster.details(1, &client.id).await.outbox_bytes > 1_700_000).then_some(())
    })
    .await;
    finds(&cluster, "outboxes", "warn", "wait in the outboxes of gateway-2, 1 client slow").await;
    let (_, out, _) = cluster.run(&["clients", "--slow"]);
    assert!(out.contains(&client.id) && out.contains("MiB"), "{out}");
    until("it is closed", async || {
        caller.clone().send(text(all(), &payload)).await.unwrap();
        (cluster.count(0).await == 0).then_some(())
    })
    .await;
    finds(&cluster, "drops", "warn", "dropped in the last minutes: ").await;
    let (_, out, _) = cluster.run(&["clients", "--slow", "--json"]);
    assert!(json(&out)["clients"].as_array().unwrap().is_empty(), "{out}");
}

/// A webhook's receiver that is down.
#[tokio::test]
async fn failing_webhook_is_named() {
    let address = free_address();
    let cluster = Cluster::quiet(2).more(&hooked(address)).start().await;
    is_healthy(&cluster).await;
    let mut user = Pusher::connect(&cluster, 0).await;
    user.subscribe("news").await;
    finds(&cluster, "webhooks", "warn", &format!("http://{address}/ of app \\\"shop\\\" fails at ")).await;
}

/// Only the clients that are listed are looked at: pages of them are whole, whatever else is connected.
#[tokio::test]
async fn pages_of_held_clients_are_whole() {
    let cluster = Cluster::of(2).limits("hold_time_max = \"300s\"").start().await;
    let mut clients = Vec::new();
    for number in 0..7 {
        clients.push(cluster.client(number % 2).await);
    }
    let mut expected: Vec<String> = clients.iter().map(|client| client.id.clone()).collect();
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let (_, out, _) = cluster.run(&["clients", "--held", "--json", "--limit", "2", "--cursor", &cursor]);
        let page = json(&out);
        let ids = page["clients"].as_array().unwrap().iter();
        found.extend(ids.map(|client| client["client_id"].as_str().unwrap().to_owned()));
        cursor = page["next_cursor"].as_str().unwrap().to_owned();
        if cursor.is_empty() {
            break;
        }
    }
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    let request = v1::ListClientsRequest { of: Some(all()), state: 99, ..Default::default() };
    let refused = cluster.caller(0).await.list_clients(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
}
