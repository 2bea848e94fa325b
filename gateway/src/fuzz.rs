//! The parsers exposed to the network, for the fuzz targets in `tests/fuzz`: each accepts any bytes, must not
//! panic, and checks the properties of what it has accepted.

use broadgate_pusher::{
    Compat,
    api::{
        ably::{self, AblyPublish, BodyFormat},
        echo_server::{self, Authorization},
        params::Params,
        publish, query, route, sign,
    },
    auth, channel, incoming, member, socket_id, talk,
};

use crate::{
    apps::{Apps, PusherLimits},
    codec::{Allowance, ClientInput, Codec, Protocol, encode::Encoder},
    command::{Parser, session_object},
};

/// Messages are at most so long here, so that both sides of the limit are met.
const MESSAGE_BYTES_MAX: usize = 512;

/// What a client sends after its handshake. The first byte chooses the protocol, the second how the bytes
/// arrive in pieces: neither may make a difference.
pub fn codec(data: &[u8]) {
    let [protocol, step, bytes @ ..] = data else { return };
    let protocol = [Protocol::WebSocket, Protocol::Text, Protocol::Frame][usize::from(protocol % 3)];
    let whole = decode(protocol, bytes, bytes.len().max(1), u32::MAX);
    let pieces = decode(protocol, bytes, usize::from(*step).max(1), u32::from(*step % 7) + 1);
    assert_eq!(whole, pieces, "{protocol:?} in pieces of {step}");
    for message in &whole.0 {
        let len = match message {
            ClientInput::Text(text) => text.len(),
            ClientInput::Binary(bytes) => bytes.len(),
            ClientInput::Close(code, reason) => {
                assert!(*code >= 1000, "no client sends the close code {code}");
                reason.len()
            }
        };
        assert!(len <= MESSAGE_BYTES_MAX, "{len} bytes were taken");
    }
}

/// Everything that is said, whether the client broke its protocol, and what it is answered; in turns of so
/// many frames.
fn decode(protocol: Protocol, bytes: &[u8], step: usize, frames: u32) -> (Vec<ClientInput>, bool, Vec<u8>) {
    let mut codec = Codec::new(protocol, MESSAGE_BYTES_MAX);
    let (mut said, mut answer) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(step) {
        let mut input = piece;
        let mut allowance = Allowance::of(frames);
        loop {
            match codec.next(&mut input, &mut answer, &mut allowance) {
                Ok(Some(message)) => {
                    let is_close = matches!(message, ClientInput::Close(..));
                    said.push(message);
                    // Nothing is read after a close.
                    if is_close {
                        return (said, false, answer);
                    }
                }
                Ok(None) if input.is_empty() => break,
                Ok(None) => {
                    assert_eq!(allowance.left, 0, "something that may be taken is left");
                    allowance = Allowance::of(frames);
                }
                Err(_) => return (said, true, Vec::new()),
            }
        }
    }
    (said, false, answer)
}

/// What a Redis answers.
pub fn redis(data: &[u8]) {
    crate::redis::fuzz(data);
}

fn keys() -> Vec<auth::AppKey> {
    vec![auth::AppKey::new("key", "a-secret-of-the-fuzzer")]
}

fn compat(first: u8) -> Compat {
    if first & 1 == 0 { Compat::Pusher } else { Compat::Reverb }
}

/// A frame of a Pusher client, and everything that it may lead to. The first byte chooses whose behaviour
/// counts.
pub fn pusher(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let (keys, limits, compat) = (keys(), PusherLimits::default(), compat(first));
    let rules = talk::Rules { keys: &keys, limits: &limits, compat, client_events: first & 2 == 0 };
    let is_in = |channel: &str| channel.len().is_multiple_of(2);
    let speaker = talk::Speaker { socket_id: "1.1", user: None, is_in: &is_in };
    let _ = talk::decide(incoming::parse(text), &rules, &speaker);
    let _ = member::ChannelMember::parse(text, &limits).map(|member| member.seat_info());
    let _ = member::SignedInUser::parse(text, &limits);
    let _ = auth::signin(&keys, "1.1", text, text);
    let _ = auth::channel(&keys, "1.1", text, None, Some(text));
    if channel::check_name(text, limits.channel_name_bytes_max).is_ok() {
        broadgate_proto::name::check("group", text).expect("a channel is a group");
        let _ = (channel::ChannelKind::of(text), channel::user_of(text));
    }
    if let Ok(Some(client)) = socket_id::parse(text) {
        assert_eq!(socket_id::parse(&socket_id::text(client)), Ok(Some(client)));
    }
}

/// A request to the HTTP API: a line with method and path, one with the query, then the body.
pub fn api(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let mut parts = rest.splitn(3, |&byte| byte == b'\n');
    let mut text = || std::str::from_utf8(parts.next().unwrap_or_default()).ok();
    let (Some(target), Some(asked)) = (text(), text()) else { return };
    let body = parts.next().unwrap_or_default();
    let (method, path) = target.split_once(' ').unwrap_or(("POST", target));
    let (keys, limits, compat) = (keys(), PusherLimits::default(), compat(first));
    let Ok(params) = Params::parse_bounded(asked) else { return };
    let request = sign::SignedParts { method, path, params: &params };
    assert!(sign::verify(request, &keys, &["", "/x"], 0, u64::MAX).is_err(), "a signature was guessed");
    let _ = sign::verify_body(&params, body);
    let _ = route::route(method, path);
    let _ = publish::event(body, &params, &limits, compat);
    let _ = publish::batch(body, &limits, compat);
    let _ = query::channels(&params, compat);
    let _ = query::channel(path, &params, &limits, compat);
    let _ = query::users(path, &limits);
    other_apis(path, body, &params, &limits);
}

/// The same request to the other APIs that publish: the path is a header or a part of one, too.
fn other_apis(path: &str, body: &[u8], params: &Params, limits: &PusherLimits) {
    let keys = keys();
    for header in [None, Some(path)] {
        let authorization = Authorization::of(header, params, &keys);
        assert_ne!(authorization, Authorization::Secret, "a secret was guessed");
    }
    let is_name = |channel: &String| broadgate_proto::name::check("group", channel).is_ok();
    if let Ok(event) = echo_server::event(body, limits) {
        assert!(event.channels.iter().all(is_name), "a channel is a group");
    }
    let _ = echo_server::users(path, limits);
    let _ = ably::basic(path);
    let name = ably::decoded_name(path).and_then(|name| ably::channel_name(&name));
    for format in [BodyFormat::Json, BodyFormat::MessagePack] {
        let Ok(name) = &name else { return };
        if let Ok(publish) = AblyPublish::parse(body, format, name, limits) {
            assert!(publish.events.iter().flat_map(|event| &event.channels).all(is_name));
        }
    }
}

/// What a connection begins with: a PROXY header, a request's path, and what proxies say in headers.
pub fn request(data: &[u8]) {
    crate::ingress::fuzz(data);
}

/// A command as JSON: the name of the call, a newline, the body; and a session.
pub fn command(data: &[u8]) {
    let mut parts = data.splitn(2, |&byte| byte == b'\n');
    let call = parts.next().and_then(|call| std::str::from_utf8(call).ok());
    let body = parts.next().unwrap_or_default();
    let encoder = Encoder { websocket: true, text: true, frame: true, pusher: true };
    let parser = Parser {
        encoder,
        session_bytes_max: MESSAGE_BYTES_MAX,
        payload_bytes_max: MESSAGE_BYTES_MAX,
        frame_bytes_max: MESSAGE_BYTES_MAX,
        apps: Apps::new(Vec::new()).expect("no app is wrong"),
    };
    if let Some(Ok(command)) = call.map(|call| crate::api::fuzz(call, body)) {
        let _ = parser.parse(&command);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = session_object(text, MESSAGE_BYTES_MAX);
    }
}
