//! A register's settings.

use std::time::Duration;

use broadgate_proto::{limits, secret::Secret};

/// How a register treats its members.
#[derive(Debug, Clone)]
pub struct Config {
    /// The secret of the cluster.
    pub secret: Secret,
    /// How often a member beats; default [`limits::BEAT`].
    pub beat: Duration,
    /// Silence after which a member is removed; default [`limits::LEASE`].
    pub lease: Duration,
    /// Connections; default [`limits::REGISTER_CONNECTIONS_MAX`].
    pub connections_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            secret: Secret::default(),
            beat: limits::BEAT,
            lease: limits::LEASE,
            connections_max: limits::REGISTER_CONNECTIONS_MAX,
        }
    }
}

impl Config {
    /// Relations between settings that their types cannot say.
    ///
    /// # Errors
    /// If a lease is shorter than four beats.
    pub fn check(&self) -> anyhow::Result<()> {
        let (beat, lease) = (self.beat, self.lease);
        anyhow::ensure!(!beat.is_zero(), "register.beat must be longer than 0s");
        anyhow::ensure!(
            lease >= beat.saturating_mul(4),
            "register.lease, {lease:?}, is shorter than four beats of {beat:?}: a late beat would remove a member"
        );
        Ok(())
    }
}
