//! Stopping is a feature.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use broadgate_proto::v1::{Cause, Coverage, ListClientsRequest, Receipt, event::Event as Kind};
use futures_util::StreamExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};

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

/// Two of three gateways leave and come back in turn, twenty times, while everything that concerns all gateways is asked
/// at the third without a pause: each answer is complete, and none counts fewer clients than there are.
#[tokio::test]
async fn answers_stay_complete_while_gateways_leave() {
    const LEAVES: usize = 20;
    // A machine that is busy with something else must not make an answer incomplete.
    let mut cluster = Cluster::quiet(3).limits("link_timeout = \"10s\"").start().await;
    cluster.synced().await;
    // Of these groups, some have their home at each gateway.
    let rooms: Vec<String> = (0..8).map(|number| format!("room-{number}")).collect();
    let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
    let mut staying = Vec::new();
    for _ in 0..3 {
        let client = cluster.client(0).await;
        cluster.caller(0).await.join(join(&[&client.id], &rooms)).await.unwrap();
        staying.push(client);
    }
    let stop = CancellationToken::new();
    let (asked, least) = (Arc::new(AtomicU64::new(0)), staying.len() as u64);
    let mut callers = Vec::new();
    for what in 0..4 {
        let (stop, asked) = (stop.clone(), Arc::clone(&asked));
        let mut caller = cluster.caller(0).await;
        let rooms: Vec<String> = rooms.iter().map(|room| (*room).to_owned()).collect();
        callers.push(tokio::spawn(async move {
            for number in 0.. {
                if stop.is_cancelled() {
                    break;
                }
                let room = &*rooms[number % rooms.len()];
                let other = &*rooms[(number + 1) % rooms.len()];
                let (coverage, clients) = match what {
                    0 => answer(caller.send(text(all(), "to all")).await),
                    1 => answer(caller.send(text(groups(&[room]), "to one group")).await),
                    // Every gateway is asked by this one, without a home.
                    2 => answer(caller.send(text(groups(&[room, other]), "to two groups")).await),
                    _ => {
                        let list = ListClientsRequest { of: Some(all()), limit: 1000, ..Default::default() };
                        let reply = caller.list_clients(list).await.unwrap().into_inner();
                        (reply.coverage.unwrap(), reply.clients.len() as u64)
                    }
                };
                assert!(coverage.complete, "question {number} of kind {what}: {coverage:?}");
                assert!(clients >= least, "question {number} of kind {what}: {clients} clients");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    // Nobody reads the next message before this one is read.
    let readers = staying
        .into_iter()
        .map(|mut client| tokio::spawn(async move { while let Some(Ok(_)) = client.socket.next().await {} }));
    let readers: Vec<_> = readers.collect();
    for leave in 0..LEAVES {
        let index = 1 + leave % 2;
        let mut guest = cluster.client_at(index).await;
        let before = asked.load(Ordering::Relaxed);
        cluster.gateways[index].signal("TERM");
        assert_eq!(guest.closed().await.code, 1012);
        // The gateway would wait for the end of its connection.
        drop(guest);
        assert_eq!(cluster.gateways[index].ended().await.code(), Some(0));
        let log = cluster.gateways[index].log();
        assert!(!log.contains("not every gateway knows that this one leaves"), "{log}");
        cluster.start_gateway_again(index).await;
        until("it is ready, and more was asked", async || {
            assert!(callers.iter().all(|caller| !caller.is_finished()), "an answer was incomplete");
            let view = cluster.status(0).await?.view?;
            let ready = broadgate_proto::view::ready_gateways(&view).count() == 3;
            (ready && asked.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
    }
    stop.cancel();
    for caller in callers {
        caller.await.unwrap();
    }
    for reader in readers {
        reader.abort();
    }
    println!("{} answers, all complete, while gateways left {LEAVES} times", asked.load(Ordering::Relaxed));
}

/// The coverage of a send, and how many clients it reached.
fn answer(receipt: Result<Response<Receipt>, Status>) -> (Coverage, u64) {
    let receipt = receipt.unwrap().into_inner();
    (receipt.coverage.unwrap(), receipt.clients)
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
