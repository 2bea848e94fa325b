//! Where clients come in: accepting, the PROXY protocol, HTTP and the WebSocket upgrade. Runs on the
//! shards' threads.

mod asked;
mod certificates;
mod forwarding;
mod http;
mod port;
mod proxy;
mod pusher;
mod pusher_api;
mod socketio;
mod target;
mod tls;
mod upgrade;
mod visit;

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use broadgate_port::{ClosingListener, ConnectionWatch, linger, tune};
use broadgate_proto::{limits::FAREWELL_TIME_MAX, v1};
use metrics::counter;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};

use crate::{
    admission::{Admission, ConnectionTicket, Full},
    config::{Authorize, Listener, ListenerKind},
    ingress::forwarding::is_trusted,
    refusals::{RefusalContext, Refusals},
    shard::{self, Candidate, Newcomer, ShardHandle, Stream},
};

pub(crate) use self::{
    certificates::Certificates,
    port::{ClientPort, ClientPortShared},
};

pub(crate) use self::port::Connection;

/// The client ports of one shard.
struct ShardPorts(Rc<ClientPort>);

impl shard::Ingress for ShardPorts {
    fn adopt(&self, listener: usize, stream: std::net::TcpStream, ticket: ConnectionTicket) {
        adopt(&self.0, listener, stream, ticket);
    }

    fn has_visitors(&self) -> bool {
        self.0.visitors.get() > 0
    }
}

/// Opens a shard's client ports, on its thread. `listeners` are its own, by the index of the configured one.
pub(crate) fn open(
    shard: &ShardHandle,
    shared: &ClientPortShared,
    listeners: Vec<(usize, std::net::TcpListener)>,
    tasks: &mut JoinSet<()>,
) -> Box<dyn shard::Ingress> {
    let port = Rc::new(ClientPort::new(Rc::clone(shard), shared));
    for (index, listener) in listeners {
        tasks.spawn_local(accept(Rc::clone(&port), index, listener, shared.open.clone()));
    }
    Box::new(ShardPorts(port))
}

/// Accepts on one listener until listeners are closed, and then what waits in its queue. A failed accept
/// is of one connection, or of a limit of the process: neither ends the loop.
async fn accept(port: Rc<ClientPort>, index: usize, listener: std::net::TcpListener, open: mpsc::Sender<()>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "client listener failed");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = port.stopping.closing.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => welcome(&port, index, stream, peer),
            Err(error) => accept_failed(&error).await,
        }
    }
    let mut closing = ClosingListener::new(listener);
    while let Some((stream, peer)) = closing.next().await {
        welcome(&port, index, stream, peer);
    }
    drop(open);
}

pub(crate) async fn accept_failed(error: &std::io::Error) {
    counter!("broadgate_gateway_accept_errors_total").increment(1);
    tracing::warn!(%error, "accept failed; trying again in 100 ms");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Takes a connection that another thread accepted and admitted.
fn adopt(port: &Rc<ClientPort>, index: usize, stream: std::net::TcpStream, ticket: ConnectionTicket) {
    let Some(listener) = port.listeners.get(index).cloned() else { return };
    match TcpStream::from_std(stream).and_then(|stream| Ok((stream.peer_addr()?, stream))) {
        Ok((peer, stream)) => take_in(port, index, listener, stream, peer, ticket),
        Err(error) => tracing::debug!(%error, "connection closed before it was accepted"),
    }
}

fn welcome(port: &Rc<ClientPort>, index: usize, stream: TcpStream, peer: SocketAddr) {
    let Some(listener) = port.listeners.get(index).cloned() else { return };
    if let Some(ticket) = admit(&port.admission, &port.refusals, &listener, &stream, peer) {
        take_in(port, index, listener, stream, peer, ticket);
    }
}

/// Counts a connection that was just accepted; none if it is to be closed at once.
pub(crate) fn admit(
    admission: &Arc<Admission>,
    refusals: &Refusals,
    listener: &Listener,
    stream: &TcpStream,
    peer: SocketAddr,
) -> Option<ConnectionTicket> {
    let ip = peer.ip().to_canonical();
    // Such a peer has yet to say for whom it comes.
    let by_proxy = listener.proxy_protocol
        || listener.kind == ListenerKind::Web && is_trusted(&listener.trusted_proxies, ip);
    match admission.enter((!by_proxy).then_some(ip)) {
        Ok(ticket) => Some(ticket),
        Err(full) => {
            if listener.kind == ListenerKind::Web && !listener.proxy_protocol && listener.tls.is_empty() {
                // A new socket's buffer takes it, if it can be written to already.
                let _ = stream.try_write(visit::NO_ROOM);
            }
            let app = if listener.kind == ListenerKind::Web { "" } else { &listener.app };
            let (reason, why) = (full.reason(), full.sentence());
            refuse(
                refusals,
                &RefusalContext {
                    reason,
                    why,
                    address: Some(canonical(peer)),
                    app,
                    ..RefusalContext::default()
                },
            );
            None
        }
    }
}

fn take_in(
    port: &Rc<ClientPort>,
    index: usize,
    listener: Arc<Listener>,
    stream: TcpStream,
    peer: SocketAddr,
    ticket: ConnectionTicket,
) {
    tune(&stream, listener.tcp_keep_alive);
    port.visitors.set(port.visitors.get() + 1);
    let peer = canonical(peer);
    let tls_config = port.certificates.as_ref().and_then(|certificates| certificates.of(index));
    let connection =
        Connection { port: Rc::clone(port), listener, socket_peer: peer, peer, tls: false, tls_config };
    broadgate_tasks::spawn_local("connection", Box::pin(connection.run(stream, ticket)));
}

impl Connection {
    async fn run(mut self, mut stream: TcpStream, ticket: ConnectionTicket) {
        let limits = &self.port.config.settings.limits;
        if self.listener.proxy_protocol {
            let trusted = is_trusted(&self.listener.trusted_proxies, self.socket_peer.ip());
            let header = tokio::time::timeout(limits.handshake_time_max, proxy::read_header(&mut stream));
            match if trusted { header.await } else { Ok(Err(proxy::HeaderError::NotTrusted)) } {
                Ok(Ok(said)) => {
                    self.peer = said.client.map_or(self.peer, canonical);
                    self.tls = said.tls;
                }
                Ok(Err(error)) => return self.refused("proxy_header", &error.to_string()),
                Err(_) => return self.refused("handshake_time_max", "no PROXY header in time"),
            }
        }
        let watch = ConnectionWatch::new(http::times(limits));
        let Some(config) = self.tls_config.take() else {
            return self.serve(stream, ticket, watch).await;
        };
        if let Some(stream) = tls::accept(&self, stream, config, &watch).await {
            self.tls = true;
            // Not in one future with the handshake, which is gone.
            Box::pin(self.serve(stream, ticket, watch)).await;
        }
    }

    async fn serve<S>(self, stream: S, mut ticket: ConnectionTicket, watch: Arc<ConnectionWatch>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + Into<Stream> + 'static,
    {
        let full = match &mut ticket {
            ConnectionTicket::Farewell { full, .. } => Some(*full),
            ConnectionTicket::Admitted(_) if self.by_proxy() => None,
            ConnectionTicket::Admitted(admitted) => admitted.belongs_to(self.peer.ip()).err(),
        };
        match self.listener.kind {
            ListenerKind::Web => http::serve(self, stream, ticket, full, watch).await,
            ListenerKind::Text | ListenerKind::Frame => {
                if let Some(full) = full {
                    return self.refused(full.reason(), full.sentence());
                }
                if self.port.stopping.closing.is_cancelled() {
                    self.refused("stopping", "the gateway is stopping");
                    return linger(stream).await;
                }
                self.open_plain(stream, ticket).await;
            }
        }
    }

    /// Does a trusted proxy tell by X-Forwarded-For who the client of each request is?
    pub(crate) fn by_proxy(&self) -> bool {
        self.listener.kind == ListenerKind::Web && is_trusted(&self.listener.trusted_proxies, self.peer.ip())
    }

    /// `text` and `frame` have no handshake: the connection is all there is to decide on.
    async fn open_plain<S>(self, mut stream: S, ticket: ConnectionTicket)
    where
        S: AsyncRead + AsyncWrite + Unpin + Into<Stream>,
    {
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
            socketio: None,
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
                    self.refused("worker", "a worker refused the client");
                    let last = async {
                        stream.write_all(refuse.body.as_bytes()).await?;
                        stream.flush().await
                    };
                    if let Ok(Ok(())) = tokio::time::timeout(FAREWELL_TIME_MAX, last).await {
                        linger(stream).await;
                    }
                    return;
                }
                None => return self.refused("no_worker", "no worker decided in time"),
            }
        }
        let mut stream = stream.into();
        // What was read with the end of the handshake.
        let read = if let Stream::Tls(tls) = &mut stream { tls.take_plain() } else { Vec::new() };
        candidate.open(stream, &read, Some(ticket), handshake, accept);
    }

    /// The socket's peer, where it is not the client.
    pub(crate) fn proxy(&self) -> String {
        if self.socket_peer == self.peer { String::new() } else { self.socket_peer.to_string() }
    }

    /// Counts and logs a connection that did not become a client, and of which nothing else is known.
    pub(crate) fn refused(&self, reason: &'static str, why: &str) {
        let app = if self.listener.kind == ListenerKind::Web { "" } else { &self.listener.app };
        self.refuse(&RefusalContext {
            reason,
            why,
            address: Some(self.peer),
            app,
            ..RefusalContext::default()
        });
    }

    pub(crate) fn refuse(&self, refused: &RefusalContext<'_>) {
        refuse(&self.port.refusals, refused);
    }
}

fn refuse(refusals: &Refusals, refused: &RefusalContext<'_>) {
    counter!("broadgate_gateway_refused_total", "reason" => refused.reason).increment(1);
    refused.log(refusals);
}

/// IPv4 clients of a dual-stack listener have their IPv4 address.
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
    let _ = target::PathTarget::read(text, |_| 0);
    let Ok(value) = ::http::HeaderValue::from_str(text) else { return };
    let (peer, trusted) = (IpAddr::from(Ipv4Addr::LOCALHOST), ["127.0.0.0/8".parse().expect("a network")]);
    for name in ["x-forwarded-for", "forwarded", "x-real-ip", "x-forwarded-proto", "x-forwarded-ssl"] {
        let headers = ::http::HeaderMap::from_iter([(::http::HeaderName::from_static(name), value.clone())]);
        let _ = (forwarding::says_tls(&headers), forwarding::client(&trusted, peer, &headers));
        assert_eq!(forwarding::client(&[], peer, &headers), None, "a stranger was believed");
    }
}
