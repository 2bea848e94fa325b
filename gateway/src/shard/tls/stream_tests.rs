//! TLS clients of a shard that do not take what is sent to them, or send half a record.

use std::{io::Write as _, sync::Arc};

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use rustls::ClientConnection;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

use super::{
    records_tests::{client, server},
    stream::TlsStream,
};
use crate::{
    config::GatewayLimits,
    shard::{
        ending::SlowBy,
        fixture::{limits, newcomer, shard, to_group},
        open::Candidate,
        slots::Slot,
        socket::Stream,
        state::ShardHandle,
    },
};
use broadgate_proto::v1;

struct Peer {
    tls: ClientConnection,
    tcp: TcpStream,
}

impl Peer {
    async fn send(&mut self) {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        self.tcp.write_all(&bytes).await.unwrap();
    }

    /// What arrives until the other side ends or `bytes` are there.
    async fn read(&mut self, bytes: usize) -> Vec<u8> {
        let mut got = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        while got.len() < bytes {
            let count = self.tcp.read(&mut buffer).await.unwrap();
            if count == 0 {
                break;
            }
            let mut part = &buffer[..count];
            while !part.is_empty() {
                self.tls.read_tls(&mut part).unwrap();
                self.tls.process_new_packets().unwrap();
                let mut plain = [0; 4096];
                while let Ok(count @ 1..) = std::io::Read::read(&mut self.tls.reader(), &mut plain) {
                    got.extend_from_slice(&plain[..count]);
                }
            }
        }
        got
    }
}

/// A shard with one client by TLS in the group "g", whose buffers are small.
async fn tls_client(limits: GatewayLimits) -> (ShardHandle, Slot, Peer) {
    let (shard, _) = shard(&[], limits).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    set_socket_recv_buffer_size(&tcp, 4096).unwrap();
    let (stream, from) = listener.accept().await.unwrap();
    set_socket_send_buffer_size(&stream, 4096).unwrap();
    let shared = Arc::clone(&shard.borrow().tls);
    let mut tls = Box::new(TlsStream::new(stream, server(), shared).unwrap());
    let mut peer = Peer { tls: client(&rustls::version::TLS13, None), tcp };
    while tls.is_handshaking() || peer.tls.is_handshaking() {
        peer.send().await;
        if tls.is_handshaking() {
            tls.ready().await.unwrap();
            tls.step().unwrap();
        }
        let mut buffer = vec![0; 16 * 1024];
        if peer.tls.is_handshaking() {
            let count = peer.tcp.read(&mut buffer).await.unwrap();
            peer.tls.read_tls(&mut &buffer[..count]).unwrap();
            peer.tls.process_new_packets().unwrap();
        }
    }
    let tasks = LocalSet::new();
    let _inside = tasks.enter();
    let candidate = Candidate::new(&shard, &mut newcomer(from)).unwrap();
    let accept = v1::Accept { groups: vec!["g".to_owned()], ..v1::Accept::default() };
    candidate.open(tls, &[], None, v1::Handshake::default(), Some(accept));
    let slot = shard.borrow().clients.taken()[0];
    (shard, slot, peer)
}

#[tokio::test]
async fn what_is_sealed_and_unsent_counts_and_goes_first() {
    let (shard, slot, mut peer) = tls_client(limits()).await;
    let mut expected = 0;
    let outbox = |shard: &ShardHandle| {
        let shard = shard.borrow();
        (shard.clients.get(slot).unwrap().outbox.bytes(), shard.tls.sealed())
    };
    for id in 0..100 {
        let mut state = shard.borrow_mut();
        state.execute_all(&[to_group("g", &id.to_string(), &"x".repeat(5000 + id))]);
        state.flush(slot);
        expected += 4 + 5000 + id;
        drop(state);
        if outbox(&shard).1 > 0 {
            break;
        }
    }
    let (unwritten, sealed) = outbox(&shard);
    assert!(sealed > 0 && unwritten > 0, "the socket is full: {sealed}");
    let all_outboxes = {
        let shard = shard.borrow();
        shard.outboxes.bytes(&shard.tls)
    };
    assert!(all_outboxes >= sealed, "{all_outboxes} has {sealed}");
    // It is closed as slow: what is sealed goes before the close code, whole, and the rest is dropped.
    shard.borrow_mut().close_slow(slot, SlowBy::Bytes, None);
    let (begun, _) = outbox(&shard);
    assert!(begun > 0 && begun <= unwritten + 100);
    let writing = async {
        while outbox(&shard) != (0, 0) {
            shard.borrow_mut().flush(slot);
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        // Our side ends when the peer has answered the close.
        shard.borrow_mut().on_close_answered(slot);
        shard.borrow_mut().flush(slot);
    };
    let (got, ()) = tokio::join!(peer.read(usize::MAX), writing);
    assert!(peer.tls.process_new_packets().unwrap().peer_has_closed(), "with a close_notify");
    // Whole frames of 4 bytes and the text, then the close code.
    let mut left = &got[..];
    let mut frames = 0;
    while left[0] == 0x81 {
        let len = usize::from(u16::from_be_bytes([left[2], left[3]]));
        assert_eq!((left[1], len), (126, 5000 + frames));
        left = &left[4 + len..];
        frames += 1;
    }
    assert!(left[0] == 0x88 && got.len() < expected + 100, "{:?}", &left[..left.len().min(20)]);
    let code = u16::from_be_bytes([left[2], left[3]]);
    assert_eq!(code, broadgate_proto::close::SLOW.code);
    assert_eq!(shard.borrow().tls.sealed(), 0);
}

#[tokio::test]
async fn a_client_that_is_cut_gives_its_sealed_bytes_back() {
    let (shard, slot, _peer) = tls_client(limits()).await;
    let mut state = shard.borrow_mut();
    for id in 0..200 {
        state.execute_all(&[to_group("g", &id.to_string(), &"x".repeat(9000))]);
        state.flush(slot);
    }
    assert!(state.tls.sealed() > 0);
    state.abort(slot, v1::Cause::Lost, 1006, "");
    assert_eq!(state.tls.sealed(), 0);
}

#[tokio::test]
async fn half_a_record_is_kept_until_the_rest_comes() {
    use std::task::{Context, Waker};
    let (shard, slot, mut peer) = tls_client(limits()).await;
    // A ping of WebSocket in one record.
    peer.tls.writer().write_all(&[0x89, 0x82, 0, 0, 0, 0, 7, 7]).unwrap();
    let mut bytes = Vec::new();
    peer.tls.write_tls(&mut bytes).unwrap();
    let key = shard.borrow().clients.get(slot).unwrap().key;
    let cx = &mut Context::from_waker(Waker::noop());
    for byte in bytes {
        peer.tcp.write_all(&[byte]).await.unwrap();
        for _ in 0..5 {
            tokio::task::yield_now().await;
            assert!(shard.borrow_mut().poll_client(slot, key, cx).is_pending());
        }
    }
    let reads = async {
        loop {
            let _ = shard.borrow_mut().poll_client(slot, key, cx);
            shard.borrow_mut().end_turn();
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    let pong = tokio::select! {
        pong = peer.read(4) => pong,
        () = reads => unreachable!(),
    };
    assert_eq!(pong, [0x8a, 2, 7, 7]);
    let state = shard.borrow();
    let Some(Stream::Tls(tls)) = &state.clients.get(slot).unwrap().stream else { panic!() };
    assert!(!tls.has_rest());
}
