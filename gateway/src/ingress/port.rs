//! The client ports of a shard, and a connection before it is a client.

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Weak},
};

use broadgate_tls::rustls::ServerConfig;
use tokio::sync::mpsc;

use crate::{
    admission::Admission,
    authorization::Authorizer,
    config::{Config, Listener},
    dispatch::Dispatcher,
    health::{Health, Stopping},
    ingress::certificates::Certificates,
    refusals::Refusals,
    request_bodies::Bodies,
    shard::{AppConnections, ShardHandle, TlsShared},
};

/// One connection before it is a client.
pub(crate) struct Connection {
    pub(crate) port: Rc<ClientPort>,
    pub(crate) listener: Arc<Listener>,
    /// The other end of the socket.
    pub(crate) socket_peer: SocketAddr,
    /// The client, where a trusted proxy has said so.
    pub(crate) peer: SocketAddr,
    /// The client came by TLS: to us, or to a proxy whose PROXY header says so.
    pub(crate) tls: bool,
    /// If clients of the listener come by TLS: which certificates are shown.
    pub(crate) tls_config: Option<Arc<ServerConfig>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.port.visitors.set(self.port.visitors.get() - 1);
    }
}

/// What the client ports of all shards share.
#[derive(Clone)]
pub(crate) struct ClientPortShared {
    pub(crate) config: Arc<Config>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) bodies: Arc<Bodies>,
    pub(crate) health: Health,
    pub(crate) stopping: Stopping,
    pub(crate) places: Arc<AppConnections>,
    pub(crate) authorizer: Authorizer,
    /// Not kept alive by the client ports: it has the shards' mailboxes, and a shard ends with its last one.
    pub(crate) dispatcher: Weak<Dispatcher>,
    /// Certificates, where a listener has some.
    pub(crate) certificates: Option<Certificates>,
    /// Held while a client listener is open: when all are dropped, every listener is closed.
    pub(crate) open: mpsc::Sender<()>,
}

/// What a shard's client ports share.
pub(crate) struct ClientPort {
    pub(crate) shard: ShardHandle,
    pub(crate) config: Arc<Config>,
    pub(crate) listeners: Vec<Arc<Listener>>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) bodies: Arc<Bodies>,
    pub(crate) health: Health,
    pub(crate) stopping: Stopping,
    pub(super) admission: Arc<Admission>,
    pub(crate) places: Arc<AppConnections>,
    pub(crate) dispatcher: Weak<Dispatcher>,
    pub(super) certificates: Option<Certificates>,
    pub(super) tls: Arc<TlsShared>,
    /// Connections that are not clients.
    pub(super) visitors: Cell<usize>,
}

impl ClientPort {
    pub(crate) fn new(shard: ShardHandle, shared: &ClientPortShared) -> Self {
        let config = Arc::clone(&shared.config);
        let tls = Arc::clone(&shard.borrow().tls);
        Self {
            shard,
            listeners: config.settings.listeners.iter().cloned().map(Arc::new).collect(),
            config,
            refusals: Arc::clone(&shared.refusals),
            bodies: Arc::clone(&shared.bodies),
            health: shared.health.clone(),
            stopping: shared.stopping.clone(),
            admission: Arc::clone(&shared.admission),
            places: Arc::clone(&shared.places),
            dispatcher: shared.dispatcher.clone(),
            certificates: shared.certificates.clone(),
            tls,
            visitors: Cell::new(0),
        }
    }
}
