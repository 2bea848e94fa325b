//! What a gateway can be told. Opens nothing and decides nothing; see `deploy/config/broadgate.toml`
//! for the same with comments.

use std::{collections::HashMap, net::SocketAddr, num::NonZeroU16, path::PathBuf, time::Duration};

use broadgate_proto::{limits, name, secret::Secret};
use broadgate_topics::{Pattern, Retention, RetentionRule, RetentionRules};
use ipnet::IpNet;
use serde::Deserialize;

use crate::apps::{Apps, Table};

/// The configuration of one gateway process.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the register is; tried in turn.
    pub registers: Vec<String>,
    /// The shared secret of the internal ports.
    pub secret: Secret,
    /// The `[gateway]` section.
    pub settings: Settings,
    /// The `[[apps]]` sections, which may be replaced while the gateway runs.
    pub apps: Apps,
    /// Pages served on the web listeners (the demo's).
    pub pages: &'static [Page],
}

/// A page that a web listener serves as it is.
#[derive(Debug, Clone, Copy)]
pub struct Page {
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
pub struct Settings {
    /// Name in tables and answers; the advertised address if empty.
    pub name: String,
    /// Where commands, workers and peers come in.
    pub internal: Internal,
    /// Shard threads; as many as the machine has cores if absent.
    pub shards: Option<NonZeroU16>,
    /// How connections reach the shards.
    pub accept: Accept,
    /// Where clients come in.
    pub listeners: Vec<Listener>,
    /// How a client's worker is chosen.
    pub affinity: Affinity,
    /// Groups that keep what was sent to them.
    pub groups: Vec<Group>,
    /// The folder in which webhooks that wait survive a restart; absent: they do not.
    pub spool: Option<PathBuf>,
    /// Bounds.
    pub limits: Limits,
    /// How a gateway stops.
    pub stop: Stop,
}

/// An internal listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Internal {
    /// Where to listen. Default 127.0.0.1:7200.
    pub bind: SocketAddr,
    /// The address that others dial, host:port; derived from `bind` if absent.
    pub advertise: Option<String>,
}

/// How connections reach the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accept {
    /// Every shard has a listener of its own on the same port (`SO_REUSEPORT`).
    Shards,
    /// One acceptor hands connections out in turn, where the system does not balance.
    One,
}

/// Where clients come in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Its name in events, metrics and tables.
    pub name: String,
    /// What its clients speak.
    pub kind: ListenerKind,
    /// Where to listen.
    pub bind: SocketAddr,
    /// The app of its clients (`web`: of `/ws`; `/ws/{app}` names another).
    #[serde(default = "default_app")]
    pub app: String,
    /// The worker service that takes its clients' events; "" for none.
    #[serde(default = "default_service")]
    pub service: String,
    /// Who decides on a handshake.
    #[serde(default)]
    pub authorize: Authorize,
    /// Every connection begins with a PROXY protocol header (v1 or v2).
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Proxies whose PROXY header or X-Forwarded-For is believed.
    #[serde(default)]
    pub trusted_proxies: Vec<IpNet>,
    /// Ping clients that were idle this long; 0s is never.
    #[serde(default = "default_ping", with = "humantime_serde")]
    pub ping_interval: Duration,
    /// Close clients that were silent this long; 0s is never. Absent: 60 s for `web`, never for
    /// `text` and `frame`, whose clients have no pong: `tcp_keep_alive` finds those that are gone.
    #[serde(default, with = "humantime_serde")]
    pub silence_max: Option<Duration>,
    /// Sent to idle clients as an ordinary message, besides the WebSocket ping.
    #[serde(default)]
    pub ping_payload: String,
    /// TCP probes a connection on which nothing came for this long; 0s is never.
    #[serde(default = "default_tcp_keep_alive", with = "humantime_serde")]
    pub tcp_keep_alive: Duration,
}

/// What the clients of a listener speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerKind {
    /// HTTP, and WebSocket on `/ws` and `/ws/{app}`.
    Web,
    /// Lines that end with a newline.
    Text,
    /// A 4-byte big-endian length that counts itself, then the payload.
    Frame,
}

/// Who decides on a handshake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Authorize {
    /// Everybody may come in.
    #[default]
    None,
    /// A worker says so before the client is answered.
    Worker,
}

/// How a client's worker is chosen among those of its service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Affinity {
    /// Consistent hash of the client id.
    #[default]
    Client,
    /// Consistent hash of the uid; of the client id while it has none.
    Uid,
    /// Consistent hash of a header of the handshake.
    Header(String),
    /// Consistent hash of a query parameter of the handshake.
    Query(String),
    /// The worker with the fewest clients when the client comes, and then kept.
    LeastLoaded,
}

impl TryFrom<String> for Affinity {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match (text.as_str(), text.split_once(':')) {
            ("client", _) => Ok(Self::Client),
            ("uid", _) => Ok(Self::Uid),
            ("least-loaded", _) => Ok(Self::LeastLoaded),
            (_, Some(("header", name))) if !name.is_empty() => Ok(Self::Header(name.to_ascii_lowercase())),
            (_, Some(("query", name))) if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            _ => Err(format!(
                "invalid affinity {text:?}: use client, uid, header:NAME, query:NAME or least-loaded"
            )),
        }
    }
}

/// The bounds of a gateway; every default is a constant of [`broadgate_proto::limits`].
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections.
    pub clients_max: usize,
    /// Connections from one address; 0 is no limit.
    pub clients_per_ip_max: usize,
    /// A message from a client.
    pub message_bytes_max: usize,
    /// Messages per second from one client; 0 is no limit.
    pub messages_per_second_max: u32,
    /// Frames per second from one client that are no message: pings, pongs and fragments; 0 is no limit.
    pub frames_per_second_max: u32,
    /// Groups one client may be in.
    pub groups_per_client_max: usize,
    /// A session's JSON.
    pub session_bytes_max: usize,
    /// Bytes waiting for one client. As it is by default, it grows with `message_bytes_max`.
    pub outbox_bytes_max: usize,
    /// Bytes of memory that all outboxes may take; beyond, those who have most are closed.
    pub outboxes_bytes_max: usize,
    /// Messages waiting for one client.
    pub outbox_messages_max: usize,
    /// Time above the outbox's low-water mark.
    #[serde(with = "humantime_serde")]
    pub outbox_time_max: Duration,
    /// From accept to the first byte.
    #[serde(with = "humantime_serde")]
    pub first_byte_time_max: Duration,
    /// From accept to the end of the handshake.
    #[serde(with = "humantime_serde")]
    pub handshake_time_max: Duration,
    /// Between two requests of one HTTP connection.
    #[serde(with = "humantime_serde")]
    pub keep_alive_time_max: Duration,
    /// Bytes of all bodies that are held for the HTTP API of Pusher apps.
    pub api_bodies_bytes_max: usize,
    /// How long a closing client may take.
    #[serde(with = "humantime_serde")]
    pub close_time_max: Duration,
    /// How long an event may wait for any worker.
    #[serde(with = "humantime_serde")]
    pub hold_time_max: Duration,
    /// Events of one client that its worker has not answered.
    pub events_per_client_max: usize,
    /// And the bytes of their messages; one message always goes.
    pub events_per_client_bytes_max: usize,
    /// How long a peer may take to answer.
    #[serde(with = "humantime_serde")]
    pub link_timeout: Duration,
    /// What groups keep, in bytes of memory.
    pub kept_bytes_max: usize,
    /// What the groups of one app keep.
    pub kept_app_bytes_max: usize,
}

/// Groups that keep what was sent to them alone. The same at every gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The app of the groups.
    #[serde(default = "default_app")]
    pub app: String,
    /// A group's name, or how it begins if the last character is `*`. The first entry that fits counts.
    pub pattern: String,
    /// So many of the last messages are kept at the group's home; 0 for none.
    #[serde(default)]
    pub history_messages: usize,
    /// For so long.
    #[serde(default = "default_history_time", with = "humantime_serde")]
    pub history_time: Duration,
    /// For so long, every gateway with members keeps the last message; 0 for not at all.
    #[serde(default, with = "humantime_serde")]
    pub last_value_time: Duration,
}

/// How a gateway stops.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stop {
    /// From "not ready" to the first close.
    #[serde(with = "humantime_serde")]
    pub ready_delay: Duration,
    /// Deadline for closing all clients.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
}

/// How the names of cache channels begin, in the Pusher protocol.
const CACHE_PREFIXES: [&str; 4] = ["cache-", "private-cache-", "private-encrypted-cache-", "presence-cache-"];

/// How long a history is kept if that is not said.
const DEFAULT_HISTORY_TIME: Duration = Duration::from_secs(300);

fn default_history_time() -> Duration {
    DEFAULT_HISTORY_TIME
}

fn default_app() -> String {
    name::DEFAULT_APP.to_owned()
}

fn default_service() -> String {
    "default".to_owned()
}

fn default_tcp_keep_alive() -> Duration {
    limits::TCP_KEEP_ALIVE
}

fn default_ping() -> Duration {
    limits::PING_INTERVAL
}

impl Settings {
    /// The services of the listeners whose clients' events need a worker, by the listener's name.
    pub(crate) fn listener_services(&self) -> HashMap<String, String> {
        let listeners = self.listeners.iter().filter(|listener| !listener.service.is_empty());
        listeners.map(|listener| (listener.name.clone(), listener.service.clone())).collect()
    }

    /// What groups keep, as the homes read it: what `groups` says, and behind it the last event of
    /// every cache channel of the apps that take Pusher clients.
    pub(crate) fn retention_rules(&self, apps: &Table) -> RetentionRules {
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

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: String::new(),
            internal: Internal::default(),
            shards: None,
            accept: if cfg!(target_os = "linux") { Accept::Shards } else { Accept::One },
            listeners: vec![Listener::web(SocketAddr::from(([127, 0, 0, 1], 8080)))],
            affinity: Affinity::default(),
            groups: Vec::new(),
            spool: None,
            limits: Limits::default(),
            stop: Stop::default(),
        }
    }
}

impl Default for Internal {
    fn default() -> Self {
        Self { bind: SocketAddr::from(([127, 0, 0, 1], 7200)), advertise: None }
    }
}

impl Listener {
    /// A web listener with every default.
    #[must_use]
    pub fn web(bind: SocketAddr) -> Self {
        Self {
            name: "web".to_owned(),
            kind: ListenerKind::Web,
            bind,
            app: default_app(),
            service: default_service(),
            authorize: Authorize::None,
            proxy_protocol: false,
            trusted_proxies: Vec::new(),
            ping_interval: default_ping(),
            silence_max: None,
            ping_payload: String::new(),
            tcp_keep_alive: default_tcp_keep_alive(),
        }
    }

    /// After how long a silent client is closed; zero is never.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.silence_max.unwrap_or(match self.kind {
            ListenerKind::Web => limits::SILENCE_MAX,
            ListenerKind::Text | ListenerKind::Frame => Duration::ZERO,
        })
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients_max: limits::CLIENTS_MAX,
            clients_per_ip_max: limits::CLIENTS_PER_IP_MAX,
            message_bytes_max: limits::MESSAGE_BYTES_MAX,
            messages_per_second_max: limits::MESSAGES_PER_SECOND_MAX,
            frames_per_second_max: limits::FRAMES_PER_SECOND_MAX,
            groups_per_client_max: limits::GROUPS_PER_CLIENT_MAX,
            session_bytes_max: limits::SESSION_BYTES_MAX,
            outbox_bytes_max: limits::OUTBOX_BYTES_MAX,
            outboxes_bytes_max: limits::OUTBOXES_BYTES_MAX,
            outbox_messages_max: limits::OUTBOX_MESSAGES_MAX,
            outbox_time_max: limits::OUTBOX_TIME_MAX,
            first_byte_time_max: limits::FIRST_BYTE_TIME_MAX,
            handshake_time_max: limits::HANDSHAKE_TIME_MAX,
            keep_alive_time_max: limits::KEEP_ALIVE_TIME_MAX,
            api_bodies_bytes_max: limits::API_BODIES_BYTES_MAX,
            close_time_max: limits::CLOSE_TIME_MAX,
            hold_time_max: limits::HOLD_TIME_MAX,
            events_per_client_max: limits::EVENTS_PER_CLIENT_MAX,
            events_per_client_bytes_max: limits::EVENTS_PER_CLIENT_BYTES_MAX,
            link_timeout: limits::LINK_TIMEOUT,
            kept_bytes_max: limits::KEPT_BYTES_MAX,
            kept_app_bytes_max: limits::KEPT_APP_BYTES_MAX,
        }
    }
}

impl Limits {
    /// The largest payload of a command: an answer may be as large as what it answers.
    #[must_use]
    pub fn payload_bytes_max(&self) -> usize {
        self.message_bytes_max.max(limits::PAYLOAD_BYTES_MAX)
    }

    /// The largest command as JSON, which makes a byte of a payload six at most.
    #[must_use]
    pub fn json_bytes_max(&self) -> usize {
        limits::JSON_GROWTH_MAX * self.payload_bytes_max() + limits::COMMAND_REST_BYTES
    }

    /// The largest frame, as clients get it. An outbox that is empty takes it.
    #[must_use]
    pub fn frame_bytes_max(&self) -> usize {
        self.payload_bytes_max().max(self.outbox_bytes_max) + limits::FRAME_OVERHEAD_BYTES
    }

    /// Those of the homes. Several of the largest payloads may wait.
    pub(crate) fn of_homes(&self) -> broadgate_topics::Limits {
        let several = 4 * self.payload_bytes_max();
        broadgate_topics::Limits {
            link_timeout: self.link_timeout,
            parking_bytes_max: several.max(limits::PARKING_BYTES_MAX),
            untaken_bytes_max: several.max(limits::LINK_UNTAKEN_BYTES_MAX),
            asked_bytes_max: (2 * several).max(limits::ASKED_BYTES_MAX),
            kept_bytes_max: self.kept_bytes_max,
            kept_app_bytes_max: self.kept_app_bytes_max,
            ..broadgate_topics::Limits::default()
        }
    }

    /// Limits that nobody has set follow those that somebody has.
    pub(crate) fn follow(&mut self) {
        if self.outbox_bytes_max == limits::OUTBOX_BYTES_MAX {
            self.outbox_bytes_max = self.payload_bytes_max().max(self.outbox_bytes_max);
        }
        if self.outboxes_bytes_max == limits::OUTBOXES_BYTES_MAX {
            self.outboxes_bytes_max = self.frame_bytes_max().max(self.outboxes_bytes_max);
        }
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self { ready_delay: limits::READY_DELAY, drain: limits::DRAIN_TIME }
    }
}

impl Config {
    /// Relations between settings that their types cannot say.
    ///
    /// # Errors
    /// One sentence about the first that does not hold.
    pub fn check(&self) -> Result<(), String> {
        if self.registers.is_empty() {
            return Err("cluster.register is empty: give at least one host:port".to_owned());
        }
        for register in &self.registers {
            name::check_address(register).map_err(|error| format!("cluster.register: {error}"))?;
        }
        self.check_internal()?;
        self.check_listeners()?;
        self.check_groups()?;
        self.check_limits()
    }

    fn check_internal(&self) -> Result<(), String> {
        let internal = &self.settings.internal;
        self.secret.check_bind(internal.bind).map_err(|error| format!("gateway.internal.bind: {error}"))?;
        if let Some(advertise) = &internal.advertise {
            name::check_address(advertise).map_err(|error| format!("gateway.internal.advertise: {error}"))?;
        }
        if !self.settings.name.is_empty() {
            name::check("gateway.name", &self.settings.name).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// An app that a setting names must be there; the one that is meant when none is named need not be.
    fn check_app(&self, app: &str) -> Result<(), String> {
        name::check("app", app).map_err(|error| error.to_string())?;
        if app == name::DEFAULT_APP || self.apps.load().by_id(app).is_some() {
            return Ok(());
        }
        Err(format!("no app {app:?} is configured: `broadgate apps` lists those that are"))
    }

    fn check_groups(&self) -> Result<(), String> {
        for (index, group) in self.settings.groups.iter().enumerate() {
            let place = format!("gateway.groups[{index}]");
            self.check_app(&group.app).map_err(|error| format!("{place}: {error}"))?;
            if group.pattern != "*" {
                let prefix = group.pattern.strip_suffix('*').unwrap_or(&group.pattern);
                name::check("pattern", prefix).map_err(|error| format!("{place}: {error}"))?;
            }
            let max = limits::HISTORY_MESSAGES_MAX;
            if group.history_messages > max {
                return Err(format!("{place}: history_messages must be at most {max}"));
            }
        }
        Ok(())
    }

    fn check_listeners(&self) -> Result<(), String> {
        let listeners = &self.settings.listeners;
        if listeners.is_empty() {
            return Err("gateway.listeners is empty: give at least one".to_owned());
        }
        for (index, listener) in listeners.iter().enumerate() {
            let place = format!("gateway.listeners[{index}] ({})", listener.name);
            name::check("name", &listener.name).map_err(|error| format!("{place}: {error}"))?;
            self.check_app(&listener.app).map_err(|error| format!("{place}: {error}"))?;
            if !listener.service.is_empty() {
                name::check("service", &listener.service).map_err(|error| format!("{place}: {error}"))?;
            }
            if collide(listener.bind, self.settings.internal.bind) {
                return Err(format!(
                    "{place}: gateway.internal.bind has the port {}, too",
                    listener.bind.port()
                ));
            }
            if let Some(other) = listeners[..index].iter().find(|other| collide(other.bind, listener.bind)) {
                let port = listener.bind.port();
                return Err(format!("{place}: the listener {:?} has the port {port}, too", other.name));
            }
            if listeners[..index].iter().any(|other| other.name == listener.name) {
                return Err(format!("{place}: another listener has the same name"));
            }
            if listener.authorize == Authorize::Worker && listener.service.is_empty() {
                return Err(format!("{place}: authorize = \"worker\" needs a service"));
            }
            if listener.proxy_protocol && listener.trusted_proxies.is_empty() {
                return Err(format!("{place}: proxy_protocol needs trusted_proxies, e.g. [\"10.0.0.0/8\"]"));
            }
            let silence = listener.silence();
            if !silence.is_zero() && !listener.ping_interval.is_zero() && silence <= listener.ping_interval {
                return Err(format!("{place}: silence_max must be longer than ping_interval"));
            }
        }
        Ok(())
    }

    fn check_outboxes(&self) -> Result<(), String> {
        let limits = &self.settings.limits;
        let outbox = limits::OUTBOX_LOW_WATER_BYTES..=limits::OUTBOX_BYTES_HIGHEST;
        if !outbox.contains(&limits.outbox_bytes_max) {
            return Err(format!(
                "gateway.limits.outbox_bytes_max must be {} to {} bytes",
                outbox.start(),
                outbox.end()
            ));
        }
        let mut followed = limits.clone();
        followed.follow();
        let (outbox, message) = (followed.outbox_bytes_max, limits.message_bytes_max);
        if outbox < message {
            return Err(format!(
                "gateway.limits.outbox_bytes_max ({outbox}) is less than message_bytes_max ({message}): \
                 what one client says could not be told to another; make it at least {message}, or leave it out"
            ));
        }
        let (all, frame) = (followed.outboxes_bytes_max, followed.frame_bytes_max());
        if all < frame {
            return Err(format!(
                "gateway.limits.outboxes_bytes_max ({all}) is less than what one client's outbox may hold \
                 ({frame}, by outbox_bytes_max): raise the one or lower the other"
            ));
        }
        let apps = self.apps.load();
        let loud = apps.iter().find(|app| !app.keys.is_empty() && app.limits.event_data_bytes_max > outbox);
        if let Some(app) = loud {
            return Err(format!(
                "app {:?}: limits.event_data_bytes_max ({}) is more than gateway.limits.outbox_bytes_max \
                 ({outbox}): no client could take such an event; lower the one or raise the other",
                app.id, app.limits.event_data_bytes_max
            ));
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), String> {
        let limits = &self.settings.limits;
        if limits.message_bytes_max == 0 || limits.message_bytes_max > limits::MESSAGE_BYTES_HIGHEST {
            return Err(format!(
                "gateway.limits.message_bytes_max must be 1 to {} bytes",
                limits::MESSAGE_BYTES_HIGHEST
            ));
        }
        self.check_outboxes()?;
        if [limits.events_per_client_max, limits.events_per_client_bytes_max, limits.clients_max].contains(&0)
        {
            return Err(
                "gateway.limits: events_per_client_max, events_per_client_bytes_max and clients_max must \
                        be at least 1"
                    .to_owned(),
            );
        }
        for (name, time) in [
            ("first_byte_time_max", limits.first_byte_time_max),
            ("handshake_time_max", limits.handshake_time_max),
            ("keep_alive_time_max", limits.keep_alive_time_max),
            ("close_time_max", limits.close_time_max),
            ("link_timeout", limits.link_timeout),
        ] {
            if time.is_zero() {
                return Err(format!("gateway.limits.{name} must be longer than 0s"));
            }
        }
        if limits.outbox_messages_max == 0 {
            return Err("gateway.limits.outbox_messages_max must be at least 1".to_owned());
        }
        if limits.api_bodies_bytes_max < limits::API_BODIES_BYTES_LEAST {
            return Err(format!(
                "gateway.limits.api_bodies_bytes_max must be at least {} bytes",
                limits::API_BODIES_BYTES_LEAST
            ));
        }
        let kept = limits::KEPT_APP_BYTES_LEAST..=limits.kept_bytes_max;
        if !kept.contains(&limits.kept_app_bytes_max) {
            return Err(format!(
                "gateway.limits.kept_app_bytes_max is {}: it must be at least {} and at most kept_bytes_max, {}",
                limits.kept_app_bytes_max,
                kept.start(),
                kept.end()
            ));
        }
        if self.settings.shards.is_some_and(|shards| shards.get() > 256) {
            return Err("gateway.shards must be 1 to 256".to_owned());
        }
        Ok(())
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
    use crate::apps::{App, Key, KeySecret};
    use broadgate_topics::Topic;

    #[test]
    fn what_no_gateway_can_start_with_is_refused() {
        let config = |toml: &str| {
            let settings = toml::from_str(toml).unwrap();
            let registers = vec!["127.0.0.1:7100".to_owned()];
            Config {
                registers,
                secret: Secret::default(),
                settings,
                apps: Apps::new(vec![]).unwrap(),
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
        let check = |limits: Limits, apps: Vec<App>| {
            let settings = Settings { limits, ..Settings::default() };
            let secret = Secret::default();
            let apps = Apps::new(apps).unwrap();
            Config { registers: vec!["r:1".into()], secret, settings, apps, pages: &[] }.check()
        };
        let of = |message_bytes_max, outbox_bytes_max| Limits {
            message_bytes_max,
            outbox_bytes_max,
            ..Limits::default()
        };
        const MIB: usize = 1 << 20;
        check(of(64 * MIB, limits::OUTBOX_BYTES_MAX), Vec::new()).expect("the outbox follows");
        check(of(64 * MIB, 64 * MIB), Vec::new()).unwrap();
        let refused = |limits, apps| check(limits, apps).unwrap_err();
        let small = refused(of(4 * MIB, 2 * MIB), Vec::new());
        assert!(small.contains("outbox_bytes_max") && small.contains("message_bytes_max"), "{small}");
        assert!(refused(of(64 * MIB + 1, 128 * MIB), Vec::new()).contains("67108864"));
        let sum = refused(Limits { outboxes_bytes_max: MIB, ..of(1000, MIB) }, Vec::new());
        assert!(sum.contains("outboxes_bytes_max (1048576)") && sum.contains("outbox_bytes_max"), "{sum}");
        let key = Key { key: "k".into(), secret: KeySecret::new("0123456789abcdef0123"), secret_file: None };
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
        let key = Key { key: "k".into(), secret: KeySecret::new("s"), secret_file: None };
        let shop = App { keys: vec![key], cache_time: Duration::from_secs(60), ..App::new("shop") };
        let apps = Apps::new(vec![shop, App::new("raw")]).unwrap();
        let group = Group {
            app: "shop".into(),
            pattern: "cache-own*".into(),
            history_messages: 3,
            history_time: Duration::from_secs(5),
            last_value_time: Duration::from_secs(7),
        };
        let settings = Settings { groups: vec![group], ..Settings::default() };
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
