//! A register's settings.

use std::{net::SocketAddr, time::Duration};

use broadgate_proto::{limits, name};
use broadgate_tls::Credentials;

/// How a register treats its members.
#[derive(Debug, Clone)]
pub struct Config {
    /// What it asks of its callers.
    pub credentials: Credentials,
    /// How often a member beats; default [`limits::BEAT`].
    pub beat: Duration,
    /// Silence after which a member is removed; default [`limits::LEASE`].
    pub lease: Duration,
    /// Connections; default [`limits::REGISTER_CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// What keeps the list; default: memory.
    pub ledger: Ledger,
}

/// What keeps the list of members.
#[derive(Debug, Clone, Default)]
pub enum Ledger {
    /// This process: run only one register.
    #[default]
    Memory,
    /// etcd: run several registers, of which one leads.
    Etcd(Etcd),
}

/// A ledger in etcd.
#[derive(Debug, Clone)]
pub struct Etcd {
    /// How etcd is reached.
    pub settings: broadgate_etcd::EtcdSettings,
    /// All keys begin with it; it ends with a slash.
    pub prefix: String,
    /// host:port at which members reach this register; without it, the address that it listens on, or from
    /// which it reaches etcd.
    pub advertise: Option<String>,
}

/// Where the keys of a cluster are, if nothing else is said.
pub const PREFIX_DEFAULT: &str = "broadgate/";
/// A prefix is part of every key.
const PREFIX_BYTES_MAX: usize = 256;

impl Default for Config {
    fn default() -> Self {
        Self {
            credentials: Credentials::default(),
            beat: limits::BEAT,
            lease: limits::LEASE,
            connections_max: limits::REGISTER_CONNECTIONS_MAX,
            ledger: Ledger::default(),
        }
    }
}

impl Config {
    /// Relations between settings that their types cannot say.
    ///
    /// # Errors
    /// If a lease is shorter than four beats, or a ledger cannot be used as described.
    pub fn check(&self) -> anyhow::Result<()> {
        let (beat, lease) = (self.beat, self.lease);
        anyhow::ensure!(!beat.is_zero(), "register.beat must be longer than 0s");
        anyhow::ensure!(
            lease >= beat.saturating_mul(4),
            "register.lease, {lease:?}, is shorter than four beats of {beat:?}: a late beat would remove a member"
        );
        match &self.ledger {
            Ledger::Memory => Ok(()),
            Ledger::Etcd(etcd) => etcd.check(),
        }
    }
}

impl Etcd {
    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.settings.endpoints.is_empty(),
            "register.etcd.endpoints is empty: name etcd's client URLs, such as [\"http://10.0.0.1:2379\"]"
        );
        let prefix = &self.prefix;
        anyhow::ensure!(
            prefix.len() <= PREFIX_BYTES_MAX && prefix.len() > 1 && prefix.ends_with('/'),
            "register.etcd.prefix {prefix:?} must end with / and have 2 to {PREFIX_BYTES_MAX} bytes"
        );
        if let Some(advertise) = &self.advertise {
            name::check_address(advertise)
                .map_err(|error| anyhow::anyhow!("register.advertise {advertise:?}: {error}"))?;
            let unspecified =
                advertise.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified());
            anyhow::ensure!(
                !unspecified,
                "register.advertise {advertise:?} is no address that members can reach: name this host's, or leave \
                 it out"
            );
        }
        Ok(())
    }

    /// The address that members of this register use, which listens at one and reaches etcd from another.
    #[must_use]
    pub fn address(&self, bind: SocketAddr, towards_etcd: Option<std::net::IpAddr>) -> String {
        match (&self.advertise, towards_etcd) {
            (Some(advertise), _) => advertise.clone(),
            (None, Some(ip)) if bind.ip().is_unspecified() => SocketAddr::new(ip, bind.port()).to_string(),
            (None, _) => bind.to_string(),
        }
    }
}
