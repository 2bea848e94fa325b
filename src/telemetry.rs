//! Logs to stderr, metrics and probes over HTTP.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, http::StatusCode, routing::get};
use broadgate_port::{Book, Check, PortSettings, Times, TurnedAway};
use broadgate_proto::{
    VERSION,
    limits::{HANDSHAKE_TIME_MAX, METRICS_CONNECTIONS_MAX},
    secret::Secret,
};
use broadgate_tls::{ClusterTls, Credentials};
use metrics::{counter, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::{
    config::{Config, LogFormat},
    environment,
    failure::Failure,
    role_tasks::RoleTasks,
    service_manager::{Ready, ServiceManager},
    terminal_text,
};

/// The crates whose log is Broadgate's own, and the targets of the audit and of traces.
const OUR_TARGETS: [&str; 8] = [
    "audit",
    "trace",
    "broadgate",
    "broadgate_gateway",
    "broadgate_register",
    "broadgate_business",
    "broadgate_proto",
    "broadgate_tls",
];
/// All that has a name of ours in a log.
const TARGETS: [&str; 13] = [
    "broadgate",
    "broadgate_bench",
    "broadgate_business",
    "broadgate_gateway",
    "broadgate_port",
    "broadgate_proto",
    "broadgate_pusher",
    "broadgate_socketio",
    "broadgate_register",
    "broadgate_etcd",
    "broadgate_tasks",
    "broadgate_tls",
    "broadgate_topics",
];
/// Between two clean-ups of histograms.
const UPKEEP: Duration = Duration::from_secs(5);
/// Times of handlers and posts, in seconds.
const BUCKETS: [f64; 9] = [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 1.0, 10.0];

/// What is logged. BROADGATE_LOG comes before `[log] level`.
pub(crate) fn filter(config: &Config) -> Result<EnvFilter, Failure> {
    let (place, level) = match environment::text("LOG")? {
        Some(level) => ("environment variable BROADGATE_LOG", level),
        None => ("log.level", config.log.level.clone()),
    };
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::usage(format!(
            "{place}: log level {level:?}: {error}: a level is off, error, warn, info, debug or trace; for one \
             part write its name and its level, as in warn,broadgate_gateway=debug"
        ))
    };
    EnvFilter::builder()
        .parse(directives(&level).map_err(|error| wrong(&error))?)
        .map_err(|error| wrong(&error))
}

/// Starts logging.
pub(crate) fn start_logs(config: &Config) -> Result<(), Failure> {
    let filter = filter(config)?;
    let format = config.log.format;
    let has_colours = format == LogFormat::Text && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || LogWriter { format, has_colours })
        // It would tell them on standard error, and panic there: nobody reads it any more.
        .log_internal_errors(false);
    match format {
        LogFormat::Text => builder.with_ansi(has_colours).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// Writes events to standard error, as a terminal may show them: fields are texts of strangers.
struct LogWriter {
    format: LogFormat,
    has_colours: bool,
}

impl std::io::Write for LogWriter {
    /// The library writes an event at once.
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let safe = match self.format {
            LogFormat::Text => terminal_text::log_line(&text, self.has_colours),
            LogFormat::Json => terminal_text::json(&text).into_owned(),
        };
        std::io::Write::write_all(&mut std::io::stderr(), safe.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Libraries that warn of each connection that sends something odd, without a limit and in full. What matters of
/// it Broadgate counts and logs itself.
const STRANGERS_WARN: [&str; 1] = ["rustls"];

/// The EnvFilter directives of a level as operators write it. A bare level applies to Broadgate; its libraries
/// stay at `warn` unless they are named, as in `debug,h2=debug`.
///
/// EnvFilter reads a word that is not a level as the name of a target, and logs nothing else: a mistyped level
/// would silence the process.
fn directives(level: &str) -> Result<String, String> {
    let mut ours: Vec<String> = Vec::new();
    let mut named: Vec<&str> = Vec::new();
    for directive in level.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        if let Some(level) = as_level(directive) {
            ours.push(level.min(LevelFilter::WARN).to_string());
            ours.extend(STRANGERS_WARN.map(|target| format!("{target}={}", level.min(LevelFilter::ERROR))));
            ours.extend(OUR_TARGETS.map(|target| format!("{target}={level}")));
            continue;
        }
        let (target, level) =
            directive.rsplit_once('=').ok_or_else(|| format!("{directive:?} is not a level"))?;
        as_level(level).ok_or_else(|| format!("{level:?} is not a level"))?;
        check_target(target)?;
        named.push(directive);
    }
    if ours.is_empty() && named.is_empty() {
        return Err("it is empty".to_owned());
    }
    // Of two for the same target, the later one holds.
    ours.extend(named.into_iter().map(str::to_owned));
    Ok(ours.join(","))
}

/// Also as a number; an empty text is one for the library.
fn as_level(text: &str) -> Option<LevelFilter> {
    text.parse().ok().filter(|_| !text.is_empty())
}

/// Refuses a misspelt name of ours. A target is meant for all whose names begin so.
fn check_target(target: &str) -> Result<(), String> {
    let name = target.split(['[', ':']).next().unwrap_or_default();
    if name.is_empty() && !target.starts_with('[') {
        return Err("before the = stands no name".to_owned());
    }
    if name.starts_with("broadgate") && !TARGETS.iter().any(|target| target.starts_with(name)) {
        return Err(format!("{name:?} is none of {}", TARGETS.join(", ")));
    }
    Ok(())
}

/// A metrics port that is open and not served yet.
pub(crate) struct Probes {
    role: &'static str,
    listener: Option<TcpListener>,
    tls: Option<ClusterTls>,
    handle: PrometheusHandle,
}

/// Opens the metrics port of a role and installs the recorder. Before anything else of the role, so
/// that no counter is made without it.
pub(crate) async fn open(
    role: &'static str,
    config: &Config,
    tls: Option<&ClusterTls>,
) -> Result<Probes, Failure> {
    let tls = config.metrics_tls(tls)?;
    let listener = match config.metrics.bind {
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
    Ok(Probes { role, listener, tls, handle })
}

impl Probes {
    /// Serves until the role has ended, and then gives the port back. Reports to the service manager as well, to
    /// which a role is stopping when `stopping` is cancelled.
    pub(crate) fn serve(self, ready: Ready, stopping: CancellationToken, watched: &mut RoleTasks) {
        let manager =
            ServiceManager { role: self.role, ready: ready.clone(), stopping, metrics: self.handle.clone() };
        watched.spawn_ending("service manager", manager.run(watched.end()));
        let handle = self.handle.clone();
        watched.spawn("metrics upkeep", async move {
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
        let check = match self.tls.clone() {
            None => Check::probes(address),
            // The certificate says who calls.
            tls => Check::internal(Credentials { secret: Secret::default(), tls }, None),
        };
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
        let router = router.fallback(|| async {
            (StatusCode::NOT_FOUND, "nothing is here: /metrics, /healthz and /readyz are\n")
        });
        let settings = PortSettings {
            name: "metrics",
            connections_max: METRICS_CONNECTIONS_MAX,
            strangers_max: METRICS_CONNECTIONS_MAX,
            stranger_time_max: HANDSHAKE_TIME_MAX,
            // There is no secret by which anybody could be known.
            known_stay: false,
            times: Times::default(),
            http2: None,
            tls: self.tls.map(Into::into),
            refused: Arc::new(refused),
        };
        let serving = broadgate_port::serve(listener, router, check, settings, watched.end());
        watched.spawn_ending("metrics port", serving);
    }
}

/// Which refusals of the metrics port have a line in the log: a scraper that is refused comes again and again.
static REFUSALS: Mutex<Book> = Mutex::new(Book::new());

fn refused(request: &TurnedAway<'_>) {
    let &TurnedAway { reason, sentence: why, address, .. } = request;
    counter!("broadgate_port_closed_total", "port" => "metrics", "reason" => reason).increment(1);
    // Nobody waits for another one's line.
    let Ok(mut book) = REFUSALS.try_lock() else { return };
    for (reason, refusals) in book.left_out(Instant::now()) {
        tracing::info!(reason, refusals, "the metrics port refused more for this reason within a minute");
    }
    if book.take(reason, Instant::now()) {
        let address = address.map(tracing::field::display);
        tracing::info!(reason, why, address, "refused at the metrics port");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_for_broadgate_alone() {
        let filter =
            |level: &str| EnvFilter::builder().parse(directives(level).unwrap()).unwrap().to_string();
        let shown = filter("debug");
        assert!(shown.contains("broadgate_gateway=debug") && shown.contains("broadgate=debug"), "{shown}");
        assert!(shown.split(',').any(|directive| directive == "warn"), "h2 and others: {shown}");
        assert!(
            filter("error").split(',').any(|directive| directive == "error"),
            "never more than asked for"
        );
        assert!(shown.contains("rustls=error"), "strangers could fill the log: {shown}");
        assert!(filter("debug,rustls=debug").contains("rustls=debug"));
        assert!(filter("info").contains("audit=info"), "its lines go to the log where it has no file");
        let asked = filter("info,h2=debug,broadgate_gateway=trace");
        assert!(asked.contains("h2=debug") && asked.contains("broadgate_gateway=trace"), "{asked}");
        assert!(!asked.contains("broadgate_gateway=info"), "{asked}");
        assert_eq!(directives("broadgate_gateway=debug").unwrap(), "broadgate_gateway=debug");
    }

    #[test]
    fn a_level_that_is_none_is_refused() {
        for good in
            ["off", "WARN", "info,h2=debug", "broadgate_gateway::shard=trace", "[span]=debug", "h=off"]
        {
            directives(good).unwrap();
        }
        for (wrong, why) in [
            ("warnn", "\"warnn\" is not a level"),
            ("info,lod", "\"lod\" is not a level"),
            ("broadgate_gateway", "is not a level"),
            ("h2=loud", "\"loud\" is not a level"),
            ("h2=", "\"\" is not a level"),
            ("=debug", "no name"),
            ("broadgate_gatway=debug", "broadgate_gateway"),
            ("broadgates=debug", "none of broadgate,"),
            ("", "empty"),
            (" , ", "empty"),
        ] {
            let refused = directives(wrong).unwrap_err();
            assert!(refused.contains(why), "{wrong}: {refused}");
        }
    }

    /// A crate that is not in the list could not be named.
    #[test]
    fn every_crate_can_be_named() {
        let manifest = include_str!("../Cargo.toml");
        let crates = manifest.lines().filter_map(|line| line.split_once(" = { path = "));
        let mut count = 0;
        for (name, _) in crates {
            assert!(TARGETS.contains(&&*name.replace('-', "_")), "{name}");
            count += 1;
        }
        assert!(count >= 8, "{count}");
    }
}
