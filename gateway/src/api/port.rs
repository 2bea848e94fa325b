//! Serving the internal port: HTTP/2 for gRPC and HTTP/1.1 for JSON on one listener.

use std::{sync::Arc, time::Duration};

use broadgate_proto::{
    limits::{GRPC_MESSAGE_BYTES_MAX, HANDSHAKE_TIME_MAX},
    secret::Secret,
    v1::{gateway_server::GatewayServer, peer_server::PeerServer, worker_server::WorkerServer},
};
use hyper::{
    body::Incoming,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use metrics::counter;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::{Routes, interceptor::InterceptedService};

use super::{CallerAddress, grpc::GatewayService, json};
use crate::{
    apps::Apps,
    commands::Dispatcher,
    observers::Observers,
    peers::PeerService,
    workers::{Attachments, WorkerService},
};

/// A host that went without a word is noticed after these two.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// What one stream, and one connection, may have under way to this gateway, unread. h2 ends a
/// connection whose unread small frames weigh more than half of the latter, 256 bytes each at most:
/// a stream that is not read for a while must meet its own limit first, also with frames of 30
/// bytes. It is held back then, not cut off.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const _: () = assert!(STREAM_WINDOW_BYTES / 30 * 256 < CONNECTION_WINDOW_BYTES / 2);

/// What the internal port serves.
pub(crate) struct Internal {
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) observers: Observers,
    pub(crate) attachments: Arc<Attachments>,
    pub(crate) secret: Secret,
    /// The host of the advertised address.
    pub(crate) host: String,
    pub(crate) apps: Apps,
}

/// Counts a caller without the right secret.
pub(super) fn secret_refused() {
    counter!("broadgate_gateway_refused_total", "reason" => "secret").increment(1);
}

/// Serves until `stop`; open streams then end with the process.
pub(crate) async fn serve(
    internal: Internal,
    listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let checker = internal.secret.checker(secret_refused);
    let gateway =
        GatewayService { dispatcher: Arc::clone(&internal.dispatcher), observers: internal.observers };
    let gateway = GatewayServer::new(gateway).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let peer = PeerServer::new(PeerService(Arc::clone(&internal.dispatcher)))
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let worker = WorkerServer::new(WorkerService(internal.attachments))
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let routes = Routes::new(InterceptedService::new(gateway, checker.clone()))
        .add_service(InterceptedService::new(peer, checker.clone()))
        .add_service(InterceptedService::new(worker, checker))
        .prepare();
    let json = json::router(internal.dispatcher, internal.secret, internal.host, internal.apps)?;
    let service = TowerToHyperService::new(routes.into_axum_router().merge(json));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIME_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let (stream, caller) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed on the internal port; trying again in 100 ms");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (builder, service, stop) = (builder.clone(), service.clone(), stop.clone());
        let service = service_fn(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(CallerAddress(caller));
            service.call(request)
        });
        tokio::spawn(async move {
            let mut first = [0];
            // A connection that says nothing is not kept.
            if tokio::time::timeout(HANDSHAKE_TIME_MAX, stream.peek(&mut first)).await.is_err() {
                return;
            }
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = stop.cancelled() => {}
                served = connection => {
                    if let Err(error) = served {
                        tracing::debug!(%error, "an internal connection broke");
                    }
                }
            }
        });
    }
}
