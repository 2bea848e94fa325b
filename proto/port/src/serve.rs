//! Serving an internal port, or one with probes: a bounded number of connections, each with its deadlines.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body};
use broadgate_proto::limits::{HANDSHAKE_BYTES_MAX, TCP_KEEP_ALIVE};
use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use metrics::counter;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::server::{Connected as _, TcpConnectInfo};
use tower::ServiceExt as _;

use crate::{
    check::Check,
    handshake::{self, PortTls},
    io::Guarded,
    socket::tune,
    watch::{ConnectionPhase, ConnectionWatch, Times},
};

/// How long connections may take to end after a port stops; streams have ended by then.
const STOP_TIME_MAX: Duration = Duration::from_millis(500);
/// After an accept that failed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How a port is served.
#[derive(Clone)]
pub struct PortSettings {
    /// Its name in metrics and logs.
    pub name: &'static str,
    /// Connections in all.
    pub connections_max: usize,
    /// Unauthenticated connections; beyond, the oldest one is closed.
    pub strangers_max: usize,
    /// A connection must authenticate within this time, or is closed.
    pub stranger_time_max: Duration,
    /// Whether authenticated connections are never closed for new ones. Otherwise all count as
    /// unauthenticated.
    pub known_stay: bool,
    /// Deadlines of HTTP/1.1.
    pub times: Times,
    /// HTTP/1.1 only, if there are none.
    pub http2: Option<Http2>,
    /// Connections are plain, if there is none.
    pub tls: Option<PortTls>,
    /// Called for every refused request.
    pub refused: Arc<dyn Fn(&TurnedAway<'_>) + Send + Sync>,
}

/// A request that was refused.
#[derive(Debug)]
pub struct TurnedAway<'a> {
    /// Why, from a closed set.
    pub reason: &'static str,
    /// The same for people.
    pub sentence: &'a str,
    /// The peer's address.
    pub address: Option<SocketAddr>,
    /// The path.
    pub path: &'a str,
    /// Of a request, which may say who sends it; none of a connection on which no request has come.
    pub headers: Option<&'a HeaderMap>,
}

/// Settings of HTTP/2; windows are the library's if none are given.
#[derive(Debug, Clone, Copy)]
pub struct Http2 {
    /// Unread bytes that one stream may have in flight.
    pub stream_window_bytes: Option<u32>,
    /// Unread bytes that one connection may have in flight.
    pub connection_window_bytes: Option<u32>,
    /// A silent connection is pinged after this.
    pub keep_alive_interval: Duration,
    /// How long it may take to answer.
    pub keep_alive_timeout: Duration,
}

/// Serves until `stop`; requests in progress may then end within half a second.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    check: Check,
    settings: PortSettings,
    stop: CancellationToken,
) {
    let table = Arc::new(ConnectionTable::new(&settings));
    let server = Arc::new(Server { spoken: spoken(settings.http2), router, check, settings });
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, port = server.settings.name, "accept failed; trying again in 100 ms");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let crowded = table.is_crowded();
        let Some(place) = table.enter() else { continue };
        let serving = Arc::clone(&server).connection(stream, place, stop.clone());
        connections.spawn(async {
            let _ = broadgate_tasks::contain("connection of a port", serving).await;
        });
        if crowded {
            // Evicted connections free their file descriptors first.
            tokio::task::yield_now().await;
        }
    }
    drop(listener);
    connections.close();
    let _ = tokio::time::timeout(STOP_TIME_MAX, connections.wait()).await;
}

/// What a port speaks. `auto::Builder::http1_only` does not hold for connections that may be upgraded.
enum Spoken {
    Http1(http1::Builder),
    Both(auto::Builder<TokioExecutor>),
}

fn spoken(http2: Option<Http2>) -> Spoken {
    let Some(http2) = http2 else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(HANDSHAKE_BYTES_MAX)
            .half_close(false);
        return Spoken::Http1(builder);
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // The watch's deadlines take the place of hyper's.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(HANDSHAKE_BYTES_MAX)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(http2.stream_window_bytes)
        .initial_connection_window_size(http2.connection_window_bytes)
        .keep_alive_interval(http2.keep_alive_interval)
        .keep_alive_timeout(http2.keep_alive_timeout);
    Spoken::Both(builder)
}

struct Server {
    spoken: Spoken,
    router: Router,
    check: Check,
    settings: PortSettings,
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, place: ConnectionSlot, stop: CancellationToken) {
        tune(&stream, TCP_KEEP_ALIVE);
        let watch = ConnectionWatch::new(self.settings.times);
        watch.end_within(self.settings.stranger_time_max);
        let info = stream.connect_info();
        match self.settings.tls.clone() {
            None => self.http(stream, &info, watch, place, stop).await,
            // In a box: the room of a handshake is not needed by plain connections.
            Some(tls) => Box::pin(self.secured(stream, tls, info, watch, place, stop)).await,
        }
    }

    /// A connection whose first exchange is the handshake of TLS, within the time for the first request's
    /// head.
    async fn secured(
        self: Arc<Self>,
        stream: TcpStream,
        tls: PortTls,
        info: TcpConnectInfo,
        watch: Arc<ConnectionWatch>,
        place: ConnectionSlot,
        stop: CancellationToken,
    ) {
        let handshake = handshake::accept(stream, &tls, &watch);
        let done = tokio::select! {
            biased;
            done = handshake => done,
            () = place.put_out.cancelled() => return self.closed("crowded"),
            () = watch.overdue() => return self.closed(watch.reason()),
            () = stop.cancelled() => return,
        };
        match done {
            Ok(stream) => self.http(stream, &info, watch, place, stop).await,
            Err(None) => {}
            Err(Some(failed)) => self.refuse(failed.reason, &failed.sentence, &info),
        }
    }

    fn refuse(&self, reason: &'static str, sentence: &str, info: &TcpConnectInfo) {
        (self.settings.refused)(&TurnedAway {
            reason,
            sentence,
            address: info.remote_addr(),
            path: "",
            headers: None,
        });
    }

    async fn http<S>(
        self: Arc<Self>,
        stream: S,
        info: &TcpConnectInfo,
        watch: Arc<ConnectionWatch>,
        place: ConnectionSlot,
        stop: CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let place = Arc::new(place);
        let service = service_fn(|request| {
            let (server, watch, place) = (Arc::clone(&self), Arc::clone(&watch), Arc::clone(&place));
            server.request(request, info.clone(), watch, place)
        });
        let io = TokioIo::new(Guarded::new(stream, Arc::clone(&watch)));
        // A router may answer with another protocol: the stream is then its own, and the watch has ended.
        let quit = Notify::new();
        let serving = async {
            match &self.spoken {
                Spoken::Http1(builder) => {
                    let mut serving = pin!(builder.serve_connection(io, service).with_upgrades());
                    tokio::select! {
                        served = serving.as_mut() => return served.map_err(Into::into),
                        () = quit.notified() => serving.as_mut().graceful_shutdown(),
                    }
                    serving.await.map_err(Into::into)
                }
                Spoken::Both(builder) => {
                    let mut serving = pin!(builder.serve_connection_with_upgrades(io, service));
                    tokio::select! {
                        served = serving.as_mut() => return served,
                        () = quit.notified() => serving.as_mut().graceful_shutdown(),
                    }
                    serving.await
                }
            }
        };
        let mut serving = pin!(serving);
        let mut overdue = watch.overdue();
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                served = serving.as_mut() => {
                    if let Err(error) = served {
                        if self.settings.tls.is_none() && watch.began_with(handshake::RECORD) {
                            let (reason, sentence) = handshake::NOT_HERE;
                            self.refuse(reason, sentence, info);
                        }
                        tracing::debug!(%error, port = self.settings.name, "a connection broke");
                    }
                    return;
                }
                () = place.put_out.cancelled() => return self.closed("crowded"),
                () = &mut overdue => {
                    if !matches!(watch.phase(), ConnectionPhase::Idle | ConnectionPhase::Closing) {
                        self.closed(watch.reason());
                    }
                    return;
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    quit.notify_one();
                    watch.end_within(STOP_TIME_MAX);
                }
            }
        }
    }

    async fn request(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        info: TcpConnectInfo,
        watch: Arc<ConnectionWatch>,
        place: Arc<ConnectionSlot>,
    ) -> Result<Response<Body>, Infallible> {
        let http2 = request.version() == Version::HTTP_2;
        if !http2 {
            watch.serving();
        }
        let response = match self.check.check(&mut request, info.remote_addr()) {
            Ok(()) => {
                watch.may_live();
                if http2 {
                    watch.multiplexed();
                }
                if self.settings.known_stay {
                    place.is_known();
                }
                request.extensions_mut().insert(info);
                self.router.clone().oneshot(request).await?
            }
            Err(refusal) => {
                (self.settings.refused)(&TurnedAway {
                    reason: refusal.reason,
                    sentence: &refusal.sentence,
                    address: info.remote_addr(),
                    path: request.uri().path(),
                    headers: Some(request.headers()),
                });
                let mut response = refusal.into_response(&request);
                if !http2 {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                response
            }
        };
        if !http2 {
            watch.answering();
        }
        Ok(response)
    }

    fn closed(&self, reason: &'static str) {
        closed(self.settings.name, reason);
    }
}

fn closed(port: &'static str, reason: &'static str) {
    counter!("broadgate_port_closed_total", "port" => port, "reason" => reason).increment(1);
}

/// The connections of a port.
struct ConnectionTable {
    name: &'static str,
    connections_max: usize,
    strangers_max: usize,
    slots: Mutex<ConnectionSlots>,
}

#[derive(Default)]
struct ConnectionSlots {
    next: u64,
    known: usize,
    /// In order of accept.
    strangers: BTreeMap<u64, CancellationToken>,
}

/// A connection's place in the table, released on drop.
struct ConnectionSlot {
    table: Arc<ConnectionTable>,
    number: u64,
    put_out: CancellationToken,
    known: Mutex<bool>,
}

impl ConnectionTable {
    fn new(settings: &PortSettings) -> Self {
        for reason in ["crowded", "connections_max"] {
            // Registered before the first one, for alerts.
            counter!("broadgate_port_closed_total", "port" => settings.name, "reason" => reason).increment(0);
        }
        Self {
            name: settings.name,
            connections_max: settings.connections_max,
            strangers_max: settings.strangers_max,
            slots: Mutex::default(),
        }
    }

    fn slots(&self) -> MutexGuard<'_, ConnectionSlots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self, slots: &ConnectionSlots) -> bool {
        slots.strangers.len() >= self.strangers_max
            || slots.strangers.len() + slots.known >= self.connections_max
    }

    fn is_crowded(&self) -> bool {
        self.is_full(&self.slots())
    }

    /// A place for a new connection. A full port evicts the oldest unauthenticated connection: authorized
    /// callers authenticate at once, so a flood evicts only itself. None if all are authenticated.
    fn enter(self: &Arc<Self>) -> Option<ConnectionSlot> {
        let mut slots = self.slots();
        if self.is_full(&slots) {
            let Some((_, put_out)) = slots.strangers.pop_first() else {
                closed(self.name, "connections_max");
                return None;
            };
            put_out.cancel();
        }
        let number = slots.next;
        slots.next += 1;
        let put_out = CancellationToken::new();
        slots.strangers.insert(number, put_out.clone());
        Some(ConnectionSlot { table: Arc::clone(self), number, put_out, known: Mutex::new(false) })
    }
}

impl ConnectionSlot {
    fn is_known(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slots = self.table.slots();
        // An evicted connection is already closing.
        if !*known && slots.strangers.remove(&self.number).is_some() {
            slots.known += 1;
            *known = true;
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let known = *self.known.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut slots = self.table.slots();
        if known {
            slots.known -= 1;
        } else {
            slots.strangers.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(connections_max: usize, strangers_max: usize) -> Arc<ConnectionTable> {
        Arc::new(ConnectionTable { name: "test", connections_max, strangers_max, slots: Mutex::default() })
    }

    #[test]
    fn a_full_port_puts_out_the_stranger_that_came_first() {
        let table = table(3, 2);
        let first = table.enter().unwrap();
        first.is_known();
        let second = table.enter().unwrap();
        let third = table.enter().unwrap();
        let fourth = table.enter().unwrap();
        let put_out = [&first, &second, &third, &fourth].map(|place| place.put_out.is_cancelled());
        assert_eq!(put_out, [false, true, false, false]);
        second.is_known();
        fourth.is_known();
        third.is_known();
        assert!(table.enter().is_none(), "nobody who may call is put out");
        drop((first, second));
        let fifth = table.enter().unwrap();
        drop((third, fourth, fifth));
        let slots = table.slots();
        assert_eq!((slots.known, slots.strangers.len()), (0, 0));
    }
}
