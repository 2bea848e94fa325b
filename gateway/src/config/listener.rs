//! Client listeners.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use broadgate_proto::{limits, name};
use ipnet::IpNet;
use serde::Deserialize;

/// How connections reach the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AcceptMode {
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
    #[serde(default = "default_ping", deserialize_with = "broadgate_proto::time_setting::deserialize")]
    pub ping_interval: Duration,
    /// Close clients that were silent this long; 0s is never. Absent: 60 s for `web`, never for
    /// `text` and `frame`, whose clients have no pong: `tcp_keep_alive` finds those that are gone.
    #[serde(default, deserialize_with = "broadgate_proto::time_setting::deserialize_option")]
    pub silence_max: Option<Duration>,
    /// Sent to idle clients as an ordinary message, besides the WebSocket ping.
    #[serde(default)]
    pub ping_payload: String,
    /// TCP probes a connection on which nothing came for this long; 0s is never.
    #[serde(
        default = "default_tcp_keep_alive",
        deserialize_with = "broadgate_proto::time_setting::deserialize"
    )]
    pub tcp_keep_alive: Duration,
    /// Certificates: clients must come by TLS if there are any. Chosen by the name that a client asks for; the
    /// first is for all other names.
    #[serde(default)]
    pub tls: Vec<Certificate>,
}

/// A certificate of a client listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// A PEM file with the certificate, followed by those of intermediate CAs.
    pub cert: PathBuf,
    /// A PEM file with its key.
    pub key: PathBuf,
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

pub(super) fn default_app() -> String {
    name::DEFAULT_APP.to_owned()
}

pub(super) fn default_service() -> String {
    "default".to_owned()
}

pub(super) fn default_tcp_keep_alive() -> Duration {
    limits::TCP_KEEP_ALIVE
}

pub(super) fn default_ping() -> Duration {
    limits::PING_INTERVAL
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
            tls: Vec::new(),
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
