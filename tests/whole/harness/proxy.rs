//! A TCP proxy that can spoil the link of one dialling process and leave the others alone.
//!
//! It is a network, not a party: what is held is delivered once the link is mended, also when its
//! sender has long gone, and neither end hears of the other's end through a link that is cut.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::dialler;

const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks that one direction of a held connection takes in, as a network's buffers would.
const CHUNKS_HELD: usize = 16;

/// What is wrong with a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Connections are closed, new ones at once.
    Close,
    /// Connections stay open, new ones are accepted, and nothing passes.
    Blackhole,
    /// Bytes pass in this direction only.
    OneWay(Way),
    /// Everything comes later by this much.
    Delay(Duration),
}

/// A direction of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From who dialled.
    There,
    /// To who dialled.
    Back,
}

/// A link's state as its connections see it: `None` is a link in order.
type Watched = watch::Receiver<Option<Fault>>;

/// Listens in front of one address; ended when it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _gone: DropGuard,
}

struct Shared {
    address: SocketAddr,
    target: SocketAddr,
    /// By dialling process.
    links: Mutex<HashMap<u32, watch::Sender<Option<Fault>>>>,
}

impl Proxy {
    /// The target need not listen yet: who dials meanwhile is closed.
    pub async fn in_front_of(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((target.ip(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { address, target, links: Mutex::default() });
        let gone = CancellationToken::new();
        tokio::spawn(gone.clone().run_until_cancelled_owned(accept(
            listener,
            Arc::clone(&shared),
            gone.clone(),
        )));
        Self { address, shared, _gone: gone.drop_guard() }
    }

    /// From now on, this is wrong with what a process dials here, and with what it has dialled.
    pub fn cut(&self, from_pid: u32, fault: Fault) {
        self.shared.link(from_pid, |link| link.send_replace(Some(fault)));
    }

    pub fn mend(&self, from_pid: u32) {
        self.shared.link(from_pid, |link| link.send_replace(None));
    }
}

impl Shared {
    fn link<T>(&self, pid: u32, act: impl FnOnce(&watch::Sender<Option<Fault>>) -> T) -> T {
        let mut links = self.links.lock().unwrap();
        act(links.entry(pid).or_insert_with(|| watch::Sender::new(None)))
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, gone: CancellationToken) {
    loop {
        let Ok((near, peer)) = listener.accept().await else { continue };
        let carried = carry(Arc::clone(&shared), near, peer);
        tokio::spawn(gone.clone().run_until_cancelled_owned(carried));
    }
}

/// One connection's life.
async fn carry(shared: Arc<Shared>, near: TcpStream, peer: SocketAddr) {
    let listening = shared.address;
    let pid = tokio::task::spawn_blocking(move || dialler::of(peer, listening)).await.ok().flatten();
    // Who has gone again before it was looked up has no use for an answer.
    let Some(pid) = pid else { return };
    let faults = shared.link(pid, watch::Sender::subscribe);
    let mut closing = faults.clone();
    tokio::select! {
        biased;
        _ = closing.wait_for(|fault| *fault == Some(Fault::Close)) => {}
        _ = pass(shared.target, near, faults) => {}
    }
}

async fn pass(target: SocketAddr, near: TcpStream, faults: Watched) -> io::Result<()> {
    open(&mut faults.clone(), Way::There).await;
    let far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_out, near_in), (far_out, far_in)) = (near.into_split(), far.into_split());
    let there = pump(near_out, far_in, Way::There, faults.clone());
    let back = pump(far_out, near_in, Way::Back, faults);
    tokio::try_join!(there, back).map(|_| ())
}

/// Waits until a way lets bytes pass; says by how much they are late.
async fn open(faults: &mut Watched, way: Way) -> Duration {
    let passes = |fault: &Option<Fault>| match fault {
        None | Some(Fault::Delay(_)) => true,
        Some(Fault::OneWay(only)) => *only == way,
        Some(Fault::Close | Fault::Blackhole) => false,
    };
    let late = match faults.wait_for(passes).await.as_deref() {
        Ok(Some(Fault::Delay(late))) => Some(*late),
        Ok(_) => Some(Duration::ZERO),
        Err(_) => None,
    };
    match late {
        Some(late) => late,
        // The proxy is gone; so is this task, soon.
        None => std::future::pending().await,
    }
}

/// What a direction carries: bytes, or the news that its sender broke off.
enum Carried {
    Bytes(Vec<u8>),
    Broken(io::Error),
}

async fn pump(mut from: OwnedReadHalf, to: OwnedWriteHalf, way: Way, faults: Watched) -> io::Result<()> {
    let (queue, waiting) = mpsc::channel(CHUNKS_HELD);
    let reading = async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let carried = match from.read(&mut chunk).await {
                Ok(0) => return Ok(()),
                Ok(count) => Carried::Bytes(chunk[..count].to_vec()),
                Err(error) => Carried::Broken(error),
            };
            let last = matches!(carried, Carried::Broken(_));
            if queue.send((Instant::now(), carried)).await.is_err() || last {
                return Ok(());
            }
        }
    };
    tokio::try_join!(reading, deliver(waiting, to, way, faults)).map(|_| ())
}

async fn deliver(
    mut waiting: mpsc::Receiver<(Instant, Carried)>,
    mut to: OwnedWriteHalf,
    way: Way,
    mut faults: Watched,
) -> io::Result<()> {
    let opposite = if way == Way::There { Way::Back } else { Way::There };
    while let Some((came, carried)) = waiting.recv().await {
        loop {
            let late = open(&mut faults, way).await;
            sleep_until(came + late).await;
            // It may have been cut while this was on its way.
            if late.is_zero() || matches!(*faults.borrow(), None | Some(Fault::Delay(_))) {
                break;
            }
        }
        let sent = match carried {
            Carried::Bytes(bytes) => to.write_all(&bytes).await,
            Carried::Broken(error) => return Err(error),
        };
        if let Err(error) = sent {
            // That nobody takes it is news that travels the other way.
            open(&mut faults, opposite).await;
            return Err(error);
        }
    }
    open(&mut faults, way).await;
    to.shutdown().await
}
