//! The register: a pure state machine behind a thin gRPC service.
//!
//! | file | what |
//! |---|---|
//! | `core.rs` | pure: members, leases, epochs, take-over |
//! | `step.rs` | what goes into the core and what comes out |
//! | `history.rs` | what the core remembers: the removed, its terms, the view taken over |
//! | `check.rs` | what a Hello must be like |
//! | `hub.rs` | the one task that owns the core and every stream's outgoing end |
//! | `grpc.rs` | calls to requests |
//! | `report.rs` | logs and metrics |

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use broadgate_port::{Book, Check, Http2, Settings, Times, TurnedAway};
use broadgate_proto::{limits, secret::Secret, v1::register_server::RegisterServer};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

mod check;
mod core;
mod grpc;
mod history;
mod hub;
mod report;
#[allow(missing_docs, reason = "the variants say what their fields are; only simulations see them")]
mod step;

pub use history::REMOVED_MAX;

/// The state machine, for simulations of whole clusters.
#[doc(hidden)]
pub mod simulation {
    pub use super::{
        check::Origin,
        core::Core,
        step::{Answer, ConnectionId, Effect, Happened, Input, Now, Reason, Refusal},
    };
}

/// After an idle connection has said nothing for this long it is asked whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How long it may take to answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// What it says of itself to those who look for something else there.
const PORT: &str = "this is the register's port, which speaks gRPC with members and operators";

/// How a register treats its members.
#[derive(Debug, Clone)]
pub struct Config {
    /// The secret of the cluster.
    pub secret: Secret,
    /// How often a member beats; default [`limits::BEAT`].
    pub beat: Duration,
    /// Silence after which a member is removed; default [`limits::LEASE`].
    pub lease: Duration,
    /// Connections; default [`limits::REGISTER_CONNECTIONS_MAX`].
    pub connections_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            secret: Secret::default(),
            beat: limits::BEAT,
            lease: limits::LEASE,
            connections_max: limits::REGISTER_CONNECTIONS_MAX,
        }
    }
}

impl Config {
    /// Relations between settings that their types cannot say.
    ///
    /// # Errors
    /// If a lease is shorter than four beats.
    pub fn check(&self) -> anyhow::Result<()> {
        let (beat, lease) = (self.beat, self.lease);
        anyhow::ensure!(!beat.is_zero(), "register.beat must be longer than 0s");
        anyhow::ensure!(
            lease >= beat.saturating_mul(4),
            "register.lease, {lease:?}, is shorter than four beats of {beat:?}: a late beat would remove a member"
        );
        Ok(())
    }
}

/// Serves members, watchers and operators until `shutdown`; then ends every stream and returns
/// within half a second.
///
/// # Errors
/// If a lease is shorter than four beats, or if serving fails.
pub async fn run(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    config.check()?;
    let connections_max = config.connections_max;
    let (hub, requests) = mpsc::channel(hub::REQUESTS_MAX);
    let server = RegisterServer::new(grpc::Service { hub })
        .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX);
    let check = Check::internal(config.secret.clone(), None);
    let stop = CancellationToken::new();
    // Ends the hub also when this future is dropped.
    let _stop_guard = stop.clone().drop_guard();
    let served_until = CancellationToken::new();
    let _served_guard = served_until.clone().drop_guard();
    let owner = tokio::spawn(hub::run(config, requests, stop.clone().cancelled_owned()));

    let settings = Settings {
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
        refused: Arc::new(refused),
    };
    let router = broadgate_port::or_nothing(Routes::new(server).prepare().into_axum_router(), PORT);
    let serving = broadgate_port::serve(listener, router, check, settings, served_until.clone());
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => anyhow::bail!("the register's port is no longer served"),
        () = tell_left_out() => {}
        () = shutdown => stop.cancel(),
    }
    // Ends every stream, before their connections.
    let _ = owner.await;
    served_until.cancel();
    serving.await;
    Ok(())
}

/// What the log has of requests that were refused.
static REFUSALS: Mutex<Book> = Mutex::new(Book::new());

fn refused(request: &TurnedAway<'_>) {
    let &TurnedAway { reason, sentence: why, address, path } = request;
    metrics::counter!("broadgate_register_refused_total", "reason" => reason).increment(1);
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

/// How many refusals of the last minute have no line, for ever.
async fn tell_left_out() {
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
