//! Requests to `/socket.io/`. Clients begin with polling and go over to a WebSocket; polling is served only as
//! far as that needs it, and nothing is kept between two requests, so each may reach another gateway:
//!
//! | request | answer |
//! |---|---|
//! | GET without an id | an open packet with an id |
//! | POST with an id | `ok`; the body is dropped: before the upgrade it holds no more than the client's connect packet |
//! | GET with an id | a noop, after a while: a client goes over when none of its polls is open; a refusal if its id is old |
//! | WebSocket upgrade, with an id or without | the client |

use std::time::Duration;

use broadgate_proto::limits::SOCKETIO_POLLING_TIME_MAX;
use broadgate_pusher::api::params::Params;

use super::{
    engine::{self, EnginePacket, EngineVersion},
    sid,
};

/// What a request wants.
#[derive(Debug, Clone, Copy)]
pub struct PollingRequest<'a> {
    pub method: &'a str,
    pub params: &'a Params,
    /// Does it ask for the WebSocket upgrade?
    pub is_upgrade: bool,
    /// Since the Unix epoch.
    pub now: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PollingAnswer {
    /// A handshake: answer with [`super::outgoing::open`] and a fresh id, as the payload of a poll.
    Open(EngineVersion),
    /// A POST: drop its body, and say [`POSTED`].
    Posted,
    /// A poll: answer with this payload, after the time that a poll is held.
    Noop(String),
    /// A WebSocket.
    Upgrade {
        version: EngineVersion,
        /// The id that polling has issued; none if the client begins with the WebSocket.
        sid: Option<String>,
    },
    /// A browser asks whether it may send this request.
    Preflight,
    Refuse(PollingRefusal),
}

/// The answer to a POST.
pub const POSTED: &str = "ok";

/// Why a request is refused, in the words of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PollingRefusal {
    #[error("Transport unknown")]
    TransportUnknown,
    #[error("Session ID unknown")]
    SidUnknown,
    #[error("Bad handshake method")]
    HandshakeMethod,
    #[error("Bad request")]
    BadRequest,
    #[error("Forbidden")]
    Forbidden,
    #[error("Unsupported protocol version")]
    Version,
    /// For too long, and without asking for the WebSocket: it could go on for ever, and hear nothing.
    #[error("Bad request: this server needs WebSocket, and the client goes on polling")]
    OnlyPolling,
}

impl PollingRefusal {
    pub const fn code(self) -> u8 {
        match self {
            Self::TransportUnknown => 0,
            Self::SidUnknown => 1,
            Self::HandshakeMethod => 2,
            Self::BadRequest | Self::OnlyPolling => 3,
            Self::Forbidden => 4,
            Self::Version => 5,
        }
    }

    /// The HTTP status, as that of the reference server: 400 for every refused upgrade.
    pub const fn status(self, is_upgrade: bool) -> u16 {
        if matches!(self, Self::Forbidden) && !is_upgrade { 403 } else { 400 }
    }

    /// The body, JSON.
    pub fn body(self) -> String {
        format!(r#"{{"code":{},"message":"{self}"}}"#, self.code())
    }
}

/// Decides about one request.
pub fn decide(request: PollingRequest<'_>) -> PollingAnswer {
    match answer(request) {
        Ok(answer) => answer,
        Err(refusal) => PollingAnswer::Refuse(refusal),
    }
}

fn answer(request: PollingRequest<'_>) -> Result<PollingAnswer, PollingRefusal> {
    let PollingRequest { method, params, is_upgrade, now } = request;
    if method == "OPTIONS" {
        return Ok(PollingAnswer::Preflight);
    }
    let is_websocket = match params.get("transport") {
        Some("websocket") => true,
        Some("polling") => false,
        _ => return Err(PollingRefusal::TransportUnknown),
    };
    let version = params.get("eio").and_then(EngineVersion::parse).ok_or(PollingRefusal::Version)?;
    // Only what a gateway has issued: a client of a former server begins again.
    let sid = params.get("sid").map(|sid| sid::parse(sid).map(|_| sid).ok_or(PollingRefusal::SidUnknown));
    let sid = sid.transpose()?;
    let age = sid.and_then(sid::parse).map_or(Duration::ZERO, |client| sid::age(&client, now));
    // JSONP is of browsers without WebSocket.
    if is_websocket != is_upgrade || params.get("j").is_some() {
        return Err(PollingRefusal::BadRequest);
    }
    match (method, sid, is_websocket) {
        ("GET", sid, true) => Ok(PollingAnswer::Upgrade { version, sid: sid.map(str::to_owned) }),
        ("GET", None, false) => Ok(PollingAnswer::Open(version)),
        ("GET", Some(_), false) if age > SOCKETIO_POLLING_TIME_MAX => Err(PollingRefusal::OnlyPolling),
        ("GET", Some(_), false) => {
            Ok(PollingAnswer::Noop(engine::payload(version, &[&engine::write(EnginePacket::Noop)])))
        }
        ("POST", Some(_), false) => Ok(PollingAnswer::Posted),
        (_, None, false) => Err(PollingRefusal::HandshakeMethod),
        _ => Err(PollingRefusal::BadRequest),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(method: &str, query: &str, is_upgrade: bool) -> PollingAnswer {
        decide(PollingRequest { method, params: &Params::parse(query), is_upgrade, now: NOW })
    }

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    /// Who may only poll would hear nothing, and never learn why.
    #[test]
    fn client_that_goes_on_polling_is_refused() {
        let after = |seconds: u64| {
            let sid = sid::fresh(7 << 60, NOW.checked_sub(Duration::from_secs(seconds)).unwrap());
            format!("EIO=4&transport=polling&sid={sid}")
        };
        assert_eq!(ask("GET", &after(20), false), PollingAnswer::Noop("6".to_owned()));
        assert_eq!(ask("GET", &after(40), false), PollingAnswer::Refuse(PollingRefusal::OnlyPolling));
        assert_eq!(ask("POST", &after(40), false), PollingAnswer::Posted);
        let late = after(40).replace("polling", "websocket");
        assert!(matches!(ask("GET", &late, true), PollingAnswer::Upgrade { .. }), "late is not never");
        assert_eq!((PollingRefusal::OnlyPolling.code(), PollingRefusal::OnlyPolling.status(false)), (3, 400));
    }

    #[test]
    fn clients_come_over_polling_to_a_websocket() {
        use EngineVersion::{V3, V4};
        let sid = sid::fresh(5, NOW);
        for (version, eio, noop) in [(V4, 4, "6"), (V3, 3, "1:6")] {
            let polling = format!("EIO={eio}&transport=polling&t=66mqhwrw&b64=1");
            assert_eq!(ask("GET", &polling, false), PollingAnswer::Open(version));
            let polling = format!("{polling}&sid={sid}");
            assert_eq!(ask("POST", &polling, false), PollingAnswer::Posted);
            assert_eq!(ask("GET", &polling, false), PollingAnswer::Noop(noop.to_owned()));
            let websocket = format!("EIO={eio}&transport=websocket");
            assert_eq!(ask("GET", &websocket, true), PollingAnswer::Upgrade { version, sid: None });
            let websocket = format!("{websocket}&sid={sid}");
            assert_eq!(
                ask("GET", &websocket, true),
                PollingAnswer::Upgrade { version, sid: Some(sid.clone()) }
            );
        }
        assert_eq!(ask("OPTIONS", "EIO=4&transport=polling", false), PollingAnswer::Preflight);
    }

    #[test]
    fn refusals_have_the_codes_of_the_protocol() {
        let sid = format!("sid={}", sid::fresh(5, NOW));
        for (method, query, is_upgrade, code) in [
            ("GET", "EIO=4", false, 0),
            ("GET", "EIO=4&transport=webtransport", false, 0),
            ("GET", "EIO=4&transport=polling&sid=YMKEAAAA", false, 1),
            ("GET", "EIO=4&transport=websocket&sid=1.5", true, 1),
            ("POST", "EIO=4&transport=polling&sid=", false, 1),
            ("POST", "EIO=4&transport=polling", false, 2),
            ("DELETE", "EIO=4&transport=polling", false, 2),
            ("GET", "EIO=4&transport=websocket", false, 3),
            ("GET", "EIO=4&transport=polling", true, 3),
            ("GET", "EIO=4&transport=polling&j=0", false, 3),
            ("PUT", &format!("EIO=4&transport=polling&{sid}"), false, 3),
            ("POST", &format!("EIO=4&transport=websocket&{sid}"), true, 3),
            ("GET", "EIO=2&transport=polling", false, 5),
            ("GET", "EIO=abc&transport=websocket", true, 5),
            ("GET", "transport=polling", false, 5),
        ] {
            let PollingAnswer::Refuse(refusal) = ask(method, query, is_upgrade) else {
                panic!("{method} {query}")
            };
            assert_eq!((refusal.code(), refusal.status(is_upgrade)), (code, 400), "{method} {query}");
        }
        let bodies = [
            (PollingRefusal::TransportUnknown, r#"{"code":0,"message":"Transport unknown"}"#),
            (PollingRefusal::SidUnknown, r#"{"code":1,"message":"Session ID unknown"}"#),
            (PollingRefusal::HandshakeMethod, r#"{"code":2,"message":"Bad handshake method"}"#),
            (PollingRefusal::BadRequest, r#"{"code":3,"message":"Bad request"}"#),
            (PollingRefusal::Forbidden, r#"{"code":4,"message":"Forbidden"}"#),
            (PollingRefusal::Version, r#"{"code":5,"message":"Unsupported protocol version"}"#),
        ];
        for (refusal, body) in bodies {
            assert_eq!(refusal.body(), body);
        }
        assert_eq!(
            (PollingRefusal::Forbidden.status(false), PollingRefusal::Forbidden.status(true)),
            (403, 400)
        );
    }

    proptest! {
        #[test]
        fn no_query_panics(method in "GET|POST|OPTIONS|X", query in "((EIO|transport|sid|j|%)=(4|polling|websocket|0.5|\\PC{0,5})&){0,5}", upgrade: bool) {
            let _ = ask(&method, &query, upgrade);
        }
    }
}
