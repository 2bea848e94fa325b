//! laravel-echo-server.json (version 1.6): what each setting means here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::http::Uri;
use broadgate_proto::limits::APP_SECRET_BYTES_MIN;
use serde_json::Value;

use super::{
    fields::Fields,
    imported::{
        Fate, Imported, ImportedKey, ImportedListener, ImportedRedis, Note, PASSWORD_FILE, PASSWORD_SETTING,
        password_note,
    },
};
use crate::terminal_text::one_line;

/// The defaults of that server.
const DEFAULT_HOST: &str = "http://localhost";
const DEFAULT_ENDPOINT: &str = "/broadcasting/auth";
const DEFAULT_PORT: u16 = 6001;
const DEFAULT_REDIS_PORT: &str = "6379";

/// The app's id where no client of the API gives one: Laravel's libraries like digits best.
const DEFAULT_ID: &str = "1";

/// Makes a key and a secret.
type MakesKey<'a> = dyn FnMut() -> Result<(String, String), String> + 'a;

/// What is known so far.
struct Import<'a> {
    notes: Vec<Note>,
    /// A fresh key and secret.
    fresh: &'a mut MakesKey<'a>,
    /// Whether an app may have this id.
    check_id: &'a dyn Fn(&str) -> Result<(), String>,
}

/// Reads the settings.
///
/// # Errors
/// One sentence with the line or the setting.
pub(crate) fn import<'a>(
    text: &str,
    fresh: &'a mut MakesKey<'a>,
    check_id: &'a dyn Fn(&str) -> Result<(), String>,
) -> Result<Imported, String> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| format!("line {}, column {}: not JSON: {error}", error.line(), error.column()))?;
    let mut file =
        Fields::of("", value).map_err(|error| format!("{error}, as laravel-echo-server writes it"))?;
    let mut import = Import { notes: Vec::new(), fresh, check_id };
    let (id, keys) = import.clients(&mut file)?;
    let (auth_url, auth_by_origin) = import.auth(&mut file)?;
    let redis = import.redis(&mut file)?;
    let listener = import.listener(&mut file)?;
    import.socketio(&mut file)?;
    import.what_is_not_needed(&mut file)?;
    for setting in file.rest() {
        import.note(Fate::Unknown, &setting, "laravel-echo-server 1.6 has no such setting");
    }
    Ok(Imported { id, keys, auth_url, auth_by_origin, redis, listener, notes: import.notes })
}

impl Import<'_> {
    fn note(&mut self, fate: Fate, setting: &str, text: impl Into<String>) {
        // One line: keys of a stranger's file may hold anything.
        let (setting, text) = (one_line(setting), one_line(&text.into()));
        self.notes.push(Note { setting, fate, text });
    }

    /// All clients of the API share that server's channels, so they are keys of one app.
    fn clients(&mut self, file: &mut Fields) -> Result<(String, Vec<ImportedKey>), String> {
        let mut id: Option<String> = None;
        let mut keys: Vec<ImportedKey> = Vec::new();
        for mut client in file.objects("clients")? {
            let place = client.at("appId");
            let app = client.text("appId")?.ok_or_else(|| format!("{place}: expected a text"))?;
            let secret =
                client.text("key")?.ok_or_else(|| format!("{}: expected a text", client.at("key")))?;
            (self.check_id)(&app).map_err(|why| format!("{place}: {why}"))?;
            let (key, fresh_secret) = (self.fresh)()?;
            let mut taken = Some(secret)
                .filter(|secret| secret.len() >= APP_SECRET_BYTES_MIN && !secret.contains(char::is_control));
            if taken.is_none() {
                let text = format!(
                    "has fewer than {APP_SECRET_BYTES_MIN} bytes, or a control character, so it is no secret; a \
                     fresh one is below: give it to the scripts that use this key"
                );
                self.note(Fate::ToDo, &client.at("key"), text);
            }
            let secret = taken.take().unwrap_or(fresh_secret);
            match &id {
                None => {
                    self.note(Fate::Taken, &place, "the app's id");
                    id = Some(app.clone());
                }
                Some(first) if *first != app => {
                    let text = format!(
                        "its requests go to /apps/{first}/...: all clients share their channels, so they are keys of \
                         one app"
                    );
                    self.note(Fate::ToDo, &place, text);
                }
                Some(_) => {}
            }
            for setting in client.rest() {
                self.note(Fate::Unknown, &setting, "laravel-echo-server 1.6 has no such setting");
            }
            keys.push(ImportedKey {
                key,
                secret,
                of: format!("of the client {app:?}; its key is the secret here"),
            });
        }
        if keys.is_empty() {
            let (key, secret) = (self.fresh)()?;
            self.note(Fate::NotNeeded, "clients", "there is none, so the app has a fresh key and secret");
            keys.push(ImportedKey { key, secret, of: "fresh".to_owned() });
        } else {
            let text = "secrets of the app; the keys are fresh, and public";
            self.note(Fate::Taken, "clients", text);
        }
        Ok((id.unwrap_or_else(|| DEFAULT_ID.to_owned()), keys))
    }

    /// That server asks any host that a page's Referer names, if it fits a pattern; a gateway asks URLs that its
    /// configuration names.
    fn auth(&mut self, file: &mut Fields) -> Result<(String, Vec<(String, String)>), String> {
        let hosts = file.texts("authHost")?;
        let endpoint = file.text("authEndpoint")?.unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let endpoint = format!("/{}", endpoint.trim_start_matches('/'));
        let mut urls: Vec<(String, String)> = Vec::new();
        let mut is_https = false;
        for host in hosts.iter().filter(|host| !host.is_empty()) {
            let Some(origin) = origin(host) else {
                let text = format!(
                    "{host:?} is no URL, and only URLs of the configuration are asked: add one entry to by_origin for \
                     each site, such as {{ origin = \"https://shop.example.com\", url = \
                     \"https://shop.example.com{endpoint}\" }}"
                );
                self.note(Fate::ToDo, "authHost", text);
                continue;
            };
            is_https |= origin.starts_with("https:");
            let url = format!("{}{endpoint}", host.trim_end_matches('/'));
            urls.push((origin, url));
        }
        if urls.is_empty() {
            urls.push((String::new(), format!("{DEFAULT_HOST}{endpoint}")));
            let text =
                format!("not given as a URL, so {DEFAULT_HOST} is asked: write the address of your Laravel");
            self.note(Fate::ToDo, "authHost", text);
        } else {
            let text = "[apps.auth]: clients from a page of another host of the list are asked about there";
            self.note(Fate::Taken, "authHost, authEndpoint", text);
        }
        if is_https {
            let text =
                "the certificate must be one that this machine trusts: laravel-echo-server accepted any";
            self.note(Fate::ToDo, "authHost", text);
        }
        let url = urls[0].1.clone();
        Ok((url, urls.split_off(1)))
    }

    fn redis(&mut self, file: &mut Fields) -> Result<Option<ImportedRedis>, String> {
        let mut wanted = true;
        if let Some(mut subscribers) = file.object("subscribers")? {
            wanted = subscribers.flag("redis")? != Some(false);
            let text = if wanted { "[apps.redis]" } else { "false, so there is no [apps.redis]" };
            self.note(Fate::Taken, "subscribers.redis", text);
            if subscribers.flag("http")? == Some(false) {
                let text = "false: here the API is always there, for those who have the secret";
                self.note(Fate::NotNeeded, "subscribers.http", text);
            }
            self.unknown(&subscribers);
        }
        if file.text("database")?.is_some() {
            let text = "gateways know who is present, and keep it in no database";
            self.note(Fate::NotNeeded, "database", text);
        }
        let Some(mut config) = file.object("databaseConfig")? else {
            return Ok(wanted.then(|| redis_at("localhost", DEFAULT_REDIS_PORT, false)));
        };
        if config.take("sqlite").is_some() {
            self.note(Fate::NotNeeded, "databaseConfig.sqlite", "see database");
        }
        if config.flag("publishPresence")? == Some(true) {
            let text =
                "nothing is published to Redis: let [[apps.webhooks]] post member_added and member_removed";
            self.note(Fate::ToDo, "databaseConfig.publishPresence", text);
        }
        let redis = match config.take("redis") {
            Some(value) if wanted => self.redis_options(value)?,
            Some(_) => {
                self.note(Fate::NotNeeded, "databaseConfig.redis", "see database and subscribers.redis");
                None
            }
            None => wanted.then(|| redis_at("localhost", DEFAULT_REDIS_PORT, false)),
        };
        self.unknown(&config);
        Ok(redis)
    }

    /// The options of ioredis.
    fn redis_options(&mut self, value: Value) -> Result<Option<ImportedRedis>, String> {
        let mut options = Fields::of("databaseConfig.redis", value)?;
        let host = options.text("host")?.unwrap_or_else(|| "localhost".to_owned());
        let port = options.text("port")?.unwrap_or_else(|| DEFAULT_REDIS_PORT.to_owned());
        if port.parse::<u16>().is_err() {
            return Err(format!("{}: expected a port", options.at("port")));
        }
        // As Laravel's REDIS_HOST has it.
        let (scheme, name) = host.split_once("://").unwrap_or(("", &host));
        let is_tls = match scheme {
            "" | "tcp" | "redis" => options.take("tls").is_some(),
            "tls" | "rediss" => {
                options.take("tls");
                true
            }
            _ => return Err(expected_host(&options)),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let is_part = |char: char| char.is_ascii_alphanumeric() || "-_.:%".contains(char);
        if name.is_empty() || !name.chars().all(is_part) {
            return Err(expected_host(&options));
        }
        let mut redis = redis_at(name, &port, is_tls);
        let prefix = options.text("keyPrefix")?;
        if prefix.is_none() {
            let text = "not given, so prefix is empty: write Laravel's database.redis.options.prefix, by default \
                        its APP_NAME and _database_";
            self.note(Fate::ToDo, &options.at("keyPrefix"), text);
        }
        redis.prefix = prefix.unwrap_or_default();
        redis.user = options.text("username")?.unwrap_or_default();
        redis.password_file = options.text("password")?.map(|_| PASSWORD_FILE.to_owned());
        let taken = "[apps.redis]; the prefix must be Laravel's database.redis.options.prefix";
        self.note(Fate::Taken, "databaseConfig.redis", taken);
        if redis.password_file.is_some() {
            self.note(Fate::ToDo, PASSWORD_SETTING, password_note(PASSWORD_FILE));
        }
        if is_tls {
            let text = "rediss://; if a CA of your own has signed, set ca in [apps.redis.tls]";
            self.note(Fate::ToDo, &options.at("tls"), text);
        }
        let mut reachable = true;
        for (name, text) in [
            ("path", "a gateway connects over TCP: add [apps.redis] with url = \"redis://HOST:PORT\""),
            (
                "sentinels",
                "Sentinel is not asked: add [apps.redis] with the primary and its replicas, such as url = \
                 [\"redis://10.0.0.1:6379\", \"redis://10.0.0.2:6379\"]; any of them hears what is published",
            ),
        ] {
            if options.take(name).is_some() {
                reachable = false;
                self.note(Fate::ToDo, &options.at(name), text);
            }
        }
        for name in ["name", "sentinelPassword", "sentinelUsername", "role"] {
            if options.take(name).is_some() {
                self.note(Fate::NotNeeded, &options.at(name), "Sentinel is not asked");
            }
        }
        if options.take("db").is_some() {
            let text = "what is published belongs to no database";
            self.note(Fate::NotNeeded, &options.at("db"), text);
        }
        for setting in options.rest() {
            self.note(Fate::NotNeeded, &setting, "an option of ioredis");
        }
        Ok(reachable.then_some(redis))
    }

    fn listener(&mut self, file: &mut Fields) -> Result<ImportedListener, String> {
        let port = match file.text("port")? {
            None => DEFAULT_PORT,
            Some(text) => port(&text).ok_or("port: expected a port, such as 6001")?,
        };
        let host = file.text("host")?;
        let ip = host.as_ref().and_then(|host| match host.as_str() {
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            host => host.parse::<IpAddr>().ok(),
        });
        if let (Some(host), None) = (&host, ip) {
            let text = format!(
                "{host:?} is a name: the listener takes connections to every address, unless bind has another one"
            );
            self.note(Fate::ToDo, "host", text);
        }
        self.note(Fate::Taken, "host, port", "bind of the listener");
        let is_tls = match file.text("protocol")?.as_deref() {
            None | Some("http") => false,
            Some("https") => true,
            Some(_) => return Err("protocol: expected \"http\" or \"https\"".to_owned()),
        };
        let (cert, key) = (file.text("sslCertPath")?, file.text("sslKeyPath")?);
        let (chain, passphrase) = (file.text("sslCertChainPath")?, file.text("sslPassphrase")?);
        let tls = if is_tls {
            self.note(Fate::Taken, "protocol, sslCertPath, sslKeyPath", "the listener's certificate and key");
            let missing = "sslCertPath and sslKeyPath: expected files, because protocol is \"https\"";
            let (cert, key) = cert.zip(key).ok_or(missing)?;
            if let Some(chain) = chain {
                let text = format!("append {chain} to {cert}: certificate and chain are one file");
                self.note(Fate::ToDo, "sslCertChainPath", text);
            }
            if passphrase.is_some() {
                let text = format!("take it off the key: openssl pkey -in {key} -out NEW");
                self.note(Fate::ToDo, "sslPassphrase", text);
            }
            Some((cert, key))
        } else {
            for (setting, given) in [
                ("sslCertPath", cert.is_some()),
                ("sslKeyPath", key.is_some()),
                ("sslCertChainPath", chain.is_some()),
                ("sslPassphrase", passphrase.is_some()),
            ] {
                if given {
                    self.note(Fate::NotNeeded, setting, "protocol is \"http\"");
                }
            }
            None
        };
        let ip = ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Ok(ImportedListener { bind: SocketAddr::new(ip, port), tls })
    }

    /// Options of socket.io and engine.io.
    fn socketio(&mut self, file: &mut Fields) -> Result<(), String> {
        let Some(mut options) = file.object("socketio")? else { return Ok(()) };
        if let Some(path) = options.text("path")?
            && path.trim_matches('/') != "socket.io"
        {
            let text = "clients connect at /socket.io/: change `path` in Echo's options, or let the proxy rewrite it";
            self.note(Fate::ToDo, "socketio.path", text);
        }
        for name in ["origins", "cors", "allowRequest"] {
            if options.take(name).is_some() {
                let text =
                    "any page may connect until the app has origins, such as origins = [\"*.example.com\"]";
                self.note(Fate::ToDo, &options.at(name), text);
            }
        }
        if options.take("maxHttpBufferSize").is_some() {
            let text = "a client's message may be twice event_data_bytes_max and some more";
            self.note(Fate::NotNeeded, "socketio.maxHttpBufferSize", text);
        }
        for setting in options.rest() {
            let text = "gateways ping every 25 s, take WebSockets with and without polling before, and share nothing";
            self.note(Fate::NotNeeded, &setting, text);
        }
        Ok(())
    }

    fn what_is_not_needed(&mut self, file: &mut Fields) -> Result<(), String> {
        if file.flag("devMode")? == Some(true) {
            self.note(Fate::NotNeeded, "devMode", "BROADGATE_LOG=debug shows what happens");
        }
        if let Some(mut cors) = file.object("apiOriginAllow")? {
            let fate = if cors.flag("allowCors")? == Some(true) { Fate::ToDo } else { Fate::NotNeeded };
            let text = "pages cannot call the API: its key is a secret, so let your backend call it";
            self.note(fate, "apiOriginAllow", text);
        }
        for (name, text) in [
            ("secureOptions", "TLS 1.2 and 1.3 only"),
            ("headers", "answers have the headers that they need: let the proxy add others"),
        ] {
            if file.has(name) {
                file.take(name);
                self.note(Fate::NotNeeded, name, text);
            }
        }
        Ok(())
    }

    fn unknown(&mut self, fields: &Fields) {
        for setting in fields.rest() {
            self.note(Fate::Unknown, &setting, "laravel-echo-server 1.6 has no such setting");
        }
    }
}

fn redis_at(host: &str, port: &str, is_tls: bool) -> ImportedRedis {
    let scheme = if is_tls { "rediss" } else { "redis" };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let (url, user, prefix) = (format!("{scheme}://{host}:{port}"), String::new(), String::new());
    ImportedRedis { url, user, password_file: None, prefix }
}

/// It may hold a password, and is not repeated.
fn expected_host(options: &Fields) -> String {
    format!("{}: expected a host name or an address, with or without tls:// before it", options.at("host"))
}

/// That server takes the last digits, so that a URL is a port as well.
fn port(text: &str) -> Option<u16> {
    let text = text.trim_end_matches('/');
    let digits = text.rfind(|c: char| !c.is_ascii_digit()).map_or(text, |at| &text[at + 1..]);
    digits.parse().ok().filter(|port| *port > 0)
}

/// The origin of a URL without a path; none of `.example.com` or a bare host.
fn origin(host: &str) -> Option<String> {
    let uri: Uri = host.parse().ok()?;
    let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme))?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    Some(format!("{scheme}://{authority}"))
}

#[cfg(test)]
#[path = "echo_server_tests.rs"]
mod tests;
