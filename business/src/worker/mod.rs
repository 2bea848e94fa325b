//! Workers: programs that handle the events of clients.
//!
//! A [`Worker`] joins the cluster, attaches to every gateway, and passes the events of its clients to a
//! [`Handler`]: those of one client in order, those of different clients concurrently. On shutdown it takes
//! no new clients, finishes until every gateway confirms that no event is unanswered, and leaves; no client
//! is disconnected.
//!
//! | file | what |
//! |---|---|
//! | `handler.rs` | the application's trait |
//! | `client.rs`, `context.rs` | what handlers get |
//! | `config.rs` | the worker's configuration |
//! | `life.rs` | from join to leave |
//! | `link.rs` | the stream to one gateway |
//! | `clients.rs` | handles the events of clients and acknowledges them |
//! | `offers.rs` | events of Pusher clients |
//! | `queue.rs` | pure: the order of one client's events |
//! | `out.rs` | messages to a gateway |
//! | `timer.rs` | timers, once per worker or cluster |

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

/// A worker: a handler's connection to the cluster.
///
/// ```no_run
/// # use broadgate_business::{Client, Handler, Message};
/// # struct Mine;
/// # impl Handler for Mine {
/// #     async fn message(&self, _: &Client, _: Message) -> anyhow::Result<()> { Ok(()) }
/// # }
/// # async fn example() -> anyhow::Result<()> {
/// use std::time::Duration;
/// use broadgate_business::{Audience, Once, Worker, shutdown_signal};
///
/// Worker::from_env()?
///     .every(Duration::from_secs(60), Once::InCluster, async |cluster| {
///         let _ = cluster.send(Audience::all(), "a minute has passed").await;
///     })
///     .run(Mine, shutdown_signal())
///     .await
/// # }
/// ```
pub struct Worker {
    config: WorkerConfig,
    timers: Vec<Timer>,
}

impl Worker {
    /// A worker with this config. Connects to nothing yet.
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

    /// Runs `tick` every `period`; [`Once`] says on which workers. A tick that takes longer than the period
    /// delays the next one; a tick under way is dropped when the worker stops.
    #[must_use]
    pub fn every<F, T>(mut self, period: Duration, once: Once, tick: F) -> Self
    where
        F: Fn(Cluster) -> T + Send + Sync + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        self.timers.push(Timer::new(period, once, tick));
        self
    }

    /// Runs until `shutdown` completes; then finishes the events that it has, within the stop time.
    /// [`shutdown_signal`] completes on Ctrl-C and SIGTERM.
    ///
    /// # Errors
    /// If the config cannot be used, `started` fails, the cluster refuses the worker, or one of its own tasks
    /// ends unexpectedly; panics of the handler are caught and counted.
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
