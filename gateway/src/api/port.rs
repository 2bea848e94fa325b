//! Serving the internal port: HTTP/2 for gRPC and HTTP/1.1 for JSON on one listener.

use std::{sync::Arc, time::Duration};

use broadgate_port::{Check, Http2, PortSettings, Times, TurnedAway};
use broadgate_proto::{
    limits::{
        GRPC_MESSAGE_BYTES_HIGHEST, GRPC_MESSAGE_BYTES_MAX, HANDSHAKE_TIME_MAX, INTERNAL_STRANGERS_MAX,
        PEER_MESSAGE_BYTES_MAX,
    },
    v1::{
        admin_server::AdminServer, gateway_server::GatewayServer, observe_server::ObserveServer,
        peer_server::PeerServer, worker_server::WorkerServer,
    },
};
use broadgate_tls::Credentials;
use metrics::counter;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    api::{
        admin::AdminService, denials, grpc::GatewayService, json, observe::ObserveService, peer::PeerService,
    },
    audit::fit,
    callers::{RefusedToken, TokenCheck, Tokens},
    dispatch::Dispatcher,
    observers::Observers,
    refusals::{RefusalContext, Refusals},
    workers::{Attachments, WorkerService},
};

/// A dead host is detected after these two.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// What one stream, and one connection, may have in flight to this gateway, unread. h2 closes a connection
/// whose unread small frames weigh more than half of the latter, 256 bytes each at most: a stream that is not
/// read for a while must meet its own limit first, also with frames of 30 bytes. Then it is held back, not
/// closed.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const _: () = assert!(STREAM_WINDOW_BYTES / 30 * 256 < CONNECTION_WINDOW_BYTES / 2);

/// The services of the internal port.
pub(crate) struct InternalServices {
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) observers: Observers,
    pub(crate) attachments: Arc<Attachments>,
    pub(crate) credentials: Credentials,
    /// The most bytes of one command, its payload and the names in it.
    pub(crate) command_bytes_max: usize,
    /// And as JSON.
    pub(crate) json_bytes_max: usize,
    /// The host of the advertised address.
    pub(crate) host: String,
    /// As many as there are file descriptors for.
    pub(crate) connections_max: usize,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) tokens: Tokens,
}

/// Counts and logs a refused request.
fn refused(refusals: &Refusals, request: &TurnedAway<'_>) {
    let &TurnedAway { reason, sentence: why, address, path, .. } = request;
    counter!("broadgate_gateway_refused_total", "reason" => reason).increment(1);
    RefusalContext { reason, why, address, path, ..RefusalContext::default() }.log(refusals);
}

/// Who may call: processes with the secret, and operators with tokens.
fn check(dispatcher: &Arc<Dispatcher>, tokens: Tokens, credentials: Credentials, host: String) -> Check {
    let dispatcher = Arc::downgrade(dispatcher);
    let refused = Box::new(move |refused: RefusedToken<'_>| {
        if let Some(dispatcher) = dispatcher.upgrade() {
            let RefusedToken { caller, path, reason, why } = refused;
            denials::write(&dispatcher, &caller, reason, why, json!({ "path": fit(path) }));
        }
    });
    Check::internal(credentials, Some(host)).admitting(Arc::new(TokenCheck { tokens, refused }))
}

/// Serves until `stop`; open streams then end with the process.
pub(crate) async fn serve(
    internal: InternalServices,
    listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let check = check(&internal.dispatcher, internal.tokens, internal.credentials.clone(), internal.host);
    let observe = ObserveService {
        dispatcher: Arc::clone(&internal.dispatcher),
        taps: internal.observers.taps.clone(),
        credentials: internal.credentials.clone(),
    };
    let gateway = GatewayService {
        dispatcher: Arc::clone(&internal.dispatcher),
        observers: internal.observers,
        command_bytes_max: internal.command_bytes_max,
    };
    let gateway = GatewayServer::new(gateway).max_decoding_message_size(GRPC_MESSAGE_BYTES_HIGHEST);
    let peer = PeerServer::new(PeerService(Arc::clone(&internal.dispatcher)))
        .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
    let worker = WorkerServer::new(WorkerService(internal.attachments))
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let observe = ObserveServer::new(observe).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let admin = AdminServer::new(AdminService {
        dispatcher: Arc::clone(&internal.dispatcher),
        credentials: internal.credentials.clone(),
    });
    let routes = Routes::new(gateway).add_service(observe).add_service(admin);
    let routes = routes.add_service(peer).add_service(worker).prepare();
    let router = routes
        .into_axum_router()
        .merge(json::router(internal.dispatcher, Arc::clone(&internal.refusals), internal.json_bytes_max)?)
        .fallback(json::nothing_here);
    let refusals = internal.refusals;
    let settings = PortSettings {
        name: "internal",
        connections_max: internal.connections_max,
        strangers_max: INTERNAL_STRANGERS_MAX.min(internal.connections_max / 2),
        stranger_time_max: HANDSHAKE_TIME_MAX,
        known_stay: true,
        times: Times::default(),
        http2: Some(Http2 {
            stream_window_bytes: Some(STREAM_WINDOW_BYTES),
            connection_window_bytes: Some(CONNECTION_WINDOW_BYTES),
            keep_alive_interval: KEEP_ALIVE_INTERVAL,
            keep_alive_timeout: KEEP_ALIVE_TIMEOUT,
        }),
        tls: internal.credentials.tls.clone().map(Into::into),
        refused: Arc::new(move |request| refused(&refusals, request)),
    };
    broadgate_port::serve(listener, router, check, settings, stop).await;
    Ok(())
}
