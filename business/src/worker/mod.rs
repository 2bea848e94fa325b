//! Workers: programs that take the events of clients.
//!
//! A [`Worker`] joins the cluster, attaches to every gateway, and gives the events of its clients
//! to a [`Handler`]: those of one client in turn, those of different clients at the same time. On
//! shutdown it takes nothing new, goes on until every gateway says that nothing of it is
//! unanswered, and leaves; no client notices.
//!
//! | file | what |
//! |---|---|
//! | `handler.rs` | what an application writes |
//! | `client.rs`, `context.rs` | what it is given |
//! | `life.rs` | from join to leave |
//! | `link.rs` | one gateway: attach, and again |
//! | `clients.rs` | its clients: handle their events, acknowledge |
//! | `offers.rs` | what Pusher clients do, which no gateway waits for |
//! | `queue.rs` | pure: which event of a client is next |
//! | `out.rs` | what is said to a gateway |
//! | `timer.rs` | every so often, once in the cluster |

use std::{future::Future, time::Duration};

use anyhow::Context as _;
use broadgate_proto::{limits, name, secret::Secret};

mod client;
mod clients;
mod context;
mod handler;
mod life;
mod link;
mod meters;
mod offers;
mod out;
mod queue;
mod signal;
mod timer;

pub use client::Client;
pub use context::Context;
pub use handler::{Cause, Closed, Decision, Handler, Handshake, Message};
pub use signal::shutdown_signal;
pub use timer::Once;

pub use crate::cluster::{PusherEvent, PusherEventKind};

use self::timer::Timer;
use crate::cluster::{self, Cluster, ClusterConfig};

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
    fn checked(mut self) -> anyhow::Result<Self> {
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

/// A worker that is about to run.
pub struct Worker {
    config: WorkerConfig,
    timers: Vec<Timer>,
}

impl Worker {
    /// Opens nothing yet.
    #[must_use]
    pub const fn new(config: WorkerConfig) -> Self {
        Self { config, timers: Vec::new() }
    }

    /// A worker of the cluster that the environment names: `BROADGATE_REGISTER` and
    /// `BROADGATE_SECRET`.
    ///
    /// # Errors
    /// If the secret cannot be used.
    pub fn from_env() -> anyhow::Result<Self> {
        Ok(Self::new(WorkerConfig::from_env()?))
    }

    /// Does this every so often; [`Once`] says on which workers. A tick that takes longer than the
    /// period delays the next one; a tick under way is dropped when the worker stops.
    #[must_use]
    pub fn every<F, T>(mut self, period: Duration, once: Once, tick: F) -> Self
    where
        F: Fn(Cluster) -> T + Send + Sync + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        self.timers.push(Timer::new(period, once, tick));
        self
    }

    /// Runs until `shutdown` and everything that had come has been handled, or until the stop
    /// time has passed. [`shutdown_signal`] is Ctrl-C and SIGTERM.
    ///
    /// # Errors
    /// If the config cannot be used, `started` fails, or the cluster refuses the worker.
    pub async fn run<H: Handler>(
        self,
        handler: H,
        shutdown: impl Future<Output = ()> + Send,
    ) -> anyhow::Result<()> {
        let config = self.config.checked().context("the worker's config cannot be used")?;
        life::run(config, self.timers, handler, shutdown).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_completed_or_refused_with_a_sentence() {
        let config = WorkerConfig::default().checked().unwrap();
        assert!(config.name.starts_with("default-"));
        let none = WorkerConfig { services: Vec::new(), ..WorkerConfig::default() };
        assert!(none.checked().unwrap_err().to_string().contains("service"));
        let apps = ["b", "a", "b"].map(str::to_owned).to_vec();
        let twice = WorkerConfig { pusher_apps: apps, ..WorkerConfig::default() }.checked().unwrap();
        assert_eq!(twice.pusher_apps, ["a", "b"]);
        let many = WorkerConfig { events_max: 1 << 20, ..WorkerConfig::default() };
        assert!(many.checked().unwrap_err().to_string().contains("65536"));
        let nowhere = WorkerConfig { registers: Vec::new(), ..WorkerConfig::default() };
        assert!(nowhere.checked().unwrap_err().to_string().contains("register"));
    }
}
