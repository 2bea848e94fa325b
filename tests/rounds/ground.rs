//! What everybody in a round stands on: the clock, the addresses, the highest epoch seen.

use std::{
    net::SocketAddr,
    sync::Mutex,
    time::{Duration, Instant},
};

use broadgate_proto::v1;
use tokio_util::sync::CancellationToken;

use crate::{
    network::Network,
    record::{Epoch, Micros},
};

pub struct Ground {
    pub seed: u64,
    pub network: Network,
    began: Instant,
    gateways: Mutex<Vec<Place>>,
    seen: Mutex<Epoch>,
    /// Clients and their helpers end.
    pub over: CancellationToken,
}

/// Where a gateway is. An index stays the same gateway's, over all its processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub name: String,
    pub pid: u32,
    /// Commands go here, past the proxy.
    pub internal: SocketAddr,
    pub web: SocketAddr,
    /// It is known to be gone: nobody needs to find out by trying.
    pub down: bool,
}

impl Ground {
    pub fn new(seed: u64, network: Network) -> Self {
        Self {
            seed,
            network,
            began: Instant::now(),
            gateways: Mutex::default(),
            seen: Mutex::default(),
            over: CancellationToken::new(),
        }
    }

    pub fn now(&self) -> Micros {
        u64::try_from(self.began.elapsed().as_micros()).unwrap()
    }

    /// When a time of the round is.
    pub fn at(&self, ms: u64) -> tokio::time::Instant {
        (self.began + Duration::from_millis(ms)).into()
    }

    pub fn set(&self, index: usize, place: Place) {
        let mut gateways = self.gateways.lock().unwrap();
        if index == gateways.len() {
            gateways.push(place);
        } else {
            gateways[index] = place;
        }
    }

    pub fn set_down(&self, index: usize, down: bool) {
        self.gateways.lock().unwrap()[index].down = down;
    }

    pub fn gateways(&self) -> Vec<Place> {
        self.gateways.lock().unwrap().clone()
    }

    pub fn place(&self, index: usize) -> Option<Place> {
        self.gateways.lock().unwrap().get(index).cloned()
    }

    /// The first that is not down, from this one on.
    pub fn up_from(&self, index: usize) -> Option<usize> {
        let gateways = self.gateways.lock().unwrap();
        let count = gateways.len();
        (index..index + count).map(|index| index % count).find(|index| !gateways[*index].down)
    }

    pub fn seen(&self) -> Epoch {
        *self.seen.lock().unwrap()
    }

    /// Every answer's epoch goes with every later command, as with SDKs.
    pub fn see(&self, coverage: Option<&v1::Coverage>) -> Epoch {
        let epoch = coverage.and_then(|coverage| coverage.epoch).unwrap_or_default();
        let epoch = (epoch.term, epoch.count);
        let mut seen = self.seen.lock().unwrap();
        *seen = epoch.max(*seen);
        epoch
    }

    /// A request that carries the highest epoch seen, and the secret if there is one.
    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        let (term, count) = self.seen();
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("broadgate-epoch", format!("{term}.{count}").parse().unwrap());
        if let Some(secret) = self.network.secret() {
            request.metadata_mut().insert("authorization", format!("Bearer {secret}").parse().unwrap());
        }
        request
    }
}
