//! Options that several commands share. The environment is read here and not by clap, to which an empty
//! variable is a value.

use std::path::PathBuf;

use broadgate_proto::name;
use clap::Args;

use crate::{config::Config, environment, failure::Failure};

/// Which configuration.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigFile {
    /// The configuration file (TOML); see deploy/config/broadgate.toml [env: BROADGATE_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsFiles,
}

/// Certificates instead of the configuration's `[cluster.tls]`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TlsFiles {
    /// The CA that signed the cluster's certificates (PEM) [env: BROADGATE_CLUSTER__TLS__CA]
    #[arg(long, global = true, value_name = "FILE", help_heading = "TLS inside the cluster")]
    tls_ca: Option<PathBuf>,
    /// This process's certificate (PEM) [env: BROADGATE_CLUSTER__TLS__CERT]
    #[arg(long, global = true, value_name = "FILE", help_heading = "TLS inside the cluster")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM) [env: BROADGATE_CLUSTER__TLS__KEY]
    #[arg(long, global = true, value_name = "FILE", help_heading = "TLS inside the cluster")]
    tls_key: Option<PathBuf>,
    /// The DNS name in every certificate of the cluster [env: BROADGATE_CLUSTER__TLS__SERVER_NAME] [default: broadgate]
    #[arg(long, global = true, value_name = "NAME", help_heading = "TLS inside the cluster")]
    tls_server_name: Option<String>,
}

impl TlsFiles {
    /// The files of CA, certificate and key.
    pub(crate) fn paths(&self) -> [Option<PathBuf>; 3] {
        [&self.tls_ca, &self.tls_cert, &self.tls_key].map(Clone::clone)
    }

    pub(crate) fn server_name(&self) -> Option<String> {
        self.tls_server_name.clone()
    }

    fn lay_over(&self, mut config: Config) -> Config {
        let tls = &mut config.cluster.tls;
        for (flag, setting) in
            [(&self.tls_ca, &mut tls.ca), (&self.tls_cert, &mut tls.cert), (&self.tls_key, &mut tls.key)]
        {
            if flag.is_some() {
                setting.clone_from(flag);
            }
        }
        if let Some(name) = &self.tls_server_name {
            tls.server_name.clone_from(name);
        }
        config
    }
}

impl ConfigFile {
    /// What was given by flag.
    pub(crate) fn flag(&self) -> Option<&PathBuf> {
        self.config.as_ref()
    }

    /// The first of these flags that was given.
    pub(crate) fn first_flag(&self) -> Option<&'static str> {
        let [ca, cert, key] = self.tls.paths();
        let given = [
            (self.config.is_some(), "--config"),
            (ca.is_some(), "--tls-ca"),
            (cert.is_some(), "--tls-cert"),
            (key.is_some(), "--tls-key"),
            (self.tls.tls_server_name.is_some(), "--tls-server-name"),
        ];
        given.into_iter().find(|(is_given, _)| *is_given).map(|(_, flag)| flag)
    }

    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.config.clone().or_else(|| environment::path("CONFIG"))
    }

    /// The configuration, for a role, which has a log for the warnings.
    pub(crate) fn load(&self) -> Result<Config, Failure> {
        Config::load(self.path().as_deref()).map(|config| self.tls.lay_over(config))
    }

    /// The configuration, for a command.
    pub(crate) fn load_for_command(&self) -> Result<Config, Failure> {
        Config::load_for_command(self.path().as_deref()).map(|config| self.tls.lay_over(config))
    }
}

/// Which apps file.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AppsFileOption {
    /// A file with more apps [env: BROADGATE_APPS] [default: the configuration's `apps_file`]
    #[arg(long, global = true, value_name = "FILE")]
    apps: Option<PathBuf>,
}

impl AppsFileOption {
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.apps.clone().or_else(|| environment::path("APPS"))
    }
}

/// Where the registers are, for a role.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Registers {
    /// The register's address; repeat for several [env: BROADGATE_REGISTER] [default: 127.0.0.1:7100]
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

/// A process's name by flag, else by BROADGATE_NAME.
///
/// # Errors
/// If nobody could read it in a list.
pub(crate) fn process_name(flag: Option<&String>) -> Result<Option<String>, Failure> {
    let (place, name) = match flag {
        Some(name) => ("--name", Some(name.clone())),
        None => ("environment variable BROADGATE_NAME:", environment::text("NAME")?),
    };
    // An empty one is how deployments leave it unset.
    if let Some(name) = name.as_ref().filter(|name| !name.is_empty()) {
        name::check_visible(place, name).map_err(|error| Failure::usage(error.to_string()))?;
    }
    Ok(name)
}

/// The registers that BROADGATE_REGISTER names.
pub(crate) fn registers_of_environment() -> Result<Option<Vec<String>>, Failure> {
    let Some(text) = environment::text("REGISTER")? else { return Ok(None) };
    let parts = text.split(',').map(str::trim).filter(|one| !one.is_empty());
    let all: Vec<String> = parts.map(str::to_owned).collect();
    Ok(Some(all).filter(|all| !all.is_empty()))
}
