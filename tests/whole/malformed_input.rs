//! Bad input on every port: it takes down nothing but itself.

use std::net::SocketAddr;

use broadgate_proto::v1::{self, ClientField};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::*;

/// Writes bytes and reads until the other side ends; with `half`, our side ends first.
pub async fn answer(address: SocketAddr, bytes: &[u8], half: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // It may close while we still write.
    let _ = stream.write_all(bytes).await;
    if half {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let _ = soon("the connection is closed", stream.read_to_end(&mut answer)).await;
    answer
}

pub const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

/// The close code of what follows the handshake's answer.
fn close_code(answer: &[u8]) -> Option<u16> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    match &answer[end..] {
        [0x88, _, high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

#[tokio::test]
async fn bad_frames_close_their_client_with_the_right_code() {
    let limits = "message_bytes_max = 1000\nclose_time_max = \"1s\"";
    let cluster = Cluster::quiet(1).limits(limits).start().await;
    let mut witness = cluster.client(0).await;
    let large = [&[0x82, 0xfe, 0x10, 0x00, 0, 0, 0, 0][..], &[0; 4096]].concat();
    for (frame, code, what) in [
        (&b"\x81\x02hi"[..], 1002, "unmasked"),
        (b"\xc1\x82\0\0\0\0hi", 1002, "a reserved bit"),
        (b"\x83\x80\0\0\0\0", 1002, "a reserved opcode"),
        (b"\x80\x80\0\0\0\0", 1002, "a continuation of nothing"),
        (b"\x81\x82\0\0\0\0\xff\xfe", 1007, "text that is not UTF-8"),
        (&large, 1009, "too large"),
        (b"\x88\x82\0\0\0\0\x03\xe8", 1000, "a close, answered"),
    ] {
        let bytes = [UPGRADE.as_bytes(), frame].concat();
        assert_eq!(close_code(&answer(cluster.web(0), &bytes, false).await), Some(code), "{what}");
    }
    until("they are gone", async || (cluster.count(0).await == 1).then_some(())).await;
    cluster.caller(0).await.send(text(all(), "undisturbed")).await.unwrap();
    witness.hears(&["undisturbed"]).await;
}

/// Its answer to the close cannot be decoded, so nothing waits for it (RFC 6455 section 7.1.7).
#[tokio::test]
async fn protocol_violator_is_not_kept_until_the_deadline() {
    let cluster = Cluster::quiet(1).limits("close_time_max = \"5m\"").start().await;
    for (frames, code) in [
        (&b"\xc1\x82\0\0\0\0hi"[..], 1002),
        (b"\xc1\x82\0\0\0\0hi\x88\x82\0\0\0\0\x03\xea", 1002),
        // 100 bytes are announced, and the third of them can be in no text.
        (b"\x81\xe4\0\0\0\0ab\xff", 1007),
        (b"\x01\x81\0\0\0\0a\x80\xe4\0\0\0\0\xc0", 1007),
    ] {
        let bytes = [UPGRADE.as_bytes(), frames].concat();
        assert_eq!(close_code(&answer(cluster.web(0), &bytes, false).await), Some(code), "{frames:x?}");
    }
    until("they are gone", async || (cluster.count(0).await == 0).then_some(())).await;
}

#[tokio::test]
async fn half_handshakes_and_garbage_are_closed() {
    let cluster = Cluster::quiet(1)
        .limits("first_byte_time_max = \"1s\"\nhandshake_time_max = \"1s\"\nmessage_bytes_max = 1000")
        .more(
            "[[gateway.listeners]]\nname = \"text\"\nkind = \"text\"\nbind = \"127.0.0.1:0\"\nservice = \"\"\n\
             [[gateway.listeners]]\nname = \"frame\"\nkind = \"frame\"\nbind = \"127.0.0.1:0\"\nservice = \"\"",
        )
        .start()
        .await;
    let mut witness = cluster.client(0).await;
    let web = cluster.web(0);
    assert!(answer(web, b"", false).await.is_empty(), "nothing is sent: closed");
    answer(web, b"GET /ws HT", false).await;
    let headers =
        answer(web, format!("GET /ws HTTP/1.1\r\n{}", "X: y\r\n".repeat(20)).as_bytes(), false).await;
    assert!(headers.is_empty() || headers.starts_with(b"HTTP/1.1 408"), "unfinished headers");
    let garbage: Vec<u8> = (0..5000u32).map(|n| ((n * 7919) >> 3) as u8).collect();
    let register: SocketAddr = cluster.register_address.parse().unwrap();
    let internal: SocketAddr = cluster.internal[0].parse().unwrap();
    for address in [web, register, internal, cluster.listeners[0]["text"], cluster.listeners[0]["frame"]] {
        answer(address, &garbage, true).await;
    }
    let huge = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(40_000));
    let told = answer(web, huge.as_bytes(), true).await;
    assert!(told.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&told));
    cluster.caller(0).await.send(text(clients(&[&witness.id]), "undisturbed")).await.unwrap();
    witness.hears(&["undisturbed"]).await;
    assert_eq!(cluster.gateways.len(), 1);
    cluster.view().await.expect("the register answers");
}

#[tokio::test]
async fn text_and_frame_clients_have_all_features() {
    let cluster = Cluster::of(1)
        .more(
            "[[gateway.listeners]]\nname = \"text\"\nkind = \"text\"\nbind = \"127.0.0.1:0\"\n\
             [[gateway.listeners]]\nname = \"frame\"\nkind = \"frame\"\nbind = \"[::1]:0\"",
        )
        .start()
        .await;
    let mut worker = TestWorker::attach(&cluster.internal[0], 1).await;
    let mut lines = TcpStream::connect(cluster.listeners[0]["text"]).await.unwrap();
    let opened = worker.take().await;
    assert_eq!(opened.listener, "text");
    let mut frames = TcpStream::connect(cluster.listeners[0]["frame"]).await.unwrap();
    let frame_opened = worker.take().await;
    let mut socket = cluster.client(0).await;
    worker.take().await;
    lines.write_all(b"hello\r\nwor").await.unwrap();
    worker.takes("hello").await;
    lines.write_all(b"ld\n").await.unwrap();
    worker.takes("world").await;
    frames.write_all(b"\0\0\0\x07abc").await.unwrap();
    let event = worker.take().await;
    let expected = v1::message::Payload::Binary(b"abc".to_vec().into());
    assert!(
        matches!(&event.event, Some(v1::event::Event::Message(m)) if m.payload == Some(expected)),
        "{event:?}"
    );
    let mut caller = cluster.caller(0).await;
    caller.join(join(&[&opened.client_id, &frame_opened.client_id, &socket.id], &["room"])).await.unwrap();
    let receipt = caller.send(text(groups(&["room"]), "to each")).await.unwrap().into_inner();
    assert_eq!(receipt.clients, 3);
    let framed = v1::SendRequest {
        payload: Some(v1::send_request::Payload::Framed(b"\x81\x01x".to_vec().into())),
        ..text(groups(&["room"]), "")
    };
    let receipt = caller.send(framed).await.unwrap().into_inner();
    assert_eq!((receipt.clients, receipt.drops["protocol"]), (1, 2), "frames are for WebSocket clients");
    let mut got = [0; 8];
    soon("a line comes", lines.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"to each\n");
    let mut got = [0; 11];
    soon("a frame comes", frames.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"\0\0\0\x0bto each");
    socket.hears(&["to each", "x"]).await;
    // A client that closes its side still gets what was sent before it was closed.
    lines.write_all(b"last\n").await.unwrap();
    lines.shutdown().await.unwrap();
    worker.takes("last").await;
    let closed = worker.take().await;
    assert!(matches!(closed.event, Some(v1::event::Event::Closed(_))), "{closed:?}");
    let close = v1::CloseRequest {
        to: Some(clients(&[&frame_opened.client_id])),
        last: Some(v1::close_request::Last::Text("bye".into())),
        ..Default::default()
    };
    caller.close(close).await.unwrap();
    let mut rest = Vec::new();
    soon("the stream ends", frames.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"\0\0\0\x07bye");
}

/// Where the system does not balance, one acceptor hands connections to the shards.
#[tokio::test]
async fn one_acceptor_serves_all_shards() {
    let cluster = Cluster::quiet(1).accept_one().start().await;
    let mut some = Vec::new();
    for _ in 0..4 {
        some.push(cluster.client(0).await);
    }
    // The first two characters behind the incarnation name the shard.
    let shards: std::collections::BTreeSet<&str> = some.iter().map(|client| &client.id[10..12]).collect();
    assert_eq!(shards.len(), 2, "{shards:?}");
    assert_eq!(cluster.caller(0).await.send(text(all(), "each")).await.unwrap().into_inner().clients, 4);
    for client in &mut some {
        client.hears(&["each"]).await;
    }
    cluster.gateways[0].signal("TERM");
    for client in &mut some {
        assert_eq!(client.closed().await.code, 1012);
    }
}

#[tokio::test]
async fn proxy_protocol_is_trusted_from_proxies_only() {
    let cluster = Cluster::of(1)
        .listener("proxy_protocol = true\ntrusted_proxies = [\"127.0.0.1/32\"]")
        .limits("handshake_time_max = \"2s\"")
        .start()
        .await;
    let mut worker = TestWorker::attach(&cluster.internal[0], 1).await;
    let header = "PROXY TCP4 192.0.2.7 10.0.0.1 50123 80\r\n";
    let mut stream = TcpStream::connect(cluster.web(0)).await.unwrap();
    stream.write_all(format!("{header}{UPGRADE}").as_bytes()).await.unwrap();
    let opened = worker.take().await;
    let Some(v1::event::Event::Opened(shake)) = &opened.event else { panic!("{opened:?}") };
    assert_eq!(shake.address, "192.0.2.7:50123");
    assert!(answer(cluster.web(0), UPGRADE.as_bytes(), false).await.is_empty(), "no header");
    assert!(answer(cluster.web(0), b"PROXY TCP4 nonsense\r\n", false).await.is_empty(), "a bad header");
}

#[tokio::test]
async fn connections_and_messages_have_limits() {
    let cluster = Cluster::quiet(1)
        .limits("clients_max = 4\nclients_per_ip_max = 3\nmessages_per_second_max = 50")
        .start()
        .await;
    let url = format!("ws://{}/ws", cluster.web(0));
    let mut some = Vec::new();
    for _ in 0..3 {
        some.push(Client::connect(&url).await);
    }
    let refused = Client::try_connect(&url, &[]).await.map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("503"), "{refused}");
    drop(some.pop());
    let mut flood = until("there is room again", async || Client::try_connect(&url, &[]).await.ok()).await;
    for number in 0..200 {
        use futures_util::SinkExt as _;
        let _ = flood.socket.send(tokio_tungstenite::tungstenite::Message::text(number.to_string())).await;
    }
    assert_eq!(flood.closed().await.code, 1008);
}

#[tokio::test]
async fn silent_clients_are_pinged_and_then_closed() {
    let cluster = Cluster::quiet(1)
        .listener("ping_interval = \"1s\"\nsilence_max = \"4s\"\nping_payload = \"still there?\"")
        .start()
        .await;
    let mut answers = cluster.client(0).await;
    // This one speaks no WebSocket, so that nothing answers its pings.
    let mut mute = TcpStream::connect(cluster.web(0)).await.unwrap();
    mute.write_all(UPGRADE.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    let muted = soon("the mute one is closed", mute.read_to_end(&mut got));
    let reading = async { while answers.hear().await == "still there?" {} };
    tokio::select! {
        ended = muted => { ended.unwrap(); }
        () = reading => panic!("the one that answers was told something else"),
    }
    assert!(got.windows(2).any(|two| two == b"\x89\0"), "it was pinged");
    let close = got.windows(4).rev().find(|four| four[0] == 0x88).unwrap();
    assert_eq!(u16::from_be_bytes([close[2], close[3]]), 4201);
    let request = v1::ListClientsRequest {
        of: Some(all()),
        fields: vec![ClientField::Connection.into()],
        ..Default::default()
    };
    let left = cluster.caller(0).await.list_clients(request).await.unwrap().into_inner().clients;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].client_id, answers.id);
}

#[tokio::test]
async fn slow_client_is_closed_alone() {
    let cluster =
        Cluster::quiet(1).limits("outbox_bytes_max = 200000\noutbox_time_max = \"5s\"").start().await;
    let mut quick = cluster.client(0).await;
    let slow = cluster.client(0).await;
    let mut caller = cluster.caller(0).await;
    caller.join(join(&[&quick.id, &slow.id], &["room"])).await.unwrap();
    let payload = "x".repeat(50_000);
    let mut sent = 0;
    // It does not read, so its socket fills, then its outbox.
    let dropped = until("the slow one is given up", || {
        let (mut caller, request) = (caller.clone(), text(groups(&["room"]), &payload));
        sent += 1;
        async move {
            let receipt = caller.send(request).await.unwrap().into_inner();
            (receipt.clients == 1).then_some(receipt.drops)
        }
    });
    let reading = async {
        let mut heard = 0;
        loop {
            quick.hear().await;
            heard += 1;
            if heard == usize::MAX {
                break;
            }
        }
    };
    tokio::select! {
        drops = dropped => { println!("given up with {drops:?}"); }
        () = reading => {}
    }
    println!("sent {sent} messages of 50,000 bytes");
    caller.send(text(groups(&["room"]), "the end")).await.unwrap();
    while quick.hear().await != "the end" {}
    let mut slow = slow;
    let closed = slow.closed().await;
    assert!(closed.code == 4100 || closed.code == 1006, "{}", closed.code);
}
