//! TCP settings, and closing a listener without resetting the connections in its queue.

use std::{net::SocketAddr, time::Duration};

use broadgate_proto::limits::{TCP_KEEP_ALIVE_INTERVAL, TCP_KEEP_ALIVE_PROBES};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, timeout_at},
};

/// How long a closing listener still accepts connections whose handshake is in progress. It admits no new
/// ones then, so this is one round trip to most peers.
const UNDER_WAY_TIME_MAX: Duration = Duration::from_millis(150);
/// After an accept that failed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(10);

/// Sets the options of every connection, accepted or dialed: small writes leave at once, and a dead peer is
/// detected by keep-alive if nothing is sent (zero for never), and by missing acknowledgements if something
/// is sent.
pub fn tune(stream: &TcpStream, keep_alive: Duration) {
    // Settings that a system lacks are skipped.
    let _ = stream.set_nodelay(true);
    if keep_alive.is_zero() {
        return;
    }
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new().with_time(keep_alive).with_interval(TCP_KEEP_ALIVE_INTERVAL);
    #[cfg(not(target_os = "windows"))]
    let probes = probes.with_retries(TCP_KEEP_ALIVE_PROBES);
    let _ = socket.set_tcp_keepalive(&probes);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(user_timeout(keep_alive)));
}

/// How long sent data may stay unacknowledged: as long as keep-alive takes to give a peer up.
#[must_use]
pub fn user_timeout(keep_alive: Duration) -> Duration {
    keep_alive + TCP_KEEP_ALIVE_INTERVAL * TCP_KEEP_ALIVE_PROBES
}

/// A closing listener. Simply closing a listener resets the connections in its queue, and those whose
/// handshake is in progress.
#[derive(Debug)]
pub struct ClosingListener {
    listener: Option<TcpListener>,
    until: Instant,
    last: Vec<(TcpStream, SocketAddr)>,
}

impl ClosingListener {
    /// Stops admitting new connections: their first packet is dropped where the system can do that, so that
    /// they are refused when they retry.
    #[must_use]
    pub fn new(listener: TcpListener) -> Self {
        drop_first_packets(&listener);
        Self { listener: Some(listener), until: Instant::now() + UNDER_WAY_TIME_MAX, last: Vec::new() }
    }

    /// The next connection that was already established; none when the queue is empty and the listener
    /// closed.
    pub async fn next(&mut self) -> Option<(TcpStream, SocketAddr)> {
        while let Some(listener) = &self.listener {
            match timeout_at(self.until, listener.accept()).await {
                Ok(Ok(accepted)) => return Some(accepted),
                Ok(Err(_)) if Instant::now() < self.until => tokio::time::sleep(ACCEPT_AGAIN).await,
                _ => self.close(),
            }
        }
        self.last.pop()
    }

    /// Nothing can arrive between the last look into the queue and the close.
    fn close(&mut self) {
        let Some(Ok(listener)) = self.listener.take().map(TcpListener::into_std) else { return };
        while let Ok((stream, peer)) = listener.accept() {
            let taken = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            self.last.extend(taken.ok().map(|stream| (stream, peer)));
        }
    }
}

/// A packet filter on the listener (classic BPF): of the TCP flags SYN and ACK, only SYN is set.
#[cfg(target_os = "linux")]
fn drop_first_packets(listener: &TcpListener) {
    use socket2::SockFilter;
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let program = [
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(AND, 0, 0, 0x12),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0x02),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    if let Err(error) = SockRef::from(listener).attach_filter(&program) {
        tracing::debug!(%error, "a closing listener takes connections to its end");
    }
}

#[cfg(not(target_os = "linux"))]
fn drop_first_packets(_: &TcpListener) {}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Connections in the queue are served, and later ones are refused.
    #[tokio::test]
    async fn closing_listener_resets_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        for _ in 0..50 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            waiting.push(stream);
        }
        let mut closing = ClosingListener::new(listener);
        let mut served = 0;
        while let Some((mut stream, _)) = closing.next().await {
            stream.read_exact(&mut [0; 5]).await.unwrap();
            stream.write_all(b"bye").await.unwrap();
            served += 1;
        }
        assert_eq!(served, 50);
        for mut stream in waiting {
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"bye");
        }
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}
