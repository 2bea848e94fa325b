//! The HTTP API of laravel-echo-server: the paths are Pusher's, but a request is authorized by the app's secret
//! and not signed, and the answers have other forms.
//!
//! That server calls the secret a key. Here the key is public, so only the secret authorizes.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    ApiRefusal,
    params::Params,
    publish::{self, Draft, Publish},
    query::check_any_name,
};
use crate::{
    auth::{self, AppKey},
    channel::ChannelKind,
    json::{self, Writer},
    limits::PusherLimits,
    member::ChannelMember,
};

/// The answer to a publish.
pub const PUBLISHED: &str = r#"{"message":"ok"}"#;
/// The answer at `/`.
pub const ROOT: &str = "OK";
/// The error of a request without the right secret, with status 403.
pub const UNAUTHORIZED: &str = "Unauthorized";

const INCOMPLETE_EVENT: &str = "Event must include channel, event name and data";
const NO_PRESENCE: &str = "User list is only possible for Presence Channels";

/// How a request to the paths that both APIs have wants to be authorized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// Signed, as Pusher's libraries do.
    Signed,
    /// With the app's secret.
    Secret,
    /// As with the secret, but it is another text.
    WrongSecret,
}

impl Authorization {
    /// Decides by the `Authorization` header and the query.
    ///
    /// A public key in `auth_key` is never taken for a secret. Laravel's driver `pusher` signs what it sends to
    /// laravel-echo-server, with that server's key for its own and with an empty secret; so a query that is signed
    /// may hold the secret all the same.
    pub fn of(header: Option<&str>, params: &Params, keys: &[AppKey]) -> Self {
        let is_secret = |text: &str| keys.iter().any(|key| key.has_secret(text));
        let is_public = |text: &str| auth::find(keys, text).is_some();
        let (key, is_signed) = (params.get("auth_key"), params.get("auth_signature").is_some());
        // A proxy may add headers of its own.
        if is_signed && key.is_some_and(is_public) {
            return Self::Signed;
        }
        if let Some(token) = header.and_then(bearer) {
            return if is_secret(token) { Self::Secret } else { Self::WrongSecret };
        }
        match key {
            None => Self::Signed,
            Some(key) if is_public(key) => Self::Signed,
            Some(key) if is_secret(key) => Self::Secret,
            Some(_) if is_signed => Self::Signed,
            Some(_) => Self::WrongSecret,
        }
    }
}

/// The token of a header `Bearer TOKEN`.
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then_some(token.trim())
}

#[derive(Deserialize)]
struct EchoServerEvent<'a> {
    name: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    channels: Option<Vec<String>>,
    channel: Option<String>,
    socket_id: Option<String>,
}

/// `POST /events`. Data that is a string is what it holds, other data compact JSON.
pub fn event(body: &[u8], limits: &PusherLimits) -> Result<Publish, ApiRefusal> {
    let event: EchoServerEvent<'_> = json::object(publish::utf8(body)?).map_err(publish::unparsed)?;
    let channels = event.channels.or_else(|| event.channel.map(|channel| vec![channel])).unwrap_or_default();
    let name = event.name.filter(|name| !name.is_empty());
    let (Some(name), Some(data), false) = (name, event.data, channels.is_empty()) else {
        return Err(ApiRefusal::bad(INCOMPLETE_EVENT));
    };
    let draft = Draft {
        name: Some(name),
        data: Some(publish::data(data)?),
        channels,
        socket_id: event.socket_id,
        ..Draft::default()
    };
    draft.checked_freely(limits)
}

/// `GET /channels/{channel}`: whether the channel has users.
pub fn channel(channel: &str, limits: &PusherLimits) -> Result<bool, ApiRefusal> {
    check_any_name(channel, limits)?;
    Ok(ChannelKind::of(channel).is_presence())
}

/// `GET /channels/{channel}/users`.
pub fn users(channel: &str, limits: &PusherLimits) -> Result<(), ApiRefusal> {
    if self::channel(channel, limits)? { Ok(()) } else { Err(ApiRefusal::bad(NO_PRESENCE)) }
}

/// The body of a refusal.
pub fn error_answer(sentence: &str) -> String {
    Writer::with_capacity(sentence.len() + 16).plain(r#"{"error":"#).string(sentence).plain("}").finish()
}

/// For `GET /status`: the app's clients in the cluster, and how long this gateway has been running. Its memory
/// is not an app's business, so that object is empty.
pub fn status_answer(clients: u64, uptime_seconds: f64) -> String {
    format!(r#"{{"subscription_count":{clients},"uptime":{uptime_seconds:.3},"memory_usage":{{}}}}"#)
}

/// For `GET /channels`.
pub fn channels_answer<'a>(channels: impl IntoIterator<Item = (&'a str, u64)>) -> String {
    let mut out = Writer::with_capacity(256);
    out.plain(r#"{"channels":{"#).list(channels, |out, (name, clients)| {
        out.string(name).plain(":{");
        counts(out, clients);
        out.plain("}");
    });
    out.plain("}}").finish()
}

/// For `GET /channels/{channel}`; presence channels have users.
pub fn channel_answer(clients: u64, users: Option<u64>) -> String {
    let mut out = Writer::with_capacity(80);
    out.plain("{");
    counts(&mut out, clients);
    if let Some(users) = users {
        out.plain(r#","user_count":"#).number(users);
    }
    out.plain("}").finish()
}

fn counts(out: &mut Writer, clients: u64) {
    out.plain(r#""subscription_count":"#).number(clients);
    out.plain(if clients > 0 { r#","occupied":true"# } else { r#","occupied":false"# });
}

/// For `GET /channels/{channel}/users`: ids as they were sent.
pub fn users_answer<'a>(members: impl IntoIterator<Item = &'a ChannelMember<'a>>) -> String {
    let mut out = Writer::with_capacity(256);
    out.plain(r#"{"users":["#).list(members, |out, member| {
        out.plain(r#"{"id":"#);
        member.write_id(out);
        if let Some(info) = &member.info {
            out.plain(r#","user_info":"#).raw(info);
        }
        out.plain("}");
    });
    out.plain("]}").finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "skti68iskti68iskti68iskti68i";

    fn keys() -> Vec<AppKey> {
        vec![AppKey::new("public", SECRET), AppKey::new("older", "older-secret-of-the-app")]
    }

    fn parse(body: &str) -> Result<Publish, (u16, String)> {
        let limits = PusherLimits::default();
        event(body.as_bytes(), &limits).map_err(|refusal| (refusal.status.as_u16(), refusal.text))
    }

    #[test]
    fn only_the_secret_authorizes() {
        let of =
            |header: Option<&str>, query: &str| Authorization::of(header, &Params::parse(query), &keys());
        let by_header = |token: &str| of(Some(&format!("Bearer {token}")), "");
        assert_eq!(by_header(SECRET), Authorization::Secret);
        assert_eq!(of(Some("bearer older-secret-of-the-app"), ""), Authorization::Secret);
        assert_eq!(by_header("public"), Authorization::WrongSecret);
        assert_eq!(by_header(""), Authorization::WrongSecret);
        // Of another scheme, or none: as if there were no header.
        assert_eq!(of(Some(SECRET), ""), Authorization::Signed);
        assert_eq!(of(Some("Basic x"), ""), Authorization::Signed);

        let by_query = |query: &str| of(None, query);
        assert_eq!(by_query(&format!("auth_key={SECRET}")), Authorization::Secret);
        assert_eq!(by_query("auth_key=public"), Authorization::Signed, "and it lacks a signature");
        assert_eq!(by_query("auth_key=stranger"), Authorization::WrongSecret);
        assert_eq!(by_query("auth_key=stranger&auth_signature=f00d"), Authorization::Signed);
        // Laravel's driver `pusher`, set up for laravel-echo-server.
        assert_eq!(by_query(&format!("auth_key={SECRET}&auth_signature=f00d")), Authorization::Secret);
        assert_eq!(by_query(""), Authorization::Signed);
        // Signed, through a proxy that has a token of its own.
        let both = of(Some("Bearer of-the-proxy"), "auth_key=public&auth_signature=f00d");
        assert_eq!(both, Authorization::Signed);
        // A key whose name is another key's secret stays public.
        let confused = [AppKey::new("public", "secret"), AppKey::new("secret", "other")];
        let decided = Authorization::of(None, &Params::parse("auth_key=secret"), &confused);
        assert_eq!(decided, Authorization::Signed);
    }

    #[test]
    fn events_as_scripts_send_them() {
        let event = parse(
            r#"{"channel":"orders:1","name":"event-name","data":{"key": "value"},"socket_id":"h3nAdb134tbvqwrg"}"#,
        )
        .unwrap();
        assert_eq!((event.name.as_str(), event.data.as_str()), ("event-name", r#"{"key":"value"}"#));
        assert_eq!((event.channels, event.except), (vec!["orders:1".to_owned()], None));
        let event =
            parse(r#"{"channels":["a","b","a"],"name":"e","data":"{\"a\": 1}","socket_id":"123.456"}"#);
        let event = event.unwrap();
        assert_eq!((event.channels.len(), event.data.as_str()), (2, r#"{"a": 1}"#));
        assert!(event.except.is_some());
    }

    #[test]
    fn what_lacks_is_refused_as_that_server_does() {
        for body in [
            "{}",
            r#"{"name":"e","data":1}"#,
            r#"{"channel":"a","data":1}"#,
            r#"{"channel":"a","name":"","data":1}"#,
            r#"{"channel":"a","name":"e"}"#,
            r#"{"channel":"a","name":"e","data":null}"#,
            r#"{"channels":[],"name":"e","data":1}"#,
        ] {
            assert_eq!(parse(body), Err((400, INCOMPLETE_EVENT.to_owned())), "{body}");
        }
        for (body, word) in [
            ("", "JSON object"),
            ("[]", "JSON object"),
            (r#"{"channel":1,"name":"e","data":1}"#, "integer"),
            (r#"{"channel":"a\u0000","name":"e","data":1}"#, "control character"),
            (r#"{"channel":"","name":"e","data":1}"#, "empty"),
            (r##"{"channel":"#x","name":"e","data":1}"##, "reserved"),
        ] {
            let (status, text) = parse(body).unwrap_err();
            assert!(status == 400 && text.contains(word), "{body}: {text}");
        }
        assert!(event(b"\xff", &PusherLimits::default()).is_err());
        let long = format!(r#"{{"channel":"{}","name":"e","data":1}}"#, "x".repeat(201));
        assert_eq!(parse(&long).unwrap_err().0, 400);
        let large = format!(r#"{{"channel":"a","name":"e","data":"{}"}}"#, "x".repeat(10_241));
        assert_eq!(parse(&large).unwrap_err().0, 413);
    }

    #[test]
    fn answers_have_the_forms_of_that_server() {
        assert_eq!(error_answer("a \"b\""), r#"{"error":"a \"b\""}"#);
        assert_eq!(status_answer(3, 12.5), r#"{"subscription_count":3,"uptime":12.500,"memory_usage":{}}"#);
        assert_eq!(channels_answer([]), r#"{"channels":{}}"#);
        assert_eq!(
            channels_answer([("a", 2), ("presence-b", 1)]),
            r#"{"channels":{"a":{"subscription_count":2,"occupied":true},"presence-b":{"subscription_count":1,"occupied":true}}}"#
        );
        assert_eq!(channel_answer(0, None), r#"{"subscription_count":0,"occupied":false}"#);
        assert_eq!(channel_answer(2, Some(1)), r#"{"subscription_count":2,"occupied":true,"user_count":1}"#);
        let limits = PusherLimits::default();
        let member = |data| ChannelMember::parse(data, &limits).unwrap();
        let members =
            [member(r#"{"user_id":2,"user_info":{"id":2,"name":"bob"}}"#), member(r#"{"user_id":"1"}"#)];
        assert_eq!(
            users_answer(&members),
            r#"{"users":[{"id":2,"user_info":{"id":2,"name":"bob"}},{"id":"1"}]}"#
        );
        assert_eq!(channel("presence-x", &limits), Ok(true));
        assert_eq!(channel("orders:1", &limits), Ok(false));
        assert_eq!(users("orders", &limits).unwrap_err().text, NO_PRESENCE);
    }
}
