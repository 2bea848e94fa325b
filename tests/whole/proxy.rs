//! The proxy spoils links as it says, and only those it was told to.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

use crate::harness::*;

/// Nothing has come by then that comes at all.
const A_WHILE: Duration = Duration::from_millis(200);

/// Sends back what it hears, and tells what that was.
async fn echo() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // A byte for each that the test sends; the test itself bounds it.
    let (told, hears) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let told = told.clone();
            tokio::spawn(async move {
                while let Ok(byte) = stream.read_u8().await {
                    told.send(byte).unwrap();
                    let _ = stream.write_u8(byte).await;
                }
            });
        }
    });
    (address, hears)
}

async fn echoes(stream: &mut TcpStream, byte: u8) {
    stream.write_u8(byte).await.unwrap();
    assert_eq!(soon("the echo", stream.read_u8()).await.unwrap(), byte);
}

async fn nothing_comes(stream: &mut TcpStream) {
    assert!(timeout(A_WHILE, stream.read_u8()).await.is_err(), "it is open, and silent");
}

#[tokio::test]
async fn closed_proxy_ends_old_and_new_connections() {
    let (target, _hears) = echo().await;
    let proxy = Proxy::in_front_of(target).await;
    let me = std::process::id();
    let mut old = TcpStream::connect(proxy.address).await.unwrap();
    echoes(&mut old, 1).await;
    proxy.cut(me, Fault::Close);
    soon("the old one ends", old.read_u8()).await.unwrap_err();
    let mut new = TcpStream::connect(proxy.address).await.unwrap();
    soon("the new one ends", new.read_u8()).await.unwrap_err();
    proxy.mend(me);
    echoes(&mut TcpStream::connect(proxy.address).await.unwrap(), 2).await;
}

#[tokio::test]
async fn black_hole_swallows_everything_until_mended() {
    let (target, mut hears) = echo().await;
    let proxy = Proxy::in_front_of(target).await;
    let me = std::process::id();
    let mut old = TcpStream::connect(proxy.address).await.unwrap();
    echoes(&mut old, 1).await;
    assert_eq!(hears.recv().await, Some(1));
    proxy.cut(me, Fault::Blackhole);
    let mut new = TcpStream::connect(proxy.address).await.unwrap();
    let mut gone = TcpStream::connect(proxy.address).await.unwrap();
    for (stream, byte) in [(&mut old, 2), (&mut new, 3), (&mut gone, 4)] {
        stream.write_u8(byte).await.unwrap();
    }
    nothing_comes(&mut old).await;
    nothing_comes(&mut new).await;
    drop(gone);
    assert!(hears.try_recv().is_err());
    proxy.mend(me);
    assert_eq!(soon("what was held", old.read_u8()).await.unwrap(), 2);
    assert_eq!(soon("what was held", new.read_u8()).await.unwrap(), 3);
    let mut heard = [hears.recv().await, hears.recv().await, soon("the third", hears.recv()).await];
    heard.sort_unstable();
    assert_eq!(heard, [Some(2), Some(3), Some(4)], "also from who has gone");
}

#[tokio::test]
async fn one_way_cut_passes_the_other_way() {
    let (target, mut hears) = echo().await;
    let proxy = Proxy::in_front_of(target).await;
    let me = std::process::id();
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    echoes(&mut stream, 1).await;
    assert_eq!(hears.recv().await, Some(1));
    proxy.cut(me, Fault::OneWay(Way::There));
    stream.write_u8(2).await.unwrap();
    assert_eq!(soon("it arrives", hears.recv()).await, Some(2));
    nothing_comes(&mut stream).await;
    proxy.cut(me, Fault::OneWay(Way::Back));
    assert_eq!(soon("the answer comes", stream.read_u8()).await.unwrap(), 2);
    stream.write_u8(3).await.unwrap();
    nothing_comes(&mut stream).await;
    assert!(hears.try_recv().is_err());
    proxy.mend(me);
    assert_eq!(soon("the answer comes", stream.read_u8()).await.unwrap(), 3);
}

#[tokio::test]
async fn delay_applies_to_each_way_and_keeps_order() {
    let (target, _hears) = echo().await;
    let proxy = Proxy::in_front_of(target).await;
    let me = std::process::id();
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    proxy.cut(me, Fault::Delay(A_WHILE));
    let started = Instant::now();
    for byte in 0..10 {
        stream.write_u8(byte).await.unwrap();
    }
    for byte in 0..10 {
        assert_eq!(soon("the echo", stream.read_u8()).await.unwrap(), byte);
    }
    let took = started.elapsed();
    assert!(took >= 2 * A_WHILE && took < 8 * A_WHILE, "{took:?}: once each way, not once per byte");
}

/// Each gateway dials the others through proxies: one pair is cut, in one direction, and nothing else.
#[tokio::test]
async fn one_pair_is_cut() {
    let cluster = Cluster::quiet(3).proxied().start().await;
    let mut client = cluster.client(1).await;
    let id = client.id.clone();
    cluster.cut(0, 1, Fault::Blackhole);
    let sent = async |gateway: usize, what: &str| {
        let to = clients(&[&id]);
        let receipt = cluster.caller(gateway).await.send(text(to, what)).await.unwrap().into_inner();
        (receipt.clients, receipt.coverage.unwrap().missing)
    };
    assert_eq!(sent(0, "cut").await, (0, vec!["gateway-2".to_owned()]));
    assert_eq!(sent(2, "another").await, (1, Vec::new()));
    assert_eq!(sent(1, "its own").await, (1, Vec::new()));
    assert_eq!(client.hear().await, "another");
    cluster.mend(0, 1);
    until("the link is mended", async || (sent(0, "mended").await.1.is_empty()).then_some(())).await;
}
