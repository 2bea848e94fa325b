//! `broadgate why`: each cause of an end and each refusal is made for real, and named, and nothing else is.

use broadgate_proto::v1::{self, Cause};
use serde_json::Value;

use crate::{apps::replace, harness::*};

/// What is remembered of somebody, once there is something: an answer of any gateway, as JSON.
async fn why(cluster: &Cluster, of: &[&str]) -> Value {
    let what = format!("why {of:?} knows something");
    until(&what, async || {
        let (code, out, _) = cluster.run(&[&["why", "--json"], of].concat());
        (code == 0).then(|| serde_json::from_str(&out).unwrap())
    })
    .await
}

/// The one end of a client, and nothing else, as JSON; and what people read.
async fn end_of(cluster: &Cluster, id: &str) -> (Value, String) {
    let reply = why(cluster, &["--client", id]).await;
    let (ended, refused) = (reply["ended"].as_array().unwrap(), reply["refused"].as_array().unwrap());
    assert_eq!((ended.len(), refused.len()), (1, 0), "{reply}");
    assert_eq!((&reply["ended_total"], &ended[0]["client_id"]), (&1.into(), &id.into()), "{reply}");
    let (code, text, problem) = cluster.run(&["why", "--client", id]);
    assert_eq!((code, problem.as_str()), (0, ""), "{text}");
    (ended[0].clone(), text)
}

/// Checks what is said of a client's end.
async fn ended(cluster: &Cluster, id: &str, (cause, code, limit): (Cause, u16, &str), words: &str) -> Value {
    let (end, text) = end_of(cluster, id).await;
    let expected = (cause.as_str_name().into(), code.into(), limit.into());
    let said = (&end["cause"], &end["code"], &end["limit"]);
    assert_eq!(said, (&expected.0, &expected.1, &expected.2), "{end}");
    assert!(text.contains(words) && text.contains("because"), "{words}: {text}");
    // Of one client there is one end, and so one heading.
    let headings =
        text.lines().filter(|line| ["CLOSED", "LEFT", "LOST"].iter().any(|word| line.contains(word)));
    assert_eq!(headings.count(), 1, "{text}");
    end
}

#[tokio::test]
async fn ends_by_clients_commands_and_broken_protocols_are_explained() {
    let cluster = Cluster::quiet(2)
        .limits("messages_per_second_max = 20\nframes_per_second_max = 30\nmessage_bytes_max = 1000")
        .listener("ping_interval = \"1s\"\nsilence_max = \"4s\"")
        .start()
        .await;
    let silent = cluster.client(0).await;
    let mut leaves = cluster.client(1).await;
    leaves.goodbye(3000, "enough").await;
    let end = ended(&cluster, &leaves.id, (Cause::Client, 3000, ""), "LEFT 3000").await;
    assert_eq!((&end["gateway"], &end["reason"]), (&"gateway-2".into(), &"enough".into()), "{end}");
    assert_eq!((&end["address"], &end["listener"]), (&leaves.local.as_str().into(), &"web".into()), "{end}");

    let lost = cluster.client(0).await;
    let id = lost.id.clone();
    drop(lost);
    ended(&cluster, &id, (Cause::Lost, 1006, ""), "without a close").await;

    let kicked = cluster.client(1).await;
    let mut caller = cluster.caller(0).await;
    caller.bind(bind(&kicked.id, "42")).await.unwrap();
    caller.join(join(&[&kicked.id], &["a", "b"])).await.unwrap();
    assert_eq!(cluster.run(&["kick", "--client", &kicked.id, "--code", "4321", "--reason", "too loud"]).0, 0);
    let end = ended(&cluster, &kicked.id, (Cause::Command, 4321, ""), "too loud").await;
    assert!(end["command_id"].as_str().unwrap().len() > 4 && end["groups_total"] == 2, "{end}");
    let by_uid = why(&cluster, &["--uid", "42", "--app", "default"]).await;
    assert_eq!(by_uid["ended"][0]["client_id"], kicked.id.as_str(), "{by_uid}");

    let cut = cluster.client(0).await;
    assert_eq!(cluster.run(&["kick", "--client", &cut.id, "--at-once"]).0, 0);
    ended(&cluster, &cut.id, (Cause::Command, 1006, ""), "it was cut by command").await;

    let (former, newer) = (cluster.client(0).await, cluster.client(1).await);
    for id in [&former.id, &newer.id] {
        caller.bind(v1::BindRequest { exclusive: true, ..bind(id, "7") }).await.unwrap();
    }
    ended(&cluster, &former.id, (Cause::Command, 4009, ""), "an exclusive bind").await;

    for (bytes, code, limit, words) in [
        // A text of 1,200 bytes, one that is no UTF-8, and one that is not masked.
        (
            [&b"\x81\xfe\x04\xb0\0\0\0\0"[..], &[b'x'; 1200]].concat(),
            1009,
            "message_bytes_max",
            "larger than",
        ),
        (b"\x81\x82\0\0\0\0\xff\xff".to_vec(), 1007, "", "not UTF-8"),
        (b"\x81\x01x".to_vec(), 1002, "", "broke its protocol"),
        (b"\x81\x81\0\0\0\0x".repeat(25), 1008, "messages_per_second_max", "more in a second"),
        (b"\x89\x80\0\0\0\0".repeat(35), 1008, "frames_per_second_max", "more in a second"),
    ] {
        let mut breaks = cluster.client(0).await;
        breaks.raw(&bytes).await;
        ended(&cluster, &breaks.id, (Cause::Protocol, code, limit), words).await;
    }
    // It has not been read from, so nothing answered its pings.
    let end = ended(&cluster, &silent.id, (Cause::Silent, 4201, "silence_max"), "nothing came from it").await;
    assert!(end["silent_s"].as_u64().unwrap() >= 4, "{end}");
    nothing_is_found(&cluster);

    // Of what was refused to her address since, only what can have been of her app.
    for path in ["/ws/nobody-has-this-app", "/nowhere"] {
        let request = crate::malformed_input::UPGRADE.replacen("/ws", path, 1);
        crate::malformed_input::answer(cluster.web(0), request.as_bytes(), false).await;
        refused_for(&cluster, if path == "/nowhere" { "path" } else { "app" }).await;
    }
    let (_, text, _) = cluster.run(&["why", "--uid", "42"]);
    assert!(text.contains("path /nowhere") && !text.contains("nobody-has-this-app"), "{text}");
}

/// What is asked for and not remembered.
fn nothing_is_found(cluster: &Cluster) {
    let (code, out, problem) = cluster.run(&["why", "--uid", "stranger"]);
    assert!(code == 4 && out.is_empty() && problem.contains("nothing is remembered of uid"), "{problem}");
    assert!(problem.contains("remembered since"), "{problem}");
    let (code, _, problem) = cluster.run(&["why", "--client", "000000001000000000000000000000"]);
    assert!(code == 4 && problem.contains("is over, and its memory with it"), "{problem}");
    let (code, _, problem) = cluster.run(&["why", "--app", "stranger"]);
    assert!(code == 4 && problem.contains("no app"), "{problem}");
    for (args, words) in [
        (&["why"][..], "say whom you mean"),
        (&["why", "--address", "here"], "give an IP address"),
        (&["why", "--client", "x"], "is not a client id"),
        (&["why", "--uid", "1", "--client", "2"], "cannot be used with"),
    ] {
        let (code, _, problem) = cluster.run(args);
        assert!(code == 2 && problem.contains(words), "{args:?}: {code} {problem}");
    }
}

/// Sends to a client that reads nothing, until it is closed.
async fn flood(cluster: &Cluster, id: &str, group: &str, bytes: usize) {
    let mut caller = cluster.caller(0).await;
    caller.join(join(&[id], &[group])).await.unwrap();
    let payload = "x".repeat(bytes);
    for _ in 0..100_000 {
        let receipt = caller.send(text(groups(&[group]), &payload)).await.unwrap().into_inner();
        if receipt.clients == 0 {
            return;
        }
    }
    panic!("it was never closed");
}

#[tokio::test]
async fn ends_of_slow_clients_name_the_limit_and_the_loudest_group() {
    // Its time is another limit, below: a slow machine takes seconds for so many messages.
    let limits = "outbox_bytes_max = 1000000\noutbox_messages_max = 400\noutbox_time_max = \"60s\"";
    let cluster = Cluster::quiet(2).limits(limits).start().await;
    let slow = cluster.client(1).await;
    flood(&cluster, &slow.id, "orders.eu", 300_000).await;
    let what = (Cause::Slow, 4100, "outbox_bytes_max");
    let end = ended(&cluster, &slow.id, what, "as many bytes waited as may").await;
    assert!(end["loudest_group"] == "orders.eu" && end["loudest_bytes"].as_u64() >= Some(300_000), "{end}");
    assert!(end["unsent_messages"].as_u64() >= Some(1) && end["unsent_bytes"].as_u64() > Some(0), "{end}");

    let many = cluster.client(0).await;
    flood(&cluster, &many.id, "ticks", 2_000).await;
    let what = (Cause::Slow, 4100, "outbox_messages_max");
    ended(&cluster, &many.id, what, "as many messages waited as may").await;

    drop((slow, many, cluster));
    let cluster = Cluster::quiet(1).limits("outbox_time_max = \"4s\"").start().await;
    let late = cluster.client(0).await;
    let mut caller = cluster.caller(0).await;
    caller.join(join(&[&late.id], &["slowly"])).await.unwrap();
    let payload = "x".repeat(100_000);
    until("more than the low-water mark waits", async || {
        let mut caller = caller.clone();
        caller.send(text(groups(&["slowly"]), &payload)).await.unwrap();
        // On a slow machine its time may be over between the two calls.
        let wanted = v1::GetClientRequest { client_id: late.id.clone(), ..Default::default() };
        match caller.get_client(wanted).await {
            Ok(reply) => (reply.into_inner().client.unwrap().outbox_bytes > 65_536).then_some(()),
            Err(status) => (status.code() == tonic::Code::NotFound).then_some(()),
        }
    })
    .await;
    let what = (Cause::Slow, 4100, "outbox_time_max");
    let end = ended(&cluster, &late.id, what, "more than 64 KiB waited for").await;
    assert!(end["backlog_s"].as_u64() >= Some(4), "{end}");
    drop(late);
}

/// What waits is counted, also the message for which there was no room, and what a close in good order left unsent.
#[tokio::test]
async fn unsent_messages_are_counted() {
    let limits = "outbox_bytes_max = 50000000\noutbox_messages_max = 50\nclose_time_max = \"1s\"";
    let cluster = Cluster::quiet(1).limits(limits).start().await;
    // Larger than the kernel's buffers.
    let payload = "x".repeat(1_000_000);
    let [slow, kicked] = [cluster.client(0).await, cluster.client(0).await];
    let mut caller = cluster.caller(0).await;
    let mut placed = 0;
    while caller.send(text(clients(&[&slow.id]), &payload)).await.unwrap().into_inner().clients == 1 {
        placed += 1;
        assert!(placed < 200, "it is never closed");
    }
    let end = ended(&cluster, &slow.id, (Cause::Slow, 4100, "outbox_messages_max"), "as many messages").await;
    assert_eq!(end["unsent_messages"], 51, "fifty waited, and one found no room: {end}");
    for _ in 0..30 {
        caller.send(text(clients(&[&kicked.id]), &payload)).await.unwrap();
    }
    assert_eq!(cluster.run(&["kick", "--client", &kicked.id]).0, 0);
    until("what it did not take is counted", async || {
        let (end, text) = end_of(&cluster, &kicked.id).await;
        let unsent = end["unsent_messages"].as_u64().unwrap();
        assert!(unsent <= 30, "the farewell is no message: {end}");
        (unsent > 10 && end["unsent_bytes"].as_u64() > Some(10_000_000) && text.contains("unsent"))
            .then_some(())
    })
    .await;
    drop((slow, kicked));
}

#[tokio::test]
async fn ends_for_want_of_memory_are_explained() {
    let limits = "outbox_bytes_max = 1000000\noutboxes_bytes_max = 1100000";
    let cluster = Cluster::quiet(1).limits(limits).start().await;
    let mut clients = Vec::new();
    for number in 0..6 {
        let client = cluster.client(0).await;
        cluster.caller(0).await.join(join(&[&client.id], &[&format!("g{number}")])).await.unwrap();
        clients.push(client);
    }
    // Each shard has half of the limit, but at least what one outbox may have.
    let mut caller = cluster.caller(0).await;
    let payload = "x".repeat(200_000);
    let closed = until("one is closed", async || {
        let mut caller = caller.clone();
        for number in 0..6 {
            let to = groups(&[&format!("g{number}")]);
            if caller.send(text(to, &payload)).await.unwrap().into_inner().clients == 0 {
                return Some(number);
            }
        }
        None
    })
    .await;
    let _ = &mut caller;
    // One whose outbox was full by itself may have been the first.
    let (end, text) = end_of(&cluster, &clients[closed].id).await;
    let all = why(&cluster, &["--app", "default"]).await;
    let limits: Vec<_> = all["ended"].as_array().unwrap().iter().map(|end| end["limit"].clone()).collect();
    assert!(limits.contains(&"outboxes_bytes_max".into()), "{all}");
    assert!(end["cause"] == "CAUSE_SLOW" && text.contains("4100, slow"), "{text}");
}

#[tokio::test]
async fn ends_for_want_of_workers_and_by_their_deaths_are_explained() {
    let cluster = Cluster::of(1).limits("hold_time_max = \"1s\"").start().await;
    let mut held = cluster.client(0).await;
    held.say("hello?").await;
    ended(&cluster, &held.id, (Cause::NoWorker, 1013, "hold_time_max"), "no worker took its events").await;

    let internal = cluster.internal[0].clone();
    let mut deadly = None;
    for number in 1.. {
        let mut worker = TestWorker::attach(&internal, number).await;
        if deadly.is_none() {
            let mut client = cluster.client(0).await;
            client.say("die").await;
            deadly = Some(client);
        }
        // It dies of the message, or hears that the client has been closed.
        let event = loop {
            let event = worker.event().await;
            if said(&event) == Some("die") || matches!(event.event, Some(v1::event::Event::Closed(_))) {
                break event;
            }
            worker.ack(&event).await;
        };
        if said(&event) != Some("die") {
            break;
        }
        assert!(number < 10, "it is handed out again and again");
    }
    let deadly = deadly.unwrap();
    ended(&cluster, &deadly.id, (Cause::Event, 4011, ""), "workers died of one of its messages").await;
}

#[tokio::test]
async fn ends_with_their_gateway_or_app_are_explained() {
    let shop = "[[apps]]\nid = \"shop\"\nraw = true\n";
    let cluster = Cluster::quiet(2).register("beat = \"200ms\"\nlease = \"1s\"").more(shop).start().await;
    let of_shop = cluster.client_of(0, "shop").await;
    let config = cluster.dir.join("gateway-1.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    replace(&config, &text.replace("id = \"shop\"\n", "id = \"shop\"\nenabled = false\n"));
    cluster.gateways[0].signal("HUP");
    ended(&cluster, &of_shop.id, (Cause::Command, 4003, ""), "its app was disabled or removed").await;

    // It was away for longer than its lease, so it joins as another incarnation.
    let client = cluster.client(1).await;
    cluster.gateways[1].signal("STOP");
    until("it is removed", async || (cluster.view().await?.members.len() == 1).then_some(())).await;
    until("that is remembered", async || {
        let (_, _, problem) = cluster.run(&["why", "--client", &client.id]);
        problem.contains("because it did not beat").then_some(())
    })
    .await;
    // Meanwhile the others say so.
    let (code, _, problem) = cluster.run(&["why", "--client", &client.id]);
    assert!(code == 4 && problem.contains("gateway-2, which had it, was removed at "), "{code} {problem}");
    cluster.gateways[1].signal("CONT");
    // The register says why, or a peer that it was.
    until("its end is explained", async || {
        let (_, out, _) = cluster.run(&["why", "--client", &client.id]);
        let is_explained =
            out.contains("CLOSED 1012, gateway removed") && out.contains("joined again without its clients");
        is_explained.then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_gateway_does_not_answer_and_does_not_keep_is_said() {
    let off = "[gateway.recorder]\ncaused_max = 0\nown_max = 0\nrefused_max = 0";
    let cluster = Cluster::quiet(2).more(off).start().await;
    let mut client = cluster.client(1).await;
    client.goodbye(1000, "").await;
    until("it is gone", async || (cluster.count(0).await == 0).then_some(())).await;
    let (code, _, problem) = cluster.run(&["why", "--client", &client.id]);
    assert!(code == 4 && problem.contains("remembered nothing"), "{problem}");
    assert!(problem.contains("gateway-2: not everything, by its [gateway.recorder]"), "{problem}");
    cluster.gateways[1].signal("STOP");
    let (code, _, problem) = cluster.run(&["why", "--client", &client.id]);
    assert!(code == 3 && problem.contains("gateway-2 did not answer"), "{code} {problem}");
    cluster.gateways[1].signal("CONT");
}

/// While the register still has it, the others say for how long it has not answered.
#[tokio::test]
async fn client_at_a_gateway_that_hangs_is_explained() {
    let cluster = Cluster::quiet(2).register("beat = \"500ms\"\nlease = \"60s\"").start().await;
    let client = cluster.client(1).await;
    cluster.gateways[1].signal("STOP");
    until("it is said", async || {
        let (code, _, problem) = cluster.run(&["why", "--client", &client.id]);
        let said = "gateway-2, which has this client, has not answered for ";
        (code == 3 && problem.contains(said) && problem.contains("it hangs or is cut off")).then_some(())
    })
    .await;
    let (code, _, problem) = cluster.run(&["why", "--uid", "anybody"]);
    assert!(code == 3 && problem.contains("gateway-2 has not answered for "), "{code} {problem}");
    cluster.gateways[1].signal("CONT");
}

/// Apps whose clients are refused for one reason each.
const REFUSING: &str = "[[apps]]\nid = \"shop\"\nraw = true\nsocketio = true\npath_prefix = \"/shop\"\n\
    origins = [\"https://www.example.com\"]\nkeys = [{ key = \"shop-key\", secret = \"secret-of-the-shop\" }]\n\
    [[apps]]\nid = \"off\"\nenabled = false\npath_prefix = \"/off\"\n\
    keys = [{ key = \"off-key\", secret = \"secret-of-the-off\" }]\n\
    [[apps]]\nid = \"safe\"\ntls_only = true\nkeys = [{ key = \"safe-key\", secret = \"secret-of-the-safe\" }]\n\
    [[apps]]\nid = \"one\"\nconnections_max = 1\nauthorized_within = \"2s\"\n\
    keys = [{ key = \"one-key\", secret = \"secret-of-the-one\" }]\n";

/// Every reason for which the gateway has refused anybody so far.
pub async fn refused_for(cluster: &Cluster, reason: &str) -> Vec<Value> {
    until(&format!("{reason} is remembered"), async || {
        let (code, out, _) = cluster.run(&["why", "--address", "127.0.0.0/8", "--json", "--limit", "1000"]);
        let reply: Value = (code == 0).then(|| serde_json::from_str(&out).unwrap())?;
        let refused = reply["refused"].as_array().unwrap().clone();
        refused.iter().any(|row| row["reason"] == reason).then_some(refused)
    })
    .await
}

/// Checks that a reason is remembered, and besides it only those that were before.
pub async fn only(cluster: &Cluster, reasons: &mut Vec<String>, reason: &str) {
    let rows = refused_for(cluster, reason).await;
    reasons.push(reason.to_owned());
    for row in &rows {
        assert!(reasons.iter().any(|known| row["reason"] == known.as_str()), "{reason}: {row}");
        assert!(!row["why"].as_str().unwrap().is_empty() && row["gateway"] == "gateway-1", "{row}");
    }
    let text = cluster.run(&["why", "--address", "127.0.0.0/8", "--limit", "1000"]).1;
    assert!(text.contains(&format!("REFUSED {reason}")), "{text}");
    for secret in ["secret-of-the", "hush", "f00df00d"] {
        assert!(!text.contains(secret) && !format!("{rows:?}").contains(secret), "{secret}: {text}");
    }
}

#[tokio::test]
async fn refusals_are_named_and_nothing_else_is() {
    let [gate, proxied, secure] = [(); 3].map(|()| free_address());
    let certificates = std::env::temp_dir().join(format!("broadgate-why-{}", std::process::id()));
    let folder = certificates.display().to_string();
    certs(&["ca", "--dir", &folder]);
    certs(&["pair", "web", "--dir", &folder]);
    let listener = |name: &str, bind: std::net::SocketAddr, rest: &str| {
        format!("[[gateway.listeners]]\nname = \"{name}\"\nkind = \"web\"\nbind = \"{bind}\"\n{rest}\n")
    };
    let tls =
        format!("service = \"\"\ntls = [{{ cert = \"{folder}/web.pem\", key = \"{folder}/web.key\" }}]");
    let more = [
        listener("gate", gate, "service = \"gate\"\nauthorize = \"worker\""),
        listener(
            "proxied",
            proxied,
            "service = \"\"\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.0/8\"]",
        ),
        listener("secure", secure, &tls),
        REFUSING.to_owned(),
    ];
    let limits = "hold_time_max = \"1s\"\nfirst_byte_time_max = \"1s\"\nhandshake_time_max = \"2s\"\n\
                  clients_max = 16\nclients_per_ip_max = 12";
    let cluster = Cluster::quiet(1).limits(limits).more(&more.concat()).start().await;
    let web = cluster.web(0);
    let upgrade = |path: &str, headers: &str| {
        let request = crate::malformed_input::UPGRADE.replacen("/ws", path, 1);
        request.replacen("\r\n", &format!("\r\nCookie: hush\r\n{headers}"), 1)
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let (code, _, problem) = cluster.run(&["why", "--address", "127.0.0.1"]);
    assert!(code == 4 && problem.contains("remembered since"), "{problem}");

    let mut reasons = Vec::new();
    for (address, bytes, reason) in [
        (web, get("/x").replace("Host: x\r\n", ""), "host"),
        (web, get("/nowhere?token=hush"), "path"),
        (web, get("/ws"), "upgrade"),
        (web, upgrade("/ws/nobody", ""), "app"),
        (web, upgrade("/ws/shop?token=hush", "Origin: https://evil.example\r\n"), "origin"),
        (web, upgrade("/app/secret-of-the-shop", ""), "key"),
        (web, upgrade("/off/app/shop-key?protocol=7", ""), "path_prefix"),
        (web, upgrade("/app/off-key?protocol=7", ""), "disabled"),
        (web, upgrade("/app/shop-key?protocol=3", ""), "protocol_version"),
        (web, upgrade("/app/safe-key?protocol=7", ""), "tls_only"),
        (web, "no HTTP at all\r\n\r\n".to_owned(), "http"),
        (web, get("/apps/shop/channels?auth_key=shop-key&auth_signature=f00df00d"), "api_401"),
        (web, get("/apps/nobody/channels?auth_key=shop-key"), "api_404"),
        (web, String::new(), "first_byte_time_max"),
        (web, "GET /ws HT".to_owned(), "handshake_time_max"),
        (secure, get("/ws"), "tls"),
        (proxied, "PROXY nonsense\r\n".to_owned(), "proxy_header"),
        (gate, upgrade("/ws", ""), "no_worker"),
        (
            web,
            get("/socket.io/shop-key?EIO=9&transport=polling")
                .replace("Host: x\r\n", "Host: x\r\nOrigin: https://www.example.com\r\n"),
            "socketio",
        ),
    ] {
        crate::malformed_input::answer(address, bytes.as_bytes(), false).await;
        only(&cluster, &mut reasons, reason).await;
    }
    // Equal ones are one row.
    let row = |rows: Vec<Value>, reason: &str| rows.into_iter().find(|row| row["reason"] == reason).unwrap();
    for _ in 0..4 {
        crate::malformed_input::answer(web, get("/nowhere?token=other").as_bytes(), false).await;
    }
    let path = row(refused_for(&cluster, "path").await, "path");
    assert_eq!((&path["count"], &path["path"]), (&5.into(), &"/nowhere".into()), "{path}");
    origin_is_shown(&cluster).await;
    let by_app = why(&cluster, &["--app", "shop"]).await;
    let apps = by_app["refused"].as_array().unwrap().iter().map(|row| row["app"].clone());
    assert!(apps.clone().count() >= 3 && apps.into_iter().all(|app| app == "shop"), "{by_app}");

    refusals_to_clients(&cluster, &mut reasons).await;
    refusals_by_a_worker(&cluster, gate, &mut reasons).await;
    refusals_for_room(&cluster, &mut reasons).await;
    let _ = std::fs::remove_dir_all(&certificates);
}

/// A page's origin is shown where it is the reason, and nowhere else.
async fn origin_is_shown(cluster: &Cluster) {
    let all = refused_for(cluster, "origin").await;
    for row in &all {
        let expected = if row["reason"] == "origin" { "https://evil.example" } else { "" };
        assert_eq!(row["origin"], expected, "{row}");
    }
    let text = cluster.run(&["why", "--app", "shop", "--limit", "1000"]).1;
    assert!(text.contains("origin https://evil.example\n"), "{text}");
}

/// Of an app's connections and its clients' subscriptions.
async fn refusals_to_clients(cluster: &Cluster, reasons: &mut Vec<String>) {
    let url = format!("ws://{}/app/one-key?protocol=7", cluster.web(0));
    let mut first = Client::connect(&url).await;
    first.hear().await;
    let mut second = Client::connect(&url).await;
    assert_eq!(second.closed().await.code, 4004);
    only(cluster, reasons, "connections_max").await;
    first
        .say(r#"{"event":"pusher:subscribe","data":{"channel":"private-x","auth":"one-key:f00df00d"}}"#)
        .await;
    only(cluster, reasons, "subscription").await;
    first.say(r#"{"event":"pusher:signin","data":{"auth":"one-key:f00df00d","user_data":"{}"}}"#).await;
    only(cluster, reasons, "signin").await;
    // It is not authorized by any of that.
    let ends = until("it is closed", async || {
        let reply = why(cluster, &["--app", "one"]).await;
        (reply["ended_total"] != 0).then_some(reply)
    })
    .await;
    let end = &ends["ended"][0];
    let said = (&end["cause"], &end["code"], &end["limit"]);
    assert_eq!(said, (&"CAUSE_PROTOCOL".into(), &4009.into(), &"authorized_within".into()), "{ends}");
}

async fn refusals_by_a_worker(cluster: &Cluster, gate: std::net::SocketAddr, reasons: &mut Vec<String>) {
    let mut worker =
        TestWorker::attach_as(&cluster.internal[0], 1, |hello| hello.services = vec!["gate".to_owned()])
            .await;
    let knocking = tokio::spawn(async move {
        Client::try_connect(&format!("ws://{gate}/ws"), &[]).await.map(|_| ()).unwrap_err()
    });
    let event = worker.event().await;
    let refuse = v1::Refuse { status: 403, body: "not you".to_owned() };
    worker.decide(&event, v1::decision::Decision::Refuse(refuse)).await;
    assert!(soon("the refusal", knocking).await.unwrap().to_string().contains("403"));
    only(cluster, reasons, "worker").await;
}

/// Of an address, and of the gateway.
async fn refusals_for_room(cluster: &Cluster, reasons: &mut Vec<String>) {
    let url = format!("ws://{}/ws", cluster.web(0));
    let mut open = Vec::new();
    while let Ok(client) = Client::try_connect(&url, &[]).await {
        open.push(client);
        assert!(open.len() <= 12);
    }
    only(cluster, reasons, "clients_per_ip_max").await;
    let mut others = Vec::new();
    for _ in 0..6 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let stream = socket.connect(cluster.web(0)).await.unwrap();
        let shaken = tokio_tungstenite::client_async(&*url, stream).await;
        others.extend(shaken.ok());
    }
    assert!(others.len() < 6);
    only(cluster, reasons, "clients_max").await;
    let text = cluster.run(&["why", "--address", "127.0.0.2"]).1;
    assert!(text.contains("REFUSED clients_max") && !text.contains("clients_per_ip_max\n"), "{text}");
}
