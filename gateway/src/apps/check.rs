//! Relations between an app's settings that their types cannot say.

use std::time::Duration;

use broadgate_proto::{limits as proto, name};
use broadgate_pusher::{channel::USER_ID_BYTES_HIGHEST, limits::PusherLimits};
use http::{HeaderName, HeaderValue, Uri, header};

use crate::apps::settings::{App, AppAuth, KeyPair, Webhook};

/// The place within an app, such as `.keys[0]` or nothing, and a sentence.
pub(super) type Wrong = (String, String);

/// A presence member's info holds the user's id as well, which JSON may make longer.
const USER_INFO_BYTES_MOST: usize = proto::MEMBER_INFO_BYTES_MAX - 1024;

/// The first violation.
pub(super) fn check(app: &App) -> Result<(), Wrong> {
    let here = |sentence: String| (String::new(), sentence);
    name::check_visible("id", &app.id).map_err(|error| here(error.to_string()))?;
    if let Some(redis) = &app.redis {
        redis.check().map_err(|sentence| (".redis".to_owned(), sentence))?;
    }
    if app.keys.is_empty() {
        return match pusher_setting(app) {
            Some(setting) => Err(here(format!(
                "{setting} is for Pusher clients, and without a key none can connect: add [[apps.keys]] \
                 (`broadgate apps new ID` prints one) or leave it out"
            ))),
            None => Ok(()),
        };
    }
    // It is part of the HTTP API's paths, which the server SDKs do not escape.
    if let Some(c) = foreign(&app.id) {
        return Err(here(format!("id {:?} holds {c:?}: an app with keys needs {CHARSET}", app.id)));
    }
    for (index, key) in app.keys.iter().enumerate() {
        check_key(key).map_err(|sentence| (format!(".keys[{index}]"), sentence))?;
    }
    check_times(app).map_err(here)?;
    check_prefix(&app.path_prefix).map_err(here)?;
    check_limits(&app.limits).map_err(|sentence| (".limits".to_owned(), sentence))?;
    for (index, webhook) in app.webhooks.iter().enumerate() {
        check_webhook(webhook).map_err(|sentence| (format!(".webhooks[{index}]"), sentence))?;
    }
    match &app.auth {
        Some(_) if !app.socketio => Err(here(
            "auth is for Socket.IO clients, and none may connect: set socketio = true or leave it out"
                .to_owned(),
        )),
        Some(auth) => check_auth(auth).map_err(|sentence| (".auth".to_owned(), sentence)),
        None => Ok(()),
    }
}

/// Headers that no client passes on: what they say of a request is the gateway's to say.
const NEVER_PASSED_ON: [HeaderName; 5] =
    [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE];

fn check_auth(auth: &AppAuth) -> Result<(), String> {
    if auth.url.is_empty() && auth.by_origin.is_empty() {
        return Err("url is missing: give that of Laravel's /broadcasting/auth".to_owned());
    }
    let urls = auth.by_origin.iter().map(|entry| &entry.url);
    let urls = urls.chain(Some(&auth.url).filter(|url| !url.is_empty()));
    for url in urls {
        let shown = url.split('?').next().unwrap_or_default();
        check_url(url, shown, "name the client by its own headers")?;
    }
    if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&auth.timeout) {
        return Err("timeout must be from 1s to 60s".to_owned());
    }
    for name in &auth.headers {
        let parsed = HeaderName::try_from(name.as_str())
            .map_err(|_| format!("headers: {name:?} is no name of a header"))?;
        let lower = parsed.as_str();
        if NEVER_PASSED_ON.contains(&parsed)
            || lower.starts_with("content-")
            || lower.starts_with("x-forwarded-")
        {
            return Err(format!("headers: {name:?} is set by the gateway: leave it out"));
        }
    }
    Ok(())
}

/// Only whole http and https URLs; `shown` is the URL without secrets.
fn check_url(url: &str, shown: &str, instead: &str) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|error| format!("url {shown:?}: {error}"))?;
    let authority = uri.authority().filter(|_| matches!(uri.scheme_str(), Some("http" | "https")));
    let Some(authority) = authority.filter(|authority| !authority.host().is_empty()) else {
        return Err(format!("url {shown:?} must begin with http:// or https:// and a host"));
    };
    if authority.as_str().contains('@') {
        return Err(format!("url holds a user name: {instead}"));
    }
    Ok(())
}

/// A setting that means nothing without a key, if there is one.
fn pusher_setting(app: &App) -> Option<&'static str> {
    let default = App::default();
    let given = [
        (app.client_events != default.client_events, "client_events"),
        (app.subscription_count != default.subscription_count, "subscription_count"),
        (app.watchlist != default.watchlist, "watchlist"),
        (app.tls_only != default.tls_only, "tls_only"),
        (app.authorized_within != default.authorized_within, "authorized_within"),
        (app.compat != default.compat, "compat"),
        (app.activity_timeout != default.activity_timeout, "activity_timeout"),
        (app.pong_timeout != default.pong_timeout, "pong_timeout"),
        (app.cache_time != default.cache_time, "cache_time"),
        (app.connections_max != default.connections_max, "connections_max"),
        (
            app.connections_per_gateway_max != default.connections_per_gateway_max,
            "connections_per_gateway_max",
        ),
        (app.path_prefix != default.path_prefix, "path_prefix"),
        (app.limits != default.limits, "limits"),
        (!app.webhooks.is_empty(), "webhooks"),
        (app.socketio, "socketio"),
        (app.auth.is_some(), "auth"),
    ];
    given.into_iter().find(|(given, _)| *given).map(|(_, name)| name)
}

const CHARSET: &str = "letters, digits, '-', '_' and '.' only";

/// Neither `:`, which ends a key in a signature, nor what a path would have to escape.
fn foreign(text: &str) -> Option<char> {
    text.chars().find(|&c| !c.is_ascii_alphanumeric() && !"-_.".contains(c))
}

fn check_key(key: &KeyPair) -> Result<(), String> {
    name::check("key", &key.key).map_err(|error| error.to_string())?;
    if let Some(c) = foreign(&key.key) {
        return Err(format!("key {:?} holds {c:?}: use {CHARSET}", key.key));
    }
    let secret = key.secret.reveal();
    if secret.is_empty() {
        let place = match &key.secret_file {
            Some(path) => format!("the file {} holds no secret", path.display()),
            None => "the secret is empty".to_owned(),
        };
        return Err(format!("{place}: `broadgate apps new ID` prints a fresh one"));
    }
    if secret.chars().any(char::is_control) {
        return Err("the secret holds a control character: one line of printable text is needed".to_owned());
    }
    Ok(())
}

fn check_times(app: &App) -> Result<(), String> {
    // The protocol has whole seconds, and clients take 0 for an error.
    for (name, time) in [
        ("activity_timeout", app.activity_timeout),
        ("pong_timeout", app.pong_timeout),
        ("cache_time", app.cache_time),
    ] {
        if time < Duration::from_secs(1) {
            return Err(format!("{name} must be at least 1s"));
        }
    }
    Ok(())
}

fn check_prefix(prefix: &str) -> Result<(), String> {
    if prefix.is_empty() {
        return Ok(());
    }
    let good = |segment: &str| !segment.is_empty() && foreign(segment).is_none();
    let rest = prefix.strip_prefix('/');
    if !rest.is_some_and(|rest| rest.split('/').all(good)) {
        return Err(format!(
            "path_prefix {prefix:?} must be \"\" or begin with a slash and not end with one, such as \"/x\""
        ));
    }
    if rest.is_some_and(|rest| rest.split('/').next() == Some("ws")) {
        return Err("path_prefix must not begin with \"/ws\": raw clients connect there".to_owned());
    }
    Ok(())
}

fn check_limits(limits: &PusherLimits) -> Result<(), String> {
    let no_more = usize::MAX;
    for (name, value, most) in [
        // Channels are groups of the cluster.
        ("channel_name_bytes_max", limits.channel_name_bytes_max, proto::NAME_BYTES_MAX),
        ("event_name_bytes_max", limits.event_name_bytes_max, no_more),
        ("event_data_bytes_max", limits.event_data_bytes_max, proto::PAYLOAD_BYTES_MAX),
        ("channels_per_event_max", limits.channels_per_event_max, proto::NAMES_PER_COMMAND_MAX),
        ("batch_events_max", limits.batch_events_max, no_more),
        ("user_id_bytes_max", limits.user_id_bytes_max, USER_ID_BYTES_HIGHEST),
        ("user_info_bytes_max", limits.user_info_bytes_max, USER_INFO_BYTES_MOST),
    ] {
        if value == 0 {
            return Err(format!("{name} must be at least 1"));
        }
        if value > most {
            return Err(format!("{name} must be at most {most}"));
        }
    }
    if limits.presence_members_max == Some(0) {
        return Err("presence_members_max must be at least 1".to_owned());
    }
    if limits.client_events_per_second_max == Some(0) {
        return Err(
            "client_events_per_second_max must be at least 1: for none, set client_events = false".to_owned()
        );
    }
    for (name, value) in [
        ("subscriptions_per_second_max", limits.subscriptions_per_second_max),
        ("app_subscriptions_per_second_max", limits.app_subscriptions_per_second_max),
    ] {
        if value == 0 {
            return Err(format!("{name} must be at least 1"));
        }
    }
    if limits.timestamp_window_seconds == 0 {
        return Err("timestamp_window_seconds must be at least 1".to_owned());
    }
    Ok(())
}

fn check_webhook(webhook: &Webhook) -> Result<(), String> {
    check_url(&webhook.url, webhook.address(), "put what the receiver asks for into headers")?;
    if webhook.events.is_empty() {
        return Err("events is empty, so nothing would be sent: leave it out for all".to_owned());
    }
    let own = ["x-pusher-key", "x-pusher-signature"];
    for (name, value) in &webhook.headers {
        let parsed = HeaderName::try_from(name.as_str())
            .map_err(|_| format!("headers: {name:?} is not the name of a header"))?;
        if HeaderValue::try_from(value.as_str()).is_err() {
            return Err(format!("headers: the value of {name:?} holds a character that no header may hold"));
        }
        let fixed = [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::HOST, header::TRANSFER_ENCODING];
        if fixed.contains(&parsed) || own.contains(&parsed.as_str()) {
            return Err(format!("headers: {name:?} is set by the gateway: leave it out"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::{KeySecret, WebhookEvent};

    fn shop() -> App {
        let key = KeyPair { key: "k-1".into(), secret: KeySecret::new("s"), secret_file: None };
        App { keys: vec![key], ..App::new("shop") }
    }

    fn hook(url: &str) -> Webhook {
        Webhook {
            url: url.into(),
            events: WebhookEvent::ALL.to_vec(),
            channel_prefix: String::new(),
            channel_suffix: String::new(),
            headers: std::collections::BTreeMap::new(),
            batch: false,
        }
    }

    fn asking(url: &str) -> AppAuth {
        AppAuth { url: url.into(), ..AppAuth::default() }
    }

    fn authorized(app: &mut App, auth: AppAuth) {
        (app.socketio, app.auth) = (true, Some(auth));
    }

    #[test]
    fn what_holds_is_taken() {
        let headers = [("Authorization".to_owned(), "Bearer x".to_owned())].into();
        let hooked = App {
            webhooks: vec![Webhook { headers, ..hook("https://example.com:8443/hook?token=x") }],
            path_prefix: "/a/b".into(),
            ..shop()
        };
        let mut asked = shop();
        let headers = vec!["X-Tenant".to_owned()];
        authorized(&mut asked, AppAuth { headers, ..asking("https://example.com/broadcasting/auth?x=1") });
        for app in [App::new("only raw, with a space"), shop(), hooked, asked] {
            check(&app).unwrap();
        }
    }

    #[test]
    fn violations_name_their_place() {
        type Change = fn(&mut App);
        let cases: [(Change, &str, &str); 28] = [
            (|app| app.id.clear(), "", "id is empty"),
            (|app| app.id = "my shop".into(), "", "' '"),
            (|app| app.keys[0].key = "a:b".into(), ".keys[0]", "':'"),
            (|app| app.keys[0].key.clear(), ".keys[0]", "key is empty"),
            (|app| app.keys[0].secret = KeySecret::default(), ".keys[0]", "secret is empty"),
            (|app| app.keys[0].secret = KeySecret::new("a\nb"), ".keys[0]", "control character"),
            (|app| app.activity_timeout = Duration::ZERO, "", "activity_timeout"),
            (|app| app.pong_timeout = Duration::from_millis(1), "", "pong_timeout"),
            (|app| app.cache_time = Duration::ZERO, "", "cache_time"),
            (|app| app.path_prefix = "x".into(), "", "path_prefix"),
            (|app| app.path_prefix = "/x/".into(), "", "path_prefix"),
            (|app| app.path_prefix = "/ws".into(), "", "/ws"),
            (|app| app.limits.channel_name_bytes_max = 201, ".limits", "at most 200"),
            (|app| app.limits.event_data_bytes_max = 0, ".limits", "at least 1"),
            (|app| app.limits.client_events_per_second_max = Some(0), ".limits", "client_events = false"),
            (|app| app.webhooks = vec![hook("ftp://x/")], ".webhooks[0]", "http://"),
            (|app| app.webhooks = vec![hook("http://x"), hook("/path")], ".webhooks[1]", "https://"),
            (|app| app.webhooks = vec![hook("http://me:hush@x/")], ".webhooks[0]", "headers"),
            (|app| app.webhooks = vec![hook("http://x y/")], ".webhooks[0]", "url"),
            (
                |app| app.webhooks = vec![Webhook { events: vec![], ..hook("http://x") }],
                ".webhooks[0]",
                "events",
            ),
            (
                |app| {
                    let headers = [("Content-Type".to_owned(), "text/plain".to_owned())].into();
                    app.webhooks = vec![Webhook { headers, ..hook("http://x") }];
                },
                ".webhooks[0]",
                "set by the gateway",
            ),
            (|app| app.auth = Some(asking("http://x/")), "", "socketio = true"),
            (|app| authorized(app, asking("")), ".auth", "url is missing"),
            (|app| authorized(app, asking("http://me:hush@x/")), ".auth", "user name"),
            (
                |app| authorized(app, AppAuth { timeout: Duration::ZERO, ..asking("http://x/") }),
                ".auth",
                "from 1s to 60s",
            ),
            (
                |app| {
                    let headers = vec!["X-Tenant".to_owned(), "X-Forwarded-For".to_owned()];
                    authorized(app, AppAuth { headers, ..asking("http://x/") });
                },
                ".auth",
                "set by the gateway",
            ),
            (
                |app| {
                    app.keys.clear();
                    app.tls_only = true;
                },
                "",
                "tls_only is for Pusher clients",
            ),
            (
                |app| {
                    app.keys.clear();
                    app.webhooks = vec![hook("http://x")];
                },
                "",
                "[[apps.keys]]",
            ),
        ];
        for (change, place, words) in cases {
            let mut app = shop();
            change(&mut app);
            let (at, sentence) = check(&app).unwrap_err();
            assert!(at == place && sentence.contains(words), "{at}: {sentence}");
            assert!(!sentence.contains("hush"), "{sentence}");
        }
    }
}
