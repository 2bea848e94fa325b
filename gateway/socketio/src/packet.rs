//! Socket.IO packets, as they stand in an Engine.IO message: a type, `N-` for binary ones, a namespace with a
//! comma unless it is `/`, an ack id in digits, JSON.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// The namespace of a packet that names none.
pub const ROOT: &str = "/";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketPacketKind {
    Connect,
    Disconnect,
    Event,
    Ack,
    /// A refused namespace.
    Error,
    BinaryEvent,
    BinaryAck,
}

/// A packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketPacket<'a> {
    pub kind: SocketPacketKind,
    /// Binary frames that follow; always 0 but for the binary kinds.
    pub attachments: u32,
    /// With the query that clients of version 2 may append.
    pub namespace: &'a str,
    /// Digits: the sender wants an ack, or this is one.
    pub id: Option<&'a str>,
    /// JSON, unchecked; "" if there is none.
    pub data: &'a str,
}

/// A message that is no packet. A server closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message is no Socket.IO packet")]
pub struct MalformedSocketPacket;

/// Parses the message of an Engine.IO packet.
pub fn parse(message: &str) -> Result<SocketPacket<'_>, MalformedSocketPacket> {
    use SocketPacketKind::{Ack, BinaryAck, BinaryEvent, Connect, Disconnect, Error, Event};
    let kind = match message.bytes().next() {
        Some(b'0') => Connect,
        Some(b'1') => Disconnect,
        Some(b'2') => Event,
        Some(b'3') => Ack,
        Some(b'4') => Error,
        Some(b'5') => BinaryEvent,
        Some(b'6') => BinaryAck,
        _ => return Err(MalformedSocketPacket),
    };
    let mut rest = &message[1..];
    let mut attachments = 0;
    if matches!(kind, BinaryEvent | BinaryAck) {
        let (digits, after) = rest.split_once('-').ok_or(MalformedSocketPacket)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(MalformedSocketPacket);
        }
        attachments = digits.parse().map_err(|_| MalformedSocketPacket)?;
        rest = after;
    }
    let mut namespace = ROOT;
    if rest.starts_with('/') {
        (namespace, rest) = rest.split_once(',').unwrap_or((rest, ""));
    }
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (id, data) = rest.split_at(digits);
    Ok(SocketPacket { kind, attachments, namespace, id: (!id.is_empty()).then_some(id), data })
}

impl SocketPacket<'_> {
    /// The namespace without a query.
    pub fn namespace_name(&self) -> &str {
        self.namespace.split('?').next().unwrap_or_default()
    }

    /// The message of an Engine.IO packet.
    pub fn write(&self) -> String {
        use SocketPacketKind::{Ack, BinaryAck, BinaryEvent, Connect, Disconnect, Error, Event};
        let kind = match self.kind {
            Connect => '0',
            Disconnect => '1',
            Event => '2',
            Ack => '3',
            Error => '4',
            BinaryEvent => '5',
            BinaryAck => '6',
        };
        let mut out = String::with_capacity(self.namespace.len() + self.data.len() + 16);
        out.push(kind);
        if matches!(self.kind, BinaryEvent | BinaryAck) {
            out.push_str(&self.attachments.to_string());
            out.push('-');
        }
        if self.namespace != ROOT {
            out.push_str(self.namespace);
            out.push(',');
        }
        out.push_str(self.id.unwrap_or_default());
        out.push_str(self.data);
        out
    }
}

/// An event: its name and its first argument. Further arguments are checked to be JSON and dropped.
#[derive(Debug)]
pub struct SocketEvent<'a> {
    pub name: Cow<'a, str>,
    pub argument: Option<&'a RawValue>,
}

/// Parses the data of an event's packet: an array that begins with a name.
pub fn event(data: &str) -> Result<SocketEvent<'_>, MalformedSocketPacket> {
    serde_json::from_str(data).map_err(|_| MalformedSocketPacket)
}

impl<'de: 'a, 'a> Deserialize<'de> for SocketEvent<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(EventVisitor)
    }
}

struct EventVisitor;

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
struct EventName<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for EventVisitor {
    type Value = SocketEvent<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array that begins with an event's name")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
        let name = parts.next_element::<EventName<'de>>()?;
        let EventName(name) = name.ok_or_else(|| serde::de::Error::invalid_length(0, &self))?;
        let argument = parts.next_element::<&RawValue>()?;
        while parts.next_element::<IgnoredAny>()?.is_some() {}
        Ok(SocketEvent { name, argument })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{SocketPacketKind as Kind, *};

    fn packet(kind: Kind, data: &'static str) -> SocketPacket<'static> {
        SocketPacket { kind, attachments: 0, namespace: ROOT, id: None, data }
    }

    #[test]
    fn recorded_packets_are_read_and_written() {
        let asked = SocketPacket { id: Some("0"), ..packet(Kind::Event, r#"["ask",1]"#) };
        let answered = SocketPacket { id: Some("0"), ..packet(Kind::Ack, r#"["yes",1]"#) };
        let binary = SocketPacket {
            attachments: 1,
            ..packet(Kind::BinaryEvent, r#"["bin",{"_placeholder":true,"num":0}]"#)
        };
        let none = SocketPacket { namespace: "/none", ..packet(Kind::Error, r#""Invalid namespace""#) };
        let asks_none = SocketPacket { namespace: "/none", ..packet(Kind::Connect, "") };
        for (message, packet) in [
            ("0", packet(Kind::Connect, "")),
            (
                r#"0{"headers":{"X-CSRF-TOKEN":"tok","Authorization":"Bearer abc"}}"#,
                packet(Kind::Connect, r#"{"headers":{"X-CSRF-TOKEN":"tok","Authorization":"Bearer abc"}}"#),
            ),
            (
                r#"0{"sid":"kxgq9UUUwxke8yydAAAA"}"#,
                packet(Kind::Connect, r#"{"sid":"kxgq9UUUwxke8yydAAAA"}"#),
            ),
            ("1", packet(Kind::Disconnect, "")),
            (r#"20["ask",1]"#, asked),
            (r#"30["yes",1]"#, answered),
            (r#"51-["bin",{"_placeholder":true,"num":0}]"#, binary),
            (r#"4/none,"Invalid namespace""#, none),
            ("0/none,", asks_none),
        ] {
            assert_eq!(parse(message), Ok(packet), "{message}");
            assert_eq!(packet.write(), message);
        }
        // Clients of version 2 leave the comma out where nothing follows, and may add a query.
        assert_eq!(parse("0/none"), Ok(asks_none));
        let query = parse("0/none?token=x,").unwrap();
        assert_eq!((query.namespace, query.namespace_name()), ("/none?token=x", "/none"));
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        for message in ["", "7", "x", "é", "5", "51", "5-x", "5-", "599999999999-[]", "5+1-[]"] {
            assert_eq!(parse(message), Err(MalformedSocketPacket), "{message:?}");
        }
    }

    #[test]
    fn an_event_has_a_name_and_perhaps_an_argument() {
        let read = |data| {
            event(data).map(|event| {
                (event.name.into_owned(), event.argument.map(|argument| argument.get().to_owned()))
            })
        };
        let found = |name: &str, argument: Option<&str>| Ok((name.to_owned(), argument.map(str::to_owned)));
        assert_eq!(read(r#"["subscribe",{"channel":"x"}]"#), found("subscribe", Some(r#"{"channel":"x"}"#)));
        assert_eq!(read(r#" [ "a\"" , 1e999 , [] , {} ] "#), found("a\"", Some("1e999")));
        assert_eq!(read(r#"["a"]"#), found("a", None));
        assert_eq!(read(r#"["a",null]"#), found("a", Some("null")));
        for data in
            ["", "[]", "[1]", "[null]", "{}", r#"{"0":"a"}"#, r#""a""#, r#"["a""#, r#"["a"]x"#, r#"["a",]"#]
        {
            assert!(read(data).is_err(), "{data}");
        }
        let deep = format!(r#"["a",{0}{1},{0}{1}]"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(event(&deep).is_ok());
    }

    proptest! {
        #[test]
        fn no_message_panics_and_packets_survive(message in "[0-7]?[0-9]{0,3}-?(/[a-z?=]{0,4},?)?[0-9]{0,3}\\PC{0,20}") {
            let _ = event(&message);
            if let Ok(packet) = parse(&message) {
                let _ = event(packet.data);
                let written = packet.write();
                prop_assert_eq!(parse(&written), Ok(packet));
            }
        }
    }
}
