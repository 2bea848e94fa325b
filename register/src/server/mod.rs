//! The register: a pure state machine behind a thin gRPC service.

use std::{future::Future, time::Duration};

use broadgate_proto::{limits, secret::Secret};
use tokio::net::TcpListener;

/// How a register treats its members.
#[derive(Debug, Clone)]
pub struct Config {
    /// The secret of the cluster.
    pub secret: Secret,
    /// How often a member beats; default [`limits::BEAT`].
    pub beat: Duration,
    /// Silence after which a member is removed; default [`limits::LEASE`].
    pub lease: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { secret: Secret::default(), beat: limits::BEAT, lease: limits::LEASE }
    }
}

/// Serves members, watchers and operators until `shutdown`.
///
/// # Errors
/// If the listener cannot be used.
pub async fn run(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let _ = (listener, config);
    shutdown.await;
    Ok(())
}
