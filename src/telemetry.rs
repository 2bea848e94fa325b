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
use metrics_process::Collector;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::{
    config::{Config, LogFormat},
    environment,
    failure::Failure,
};

/// The crates whose log is Broadgate's own.
const OUR_TARGETS: [&str; 5] =
    ["broadgate", "broadgate_gateway", "broadgate_register", "broadgate_business", "broadgate_proto"];
/// Between two clean-ups of histograms.
const UPKEEP: Duration = Duration::from_secs(5);
/// Times of handlers and posts, in seconds.
const BUCKETS: [f64; 9] = [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 1.0, 10.0];

/// What is logged. BROADGATE_LOG comes before `[log] level`.
pub(crate) fn filter(config: &Config) -> Result<EnvFilter, Failure> {
    let level = environment::text("LOG")?.unwrap_or_else(|| config.log.level.clone());
    EnvFilter::builder().parse(directives(&level)).map_err(|error| {
        Failure::usage(format!("log level {level:?}: {error}; use info, or warn,broadgate_gateway=debug"))
    })
}

/// Starts logging.
pub(crate) fn start_logs(config: &Config) -> Result<(), Failure> {
    let filter = filter(config)?;
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

/// What EnvFilter is told for a level as operators write it: a bare level is meant for Broadgate. What it is
/// built from stays quiet at `warn`, unless it is named: `debug,h2=debug`.
fn directives(level: &str) -> String {
    let mut ours: Vec<String> = Vec::new();
    let mut named: Vec<&str> = Vec::new();
    for directive in level.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        match directive.parse::<LevelFilter>() {
            Ok(level) => {
                ours.push(level.min(LevelFilter::WARN).to_string());
                ours.extend(OUR_TARGETS.map(|target| format!("{target}={level}")));
            }
            Err(_) => named.push(directive),
        }
    }
    // Of two for the same target, the later one holds.
    ours.extend(named.into_iter().map(str::to_owned));
    ours.join(",")
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
    crate::help::describe(role);
    Collector::default().describe();
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
            .route(
                "/metrics",
                get(move || async move {
                    // The process's memory, CPU time and files are those of the moment.
                    Collector::default().collect();
                    handle.render()
                }),
            )
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
            refused: std::sync::Arc::new(|_| {}),
        };
        let stop = CancellationToken::new();
        tokio::spawn(broadgate_port::serve(listener, router, check, settings, stop));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_for_broadgate_alone() {
        let filter = |level: &str| EnvFilter::builder().parse(directives(level)).unwrap().to_string();
        let shown = filter("debug");
        assert!(shown.contains("broadgate_gateway=debug") && shown.contains("broadgate=debug"), "{shown}");
        assert!(shown.split(',').any(|directive| directive == "warn"), "h2 and others: {shown}");
        assert!(
            filter("error").split(',').any(|directive| directive == "error"),
            "never more than asked for"
        );
        let asked = filter("info,h2=debug,broadgate_gateway=trace");
        assert!(asked.contains("h2=debug") && asked.contains("broadgate_gateway=trace"), "{asked}");
        assert!(!asked.contains("broadgate_gateway=info"), "{asked}");
        assert_eq!(directives("broadgate_gateway=debug"), "broadgate_gateway=debug");
        assert!(EnvFilter::builder().parse(directives("nonsense=loud")).is_err());
    }
}
