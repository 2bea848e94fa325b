//! A connection that does not speak the protocol of a port is closed, alone.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    harness::*,
    malformed_input::{UPGRADE, answer},
};

/// A masked frame with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// The codes of the close frames that follow a handshake's answer, wherever they stand.
fn close_codes(answer: &[u8]) -> Vec<u16> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer") + 4;
    let mut rest = &answer[end..];
    let mut codes = Vec::new();
    while let [first, len, tail @ ..] = rest {
        let len = usize::from(*len);
        assert!(len < 126, "only short frames are expected");
        if *first == 0x88 {
            codes.push(u16::from_be_bytes([tail[0], tail[1]]));
        }
        rest = &tail[len..];
    }
    codes
}

const PLAIN: &str = "[[gateway.listeners]]\nname = \"text\"\nkind = \"text\"\nbind = \"127.0.0.1:0\"\nservice = \"\"\n\
                     [[gateway.listeners]]\nname = \"frame\"\nkind = \"frame\"\nbind = \"127.0.0.1:0\"\nservice = \"\"\n\
                     [metrics]\nbind = \"127.0.0.1:0\"";

/// Every way to break RFC 6455 that a client can find, and the code that answers it.
#[tokio::test]
async fn websocket_violations_are_answered() {
    // These strangers do not answer a close.
    let limits = "message_bytes_max = 1000\nclose_time_max = \"1s\"";
    let cluster = Cluster::quiet(2).limits(limits).start().await;
    let mut witness = cluster.client(0).await;
    let in_parts = [frame(0x02, &[0; 600]), frame(0x80, &[0; 600])].concat();
    let unmasked_long = [&[0x82, 0x7e, 0x01, 0x00][..], &[0; 256]].concat();
    let huge = [&[0x82, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    let mut breaking = Vec::new();
    for (bytes, code, what) in [
        (in_parts, 1009, "too large in parts"),
        (huge, 1009, "a length of 2^64 - 1"),
        (unmasked_long, 1002, "unmasked, with an extended length"),
        (frame(0x89, &[0; 126]), 1002, "a ping that is too long"),
        (frame(0x09, b""), 1002, "a ping in parts"),
        (frame(0xa1, b"x"), 1002, "another reserved bit"),
        (frame(0x8b, b""), 1002, "a reserved control opcode"),
        ([frame(0x01, b"x"), frame(0x81, b"y")].concat(), 1002, "a message within a message"),
        ([frame(0x01, b"\xc3"), frame(0x80, b"(")].concat(), 1007, "bad text in parts"),
        (frame(0x88, &[0x03]), 1002, "a close of one byte"),
        (frame(0x88, &1005u16.to_be_bytes()), 1002, "a close with a reserved code"),
        (frame(0x88, b"\x03\xe8\xff\xff"), 1007, "a close whose reason is not UTF-8"),
        ([frame(0x88, b"\x03\xe8"), frame(0x81, b"more")].concat(), 1000, "something after a close"),
    ] {
        let bytes = [UPGRADE.as_bytes(), &bytes].concat();
        let address = cluster.web(0);
        breaking.push(tokio::spawn(async move {
            assert_eq!(close_codes(&answer(address, &bytes, false).await), [code], "{what}");
        }));
    }
    for stranger in breaking {
        stranger.await.unwrap();
    }
    until("they are gone", async || (cluster.count(1).await == 1).then_some(())).await;
    // What is odd and allowed: pings between the parts of a message, parts without content.
    let odd = [frame(0x01, b""), frame(0x89, b"p"), frame(0x00, "é".as_bytes()), frame(0x80, b"")].concat();
    witness.raw(&odd).await;
    let details = until("the odd message is taken", async || {
        Some(cluster.details(1, &witness.id).await).filter(|info| info.messages_in == 1)
    })
    .await;
    assert_eq!(details.bytes_in, 2);
    cluster.caller(1).await.send(text(all(), "undisturbed")).await.unwrap();
    witness.hears(&["undisturbed"]).await;
}

/// Lines without end and frames that cannot be.
#[tokio::test]
async fn line_and_frame_violations_are_closed() {
    let cluster = Cluster::quiet(1).limits("message_bytes_max = 1000").more(PLAIN).start().await;
    let (line, framed) = (cluster.listeners[0]["text"], cluster.listeners[0]["frame"]);
    for (address, bytes, what) in [
        (line, vec![b'x'; 1100], "a line that is too long"),
        (line, [vec![b'x'; 1001], b"\n".to_vec()].concat(), "a line that is one byte too long"),
        (framed, 1005u32.to_be_bytes().to_vec(), "a frame that will be too long"),
        (framed, u32::MAX.to_be_bytes().to_vec(), "a frame of 4 GiB"),
        (framed, 3u32.to_be_bytes().to_vec(), "a frame shorter than its head"),
        (framed, 0u32.to_be_bytes().to_vec(), "a frame of nothing"),
    ] {
        assert!(answer(address, &bytes, false).await.is_empty(), "{what}");
    }
    until("they are gone", async || (cluster.count(0).await == 0).then_some(())).await;
    // The longest ones that are allowed are taken.
    let mut longest = TcpStream::connect(line).await.unwrap();
    longest.write_all(&[vec![b'x'; 1000], b"\r\n".to_vec()].concat()).await.unwrap();
    let id = cluster.id_of(0, "default", &longest.local_addr().unwrap().to_string()).await;
    until("the line is taken", async || (cluster.details(0, &id).await.messages_in == 1).then_some(())).await;
    let mut longest = TcpStream::connect(framed).await.unwrap();
    let whole = [&1004u32.to_be_bytes()[..], &[0; 1000]].concat();
    longest.write_all(&whole).await.unwrap();
    let id = cluster.id_of(0, "default", &longest.local_addr().unwrap().to_string()).await;
    until("the frame is taken", async || (cluster.details(0, &id).await.bytes_in == 1000).then_some(()))
        .await;
}

/// Garbage, half requests and silence on every port, from many at once; the cluster goes on.
#[tokio::test]
async fn every_port_survives_wrong_protocols() {
    let cluster = Cluster::quiet(2)
        .limits("first_byte_time_max = \"1s\"\nhandshake_time_max = \"1s\"\nmessage_bytes_max = 1000")
        .more(PLAIN)
        .start()
        .await;
    let mut witness = cluster.client(0).await;
    let metrics = cluster.gateways[0].logged("metrics and probes address=").await.parse().unwrap();
    let ports: [SocketAddr; 6] = [
        cluster.web(0),
        cluster.listeners[0]["text"],
        cluster.listeners[0]["frame"],
        cluster.internal[0].parse().unwrap(),
        cluster.register_address.parse().unwrap(),
        metrics,
    ];
    let garbage: Vec<u8> = (0..20_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let bad_http2 = [&preface[..], &garbage].concat();
    let smuggle = b"POST /v1/Send HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let mut strangers = Vec::new();
    for port in ports {
        for bytes in [&garbage[..], preface, tls, &bad_http2, smuggle, b"GET / HT", b"\n", b"\0", b""] {
            let bytes = bytes.to_vec();
            // They close their side, so a port that waits for more sees the end.
            strangers.push(tokio::spawn(async move { answer(port, &bytes, true).await }));
        }
    }
    for stranger in strangers {
        soon("the stranger is closed", stranger).await.unwrap();
    }
    // The ports for clients do not wait for that.
    for port in [cluster.web(0), cluster.web(1)] {
        for bytes in [&b""[..], b"GET / HT", b"GET /ws HTTP/1.1\r\nHost: x\r\n", tls, preface] {
            let told = answer(port, bytes, false).await;
            assert!(told.is_empty() || told.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&told));
        }
    }
    cluster.caller(1).await.send(text(all(), "undisturbed")).await.unwrap();
    witness.hears(&["undisturbed"]).await;
    until("nobody is left over", async || (cluster.count(1).await == 1).then_some(())).await;
    assert_eq!(cluster.view().await.unwrap().members.len(), 2);
    let request = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(answer(metrics, request, false).await.starts_with(b"HTTP/1.1 200"));
    let mut late = cluster.client(0).await;
    cluster.caller(0).await.send(text(clients(&[&late.id]), "welcome")).await.unwrap();
    late.hears(&["welcome"]).await;
}

/// A handshake that comes a byte at a time must still come in time, and one that comes in two parts
/// with a frame right behind it is as good as any.
#[tokio::test]
async fn slow_handshakes_have_a_deadline() {
    let cluster = Cluster::quiet(1).limits("handshake_time_max = \"1s\"").start().await;
    let dripping = TcpStream::connect(cluster.web(0)).await.unwrap();
    let (mut reads, mut writes) = dripping.into_split();
    let drip = tokio::spawn(async move {
        for _ in 0..1000 {
            if writes.write_all(b"X").await.is_err() {
                break;
            }
            // The pace of the drip, not something that is waited for.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    let mut told = Vec::new();
    let _ = soon("the drip is cut", reads.read_to_end(&mut told)).await;
    assert!(told.is_empty() || told.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&told));
    drip.abort();
    let mut parts = TcpStream::connect(cluster.web(0)).await.unwrap();
    parts.set_nodelay(true).unwrap();
    let (one, two) = UPGRADE.as_bytes().split_at(40);
    parts.write_all(one).await.unwrap();
    parts.write_all(&[two, &frame(0x81, b"at once")].concat()).await.unwrap();
    let id = cluster.id_of(0, "default", &parts.local_addr().unwrap().to_string()).await;
    until("what came with the handshake is taken", async || {
        (cluster.details(0, &id).await.bytes_in == 7).then_some(())
    })
    .await;
}

/// The PROXY protocol in both versions and on every kind of listener; from strangers, not at all.
#[tokio::test]
async fn proxies_are_trusted_on_every_listener() {
    let listener = |name: &str, kind: &str, bind: &str, trusted: &str| {
        format!(
            "[[gateway.listeners]]\nname = \"{name}\"\nkind = \"{kind}\"\nbind = \"{bind}\"\nservice = \"\"\n\
             proxy_protocol = true\ntrusted_proxies = [\"{trusted}\"]\n"
        )
    };
    let more = listener("text", "text", "127.0.0.1:0", "127.0.0.0/8")
        + &listener("six", "web", "[::1]:0", "::1/128")
        + &listener("stranger", "web", "127.0.0.1:0", "10.0.0.0/8");
    let cluster = Cluster::quiet(1).limits("handshake_time_max = \"1s\"").more(&more).start().await;
    let ports = &cluster.listeners[0];
    let binary = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24".as_slice(),
        &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7],
        &[0; 16],
        &50123u16.to_be_bytes(),
        &80u16.to_be_bytes(),
    ]
    .concat();
    let mut kept = Vec::new();
    for (port, header, then, address) in [
        (ports["text"], b"PROXY TCP4 192.0.2.7 10.0.0.1 50123 80\r\n".to_vec(), "", "192.0.2.7:50123"),
        (ports["text"], binary.clone(), "", "[2001:db8::7]:50123"),
        (ports["six"], binary.clone(), UPGRADE, "[2001:db8::7]:50123"),
        (ports["six"], b"PROXY TCP6 2001:db8::9 ::1 1 2\r\n".to_vec(), UPGRADE, "[2001:db8::9]:1"),
    ] {
        let mut stream = TcpStream::connect(port).await.unwrap();
        stream.write_all(&[&header, then.as_bytes()].concat()).await.unwrap();
        cluster.id_of(0, "default", address).await;
        // Addresses may come twice, so each goes before the next.
        drop(stream);
        until("it is gone", async || (cluster.count(0).await == 0).then_some(())).await;
        kept.push(address);
    }
    assert_eq!(kept.len(), 4);
    let good = [b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n", UPGRADE.as_bytes()].concat();
    assert!(answer(ports["stranger"], &good, false).await.is_empty(), "not one of trusted_proxies");
    for bad in [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
        b"PROXY TCP4 1",
        b"",
    ] {
        assert!(answer(ports["text"], bad, false).await.is_empty(), "{bad:?}");
    }
    assert_eq!(cluster.count(0).await, 0);
}

/// Limits by address count the client, not its proxy; the limit of the gateway counts everybody.
#[tokio::test]
async fn limits_count_clients_and_not_proxies() {
    let cluster = Cluster::quiet(1)
        .listener("trusted_proxies = [\"127.0.0.1/32\"]")
        .limits("clients_max = 4\nclients_per_ip_max = 2")
        .start()
        .await;
    let url = format!("ws://{}/ws", cluster.web(0));
    let from = async |address: &str| Client::try_connect(&url, &[("x-forwarded-for", address)]).await;
    let mut some = Vec::new();
    for address in ["192.0.2.1", "192.0.2.1", "192.0.2.2"] {
        some.push(from(address).await.unwrap());
    }
    let third = from("192.0.2.1").await.map(|_| ()).unwrap_err();
    assert!(third.to_string().contains("503") || third.to_string().contains("429"), "{third}");
    // The refused connection may take a moment to go.
    some.push(until("the fourth is let in", async || from("192.0.2.2").await.ok()).await);
    let fifth = from("192.0.2.3").await.map(|_| ()).unwrap_err();
    assert!(fifth.to_string().contains("503"), "{fifth}");
    some.remove(0);
    let mut again = until("there is room again", async || from("192.0.2.1").await.ok()).await;
    cluster.caller(0).await.send(text(all(), "four")).await.unwrap();
    again.hears(&["four"]).await;
}
