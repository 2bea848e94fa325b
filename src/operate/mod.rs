//! The operator's commands: questions to a running cluster, and orders.

mod lists;
mod orders;
mod output;
mod status;

use std::time::Duration;

use broadgate_business::{Cluster, v1::Coverage};
use clap::Args;

pub(crate) use self::{
    lists::{
        ClientArgs, ClientsArgs, GroupsArgs, RosterArgs, UidsArgs, client, clients, groups, roster, uids,
    },
    orders::{DrainArgs, KickArgs, SendArgs, drain, kick, send},
    output::{print, print_json, table},
    status::status,
};
use crate::{config::Config, failure::Failure};

/// Which cluster is asked, and how the answer is printed.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The internal port of any gateway
    #[arg(long, env = "BROADGATE_ADDR", default_value = "127.0.0.1:7200", value_name = "HOST:PORT")]
    pub(crate) addr: String,
    /// The app that is meant
    #[arg(long, default_value = "default")]
    pub(crate) app: String,
    /// How long an answer may take
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// For scripts
    #[arg(long)]
    pub(crate) json: bool,
}

impl Target {
    pub(crate) fn cluster(&self) -> Result<Cluster, Failure> {
        let secret = Config::load(None)?.secret()?;
        Ok(Cluster::to_gateway(&self.addr, secret, &self.app, self.timeout)?)
    }
}

/// An incomplete answer is printed, and then told by the exit code.
fn complete(coverage: Option<&Coverage>) -> Result<(), Failure> {
    match coverage {
        Some(coverage) if !coverage.complete => Err(Failure::Incomplete(format!(
            "the answer is incomplete: {} did not answer in time",
            coverage.missing.join(", ")
        ))),
        _ => Ok(()),
    }
}

/// Prints a fresh secret.
pub(crate) fn secret() -> Result<(), Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::Failed(format!("the system gives no randomness: {error}")))?;
    print(&format!("{}\n", data_encoding::BASE32_DNSSEC.encode(&bytes)))
}
