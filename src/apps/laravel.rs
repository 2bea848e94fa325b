//! The settings with which Laravel and Echo find an app. Pure.

use std::net::SocketAddr;

use axum::http::Uri;
use broadgate_gateway::{
    apps::{App, KeyPair},
    config::{GatewaySettings, ListenerKind},
};
use serde_json::{Map, Value, json};

/// Where browsers and Laravel reach the gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) scheme: &'static str,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Reach {
    /// `http://host:port` or `https://host`.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let wrong =
            || format!("{url:?} is not an address of gateways: write http://HOST:PORT or https://HOST");
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let (scheme, port) = match uri.scheme_str() {
            Some("http") => ("http", 80),
            Some("https") => ("https", 443),
            _ => return Err(wrong()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong());
        }
        Ok(Self { scheme, host: host.to_owned(), port: uri.port_u16().unwrap_or(port) })
    }

    /// A listener of this machine.
    pub(crate) fn listener(bind: SocketAddr) -> Self {
        let host = match bind {
            bind if bind.ip().is_unspecified() => "127.0.0.1".to_owned(),
            SocketAddr::V4(bind) => bind.ip().to_string(),
            SocketAddr::V6(bind) => format!("[{}]", bind.ip()),
        };
        Self { scheme: "http", host, port: bind.port() }
    }

    /// The first listener for browsers.
    pub(crate) fn of(settings: &GatewaySettings) -> Option<Self> {
        let web = settings.listeners.iter().find(|listener| listener.kind == ListenerKind::Web)?;
        Some(Self::listener(web.bind))
    }
}

/// Variables of Laravel's front end, and the server's variables that they repeat.
const FRONT: [(&str, &str); 4] = [
    ("VITE_REVERB_APP_KEY", "REVERB_APP_KEY"),
    ("VITE_REVERB_HOST", "REVERB_HOST"),
    ("VITE_REVERB_PORT", "REVERB_PORT"),
    ("VITE_REVERB_SCHEME", "REVERB_SCHEME"),
];

/// Variables of Laravel's server, in the order of its `.env`.
fn server(app: &App, key: &KeyPair, reach: &Reach) -> [(&'static str, String); 7] {
    [
        ("BROADCAST_CONNECTION", "reverb".to_owned()),
        ("REVERB_APP_ID", app.id.clone()),
        ("REVERB_APP_KEY", key.key.clone()),
        ("REVERB_APP_SECRET", key.secret.reveal().to_owned()),
        ("REVERB_HOST", reach.host.clone()),
        ("REVERB_PORT", reach.port.to_string()),
        ("REVERB_SCHEME", reach.scheme.to_owned()),
    ]
}

/// The options of `new Echo`, in this order.
fn echo(app: &App, key: &KeyPair, reach: &Reach) -> Vec<(&'static str, Value)> {
    let mut options = vec![
        ("broadcaster", json!("reverb")),
        ("key", json!(key.key)),
        ("wsHost", json!(reach.host)),
        ("wsPort", json!(reach.port)),
        ("wssPort", json!(reach.port)),
        ("forceTLS", json!(reach.scheme == "https")),
        ("enabledTransports", json!(["ws", "wss"])),
    ];
    if !app.path_prefix.is_empty() {
        options.push(("wsPath", json!(app.path_prefix)));
    }
    options
}

/// Both, as text to paste.
pub(crate) fn both(app: &App, key: &KeyPair, reach: &Reach) -> String {
    let mut text = String::from("# Laravel's .env\n");
    for (name, value) in server(app, key, reach) {
        text += &format!("{name}={}\n", quoted(&value));
    }
    text.push('\n');
    for (name, repeated) in FRONT {
        text += &format!("{name}=\"${{{repeated}}}\"\n");
    }
    if !app.path_prefix.is_empty() {
        text += &format!(
            "\n# and in config/broadcasting.php, among the options of the reverb connection:\n\
             #   'path' => '{}',\n",
            app.path_prefix
        );
    }
    text += "\n// Laravel Echo, without the build's variables\nnew Echo({\n";
    for (name, value) in echo(app, key, reach) {
        text += &format!("    {name}: {value},\n");
    }
    text + "})\n"
}

/// Both, for scripts.
pub(crate) fn as_json(app: &App, key: &KeyPair, reach: &Reach) -> Value {
    let mut env: Map<_, _> =
        server(app, key, reach).into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    for (name, repeated) in FRONT {
        let value = env.get(repeated).cloned().unwrap_or_default();
        env.insert(name.to_owned(), value);
    }
    let echo: Map<_, _> =
        echo(app, key, reach).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    json!({ "env": env, "echo": echo })
}

/// As `.env` files are read: bare where nothing can be misread.
fn quoted(value: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte);
    if value.bytes().all(bare) {
        value.to_owned()
    } else if !value.contains(['\'', '\\']) {
        format!("'{value}'")
    } else {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$");
        format!("\"{escaped}\"")
    }
}

#[cfg(test)]
mod tests {
    use broadgate_gateway::apps::KeySecret;

    use super::*;

    fn app(secret: &str, path_prefix: &str) -> App {
        let key = KeyPair { key: "k1".into(), secret: KeySecret::new(secret), secret_file: None };
        App { keys: vec![key], path_prefix: path_prefix.into(), ..App::new("shop") }
    }

    #[test]
    fn laravel_and_echo_get_the_same_settings() {
        let app = app("s1", "");
        let text = both(&app, &app.keys[0], &Reach::parse("http://127.0.0.1:8080").unwrap());
        assert_eq!(
            text,
            "# Laravel's .env\n\
             BROADCAST_CONNECTION=reverb\nREVERB_APP_ID=shop\nREVERB_APP_KEY=k1\nREVERB_APP_SECRET=s1\n\
             REVERB_HOST=127.0.0.1\nREVERB_PORT=8080\nREVERB_SCHEME=http\n\n\
             VITE_REVERB_APP_KEY=\"${REVERB_APP_KEY}\"\nVITE_REVERB_HOST=\"${REVERB_HOST}\"\n\
             VITE_REVERB_PORT=\"${REVERB_PORT}\"\nVITE_REVERB_SCHEME=\"${REVERB_SCHEME}\"\n\n\
             // Laravel Echo, without the build's variables\nnew Echo({\n    broadcaster: \"reverb\",\n    \
             key: \"k1\",\n    wsHost: \"127.0.0.1\",\n    wsPort: 8080,\n    wssPort: 8080,\n    \
             forceTLS: false,\n    enabledTransports: [\"ws\",\"wss\"],\n})\n"
        );
    }

    #[test]
    fn prefix_scheme_and_odd_secret_are_shown() {
        let app = app("it's $5", "/x");
        let reach = Reach::parse("https://ws.example.com").unwrap();
        let text = both(&app, &app.keys[0], &reach);
        for line in [
            "REVERB_APP_SECRET=\"it's \\$5\"",
            "REVERB_PORT=443",
            "REVERB_SCHEME=https",
            "'path' => '/x'",
            "wsPath: \"/x\"",
            "forceTLS: true",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let json = as_json(&app, &app.keys[0], &reach);
        assert_eq!(json["env"]["VITE_REVERB_HOST"], "ws.example.com");
        assert_eq!(
            (&json["env"]["REVERB_APP_SECRET"], &json["echo"]["wssPort"]),
            (&"it's $5".into(), &443.into())
        );
        assert_eq!((quoted("a b"), quoted("ab1-")), ("'a b'".to_owned(), "ab1-".to_owned()));
    }

    #[test]
    fn gateways_are_reached_where_they_listen() {
        let listener = |bind: &str| Reach::listener(bind.parse().unwrap());
        assert_eq!(
            (listener("0.0.0.0:81").host, listener("[::1]:81").host),
            ("127.0.0.1".into(), "[::1]".into())
        );
        assert_eq!(Reach::of(&GatewaySettings::default()).unwrap().port, 8080);
        for wrong in ["", "ws.example.com", "ws://x", "http://x/path", "https:///"] {
            assert!(Reach::parse(wrong).unwrap_err().contains("https://HOST"), "{wrong}");
        }
    }
}
