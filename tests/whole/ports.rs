//! The ports that are not for clients: the internal ones, the register's, and those with probes.

use std::net::SocketAddr;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    flood::{CALLS, METRICS, sockets},
    harness::*,
    http::post,
    malformed_input::{UPGRADE, answer},
};

/// Connections that say nothing, or half of something, keep nobody else from a port, and do not stay.
#[tokio::test]
async fn flood_does_not_starve_internal_ports_and_probes() {
    let cluster = Cluster::quiet(1).more(METRICS).start().await;
    let (gateway, register) = (&cluster.gateways[0], cluster.register.as_ref().unwrap());
    let metrics: SocketAddr = gateway.logged("metrics and probes address=").await.parse().unwrap();
    let ports: [SocketAddr; 3] =
        [cluster.internal[0].parse().unwrap(), cluster.register_address.parse().unwrap(), metrics];
    let before = [sockets(gateway), sockets(register)];
    let preface = &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..];
    let mut strangers = Vec::new();
    for number in 0..400 {
        for port in ports {
            let mut stranger = TcpStream::connect(port).await.unwrap();
            let bytes = [&b""[..], b"POST /v1/Send HTTP/1.1\r\nHost:", preface, b"GET /met"][number % 4];
            // It may have been closed already.
            let _ = stranger.write_all(bytes).await;
            strangers.push(stranger);
        }
    }
    let files = sockets(gateway);
    assert!(files <= before[0] + 256 + 32 + CALLS + 128, "{} before, {files} now", before[0]);
    // Who has business there gets through.
    let count = cluster.count(0).await;
    assert_eq!(count, 0);
    cluster.view().await.expect("the register answers");
    let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(answer(metrics, request, false).await.starts_with(b"HTTP/1.1 200"));
    until("the flood is closed", async || {
        let now = [sockets(gateway), sockets(register)];
        (now[0] <= before[0] + CALLS && now[1] <= before[1] + CALLS).then_some(())
    })
    .await;
    assert_eq!(cluster.status(0).await.unwrap().gateways.len(), 1, "and the gateway is still linked");
    drop(strangers);
}

/// Requests as a page of another site would make them, at ports without a secret: none is carried out.
#[tokio::test]
async fn web_pages_reach_no_internal_port() {
    let cluster = Cluster::quiet(1).more(METRICS).start().await;
    let mut client = cluster.client(0).await;
    let internal = &cluster.internal[0];
    let metrics: SocketAddr =
        cluster.gateways[0].logged("metrics and probes address=").await.parse().unwrap();
    let send = {
        use prost::Message as _;
        let message = text(all(), "from a page").encode_to_vec();
        [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat()
    };
    let grpc = |kind: &str, more: &str| {
        let head = format!(
            "POST /broadgate.v1.Gateway/Send HTTP/1.1\r\nHost: {internal}\r\nTE: trailers\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n{more}\r\n",
            send.len()
        );
        [head.as_bytes(), &send].concat()
    };
    let evil = "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n";
    for (kind, more, status) in [
        ("text/plain", evil, 403),
        ("text/plain", "", 415),
        ("application/grpc", "", 415),
        ("application/x-www-form-urlencoded", "Sec-Fetch-Site: same-site\r\n", 403),
    ] {
        let told = answer(internal.parse().unwrap(), &grpc(kind, more), false).await;
        let told = String::from_utf8_lossy(&told).into_owned();
        assert!(told.starts_with(&format!("HTTP/1.1 {status}")), "{kind} {more}: {told}");
    }
    let json = ("Content-Type", "application/json");
    let body = json!({"to": {"all": true}, "text": "from a page"}).to_string();
    for headers in [
        &[json, ("Host", "rebound.example:7200")][..],
        &[json, ("Host", "127.0.0.1"), ("Origin", "http://127.0.0.1:8080")],
        &[json, ("Host", "127.0.0.1"), ("Host", "rebound.example")],
        &[json],
    ] {
        assert_eq!(post(internal, "Send", headers, &body).await.0, 403, "{headers:?}");
    }
    for (port, path) in [(metrics, "/metrics"), (internal.parse().unwrap(), "/v1/Status")] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: rebound.example\r\nConnection: close\r\n\r\n");
        assert!(answer(port, request.as_bytes(), false).await.starts_with(b"HTTP/1.1 403"), "{path}");
    }
    let register = cluster.register_address.parse().unwrap();
    let drain = b"POST /broadgate.v1.Register/Drain HTTP/1.1\r\nHost: 127.0.0.1\r\n\
        Content-Type: text/plain\r\nContent-Length: 5\r\nConnection: close\r\n\r\n\0\0\0\0\0";
    assert!(answer(register, drain, false).await.starts_with(b"HTTP/1.1 415"));
    // What is right comes in, and is the first that the client hears.
    assert_eq!(
        post(internal, "Send", &[json, ("Host", "localhost")], &body.replace("from a page", "right")).await.0,
        200
    );
    client.hears(&["right"]).await;
}

/// With the secret, a gateway is found under any name; without it, nothing of a body is read.
#[tokio::test]
async fn secret_is_checked_before_the_body_and_host_is_not_checked() {
    let secret = "0123456789abcdefghijklmnopqrstuv";
    let cluster = Cluster::quiet(0).start().await;
    let environment = [("BROADGATE_SECRET", secret)];
    let register = Process::start(&cluster.dir, "r", &["register", "--bind=127.0.0.1:0"], &environment);
    let address = register.logged("register address=").await;
    let flags =
        ["gateway", "--register", &address, "--internal-bind=127.0.0.1:0", "--client-bind=127.0.0.1:0"];
    let gateway = Process::start(&cluster.dir, "g", &flags, &environment);
    let internal = gateway.logged("internal=").await;
    until("it has joined", async || register.log().contains("joined").then_some(())).await;
    let bearer = format!("Bearer {secret}");
    let json = ("Content-Type", "application/json");
    for host in ["broadgate:7200", "gateways.chat.svc.cluster.local:7200", "my_project_gateway_1:7200"] {
        let headers = [json, ("Host", host), ("Authorization", &bearer)];
        assert_eq!(post(&internal, "Count", &headers, "{}").await.0, 200, "{host}");
    }
    for authorization in ["", "Authorization: Bearer x\r\n"] {
        // The body never comes, and is not waited for.
        let head = format!(
            "POST /v1/Send HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{authorization}\
             Content-Length: 2000000\r\n\r\n"
        );
        let told = answer(internal.parse().unwrap(), head.as_bytes(), false).await;
        assert!(told.starts_with(b"HTTP/1.1 401"), "{}", String::from_utf8_lossy(&told));
    }
}

/// The kinds of timers of a process's established connections, by their local and remote ports, as
/// /proc/net/tcp tells them: 02 is keep-alive.
fn timers(process: &Process) -> Vec<(u16, u16, String)> {
    let files = std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap();
    let mut inodes = Vec::new();
    for file in files.flatten() {
        let link = std::fs::read_link(file.path()).unwrap_or_default();
        let link = link.to_string_lossy().into_owned();
        let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inodes.extend(inode.map(str::to_owned));
    }
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap(), 16).unwrap();
    table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words[3] == "01" && inodes.iter().any(|inode| *inode == words[9]))
        .map(|words| (port(words[1]), port(words[2]), words[5][..2].to_owned()))
        .collect()
}

/// Every connection, accepted or dialed, is probed when it is idle: a peer that lost power is noticed.
#[tokio::test]
async fn every_connection_has_tcp_keep_alive() {
    let plain = "[[gateway.listeners]]\nname = \"text\"\nkind = \"text\"\nbind = \"127.0.0.1:0\"\nservice = \"\"\n\
                 [[gateway.listeners]]\nname = \"frame\"\nkind = \"frame\"\nbind = \"127.0.0.1:0\"\nservice = \"\"\n";
    let cluster = Cluster::quiet(2).more(plain).start().await;
    let mut clients = Vec::new();
    for listener in ["web", "text", "frame"] {
        let mut client = TcpStream::connect(cluster.listeners[0][listener]).await.unwrap();
        if listener == "web" {
            client.write_all(UPGRADE.as_bytes()).await.unwrap();
            client.read_exact(&mut [0; 12]).await.unwrap();
        }
        clients.push(client);
    }
    until("they are clients", async || (cluster.count(0).await == 3).then_some(())).await;
    let processes = [&cluster.gateways[0], &cluster.gateways[1], cluster.register.as_ref().unwrap()];
    let remotes: Vec<u16> = clients.iter().map(|client| client.local_addr().unwrap().port()).collect();
    until("idle connections are probed", async || {
        let of_clients = timers(processes[0]);
        let of_clients: Vec<_> = of_clients.iter().filter(|timer| remotes.contains(&timer.1)).collect();
        let clients_are_probed =
            of_clients.len() == 3 && of_clients.iter().all(|(_, _, timer)| timer == "02");
        // While something is under way, a connection has another timer; none has none.
        let others_are_probed =
            processes.iter().all(|process| timers(process).iter().all(|(_, _, timer)| timer != "00"));
        (clients_are_probed && others_are_probed).then_some(())
    })
    .await;
}
