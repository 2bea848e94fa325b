//! Options that several commands share. The environment is read here and not by clap, to which an empty
//! variable is a value.

use std::path::PathBuf;

use clap::Args;

use crate::{config::Config, environment, failure::Failure};

/// Which configuration.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigFile {
    /// The configuration file (TOML); see deploy/config/broadgate.toml [env: BROADGATE_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    /// What was given by flag.
    pub(crate) fn flag(&self) -> Option<&PathBuf> {
        self.config.as_ref()
    }

    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.config.clone().or_else(|| environment::path("CONFIG"))
    }

    /// The configuration, for a role, which has a log for the warnings.
    pub(crate) fn load(&self) -> Result<Config, Failure> {
        Config::load(self.path().as_deref())
    }

    /// The configuration, for a command.
    pub(crate) fn load_for_command(&self) -> Result<Config, Failure> {
        Config::load_for_command(self.path().as_deref())
    }
}

/// Which apps file.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AppsFile {
    /// A file of apps besides the configuration's [env: BROADGATE_APPS] [default: its `apps_file`]
    #[arg(long, global = true, value_name = "FILE")]
    apps: Option<PathBuf>,
}

impl AppsFile {
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.apps.clone().or_else(|| environment::path("APPS"))
    }
}

/// Where the registers are, for a role.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Registers {
    /// Where the register is; repeat for several [env: BROADGATE_REGISTER] [default: 127.0.0.1:7100]
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    register: Vec<String>,
}

impl Registers {
    /// By flag, else by the environment, else as configured.
    pub(crate) fn lay_over(&self, config: &mut Config) -> Result<(), Failure> {
        if !self.register.is_empty() {
            config.cluster.register.clone_from(&self.register);
        } else if let Some(registers) = registers_of_environment()? {
            config.cluster.register = registers;
        }
        Ok(())
    }
}

/// The registers that BROADGATE_REGISTER names.
pub(crate) fn registers_of_environment() -> Result<Option<Vec<String>>, Failure> {
    let Some(text) = environment::text("REGISTER")? else { return Ok(None) };
    let parts = text.split(',').map(str::trim).filter(|one| !one.is_empty());
    let all: Vec<String> = parts.map(str::to_owned).collect();
    Ok(Some(all).filter(|all| !all.is_empty()))
}
