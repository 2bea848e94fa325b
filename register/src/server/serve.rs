//! A register from its port to its stop: starts the tasks, watches them, and ends them in order.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use broadgate_port::{Book, Check, Http2, PortSettings, Times, TurnedAway};
use broadgate_proto::{limits, secret::MEMBER_HEADER, v1::register_server::RegisterServer};
use broadgate_tasks::Tasks;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::{
    config::{Config, Ledger},
    grpc, hub, ledger,
    refused::{ClaimedMember, RefusedLately},
};

/// After an idle connection has said nothing for this long it is asked whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How long it may take to answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// What it says of itself to those who look for something else there.
const PORT: &str = "this is the register's port, which speaks gRPC with members and operators";
/// The call by which members join.
const JOIN_PATH: &str = "/broadgate.v1.Register/Join";
/// From the end of every stream to the end of every task.
const END_TIME_MAX: Duration = Duration::from_secs(2);

/// Serves members, watchers and operators until `shutdown`; then ends every stream and returns
/// within half a second.
///
/// # Errors
/// If a lease is shorter than four beats, or if a task of the register ends before `shutdown`.
pub async fn run(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    config.check()?;
    let connections_max = config.connections_max;
    let (hub, requests) = mpsc::channel(hub::REQUESTS_MAX);
    let refused_lately = Arc::new(Mutex::new(RefusedLately::new()));
    let server = RegisterServer::new(grpc::Service { hub, shown: config.credentials.shown() })
        .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX);
    let tls = config.credentials.tls.clone();
    let check = Check::internal(config.credentials.clone(), None);
    let (stop, owner_ended, served_until) =
        <(CancellationToken, CancellationToken, CancellationToken)>::default();
    let mut tasks = Tasks::default();
    let to_ledger = match config.ledger.clone() {
        Ledger::Memory => None,
        Ledger::Etcd(etcd) => {
            let bind = listener.local_addr()?;
            let (ledger_replies, replies) = mpsc::channel(ledger::ORDERS_MAX);
            let (orders, ordered) = mpsc::channel(ledger::ORDERS_MAX);
            if let Some(tls) = etcd.settings.tls.clone() {
                let stop = stop.clone();
                tasks.spawn("etcd certificates", async move {
                    tokio::select! {
                        never = tls.watch() => match never {},
                        () = stop.cancelled() => {}
                    }
                });
            }
            tasks.spawn("ledger", ledger::run(etcd, bind, ledger_replies, ordered, stop.clone()));
            Some(hub::ToLedger { orders, replies })
        }
    };
    let started = Instant::now();
    let kept = Arc::clone(&refused_lately);
    let owner = hub::run(config, to_ledger, (requests, kept), started, stop.clone().cancelled_owned());
    let ended = owner_ended.clone().drop_guard();
    tasks.spawn("members", async move {
        let _ended = ended;
        owner.await;
    });

    let settings = PortSettings {
        name: "register",
        connections_max,
        strangers_max: limits::INTERNAL_STRANGERS_MAX.min(connections_max / 2),
        stranger_time_max: limits::HANDSHAKE_TIME_MAX,
        known_stay: true,
        times: Times::default(),
        http2: Some(Http2 {
            stream_window_bytes: None,
            connection_window_bytes: None,
            keep_alive_interval: KEEPALIVE,
            keep_alive_timeout: KEEPALIVE_TIMEOUT,
        }),
        tls: tls.map(Into::into),
        refused: Arc::new(move |request: &TurnedAway<'_>| refused(request, &refused_lately, started)),
    };
    let router = broadgate_port::or_nothing(Routes::new(server).prepare().into_axum_router(), PORT);
    let serving = broadgate_port::serve(listener, router, check, settings, served_until.clone());
    tasks.spawn("register port", serving);
    let logging = served_until.clone().run_until_cancelled_owned(log_left_out());
    tasks.spawn("refusals", async { logging.await.unwrap_or_default() });
    let ended = tokio::select! {
        () = shutdown => Ok(()),
        failed = tasks.failed() => Err(failed.context("the register exits, to be restarted")),
    };
    stop.cancel();
    // Every stream ends before its connection does.
    owner_ended.cancelled().await;
    served_until.cancel();
    if let (Ok(()), Err(late)) = (&ended, tasks.join(END_TIME_MAX).await) {
        tracing::warn!(?late, "aborting tasks that did not end in time");
    }
    ended
}

/// What the log has of requests that were refused.
static REFUSALS: Mutex<Book> = Mutex::new(Book::new());

fn refused(request: &TurnedAway<'_>, lately: &Mutex<RefusedLately>, started: Instant) {
    let &TurnedAway { reason, sentence: why, address, path, headers } = request;
    metrics::counter!("broadgate_register_refused_total", "reason" => reason).increment(1);
    // Nobody waits for another one's note, either.
    if path == JOIN_PATH
        && let Ok(mut lately) = lately.try_lock()
    {
        let said = headers.and_then(|headers| headers.get(MEMBER_HEADER)?.to_str().ok()).unwrap_or_default();
        let from = address.map(|address| address.ip().to_canonical().to_string()).unwrap_or_default();
        lately.note(ClaimedMember::stranger(said, from), reason, why, hub::now(started));
    }
    let path = &path[..path.floor_char_boundary(limits::REFUSAL_FIELD_BYTES_MAX)];
    let why = &why[..why.floor_char_boundary(limits::REFUSAL_FIELD_BYTES_MAX)];
    let address = address.map(tracing::field::display);
    // Nobody waits for another one's line.
    if REFUSALS.try_lock().is_ok_and(|mut book| book.take(reason, Instant::now())) {
        tracing::info!(reason, why, address, path, "refused");
    } else {
        tracing::debug!(reason, why, address, path, "refused");
    }
}

/// Logs the number of refusals of the last minute that have no line, for ever.
async fn log_left_out() {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        let _ = second.tick().await;
        let Ok(left_out) = REFUSALS.try_lock().map(|mut book| book.left_out(Instant::now())) else {
            continue;
        };
        for (reason, refusals) in left_out {
            tracing::info!(reason, refusals, "more was refused for this reason within a minute");
        }
    }
}
