//! The three roles of a cluster, as processes.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use broadgate_business::{
    Client, Handler, Message, Worker, WorkerConfig,
    chat::{self, Chat},
};
use broadgate_gateway::{
    apps::Apps,
    config::{
        Certificate, Config as GatewayConfig, GatewaySettings, Listener, ListenerKind, RetainedGroups,
        StaticPage, collide,
    },
    events::EventLog,
};
use broadgate_proto::{
    limits::{METRICS_CONNECTIONS_MAX, REGISTER_CONNECTIONS_MAX},
    name,
};
use broadgate_register::server::Ledger;
use broadgate_tls::Credentials;
use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use crate::{
    apps::{self, Reload, Source},
    config::{Config, RegisterSection},
    dashboard::{self, RoleDashboard},
    failure::Failure,
    ledger_settings, operate,
    options::{AppsFileOption, ConfigFile, Registers, process_name},
    role_tasks::RoleTasks,
    service_manager::Ready,
    setting_errors, telemetry,
    tokens::{self, TokensReload},
};

/// Of a register, besides connections: streams, epoll, listeners.
const FILES_OF_A_REGISTER: usize = 32;

/// The demo's pages, and pusher-js as its makers publish it (MIT, `pages/pusher.LICENCE`).
const PAGES: &[StaticPage] = &[
    StaticPage {
        path: "/",
        content_type: "text/html; charset=utf-8",
        body: include_bytes!("pages/chat.html"),
    },
    StaticPage {
        path: "/console",
        content_type: "text/html; charset=utf-8",
        body: include_bytes!("pages/console.html"),
    },
    StaticPage {
        path: "/pusher.js",
        content_type: "text/javascript; charset=utf-8",
        body: include_bytes!("pages/pusher.min.js"),
    },
];

/// What every role can be told.
#[derive(Debug, Args)]
pub(crate) struct Common {
    #[command(flatten)]
    file: ConfigFile,
    /// Address for metrics and health checks [default: `metrics.bind`, else not served]
    #[arg(long, value_name = "ADDRESS", value_parser = setting_errors::address)]
    metrics_bind: Option<SocketAddr>,
    /// Stop when standard input ends: a supervisor holds its other end
    #[arg(long, hide = true)]
    supervised: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RegisterArgs {
    #[command(flatten)]
    common: Common,
    /// Address to listen on [default: 127.0.0.1:7100]
    #[arg(long, value_name = "ADDRESS", value_parser = setting_errors::address)]
    bind: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct GatewayArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    registers: Registers,
    /// Name of this gateway in lists and receipts [env: BROADGATE_NAME] [default: the advertised address]
    #[arg(long)]
    name: Option<String>,
    /// Address for commands, workers and peers [default: 127.0.0.1:7200]
    #[arg(long, value_name = "ADDRESS", value_parser = setting_errors::address)]
    internal_bind: Option<SocketAddr>,
    /// Address at which other processes reach this gateway [default: the address it listens on]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Address of the `web` listener for clients [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", value_parser = setting_errors::address)]
    client_bind: Option<SocketAddr>,
    /// Certificate of the `web` listener (PEM), which then serves HTTPS and wss
    #[arg(long, value_name = "FILE", requires = "client_tls_key")]
    client_tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "client_tls_cert")]
    client_tls_key: Option<PathBuf>,
    /// Open a `text` listener (lines), e.g. on 127.0.0.1:8282
    #[arg(long, value_name = "ADDRESS", value_parser = setting_errors::address)]
    text_bind: Option<SocketAddr>,
    /// Open a `frame` listener (length-prefixed)
    #[arg(long, value_name = "ADDRESS", value_parser = setting_errors::address)]
    frame_bind: Option<SocketAddr>,
    /// Serve the dashboard at this address, e.g. 127.0.0.1:7300
    #[arg(long, value_name = "ADDRESS", value_parser = setting_errors::address)]
    dashboard_bind: Option<SocketAddr>,
    /// Certificate of the dashboard (PEM), which is then served by HTTPS
    #[arg(long, value_name = "FILE", requires = "dashboard_tls_key")]
    dashboard_tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "dashboard_tls_cert")]
    dashboard_tls_key: Option<PathBuf>,
    /// Serve none, whatever is configured: another process of this host does
    #[arg(long, hide = true, conflicts_with = "dashboard_bind")]
    no_dashboard: bool,
    #[command(flatten)]
    apps: AppsFileOption,
    /// Accept raw WebSocket clients in this app; repeat for several
    #[arg(long, value_name = "APP")]
    raw_app: Vec<String>,
    /// When stopping: delay between "not ready" and the first disconnect [default: 2s]
    #[arg(long, value_parser = setting_errors::duration)]
    ready_delay: Option<Duration>,
    /// When stopping: time for disconnecting all clients [default: 20s]
    #[arg(long, value_parser = setting_errors::duration)]
    drain: Option<Duration>,
    /// Serve the demo's chat page
    #[arg(long, hide = true)]
    pages: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    common: Common,
    /// Which built-in worker
    demo: Demo,
    #[command(flatten)]
    registers: Registers,
    /// Name in tables [env: BROADGATE_NAME] [default: the service and the process id]
    #[arg(long)]
    name: Option<String>,
}

/// The workers that come with the executable; yours is a program of your own.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Demo {
    /// The chat of the demo page
    Chat,
    /// Sends every message back, for benchmarks
    Echo,
}

/// What a register is started with, checked; `check-config` asks the same.
pub(crate) fn register_config(config: &Config) -> Result<broadgate_register::server::Config, Failure> {
    let (credentials, bind) = (config.credentials()?, config.register.bind);
    credentials.check_bind(bind).map_err(|error| Failure::usage(format!("register.bind: {error}")))?;
    config.metrics_tls(credentials.tls.as_ref())?;
    check_metrics(config, "register.bind", bind)?;
    let RegisterSection { beat, lease, .. } = config.register;
    let ledger = ledger_settings::ledger(&config.register)?;
    let connections_max = REGISTER_CONNECTIONS_MAX;
    let config = broadgate_register::server::Config { credentials, beat, lease, connections_max, ledger };
    config.check().map_err(|error| Failure::usage(error.to_string()))?;
    Ok(config)
}

/// What a gateway is started with, checked; `check-config` asks the same.
pub(crate) fn gateway_config(
    config: &Config,
    apps: Apps,
    pages: &'static [StaticPage],
) -> Result<GatewayConfig, Failure> {
    let gateway = GatewayConfig {
        registers: config.cluster.register.clone(),
        credentials: config.credentials()?,
        settings: config.gateway.clone(),
        apps,
        tokens: tokens::open(config.gateway.tokens_file.as_deref()).map_err(Failure::Usage)?,
        events: EventLog::default(),
        other_connections: dashboard::connections(&config.dashboard),
        pages,
    };
    gateway.check().map_err(Failure::Usage)?;
    config.metrics_tls(gateway.credentials.tls.as_ref())?;
    broadgate_gateway::check_certificates(&gateway).map_err(|error| Failure::usage(format!("{error:#}")))?;
    broadgate_gateway::check_spool(&gateway).map_err(|error| Failure::usage(format!("{error:#}")))?;
    dashboard::check(&config.dashboard, &config.gateway.listeners, &gateway.credentials)?;
    check_others(config, "gateway.internal.bind", config.gateway.internal.bind)?;
    for listener in &config.gateway.listeners {
        check_others(config, &format!("listener {:?}", listener.name), listener.bind)?;
    }
    if let Some(bind) = config.dashboard.bind {
        check_metrics(config, "dashboard.bind", bind)?;
    }
    Ok(gateway)
}

/// What a built-in worker is started with, checked; `check-config` asks the same.
pub(crate) fn worker_config(config: &Config, name: Option<String>) -> Result<WorkerConfig, Failure> {
    let Credentials { secret, tls } = config.credentials()?;
    config.metrics_tls(tls.as_ref())?;
    let worker = WorkerConfig {
        registers: config.cluster.register.clone(),
        secret,
        tls,
        name: name.unwrap_or_else(|| config.worker.name.clone()),
        services: config.worker.services.clone(),
        events_max: config.worker.events_max,
        stop_time: config.worker.stop_time,
        ..WorkerConfig::default()
    };
    worker.check().map_err(|error| Failure::usage(format!("{error:#}")))?;
    Ok(worker)
}

/// The metrics are served by the same process.
fn check_metrics(config: &Config, what: &str, bind: SocketAddr) -> Result<(), Failure> {
    match config.metrics.bind {
        Some(metrics) if collide(metrics, bind) => {
            Err(Failure::usage(format!("metrics.bind: {what} has the port {}, too", bind.port())))
        }
        _ => Ok(()),
    }
}

/// The metrics and the dashboard are served by the gateway's process.
fn check_others(config: &Config, what: &str, bind: SocketAddr) -> Result<(), Failure> {
    check_metrics(config, what, bind)?;
    match config.dashboard.bind {
        Some(dashboard) if collide(dashboard, bind) => {
            Err(Failure::usage(format!("dashboard.bind: {what} has the port {}, too", bind.port())))
        }
        _ => Ok(()),
    }
}

pub(crate) async fn register(args: RegisterArgs) -> Result<(), Failure> {
    let mut config = args.common.load()?;
    config.register.bind = args.bind.unwrap_or(config.register.bind);
    let checked = register_config(&config)?;
    let (bind, tls) = (config.register.bind, checked.credentials.tls.clone());
    let probes = telemetry::open("register", &config, tls.as_ref()).await?;
    let listener = tokio::net::TcpListener::bind(bind).await.map_err(|error| {
        Failure::usage(format!(
            "register.bind: cannot listen on {bind}: {error}; stop what listens there or choose another port"
        ))
    })?;
    tracing::info!(address = %listener.local_addr()?, "register");
    if let Ledger::Etcd(etcd) = &checked.ledger {
        broadgate_register::server::check_etcd(etcd).await.map_err(Failure::Usage)?;
    }
    let mut watched = RoleTasks::default();
    watched.spawn_certificates(tls)?;
    let shutdown = args.common.shutdown(&mut watched);
    probes.serve(always_ready(), shutdown.clone(), &mut watched);
    let checked = broadgate_register::server::Config { connections_max: register_connections(), ..checked };
    let running = broadgate_register::server::run(listener, checked, shutdown.clone().cancelled_owned());
    watched.run(shutdown, running).await
}

/// As many connections as a register may have, or as there are files for.
fn register_connections() -> usize {
    let wanted = (REGISTER_CONNECTIONS_MAX + METRICS_CONNECTIONS_MAX + FILES_OF_A_REGISTER) as u64;
    let allowed = rlimit::increase_nofile_limit(wanted).unwrap_or(wanted).min(wanted);
    let others = METRICS_CONNECTIONS_MAX + FILES_OF_A_REGISTER;
    usize::try_from(allowed).unwrap_or(usize::MAX).saturating_sub(others).max(FILES_OF_A_REGISTER)
}

pub(crate) async fn gateway(args: GatewayArgs) -> Result<(), Failure> {
    let mut config = args.common.load()?;
    args.lay_over(&mut config)?;
    let reload = Reload::open(args.source()).map_err(Failure::Usage)?;
    let gateway = gateway_config(&config, reload.apps(), if args.pages { PAGES } else { &[] })?;
    let (tls, credentials) = (gateway.credentials.tls.clone(), gateway.credentials.clone());
    let (tokens, events) = (gateway.tokens.clone(), gateway.events.clone());
    let probes = telemetry::open("gateway", &config, tls.as_ref()).await?;
    let internal = operate::reached_gateway(&config.gateway.internal);
    let listeners = &config.gateway.listeners;
    let dashboard = RoleDashboard::open(&config.dashboard, listeners, &credentials, internal).await?;
    let bound = broadgate_gateway::bind(gateway).map_err(|error| Failure::usage(format!("{error:#}")))?;
    tracing::info!(internal = %bound.internal_address(), clients = ?bound.client_addresses(), "gateway");
    let health = bound.health();
    let ready = move || {
        if health.is_ready() { Ok(()) } else { Err("not in a view as ready: no register, or draining") }
    };
    let mut watched = RoleTasks::default();
    probes.serve(Arc::new(ready), bound.draining(), &mut watched);
    if let Some(dashboard) = dashboard {
        watched.spawn_ending("dashboard", dashboard.serve(watched.end()));
    }
    watched.spawn("app files", reload.noted_in(events.clone()).run());
    // Alerts read it, also where there are no tokens.
    metrics::gauge!("broadgate_gateway_tokens_stale").set(0.0);
    if let Some(path) = config.gateway.tokens_file.clone() {
        watched.spawn("tokens file", TokensReload::new(tokens, path, events)?.run());
    }
    watched.spawn_certificates(tls)?;
    let shutdown = args.common.shutdown(&mut watched);
    // The last port that is given back: by it others see that the process uses none any more.
    let last = bound.internal_listener()?;
    let ended = watched.run(shutdown.clone(), bound.run(shutdown)).await;
    drop(last);
    ended
}

impl GatewayArgs {
    fn source(&self) -> Source {
        Source { config: self.common.file.path(), apps: self.apps.path(), raw: self.raw_app.clone() }
    }

    fn lay_over(&self, config: &mut Config) -> Result<(), Failure> {
        self.registers.lay_over(config)?;
        config.dashboard.bind = self.dashboard_bind.or(config.dashboard.bind).filter(|_| !self.no_dashboard);
        if let (Some(cert), Some(key)) = (&self.dashboard_tls_cert, &self.dashboard_tls_key) {
            config.dashboard.tls = vec![Certificate { cert: cert.clone(), key: key.clone() }];
        }
        let settings = &mut config.gateway;
        if let Some(name) = process_name(self.name.as_ref())? {
            settings.name = name;
        }
        settings.internal.bind = self.internal_bind.unwrap_or(settings.internal.bind);
        if self.advertise.is_some() {
            settings.internal.advertise.clone_from(&self.advertise);
        }
        settings.stop.ready_delay = self.ready_delay.unwrap_or(settings.stop.ready_delay);
        settings.stop.drain = self.drain.unwrap_or(settings.stop.drain);
        if self.pages {
            settings.groups.push(chat_rooms());
        }
        let binds = [
            (ListenerKind::Web, self.client_bind, "--client-bind"),
            (ListenerKind::Text, self.text_bind, "--text-bind"),
            (ListenerKind::Frame, self.frame_bind, "--frame-bind"),
        ];
        for (kind, bind, flag) in binds {
            let Some(bind) = bind else { continue };
            let mut of_kind = settings.listeners.iter_mut().filter(|listener| listener.kind == kind);
            match (of_kind.next(), of_kind.next()) {
                (Some(listener), None) => listener.bind = bind,
                (None, _) => {
                    let name = format!("{kind:?}").to_lowercase();
                    settings.listeners.push(Listener { kind, name, ..Listener::web(bind) });
                }
                (Some(_), Some(_)) => {
                    return Err(Failure::usage(format!(
                        "{flag}: the configuration has several such listeners: set it there"
                    )));
                }
            }
        }
        self.lay_certificate_over(settings)
    }

    fn lay_certificate_over(&self, settings: &mut GatewaySettings) -> Result<(), Failure> {
        let (Some(cert), Some(key)) = (&self.client_tls_cert, &self.client_tls_key) else { return Ok(()) };
        let mut web = settings.listeners.iter_mut().filter(|listener| listener.kind == ListenerKind::Web);
        let (Some(listener), None) = (web.next(), web.next()) else {
            let sentence =
                "--client-tls-cert: there must be one `web` listener: set its tls in the configuration";
            return Err(Failure::usage(sentence));
        };
        listener.tls = vec![Certificate { cert: cert.clone(), key: key.clone() }];
        Ok(())
    }
}

/// The rooms of the demo's chat keep what was said, for those who enter later. It stands behind the groups
/// of the configuration, whose entries are found first.
fn chat_rooms() -> RetainedGroups {
    RetainedGroups {
        app: name::DEFAULT_APP.to_owned(),
        pattern: "*".to_owned(),
        history_messages: 200,
        history_time: Duration::from_secs(3600),
        // As long as cache channels keep theirs by default: this entry is found before those of the app.
        last_value_time: Duration::from_secs(1800),
    }
}

pub(crate) async fn worker(args: WorkerArgs) -> Result<(), Failure> {
    let mut config = args.common.load()?;
    args.registers.lay_over(&mut config)?;
    let name = process_name(args.name.as_ref())?;
    let worker = worker_config(&config, name)?;
    let probes = telemetry::open("worker", &config, worker.tls.as_ref()).await?;
    let mut watched = RoleTasks::default();
    watched.spawn_certificates(worker.tls.clone())?;
    let shutdown = args.common.shutdown(&mut watched);
    probes.serve(always_ready(), shutdown.clone(), &mut watched);
    let cancelled = shutdown.clone().cancelled_owned();
    match args.demo {
        Demo::Chat => watched.run(shutdown, chat::worker(worker).run(Chat, cancelled)).await,
        Demo::Echo => watched.run(shutdown, Worker::new(worker).run(Echo, cancelled)).await,
    }
}

/// Sends every message back to its client.
struct Echo;

impl Handler for Echo {
    async fn message(&self, client: &Client, message: Message) -> anyhow::Result<()> {
        client.post(message).await?;
        Ok(())
    }
}

impl Common {
    fn load(&self) -> Result<Config, Failure> {
        let mut config = self.file.load()?;
        config.metrics.bind = self.metrics_bind.or(config.metrics.bind);
        telemetry::start_logs(&config)?;
        for warning in config.warnings.iter().chain(&config.secret_warnings()) {
            tracing::warn!("{warning}");
        }
        // Before a role has anything to lose by it.
        apps::outlive_hangups()?;
        Ok(config)
    }

    /// Cancelled by the first SIGTERM or Ctrl-C, or by the supervisor's end; a second signal ends the
    /// process at once.
    fn shutdown(&self, watched: &mut RoleTasks) -> CancellationToken {
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let supervised = self.supervised;
        watched.spawn("signals", async move {
            tokio::select! {
                () = broadgate_business::shutdown_signal() => {}
                () = supervisor_gone(), if supervised => {}
            }
            token.cancel();
            broadgate_business::shutdown_signal().await;
            tracing::warn!("stopping at once");
            std::process::exit(1);
        });
        shutdown
    }
}

/// Returns when the other end of standard input is closed.
pub async fn supervisor_gone() {
    use tokio::io::AsyncReadExt as _;
    let mut stdin = tokio::io::stdin();
    let mut byte = [0];
    while matches!(stdin.read(&mut byte).await, Ok(count) if count > 0) {}
}

fn always_ready() -> Ready {
    Arc::new(|| Ok(()))
}
