//! Where clients come in: accepting, the PROXY protocol, HTTP and the WebSocket upgrade. Runs on the
//! shards' threads.

mod asked;
mod backend;
mod forwarding;
mod http;
mod proxy;
mod pusher;
mod target;
mod upgrade;

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use metrics::counter;
use tokio::net::{TcpListener, TcpStream};

use self::forwarding::is_trusted;
use crate::{
    admission::{Admission, Admitted, Full},
    config::{Authorize, Config, Listener, ListenerKind},
    refusals::Refused,
    shard::{Candidate, Handle, Newcomer},
};
use broadgate_proto::v1;

/// What a shard's client ports share.
pub(crate) struct Port {
    pub(crate) shard: Handle,
    pub(crate) config: Arc<Config>,
    pub(crate) listeners: Vec<Arc<Listener>>,
    pub(crate) admission: Arc<Admission>,
}

impl Port {
    pub(crate) fn new(shard: Handle, config: &Arc<Config>, admission: Arc<Admission>) -> Self {
        let listeners = config.settings.listeners.iter().cloned().map(Arc::new).collect();
        Self { shard, config: Arc::clone(config), listeners, admission }
    }
}

/// Accepts on one listener until the task is aborted. A failed accept is of one connection, or of a
/// limit of the process: neither ends the loop.
pub(crate) async fn accept(port: Rc<Port>, index: usize, listener: std::net::TcpListener) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a client listener could not be used");
            return;
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => welcome(&port, index, stream, peer),
            Err(error) => {
                counter!("broadgate_gateway_accept_errors_total").increment(1);
                tracing::warn!(%error, "accept failed; trying again in 100 ms");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Takes a connection that another thread accepted.
pub(crate) fn adopt(port: &Rc<Port>, index: usize, stream: std::net::TcpStream) {
    match TcpStream::from_std(stream).and_then(|stream| Ok((stream.peer_addr()?, stream))) {
        Ok((peer, stream)) => welcome(port, index, stream, peer),
        Err(error) => tracing::debug!(%error, "a connection was gone before it was taken"),
    }
}

fn welcome(port: &Rc<Port>, index: usize, stream: TcpStream, peer: SocketAddr) {
    // Merged writes do not need Nagle, and a lone message must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let Some(listener) = port.listeners.get(index).cloned() else { return };
    let (socket_peer, peer) = (canonical(peer), canonical(peer));
    let connection = Connection { port: Rc::clone(port), listener, socket_peer, peer, tls: false };
    tokio::task::spawn_local(Box::pin(connection.run(stream)));
}

/// One connection before it is a client.
pub(crate) struct Connection {
    pub(crate) port: Rc<Port>,
    pub(crate) listener: Arc<Listener>,
    /// The other end of the socket.
    pub(crate) socket_peer: SocketAddr,
    /// The client, where a trusted proxy has said so.
    pub(crate) peer: SocketAddr,
    /// A PROXY header has said that the client came by TLS.
    pub(crate) tls: bool,
}

impl Connection {
    async fn run(mut self, mut stream: TcpStream) {
        let limits = &self.port.config.settings.limits;
        let (first_byte, handshake) = (limits.first_byte_time_max, limits.handshake_time_max);
        if self.listener.proxy_protocol {
            let trusted = is_trusted(&self.listener.trusted_proxies, self.socket_peer.ip());
            let header = tokio::time::timeout(handshake, proxy::read_header(&mut stream));
            match if trusted { header.await } else { Ok(Err(proxy::HeaderError::NotTrusted)) } {
                Ok(Ok(said)) => {
                    self.peer = said.client.map_or(self.peer, canonical);
                    self.tls = said.tls;
                }
                Ok(Err(error)) => return self.refused("proxy_header", &error.to_string()),
                Err(_) => return self.refused("handshake_time_max", "no PROXY header in time"),
            }
        }
        let admission = &self.port.admission;
        let by_proxy = self.listener.kind == ListenerKind::Web
            && is_trusted(&self.listener.trusted_proxies, self.peer.ip());
        let admitted = if by_proxy { admission.admit_proxied() } else { admission.admit(self.peer.ip()) };
        match self.listener.kind {
            ListenerKind::Web => {
                // hyper's own timeout begins with the first byte.
                if tokio::time::timeout(first_byte, stream.readable()).await.is_err() {
                    return self.refused("first_byte_time_max", "nothing was sent in time");
                }
                http::serve(self, stream, admitted).await;
            }
            ListenerKind::Text | ListenerKind::Frame => match admitted {
                Ok(admitted) => self.open_plain(stream, admitted).await,
                Err(full) => self.refused(full.reason(), full.sentence()),
            },
        }
    }

    /// `text` and `frame` have no handshake: the connection is all there is to decide on.
    async fn open_plain(self, mut stream: TcpStream, admitted: Admitted) {
        use v1::decision::Decision;
        if self.port.config.apps.closed_to_raw(&self.listener.app, false).is_some() {
            return self.refused("app", "the listener's app is disabled, or was removed");
        }
        let handshake =
            v1::Handshake { address: self.peer.to_string(), proxy: self.proxy(), ..v1::Handshake::default() };
        let mut newcomer = Newcomer {
            listener: Arc::clone(&self.listener),
            app: self.listener.app.as_str().into(),
            service: self.listener.service.as_str().into(),
            address: self.peer,
            handshake: handshake.clone(),
            pusher: None,
        };
        let Some(candidate) = Candidate::new(&self.port.shard, &mut newcomer) else {
            return self.refused(Full::Gateway.reason(), "the shard is full");
        };
        let mut accept = None;
        if self.listener.authorize == Authorize::Worker {
            match candidate.ask(handshake.clone()).await {
                Some(Decision::Accept(accepted)) => accept = Some(accepted),
                Some(Decision::Refuse(refuse)) => {
                    use tokio::io::AsyncWriteExt as _;
                    let _ = stream.write_all(refuse.body.as_bytes()).await;
                    return self.refused("worker", "a worker refused the client");
                }
                None => return self.refused("no_worker", "no worker decided in time"),
            }
        }
        candidate.open(stream, &[], Some(admitted), handshake, accept);
    }

    /// The socket's peer, where it is not the client.
    pub(crate) fn proxy(&self) -> String {
        if self.socket_peer == self.peer { String::new() } else { self.socket_peer.to_string() }
    }

    /// Counts and logs a connection that did not become a client, and of which nothing else is known.
    pub(crate) fn refused(&self, reason: &'static str, why: &str) {
        let app = if self.listener.kind == ListenerKind::Web { "" } else { &self.listener.app };
        self.refuse(&Refused { reason, why, address: Some(self.peer), app, ..Refused::default() });
    }

    pub(crate) fn refuse(&self, refused: &Refused<'_>) {
        counter!("broadgate_gateway_refused_total", "reason" => refused.reason).increment(1);
        refused.log(&self.port.config.apps);
    }
}

/// IPv4 clients of a dual-stack listener are told by their IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What strangers and proxies say before there is a client, for the fuzz targets: it must not panic, and
/// nobody who is not trusted is believed.
#[cfg(feature = "fuzz")]
pub(crate) fn fuzz(data: &[u8]) {
    use std::{
        future::Future as _,
        net::{IpAddr, Ipv4Addr},
        task::{Context, Waker},
    };
    let mut stream = data;
    let mut reading = std::pin::pin!(proxy::read_header(&mut stream));
    // All bytes are there: it waits for nothing.
    assert!(reading.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = target::Target::read(text, |_| 0);
    let Ok(value) = ::http::HeaderValue::from_str(text) else { return };
    let (peer, trusted) = (IpAddr::from(Ipv4Addr::LOCALHOST), ["127.0.0.0/8".parse().expect("a network")]);
    for name in ["x-forwarded-for", "forwarded", "x-real-ip", "x-forwarded-proto", "x-forwarded-ssl"] {
        let headers = ::http::HeaderMap::from_iter([(::http::HeaderName::from_static(name), value.clone())]);
        let _ = (forwarding::says_tls(&headers), forwarding::client(&trusted, peer, &headers));
        assert_eq!(forwarding::client(&[], peer, &headers), None, "a stranger was believed");
    }
}
