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

use crate::{cluster::Cluster, worker::timer::Timer};

pub use self::config::{DEFAULT_SERVICE, DEFAULT_STOP_TIME, WorkerConfig};

mod client;
mod clients;
mod config;
mod context;
mod core;
mod handler;
mod job;
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
