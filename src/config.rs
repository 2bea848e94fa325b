//! The configuration: a TOML file, then the environment, then flags.
//!
//! The file is read into types that know no other keys, so its errors name line and column; each
//! variable of the environment is laid over it one at a time, so its errors name the variable.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use broadgate_gateway::{apps::App, config::Settings};
use broadgate_proto::{limits, secret::Secret};
use serde::Deserialize;
use toml::{Table, Value};

use crate::{failure::Failure, unreadable::Unreadable};

const PREFIX: &str = "BROADGATE_";
/// Variables that are not keys of the file.
const OWN: [&str; 9] =
    ["SECRET", "CONFIG", "APPS", "ADDR", "REGISTER", "SERVICE", "NAME", "LOG", "REGENERATE"];

/// Everything that a process can be told. Each role reads its own sections.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// A file with more `[[apps]]`; `--apps` comes before it.
    pub(crate) apps_file: Option<PathBuf>,
    pub(crate) cluster: ClusterSection,
    pub(crate) register: RegisterSection,
    pub(crate) gateway: Settings,
    pub(crate) apps: Vec<App>,
    pub(crate) worker: WorkerSection,
    pub(crate) metrics: MetricsSection,
    pub(crate) log: LogSection,
}

/// What every member of a cluster must know.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ClusterSection {
    /// host:port of each register; members try them in turn.
    pub(crate) register: Vec<String>,
    /// A file with the shared secret; BROADGATE_SECRET comes before it.
    pub(crate) secret_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RegisterSection {
    pub(crate) bind: SocketAddr,
    #[serde(with = "humantime_serde")]
    pub(crate) beat: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) lease: Duration,
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
    #[serde(with = "humantime_serde")]
    pub(crate) stop_time: Duration,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MetricsSection {
    /// Where `/metrics`, `/healthz` and `/readyz` are served; nowhere if absent.
    pub(crate) bind: Option<SocketAddr>,
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
        Self { register: vec!["127.0.0.1:7100".to_owned()], secret_file: None }
    }
}

impl Default for RegisterSection {
    fn default() -> Self {
        Self { bind: SocketAddr::from(([127, 0, 0, 1], 7100)), beat: limits::BEAT, lease: limits::LEASE }
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
        let (config, _) = Self::read(file).map_err(|unreadable| Failure::usage(unreadable.to_string()))?;
        Ok(config)
    }

    /// The same, and the file's text.
    pub(crate) fn read(file: Option<&Path>) -> Result<(Self, String), Unreadable> {
        let text = match file {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| Unreadable::file("config file", path, &error))?,
        };
        let shown = file.map(|path| path.display().to_string()).unwrap_or_default();
        let environment =
            std::env::vars().filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?.to_owned(), value)));
        let config = Self::parse(&shown, &text, environment)?;
        Ok((config, text))
    }

    fn parse(
        file: &str,
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Unreadable> {
        let mut config: Self =
            toml::from_str(text).map_err(|error| Unreadable::toml("config file", file, text, error))?;
        let mut table: Table = toml::from_str(text).unwrap_or_default();
        let mut variables: Vec<_> =
            environment.filter(|(key, value)| !OWN.contains(&key.as_str()) && !value.is_empty()).collect();
        variables.sort();
        for (key, value) in variables {
            let path: Vec<String> = key.split("__").map(str::to_ascii_lowercase).collect();
            let complain =
                |what: String| Unreadable::Variable(format!("environment variable {PREFIX}{key}: {what}"));
            lay_over(&mut table, &path, parse_value(&value)).map_err(complain)?;
            config = Self::deserialize(Value::Table(table.clone()))
                .map_err(|error| complain(error.to_string().trim_end().replace('\n', " ")))?;
        }
        Ok(config)
    }

    /// The shared secret: BROADGATE_SECRET, else the file.
    pub(crate) fn secret(&self) -> Result<Secret, Failure> {
        let (place, text) = match (std::env::var("BROADGATE_SECRET"), &self.cluster.secret_file) {
            (Ok(text), _) if !text.is_empty() => ("BROADGATE_SECRET".to_owned(), text),
            (_, Some(path)) => {
                let place = format!("cluster.secret_file {}", path.display());
                let text = std::fs::read_to_string(path)
                    .map_err(|error| Failure::usage(format!("{place}: {error}")))?;
                (place, text)
            }
            _ => return Ok(Secret::default()),
        };
        Secret::parse(&text).map_err(|error| Failure::usage(format!("{place}: {error}")))
    }
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
        let environment = environment.iter().map(|&(key, value)| (key.to_owned(), value.to_owned()));
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
        let nothing = parse("", &[("GATWAY__NAME", "x")]).unwrap_err();
        assert!(nothing.contains("BROADGATE_GATWAY__NAME") && nothing.contains("gatway"), "{nothing}");
        let affinity = parse("[gateway]\naffinity = \"random\"\n", &[]).unwrap_err();
        assert!(affinity.contains("least-loaded"), "{affinity}");
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
                one.gateway.shards = None;
                one.gateway.spool = None;
                one.gateway.internal.advertise = None;
                one.metrics.bind = None;
                one.gateway.listeners.truncate(1);
                one.gateway.listeners[0].silence_max = Some(one.gateway.listeners[0].silence());
            }
            assert!(std::mem::take(&mut config.gateway.groups).len() <= 1);
            assert_eq!(format!("{config:#?}"), format!("{default:#?}"));
        }
        // Its example of an app has the default of every setting that has one.
        let [app] = &all.apps[..] else { panic!("{} apps", all.apps.len()) };
        let mut filled = app.clone();
        filled.keys[1].secret = KeySecret::new("as its file says");
        Apps::new(vec![filled]).unwrap();
        let example = App {
            raw: app.raw,
            service: app.service.clone(),
            origins: app.origins.clone(),
            keys: app.keys.clone(),
            webhooks: app.webhooks.clone(),
            ..App::new("default")
        };
        assert_eq!(format!("{app:#?}"), format!("{example:#?}"));
        assert_eq!((app.keys.len(), app.webhooks.len()), (2, 1));
        assert_eq!(app.webhooks[0].events, WebhookEvent::ALL);
        // Its examples name every setting of a group and an app.
        let debug = format!("{:#?} {:#?} {:#?}", Config::default(), all.gateway.groups, all.apps);
        let keys = debug.lines().filter_map(|line| line.trim().split_once(": ")).map(|(key, _)| key);
        for key in keys.filter(|key| key.chars().all(|c| c.is_ascii_lowercase() || c == '_')) {
            assert!(
                text.contains(&format!("{key} =")) || text.contains(&format!("{key}]")),
                "{key} is not in the reference"
            );
        }
    }
}
