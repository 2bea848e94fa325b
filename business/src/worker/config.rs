//! What a worker is started with.

use std::time::Duration;

use anyhow::Context as _;
use broadgate_proto::{limits, name, secret::Secret};
use broadgate_tls::{ClusterTls, Credentials};

use crate::cluster::{self, ClusterConfig};

/// The service of a worker that names none.
pub const DEFAULT_SERVICE: &str = "default";

/// How long a stopping worker waits to be released.
pub const DEFAULT_STOP_TIME: Duration = Duration::from_secs(20);

/// Which cluster a worker joins, and as what.
///
/// ```
/// use broadgate_business::WorkerConfig;
///
/// let config = WorkerConfig {
///     registers: vec!["10.0.0.1:7100".into()],
///     services: vec!["orders".into()],
///     ..WorkerConfig::default()
/// };
/// config.check()?;
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// `host:port` of each register; default [`cluster::DEFAULT_REGISTER`].
    pub registers: Vec<String>,
    /// The cluster's secret; default none.
    pub secret: Secret,
    /// The cluster's certificates; default none.
    pub tls: Option<ClusterTls>,
    /// The worker's name in status and logs; default "", which means the first service and the process id.
    pub name: String,
    /// The services that this worker handles; default [`DEFAULT_SERVICE`]. Timers that tick once in the
    /// cluster belong to the first.
    pub services: Vec<String>,
    /// The app that the context's and the timers' commands concern; default "", the app named `default`.
    /// Commands of a [`Client`](crate::Client) always concern the client's app.
    pub app: String,
    /// The apps whose Pusher clients' events [`Handler::pusher`](crate::Handler::pusher) gets; default none. All workers with the
    /// same first service share them.
    pub pusher_apps: Vec<String>,
    /// Unanswered events per gateway, and events of one app's Pusher clients under way; default 1,024, at
    /// most 65,536.
    pub events_max: u32,
    /// Time limit of a command with all its retries; default 10 s.
    pub timeout: Duration,
    /// How long a stopping worker waits for the gateways to release it; default [`DEFAULT_STOP_TIME`].
    pub stop_time: Duration,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        ClusterConfig::default().into()
    }
}

impl From<ClusterConfig> for WorkerConfig {
    fn from(config: ClusterConfig) -> Self {
        Self {
            registers: config.registers,
            secret: config.secret,
            tls: config.tls,
            name: String::new(),
            services: vec![DEFAULT_SERVICE.to_owned()],
            app: config.app,
            pusher_apps: Vec::new(),
            events_max: limits::EVENTS_PER_WORKER_DEFAULT,
            timeout: config.timeout,
            stop_time: DEFAULT_STOP_TIME,
        }
    }
}

impl WorkerConfig {
    /// As [`ClusterConfig::from_env`].
    ///
    /// # Errors
    /// If a variable cannot be used; the error names it.
    pub fn from_env() -> anyhow::Result<Self> {
        ClusterConfig::from_env().map(Self::from)
    }

    pub(super) fn credentials(&self) -> Credentials {
        Credentials { secret: self.secret.clone().of_worker(&self.name), tls: self.tls.clone() }
    }

    /// Checks that a worker could start with it.
    ///
    /// # Errors
    /// The first invalid setting.
    pub fn check(&self) -> anyhow::Result<()> {
        self.clone().checked().map(drop)
    }

    /// Fills in what is left open, and refuses what cannot be.
    pub(super) fn checked(mut self) -> anyhow::Result<Self> {
        let Some(first) = self.services.first() else {
            anyhow::bail!("a worker needs a service: name at least one, such as {DEFAULT_SERVICE:?}");
        };
        for service in &self.services {
            name::check_visible("service", service)?;
        }
        for app in &self.pusher_apps {
            name::check("pusher app", app)?;
        }
        self.pusher_apps.sort_unstable();
        self.pusher_apps.dedup();
        if self.name.is_empty() {
            self.name = format!("{first}-{}", std::process::id());
        }
        name::check_visible("worker name", &self.name)?;
        if self.registers.iter().all(String::is_empty) {
            anyhow::bail!(
                "a worker needs a register: give host:port, such as {:?}",
                cluster::DEFAULT_REGISTER
            );
        }
        for register in &self.registers {
            name::check_address(register).context("a worker's register")?;
        }
        if self.events_max == 0 || self.events_max > limits::EVENTS_PER_WORKER_MAX {
            anyhow::bail!("events_max is {}: give 1 to {}", self.events_max, limits::EVENTS_PER_WORKER_MAX);
        }
        Ok(self)
    }
}
