//! What Laravel publishes, and the names of its channels. Pure.

use std::borrow::Cow;

use broadgate_proto::{id::ClientId, name};
use broadgate_pusher::{channel::is_own, socket_id};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A message as Laravel's broadcaster `redis` writes it.
#[derive(Debug)]
pub(super) struct LaravelMessage<'a> {
    pub(super) event: Cow<'a, str>,
    /// JSON, as it was published.
    pub(super) data: &'a str,
    /// The client that does not get it. None also if it can be no client of this cluster.
    pub(super) except: Option<ClientId>,
}

#[derive(Deserialize)]
struct RawMessage<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    socket: Option<&'a RawValue>,
}

/// Null is a value, too.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> LaravelMessage<'a> {
    /// None if it is no message of Laravel's.
    pub(super) fn parse(payload: &'a [u8]) -> Option<Self> {
        let raw = RawMessage::parse(payload)?;
        let socket = raw.socket.and_then(|socket| serde_json::from_str::<Cow<'_, str>>(socket.get()).ok());
        let except = socket.and_then(|socket| socket_id::parse(&socket).ok().flatten());
        Some(Self { event: raw.event, data: raw.data.unwrap_or(RawValue::NULL).get(), except })
    }
}

impl<'a> RawMessage<'a> {
    fn parse(payload: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(payload).ok()?;
        // serde reads structs from arrays, too.
        let is_object = text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{');
        is_object.then(|| serde_json::from_str(text).ok()).flatten()
    }
}

/// Has it everything that Laravel's messages have?
pub(super) fn is_laravels(payload: &[u8]) -> bool {
    RawMessage::parse(payload).is_some_and(|raw| raw.data.is_some() && raw.socket.is_some())
}

/// The pattern of all names that begin with a prefix.
pub(super) fn pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for c in prefix.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('*');
    pattern
}

/// A channel's name without the prefix, if clients can be in it.
pub(super) fn channel<'a>(name: &'a [u8], prefix: &str, bytes_max: usize) -> Option<&'a str> {
    let channel = std::str::from_utf8(name).ok()?.strip_prefix(prefix)?;
    let fits = channel.len() <= bytes_max && name::check("channel", channel).is_ok() && !is_own(channel);
    fits.then_some(channel)
}

/// What channel names begin with that only Laravel's subscribers may join.
const KINDS: [&str; 2] = ["private-", "presence-"];
/// What Laravel's default prefixes end with.
const DEFAULTS: [&str; 2] = ["_database_", "-database-"];

/// Is it the name of a channel, without any prefix?
pub(super) fn has_no_prefix(name: &str) -> bool {
    KINDS.iter().any(|kind| name.starts_with(kind))
}

/// The prefix that a name seems to have: what stands before `private-` or `presence-`, if that is neither
/// nothing nor part of a word, or what ends like Laravel's defaults.
pub(super) fn prefix_of(name: &str) -> Option<&str> {
    if let Some(at) = KINDS.iter().filter_map(|kind| name.find(kind)).min() {
        return name[..at].ends_with(['_', '-', ':', '.']).then_some(&name[..at]);
    }
    DEFAULTS.iter().filter_map(|end| name.find(end).map(|at| &name[..at + end.len()])).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As seen on the wire: Laravel 12 and 13 with phpredis and predis.
    const VECTORS: [(&str, &str, &str, &str); 3] = [
        (
            "laravel-database-private-orders.1",
            r#"{"event":"App\\Events\\News","data":{"text":{"h\u00e9llo":1.5},"socket":null},"socket":null}"#,
            "App\\Events\\News",
            r#"{"text":{"h\u00e9llo":1.5},"socket":null}"#,
        ),
        (
            "laravel-database-presence-room.1",
            r#"{"event":"App\\Events\\News","data":{"text":"y","socket":"123.456"},"socket":"123.456"}"#,
            "App\\Events\\News",
            r#"{"text":"y","socket":"123.456"}"#,
        ),
        (
            "laravel-database-any",
            r#"{"event":"Named","data":{"socket":null},"socket":null}"#,
            "Named",
            r#"{"socket":null}"#,
        ),
    ];

    #[test]
    fn messages_of_laravel_are_read_and_their_data_stays_as_it_is() {
        for ((name, payload, event, data), channel_name) in
            VECTORS.into_iter().zip(["private-orders.1", "presence-room.1", "any"])
        {
            let message = LaravelMessage::parse(payload.as_bytes()).unwrap();
            assert_eq!((&*message.event, message.data), (event, data));
            assert_eq!(channel(name.as_bytes(), "laravel-database-", 200), Some(channel_name));
            assert!(is_laravels(payload.as_bytes()));
        }
    }

    #[test]
    fn socket_is_the_client_that_is_left_out() {
        let client = ClientId {
            incarnation: broadgate_proto::id::Incarnation::from_bits(5),
            shard: 1,
            slot: 2,
            key: 3,
        };
        let id = socket_id::text(client);
        let except = |socket: &str| {
            let payload = format!(r#"{{"event":"e","data":1,"socket":{socket}}}"#);
            LaravelMessage::parse(payload.as_bytes()).unwrap().except
        };
        assert_eq!(except(&format!("\"{id}\"")), Some(client));
        for other in ["null", "\"\"", "\"u_keU0KSjojHml-vAAAB\"", "7", "{}", "\"\\u0031\""] {
            assert_eq!(except(other), None, "{other}");
        }
    }

    #[test]
    fn everything_else_is_no_message() {
        for payload in [
            "",
            "null",
            "[]",
            "[\"e\",1,null]",
            "\"e\"",
            "{}",
            "{\"event\":1}",
            "{\"data\":{}}",
            "{\"event\":\"e\"",
            "{\"event\":\"e\",\"event\":\"f\"}",
        ] {
            assert!(LaravelMessage::parse(payload.as_bytes()).is_none(), "{payload}");
        }
        assert!(LaravelMessage::parse(b"\xff").is_none());
        // What only lacks data has none.
        assert_eq!(LaravelMessage::parse(b" {\"event\":\"e\"}").unwrap().data, "null");
        assert!(!is_laravels(b"{\"event\":\"e\",\"data\":1}"), "another program's");
        let deep = format!("{{\"event\":\"e\",\"data\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(LaravelMessage::parse(deep.as_bytes()).is_some(), "data is not looked into");
    }

    #[test]
    fn names_that_pusher_refuses_are_taken_up_to_the_limit() {
        assert_eq!(channel("p:orders:ü 1".as_bytes(), "p:", 200), Some("orders:ü 1"));
        assert_eq!(channel(b"#server-to-user-7", "", 200), Some("#server-to-user-7"));
        for name in [&b"p-"[..], b"q-x", b"p-#online-7", b"p-#signed-in-7", b"p-a\n", b"p-\xff"] {
            assert_eq!(channel(name, "p-", 200), None, "{name:?}");
        }
        let long = "c".repeat(21);
        assert_eq!(
            (channel(long.as_bytes(), "", 21).is_some(), channel(long.as_bytes(), "", 20)),
            (true, None)
        );
    }

    #[test]
    fn patterns_mean_the_prefix_itself() {
        assert_eq!((&*pattern(""), &*pattern("laravel_database_")), ("*", "laravel_database_*"));
        assert_eq!(pattern("a*b?[c]\\"), "a\\*b\\?\\[c\\]\\\\*");
    }

    #[test]
    fn other_prefixes_are_guessed_from_names() {
        assert_eq!(prefix_of("laravel-database-private-orders.1"), Some("laravel-database-"));
        assert_eq!(prefix_of("x_presence-private-a"), Some("x_"));
        assert_eq!(
            (prefix_of("shop_database_any"), prefix_of("-database-any")),
            (Some("shop_database_"), Some("-database-"))
        );
        assert_eq!(
            (prefix_of("private-a"), prefix_of("orders"), prefix_of("myprivate-a")),
            (None, None, None)
        );
    }
}
