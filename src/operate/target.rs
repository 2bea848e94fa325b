//! Which cluster an operator's command asks, and what its answer lacks.

use std::{io::IsTerminal as _, path::PathBuf, time::Duration};

use broadgate_business::{Cluster, Credentials, Secret, v1::Coverage};
use broadgate_gateway::config::InternalListener;
use broadgate_proto::{name, said};
use clap::Args;

use crate::{
    environment,
    failure::Failure,
    operate::{
        profiles::{Profile, Profiles},
        token_source,
    },
    options::ConfigFile,
    setting_errors,
};

/// For the search for a gateway that answers, of all the time that a command may take.
const REACH_TIME_MAX: Duration = Duration::from_secs(5);
/// How long one of several addresses is tried at least.
const ADDRESS_TIME_LEAST: Duration = Duration::from_millis(500);

/// Which cluster is asked, by its name or by the address of a gateway.
#[derive(Debug, Clone, Default, Args)]
pub struct At {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    /// A cluster that `broadgate cluster add` has named: address and credentials are its own [env:
    /// BROADGATE_CLUSTER] [default: the one that `broadgate cluster use` has chosen]
    #[arg(long, value_name = "NAME")]
    pub(super) cluster: Option<String>,
    /// The internal port of any gateway [env: BROADGATE_ADDR] [default: the configuration's, 127.0.0.1:7200]
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "cluster")]
    pub(super) addr: Option<String>,
    /// The file whose first line is your token, which is shown in the shared secret's place [env: BROADGATE_TOKEN, the token
    /// itself]
    #[arg(long, value_name = "FILE", conflicts_with = "cluster")]
    pub(super) token_file: Option<PathBuf>,
}

/// Where a command goes, and what it shows there.
#[derive(Debug, Clone)]
pub struct ChosenCluster {
    /// The profile's name; none if an address was given, or nothing.
    pub name: Option<String>,
    /// The first that answers is asked.
    pub addresses: Vec<String>,
    /// The secret or a token, and the certificates.
    pub credentials: Credentials,
    /// The app of commands that name none.
    pub app: Option<String>,
    /// Orders ask for the cluster's name.
    pub protected: bool,
    /// The configured registers, if nothing that was said comes before the configuration.
    pub(super) registers: Option<Vec<String>>,
}

/// What decides, in this order: a name or an address that was typed, the environment, the profile in use, the
/// configuration.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// The profile of this name, and what named it.
    Profile(String, &'static str),
    /// This address, and what named it.
    Address(String, &'static str),
    /// What the configuration says.
    Config,
}

/// What was said about which cluster is meant.
#[derive(Debug, Default)]
struct SaidPlaces {
    cluster_flag: Option<String>,
    addr_flag: Option<String>,
    /// A configuration file was typed.
    config_flag: bool,
    cluster_variable: Option<String>,
    addr_variable: Option<String>,
}

impl SaidPlaces {
    /// `used` reads the profile in use, if it comes to that.
    fn choose(self, used: impl FnOnce() -> Result<Option<String>, Failure>) -> Result<Choice, Failure> {
        if let Some(name) = self.cluster_flag {
            return Ok(Choice::Profile(name, "--cluster"));
        }
        if let Some(address) = self.addr_flag {
            return Ok(Choice::Address(address, "--addr"));
        }
        // A typed file comes before the name of a cluster in the environment, as every flag does.
        if let Some(name) = self.cluster_variable.filter(|_| !self.config_flag) {
            return Ok(Choice::Profile(name, "BROADGATE_CLUSTER"));
        }
        if let Some(address) = self.addr_variable {
            return Ok(Choice::Address(address, "BROADGATE_ADDR"));
        }
        let used = if self.config_flag { None } else { used()? };
        Ok(used.map_or(Choice::Config, |name| Choice::Profile(name, "`broadgate cluster use`")))
    }
}

impl At {
    /// Was a cluster or a gateway named by flag?
    pub(super) fn is_named(&self) -> bool {
        self.addr.is_some() || self.cluster.is_some()
    }

    /// Refuses load at a protected cluster, also where nothing is sent through it: clients are load as well.
    ///
    /// # Errors
    /// If it is protected, or a cluster was named and cannot be used.
    pub fn check_load(&self) -> Result<(), Failure> {
        match self.open() {
            Ok(chosen) => chosen.check_load(),
            Err(failure) if self.is_named() => Err(failure),
            Err(_) => Ok(()),
        }
    }

    /// The cluster that is meant.
    ///
    /// # Errors
    /// If the configuration or the profile cannot be used, or an address is none.
    pub fn open(&self) -> Result<ChosenCluster, Failure> {
        self.choose(true)
    }

    /// The same, unless a program would have to be run for the token: it may ask its user for a password.
    ///
    /// # Errors
    /// The same, and then.
    pub(super) fn open_without_programs(&self) -> Result<ChosenCluster, Failure> {
        self.choose(false)
    }

    fn choose(&self, runs_programs: bool) -> Result<ChosenCluster, Failure> {
        let said = SaidPlaces {
            cluster_flag: self.cluster.clone(),
            addr_flag: self.addr.clone(),
            config_flag: self.file.flag().is_some(),
            cluster_variable: environment::cluster()?,
            addr_variable: environment::text("ADDR")?,
        };
        let mut profiles = None;
        let choice = said.choose(|| {
            let read = profiles.insert(Profiles::read()?);
            Ok(read.used.clone())
        })?;
        match choice {
            Choice::Profile(name, by) => {
                let profiles = profiles.map_or_else(Profiles::read, Ok)?;
                if !runs_programs && profiles.get(&name).is_ok_and(|profile| profile.token_command.is_some())
                {
                    return Err(Failure::usage(format!("{by}: the token of {name:?} comes from a program")));
                }
                self.profile(&profiles, name, by)
            }
            Choice::Address(address, by) => self.configured(Some((by, address))),
            Choice::Config => self.configured(None),
        }
    }

    /// A profile, as a whole.
    fn profile(&self, profiles: &Profiles, name: String, by: &str) -> Result<ChosenCluster, Failure> {
        let wrong = |what: String| Failure::usage(format!("{by}: {what}"));
        let profile = profiles.get(&name).map_err(wrong)?;
        let token_flag = self.token_file.as_ref().map(|_| "--token-file");
        if let Some(flag) = self.file.first_flag().or(token_flag) {
            return Err(wrong(format!(
                "cluster {name:?} is taken as a whole, with its own secret and certificates: leave out {flag}, or \
                 name a gateway with --addr"
            )));
        }
        let credentials = by_cli(profiles.credentials(&name, profile)?);
        let Profile { addresses, app, protected, .. } = profile.clone();
        Ok(ChosenCluster { name: Some(name), addresses, credentials, app, protected, registers: None })
    }

    /// The token that was given, and not by a profile.
    fn token(&self) -> Result<Option<Secret>, Failure> {
        if let Some(path) = &self.token_file {
            return token_source::of_file(path).map(Some).map_err(Failure::Usage);
        }
        let given = environment::text("TOKEN")?;
        let token = given.map(|text| token_source::in_text(&text)).transpose();
        token.map_err(|error| Failure::usage(format!("environment variable BROADGATE_TOKEN: {error}")))
    }

    /// The configuration's credentials, for an address that was named, or its own.
    fn configured(&self, named: Option<(&str, String)>) -> Result<ChosenCluster, Failure> {
        let config = self.file.load_for_command()?;
        let registers = named.is_none().then(|| config.cluster.register.clone());
        let (place, address) =
            named.unwrap_or_else(|| ("gateway.internal", reached(&config.gateway.internal)));
        name::check_address(&address).map_err(|error| Failure::usage(format!("{place}: {error}")))?;
        let credentials = match self.token()? {
            // The holder of a token need not be able to read the secret.
            Some(token) => Credentials { secret: token, tls: config.tls()? },
            None => config.credentials()?,
        };
        let credentials = by_cli(credentials);
        Ok(ChosenCluster {
            name: None,
            addresses: vec![address],
            credentials,
            app: None,
            protected: false,
            registers,
        })
    }
}

impl ChosenCluster {
    /// The cluster of one gateway, without a name.
    pub(crate) fn of_gateway(address: String, credentials: Credentials) -> Self {
        Self {
            name: None,
            addresses: vec![address],
            credentials,
            app: None,
            protected: false,
            registers: None,
        }
    }

    fn check_load(&self) -> Result<(), Failure> {
        match self.name.as_ref().filter(|_| self.protected) {
            Some(name) => Err(Failure::usage(format!(
                "cluster {name:?} is protected: no load is made there; name another one with --cluster or --addr"
            ))),
            None => Ok(()),
        }
    }

    /// A failure at this cluster, which is named if it has a name.
    pub(super) fn failure(&self, failure: Failure) -> Failure {
        match &self.name {
            Some(name) => failure.at(&format!("cluster {name:?}")),
            None => failure,
        }
    }

    /// Tells a person at a terminal which cluster this is.
    pub(super) fn announce(&self, address: &str) {
        if let Some(name) = &self.name
            && std::io::stderr().is_terminal()
        {
            say!("cluster {name}, by {address}");
        }
    }

    /// Tries the addresses, and takes the first at which `answers` succeeds or is refused for another reason than
    /// that nothing answers there. All of them together take as long as one may.
    pub(super) async fn first<T, F>(
        &self,
        timeout: Duration,
        answers: impl Fn(String, Duration) -> F,
    ) -> Result<(String, T), Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let share = timeout / u32::try_from(self.addresses.len().max(1)).unwrap_or(u32::MAX);
        let mut silent = Vec::new();
        for address in &self.addresses {
            match answers(address.clone(), share.max(ADDRESS_TIME_LEAST.min(timeout))).await {
                Err(Failure::Unreachable(sentence)) => silent.push(sentence),
                Err(failure) => return Err(self.failure(failure)),
                Ok(answer) => return Ok((address.clone(), answer)),
            }
        }
        let all = if silent.len() > 1 { "no address answers: " } else { "" };
        Err(self.failure(Failure::Unreachable(format!("{all}{}", silent.join("; ")))))
    }
}

/// The same, sent by this program.
fn by_cli(Credentials { secret, tls }: Credentials) -> Credentials {
    Credentials { secret: secret.of_program(said::CLI), tls }
}

/// Where a gateway of this configuration is reached from its own machine.
pub(crate) fn reached(internal: &InternalListener) -> String {
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
    /// The app that the command concerns [default: the cluster's, else default]
    #[arg(long)]
    pub app: Option<String>,
    /// Time limit for the answer; a gateway waits some seconds for the others, and then names those that do not answer
    #[arg(long, default_value = "10s", value_parser = setting_errors::duration)]
    pub timeout: Duration,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A gateway that answers.
#[derive(Debug)]
pub struct ReachedCluster {
    /// For commands.
    pub cluster: Cluster,
    /// Its internal port.
    pub address: String,
    /// Whether it has the app, and the token is for it.
    pub(super) known: Result<(), Failure>,
}

impl ReachedCluster {
    /// For commands about the app.
    ///
    /// # Errors
    /// If there is no such app, or the token is not for it.
    pub(super) fn of_app(self) -> Result<Cluster, Failure> {
        self.known.map(|()| self.cluster)
    }
}

impl ClusterTarget {
    /// A gateway that answers, and knows the app.
    pub async fn cluster(&self) -> Result<Cluster, Failure> {
        self.reach(&self.at.open()?).await?.of_app()
    }

    /// The same for the load generator, which never goes to a protected cluster, and the gateway's address.
    ///
    /// # Errors
    /// If the cluster is protected, cannot be reached, or has no such app.
    pub async fn cluster_for_load(&self) -> Result<(Cluster, String), Failure> {
        let chosen = self.at.open()?;
        chosen.check_load()?;
        let reached = self.reach(&chosen).await?;
        let address = reached.address.clone();
        Ok((reached.of_app()?, address))
    }

    /// A gateway that answers, whether it knows the app or not, unless one was named.
    pub(crate) async fn any_app(&self) -> Result<Cluster, Failure> {
        let reached = self.reach(&self.at.open()?).await?;
        if self.app.is_some() { reached.of_app() } else { Ok(reached.cluster) }
    }

    /// A gateway of the chosen cluster that answers.
    pub(super) async fn reach(&self, chosen: &ChosenCluster) -> Result<ReachedCluster, Failure> {
        let app = self.app.as_deref().or(chosen.app.as_deref()).unwrap_or(name::DEFAULT_APP);
        let credentials = &chosen.credentials;
        let asked = |address: String, within| async move {
            match super::probe::gateway(&address, credentials, app, within).await {
                Err(Failure::NotFound(sentence)) => {
                    Ok(Err(Failure::NotFound(format!("{sentence}; name the app with --app"))))
                }
                // What the command itself needs is said by its own refusal.
                Err(refused @ Failure::NotAllowed(_)) => Ok(Err(refused)),
                known => known.map(Ok),
            }
        };
        let (address, known) = chosen.first(self.timeout.min(REACH_TIME_MAX), asked).await?;
        chosen.announce(&address);
        let cluster = Cluster::to_gateway(&address, credentials.clone(), app, self.timeout)?;
        Ok(ReachedCluster { cluster, address, known })
    }
}

/// An incomplete answer is printed, and then told by the exit code.
pub(super) fn complete(coverage: Option<&Coverage>) -> Result<(), Failure> {
    match coverage {
        Some(coverage) if !coverage.complete => Err(Failure::Incomplete(incomplete(&coverage.missing))),
        _ => Ok(()),
    }
}

/// Says who is missing; a gateway that has never heard the register knows nobody.
fn incomplete(missing: &[String]) -> String {
    let names: Vec<&str> = missing.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return "the answer is incomplete: the gateway that was asked has never heard the register"
            .to_owned();
    }
    format!("the answer is incomplete: {} did not answer in time", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_missing_is_named() {
        assert!(incomplete(&["gw-1".to_owned(), "gw-2".to_owned()]).contains(": gw-1, gw-2 did not answer"));
        assert!(incomplete(&[]).contains("never heard the register"));
        assert!(incomplete(&[String::new()]).contains("never heard the register"));
    }

    /// Each place comes before all that follow it.
    #[test]
    fn what_is_typed_comes_first() {
        let text = |text: &str| Some(text.to_owned());
        let mut said = SaidPlaces {
            cluster_flag: text("typed"),
            addr_flag: text("a:1"),
            config_flag: false,
            cluster_variable: text("variable"),
            addr_variable: text("b:2"),
        };
        let choose = |said: &SaidPlaces, used: Option<&str>| {
            let said = SaidPlaces {
                cluster_flag: said.cluster_flag.clone(),
                addr_flag: said.addr_flag.clone(),
                config_flag: said.config_flag,
                cluster_variable: said.cluster_variable.clone(),
                addr_variable: said.addr_variable.clone(),
            };
            said.choose(|| Ok(used.map(str::to_owned))).unwrap()
        };
        assert_eq!(choose(&said, Some("used")), Choice::Profile("typed".into(), "--cluster"));
        said.cluster_flag = None;
        assert_eq!(choose(&said, Some("used")), Choice::Address("a:1".into(), "--addr"));
        said.addr_flag = None;
        assert_eq!(choose(&said, Some("used")), Choice::Profile("variable".into(), "BROADGATE_CLUSTER"));
        said.cluster_variable = None;
        assert_eq!(choose(&said, Some("used")), Choice::Address("b:2".into(), "BROADGATE_ADDR"));
        said.addr_variable = None;
        assert_eq!(choose(&said, Some("used")), Choice::Profile("used".into(), "`broadgate cluster use`"));
        assert_eq!(choose(&said, None), Choice::Config);
        said.config_flag = true;
        assert_eq!(choose(&said, Some("used")), Choice::Config);
        said.cluster_variable = text("variable");
        assert_eq!(choose(&said, Some("used")), Choice::Config);
        let broken = SaidPlaces::default().choose(|| Err(Failure::usage("unreadable")));
        assert!(matches!(broken, Err(Failure::Usage(_))));
        let unread = SaidPlaces { addr_variable: text("b:2"), ..SaidPlaces::default() };
        assert!(unread.choose(|| Err(Failure::usage("unreadable"))).is_ok(), "the file is not in the way");
    }
}
