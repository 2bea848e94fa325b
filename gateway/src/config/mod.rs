//! The settings of a gateway. Opens nothing; `deploy/config/broadgate.toml` has the same with comments.
//!
//! | file | what |
//! |---|---|
//! | `listener.rs` | client listeners |
//! | `gateway_limits.rs` | limits, and what they allow together |
//! | `recorder_sizes.rs` | how many ends, refusals and sends are remembered |
//! | `retention.rs` | what groups retain |
//! | `check.rs` | contradictions, refused with a sentence |

mod check;
mod gateway_limits;
mod listener;
mod recorder_sizes;
mod retention;

use std::{collections::HashMap, net::SocketAddr, num::NonZeroU16, path::PathBuf, time::Duration};

use broadgate_proto::limits;
use broadgate_tls::Credentials;
use broadgate_topics::{Pattern, Retention, RetentionRule, RetentionRules};
use serde::Deserialize;

use crate::{
    apps::{AppTable, Apps},
    callers::Tokens,
    config::retention::CACHE_PREFIXES,
    events::EventLog,
};

pub use self::{
    gateway_limits::GatewayLimits,
    listener::{AcceptMode, Affinity, Authorize, Certificate, Listener, ListenerKind},
    recorder_sizes::RecorderSizes,
    retention::RetainedGroups,
};

/// The configuration of one gateway process.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the register is; tried in turn.
    pub registers: Vec<String>,
    /// What the internal ports of the cluster ask of their callers.
    pub credentials: Credentials,
    /// The `[gateway]` section.
    pub settings: GatewaySettings,
    /// The `[[apps]]` sections, which may be replaced while the gateway runs.
    pub apps: Apps,
    /// The tokens of operators, which may be replaced as well.
    pub tokens: Tokens,
    /// What happens, for operators who ask.
    pub events: EventLog,
    /// Connections that other ports of the process may have, such as its dashboard's: they are left out of what the
    /// limit on open files allows to clients.
    pub other_connections: usize,
    /// Pages served on the web listeners (the demo's).
    pub pages: &'static [StaticPage],
}

/// A page that a web listener serves as it is.
#[derive(Debug, Clone, Copy)]
pub struct StaticPage {
    /// Its path, e.g. `/`.
    pub path: &'static str,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its bytes.
    pub body: &'static [u8],
}

/// The `[gateway]` section of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    /// Name in tables and answers; the advertised address if empty.
    pub name: String,
    /// Where commands, workers and peers come in.
    pub internal: InternalListener,
    /// Shard threads; as many as the machine has cores if absent.
    pub shards: Option<NonZeroU16>,
    /// How connections reach the shards.
    pub accept: AcceptMode,
    /// Where clients come in.
    pub listeners: Vec<Listener>,
    /// How a client's worker is chosen.
    pub affinity: Affinity,
    /// Groups that keep what was sent to them.
    pub groups: Vec<RetainedGroups>,
    /// The folder in which webhooks that wait survive a restart; absent: they do not.
    pub spool: Option<PathBuf>,
    /// The file with the tokens of operators; absent: callers have the shared secret.
    pub tokens_file: Option<PathBuf>,
    /// Where it is written what callers do.
    pub audit: AuditSettings,
    /// What is remembered of ends, refusals and sends.
    pub recorder: RecorderSizes,
    /// Bounds.
    pub limits: GatewayLimits,
    /// How a gateway stops.
    pub stop: Stop,
}

/// Where it is written what callers do.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditSettings {
    /// The file; absent: the log, target `audit`.
    pub file: Option<PathBuf>,
}

/// An internal listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InternalListener {
    /// Where to listen. Default 127.0.0.1:7200.
    pub bind: SocketAddr,
    /// The address that others dial, host:port; derived from `bind` if absent.
    pub advertise: Option<String>,
}

/// How a gateway stops.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stop {
    /// From "not ready" to the first close.
    #[serde(deserialize_with = "broadgate_proto::time_setting::deserialize")]
    pub ready_delay: Duration,
    /// Deadline for closing all clients.
    #[serde(deserialize_with = "broadgate_proto::time_setting::deserialize")]
    pub drain: Duration,
}

impl GatewaySettings {
    /// The services of the listeners whose clients' events need a worker, by the listener's name.
    pub(crate) fn listener_services(&self) -> HashMap<String, String> {
        let listeners = self.listeners.iter().filter(|listener| !listener.service.is_empty());
        listeners.map(|listener| (listener.name.clone(), listener.service.clone())).collect()
    }

    /// What groups keep, as the homes read it: what `groups` says, and behind it the last event of
    /// every cache channel of the apps that take Pusher clients.
    pub(crate) fn retention_rules(&self, apps: &AppTable) -> RetentionRules {
        let rules = self.groups.iter().map(|group| RetentionRule {
            groups: Pattern { app: group.app.clone(), pattern: group.pattern.clone() },
            keep: Retention {
                messages: group.history_messages,
                time: group.history_time,
                last: group.last_value_time,
            },
        });
        let cached = apps.iter().filter(|app| !app.keys.is_empty()).flat_map(|app| {
            CACHE_PREFIXES.map(|prefix| RetentionRule {
                groups: Pattern { app: app.id.clone(), pattern: format!("{prefix}*") },
                keep: Retention { last: app.cache_time, ..Retention::default() },
            })
        });
        RetentionRules(rules.chain(cached).collect())
    }
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            name: String::new(),
            internal: InternalListener::default(),
            shards: None,
            accept: if cfg!(target_os = "linux") { AcceptMode::Shards } else { AcceptMode::One },
            listeners: vec![Listener::web(SocketAddr::from(([127, 0, 0, 1], 8080)))],
            affinity: Affinity::default(),
            groups: Vec::new(),
            spool: None,
            tokens_file: None,
            audit: AuditSettings::default(),
            recorder: RecorderSizes::default(),
            limits: GatewayLimits::default(),
            stop: Stop::default(),
        }
    }
}

impl Default for InternalListener {
    fn default() -> Self {
        Self { bind: SocketAddr::from(([127, 0, 0, 1], 7200)), advertise: None }
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self { ready_delay: limits::READY_DELAY, drain: limits::DRAIN_TIME }
    }
}

/// Could one process not listen on both?
#[must_use]
pub fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    // Port 0 is any free one. A wildcard takes the port of every address.
    let ips = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && ips
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::{App, KeyPair, KeySecret};
    use broadgate_topics::Topic;

    #[test]
    fn what_no_gateway_can_start_with_is_refused() {
        let config = |toml: &str| {
            let settings = toml::from_str(toml).unwrap();
            let registers = vec!["127.0.0.1:7100".to_owned()];
            Config {
                registers,
                credentials: Credentials::default(),
                settings,
                apps: Apps::new(vec![]).unwrap(),
                tokens: Tokens::default(),
                events: EventLog::default(),
                other_connections: 0,
                pages: &[],
            }
        };
        assert_eq!(config("").check(), Ok(()));
        let listener = |name: &str, bind: &str| {
            format!("[[listeners]]\nname = \"{name}\"\nkind = \"web\"\nbind = \"{bind}\"\n")
        };
        let two = |one, other| listener("a", one) + &listener("b", other);
        assert_eq!(config(&two("127.0.0.1:0", "127.0.0.1:0")).check(), Ok(()));
        assert_eq!(config(&two("127.0.0.1:81", "127.0.0.2:81")).check(), Ok(()));
        for (toml, words) in [
            (two("127.0.0.1:81", "127.0.0.1:81"), "\"a\" has the port 81"),
            (two("0.0.0.0:81", "127.0.0.1:81"), "\"a\" has the port 81"),
            (two("127.0.0.1:81", "[::]:81"), "\"a\" has the port 81"),
            (listener("a", "0.0.0.0:7200"), "gateway.internal.bind has the port 7200"),
            (listener("a", "127.0.0.1:81") + "app = \"none\"\n", "no app \"none\""),
            ("[[groups]]\napp = \"none\"\npattern = \"*\"\n".to_owned(), "no app \"none\""),
            ("internal = { advertise = \"here\" }".to_owned(), "gateway.internal.advertise"),
            ("limits = { link_timeout = \"0s\" }".to_owned(), "link_timeout"),
            ("limits = { handshake_time_max = \"0s\" }".to_owned(), "handshake_time_max"),
            ("limits = { outbox_messages_max = 0 }".to_owned(), "outbox_messages_max"),
        ] {
            let error = config(&toml).check().unwrap_err();
            assert!(error.contains(words), "{toml}: {error}");
        }
        for register in ["", "host", "http://host:7100", "host:0"] {
            let wrong = Config { registers: vec![register.to_owned()], ..config("") };
            assert!(wrong.check().unwrap_err().contains("cluster.register"), "{register}");
        }
    }

    #[test]
    fn limits_that_do_not_go_together_are_refused_with_both_names() {
        let check = |limits: GatewayLimits, apps: Vec<App>| {
            let settings = GatewaySettings { limits, ..GatewaySettings::default() };
            let secret = broadgate_proto::secret::Secret::default();
            let apps = Apps::new(apps).unwrap();
            let (registers, tokens) = (vec!["r:1".into()], Tokens::default());
            let (credentials, events) = (secret.into(), EventLog::default());
            Config {
                registers,
                credentials,
                settings,
                apps,
                tokens,
                events,
                other_connections: 0,
                pages: &[],
            }
            .check()
        };
        let of = |message_bytes_max, outbox_bytes_max| GatewayLimits {
            message_bytes_max,
            outbox_bytes_max,
            ..GatewayLimits::default()
        };
        const MIB: usize = 1 << 20;
        check(of(64 * MIB, limits::OUTBOX_BYTES_MAX), Vec::new()).expect("the outbox follows");
        check(of(64 * MIB, 64 * MIB), Vec::new()).unwrap();
        let refused = |limits, apps| check(limits, apps).unwrap_err();
        let small = refused(of(4 * MIB, 2 * MIB), Vec::new());
        assert!(small.contains("outbox_bytes_max") && small.contains("message_bytes_max"), "{small}");
        assert!(refused(of(64 * MIB + 1, 128 * MIB), Vec::new()).contains("67108864"));
        let sum = refused(GatewayLimits { outboxes_bytes_max: MIB, ..of(1000, MIB) }, Vec::new());
        assert!(sum.contains("outboxes_bytes_max (1048576)") && sum.contains("outbox_bytes_max"), "{sum}");
        let key =
            KeyPair { key: "k".into(), secret: KeySecret::new("0123456789abcdef0123"), secret_file: None };
        let mut app = App { keys: vec![key], ..App::new("default") };
        app.limits.event_data_bytes_max = MIB;
        check(of(1000, MIB), vec![app.clone()]).unwrap();
        let loud = refused(of(1000, 100_000), vec![app]);
        assert!(loud.contains("default") && loud.contains("event_data_bytes_max"), "{loud}");
        let mut limits = of(8 * MIB, limits::OUTBOX_BYTES_MAX);
        limits.follow();
        assert_eq!((limits.payload_bytes_max(), limits.outbox_bytes_max), (8 * MIB, 8 * MIB));
    }

    #[test]
    fn cache_channels_keep_their_last_event_and_configured_groups_come_first() {
        let key = KeyPair { key: "k".into(), secret: KeySecret::new("s"), secret_file: None };
        let shop = App { keys: vec![key], cache_time: Duration::from_secs(60), ..App::new("shop") };
        let apps = Apps::new(vec![shop, App::new("raw")]).unwrap();
        let group = RetainedGroups {
            app: "shop".into(),
            pattern: "cache-own*".into(),
            history_messages: 3,
            history_time: Duration::from_secs(5),
            last_value_time: Duration::from_secs(7),
        };
        let settings = GatewaySettings { groups: vec![group], ..GatewaySettings::default() };
        let retention = settings.retention_rules(&apps.load());
        let last = |app, group| retention.of(&Topic::group(app, group)).last.as_secs();
        for cached in ["cache-a", "private-cache-a", "private-encrypted-cache-a", "presence-cache-a"] {
            assert_eq!((last("shop", cached), last("raw", cached)), (60, 0), "{cached}");
        }
        for other in ["a", "private-a", "presence-a", "private-encrypted-a", "my-cache-a"] {
            assert_eq!(last("shop", other), 0, "{other}");
        }
        assert_eq!(last("shop", "cache-own-1"), 7);
        assert!(retention.of(&Topic::group("shop", "cache-own-1")).has_history());
    }
}
