//! The configuration: a TOML file, then the environment, then flags.
//!
//! The file is read into types that know no other keys, so its errors name line and column; each
//! variable of the environment is laid over it one at a time, so its errors name the variable. A variable
//! that is no setting is a warning: others choose names in the environment, too.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use broadgate_gateway::{
    apps::App,
    config::{Certificate, GatewaySettings},
};
use broadgate_proto::{limits, secret::Secret};
use broadgate_register::server::PREFIX_DEFAULT;
use broadgate_tasks::bounded_read::{self, ReadableKind};
use broadgate_tls::{ClusterFiles, ClusterTls, Credentials, DEFAULT_SERVER_NAME};
use serde::Deserialize;
use toml::{Table, Value};

use crate::{
    environment::{self, Environment},
    failure::Failure,
    secret_files,
    unreadable::{UnreadableInput, said},
};

/// Everything that a process can be told. Each role reads its own sections.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A file with more `[[apps]]`; `--apps` comes before it.
    pub(crate) apps_file: Option<PathBuf>,
    pub(crate) cluster: ClusterSection,
    pub(crate) register: RegisterSection,
    pub(crate) gateway: GatewaySettings,
    pub(crate) apps: Vec<App>,
    pub(crate) worker: WorkerSection,
    pub(crate) metrics: MetricsSection,
    pub(crate) dashboard: DashboardSection,
    pub(crate) log: LogSection,
    /// What is odd, and no error.
    #[serde(skip)]
    pub(crate) warnings: Vec<String>,
}

/// What every member of a cluster must know.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ClusterSection {
    /// host:port of each register; members try them in turn.
    pub(crate) register: Vec<String>,
    /// A file with the shared secret; BROADGATE_SECRET comes before it.
    pub(crate) secret_file: Option<PathBuf>,
    /// Certificates of the internal ports and of those who call them.
    pub(crate) tls: TlsSection,
}

/// Mutual TLS between the processes of a cluster: all of ca, cert and key, or none.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TlsSection {
    /// The certificates of the cluster's CA, of two while it is changed.
    pub(crate) ca: Option<PathBuf>,
    /// This process's certificate, signed by that CA.
    pub(crate) cert: Option<PathBuf>,
    /// And its key.
    pub(crate) key: Option<PathBuf>,
    /// The name that every certificate of the cluster has.
    pub(crate) server_name: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RegisterSection {
    pub(crate) bind: SocketAddr,
    #[serde(deserialize_with = "broadgate_proto::time_setting::deserialize")]
    pub(crate) beat: Duration,
    #[serde(deserialize_with = "broadgate_proto::time_setting::deserialize")]
    pub(crate) lease: Duration,
    pub(crate) ledger: LedgerKind,
    /// host:port at which members reach this register.
    pub(crate) advertise: Option<String>,
    pub(crate) etcd: EtcdSection,
}

/// What keeps the list of members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LedgerKind {
    #[default]
    Memory,
    Etcd,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EtcdSection {
    /// Client URLs of etcd's members.
    pub(crate) endpoints: Vec<String>,
    pub(crate) prefix: String,
    /// Empty if etcd authenticates nobody.
    pub(crate) user: String,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) tls: EtcdTlsSection,
}

/// PEM files.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EtcdTlsSection {
    /// Certificates of the CAs that sign etcd's.
    pub(crate) ca: Option<PathBuf>,
    /// Shown to etcd, if it asks for one.
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WorkerSection {
    /// Name in tables; the service and the process id if empty.
    pub(crate) name: String,
    pub(crate) services: Vec<String>,
    /// Events that one gateway may leave unanswered at this worker.
    pub(crate) events_max: u32,
    /// How long a stopping worker waits for its gateways.
    #[serde(deserialize_with = "broadgate_proto::time_setting::deserialize")]
    pub(crate) stop_time: Duration,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MetricsSection {
    /// Where `/metrics`, `/healthz` and `/readyz` are served; nowhere if absent.
    pub(crate) bind: Option<SocketAddr>,
    /// With the certificates of `[cluster.tls]`, to callers that have one of the cluster's.
    pub(crate) tls: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DashboardSection {
    /// Where a gateway's process serves the dashboard; nowhere if absent.
    pub(crate) bind: Option<SocketAddr>,
    /// How browsers reach it, if a proxy stands before it.
    pub(crate) url: Option<String>,
    /// Certificates of its own. Without any, where other machines reach it and there is no proxy: those of the first
    /// `web` listener that has some.
    pub(crate) tls: Vec<Certificate>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogSection {
    pub(crate) format: LogFormat,
    /// As `tracing` filters are written: "info", "warn,broadgate_gateway=debug".
    pub(crate) level: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

impl Default for ClusterSection {
    fn default() -> Self {
        Self { register: vec!["127.0.0.1:7100".to_owned()], secret_file: None, tls: TlsSection::default() }
    }
}

impl Default for TlsSection {
    fn default() -> Self {
        Self { ca: None, cert: None, key: None, server_name: DEFAULT_SERVER_NAME.to_owned() }
    }
}

impl Default for RegisterSection {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 7100)),
            beat: limits::BEAT,
            lease: limits::LEASE,
            ledger: LedgerKind::Memory,
            advertise: None,
            etcd: EtcdSection::default(),
        }
    }
}

impl Default for EtcdSection {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            prefix: PREFIX_DEFAULT.to_owned(),
            user: String::new(),
            password_file: None,
            tls: EtcdTlsSection::default(),
        }
    }
}

impl Default for WorkerSection {
    fn default() -> Self {
        Self {
            name: String::new(),
            services: vec!["default".to_owned()],
            events_max: limits::EVENTS_PER_WORKER_DEFAULT,
            stop_time: limits::DRAIN_TIME,
        }
    }
}

impl Default for LogSection {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

impl Config {
    /// The file, if one is named, and the environment over it.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, Failure> {
        let text = match file {
            None => String::new(),
            Some(path) => bounded_read::read_text(path, ReadableKind::Any).map_err(|error| {
                Failure::usage(UnreadableInput::file("config file", path, &error).to_string())
            })?,
        };
        Self::of(file, &text).map_err(|unreadable| Failure::usage(unreadable.to_string()))
    }

    /// The same, for a command that has no log: warnings go to standard error.
    pub fn load_for_command(file: Option<&Path>) -> Result<Self, Failure> {
        let config = Self::load(file)?;
        for warning in &config.warnings {
            say!("broadgate: warning: {warning}");
        }
        Ok(config)
    }

    /// From a file's text, and the environment over it.
    pub(crate) fn of(file: Option<&Path>, text: &str) -> Result<Self, UnreadableInput> {
        let shown = file.map(|path| path.display().to_string()).unwrap_or_default();
        let environment = Environment::read().map_err(UnreadableInput::Variable)?;
        Self::parse(&shown, text, environment)
    }

    fn parse(file: &str, text: &str, environment: Environment) -> Result<Self, UnreadableInput> {
        let mut config: Self =
            toml::from_str(text).map_err(|error| UnreadableInput::toml("config file", file, text, error))?;
        let mut table: Table = toml::from_str(text).unwrap_or_default();
        let nameless = environment.nameless.iter();
        let mut warnings: Vec<_> =
            nameless.map(|name| format!("environment variable {name:?}: its name is not UTF-8")).collect();
        for (key, value) in environment.settings {
            let path: Vec<String> = key.split("__").map(str::to_ascii_lowercase).collect();
            if !is_setting(&path) {
                if !environment::is_of_a_service(&key, &value.to_string_lossy()) {
                    warnings.push(environment::unknown(&key));
                }
                continue;
            }
            let complain = |what: String| {
                // A misspelt neighbour may be why.
                let more: String = warnings.iter().map(|warning| format!("; {warning}")).collect();
                UnreadableInput::Variable(format!("environment variable BROADGATE_{key}: {what}{more}"))
            };
            let Some(value) = value.to_str() else {
                return Err(UnreadableInput::Variable(environment::unreadable(&key)));
            };
            lay_over(&mut table, &path, parse_value(value)).map_err(complain)?;
            config = Self::deserialize(Value::Table(table.clone()))
                .map_err(|error| complain(said(&error).replace('\n', " ")))?;
        }
        config.warnings = warnings;
        Ok(config)
    }

    /// Warnings where others than the owner can read a file with a secret.
    pub(crate) fn secret_warnings(&self) -> Vec<String> {
        let files = [
            ("cluster.secret_file", self.cluster.secret_file.as_deref()),
            ("cluster.tls.key", self.cluster.tls.key.as_deref()),
            ("register.etcd.password_file", self.register.etcd.password_file.as_deref()),
        ];
        let exposed = files.into_iter().filter_map(|(setting, file)| secret_files::exposed(setting, file?));
        exposed
            .chain(self.gateway.tokens_file.as_deref().and_then(secret_files::writable_by_others))
            .collect()
    }

    /// What this process shows to the others of its cluster.
    ///
    /// # Errors
    /// If the secret or a certificate cannot be used.
    pub fn credentials(&self) -> Result<Credentials, Failure> {
        Ok(Credentials { secret: self.secret()?, tls: self.tls()? })
    }

    /// The TLS of the metrics port.
    ///
    /// # Errors
    /// If it is wanted, and the cluster has none.
    pub(crate) fn metrics_tls(&self, cluster: Option<&ClusterTls>) -> Result<Option<ClusterTls>, Failure> {
        if self.metrics.tls && cluster.is_none() {
            return Err(Failure::usage(
                "metrics.tls = true needs the certificates of [cluster.tls]: set its ca, cert and key, or metrics.tls = \
                 false",
            ));
        }
        Ok(cluster.filter(|_| self.metrics.tls).cloned())
    }

    pub(crate) fn tls(&self) -> Result<Option<ClusterTls>, Failure> {
        let TlsSection { ca, cert, key, server_name } = self.cluster.tls.clone();
        let name = Some(server_name).filter(|name| name != DEFAULT_SERVER_NAME);
        let settings = ["cluster.tls.ca", "cluster.tls.cert", "cluster.tls.key", "cluster.tls.server_name"];
        let files = ClusterFiles::all_or_none([ca, cert, key], name, settings);
        let opened = files.and_then(|files| files.map(ClusterTls::open).transpose());
        opened.map_err(|error| Failure::usage(format!("{error:#}")))
    }

    /// The shared secret: BROADGATE_SECRET, else the file.
    pub fn secret(&self) -> Result<Secret, Failure> {
        match (environment::text("SECRET")?, &self.cluster.secret_file) {
            (Some(text), _) => {
                Secret::parse(&text).map_err(|error| Failure::usage(format!("BROADGATE_SECRET: {error}")))
            }
            (None, Some(path)) => {
                let place = |error: &dyn std::fmt::Display| {
                    Failure::usage(format!("cluster.secret_file {}: {error}", path.display()))
                };
                let text = bounded_read::read_text(path, ReadableKind::Any).map_err(|error| place(&error))?;
                Secret::of_file(&text).map_err(|error| place(&error))
            }
            (None, None) => Ok(Secret::default()),
        }
    }
}

/// Does this path lead to a setting or a section? Asked of the types themselves, by a value that fits none.
fn is_setting(path: &[String]) -> bool {
    (1..=path.len()).all(|depth| {
        let nothing = Value::Boolean(true);
        let probe = path[..depth].iter().rev().fold(nothing, |inner, key| {
            let mut table = Table::new();
            table.insert(key.clone(), inner);
            Value::Table(table)
        });
        let unknown = format!("unknown field `{}`", path[depth - 1]);
        Config::deserialize(probe).err().is_none_or(|error| !error.message().starts_with(&unknown))
    })
}

/// A TOML value if it is one, else a text: `5000`, `true`, `["a:1"]`, `10s`.
fn parse_value(text: &str) -> Value {
    let parsed = toml::from_str::<Table>(&format!("value = {text}"));
    parsed.ok().and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

fn lay_over(table: &mut Table, path: &[String], value: Value) -> Result<(), String> {
    match path {
        [] => Err("it names no setting".to_owned()),
        [key] => {
            table.insert(key.clone(), value);
            Ok(())
        }
        [key, rest @ ..] => match table.entry(key.clone()).or_insert_with(|| Value::Table(Table::new())) {
            Value::Table(inner) => lay_over(inner, rest, value),
            _ => Err(format!("{key:?} is not a section: set it as a whole, as a TOML value")),
        },
    }
}

#[cfg(test)]
mod tests {
    use broadgate_gateway::apps::{Apps, KeySecret, WebhookEvent};

    use super::*;

    fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let environment =
            environment.iter().map(|&(key, value)| (format!("BROADGATE_{key}").into(), value.into()));
        let environment = Environment::of(environment).unwrap();
        Config::parse("test.toml", text, environment).map_err(|unreadable| unreadable.to_string())
    }

    #[test]
    fn the_environment_comes_before_the_file() {
        let text = "[gateway.limits]\nclients_max = 10\n";
        let config = parse(
            text,
            &[
                ("GATEWAY__LIMITS__CLIENTS_MAX", "20"),
                ("GATEWAY__NAME", "left"),
                ("CLUSTER__REGISTER", "[\"a:1\", \"b:2\"]"),
                ("GATEWAY__STOP__DRAIN", "3s"),
                ("SECRET", "not a setting"),
            ],
        )
        .unwrap();
        assert_eq!(config.gateway.limits.clients_max, 20);
        assert_eq!(config.gateway.name, "left");
        assert_eq!(config.cluster.register, ["a:1", "b:2"]);
        assert_eq!(config.gateway.stop.drain, Duration::from_secs(3));
        assert_eq!(parse(text, &[]).unwrap().gateway.limits.clients_max, 10);
    }

    #[test]
    fn errors_say_where() {
        let unknown = parse("[gateway]\nnmae = \"x\"\n", &[]).unwrap_err();
        assert!(
            unknown.contains("test.toml") && unknown.contains("line 2") && unknown.contains("nmae"),
            "{unknown}"
        );
        let kind = parse("[register]\nbind = \"here\"\n", &[]).unwrap_err();
        assert!(kind.contains("line 2"), "{kind}");
        let variable = parse("", &[("GATEWAY__LIMITS__CLIENTS_MAX", "many")]).unwrap_err();
        assert!(variable.contains("BROADGATE_GATEWAY__LIMITS__CLIENTS_MAX"), "{variable}");
        let wrong = parse("", &[("GATEWAY__STOP", "{ drian = \"1s\" }")]).unwrap_err();
        assert!(wrong.contains("BROADGATE_GATEWAY__STOP") && wrong.contains("drian"), "{wrong}");
        let section = parse("", &[("GATEWAY__NAME__X", "1")]).unwrap_err();
        assert!(section.contains("BROADGATE_GATEWAY__NAME__X"), "{section}");
        let affinity = parse("[gateway]\naffinity = \"random\"\n", &[]).unwrap_err();
        assert!(affinity.contains("least-loaded"), "{affinity}");
    }

    /// Names in the environment are chosen by others, too.
    #[test]
    fn unknown_variables_are_warnings() {
        let config = parse(
            "",
            &[
                ("GATWAY__NAME", "x"),
                ("PORT", "tcp://10.96.0.7:8080"),
                ("GATEWAY_PORT_8080_TCP", "tcp://10.96.0.7:8080"),
                ("SERVICE_HOST", "10.96.0.7"),
                ("GATEWAY__LIMITS__CLIENT_MAX", "5"),
                ("GATEWAY__NAME", ""),
                ("LIMITS", "5"),
                ("WARNINGS", "5"),
            ],
        )
        .unwrap();
        let named: Vec<&str> =
            config.warnings.iter().filter_map(|warning| warning.split_whitespace().nth(2)).collect();
        let expected = ["GATEWAY__LIMITS__CLIENT_MAX", "GATWAY__NAME", "LIMITS", "WARNINGS"];
        assert_eq!(named, expected.map(|name| format!("BROADGATE_{name}")));
        assert!(config.warnings[1].ends_with("did you mean BROADGATE_GATEWAY__NAME?"));
    }

    /// The reference names every setting with its default: as it stands, and with every commented
    /// line put in force, it means what no file means.
    #[test]
    fn the_reference_is_whole_and_true() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/config/broadgate.toml");
        let text = std::fs::read_to_string(path).unwrap();
        let as_it_stands = parse(&text, &[]).unwrap();
        let in_force: String = text
            .lines()
            .map(|line| line.strip_prefix("#= ").unwrap_or(line))
            .fold(String::new(), |text, line| text + line + "\n");
        let all = parse(&in_force, &[]).unwrap();
        let default = Config::default();
        for config in [&as_it_stands, &all] {
            let (mut config, mut default) = (config.clone(), default.clone());
            // These have no default to state, or an example beside it.
            for one in [&mut config, &mut default] {
                one.apps.clear();
                one.apps_file = None;
                one.cluster.secret_file = None;
                (one.cluster.tls.ca, one.cluster.tls.cert, one.cluster.tls.key) = (None, None, None);
                one.gateway.shards = None;
                one.gateway.spool = None;
                (one.gateway.tokens_file, one.gateway.audit.file) = (None, None);
                one.gateway.internal.advertise = None;
                one.metrics.bind = None;
                (one.dashboard.bind, one.dashboard.url) = (None, None);
                one.dashboard.tls.clear();
                one.register.advertise = None;
                one.register.etcd.endpoints.clear();
                one.register.etcd.user.clear();
                one.register.etcd.password_file = None;
                one.register.etcd.tls = EtcdTlsSection::default();
                one.gateway.listeners.truncate(1);
                one.gateway.listeners[0].tls.clear();
                one.gateway.listeners[0].silence_max = Some(one.gateway.listeners[0].silence());
            }
            assert!(std::mem::take(&mut config.gateway.groups).len() <= 1);
            assert_eq!(format!("{config:#?}"), format!("{default:#?}"));
        }
        // Its example of an app has the default of every setting that has one.
        let [app] = &all.apps[..] else { panic!("{} apps", all.apps.len()) };
        let mut filled = app.clone();
        filled.keys[1].secret = KeySecret::new("as its file says");
        filled.redis.as_mut().unwrap().password = KeySecret::new("as its file says");
        Apps::new(vec![filled]).unwrap();
        let mut example = App {
            raw: app.raw,
            socketio: app.socketio,
            auth: app.auth.clone(),
            redis: app.redis.clone(),
            service: app.service.clone(),
            origins: app.origins.clone(),
            keys: app.keys.clone(),
            webhooks: app.webhooks.clone(),
            ..App::new("default")
        };
        // Their defaults depend on `compat`: the reference states those of the hosted service.
        example.limits.presence_members_max = Some(100);
        example.limits.client_events_per_second_max = Some(10);
        assert_eq!(format!("{app:#?}"), format!("{example:#?}"));
        assert_eq!((app.keys.len(), app.webhooks.len()), (2, 1));
        assert_eq!(app.webhooks[0].events, WebhookEvent::ALL);
        // Its examples name every setting of a group and an app.
        let debug = format!("{:#?} {:#?} {:#?}", Config::default(), all.gateway.groups, all.apps);
        let keys = debug.lines().filter_map(|line| line.trim().split_once(": ")).map(|(key, _)| key);
        for key in
            keys.filter(|key| *key != "warnings" && key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        {
            assert!(
                text.contains(&format!("{key} =")) || text.contains(&format!("{key}]")),
                "{key} is not in the reference"
            );
        }
    }
}
