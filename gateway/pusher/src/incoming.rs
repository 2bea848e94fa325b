//! Parsing of text frames from clients. Nothing here decides what the client may do.

use std::borrow::Cow;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::json;

/// Events with this prefix go to the other clients of a channel.
pub const CLIENT_EVENT_PREFIX: &str = "client-";

/// A client's frame.
#[derive(Debug, Clone)]
pub enum Incoming {
    Ping,
    Pong,
    Subscribe {
        channel: String,
        /// None if the client sent none, null or "".
        auth: Option<String>,
        /// Exactly as sent: the signature is over this text. None if none, null or "".
        channel_data: Option<String>,
    },
    Unsubscribe {
        channel: String,
    },
    Signin {
        auth: String,
        /// Exactly as sent: the signature is over this text.
        user_data: String,
    },
    ClientEvent {
        event: String,
        channel: String,
        /// Exactly as sent; null if there was none.
        data: Box<RawValue>,
    },
    /// An event that clients may not send, or that is unknown.
    Unknown {
        event: String,
    },
}

/// A frame without meaning. The connection stays open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the message is not understood: {0}")]
pub struct MalformedFrame(String);

impl MalformedFrame {
    /// The code of the `pusher:error` that answers it.
    pub const CODE: u16 = 4200;
    /// Reverb's words for it.
    pub const REVERB_TEXT: &str = "Invalid message format";
}

#[derive(Deserialize)]
struct IncomingFrame<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    channel: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Subscribe {
    channel: String,
    auth: Option<String>,
    channel_data: Option<String>,
}

#[derive(Deserialize)]
struct Unsubscribe {
    channel: String,
}

#[derive(Deserialize)]
struct Signin {
    auth: String,
    user_data: String,
}

/// Parses one text frame.
pub fn parse(text: &str) -> Result<Incoming, MalformedFrame> {
    let frame: IncomingFrame<'_> = json::object(text).map_err(MalformedFrame)?;
    Ok(match &*frame.event {
        "pusher:ping" => Incoming::Ping,
        "pusher:pong" => Incoming::Pong,
        "pusher:subscribe" => {
            let Subscribe { channel, auth, channel_data } = frame.fields()?;
            let some = |text: Option<String>| text.filter(|text| !text.is_empty());
            Incoming::Subscribe { channel, auth: some(auth), channel_data: some(channel_data) }
        }
        "pusher:unsubscribe" => {
            let Unsubscribe { channel } = frame.fields()?;
            Incoming::Unsubscribe { channel }
        }
        "pusher:signin" => {
            let Signin { auth, user_data } = frame.fields()?;
            Incoming::Signin { auth, user_data }
        }
        event if event.starts_with(CLIENT_EVENT_PREFIX) => {
            let missing = || MalformedFrame("a client event needs the field `channel`".to_owned());
            Incoming::ClientEvent {
                event: event.to_owned(),
                channel: frame.channel.ok_or_else(missing)?,
                data: frame.data.unwrap_or(RawValue::NULL).to_owned(),
            }
        }
        event => Incoming::Unknown { event: event.to_owned() },
    })
}

impl IncomingFrame<'_> {
    /// The fields of `data`, which is an object, or a string that holds one.
    fn fields<T: DeserializeOwned>(&self) -> Result<T, MalformedFrame> {
        let raw = self.data.unwrap_or(RawValue::NULL).get();
        let fields = if raw.starts_with('"') {
            let text: Result<String, _> = serde_json::from_str(raw);
            text.map_err(|error| error.to_string()).and_then(|text| json::object(&text))
        } else {
            json::object(raw)
        };
        fields.map_err(|reason| MalformedFrame(format!("`data` of {}: {reason}", self.event)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame's meaning as text: raw JSON cannot be compared.
    fn read(text: &str) -> String {
        parse(text).map_or_else(|error| error.to_string(), |incoming| format!("{incoming:?}"))
    }

    #[test]
    fn frames_of_pusher_js() {
        assert_eq!(read(r#"{"event":"pusher:ping","data":{}}"#), "Ping");
        assert_eq!(read(r#"{"event":"pusher:pong"}"#), "Pong");
        assert_eq!(
            read(
                r#"{"event":"pusher:subscribe","data":{"auth":"k:s","channel_data":"{\"user_id\":1}","channel":"presence-x"}}"#
            ),
            r#"Subscribe { channel: "presence-x", auth: Some("k:s"), channel_data: Some("{\"user_id\":1}") }"#
        );
        assert_eq!(
            read(r#"{"event":"pusher:unsubscribe","data":{"channel":"x"}}"#),
            r#"Unsubscribe { channel: "x" }"#
        );
        assert_eq!(
            read(r#"{"event":"pusher:signin","data":{"auth":"k:s","user_data":"{\"id\":\"1\"}"}}"#),
            r#"Signin { auth: "k:s", user_data: "{\"id\":\"1\"}" }"#
        );
        let event =
            parse(r#"{"event":"client-é","channel":"private-x","data":{"b":1,"a":[1.0]},"user_id":"admin"}"#);
        let Ok(Incoming::ClientEvent { event, channel, data }) = event else { panic!("{event:?}") };
        assert_eq!((&*event, &*channel, data.get()), ("client-é", "private-x", r#"{"b":1,"a":[1.0]}"#));
    }

    #[test]
    fn data_of_our_own_events_may_be_an_object_or_a_string_that_holds_one() {
        let subscribed = r#"Subscribe { channel: "x", auth: None, channel_data: None }"#;
        for data in [
            r#"{"channel":"x"}"#,
            r#" { "channel" : "x" , "auth" : null , "channel_data" : null } "#,
            r#"{"channel":"x","auth":"","channel_data":"","more":[{}]}"#,
            r#""{\"channel\":\"x\",\"auth\":\"\"}""#,
        ] {
            assert_eq!(read(&format!(r#"{{"data":{data},"event":"pusher:subscribe"}}"#)), subscribed);
        }
    }

    #[test]
    fn data_of_a_client_event_is_any_json_or_none() {
        for data in ["1", "null", "\"text\"", "[]", "1e999", "\"\\ud800\"", &"9".repeat(5000)] {
            let frame = parse(&format!(r#"{{"event":"client-x","channel":"c","data":{data}}}"#));
            let Ok(Incoming::ClientEvent { data: read, .. }) = frame else { panic!("{frame:?}") };
            assert_eq!(read.get(), data);
        }
        let frame = parse(r#"{"event":"client-x","channel":"c"}"#);
        assert!(matches!(frame, Ok(Incoming::ClientEvent { data, .. }) if data.get() == "null"));
        assert_eq!(
            read(r#"{"event":"client-x","data":1}"#),
            "the message is not understood: a client event needs the field `channel`"
        );
    }

    #[test]
    fn what_is_not_known_is_said_and_what_is_no_message_is_an_error() {
        assert_eq!(read(r#"{"event":"pusher:dance","data":7}"#), r#"Unknown { event: "pusher:dance" }"#);
        assert_eq!(read(r#"{"event":""}"#), r#"Unknown { event: "" }"#);
        assert_eq!(read("[\"pusher:ping\"]"), "the message is not understood: it is not a JSON object");
        assert_eq!(
            read(r#"{"event":"pusher:subscribe","data":["x"]}"#),
            "the message is not understood: `data` of pusher:subscribe: it is not a JSON object"
        );
        assert_eq!(
            read(r#"{"event":"pusher:subscribe","data":{}}"#),
            "the message is not understood: `data` of pusher:subscribe: missing field `channel` at line 1 column 2"
        );
        for text in
            ["", "null", "{", "{}", r#"{"event":1}"#, r#"{"event":"a"} x"#, r#"{"event":"a","event":"b"}"#]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        for data in ["", r#","data":null"#, r#","data":7"#, r#","data":"{""#, r#","data":"[]""#] {
            assert!(parse(&format!(r#"{{"event":"pusher:subscribe"{data}}}"#)).is_err(), "{data}");
        }
    }

    #[test]
    fn depth_does_not_matter() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let frame = format!(r#"{{"event":"client-x","channel":"c","data":{deep},"more":{deep}}}"#);
        assert!(matches!(parse(&frame), Ok(Incoming::ClientEvent { data, .. }) if data.get() == deep));
        assert!(
            parse(&format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"c","x":{deep}}}}}"#)).is_ok()
        );
        assert!(parse(&"{\"data\":".repeat(100_000)).is_err());
    }

    fn noise() -> impl Strategy<Value = String> {
        let word = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"",
            "\\",
            "\\u12",
            "\"event\"",
            "\"data\"",
            "\"channel\"",
            "\"auth\"",
            "\"pusher:subscribe\"",
            "\"pusher:signin\"",
            "\"client-x\"",
            "null",
            "-1e9999",
            "0.1",
            " ",
            "\n",
            "é",
        ]);
        prop::collection::vec(word, 0..30).prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), noise in noise()) {
            let _ = parse(&String::from_utf8_lossy(&bytes));
            let _ = parse(&noise);
            let _ = parse(&format!("{{\"event\":\"pusher:subscribe\",\"data\":{noise}}}"));
        }
    }
}
