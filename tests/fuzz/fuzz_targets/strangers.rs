//! Every parser that strangers reach. One program, since building is what costs; the first byte of an input
//! says which parser the rest is for, as the folders of the corpus do.

#![no_main]

use broadgate_gateway::{apps::{App, Apps, PusherLimits}, fuzz};
use broadgate_pusher::api::params::Params;
use broadgate_socketio::{
    engine::{self, EnginePacket, EngineVersion},
    outgoing, packet,
    polling::{self, PollingRequest},
    sid,
    talk::{self, SocketRules, SocketSpeaker, SocketStage},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    match first {
        b'c' => fuzz::codec(rest),
        b'p' => fuzz::pusher(rest),
        b'a' => fuzz::api(rest),
        b'r' => fuzz::request(rest),
        b'j' => fuzz::command(rest),
        b't' => apps(rest),
        b's' => socketio(rest),
        b'x' => fuzz::redis(rest),
        _ => {}
    }
});

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    apps: Vec<App>,
}

/// A file of apps.
fn apps(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(file) = toml::from_str::<File>(text) {
        let _ = Apps::new(file.apps);
    }
}

/// A frame of a Socket.IO client, and a request's query. The first byte chooses version and stage.
fn socketio(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let version = if first & 1 == 0 { EngineVersion::V3 } else { EngineVersion::V4 };
    let stage = [SocketStage::Probing, SocketStage::Opened, SocketStage::Connected][usize::from(first >> 1) % 3];
    let limits = PusherLimits::default();
    let rules = SocketRules { limits: &limits, client_events: first & 8 == 0 };
    let is_in = |channel: &str| channel.len().is_multiple_of(2);
    let _ = talk::decide(text, &rules, &SocketSpeaker { version, stage, is_in: &is_in });
    if let Ok(packet) = engine::parse(text) {
        let written = engine::write(packet);
        assert_eq!(engine::parse(&written), Ok(packet));
        if let EnginePacket::Message(message) = packet && let Ok(packet) = packet::parse(message) {
            let written = packet.write();
            assert_eq!(packet::parse(&written), Ok(packet));
        }
    }
    let event = outgoing::event(text, Some(text), text);
    let Ok(EnginePacket::Message(message)) = engine::parse(&event) else { panic!("{event}") };
    let written = packet::parse(message).expect("an event is a packet");
    assert_eq!(packet::event(written.data).expect("it has a name").name, text);
    let params = Params::parse_bounded(text).unwrap_or_default();
    let now = std::time::Duration::from_secs(1_800_000_000);
    for (method, is_upgrade) in [("GET", false), ("GET", true), ("POST", false), ("OPTIONS", false)] {
        let _ = polling::decide(PollingRequest { method, params: &params, is_upgrade, now });
    }
    if let Some(client) = sid::parse(text) {
        assert_eq!(sid::issue(client.key), text);
    }
}
