//! Logs to stderr, metrics and probes over HTTP.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, http::StatusCode, routing::get};
use broadgate_port::{Check, Settings, Times};
use broadgate_proto::{
    VERSION,
    limits::{HANDSHAKE_TIME_MAX, METRICS_CONNECTIONS_MAX},
};
use metrics::gauge;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Config, LogFormat},
    environment,
    failure::Failure,
};

/// Between two clean-ups of histograms.
const UPKEEP: Duration = Duration::from_secs(5);
/// Times of handlers and posts, in seconds.
const BUCKETS: [f64; 9] = [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 1.0, 10.0];

/// Starts logging. BROADGATE_LOG comes before `[log] level`.
pub(crate) fn start_logs(config: &Config) -> Result<(), Failure> {
    let level = environment::text("LOG")?.unwrap_or_else(|| config.log.level.clone());
    let filter = EnvFilter::builder().parse(&level).map_err(|error| {
        Failure::usage(format!("log level {level:?}: {error}; use info, or warn,broadgate_gateway=debug"))
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would tell them on standard error, and panic there: nobody reads it any more.
        .log_internal_errors(false);
    match config.log.format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// A metrics port that is open and not served yet.
pub(crate) struct Probes {
    listener: Option<TcpListener>,
    handle: PrometheusHandle,
}

/// Is the role ready? Else a sentence that says why not.
pub(crate) type Ready = Arc<dyn Fn() -> Result<(), &'static str> + Send + Sync>;

/// Opens the metrics port of a role and installs the recorder. Before anything else of the role, so
/// that no counter is made without it.
pub(crate) async fn open(role: &'static str, bind: Option<SocketAddr>) -> Result<Probes, Failure> {
    let listener = match bind {
        None => None,
        Some(bind) => Some(TcpListener::bind(bind).await.map_err(|error| {
            Failure::usage(format!(
                "metrics.bind: cannot listen on {bind}: {error}; choose another port or address"
            ))
        })?),
    };
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| Failure::Failed(format!("metrics could not start: {error}")))?;
    crate::help::describe();
    gauge!("broadgate_build_info", "version" => VERSION, "role" => role).set(1.0);
    Ok(Probes { listener, handle })
}

impl Probes {
    /// Serves for as long as the process lives.
    pub(crate) fn serve(self, ready: Ready) {
        let handle = self.handle.clone();
        tokio::spawn(async move {
            let mut upkeep = tokio::time::interval(UPKEEP);
            loop {
                upkeep.tick().await;
                handle.run_upkeep();
            }
        });
        let Some(listener) = self.listener else { return };
        let address = match listener.local_addr() {
            Ok(address) => address,
            Err(error) => return tracing::error!(%error, "the metrics port has no address"),
        };
        tracing::info!(%address, "metrics and probes");
        let check = Check::probes(address);
        let handle = self.handle;
        let router = Router::new()
            .route("/metrics", get(move || async move { handle.render() }))
            .route("/healthz", get(|| async { "ok\n" }))
            .route(
                "/readyz",
                get(move || async move {
                    match ready() {
                        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
                        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
                    }
                }),
            );
        let settings = Settings {
            name: "metrics",
            connections_max: METRICS_CONNECTIONS_MAX,
            strangers_max: METRICS_CONNECTIONS_MAX,
            stranger_time_max: HANDSHAKE_TIME_MAX,
            // There is no secret by which anybody could be known.
            known_stay: false,
            times: Times::default(),
            http2: None,
            refused: |_| {},
        };
        let stop = CancellationToken::new();
        tokio::spawn(broadgate_port::serve(listener, router, check, settings, stop));
    }
}
