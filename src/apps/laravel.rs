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

/// Where the two sides reach the gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// From Laravel.
    pub(crate) inner: Reach,
    /// From browsers; none if it is the same.
    pub(crate) public: Option<Reach>,
}

impl Places {
    fn public(&self) -> &Reach {
        self.public.as_ref().unwrap_or(&self.inner)
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

/// Variables of the front end that do not repeat those of the server, if browsers have an address of their own.
fn front(places: &Places, name: &str) -> Option<String> {
    let public = places.public.as_ref()?;
    match name {
        "VITE_REVERB_HOST" => Some(public.host.clone()),
        "VITE_REVERB_PORT" => Some(public.port.to_string()),
        "VITE_REVERB_SCHEME" => Some(public.scheme.to_owned()),
        _ => None,
    }
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
pub(crate) fn both(app: &App, key: &KeyPair, places: &Places) -> String {
    let mut text = String::from("# Laravel's .env\n");
    for (name, value) in server(app, key, &places.inner) {
        text += &format!("{name}={}\n", quoted(&value));
    }
    text.push('\n');
    for (name, repeated) in FRONT {
        text += &match front(places, name) {
            Some(value) => format!("{name}={}\n", quoted(&value)),
            None => format!("{name}=\"${{{repeated}}}\"\n"),
        };
    }
    if !app.path_prefix.is_empty() {
        text += &format!(
            "\n# and in config/broadcasting.php, among the options of the reverb connection:\n\
             #   'path' => '{}',\n",
            app.path_prefix
        );
    }
    text += "\n// Laravel Echo, without the build's variables\nnew Echo({\n";
    for (name, value) in echo(app, key, places.public()) {
        text += &format!("    {name}: {value},\n");
    }
    text + "})\n"
}

/// Both, for scripts.
pub(crate) fn as_json(app: &App, key: &KeyPair, places: &Places) -> Value {
    let mut env: Map<_, _> = server(app, key, &places.inner)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    for (name, repeated) in FRONT {
        let repeated = env.get(repeated).cloned().unwrap_or_default();
        let value = front(places, name).map_or(repeated, |value| json!(value));
        env.insert(name.to_owned(), value);
    }
    let echo: Map<_, _> =
        echo(app, key, places.public()).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
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

    fn places(inner: &str, public: Option<&str>) -> Places {
        let parse = |url| Reach::parse(url).unwrap();
        Places { inner: parse(inner), public: public.map(parse) }
    }

    #[test]
    fn browsers_may_have_an_address_of_their_own() {
        let (app, places) = (app("s1", ""), places("http://10.0.0.5:8080", Some("https://ws.example.com")));
        let text = both(&app, &app.keys[0], &places);
        for line in [
            "REVERB_HOST=10.0.0.5",
            "REVERB_PORT=8080",
            "REVERB_SCHEME=http",
            "VITE_REVERB_APP_KEY=\"${REVERB_APP_KEY}\"",
            "VITE_REVERB_HOST=ws.example.com",
            "VITE_REVERB_PORT=443",
            "VITE_REVERB_SCHEME=https",
            "    wsHost: \"ws.example.com\",",
            "    forceTLS: true,",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        let json = as_json(&app, &app.keys[0], &places);
        assert_eq!(
            (&json["env"]["REVERB_HOST"], &json["env"]["VITE_REVERB_PORT"]),
            (&"10.0.0.5".into(), &"443".into())
        );
        assert_eq!(json["echo"]["wsHost"], "ws.example.com");
    }

    #[test]
    fn laravel_and_echo_get_the_same_settings() {
        let app = app("s1", "");
        let text = both(&app, &app.keys[0], &places("http://127.0.0.1:8080", None));
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
        let places = places("https://ws.example.com", None);
        let text = both(&app, &app.keys[0], &places);
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
        let json = as_json(&app, &app.keys[0], &places);
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
