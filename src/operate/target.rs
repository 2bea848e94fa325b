//! Which cluster an operator's command asks, and what its answer lacks.

use std::time::Duration;

use broadgate_business::{Cluster, v1::Coverage};
use broadgate_gateway::config::InternalListener;
use broadgate_proto::name;
use clap::Args;

use crate::{config::Config, environment, failure::Failure, options::ConfigFile, setting_errors};

/// Which gateway is asked.
#[derive(Debug, Clone, Default, Args)]
pub struct At {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    /// The internal port of any gateway [env: BROADGATE_ADDR] [default: the configuration's, 127.0.0.1:7200]
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) addr: Option<String>,
}

impl At {
    /// Was a gateway named by flag?
    pub(super) fn is_named(&self) -> bool {
        self.addr.is_some()
    }

    /// The configuration, and the address of the gateway.
    ///
    /// # Errors
    /// If the configuration cannot be read, or the address is none.
    pub fn open(&self) -> Result<(Config, String), Failure> {
        let config = self.file.load_for_command()?;
        let (place, address) = match (&self.addr, environment::text("ADDR")?) {
            (Some(address), _) => ("--addr", address.clone()),
            (None, Some(address)) => ("BROADGATE_ADDR", address),
            (None, None) => ("gateway.internal", reached(&config.gateway.internal)),
        };
        name::check_address(&address).map_err(|error| Failure::usage(format!("{place}: {error}")))?;
        Ok((config, address))
    }
}

/// Where a gateway of this configuration is reached from its own machine.
pub(super) fn reached(internal: &InternalListener) -> String {
    internal.advertise.clone().unwrap_or_else(|| match internal.bind {
        bind if bind.ip().is_unspecified() => format!("127.0.0.1:{}", bind.port()),
        bind => bind.to_string(),
    })
}

/// Which cluster is asked, and how the answer is printed.
#[derive(Debug, Clone, Args)]
pub struct ClusterTarget {
    #[allow(missing_docs, reason = "clap would take it for the command's")]
    #[command(flatten)]
    pub at: At,
    /// The app to ask or command [default: default]
    #[arg(long)]
    pub app: Option<String>,
    /// How long an answer may take
    #[arg(long, default_value = "5s", value_parser = setting_errors::duration)]
    pub timeout: Duration,
    /// For scripts
    #[arg(long)]
    pub json: bool,
}

impl ClusterTarget {
    /// A gateway that answers, and knows the app.
    pub async fn cluster(&self) -> Result<Cluster, Failure> {
        let (cluster, app) = self.connect().await?;
        app.map(|()| cluster)
    }

    /// A gateway that answers, whether it knows the app or not, unless one was named.
    pub(crate) async fn any_app(&self) -> Result<Cluster, Failure> {
        let (cluster, app) = self.connect().await?;
        if self.app.is_some() { app.map(|()| cluster) } else { Ok(cluster) }
    }

    pub(super) async fn connect(&self) -> Result<(Cluster, Result<(), Failure>), Failure> {
        let (config, address) = self.at.open()?;
        let credentials = config.credentials()?;
        let app = self.app.as_deref().unwrap_or(name::DEFAULT_APP);
        let known = match super::probe::gateway(&address, &credentials, app, self.timeout).await {
            Err(Failure::NotFound(sentence)) => {
                Err(Failure::NotFound(format!("{sentence}; name the app with --app")))
            }
            known => Ok(known?),
        };
        Ok((Cluster::to_gateway(&address, credentials, app, self.timeout)?, known))
    }
}

/// An incomplete answer is printed, and then told by the exit code.
pub(super) fn complete(coverage: Option<&Coverage>) -> Result<(), Failure> {
    match coverage {
        Some(coverage) if !coverage.complete => Err(Failure::Incomplete(format!(
            "the answer is incomplete: {} did not answer in time",
            coverage.missing.join(", ")
        ))),
        _ => Ok(()),
    }
}
