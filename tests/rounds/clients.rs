//! The clients: each connects, writes down what it gets, and comes again when its connection ends.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{sleep, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message as Frame, protocol::WebSocketConfig},
};

use crate::{
    ground::{Ground, Place},
    live::Live,
    publishers,
    record::{Connection, End},
    seed::Seed,
};

/// A gateway that does not answer a handshake within this is left for another.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a stalled client is read from in the end, to find what had become of it.
const LAST_LOOK: Duration = Duration::from_secs(10);

/// What a client does besides reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Reads,
    /// Stops reading for good.
    Stalls {
        at_ms: u64,
    },
    /// Closes in good order, and does not come again.
    Closes {
        at_ms: u64,
    },
    /// Its TCP connection is cut; it comes again.
    IsCut {
        at_ms: u64,
    },
}

pub struct Client {
    pub number: u16,
    pub part: Part,
    pub ground: Arc<Ground>,
    pub live: Arc<Live>,
}

type Socket = WebSocketStream<TcpStream>;

impl Client {
    /// All its connections, when the round is over.
    pub async fn live(mut self) -> Vec<Connection> {
        let mut past = Vec::new();
        let mut seed = Seed::of(self.ground.seed, 1000 + u64::from(self.number));
        let mut gateway = usize::from(self.number) % self.ground.gateways().len();
        let mut attempt: u8 = 0;
        while !self.ground.over.is_cancelled() {
            let Some((socket, place, local)) = self.connect(gateway, attempt).await else {
                attempt = attempt.wrapping_add(1);
                gateway = seed.below(self.ground.gateways().len());
                sleep(Duration::from_millis(seed.between(20, 200))).await;
                continue;
            };
            attempt = attempt.wrapping_add(1);
            let connection = self.stay(socket, &place, local).await;
            let end = connection.end;
            past.push(connection);
            if matches!(end, End::Closed | End::Stalled { .. }) {
                break;
            }
            sleep(Duration::from_millis(seed.between(10, 300))).await;
            gateway = seed.below(self.ground.gateways().len());
        }
        past
    }

    /// Each attempt comes from an address of its own, by which the client is found in lists.
    async fn connect(&self, gateway: usize, attempt: u8) -> Option<(Socket, Place, String)> {
        let place = self.ground.place(self.ground.up_from(gateway)?)?;
        let socket = TcpSocket::new_v4().ok()?;
        if matches!(self.part, Part::Stalls { .. }) {
            socket.set_recv_buffer_size(8192).ok()?;
        }
        socket.bind((self.ground.network.source(self.number, attempt), 0).into()).ok()?;
        let opening = async {
            let stream = socket.connect(place.web).await.ok()?;
            let local = stream.local_addr().ok()?.to_string();
            let config = WebSocketConfig::default().read_buffer_size(4096);
            let url = format!("ws://{}/ws", place.web);
            let (socket, _) = client_async_with_config(url, stream, Some(config)).await.ok()?;
            Some((socket, local))
        };
        let (socket, local) = timeout(HANDSHAKE_TIME_MAX, opening).await.ok()??;
        Some((socket, place, local))
    }

    /// One connection's life.
    async fn stay(&mut self, mut socket: Socket, place: &Place, local: String) -> Connection {
        let number = self.live.opened(self.number, place, local);
        let mut connection = Connection {
            client: self.number,
            pid: place.pid,
            joined: None,
            got: Vec::new(),
            read_until: 0,
            end: End::Open,
        };
        let (turn, end) = match self.part {
            Part::Reads => (None, End::Open),
            Part::Stalls { at_ms } => (Some(at_ms), End::Stalled { closed: false }),
            Part::Closes { at_ms } => (Some(at_ms), End::Closed),
            Part::IsCut { at_ms } => (Some(at_ms), End::Cut),
        };
        let turned = async {
            match turn {
                Some(at_ms) => sleep_until(self.ground.at(at_ms)).await,
                None => std::future::pending().await,
            }
        };
        connection.end = tokio::select! {
            biased;
            () = self.ground.over.cancelled() => End::Open,
            () = turned => end,
            end = read(&mut socket, &mut connection) => end,
        };
        connection.read_until = self.ground.now();
        if turn.is_some() && connection.end == end {
            self.part = Part::Reads;
        }
        match connection.end {
            End::Stalled { .. } => {
                self.live.stalled(number);
                self.ground.over.cancelled().await;
                let mut after = Connection { got: Vec::new(), ..connection.clone() };
                let ended = timeout(LAST_LOOK, read(&mut socket, &mut after)).await.is_ok();
                connection.end = End::Stalled { closed: ended };
            }
            End::Closed => {
                let _ = socket.close(None).await;
                let _ = timeout(LAST_LOOK, async { while let Some(Ok(_)) = socket.next().await {} }).await;
            }
            End::Cut => {
                let _ = socket.get_mut().set_zero_linger();
            }
            End::Open | End::Code(_) | End::Broken => {}
        }
        connection.joined = self.live.ended(number);
        connection
    }
}

/// To the connection's end.
async fn read(socket: &mut Socket, connection: &mut Connection) -> End {
    loop {
        match socket.next().await {
            Some(Ok(Frame::Text(text))) => connection.got.extend(publishers::parse(text.as_str())),
            Some(Ok(Frame::Close(frame))) => {
                return frame.map_or(End::Broken, |frame| End::Code(frame.code.into()));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return End::Broken,
        }
    }
}
