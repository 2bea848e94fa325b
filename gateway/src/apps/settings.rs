//! One app: what its `[[apps]]` entry says. Opens nothing and decides nothing; see
//! `deploy/config/broadgate.toml` for the same with comments.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use broadgate_pusher::{Compat, limits::PusherLimits};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::apps::{origin::AllowedOrigin, redis::AppRedis, secret::KeySecret};

/// When a silent Pusher client pings, unless the app says otherwise: what the hosted service tells.
pub const DEFAULT_ACTIVITY_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a Pusher client may take to answer a ping, unless the app says otherwise.
pub const DEFAULT_PONG_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a cache channel keeps its last event, unless the app says otherwise.
pub const DEFAULT_CACHE_TIME: Duration = Duration::from_mins(30);

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct App {
    /// The app's name.
    pub id: String,
    /// Whether it accepts clients.
    pub enabled: bool,
    /// May raw WebSocket clients connect to `/ws/{id}`?
    pub raw: bool,
    /// The worker service of its raw clients; the listener's if absent.
    pub service: Option<String>,
    /// Allowed origins, for raw and Pusher clients; none means any.
    pub origins: Vec<AllowedOrigin>,
    /// With a key, Pusher clients connect to `/app/{key}`. Several while they are being changed; the
    /// first is the one that webhooks are signed with.
    pub keys: Vec<KeyPair>,
    /// May Pusher clients send client events?
    pub client_events: bool,
    /// Whether subscribers get the number of subscribers.
    pub subscription_count: bool,
    /// Whether signed-in users get the online status of their watchlist.
    pub watchlist: bool,
    /// Close Pusher clients that come without TLS (4000).
    pub tls_only: bool,
    /// Close Pusher clients that have neither signed in nor subscribed to a private or presence
    /// channel within this (4009); zero is never.
    #[serde(deserialize_with = "broadgate_proto::time_setting::deserialize")]
    pub authorized_within: Duration,
    /// Whose behaviour counts where implementations of the protocol disagree.
    pub compat: Compat,
    /// Pusher clients that heard nothing for so long send a ping.
    #[serde(deserialize_with = "broadgate_proto::time_setting::deserialize")]
    pub activity_timeout: Duration,
    /// How long a Pusher client may take to answer the gateway's ping.
    #[serde(deserialize_with = "broadgate_proto::time_setting::deserialize")]
    pub pong_timeout: Duration,
    /// How long cache channels keep their last event.
    #[serde(deserialize_with = "broadgate_proto::time_setting::deserialize")]
    pub cache_time: Duration,
    /// Pusher clients of this app in the cluster; 0 is no limit.
    pub connections_max: u32,
    /// Pusher clients of this app at one gateway; 0 is no limit.
    pub connections_per_gateway_max: usize,
    /// In front of `/app/{key}` and `/apps/{id}`: "" or "/x".
    pub path_prefix: String,
    /// Bounds of what Pusher clients and the HTTP API may ask for.
    pub limits: PusherLimits,
    /// Endpoints that receive events of channels.
    pub webhooks: Vec<Webhook>,
    /// May Socket.IO clients, such as Laravel Echo's, connect to `/socket.io/`?
    pub socketio: bool,
    /// The backend that says whether a Socket.IO client may subscribe to a private or presence channel.
    pub auth: Option<AppAuth>,
    /// The Redis through which its backend publishes, besides the HTTP API.
    pub redis: Option<AppRedis>,
}

/// How long an app's backend may take to say whether a client may subscribe, unless the app says otherwise.
pub const DEFAULT_AUTH_TIMEOUT: Duration = Duration::from_secs(10);

/// The backend that is asked whether a client may subscribe.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppAuth {
    /// Laravel's `/broadcasting/auth`; http or https. "" if none but those of `by_origin` are asked.
    pub url: String,
    /// Other URLs for clients from these origins; the first that fits.
    pub by_origin: Vec<OriginAuth>,
    /// For the whole question: its turn, two attempts, the answer.
    #[serde(deserialize_with = "broadgate_proto::time_setting::deserialize")]
    pub timeout: Duration,
    /// Headers that clients may pass on besides Authorization, Cookie, X-CSRF-TOKEN and X-XSRF-TOKEN.
    pub headers: Vec<String>,
}

/// The URL that is asked for clients from an origin.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OriginAuth {
    /// Which origin.
    pub origin: AllowedOrigin,
    /// As [`AppAuth::url`].
    pub url: String,
}

impl Default for AppAuth {
    fn default() -> Self {
        Self { url: String::new(), by_origin: Vec::new(), timeout: DEFAULT_AUTH_TIMEOUT, headers: Vec::new() }
    }
}

impl AppAuth {
    /// The URL that is asked for a client from this origin, if any is.
    #[must_use]
    pub fn url_for(&self, origin: &str) -> Option<&str> {
        let by_origin = self.by_origin.iter().find(|entry| entry.origin.fits(origin));
        Some(by_origin.map_or(&*self.url, |entry| &*entry.url)).filter(|url| !url.is_empty())
    }
}

/// A URL without its query, which may hold a secret: for tables and logs.
fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

impl fmt::Debug for AppAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppAuth")
            .field("url", &without_query(&self.url))
            .field("by_origin", &self.by_origin)
            .field("timeout", &self.timeout)
            .field("headers", &self.headers)
            .finish()
    }
}

impl fmt::Debug for OriginAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginAuth")
            .field("origin", &self.origin)
            .field("url", &without_query(&self.url))
            .finish()
    }
}

/// A key of an app, and the secret that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawKey")]
pub struct KeyPair {
    /// What clients and callers name; no secret.
    pub key: String,
    /// What signs; empty until the secret's file has been read.
    pub secret: KeySecret,
    /// Where the secret is, if it is not in the configuration.
    pub secret_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    key: String,
    secret: Option<KeySecret>,
    secret_file: Option<PathBuf>,
}

impl TryFrom<RawKey> for KeyPair {
    type Error = String;

    fn try_from(raw: RawKey) -> Result<Self, String> {
        if raw.secret.is_some() == raw.secret_file.is_some() {
            return Err(format!("key {:?} needs one of secret and secret_file, not both", raw.key));
        }
        Ok(Self { key: raw.key, secret: raw.secret.unwrap_or_default(), secret_file: raw.secret_file })
    }
}

/// A webhook: an endpoint for the events of an app's channels.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Where to post; http or https.
    pub url: String,
    /// Which events it receives; all if absent.
    #[serde(default = "WebhookEvent::all")]
    pub events: Vec<WebhookEvent>,
    /// Only of channels whose names begin so.
    #[serde(default)]
    pub channel_prefix: String,
    /// Only of channels whose names end so.
    #[serde(default)]
    pub channel_suffix: String,
    /// Sent with every post, e.g. what the receiver asks for as authorisation.
    #[serde(default, deserialize_with = "headers")]
    pub headers: BTreeMap<String, String>,
    /// Several events in one post.
    #[serde(default)]
    pub batch: bool,
}

fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    // The usual error would quote a value, which may be a secret.
    BTreeMap::deserialize(deserializer).map_err(|_| D::Error::custom("headers is a table of texts"))
}

/// The values of headers, and what a URL's query holds, may be secrets.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("url", &self.address())
            .field("events", &self.events)
            .field("channel_prefix", &self.channel_prefix)
            .field("channel_suffix", &self.channel_suffix)
            .field("headers", &self.headers.keys())
            .field("batch", &self.batch)
            .finish()
    }
}

impl Webhook {
    /// The URL without its query, which may hold a secret: for tables and logs.
    #[must_use]
    pub fn address(&self) -> &str {
        without_query(&self.url)
    }
}

/// A kind of webhook event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookEvent {
    /// A channel has its first subscriber in the cluster.
    ChannelOccupied,
    /// A channel's last subscriber has left.
    ChannelVacated,
    /// A user has joined a presence channel.
    MemberAdded,
    /// A user has left a presence channel.
    MemberRemoved,
    /// A client has sent a client event.
    ClientEvent,
    /// A client has subscribed to a cache channel without a retained event.
    CacheMiss,
    /// The number of a channel's subscribers has changed.
    SubscriptionCount,
}

impl WebhookEvent {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::ChannelOccupied,
        Self::ChannelVacated,
        Self::MemberAdded,
        Self::MemberRemoved,
        Self::ClientEvent,
        Self::CacheMiss,
        Self::SubscriptionCount,
    ];

    fn all() -> Vec<Self> {
        Self::ALL.to_vec()
    }

    /// Its name on the wire and in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChannelOccupied => "channel_occupied",
            Self::ChannelVacated => "channel_vacated",
            Self::MemberAdded => "member_added",
            Self::MemberRemoved => "member_removed",
            Self::ClientEvent => "client_event",
            Self::CacheMiss => "cache_miss",
            Self::SubscriptionCount => "subscription_count",
        }
    }
}

impl Default for App {
    fn default() -> Self {
        Self {
            id: String::new(),
            enabled: true,
            raw: false,
            service: None,
            origins: Vec::new(),
            keys: Vec::new(),
            client_events: true,
            subscription_count: false,
            watchlist: true,
            tls_only: false,
            authorized_within: Duration::ZERO,
            compat: Compat::default(),
            activity_timeout: DEFAULT_ACTIVITY_TIMEOUT,
            pong_timeout: DEFAULT_PONG_TIMEOUT,
            cache_time: DEFAULT_CACHE_TIME,
            connections_max: 0,
            connections_per_gateway_max: 0,
            path_prefix: String::new(),
            limits: PusherLimits::default(),
            webhooks: Vec::new(),
            socketio: false,
            auth: None,
            redis: None,
        }
    }
}

impl App {
    /// An app with every default: it takes nobody until it is `raw` or has a key.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self { id: id.to_owned(), ..Self::default() }
    }

    /// Pusher clients that one gateway may hold; 0 is no limit. No gateway alone holds more than the
    /// cluster may.
    #[must_use]
    pub fn connections_here_max(&self) -> usize {
        let limits = [self.connections_max as usize, self.connections_per_gateway_max];
        limits.into_iter().filter(|limit| *limit > 0).min().unwrap_or(0)
    }

    /// May a page of this origin connect? `origin` is the header's value, "" if there is none.
    #[must_use]
    pub fn lets_in(&self, origin: &str) -> bool {
        self.origins.is_empty() || self.origins.iter().any(|allowed| allowed.fits(origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(text: &str) -> Result<App, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        assert_eq!(app("id = \"shop\"").unwrap(), App::new("shop"));
        let all = app(r#"
            id = "shop"
            origins = ["*.example.com"]
            authorized_within = "30s"
            compat = "reverb"
            [limits]
            event_data_bytes_max = 100_000
            [[keys]]
            key = "new"
            secret = "s1"
            [[keys]]
            key = "old"
            secret_file = "/run/secret"
            [[webhooks]]
            url = "https://example.com/hook?token=t"
            events = ["channel_occupied", "cache_miss"]
            headers = { Authorization = "Bearer b" }
        "#)
        .unwrap();
        assert_eq!((all.keys[0].secret.reveal(), all.keys[1].secret.reveal()), ("s1", ""));
        assert_eq!(all.limits.event_data_bytes_max, 100_000);
        assert_eq!((all.compat, all.authorized_within), (Compat::Reverb, Duration::from_secs(30)));
        assert_eq!(all.webhooks[0].events, [WebhookEvent::ChannelOccupied, WebhookEvent::CacheMiss]);
        assert!(all.lets_in("https://www.example.com") && !all.lets_in("https://evil.example"));
        assert!(App::new("x").lets_in(""));
        let hook: Webhook = toml::from_str("url = \"http://x\"").unwrap();
        assert_eq!(hook.events, WebhookEvent::ALL);
    }

    #[test]
    fn secrets_are_not_printed() {
        let text = "id = \"shop\"\nkeys = [{ key = \"k\", secret = \"hush\" }]\n\
                    webhooks = [{ url = \"http://x/?t=hush\", headers = { A = \"hush\" } }]";
        let shown = format!("{:#?}", app(text).unwrap());
        assert!(!shown.contains("hush") && shown.contains("\"k\"") && shown.contains("http://x/"), "{shown}");
        let wrong = app("id = \"shop\"\nkeys = [{ key = \"k\", secret = 4711 }]").unwrap_err();
        assert!(wrong.message().contains("a secret is a text"), "{wrong}");
        assert!(!wrong.message().contains("4711"), "{wrong}");
        let wrong = app("webhooks = [{ url = \"http://x\", headers = { A = 4711 } }]").unwrap_err();
        assert!(wrong.message().contains("table of texts") && !wrong.message().contains("4711"), "{wrong}");
    }

    #[test]
    fn invalid_words_are_explained() {
        for (text, word) in [
            ("id = \"x\"\norigin = []", "origin"),
            ("keys = [{ key = \"k\" }]", "secret_file"),
            ("keys = [{ key = \"k\", secret = \"s\", secret_file = \"f\" }]", "not both"),
            ("keys = [{ key = \"k\", secert = \"s\" }]", "secert"),
            ("compat = \"soketi\"", "reverb"),
            ("webhooks = [{ url = \"http://x\", events = [\"opened\"] }]", "channel_occupied"),
            ("limits = { events_max = 1 }", "events_max"),
            ("activity_timeout = \"soon\"", "soon"),
        ] {
            let error = app(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn the_names_of_events_are_those_of_the_configuration() {
        for event in WebhookEvent::ALL {
            let text = format!("url = \"http://x\"\nevents = [{:?}]", event.name());
            assert_eq!(toml::from_str::<Webhook>(&text).unwrap().events, [event]);
        }
    }
}
