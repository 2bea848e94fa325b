//! What a worker is started with.

use std::time::Duration;

use anyhow::Context as _;
use broadgate_proto::{limits, name, secret::Secret};

use crate::cluster::{self, ClusterConfig};

/// The service whose events are taken if none is named.
pub const DEFAULT_SERVICE: &str = "default";

/// How long a stopping worker waits to be released.
pub const DEFAULT_STOP_TIME: Duration = Duration::from_secs(20);

/// Who works for which cluster.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// `host:port` of each register; default [`cluster::DEFAULT_REGISTER`].
    pub registers: Vec<String>,
    /// The cluster's secret; default none.
    pub secret: Secret,
    /// Default "": the first service and the process's id.
    pub name: String,
    /// Whose events are taken; default [`DEFAULT_SERVICE`]. Once-in-the-cluster timers go by the
    /// first.
    pub services: Vec<String>,
    /// The app in whose name the context and the timers command; default "", the app named
    /// `default`. A client's commands are always in the name of the client's app.
    pub app: String,
    /// Apps whose Pusher clients' events are taken, by [`Handler::pusher`]; default none. All workers
    /// with the same first service share them.
    pub pusher_apps: Vec<String>,
    /// Events that one gateway may leave unanswered here, and events of one app's Pusher clients that may
    /// be under way; default 1,024, at most 65,536.
    pub events_max: u32,
    /// How long a command may take, with all its repeats; default 10 s.
    pub timeout: Duration,
    /// How long a stopping worker waits to be released; default [`DEFAULT_STOP_TIME`].
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
    /// If the secret cannot be used.
    pub fn from_env() -> anyhow::Result<Self> {
        ClusterConfig::from_env().map(Self::from)
    }

    /// Could a worker be started with it?
    ///
    /// # Errors
    /// The first setting that does not hold.
    pub fn check(&self) -> anyhow::Result<()> {
        self.clone().checked().map(drop)
    }

    /// Fills in what is left open, and refuses what cannot be.
    pub(super) fn checked(mut self) -> anyhow::Result<Self> {
        let Some(first) = self.services.first() else {
            anyhow::bail!("a worker needs a service: name at least one, such as {DEFAULT_SERVICE:?}");
        };
        for service in &self.services {
            name::check("service", service)?;
        }
        for app in &self.pusher_apps {
            name::check("pusher app", app)?;
        }
        self.pusher_apps.sort_unstable();
        self.pusher_apps.dedup();
        if self.name.is_empty() {
            self.name = format!("{first}-{}", std::process::id());
        }
        name::check("worker name", &self.name)?;
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
