//! Every frame to a client, as the text of a WebSocket frame. Events have one text in both versions.

use broadgate_pusher::{json::Writer, member::ChannelMember};
use serde_json::value::RawValue;

use super::engine::EngineVersion;

/// The answer to a client's ping, in version 3.
pub const PONG: &str = "3";
/// The server's ping, in version 4.
pub const PING: &str = "2";
/// The answer to a tried WebSocket.
pub const PROBE_ANSWER: &str = "3probe";
/// Ends the client for good: it does not reconnect by itself, as it does after a mere close.
pub const DISCONNECT: &str = "41";

/// A user in a presence channel as clients see it.
#[derive(Debug, Clone)]
pub struct PresentUser<'a> {
    pub member: ChannelMember<'a>,
    /// The socket by which it has joined, where this is known.
    pub socket_id: Option<&'a str>,
}

/// What a connection begins with.
#[derive(Debug, Clone, Copy)]
pub struct OpenPacket<'a> {
    pub version: EngineVersion,
    pub sid: &'a str,
    /// Over polling: the client may go over to a WebSocket.
    pub is_polling: bool,
    pub ping_interval_ms: u64,
    pub ping_timeout_ms: u64,
    /// The longest message that the client may send, in bytes.
    pub message_bytes_max: usize,
}

pub fn open(packet: OpenPacket<'_>) -> String {
    let mut out = Writer::with_capacity(160);
    out.plain(r#"0{"sid":"#).string(packet.sid);
    out.plain(if packet.is_polling { r#","upgrades":["websocket"]"# } else { r#","upgrades":[]"# });
    out.plain(r#","pingInterval":"#).number(packet.ping_interval_ms);
    out.plain(r#","pingTimeout":"#).number(packet.ping_timeout_ms);
    if packet.version == EngineVersion::V4 {
        out.plain(r#","maxPayload":"#).number(packet.message_bytes_max as u64);
    }
    out.plain("}").finish()
}

/// The client is connected, with this id.
pub fn connected(version: EngineVersion, sid: &str) -> String {
    match version {
        EngineVersion::V3 => "40".to_owned(),
        EngineVersion::V4 => {
            let mut out = Writer::with_capacity(sid.len() + 16);
            out.plain(r#"40{"sid":"#).string(sid).plain("}").finish()
        }
    }
}

/// Refuses a namespace. It holds no comma: it ends there in a packet.
pub fn namespace_refused(version: EngineVersion, namespace: &str) -> String {
    match version {
        EngineVersion::V3 => format!(r#"44{namespace},"Invalid namespace""#),
        EngineVersion::V4 => format!(r#"44{namespace},{{"message":"Invalid namespace"}}"#),
    }
}

/// An event of a channel. Data that is JSON stands in it as it is, other data as a string.
/// The channel is null for what is sent to clients, not to a channel.
pub fn event(event: &str, channel: Option<&str>, data: &str) -> String {
    let names = event.len() + channel.map_or(4, str::len);
    let mut out = Writer::with_capacity(names + data.len() + data.len() / 8 + 16);
    out.plain("42[").string(event).plain(",");
    match channel {
        Some(channel) => out.string(channel),
        None => out.plain("null"),
    };
    out.plain(",");
    match serde_json::from_str::<&RawValue>(data) {
        Ok(json) => out.raw(json.get()),
        Err(_) => out.string(data),
    };
    out.plain("]").finish()
}

/// Everybody in a presence channel, for a client that has subscribed.
pub fn presence_subscribed(channel: &str, users: &[PresentUser<'_>]) -> String {
    let len = |user: &PresentUser<'_>| {
        user.member.id.len() + user.member.info.as_ref().map_or(0, |info| info.len()) + 96
    };
    let mut out = Writer::with_capacity(channel.len() + 40 + users.iter().map(len).sum::<usize>());
    out.plain(r#"42["presence:subscribed","#).string(channel).plain(",[");
    out.list(users, write_user).plain("]]").finish()
}

/// A user's first connection has joined.
pub fn presence_joining(channel: &str, user: &PresentUser<'_>) -> String {
    let mut out = Writer::with_capacity(channel.len() + 160);
    out.plain(r#"42["presence:joining","#).string(channel).plain(",");
    write_user(&mut out, user);
    out.plain("]").finish()
}

/// A user's last connection has left.
pub fn presence_leaving(channel: &str, member: &ChannelMember<'_>) -> String {
    let mut out = Writer::with_capacity(channel.len() + 128);
    out.plain(r#"42["presence:leaving","#).string(channel).plain(",");
    out.plain(&member.seat_info()).plain("]").finish()
}

fn write_user(out: &mut Writer, PresentUser { member, socket_id }: &PresentUser<'_>) {
    out.plain(r#"{"user_id":"#).plain(&member.id_json());
    if let Some(info) = &member.info {
        out.plain(r#","user_info":"#).raw(info);
    }
    if let Some(socket_id) = socket_id {
        out.plain(r#","socketId":"#).string(socket_id);
    }
    out.plain("}");
}

/// A subscription is refused. The status is what the app's backend answered, 0 if it did not.
pub fn subscription_error(channel: &str, status: u16) -> String {
    let mut out = Writer::with_capacity(channel.len() + 40);
    out.plain(r#"42["subscription_error","#).string(channel).plain(",").number(status.into());
    out.plain("]").finish()
}

#[cfg(test)]
mod tests {
    use broadgate_pusher::limits::PusherLimits;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        engine::{self, EnginePacket},
        packet,
    };

    fn user<'a>(channel_data: &'a str, socket_id: &'a str) -> PresentUser<'a> {
        let member = ChannelMember::parse(channel_data, &PusherLimits::default()).unwrap();
        PresentUser { member, socket_id: Some(socket_id).filter(|id| !id.is_empty()) }
    }

    #[test]
    fn connecting_is_as_recorded() {
        let packet = OpenPacket {
            version: EngineVersion::V4,
            sid: "ZJBfu9BhjZztsnKWAAAA",
            is_polling: false,
            ping_interval_ms: 25_000,
            ping_timeout_ms: 20_000,
            message_bytes_max: 1_000_000,
        };
        assert_eq!(
            open(packet),
            r#"0{"sid":"ZJBfu9BhjZztsnKWAAAA","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#
        );
        assert_eq!(
            open(OpenPacket { version: EngineVersion::V3, is_polling: true, ..packet }),
            r#"0{"sid":"ZJBfu9BhjZztsnKWAAAA","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000}"#
        );
        assert_eq!(
            connected(EngineVersion::V4, "kxgq9UUUwxke8yydAAAA"),
            r#"40{"sid":"kxgq9UUUwxke8yydAAAA"}"#
        );
        assert_eq!(connected(EngineVersion::V3, "kxgq9UUUwxke8yydAAAA"), "40");
        assert_eq!(namespace_refused(EngineVersion::V3, "/none"), r#"44/none,"Invalid namespace""#);
        assert_eq!(
            namespace_refused(EngineVersion::V4, "/none"),
            r#"44/none,{"message":"Invalid namespace"}"#
        );
    }

    #[test]
    fn events_are_as_recorded() {
        assert_eq!(
            event(r"App\Events\News", Some("private-orders.1"), r#"{"text":"héllo ☕","socket":null}"#),
            r#"42["App\\Events\\News","private-orders.1",{"text":"héllo ☕","socket":null}]"#
        );
        assert_eq!(
            event("client-typing", Some("presence-room.les"), r#"{"who":"ann"}"#),
            r#"42["client-typing","presence-room.les",{"who":"ann"}]"#
        );
        assert_eq!(event("e", Some("c"), "no \"JSON\""), r#"42["e","c","no \"JSON\""]"#);
        assert_eq!(
            (event("e", Some("c"), ""), event("e", Some("c"), "1 2")),
            (r#"42["e","c",""]"#.into(), r#"42["e","c","1 2"]"#.into())
        );
        assert_eq!(event("e", Some("c"), "{\"a\":\r\n1e999}"), r#"42["e","c",{"a":  1e999}]"#);
        assert_eq!(event("e", None, "1"), r#"42["e",null,1]"#);
        assert_eq!(event("e", Some("c"), " [1] "), r#"42["e","c",[1]]"#);
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(event("e", Some("c"), &deep) == format!(r#"42["e","c",{deep}]"#), "nesting is no error");
    }

    #[test]
    fn presence_is_as_recorded() {
        let bob = user(r#"{"user_id":2,"user_info":{"id":2,"name":"bob"}}"#, "1.2");
        let ann = user(r#"{"user_id":"1"}"#, "");
        assert_eq!(
            presence_subscribed("presence-room.les", &[bob.clone(), ann]),
            r#"42["presence:subscribed","presence-room.les",[{"user_id":2,"user_info":{"id":2,"name":"bob"},"socketId":"1.2"},{"user_id":"1"}]]"#
        );
        assert_eq!(
            presence_joining("presence-room.les", &bob),
            r#"42["presence:joining","presence-room.les",{"user_id":2,"user_info":{"id":2,"name":"bob"},"socketId":"1.2"}]"#
        );
        assert_eq!(
            presence_leaving("presence-room.les", &bob.member),
            r#"42["presence:leaving","presence-room.les",{"user_id":2,"user_info":{"id":2,"name":"bob"}}]"#
        );
        assert_eq!(
            subscription_error("private-orders.2", 403),
            r#"42["subscription_error","private-orders.2",403]"#
        );
    }

    proptest! {
        #[test]
        fn every_event_is_a_packet_with_its_name_channel_and_data(
            name in "\\PC{0,20}", channel in "\\PC{0,20}", data in "\\PC{0,40}|[\\x00-\\x7f\u{2028}]{0,40}|[\\[\\]{}\":,0-9]{0,8}"
        ) {
            let frame = event(&name, Some(&channel), &data);
            let Ok(EnginePacket::Message(message)) = engine::parse(&frame) else { panic!("{frame}") };
            let packet = packet::parse(message).unwrap();
            prop_assert_eq!(packet::event(packet.data).unwrap().name, &*name);
            let parts: Vec<&RawValue> = serde_json::from_str(packet.data).unwrap();
            prop_assert_eq!(parts.len(), 3);
            prop_assert_eq!(serde_json::from_str::<String>(parts[1].get()).unwrap(), channel);
            match serde_json::from_str::<&RawValue>(&data) {
                Ok(json) => prop_assert_eq!(parts[2].get(), json.get().replace(['\r', '\n'], " ")),
                Err(_) => prop_assert_eq!(serde_json::from_str::<String>(parts[2].get()).unwrap(), data),
            }
        }
    }
}
