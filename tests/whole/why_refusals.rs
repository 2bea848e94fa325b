//! More refusals made for real, each named by `broadgate why`: those of the internal port, of backends, of subscriptions,
//! and of a gateway that stops or does not know whether there is room.

use std::{collections::BTreeSet, sync::Arc};

use broadgate_gateway::REFUSAL_REASONS;
use broadgate_proto::{secret::Secret, v1};
use broadgate_tls::{
    FileReads, client_config, load_pair, load_roots, rustls::pki_types::ServerName,
    tokio_rustls::TlsConnector,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{Code, transport::Channel};

use crate::{
    cluster_tls::{Ca, certs_dir, logs, pem},
    flood::{get, signed},
    harness::*,
    http::post,
    malformed_input::{UPGRADE, answer},
    pusher::Pusher,
    socketio::{Io, Laravel},
    tokens::TokensFile,
    why::{only, refused_for},
};

/// Larger than any body may be on a port whose payloads have the usual size.
const TOO_LARGE: usize = 100_000_000;
/// Seven of these are what all bodies may have together.
const LARGEST: usize = 9 << 20;

/// A JSON call, of whose body nothing more comes.
fn call(name: &str, headers: &str, length: usize, body: &str) -> String {
    format!(
        "POST /v1/{name} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{headers}\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn refusals_of_the_internal_port_are_named() {
    let cluster = Cluster::quiet(1).start().await;
    let port = cluster.internal[0].parse().unwrap();
    let mut reasons = Vec::new();
    let whole = |name: &str, headers: &str, body: &str| {
        call(name, &format!("Connection: close\r\n{headers}"), body.len(), body)
    };
    for (bytes, reason) in [
        (whole("Status", "", "{}").replace("Host: 127.0.0.1", "Host: evil.example"), "host"),
        (whole("Status", "Origin: https://evil.example\r\n", "{}"), "browser"),
        (whole("Status", "", "{}").replace("/v1/Status", "/broadgate.v1.Gateway/Status"), "not_grpc"),
        (whole("Status", "", "{nonsense"), "command_invalid"),
        (whole("ListUids", "", "{\"requires\":[\"no_such_field\"]}"), "command_unknown"),
        (call("Status", "Connection: close\r\n", TOO_LARGE, ""), "command_too_large"),
    ] {
        answer(port, bytes.as_bytes(), false).await;
        only(&cluster, &mut reasons, reason).await;
    }
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(port).await.unwrap();
        stream.write_all(call("Status", "", LARGEST, "").as_bytes()).await.unwrap();
        waiting.push(stream);
    }
    only(&cluster, &mut reasons, "json_bodies_bytes_max").await;
    // The others do not send theirs in time.
    only(&cluster, &mut reasons, "command_slow").await;
}

#[tokio::test]
async fn callers_without_the_secret_are_named() {
    let cluster = Cluster::quiet(1).secret("why-secret-of-the-cluster-0123456789").start().await;
    let bytes = call("Status", "Connection: close\r\nAuthorization: Bearer hush\r\n", 2, "{}");
    answer(cluster.internal[0].parse().unwrap(), bytes.as_bytes(), false).await;
    only(&cluster, &mut Vec::new(), "secret").await;
}

#[tokio::test]
async fn refusals_of_backends_and_subscriptions_are_named() {
    let laravel = Laravel::start().await;
    let apps = laravel.apps();
    let cluster = Cluster::quiet(1)
        .limits("api_bodies_bytes_max = 2097152")
        .more(&format!("{apps}[apps.limits]\nevent_data_bytes_max = 300000\n"))
        .start()
        .await;
    let mut reasons = Vec::new();
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(cluster.web(0)).await.unwrap();
        stream.write_all(signed("/apps/shop/events", "{}", 600_000).as_bytes()).await.unwrap();
        waiting.push(stream);
    }
    only(&cluster, &mut reasons, "api_bodies_bytes_max").await;

    // The backend answers with an error, not with yes or no.
    let mut client = Io::connect(&cluster, 0, 4).await;
    let ask =
        r#"42["subscribe",{"channel":"private-broken","auth":{"headers":{"Authorization":"Bearer ann"}}}]"#;
    client.client.say(ask).await;
    only(&cluster, &mut reasons, "authorization").await;
}

#[tokio::test]
async fn refusals_of_a_gateway_that_stops_are_named() {
    let limits = "first_byte_time_max = \"60s\"\nhandshake_time_max = \"60s\"\nclose_time_max = \"60s\"";
    let cluster = Cluster::quiet(2).limits(limits).start().await;
    let web = cluster.web(0);
    // It does not answer its close: the gateway waits for it.
    let _kept = cluster.client(0).await;
    let mut late = TcpStream::connect(web).await.unwrap();
    cluster.gateways[0].signal("TERM");
    until("no others come in", async || TcpStream::connect(web).await.err().map(drop)).await;
    late.write_all(UPGRADE.as_bytes()).await.unwrap();
    let mut told = [0; 12];
    soon("it is answered", late.read_exact(&mut told)).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 503");
    // The other gateway asks for it.
    let args = ["why", "--address", "127.0.0.0/8", "--addr", &cluster.internal[1]];
    until("the refusal is named", async || {
        let (code, out, err) = cluster.run(&args);
        println!("{code} {out}{err}");
        (out.contains("REFUSED stopping") && out.matches("REFUSED").count() == 1).then_some(())
    })
    .await;
}

/// The homes of some of these apps are at a gateway that does not answer.
#[tokio::test]
async fn clients_without_a_known_place_are_named() {
    let app = |number: usize| {
        format!(
            "[[apps]]\nid = \"app-{number}\"\nconnections_max = 9\n\
             keys = [{{ key = \"key-{number}\", secret = \"secret-of-number-{number}\" }}]\n"
        )
    };
    let apps: String = (0..12).map(app).collect();
    let settings = Cluster::quiet(2).more(&apps).register("beat = \"500ms\"\nlease = \"60s\"");
    let cluster = settings.start().await;
    cluster.synced().await;
    cluster.gateways[1].signal("STOP");
    let mut clients = Vec::new();
    for number in 0..12 {
        let url = format!("ws://{}/app/key-{number}?protocol=7", cluster.web(0));
        clients.push(Client::connect(&url).await);
    }
    let rows = until("some are refused", async || {
        let (_, out, _) = cluster.run(&["why", "--address", "127.0.0.0/8", "--json", "--timeout", "20s"]);
        let reply: Value = serde_json::from_str(&out).ok()?;
        let rows = reply["refused"].as_array().unwrap().clone();
        (!rows.is_empty()).then_some(rows)
    })
    .await;
    assert!(rows.iter().all(|row| row["reason"] == "connections_unknown"), "{rows:?}");
}

/// What backends are refused for, besides wrong keys and unknown apps.
#[tokio::test]
async fn refusals_of_backends_are_named() {
    let cluster = Cluster::quiet(2)
        .limits("handshake_time_max = \"1s\"\nlink_timeout = \"2s\"")
        .register("beat = \"500ms\"\nlease = \"60s\"")
        .more(crate::pusher::APPS)
        .more("[[apps]]\nid = \"off\"\nenabled = false\nkeys = [{ key = \"off-key\", secret = \"secret-of-the-off\" }]\n")
        .start()
        .await;
    let web = cluster.web(0);
    let close = |request: String| request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let publish = |body: &str| close(signed("/apps/shop/events", body, body.len())) + body;
    let ably = "POST /channels/x/messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                Content-Type: text/css\r\nAuthorization: Basic ";
    let basic = data_encoding::BASE64.encode(b"shop-key:secret-of-the-shop");
    let mut reasons = Vec::new();
    for (bytes, reason) in [
        (publish("{}"), "api_400"),
        (
            "GET /apps/off/channels HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Authorization: Bearer secret-of-another\r\n\r\n"
                .to_owned(),
            "api_403",
        ),
        (close(get("/apps/shop/events")), "api_405"),
        (close(signed("/apps/shop/events", "{}", 2)), "api_408"),
        (close(signed("/apps/shop/events", "{}", TOO_LARGE)), "api_413"),
        (format!("{ably}{basic}\r\nContent-Length: 2\r\n\r\n{{}}"), "api_4xx"),
    ] {
        answer(web, bytes.as_bytes(), false).await;
        only(&cluster, &mut reasons, reason).await;
    }
    // Some of these channels have their home at a gateway that does not answer.
    cluster.gateways[1].signal("STOP");
    let publish = publish(r#"{"name":"x","data":"x","channels":["a","b","c","d","e","f","g","h","i","j"]}"#);
    let told = answer(web, publish.as_bytes(), false).await;
    cluster.gateways[1].signal("CONT");
    assert!(told.starts_with(b"HTTP/1.1 503"), "{}", String::from_utf8_lossy(&told));
    only(&cluster, &mut reasons, "api_503").await;
}

/// Requests that go on for too long, and what Socket.IO clients and those of channels do.
#[tokio::test]
async fn refusals_of_long_requests_and_clients_are_named() {
    let limits = "handshake_time_max = \"1s\"\nhold_time_max = \"1s\"\ngroups_per_client_max = 1\n";
    let apps = crate::pusher::APPS.replace("raw = true\n", "raw = true\nsocketio = true\n");
    let cluster = Cluster::quiet(1).limits(limits).more(&apps).start().await;
    let web = cluster.web(0);
    let mut reasons = Vec::new();

    let post = |length: usize| {
        format!(
            "POST /socket.io/?EIO=4&transport=polling&sid=0.{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n",
            sid_of_age(0)
        )
    };
    let long = post(70_000) + &"x".repeat(70_000);
    answer(web, long.as_bytes(), false).await;
    only(&cluster, &mut reasons, "body").await;
    let polls = format!(
        "GET /socket.io/?EIO=4&transport=polling&sid=0.{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        sid_of_age(60)
    );
    answer(web, polls.as_bytes(), false).await;
    only(&cluster, &mut reasons, "socketio_polling").await;

    let mut client = Pusher::connect(&cluster, 0).await;
    client.subscribe("one").await;
    client.say("pusher:subscribe", serde_json::json!({ "channel": "two" })).await;
    assert_eq!(client.hear().await["event"], "pusher:subscription_error");
    only(&cluster, &mut reasons, "subscription").await;

    // It reads nothing of its answers.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(web).await.unwrap();
    let asking = tokio::spawn(async move {
        let requests = get("/up").repeat(60_000);
        let _ = deaf.write_all(requests.as_bytes()).await;
        deaf
    });
    // Its body never ends.
    let mut endless = TcpStream::connect(web).await.unwrap();
    endless.write_all(post(1000).as_bytes()).await.unwrap();
    only(&cluster, &mut reasons, "write_time_max").await;
    only(&cluster, &mut reasons, "exchange_time_max").await;
    drop((asking, endless));
}

/// The second half of the id that a polling client of that age, in seconds, has.
fn sid_of_age(age: u64) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    ((now - age) / 4 % (1 << 24)) << 40 | 7
}

#[tokio::test]
async fn callers_with_tokens_are_named() {
    let mut tokens = TokensFile::new("why-refusals");
    let reader = tokens.add("ann", &["--role", "reader"]);
    let operator = tokens.add("bob", &["--role", "operator", "--app", "shop"]);
    let secret = "why-secret-of-the-cluster-0123456789";
    let cluster = Cluster::quiet(1).secret(secret).gateway(&tokens.setting()).start().await;
    let call = async |bearer: &str, call: &str, body: &str| {
        let headers =
            [("Content-Type", "application/json"), ("Host", "127.0.0.1"), ("Authorization", bearer)];
        post(&cluster.internal[0], call, &headers, body).await
    };
    let mut reasons = Vec::new();
    let wrong = format!("Bearer bgt_{}", "0".repeat(43));
    call(&wrong, "Status", "{}").await;
    only(&cluster, &mut reasons, "token").await;
    call(&format!("Bearer {reader}"), "Send", r#"{"to":{"groups":["x"]},"text":"hush"}"#).await;
    only(&cluster, &mut reasons, "not_allowed").await;

    // By gRPC, of another app than the token is for: what a request's head does not say.
    let channel =
        Channel::from_shared(format!("http://{}", cluster.internal[0])).unwrap().connect().await.unwrap();
    let sender = Secret::of_token(&operator).unwrap().sender();
    let mut caller = v1::gateway_client::GatewayClient::with_interceptor(channel, sender);
    for _ in 0..3 {
        let refused = caller.send(text(groups(&["x"]), "hush")).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
    only(&cluster, &mut reasons, "not_allowed").await;
    let rows = refused_for(&cluster, "not_allowed").await;
    let row = rows.iter().find(|row| row["why"].as_str().unwrap().starts_with("token:bob: "));
    let row = row.unwrap_or_else(|| panic!("{rows:?}"));
    let (count, app, path) = (row["count"].to_string(), &row["app"], &row["path"]);
    assert!(count.contains('3') && app == "default" && path == "/v1/Send", "{row}");
    let (_, out, _) = cluster.run(&["events", "--kind", "audit"]);
    assert!(out.contains("token:bob"), "{out}");
}

/// Certificates and bytes with which nobody may come to the internal port of a cluster with TLS.
#[tokio::test(flavor = "multi_thread")]
async fn failed_handshakes_of_the_internal_port_are_named() {
    let cluster = Cluster::quiet(1).tls().start().await;
    let (dir, gateway) = (certs_dir(&cluster), &cluster.gateways[0]);
    let (known, foreign) = (Ca::new(), Ca::new());
    let file = dir.join("ca.pem");
    let trusted = std::fs::read_to_string(&file).unwrap() + &pem("CERTIFICATE", known.0.der());
    std::fs::write(&file, trusted).unwrap();
    gateway.signal("HUP");
    logs(gateway, &["certificates read again"]).await;

    let mut reasons = Vec::new();
    let port = cluster.internal[0].parse().unwrap();
    let plain = call("Status", "Connection: close\r\n", 2, "{}");
    // A record of a handshake: of nonsense, or cut off in its midst.
    for (bytes, reason) in [
        (plain.as_bytes(), "tls_plain"),
        (b"\x16\x03\x01\0\x04nons", "tls_protocol"),
        (b"\x16\x03\x01\x02\0\x01\0", "tls_closed"),
    ] {
        answer(port, bytes, true).await;
        only(&cluster, &mut reasons, reason).await;
    }
    let load = |files| load_pair(&files, &mut FileReads::default()).unwrap();
    let roots = |path| load_roots(path, &mut FileReads::default()).unwrap();
    std::fs::write(dir.join("foreign.pem"), pem("CERTIFICATE", foreign.0.der())).unwrap();
    let expired = load(known.pair(&dir, "expired", "broadgate", true));
    let strange = load(foreign.pair(&dir, "strange", "broadgate", false));
    let of_server = load(known.pair_of_a_server(&dir, "of-server"));
    for (ca, pair, reason) in [
        (&file, None, "tls_no_certificate"),
        (&file, Some(&expired), "tls_expired"),
        (&file, Some(&strange), "tls_unknown_ca"),
        (&file, Some(&of_server), "tls_bad_certificate"),
        (&dir.join("foreign.pem"), Some(&strange), "tls_refused_by_peer"),
    ] {
        let connector = TlsConnector::from(Arc::new(client_config(roots(ca), pair).unwrap()));
        let stream = TcpStream::connect(port).await.unwrap();
        // The client learns of its refusal at its first read.
        if let Ok(mut stream) = connector.connect(ServerName::try_from("broadgate").unwrap(), stream).await {
            soon("the gateway refuses", stream.read_u8()).await.unwrap_err();
        }
        only(&cluster, &mut reasons, reason).await;
    }

    let plain = Cluster::quiet(1).start().await;
    answer(plain.internal[0].parse().unwrap(), b"\x16\x03\x01\0\x04nons", false).await;
    only(&plain, &mut Vec::new(), "tls_not_here").await;
}

/// No reason without a test that makes it for real, and none that is not in the set.
#[test]
fn every_reason_is_made_for_real() {
    // A command that nobody answers within the longest time: of a gateway whose threads are stuck.
    let exempt = ["api_5xx"];
    let tests = [include_str!("why.rs"), include_str!("why_refusals.rs")].concat();
    let tests: String = tests.split_whitespace().collect();
    let known: BTreeSet<&str> = REFUSAL_REASONS.into();
    assert_eq!(known.len(), REFUSAL_REASONS.len(), "each is there once");
    // The last of a row, or of a call's arguments.
    let is_made = |reason: &str| {
        [format!("\"{reason}\")"), format!("\"{reason}\",)"), format!("REFUSED{reason}\"")]
            .iter()
            .any(|written| tests.contains(written))
    };
    let missing: Vec<_> =
        known.iter().filter(|reason| !exempt.contains(reason) && !is_made(reason)).collect();
    assert!(missing.is_empty(), "no test makes these: {missing:?}");
    assert!(exempt.iter().all(|reason| known.contains(reason) && !is_made(reason)), "exempt without need");
}
