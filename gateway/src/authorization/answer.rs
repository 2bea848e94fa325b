//! What a backend's answer means. Pure.
//!
//! Laravel's drivers answer 200 with `true`, with a signature, or with the data of a presence member. The word
//! of the backend counts, so a signature is not checked; but an answer that is none of these is a refusal:
//! drivers that broadcast nothing answer 200 with nothing, for every client.

use broadgate_pusher::{limits::PusherLimits, member::ChannelMember};
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::backend::{NoAnswer, TooLong};

/// The client may subscribe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authorized {
    /// In a presence channel: the user's id, and its member info.
    pub(crate) member: Option<(String, String)>,
}

/// Why a client may not subscribe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthRefusal {
    #[error("the app's backend answered {0}")]
    Status(StatusCode),
    #[error(
        "the app's backend answered {0}, and redirects are not followed: let auth.url be its last address"
    )]
    Redirect(StatusCode),
    #[error("the app's backend answered 200, but {0}")]
    Answer(String),
    #[error("{}", no_answer(.0))]
    NoAnswer(NoAnswer),
    #[error("too many clients wait for the app's backend: let it answer faster")]
    Busy,
    #[error("the client is gone")]
    Abandoned,
    #[error("the app names no backend for this client: set url in [apps.auth]")]
    NoBackend,
    #[error("the gateway failed to ask the app's backend")]
    Internal,
}

impl From<NoAnswer> for AuthRefusal {
    fn from(missing: NoAnswer) -> Self {
        Self::NoAnswer(missing)
    }
}

fn no_answer(missing: &NoAnswer) -> String {
    match missing {
        NoAnswer::Timeout => {
            "the app's backend did not answer in time: raise auth.timeout or let it answer faster".to_owned()
        }
        NoAnswer::Connect(why) => format!("no connection to the app's backend: {why}"),
        NoAnswer::TooLong => format!("the answer of the app's backend is too long: {TooLong}"),
        NoAnswer::Broken(why) => format!("the connection to the app's backend broke: {why}"),
    }
}

impl AuthRefusal {
    /// For metrics.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Status(_) => "refused",
            Self::Redirect(_) => "redirect",
            Self::Answer(_) => "answer",
            Self::NoAnswer(missing) => missing.label(),
            Self::Busy => "busy",
            Self::Abandoned => "abandoned",
            Self::NoBackend => "no_backend",
            Self::Internal => "internal",
        }
    }

    /// For the client: the backend's HTTP status, 0 if it has not answered.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Status(status) | Self::Redirect(status) => status.as_u16(),
            Self::Answer(_) | Self::NoAnswer(NoAnswer::TooLong) => StatusCode::BAD_GATEWAY.as_u16(),
            Self::NoAnswer(_) => 0,
            Self::Busy | Self::Abandoned | Self::Internal => StatusCode::SERVICE_UNAVAILABLE.as_u16(),
            Self::NoBackend => StatusCode::FORBIDDEN.as_u16(),
        }
    }

    /// Was nobody there who could answer?
    pub(super) fn may_be_asked_again(&self) -> bool {
        match self {
            Self::NoAnswer(NoAnswer::Connect(_) | NoAnswer::Broken(_)) => true,
            Self::Status(status) => matches!(status.as_u16(), 502..=504),
            _ => false,
        }
    }
}

#[derive(Deserialize)]
struct AuthObject<'a> {
    #[serde(default)]
    auth: Option<serde::de::IgnoredAny>,
    #[serde(borrow, default)]
    channel_data: Option<&'a RawValue>,
}

/// Decides about an answer to a question about a presence channel, or another one.
pub(super) fn decide(
    status: StatusCode,
    body: Result<Vec<u8>, NoAnswer>,
    is_presence: bool,
    limits: &PusherLimits,
) -> Result<Authorized, AuthRefusal> {
    if status.is_redirection() {
        return Err(AuthRefusal::Redirect(status));
    }
    if status != StatusCode::OK {
        return Err(AuthRefusal::Status(status));
    }
    let unusable = |why: &str| AuthRefusal::Answer(why.to_owned());
    let body = body?;
    let text = std::str::from_utf8(&body).unwrap_or_default().trim();
    let object = match text {
        "true" => None,
        "" => {
            let why = "with nothing: does it broadcast by a driver that authorizes, such as reverb or redis?";
            return Err(unusable(why));
        }
        text => Some(
            object(text).ok_or_else(|| unusable("neither with `true` nor with `auth` or `channel_data`"))?,
        ),
    };
    if !is_presence {
        return Ok(Authorized { member: None });
    }
    let data = object.and_then(|object| object.channel_data);
    let data = data.ok_or_else(|| unusable("without `channel_data`, which a presence channel needs"))?;
    // As an object, or as a JSON text that holds it.
    let as_text = data.get().starts_with('"').then(|| serde_json::from_str::<String>(data.get()));
    let data = match as_text {
        Some(Ok(text)) => text,
        _ => data.get().to_owned(),
    };
    let member = ChannelMember::parse(&data, limits).map_err(|error| unusable(&error.to_string()))?;
    Ok(Authorized { member: Some((member.id.clone().into_owned(), member.seat_info())) })
}

/// An object that says yes.
fn object(text: &str) -> Option<AuthObject<'_>> {
    let object: AuthObject<'_> = broadgate_pusher::json::object(text).ok()?;
    (object.auth.is_some() || object.channel_data.is_some()).then_some(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str, is_presence: bool) -> Result<Authorized, AuthRefusal> {
        let status = StatusCode::from_u16(status).unwrap();
        decide(status, Ok(body.as_bytes().to_vec()), is_presence, &PusherLimits::default())
    }

    #[test]
    fn every_driver_of_laravel_says_yes_in_its_way() {
        let yes = Ok(Authorized { member: None });
        for body in
            ["true", " true\n", r#"{"auth":"key:f00d"}"#, r#"{"auth":"key:f00d","shared_secret":"x"}"#]
        {
            assert_eq!(read(200, body, false), yes, "{body}");
        }
        let member = |info: &str| Ok(Authorized { member: Some(("1".to_owned(), info.to_owned())) });
        for body in [
            r#"{"channel_data":{"user_id":1,"user_info":{"id":1,"name":"ann"}}}"#,
            r#"{"auth":"k:s","channel_data":"{\"user_id\":1,\"user_info\":{\"id\":1,\"name\":\"ann\"}}"}"#,
        ] {
            assert_eq!(read(200, body, true), member(r#"{"user_id":1,"user_info":{"id":1,"name":"ann"}}"#));
            assert_eq!(read(200, body, false), yes, "{body}");
        }
        let text = r#"{"channel_data":{"user_id":"1"}}"#;
        assert_eq!(read(200, text, true), member(r#"{"user_id":"1"}"#));
    }

    #[test]
    fn everything_else_is_no() {
        for status in [201, 204, 401, 403, 404, 419, 500, 503] {
            let refused = read(status, "true", false).unwrap_err();
            assert_eq!((refused.label(), refused.status()), ("refused", status));
            assert_eq!(refused.may_be_asked_again(), status == 503, "{status}");
        }
        let redirect = read(302, "true", false).unwrap_err();
        assert_eq!((redirect.label(), redirect.status()), ("redirect", 302));
        assert!(redirect.to_string().contains("auth.url"));
        for body in [
            "",
            "false",
            "null",
            "1",
            "\"true\"",
            "[true]",
            "{}",
            "<html>",
            r#"{"message":"x"}"#,
            "true true",
            r#"{"auth":null}"#,
            "\u{fffd}",
        ] {
            let refused = read(200, body, false).unwrap_err();
            assert_eq!((refused.label(), refused.status()), ("answer", 502), "{body}");
        }
        for body in [
            "true",
            r#"{"auth":"k:s"}"#,
            r#"{"channel_data":{}}"#,
            r#"{"channel_data":{"user_id":null}}"#,
            r#"{"channel_data":"x"}"#,
            r#"{"channel_data":7}"#,
        ] {
            assert!(matches!(read(200, body, true), Err(AuthRefusal::Answer(_))), "{body}");
        }
        let failed =
            |failure| decide(StatusCode::OK, Err(failure), false, &PusherLimits::default()).unwrap_err();
        assert_eq!(failed(NoAnswer::TooLong), AuthRefusal::NoAnswer(NoAnswer::TooLong));
        assert_eq!((failed(NoAnswer::Timeout).status(), AuthRefusal::Busy.status()), (0, 503));
    }
}
