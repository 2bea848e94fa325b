//! More refusals made for real, each named by `broadgate why`: those of the internal port, of backends, of subscriptions,
//! and of a gateway that stops or does not know whether there is room.

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    flood::signed,
    harness::*,
    malformed_input::{UPGRADE, answer},
    socketio::{Io, Laravel},
    why::only,
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
