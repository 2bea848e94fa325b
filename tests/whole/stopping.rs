//! Stopping is a feature.

use broadgate_proto::v1::{Cause, event::Event as Kind};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    harness::*,
    malformed_input::UPGRADE,
    pusher::{APPS, Pusher},
};

/// SIGTERM while messages are sent: what was acknowledged arrived, clients get a code to reconnect, the
/// worker hears of each, and the exit code is 0.
#[tokio::test]
async fn gateway_stops_in_good_order() {
    let mut cluster = Cluster::of(2).start().await;
    let mut worker = TestWorker::attach(&cluster.internal[0], 1).await;
    let mut leaving = Vec::new();
    for _ in 0..50 {
        leaving.push(cluster.client(0).await);
        worker.take().await;
    }
    let mut caller = cluster.caller(1).await;
    cluster.gateways[0].signal("TERM");
    let mut acknowledged = 0;
    let full = loop {
        let receipt = caller.send(text(all(), &acknowledged.to_string())).await.unwrap().into_inner();
        if receipt.clients < 50 {
            break receipt;
        }
        acknowledged += 1;
    };
    println!("{acknowledged} sends reached all fifty before the first was closed; then {}", full.clients);
    assert!(acknowledged > 0);
    for _ in 0..50 {
        let closed = worker.take().await;
        let Some(Kind::Closed(how)) = closed.event else { panic!("{closed:?}") };
        assert_eq!((how.cause(), how.code), (Cause::Drain, 1012));
    }
    for client in &mut leaving {
        let closed = client.closed().await;
        assert_eq!(closed.code, 1012);
        let expected: Vec<String> = (0..acknowledged).map(|number: i32| number.to_string()).collect();
        assert_eq!(closed.before[..expected.len()], expected);
    }
    assert_eq!(cluster.gateways[0].ended().await.code(), Some(0));
    until("it has left the view", async || (cluster.view().await?.members.len() == 1).then_some(())).await;
}

#[tokio::test]
async fn operator_drains_a_gateway() {
    let mut cluster = Cluster::quiet(2).start().await;
    let mut client = cluster.client(1).await;
    let (code, out, _) = cluster.run(&["drain", "gateway-2"]);
    assert_eq!(code, 0, "{out}");
    assert_eq!(client.closed().await.code, 1012);
    assert_eq!(cluster.gateways[1].ended().await.code(), Some(0));
    let (code, _, err) = cluster.run(&["drain", "nobody"]);
    assert_eq!(code, 4, "{err}");
}

/// What a draining gateway does with those who come: probes hear that it is not ready, and once it closes
/// its clients, newcomers are refused at once. Nobody is reset, and nobody hangs.
#[tokio::test]
async fn draining_gateway_answers_or_refuses_new_clients_at_once() {
    for one in [false, true] {
        let settings = Cluster::quiet(1).ready_delay("1s").more(APPS);
        let settings = if one { settings.accept_one() } else { settings };
        let mut cluster = settings.start().await;
        let web = cluster.web(0);
        // Does not answer the farewell, so the drain takes a while.
        let mut lazy = TcpStream::connect(web).await.unwrap();
        lazy.write_all(UPGRADE.as_bytes()).await.unwrap();
        let mut pusher = Pusher::connect(&cluster, 0).await;
        let mut kept = until("it is ready", async || {
            let mut stream = TcpStream::connect(web).await.ok()?;
            (ask(&mut stream).await.0 == 200).then_some(stream)
        })
        .await;
        until("they are clients", async || (cluster.count(0).await == 1).then_some(())).await;
        cluster.gateways[0].signal("TERM");
        let (status, close) = until("probes hear that it drains", async || {
            let mut stream = TcpStream::connect(web).await.ok()?;
            Some(ask(&mut stream).await).filter(|(status, _)| *status != 200)
        })
        .await;
        assert_eq!((status, close), (503, true));
        assert_eq!(ask(&mut kept).await, (503, true), "a kept-alive connection gets connection: close");
        // Newcomers come all the time, without a pause.
        let coming = tokio::spawn(async move {
            let (mut answered, mut refused) = (0, 0);
            while refused < 50 {
                let Ok(mut stream) = TcpStream::connect(web).await else {
                    refused += 1;
                    continue;
                };
                assert_eq!(refused, 0, "a listener that was closed is open again");
                let (status, _) = soon("a newcomer is answered", ask(&mut stream)).await;
                assert_eq!(status, 503);
                answered += 1;
            }
            answered
        });
        let closed = pusher.client.closed().await;
        assert_eq!(closed.code, 4200);
        let back = TcpStream::connect(web).await.unwrap_err();
        assert_eq!(back.kind(), std::io::ErrorKind::ConnectionRefused, "who comes straight back");
        assert!(cluster.gateways[0].has_ended().is_none(), "it still drains");
        let answered = soon("all newcomers are done with", coming).await.unwrap();
        assert!(answered > 0);
        drop(lazy);
        assert_eq!(cluster.gateways[0].ended().await.code(), Some(0));
    }
}

/// The status of /up, and whether the connection closes.
async fn ask(stream: &mut TcpStream) -> (u16, bool) {
    stream.write_all(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut told = Vec::new();
    while !told.ends_with(b"\"OK\"}") && !told.ends_with(b"draining") {
        assert!(stream.read_buf(&mut told).await.unwrap() > 0, "{}", String::from_utf8_lossy(&told));
    }
    let told = String::from_utf8(told).unwrap().to_ascii_lowercase();
    (told[9..12].parse().unwrap(), told.contains("connection: close"))
}
