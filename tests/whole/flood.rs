//! Connections in numbers, of every kind that costs something: a gateway keeps its limits, and who behaves
//! notices nothing.

use std::{net::SocketAddr, time::Duration};

use broadgate_proto::{limits::FAREWELLS_MAX, v1};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::{
    harness::*,
    malformed_input::{UPGRADE, answer},
    pusher::{APPS, sign},
};

/// How many sockets a process has open, listeners included.
pub fn sockets(process: &Process) -> usize {
    let files = std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap();
    let link = |file: std::fs::DirEntry| std::fs::read_link(file.path()).ok();
    files.flatten().filter_map(link).filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// A connection from 127.0.0.`host`; none if it is refused or reset at once.
async fn dial(to: SocketAddr, host: u8, receive_bytes: Option<u32>) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    socket.bind(SocketAddr::from(([127, 0, 0, host], 0))).unwrap();
    soon("the connection is made", socket.connect(to)).await.ok()
}

/// Writes for as long as the other side takes it.
async fn push(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = tokio::time::timeout(Duration::from_millis(500), stream.write_all(bytes)).await;
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// A signed request of shop's backend without its body.
pub fn signed(path: &str, body: &str, length: usize) -> String {
    use md5::{Digest as _, Md5};
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let md5 = data_encoding::HEXLOWER.encode(&Md5::digest(body));
    let query = format!("auth_key=shop-key&auth_timestamp={now}&auth_version=1.0&body_md5={md5}");
    let signature = sign(&format!("POST\n{path}\n{query}"));
    let signature = signature.trim_start_matches("shop-key:");
    format!(
        "POST {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// The kinds of strangers; each keeps its connection.
async fn stranger(kind: usize, to: SocketAddr, host: u8) -> Option<TcpStream> {
    let mut stream = dial(to, host, (kind == 8).then_some(4096)).await?;
    let bytes = match kind {
        0 => String::new(),
        1 => "GET /ws HTTP/1.1\r\nHost:".to_owned(),
        2 => "POST /apps/shop/events HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\nhalf".to_owned(),
        3 => signed("/apps/shop/events", "{}", 9000) + "half",
        4 => get("/up"),
        5 => get("/apps/shop/channels"),
        6 => UPGRADE.replace("/ws", "/app/nobody?protocol=7"),
        7 => get("/ws"),
        8 => get("/up").repeat(60_000),
        _ => UPGRADE.replace("/ws", "/app/shop-key?protocol=7"),
    };
    push(&mut stream, bytes.as_bytes()).await;
    Some(stream)
}

const SHORT: &str = "first_byte_time_max = \"2s\"\nhandshake_time_max = \"2s\"\nkeep_alive_time_max = \"2s\"";
pub const METRICS: &str = "[metrics]\nbind = \"127.0.0.1:0\"";
/// Sockets of the test's own calls, which may still be going.
pub const CALLS: usize = 8;

/// At limits of 50 connections and 10 of one address, 240 come from 24 addresses and never go by
/// themselves.
#[tokio::test]
async fn unauthenticated_connections_stay_within_the_limits() {
    let cluster = Cluster::quiet(1)
        .limits(&format!("clients_max = 50\nclients_per_ip_max = 10\n{SHORT}"))
        .more(&format!("{APPS}{METRICS}"))
        .start()
        .await;
    let gateway = &cluster.gateways[0];
    let metrics: SocketAddr = gateway.logged("metrics and probes address=").await.parse().unwrap();
    let mut honest = cluster.client(0).await;
    let web = cluster.web(0);
    let before = sockets(gateway);
    let coming: Vec<_> = (0..240)
        .map(|number| {
            let host = u8::try_from(2 + number / 10).unwrap();
            tokio::spawn(stranger(number % 10, web, host))
        })
        .collect();
    let mut most = 0;
    let mut strangers = Vec::new();
    for stranger in coming {
        strangers.push(soon("the stranger has come", stranger).await.unwrap());
        most = most.max(sockets(gateway));
    }
    println!("{before} sockets before, {most} at most");
    assert!(most <= before + 49 + FAREWELLS_MAX + CALLS, "{before} sockets before, {most} at most");
    // What needs files of its own goes on meanwhile.
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let page = String::from_utf8(answer(metrics, request, false).await).unwrap();
    assert!(page.contains("broadgate_gateway_refused_total{reason=\"clients_max\"}"), "{page}");
    cluster.caller(0).await.send(text(clients(&[&honest.id]), "undisturbed")).await.unwrap();
    honest.hears(&["undisturbed"]).await;
    // What is not a client is closed without its help; those that became clients have a place each.
    let left = until("the flood is closed", async || {
        let request = v1::CountRequest { app: "shop".to_owned(), ..Default::default() };
        let reply = cluster.caller(0).await.count(request).await.unwrap().into_inner();
        let clients = usize::try_from(reply.app.unwrap().clients).unwrap();
        (sockets(gateway) <= before + clients + CALLS).then_some(clients)
    })
    .await;
    assert!(left <= 24, "{left}");
    let mut late = cluster.client(0).await;
    cluster.caller(0).await.send(text(clients(&[&late.id]), "welcome")).await.unwrap();
    late.hears(&["welcome"]).await;
    drop((strangers, honest, late));
    until("everything comes back", async || (sockets(gateway) <= before + CALLS).then_some(())).await;
}

/// A connection of the API, of a key, or with half a head counts like any other; beyond the limit of its
/// address it gets an answer and is closed.
#[tokio::test]
async fn connections_count_per_address_from_accept() {
    let cluster = Cluster::quiet(1).limits("clients_per_ip_max = 3").more(APPS).start().await;
    let web = cluster.web(0);
    until("it is ready", async || {
        let request = get("/up").replace("Host: x", "Host: x\r\nConnection: close");
        answer(web, request.as_bytes(), false).await.starts_with(b"HTTP/1.1 200").then_some(())
    })
    .await;
    // Each shard accepts for itself, so the fourth may be counted before one of the three: then again.
    let mut held = until("the fourth is refused", async || {
        let mut held = Vec::new();
        for kind in [1, 4, 0] {
            held.push(stranger(kind, web, 9).await?);
        }
        let mut fourth = dial(web, 9, None).await?;
        fourth.write_all(get("/apps/shop/channels").as_bytes()).await.unwrap();
        let mut told = String::new();
        soon("it is closed", fourth.read_to_string(&mut told)).await.unwrap();
        let told = told.to_ascii_lowercase();
        (told.starts_with("http/1.1 503") && told.contains("connection: close")).then_some(held)
    })
    .await;
    let mut pusher = dial(web, 9, None).await.unwrap();
    let hello = UPGRADE.replace("/ws", "/app/shop-key?protocol=7");
    pusher.write_all(hello.as_bytes()).await.unwrap();
    let mut told = Vec::new();
    soon("it is closed", pusher.read_to_end(&mut told)).await.unwrap();
    assert!(told.windows(2).any(|two| two == 4100u16.to_be_bytes()), "{}", String::from_utf8_lossy(&told));
    assert!(dial(web, 10, None).await.is_some());
    let other = Client::try_connect(&format!("ws://{web}/ws"), &[]).await;
    assert!(other.is_ok(), "another address has its own three");
    drop(held.pop());
    let mut again = until("there is room again", async || {
        let mut stream = dial(web, 9, None).await?;
        stream.write_all(UPGRADE.as_bytes()).await.ok()?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.ok()?;
        status.ends_with(b"101").then_some(stream)
    })
    .await;
    again.shutdown().await.unwrap();
}

/// Of a request that is not signed nothing is read, and bodies of signed ones share a budget.
#[tokio::test]
async fn only_signed_bodies_are_read_within_a_budget() {
    let cluster = Cluster::quiet(1)
        .limits("api_bodies_bytes_max = 2097152")
        .more(&format!("{APPS}[apps.limits]\nevent_data_bytes_max = 300000\n"))
        .start()
        .await;
    let web = cluster.web(0);
    let path = "/apps/shop/events";
    let unsigned = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n");
    let told = String::from_utf8(answer(web, unsigned.as_bytes(), false).await).unwrap();
    assert!(told.starts_with("HTTP/1.1 401"), "answered without its body: {told}");
    let bad = signed(path, "{}", 900_000).replace("auth_signature=", "auth_signature=0");
    let told = String::from_utf8(answer(web, bad.as_bytes(), false).await).unwrap();
    assert!(told.starts_with("HTTP/1.1 401"), "{told}");
    let many = format!("/apps/shop/channels?{}", "a=b&".repeat(1200));
    let told = String::from_utf8(answer(web, get(&many).as_bytes(), false).await).unwrap();
    assert!(told.starts_with("HTTP/1.1 400"), "{told}");
    // One holds 600,000 of the app's 1,048,576 bytes.
    let body = format!("{{\"name\":\"e\",\"channel\":\"c\",\"data\":\"{}\"}}", "x".repeat(250_000));
    let padded = format!("{body}{}", " ".repeat(600_000 - body.len()));
    let mut first = TcpStream::connect(web).await.unwrap();
    let head = signed(path, &padded, 600_000).replace("Host: x", "Host: x\r\nExpect: 100-continue");
    first.write_all(head.as_bytes()).await.unwrap();
    let mut asked = [0; 25];
    soon("its body is asked for", first.read_exact(&mut asked)).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    let told = answer(web, signed(path, &padded, 600_000).as_bytes(), false).await;
    let told = String::from_utf8(told).unwrap().to_ascii_lowercase();
    assert!(told.starts_with("http/1.1 503") && told.contains("retry-after: "), "no room: {told}");
    first.write_all(padded.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    soon("it is answered", first.read_exact(&mut status)).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    let small = "{\"name\":\"e\",\"channel\":\"c\",\"data\":\"x\"}";
    let other = signed(path, small, small.len()) + &small.replace('x', "y");
    let told = String::from_utf8(answer(web, other.as_bytes(), false).await).unwrap();
    assert!(told.starts_with("HTTP/1.1 401") && told.contains("body_md5"), "another body: {told}");
}
