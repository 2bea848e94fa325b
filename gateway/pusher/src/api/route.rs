//! Routing by method and path.

use http::StatusCode;

use super::{ApiRefusal, params::percent_decode};
use crate::shown;

/// A routed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The health check, which needs no signature.
    Up,
    App {
        /// None if only the key identifies the app.
        app: Option<String>,
        call: Call,
    },
}

/// A call of an app's backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    Events,
    BatchEvents,
    /// The legacy publish call.
    ChannelEvents {
        channel: String,
    },
    Channels,
    Channel {
        channel: String,
    },
    Users {
        channel: String,
    },
    TerminateConnections {
        user: String,
    },
    /// The number of connections; Laravel Pulse asks for it.
    Connections,
    /// The state of the server, as laravel-echo-server tells it.
    Status,
}

/// A path without a prefix such as `/pusher`; none if it lacks the prefix.
pub fn after_prefix<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix.trim_end_matches('/')).filter(|rest| rest.starts_with('/'))
}

/// Routes a request by its method and the path after the prefix, not yet decoded. Some SDKs begin the path
/// with two slashes.
pub fn route(method: &str, path: &str) -> Result<Route, ApiRefusal> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (app, only, call) = match parts[..] {
        // The Python library sends this; its newest version is 3.3.4.
        ["users", user, "terminate_connections"] => {
            ("", "POST", Call::TerminateConnections { user: decoded(user)? })
        }
        // Health checks of some proxies send HEAD.
        ["up"] if method == "HEAD" => return Ok(Route::Up),
        ["up"] => return allowed(method, "GET", path).map(|()| Route::Up),
        ["apps", app, "events"] => (app, "POST", Call::Events),
        ["apps", app, "batch_events"] => (app, "POST", Call::BatchEvents),
        ["apps", app, "connections"] => (app, "GET", Call::Connections),
        ["apps", app, "status"] => (app, "GET", Call::Status),
        ["apps", app, "channels"] => (app, "GET", Call::Channels),
        ["apps", app, "channels", channel] => (app, "GET", Call::Channel { channel: decoded(channel)? }),
        ["apps", app, "channels", channel, "users"] => {
            (app, "GET", Call::Users { channel: decoded(channel)? })
        }
        ["apps", app, "channels", channel, "events"] => {
            (app, "POST", Call::ChannelEvents { channel: decoded(channel)? })
        }
        ["apps", app, "users", user, "terminate_connections"] => {
            (app, "POST", Call::TerminateConnections { user: decoded(user)? })
        }
        _ => return Err(nothing(path)),
    };
    if parts.contains(&"") {
        return Err(nothing(path));
    }
    allowed(method, only, path)?;
    let app = Some(decoded(app)?).filter(|app| !app.is_empty());
    Ok(Route::App { app, call })
}

fn allowed(method: &str, only: &'static str, path: &str) -> Result<(), ApiRefusal> {
    if method == only {
        return Ok(());
    }
    let text = format!("{} is not answered at {}: use {only}", shown(method), shown(path));
    Err(ApiRefusal { allow: Some(only), ..ApiRefusal::new(StatusCode::METHOD_NOT_ALLOWED, text) })
}

fn nothing(path: &str) -> ApiRefusal {
    let path = shown(path);
    ApiRefusal::new(
        StatusCode::NOT_FOUND,
        format!("nothing is at {path}: requests go to /apps/APP_ID/events and so on"),
    )
}

fn decoded(part: &str) -> Result<String, ApiRefusal> {
    String::from_utf8(percent_decode(part, false))
        .map_err(|_| ApiRefusal::bad(format!("{} in the path is not UTF-8 when decoded", shown(part))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, path: &str) -> Call {
        match route(method, path) {
            Ok(Route::App { app: Some(app), call }) if app == "3" => call,
            other => panic!("{method} {path}: {other:?}"),
        }
    }

    fn refused(method: &str, path: &str) -> (u16, String, Option<&'static str>) {
        let refusal = route(method, path).unwrap_err();
        (refusal.status.as_u16(), refusal.text, refusal.allow)
    }

    #[test]
    fn every_call_has_its_path() {
        let channel = || "presence-a,b=c".to_owned();
        assert_eq!(call("POST", "/apps/3/events"), Call::Events);
        assert_eq!(call("POST", "//apps/3/events"), Call::Events);
        assert_eq!(call("POST", "/apps/3/batch_events"), Call::BatchEvents);
        assert_eq!(call("GET", "/apps/3/channels"), Call::Channels);
        assert_eq!(call("GET", "/apps/3/channels/presence-a%2Cb%3Dc"), Call::Channel { channel: channel() });
        assert_eq!(call("GET", "/apps/3/channels/presence-a,b=c/users"), Call::Users { channel: channel() });
        assert_eq!(
            call("POST", "/apps/3/channels/presence-a,b=c/events"),
            Call::ChannelEvents { channel: channel() }
        );
        let user = "a/b c+é".to_owned();
        assert_eq!(
            call("POST", "/apps/3/users/a%2Fb%20c+%c3%A9/terminate_connections"),
            Call::TerminateConnections { user }
        );
        assert_eq!(call("GET", "/apps/3/connections"), Call::Connections);
        assert_eq!(call("GET", "/apps/3/status"), Call::Status);
        let call = Call::TerminateConnections { user: "7".to_owned() };
        assert_eq!(route("POST", "/users/7/terminate_connections"), Ok(Route::App { app: None, call }));
        assert_eq!((route("GET", "/up"), route("HEAD", "/up")), (Ok(Route::Up), Ok(Route::Up)));
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        let (status, text, allow) = refused("GET", "/apps/3/events");
        assert_eq!((status, allow), (405, Some("POST")));
        assert_eq!(text, "GET is not answered at /apps/3/events: use POST");
        assert_eq!(refused("POST", "/apps/3/channels").2, Some("GET"));
        let (status, text, _) = refused("GET", "/");
        assert_eq!(status, 404);
        assert_eq!(text, "nothing is at /: requests go to /apps/APP_ID/events and so on");
        for path in [
            "",
            "/apps",
            "/apps/3",
            "/apps//events",
            "/users//terminate_connections",
            "/apps/3/events/",
            "/apps/3/channels/",
            "/apps/3/channels//users",
            "/app/3/events",
        ] {
            assert_eq!(refused("POST", path).0, 404, "{path}");
        }
        assert_eq!(refused("GET", "/apps/3/channels/%ff").0, 400);
    }

    #[test]
    fn a_prefix_is_taken_off_between_slashes() {
        assert_eq!(after_prefix("/x/apps/3/events", "/x"), Some("/apps/3/events"));
        assert_eq!(after_prefix("/x//apps/3/events", "/x/"), Some("//apps/3/events"));
        assert_eq!(after_prefix("/apps/3/events", ""), Some("/apps/3/events"));
        assert_eq!(after_prefix("/xy/apps", "/x"), None);
        assert_eq!(after_prefix("/apps", "/x"), None);
    }
}
