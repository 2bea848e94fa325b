//! Decides about a client's frame, given its stage and what its app allows. Pure: returns actions, executes
//! none.

use std::{borrow::Cow, collections::BTreeMap};

use broadgate_proto::name;
use broadgate_pusher::{
    channel::{Access, ChannelKind},
    incoming::CLIENT_EVENT_PREFIX,
    json,
    limits::PusherLimits,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    engine::{self, EnginePacket, EngineVersion, PROBE},
    outgoing,
    packet::{self, ROOT, SocketEvent, SocketPacket, SocketPacketKind},
};

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketStage {
    /// It tries the WebSocket, with an id from polling.
    Probing,
    /// It began with the WebSocket, and has to ask for the namespace: version 4 only.
    Opened,
    Connected,
}

/// What an app allows.
pub struct SocketRules<'a> {
    pub limits: &'a PusherLimits,
    pub client_events: bool,
}

/// The sender.
pub struct SocketSpeaker<'a> {
    pub version: EngineVersion,
    pub stage: SocketStage,
    /// Whether it is subscribed to this channel, or about to be.
    pub is_in: &'a dyn Fn(&str) -> bool,
}

/// An action.
#[derive(Debug, PartialEq, Eq)]
pub enum SocketAct {
    Nothing,
    /// Send it this frame.
    Say(Cow<'static, str>),
    /// It is connected from here: send it [`outgoing::connected`].
    Connect,
    /// To a channel of this kind. A private or presence channel needs the word of the app's backend.
    Subscribe(SubscribeRequest),
    Unsubscribe(String),
    /// To all other clients in the channel.
    Publish {
        channel: String,
        event: String,
        /// A JSON value.
        data: String,
    },
    /// Send it this frame, which refuses a subscription without asking the backend.
    Refuse {
        frame: String,
        /// For the log.
        why: String,
    },
    /// The frame has no effect and no answer; count it.
    Ignore(Ignored),
    /// It goes for good.
    Leave,
    /// It breaks the protocol: close it without a close code, as the protocol does.
    Close(ProtocolBreach),
}

/// A request to subscribe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeRequest {
    pub channel: String,
    pub kind: ChannelKind,
    /// Headers for the app's backend, as the client gave them: unchecked names and values.
    pub headers: Vec<(String, String)>,
}

/// Why a frame has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// A binary event, or a binary frame.
    Binary,
    /// An argument that is not what the event needs.
    Argument,
    /// A client event that the app or the channel does not allow, or of a channel that the client is not in.
    ClientEvent,
    /// A client event that is too large.
    TooLarge,
}

impl Ignored {
    /// For metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Argument => "argument",
            Self::ClientEvent => "client_event",
            Self::TooLarge => "too_large",
        }
    }
}

/// Why a client is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolBreach {
    #[error("a frame is no Engine.IO packet")]
    Engine,
    #[error("a message is no Socket.IO packet")]
    Socket,
    #[error("a message came before the client was connected")]
    TooEarly,
    #[error("a heartbeat had the wrong direction")]
    Heartbeat,
}

/// Decides about one text frame.
pub fn decide(frame: &str, rules: &SocketRules<'_>, speaker: &SocketSpeaker<'_>) -> SocketAct {
    let Ok(packet) = engine::parse(frame) else { return SocketAct::Close(ProtocolBreach::Engine) };
    match (packet, speaker.stage, speaker.version) {
        (EnginePacket::Close, ..) => SocketAct::Leave,
        (EnginePacket::Noop, ..) => SocketAct::Nothing,
        (EnginePacket::Ping(PROBE), SocketStage::Probing, _) => SocketAct::Say(outgoing::PROBE_ANSWER.into()),
        (EnginePacket::Upgrade, SocketStage::Probing, _) => SocketAct::Connect,
        (EnginePacket::Upgrade, ..) => SocketAct::Nothing,
        (EnginePacket::Message(_), SocketStage::Probing, _) => SocketAct::Close(ProtocolBreach::TooEarly),
        (EnginePacket::Ping(_), _, EngineVersion::V3) => SocketAct::Say(outgoing::PONG.into()),
        (EnginePacket::Pong(_), _, EngineVersion::V4) => SocketAct::Nothing,
        (EnginePacket::Ping(_), _, EngineVersion::V4) | (EnginePacket::Pong(_), _, EngineVersion::V3) => {
            SocketAct::Close(ProtocolBreach::Heartbeat)
        }
        (EnginePacket::Open(_), ..) => SocketAct::Close(ProtocolBreach::Engine),
        (EnginePacket::Message(message), ..) => match packet::parse(message) {
            Ok(packet) => decide_packet(packet, rules, speaker),
            Err(_) => SocketAct::Close(ProtocolBreach::Socket),
        },
    }
}

/// A binary frame, of an event or alone.
pub fn decide_binary(stage: SocketStage) -> SocketAct {
    match stage {
        SocketStage::Connected => SocketAct::Ignore(Ignored::Binary),
        SocketStage::Probing | SocketStage::Opened => SocketAct::Close(ProtocolBreach::TooEarly),
    }
}

fn decide_packet(
    packet: SocketPacket<'_>,
    rules: &SocketRules<'_>,
    speaker: &SocketSpeaker<'_>,
) -> SocketAct {
    if packet.kind == SocketPacketKind::Connect {
        return connect(packet, speaker);
    }
    if speaker.stage != SocketStage::Connected {
        return SocketAct::Close(ProtocolBreach::TooEarly);
    }
    if packet.namespace_name() != ROOT {
        return SocketAct::Nothing;
    }
    match packet.kind {
        SocketPacketKind::Disconnect => SocketAct::Leave,
        SocketPacketKind::Event => match packet::event(packet.data) {
            Ok(event) => decide_event(&event, rules, speaker),
            Err(_) => SocketAct::Close(ProtocolBreach::Socket),
        },
        // Nothing that the server sends asks for an ack, and none is awaited.
        SocketPacketKind::Ack | SocketPacketKind::Error | SocketPacketKind::Connect => SocketAct::Nothing,
        SocketPacketKind::BinaryEvent | SocketPacketKind::BinaryAck => SocketAct::Ignore(Ignored::Binary),
    }
}

/// Version 4 asks for each namespace, also for the root. What it sends along is repeated with each
/// subscription, and means nothing here; but it has to be an object.
fn connect(packet: SocketPacket<'_>, speaker: &SocketSpeaker<'_>) -> SocketAct {
    if speaker.version == EngineVersion::V4
        && !packet.data.is_empty()
        && json::object::<serde::de::IgnoredAny>(packet.data).is_err()
    {
        return SocketAct::Close(ProtocolBreach::Socket);
    }
    let namespace = packet.namespace_name();
    if namespace != ROOT {
        return SocketAct::Say(outgoing::namespace_refused(speaker.version, namespace).into());
    }
    match speaker.stage {
        SocketStage::Opened => SocketAct::Connect,
        // Its `40` went by polling, too, or was not awaited.
        SocketStage::Connected => SocketAct::Nothing,
        SocketStage::Probing => SocketAct::Close(ProtocolBreach::TooEarly),
    }
}

#[derive(Deserialize)]
struct SubscribeArgument<'a> {
    channel: String,
    #[serde(borrow, default)]
    auth: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct AuthArgument<'a> {
    #[serde(borrow, default)]
    headers: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct UnsubscribeArgument {
    channel: String,
}

#[derive(Deserialize)]
struct ClientEventArgument<'a> {
    channel: String,
    event: String,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

fn decide_event(event: &SocketEvent<'_>, rules: &SocketRules<'_>, speaker: &SocketSpeaker<'_>) -> SocketAct {
    if !matches!(&*event.name, "subscribe" | "unsubscribe" | "client event") {
        return SocketAct::Nothing;
    }
    let raw = event.argument.map_or("", RawValue::get);
    // An object, or a text that holds one.
    let argument: Cow<'_, str> = match raw.starts_with('"').then(|| serde_json::from_str::<String>(raw)) {
        Some(Ok(text)) => text.into(),
        _ => raw.into(),
    };
    let act = match &*event.name {
        "subscribe" => json::object(&argument).map(|argument| subscribe(argument, rules)),
        "unsubscribe" => json::object(&argument).map(|UnsubscribeArgument { channel }| {
            if (speaker.is_in)(&channel) { SocketAct::Unsubscribe(channel) } else { SocketAct::Nothing }
        }),
        _ => json::object(&argument).map(|argument| client_event(argument, rules, speaker)),
    };
    act.unwrap_or(SocketAct::Ignore(Ignored::Argument))
}

fn subscribe(argument: SubscribeArgument<'_>, rules: &SocketRules<'_>) -> SocketAct {
    let SubscribeArgument { channel, auth } = argument;
    let refuse = |channel: &str, status: u16, why: String| SocketAct::Refuse {
        frame: outgoing::subscription_error(channel, status),
        why,
    };
    let bytes_max = rules.limits.channel_name_bytes_max;
    if channel.len() > bytes_max {
        let why = format!("the channel's name has {} bytes: at most {bytes_max} are allowed", channel.len());
        return refuse(&channel, 400, why);
    }
    if let Err(error) = name::check("the channel's name", &channel) {
        return refuse(&channel, 400, error.to_string());
    }
    let kind = ChannelKind::of(&channel);
    if kind.access == Access::User {
        let why = "names that begin with # are reserved: choose another".to_owned();
        return refuse(&channel, 403, why);
    }
    SocketAct::Subscribe(SubscribeRequest { channel, kind, headers: headers(auth) })
}

/// The headers in a client's `auth`. What has not the form of headers counts as none.
fn headers(auth: Option<&RawValue>) -> Vec<(String, String)> {
    let auth = auth.and_then(|auth| json::object::<AuthArgument<'_>>(auth.get()).ok());
    let headers = auth.and_then(|auth| auth.headers);
    let headers = headers.and_then(|headers| json::object::<BTreeMap<String, &RawValue>>(headers.get()).ok());
    let text = |raw: &RawValue| match raw.get().as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(raw.get()).ok(),
        b'-' | b'0'..=b'9' | b't' | b'f' => Some(raw.get().to_owned()),
        _ => None,
    };
    headers.into_iter().flatten().filter_map(|(name, value)| Some((name, text(value)?))).collect()
}

fn client_event(
    argument: ClientEventArgument<'_>,
    rules: &SocketRules<'_>,
    speaker: &SocketSpeaker<'_>,
) -> SocketAct {
    let ClientEventArgument { channel, event, data } = argument;
    let data = data.unwrap_or(RawValue::NULL).get();
    let may = rules.client_events
        && event.starts_with(CLIENT_EVENT_PREFIX)
        && ChannelKind::of(&channel).client_events_allowed()
        && (speaker.is_in)(&channel);
    if !may {
        return SocketAct::Ignore(Ignored::ClientEvent);
    }
    if event.len() > rules.limits.event_name_bytes_max || data.len() > rules.limits.event_data_bytes_max {
        return SocketAct::Ignore(Ignored::TooLarge);
    }
    SocketAct::Publish { channel, event, data: data.to_owned() }
}

#[cfg(test)]
#[path = "talk_tests.rs"]
mod tests;
