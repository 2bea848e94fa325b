//! Where an app's backend publishes through Redis, as Laravel's broadcaster `redis` does.

use std::{fmt, path::PathBuf};

use broadgate_tls::{
    FileReads, PairFiles, client_config, load_pair, load_roots,
    rustls::{ClientConfig, RootCertStore},
};
use serde::{Deserialize, Deserializer};

use crate::apps::secret::KeySecret;

/// Where a Redis listens that says nothing else.
const DEFAULT_PORT: &str = "6379";
/// A prefix is part of every channel's name, and a name in the log; Laravel's have some 20 bytes.
const PREFIX_BYTES_MAX: usize = 200;

/// The Redis from which an app's events are read.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawRedis")]
pub struct AppRedis {
    /// `redis://host:port`, or `rediss://host:port` with TLS. Several name nodes of one Redis Cluster, or a
    /// primary and its replicas: one of them is read.
    pub urls: Vec<RedisUrl>,
    /// User of Redis's access control list; "" is the default user.
    pub user: String,
    /// A file with the password and nothing else.
    pub password_file: Option<PathBuf>,
    /// What is in the file; empty until it has been read.
    pub password: KeySecret,
    /// What channel names begin with in Redis: Laravel's `database.redis.options.prefix`.
    pub prefix: String,
    /// Files for TLS.
    pub tls: RedisTlsFiles,
}

/// Files for TLS to Redis.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisTlsFiles {
    /// Certificates of the CAs that sign the server's; those of the machine if absent.
    pub ca: Option<PathBuf>,
    /// The certificate that the gateway shows, if Redis asks for one.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

impl RedisTlsFiles {
    /// Reads the files as they are now; waits for the disk.
    ///
    /// # Errors
    /// One sentence about the first that cannot be used.
    pub fn open(&self) -> Result<ClientConfig, String> {
        let reads = &mut FileReads::default();
        let roots = match &self.ca {
            Some(ca) => load_roots(ca, reads).map_err(|error| format!("tls.ca: {error}"))?,
            None => {
                let mut roots = RootCertStore::empty();
                // Some certificates of a machine may be unreadable; others serve.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                roots
            }
        };
        if roots.is_empty() {
            return Err("tls: this machine has no root certificates: set tls.ca".to_owned());
        }
        let pair = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let files = PairFiles { cert: cert.clone(), key: key.clone() };
                Some(load_pair(&files, reads).map_err(|error| format!("tls: {error}"))?)
            }
            _ => None,
        };
        client_config(roots, pair.as_ref()).map_err(|error| format!("tls: {error}"))
    }
}

/// Where a Redis listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// A name or an address, an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether it is reached by TLS.
    pub is_tls: bool,
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "rediss" } else { "redis" };
        let Self { host, port, .. } = self;
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

impl RedisUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let no = "must be redis://host:port, or rediss://host:port with TLS";
        // What is quoted in an error must hold no password.
        if text.contains('@') {
            return Err("url holds a user or password: set user and password_file instead".to_owned());
        }
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let is_tls = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return Err(format!("url {text:?} {no}")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(format!("url {text:?} {no}: channels belong to no database, so it has no path"));
        }
        let (host, port) = match authority.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((host, port))) => {
                (host, port.strip_prefix(':').or(port.is_empty().then_some(DEFAULT_PORT)))
            }
            Some(None) => return Err(format!("url {text:?} {no}")),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, Some(DEFAULT_PORT)),
            },
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-_.:%".contains(c);
        if host.is_empty() || !host.chars().all(is_host) {
            return Err(format!("url {text:?} {no}"));
        }
        let port = port.and_then(|port| port.parse().ok()).filter(|port| *port > 0);
        let port = port.ok_or_else(|| format!("url {text:?}: the port must be from 1 to 65535"))?;
        Ok(Self { host: host.to_owned(), port, is_tls })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRedis {
    #[serde(default, deserialize_with = "one_or_several")]
    url: Vec<String>,
    #[serde(default)]
    user: String,
    password_file: Option<PathBuf>,
    prefix: Option<String>,
    #[serde(default)]
    tls: RedisTlsFiles,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "url is a text, or a list of texts")]
enum OneOrSeveral {
    One(String),
    Several(Vec<String>),
}

fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match OneOrSeveral::deserialize(deserializer)? {
        OneOrSeveral::One(url) => vec![url],
        OneOrSeveral::Several(urls) => urls,
    })
}

impl TryFrom<RawRedis> for AppRedis {
    type Error = String;

    fn try_from(raw: RawRedis) -> Result<Self, String> {
        if raw.url.is_empty() {
            return Err("redis: url is missing, such as \"redis://127.0.0.1:6379\"".to_owned());
        }
        let urls: Result<Vec<_>, _> = raw.url.iter().map(|url| RedisUrl::parse(url)).collect();
        let prefix = raw.prefix.ok_or_else(|| {
            "redis: prefix is missing: give Laravel's database.redis.options.prefix (`php artisan tinker` prints \
             config('database.redis.options.prefix')), often \"laravel_database_\" or \"laravel-database-\"; \"\" if \
             it is empty"
                .to_owned()
        })?;
        Ok(Self {
            urls: urls.map_err(|sentence| format!("redis: {sentence}"))?,
            user: raw.user,
            password_file: raw.password_file,
            password: KeySecret::default(),
            prefix,
            tls: raw.tls,
        })
    }
}

/// The password is in no log.
impl fmt::Debug for AppRedis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppRedis")
            .field("url", &self.urls.iter().map(ToString::to_string).collect::<Vec<_>>())
            .field("user", &self.user)
            .field("password_file", &self.password_file)
            .field("prefix", &self.prefix)
            .field("tls", &self.tls)
            .finish()
    }
}

impl AppRedis {
    /// The first relation between settings that does not hold.
    pub(super) fn check(&self) -> Result<(), String> {
        let is_tls = self.urls.iter().any(|url| url.is_tls);
        if self.urls.iter().any(|url| url.is_tls != is_tls) {
            return Err(
                "url: some begin with redis:// and some with rediss://: use TLS for all or none".to_owned()
            );
        }
        if !self.user.is_empty() && self.password_file.is_none() {
            return Err(format!("user {:?} has no password: set password_file", self.user));
        }
        let password = self.password.reveal();
        if let Some(file) = &self.password_file
            && password.is_empty()
        {
            return Err(format!("password_file {} is empty: put the password into it", file.display()));
        }
        if [&*self.user, password].into_iter().any(|text| text.contains(char::is_control)) {
            return Err("user or password holds a control character: one line of text is needed".to_owned());
        }
        if self.prefix.len() > PREFIX_BYTES_MAX || self.prefix.contains(char::is_control) {
            return Err(format!(
                "prefix must have at most {PREFIX_BYTES_MAX} bytes and no control characters"
            ));
        }
        let RedisTlsFiles { ca, cert, key } = &self.tls;
        if !is_tls && [ca, cert, key].into_iter().any(Option::is_some) {
            return Err("tls is set, but url begins with redis://: TLS needs rediss://".to_owned());
        }
        if cert.is_some() != key.is_some() {
            return Err("tls.cert and tls.key belong together: set both or none".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::{App, Apps};

    fn parsed(text: &str) -> Result<AppRedis, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn settings_are_read() {
        let one = parsed("url = \"redis://cache\"\nprefix = \"\"").unwrap();
        assert_eq!(one.urls, [RedisUrl { host: "cache".into(), port: 6379, is_tls: false }]);
        let text = "url = [\"rediss://[::1]:7000\", \"rediss://10.0.0.2:7001/\"]\nprefix = \"laravel-database-\"\n\
                    user = \"u\"\npassword_file = \"/p\"\ntls = { ca = \"/ca\" }";
        let several = parsed(text).unwrap();
        let shown: Vec<_> = several.urls.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["rediss://[::1]:7000", "rediss://10.0.0.2:7001"]);
        assert!(format!("{several:?}").contains("laravel-database-"));
    }

    #[test]
    fn what_cannot_be_used_is_explained() {
        for (text, words) in [
            ("prefix = \"\"", "url is missing"),
            ("url = \"redis://a\"", "prefix is missing"),
            ("url = \"redis://u:hush@a\"\nprefix = \"\"", "set user and password_file"),
            ("url = \"http://a\"\nprefix = \"\"", "redis://host:port"),
            ("url = \"redis://a/1\"\nprefix = \"\"", "no database"),
            ("url = \"redis://a:0\"\nprefix = \"\"", "from 1 to 65535"),
            ("url = \"redis://a:77777\"\nprefix = \"\"", "from 1 to 65535"),
            ("url = 7\nprefix = \"\"", "a text, or a list of texts"),
            ("url = \"redis://a\"\nprefix = \"\"\npassword = \"x\"", "password_file"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(words) && !error.contains("hush"), "{text}: {error}");
        }
    }

    #[test]
    fn relations_are_checked() {
        for (text, words) in [
            ("url = [\"redis://a\", \"rediss://b\"]\nprefix = \"\"", "all or none"),
            ("url = \"redis://a\"\nprefix = \"\"\nuser = \"u\"", "set password_file"),
            ("url = \"redis://a\"\nprefix = \"\"\npassword_file = \"/p\"", "is empty"),
            ("url = \"redis://a\"\nprefix = \"a\\nb\"", "control characters"),
            ("url = \"redis://a\"\nprefix = \"\"\ntls = { ca = \"/ca\" }", "needs rediss://"),
            ("url = \"rediss://a\"\nprefix = \"\"\ntls = { cert = \"/c\" }", "belong together"),
        ] {
            let app = App { redis: Some(parsed(text).unwrap()), ..App::new("shop") };
            let fault = Apps::new(vec![app]).unwrap_err();
            assert!(fault.at == ".redis" && fault.sentence.contains(words), "{text}: {fault}");
        }
        let without_key =
            App { redis: Some(parsed("url = \"redis://a\"\nprefix = \"\"").unwrap()), ..App::new("x") };
        Apps::new(vec![without_key]).unwrap();
    }
}
