//! Engine.IO: its packets in a WebSocket's text frames, and in the payload of a poll.

/// A version of the protocol, as a request's `EIO` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineVersion {
    /// Of Socket.IO clients 1.x and 2.x.
    V3,
    /// Of Socket.IO clients 3.x and 4.x.
    V4,
}

impl EngineVersion {
    pub fn parse(eio: &str) -> Option<Self> {
        match eio {
            "3" => Some(Self::V3),
            "4" => Some(Self::V4),
            _ => None,
        }
    }
}

/// A packet in a text frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnginePacket<'a> {
    /// The server's first packet: JSON.
    Open(&'a str),
    Close,
    /// From the client in version 3, from the server in version 4. With `probe` it tries a WebSocket.
    Ping(&'a str),
    Pong(&'a str),
    /// A Socket.IO packet.
    Message(&'a str),
    /// The client goes on over the WebSocket that it has tried.
    Upgrade,
    Noop,
}

/// What a WebSocket is tried with before a client goes over to it.
pub const PROBE: &str = "probe";

/// A frame that is no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the frame is no Engine.IO packet: it begins with a digit from 0 to 6")]
pub struct MalformedEnginePacket;

/// Parses one text frame. What follows a packet's type where nothing may follow is ignored.
pub fn parse(frame: &str) -> Result<EnginePacket<'_>, MalformedEnginePacket> {
    let kind = frame.bytes().next().ok_or(MalformedEnginePacket)?;
    let rest = frame.get(1..).ok_or(MalformedEnginePacket)?;
    match kind {
        b'0' => Ok(EnginePacket::Open(rest)),
        b'1' => Ok(EnginePacket::Close),
        b'2' => Ok(EnginePacket::Ping(rest)),
        b'3' => Ok(EnginePacket::Pong(rest)),
        b'4' => Ok(EnginePacket::Message(rest)),
        b'5' => Ok(EnginePacket::Upgrade),
        b'6' => Ok(EnginePacket::Noop),
        _ => Err(MalformedEnginePacket),
    }
}

/// The text frame of a packet.
pub fn write(packet: EnginePacket<'_>) -> String {
    let (kind, rest) = match packet {
        EnginePacket::Open(json) => ('0', json),
        EnginePacket::Close => ('1', ""),
        EnginePacket::Ping(data) => ('2', data),
        EnginePacket::Pong(data) => ('3', data),
        EnginePacket::Message(message) => ('4', message),
        EnginePacket::Upgrade => ('5', ""),
        EnginePacket::Noop => ('6', ""),
    };
    let mut frame = String::with_capacity(1 + rest.len());
    frame.push(kind);
    frame.push_str(rest);
    frame
}

/// The body of a poll's answer with these packets. Version 3 counts UTF-16 code units.
pub fn payload(version: EngineVersion, frames: &[&str]) -> String {
    match version {
        EngineVersion::V3 => {
            frames.iter().map(|frame| format!("{}:{frame}", frame.encode_utf16().count())).collect()
        }
        EngineVersion::V4 => frames.join("\u{1e}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn recorded_packets_are_read_and_written() {
        for (frame, packet) in [
            (r#"0{"sid":"ZJBfu9BhjZztsnKWAAAA"}"#, EnginePacket::Open(r#"{"sid":"ZJBfu9BhjZztsnKWAAAA"}"#)),
            ("1", EnginePacket::Close),
            ("2", EnginePacket::Ping("")),
            ("2probe", EnginePacket::Ping(PROBE)),
            ("3", EnginePacket::Pong("")),
            ("3probe", EnginePacket::Pong(PROBE)),
            ("40", EnginePacket::Message("0")),
            (r#"42["a"]"#, EnginePacket::Message(r#"2["a"]"#)),
            ("41", EnginePacket::Message("1")),
            ("5", EnginePacket::Upgrade),
            ("6", EnginePacket::Noop),
        ] {
            assert_eq!(parse(frame), Ok(packet));
            assert_eq!(write(packet), frame);
        }
        for frame in ["", "7", "b4AQID", " 2", "é", "-1", "{}"] {
            assert_eq!(parse(frame), Err(MalformedEnginePacket), "{frame:?}");
        }
    }

    #[test]
    fn recorded_payloads_are_written() {
        let v3 = |frames: &[&str]| payload(EngineVersion::V3, frames);
        assert_eq!(
            v3(&[r#"42["App\\Events\\News","a",{"text":"héllo ☕","socket":null}]"#]),
            r#"60:42["App\\Events\\News","a",{"text":"héllo ☕","socket":null}]"#
        );
        assert_eq!(v3(&[r#"42["e","é☕😀"]"#]), r#"14:42["e","é☕😀"]"#);
        assert_eq!((v3(&["2"]), v3(&["3"]), v3(&["6"])), ("1:2".into(), "1:3".into(), "1:6".into()));
        assert_eq!(v3(&["41", "1"]), "2:411:1");
        assert_eq!(payload(EngineVersion::V4, &[r#"42["e","é☕😀"]"#, "2"]), "42[\"e\",\"é☕😀\"]\u{1e}2");
        assert_eq!(payload(EngineVersion::V4, &["6"]), "6");
    }

    #[test]
    fn only_two_versions_are_spoken() {
        assert_eq!(EngineVersion::parse("3"), Some(EngineVersion::V3));
        assert_eq!(EngineVersion::parse("4"), Some(EngineVersion::V4));
        for eio in ["", "2", "5", "44", " 4", "four"] {
            assert_eq!(EngineVersion::parse(eio), None, "{eio}");
        }
    }

    proptest! {
        #[test]
        fn no_frame_panics_and_packets_survive(frame in "[0-7]?\\PC{0,20}", rest in "\\PC{0,20}") {
            if let Ok(packet) = parse(&frame) {
                let written = write(packet);
                prop_assert_eq!(parse(&written), Ok(packet));
            }
            let packet = EnginePacket::Message(&rest);
            let written = write(packet);
            prop_assert_eq!(parse(&written), Ok(packet));
        }
    }
}
