//! A request's path, read in one way for every kind of client. Pure.
//!
//! Proxies and SDKs double slashes, put one at the end, encode what need not be encoded, and leave a prefix
//! such as `/reverb` in front. Whether a prefix is right is decided later, where the app is known.

use broadgate_pusher::api::params::percent_decode;

/// What a request's path means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathTarget {
    /// What stands in front: "", or a path without a slash at its end.
    pub(super) prefix: String,
    pub(super) place: RequestTarget,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RequestTarget {
    /// Is the server up?
    Up,
    /// The HTTP API; the path after the prefix, still encoded, with single slashes.
    Api(String),
    /// Ably's call that publishes: the channel's segment of the path, still encoded.
    Ably(String),
    /// A Pusher client, with this app key.
    Key(String),
    /// A Socket.IO client; the app key that it has in its path, or "".
    SocketIo(String),
    /// A raw client of this app; "" is the listener's.
    Raw(String),
    /// A page, or nothing.
    Page(String),
}

/// Where Socket.IO clients connect, unless their `path` says otherwise.
const SOCKETIO: &str = "socket.io";

impl PathTarget {
    /// Reads a path. `prefix_bytes` says how much of a path, decoded, is the `path_prefix` of some app.
    pub(super) fn read(path: &str, prefix_bytes: impl FnOnce(&str) -> usize) -> Self {
        let encoded: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let decoded: Vec<String> = encoded
            .iter()
            .map(|segment| String::from_utf8_lossy(&percent_decode(segment, false)).into_owned())
            .collect();
        // Before the keys: an app may have the id "app".
        if let Some(at) = api_at(&decoded) {
            return Self {
                prefix: joined(&decoded[..at]),
                place: RequestTarget::Api(joined(&encoded[at..])),
            };
        }
        if let [before @ .., channels, _, messages] = &decoded[..]
            && channels == "channels"
            && messages == "messages"
        {
            let segment = encoded[before.len() + 1].to_owned();
            return Self { prefix: joined(before), place: RequestTarget::Ably(segment) };
        }
        if let [before @ .., app, key] = &decoded[..]
            && app == "app"
        {
            return Self { prefix: joined(before), place: RequestTarget::Key(key.clone()) };
        }
        match &decoded[..] {
            [before @ .., io] if io == SOCKETIO => {
                return Self { prefix: joined(before), place: RequestTarget::SocketIo(String::new()) };
            }
            [before @ .., io, key] if io == SOCKETIO => {
                return Self { prefix: joined(before), place: RequestTarget::SocketIo(key.clone()) };
            }
            _ => {}
        }
        let whole = joined(&decoded);
        let (prefix, rest) = whole.split_at(prefix_bytes(&whole));
        let place = match rest.split_once("/ws") {
            _ if rest == "/up" => RequestTarget::Up,
            Some(("", "")) => RequestTarget::Raw(String::new()),
            Some(("", named)) if named.starts_with('/') => RequestTarget::Raw(named[1..].to_owned()),
            _ if rest.is_empty() => RequestTarget::Page("/".to_owned()),
            _ => RequestTarget::Page(rest.to_owned()),
        };
        Self { prefix: prefix.to_owned(), place }
    }

    /// The path as it was read, for the log and for refusals.
    pub(super) fn shown(&self) -> String {
        let place = match &self.place {
            RequestTarget::Up => "/up",
            RequestTarget::Api(path) | RequestTarget::Page(path) => path,
            RequestTarget::Ably(channel) => return format!("{}/channels/{channel}/messages", self.prefix),
            RequestTarget::Key(key) => return format!("{}/app/{key}", self.prefix),
            RequestTarget::SocketIo(key) if key.is_empty() => "/socket.io",
            RequestTarget::SocketIo(key) => return format!("{}/socket.io/{key}", self.prefix),
            RequestTarget::Raw(app) if app.is_empty() => "/ws",
            RequestTarget::Raw(app) => return format!("{}/ws/{app}", self.prefix),
        };
        format!("{}{place}", self.prefix)
    }
}

/// How many bytes of a path are one of these prefixes: the longest.
pub(super) fn longest_prefix<'a>(path: &str, prefixes: impl Iterator<Item = &'a str>) -> usize {
    let fits = |prefix: &&str| {
        path.strip_prefix(*prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    prefixes.filter(fits).map(str::len).max().unwrap_or(0)
}

/// Where the HTTP API begins. Python's library terminates connections without naming an app.
fn api_at(segments: &[String]) -> Option<usize> {
    let apps = segments.iter().position(|segment| segment == "apps").filter(|at| at + 1 < segments.len());
    apps.or_else(|| match segments {
        [before @ .., users, _, terminate] if users == "users" && terminate == "terminate_connections" => {
            Some(before.len())
        }
        _ => None,
    })
}

fn joined(segments: &[impl AsRef<str>]) -> String {
    segments.iter().fold(String::new(), |path, segment| path + "/" + segment.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> (String, RequestTarget) {
        let prefixes = ["", "/x", "/x/y"];
        let target = PathTarget::read(path, |path| longest_prefix(path, prefixes.into_iter()));
        (target.prefix, target.place)
    }

    fn at(prefix: &str, place: fn(String) -> RequestTarget, rest: &str) -> (String, RequestTarget) {
        (prefix.to_owned(), place(rest.to_owned()))
    }

    #[test]
    fn every_place_bears_a_prefix_doubled_slashes_and_one_at_the_end() {
        for (path, prefix) in [
            ("/app/k", ""),
            ("//app//k/", ""),
            ("/%61pp/%6b", ""),
            ("/reverb/app/k", "/reverb"),
            ("/a//b/app/k", "/a/b"),
        ] {
            assert_eq!(read(path), at(prefix, RequestTarget::Key, "k"), "{path}");
        }
        for (path, prefix, rest) in [
            ("/apps/1/events", "", "/apps/1/events"),
            ("//apps/1//events/", "", "/apps/1/events"),
            ("/reverb/apps/1/events", "/reverb", "/apps/1/events"),
            ("/apps/app/channels/a%2Fb", "", "/apps/app/channels/a%2Fb"),
            ("/x/users/7/terminate_connections", "/x", "/users/7/terminate_connections"),
            ("/apps/app/k", "", "/apps/app/k"),
        ] {
            assert_eq!(read(path), at(prefix, RequestTarget::Api, rest), "{path}");
        }
        for (path, prefix, app) in [
            ("/ws", "", ""),
            ("//ws/", "", ""),
            ("/ws/blue/", "", "blue"),
            ("/x/ws", "/x", ""),
            ("/x/y//ws/blue", "/x/y", "blue"),
            ("/ws/a/b", "", "a/b"),
        ] {
            assert_eq!(read(path), at(prefix, RequestTarget::Raw, app), "{path}");
        }
        for (path, prefix) in [("/up", ""), ("/up/", ""), ("//up", ""), ("/x/up", "/x"), ("/x/y/up", "/x/y")]
        {
            assert_eq!(read(path), (prefix.to_owned(), RequestTarget::Up), "{path}");
        }
    }

    #[test]
    fn a_socketio_client_may_have_its_key_in_the_path() {
        for (path, prefix, key) in [
            ("/socket.io/", "", ""),
            ("/socket.io", "", ""),
            ("/foreign/socket.io/", "/foreign", ""),
            ("/socket.io/k1", "", "k1"),
            ("/x/socket.io/k1/", "/x", "k1"),
        ] {
            assert_eq!(read(path), at(prefix, RequestTarget::SocketIo, key), "{path}");
        }
    }

    #[test]
    fn ably_publishes_to_a_channel() {
        for (path, prefix, channel) in [
            ("/channels/private%3Aorders.1/messages", "", "private%3Aorders.1"),
            ("/x//channels/a%2Fb/messages/", "/x", "a%2Fb"),
            ("/channels/messages/messages", "", "messages"),
        ] {
            assert_eq!(read(path), at(prefix, RequestTarget::Ably, channel), "{path}");
        }
        // With an app's id it is Pusher's API.
        assert_eq!(
            read("/apps/1/channels/x/messages"),
            at("", RequestTarget::Api, "/apps/1/channels/x/messages")
        );
    }

    #[test]
    fn the_rest_is_a_page() {
        for (path, prefix, page) in [
            ("/", "", "/"),
            ("", "", "/"),
            ("//console/", "", "/console"),
            ("/x/", "/x", "/"),
            ("/x/console", "/x", "/console"),
            ("/foreign/ws", "", "/foreign/ws"),
            ("/foreign/up", "", "/foreign/up"),
            ("/wsx", "", "/wsx"),
            ("/xy/ws", "", "/xy/ws"),
            ("/app", "", "/app"),
            ("/apps", "", "/apps"),
            ("/app/a/b", "", "/app/a/b"),
        ] {
            assert_eq!(read(path), at(prefix, RequestTarget::Page, page), "{path}");
        }
    }

    #[test]
    fn what_is_shown_is_what_was_read() {
        let shown = |path| PathTarget::read(path, |path| longest_prefix(path, ["/x"].into_iter())).shown();
        assert_eq!(shown("//a/app/k/"), "/a/app/k");
        assert_eq!(shown("/x//ws/blue"), "/x/ws/blue");
        assert_eq!((shown("/x/up"), shown("/ws"), shown("/")), ("/x/up".into(), "/ws".into(), "/".into()));
    }

    proptest::proptest! {
        #[test]
        fn no_path_panics(path in "[/a-z%0-9é]{0,60}") {
            let _ = PathTarget::read(&path, |path| longest_prefix(path, ["/x", "/é"].into_iter())).shown();
        }
    }
}
