//! A gateway whose ports are open.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    admission::Admission,
    config::Config,
    health::{Health, Stopping},
    ingress::Certificates,
    refusals::Refusals,
    server::listen::ClientListeners,
};

/// A gateway whose ports are open, but which serves nothing yet.
pub struct Bound {
    pub(super) config: Arc<Config>,
    pub(super) internal: std::net::TcpListener,
    pub(super) internal_address: SocketAddr,
    pub(super) internal_connections_max: usize,
    /// `clients_max` as configured; the limit on open files may allow fewer.
    pub(super) clients_wanted: usize,
    pub(super) clients: ClientListeners,
    pub(super) certificates: Option<Certificates>,
    pub(super) shards: usize,
    pub(super) health: Health,
    pub(super) stopping: Stopping,
    pub(super) admission: Arc<Admission>,
    pub(super) refusals: Arc<Refusals>,
}
