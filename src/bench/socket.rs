//! One client of a benchmark.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::frames::{self, Frame};

const CONNECT_TIME_MAX: Duration = Duration::from_secs(20);
/// Connections from one source address, well below the ports that it has: those of a run before may
/// still linger.
const PER_SOURCE: usize = 2_000;

/// Where clients connect.
#[derive(Clone)]
pub(super) struct Target {
    url: String,
    address: SocketAddr,
    host: String,
    path: String,
    /// A Pusher client subscribes to this.
    pub(super) channel: Option<String>,
}

impl Target {
    pub(super) async fn parse(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("ws://").ok_or_else(|| format!("--url {url}: begin it with ws://"))?;
        let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        let mut addresses =
            tokio::net::lookup_host(&with_port).await.map_err(|error| format!("--url {url}: {error}"))?;
        let address = addresses.next().ok_or_else(|| format!("--url {url}: the host has no address"))?;
        let channel = path.contains("/app/").then(crate::load::group);
        Ok(Self { url: url.to_owned(), address, host: host.to_owned(), path: path.to_owned(), channel })
    }
}

/// A connected client with what it has read and not used.
pub(super) struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    pub(super) local: SocketAddr,
}

impl Socket {
    pub(super) async fn connect(target: &Target, index: usize) -> Result<Self, String> {
        let connecting = Self::open(target, index);
        match timeout(CONNECT_TIME_MAX, connecting).await {
            Ok(Ok(socket)) => Ok(socket),
            Ok(Err(error)) => Err(format!("{}: {error}", target.url)),
            Err(_) => Err(format!("{}: no handshake within {CONNECT_TIME_MAX:?}", target.url)),
        }
    }

    async fn open(target: &Target, index: usize) -> std::io::Result<Self> {
        let socket = if target.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let IpAddr::V4(ip) = target.address.ip()
            && ip.is_loopback()
        {
            // One source address has some 28,000 ports; loopback has many addresses.
            let of_run = u8::try_from(std::process::id() % 250).unwrap_or(0);
            let of_many = u8::try_from(index / PER_SOURCE % 250).unwrap_or(0);
            let source = Ipv4Addr::new(127, 1, of_run, 1 + of_many);
            socket.bind(SocketAddr::from((source, 0)))?;
        }
        let mut stream = socket.connect(target.address).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            target.path, target.host
        );
        stream.write_all(request.as_bytes()).await?;
        let local = stream.local_addr()?;
        let mut socket = Self { stream, buffer: Vec::new(), start: 0, local };
        loop {
            if let Some(end) = socket.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                if !socket.buffer.starts_with(b"HTTP/1.1 101") {
                    let answer =
                        String::from_utf8_lossy(&socket.buffer).lines().next().unwrap_or_default().to_owned();
                    return Err(std::io::Error::other(format!("the handshake was answered {answer:?}")));
                }
                socket.buffer.drain(..end + 4);
                if let Some(channel) = &target.channel {
                    socket.subscribe(channel).await?;
                }
                return Ok(socket);
            }
            socket.fill().await?;
        }
    }

    async fn subscribe(&mut self, channel: &str) -> std::io::Result<()> {
        let event = json!({ "event": "pusher:subscribe", "data": { "channel": channel } });
        self.write(&frames::client(1, event.to_string().as_bytes())).await?;
        loop {
            let event: Value = self.next(|frame| serde_json::from_slice(frame).unwrap_or_default()).await?;
            match event["event"].as_str().unwrap_or_default() {
                "pusher_internal:subscription_succeeded" => return Ok(()),
                "pusher:error" => return Err(std::io::Error::other(event["data"].to_string())),
                _ => {}
            }
        }
    }

    pub(super) async fn write(&mut self, frame: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(frame).await
    }

    /// Reads until a data frame has come, and hands its payload to `take`. Pings are answered.
    pub(super) async fn next<T>(&mut self, take: impl FnOnce(&[u8]) -> T) -> std::io::Result<T> {
        loop {
            let mut pong = None;
            match frames::next(&self.buffer[self.start..]) {
                None => {
                    self.fill().await?;
                    continue;
                }
                Some((Frame::Data(payload), len)) => {
                    let taken = take(payload);
                    self.start += len;
                    return Ok(taken);
                }
                Some((Frame::Ping(payload), len)) => {
                    pong = Some(frames::client(10, payload));
                    self.start += len;
                }
                Some((Frame::Close, _)) => return Err(std::io::Error::other("the server closed the client")),
                Some((Frame::Other, len)) => self.start += len,
            }
            if let Some(pong) = pong {
                self.write(&pong).await?;
            }
        }
    }

    async fn fill(&mut self) -> std::io::Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.reserve(4096);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
