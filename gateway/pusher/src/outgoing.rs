//! Every frame to a client, as JSON text.
//!
//! Frames have `data` as a string that holds JSON, as the protocol requires; only `pusher:error`,
//! `pusher:subscription_error`, pings and pongs have an object.

use serde_json::value::RawValue;

use super::{Compat, json::Writer, member::ChannelMember};

/// The answer to `pusher:ping`.
pub const PONG: &str = r#"{"event":"pusher:pong","data":{}}"#;

/// The first frame on a connection. pusher-js refuses a timeout of zero.
pub fn connection_established(socket_id: &str, activity_timeout_seconds: u64) -> String {
    let mut data = Writer::with_capacity(128);
    data.plain(r#"{"socket_id":"#).string(socket_id);
    data.plain(r#","activity_timeout":"#).number(activity_timeout_seconds).plain("}");
    event("pusher:connection_established", None, &data.finish())
}

/// An error of the whole connection. Where the hosted service has no code it sends null.
pub fn error(code: Option<u16>, message: &str, compat: Compat) -> String {
    let mut data = Writer::with_capacity(message.len() + 64);
    let number = |out: &mut Writer| {
        match code {
            Some(code) => out.number(code.into()),
            None => out.plain("null"),
        };
    };
    match compat {
        Compat::Pusher => {
            data.plain(r#"{"event":"pusher:error","data":{"message":"#).string(message).plain(r#","code":"#);
            number(&mut data);
            data.plain("}}").finish()
        }
        Compat::Reverb => {
            data.plain(r#"{"code":"#);
            number(&mut data);
            data.plain(r#","message":"#).string(message).plain("}");
            event("pusher:error", None, &data.finish())
        }
    }
}

/// Confirms a subscription.
pub fn subscription_succeeded(channel: &str) -> String {
    event("pusher_internal:subscription_succeeded", Some(channel), "{}")
}

/// Confirms a subscription to a presence channel with these members, the client included.
pub fn presence_subscription_succeeded(channel: &str, members: &[ChannelMember<'_>]) -> String {
    let len = |member: &ChannelMember<'_>| {
        member.id.len() * 2 + member.info.as_ref().map_or(4, |info| info.len()) + 8
    };
    let mut data = Writer::with_capacity(64 + members.iter().map(len).sum::<usize>());
    data.plain(r#"{"presence":{"count":"#).number(members.len() as u64);
    data.plain(r#","ids":["#).list(members, |out, member| member.write_id(out));
    // Every member has an entry: pusher-js counts them.
    data.plain(r#"],"hash":{"#).list(members, |out, member| {
        out.string(&member.id).plain(":").raw(member.info.as_deref().unwrap_or("null"));
    });
    event("pusher_internal:subscription_succeeded", Some(channel), &data.plain("}}}").finish())
}

/// Refuses a subscription. `kind` is a word such as `AuthError`, `status` an HTTP status.
pub fn subscription_error(channel: &str, kind: &str, sentence: &str, status: u16) -> String {
    let mut out = Writer::with_capacity(channel.len() + kind.len() + sentence.len() + 128);
    out.plain(r#"{"event":"pusher:subscription_error","channel":"#).string(channel);
    out.plain(r#","data":{"type":"#).string(kind).plain(r#","error":"#).string(sentence);
    out.plain(r#","status":"#).number(status.into()).plain("}}").finish()
}

/// A user's first connection has joined.
pub fn member_added(channel: &str, member: &ChannelMember<'_>) -> String {
    event("pusher_internal:member_added", Some(channel), &member.seat_info())
}

/// A user's last connection has left.
pub fn member_removed(channel: &str, member: &ChannelMember<'_>) -> String {
    let mut data = Writer::with_capacity(member.id.len() + 16);
    data.plain(r#"{"user_id":"#);
    member.write_id(&mut data);
    event("pusher_internal:member_removed", Some(channel), &data.plain("}").finish())
}

/// A cache channel has no retained event.
pub fn cache_miss(channel: &str) -> String {
    let mut out = Writer::with_capacity(channel.len() + 48);
    out.plain(r#"{"event":"pusher:cache_miss","channel":"#).string(channel).plain("}").finish()
}

/// Confirms a sign-in; `user_data` is what the client has sent.
pub fn signin_success(user_data: &str) -> String {
    let mut data = Writer::with_capacity(user_data.len() + user_data.len() / 8 + 32);
    data.plain(r#"{"user_data":"#).string(user_data).plain("}");
    event("pusher:signin_success", None, &data.finish())
}

/// Which of a client's watched users are online and which are not; none if there are none.
pub fn watchlist_events(online: &[impl AsRef<str>], offline: &[impl AsRef<str>]) -> Option<String> {
    if online.is_empty() && offline.is_empty() {
        return None;
    }
    let mut data = Writer::with_capacity(128);
    data.plain(r#"{"events":["#);
    if !online.is_empty() {
        watched(&mut data, "online", online);
    }
    if !online.is_empty() && !offline.is_empty() {
        data.plain(",");
    }
    if !offline.is_empty() {
        watched(&mut data, "offline", offline);
    }
    Some(event("pusher_internal:watchlist_events", None, &data.plain("]}").finish()))
}

fn watched(out: &mut Writer, name: &str, users: &[impl AsRef<str>]) {
    out.plain(r#"{"name":"#).string(name).plain(r#","user_ids":["#);
    out.list(users, |out, user| {
        out.string(user.as_ref());
    });
    out.plain("]}");
}

/// An event. Its data arrives as the publisher gave it, byte for byte.
pub fn event(event: &str, channel: Option<&str>, data: &str) -> String {
    let names = event.len() + channel.map_or(0, str::len);
    // Quotes and backslashes in the data take a byte more.
    let mut out = Writer::with_capacity(names + data.len() + data.len() / 8 + 48);
    head(&mut out, event, channel);
    out.plain(r#","data":"#).string(data).plain("}").finish()
}

/// A client event, rebuilt from known fields, so that no client speaks for another. `user_id` is the sender's
/// in a presence channel, as [`ChannelMember::id_json`] has it.
pub fn client_event(event: &str, channel: &str, data: &RawValue, user_id: Option<&str>) -> String {
    let names = event.len() + channel.len() + user_id.map_or(0, str::len);
    let mut out = Writer::with_capacity(names + data.get().len() + 64);
    head(&mut out, event, Some(channel));
    out.plain(r#","data":"#).raw(data.get());
    if let Some(id) = user_id {
        out.plain(r#","user_id":"#).raw(id);
    }
    out.plain("}").finish()
}

fn head(out: &mut Writer, event: &str, channel: Option<&str>) {
    out.plain(r#"{"event":"#).string(event);
    if let Some(channel) = channel {
        out.plain(r#","channel":"#).string(channel);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{incoming, limits::PusherLimits};

    fn member(channel_data: &str) -> ChannelMember<'_> {
        ChannelMember::parse(channel_data, &PusherLimits::default()).unwrap()
    }

    #[test]
    fn connecting() {
        assert_eq!(
            connection_established("123.456", 120),
            r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"123.456\",\"activity_timeout\":120}"}"#
        );
        assert!(matches!(
            incoming::parse(r#"{"event":"pusher:ping","data":{}}"#),
            Ok(incoming::Incoming::Ping)
        ));
        assert!(matches!(incoming::parse(PONG), Ok(incoming::Incoming::Pong)));
    }

    #[test]
    fn errors_are_objects_and_strings_for_reverb() {
        assert_eq!(
            error(Some(4301), "too \"many\"", Compat::Pusher),
            r#"{"event":"pusher:error","data":{"message":"too \"many\"","code":4301}}"#
        );
        assert_eq!(
            error(None, "no", Compat::Pusher),
            r#"{"event":"pusher:error","data":{"message":"no","code":null}}"#
        );
        assert_eq!(
            error(Some(4009), "Connection is unauthorized", Compat::Reverb),
            r#"{"event":"pusher:error","data":"{\"code\":4009,\"message\":\"Connection is unauthorized\"}"}"#
        );
        assert_eq!(
            error(None, "no", Compat::Reverb),
            r#"{"event":"pusher:error","data":"{\"code\":null,\"message\":\"no\"}"}"#
        );
        assert_eq!(
            subscription_error("private-x", "AuthError", "no", 401),
            r#"{"event":"pusher:subscription_error","channel":"private-x","data":{"type":"AuthError","error":"no","status":401}}"#
        );
    }

    #[test]
    fn subscribing() {
        assert_eq!(
            subscription_succeeded("x"),
            r#"{"event":"pusher_internal:subscription_succeeded","channel":"x","data":"{}"}"#
        );
        let members = [member(r#"{"user_id":"1","user_info":{"n":"A"}}"#), member(r#"{"user_id":2}"#)];
        assert_eq!(
            presence_subscription_succeeded("presence-x", &members),
            r#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-x","data":"{\"presence\":{\"count\":2,\"ids\":[\"1\",2],\"hash\":{\"1\":{\"n\":\"A\"},\"2\":null}}}"}"#
        );
        assert_eq!(
            presence_subscription_succeeded("presence-x", &[]),
            r#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-x","data":"{\"presence\":{\"count\":0,\"ids\":[],\"hash\":{}}}"}"#
        );
        assert_eq!(cache_miss("cache-x"), r#"{"event":"pusher:cache_miss","channel":"cache-x"}"#);
    }

    #[test]
    fn members_come_and_go() {
        let (text, number) = (member(r#"{"user_id":"1","user_info":{"n":"A"}}"#), member(r#"{"user_id":1}"#));
        assert_eq!(
            member_added("presence-x", &text),
            r#"{"event":"pusher_internal:member_added","channel":"presence-x","data":"{\"user_id\":\"1\",\"user_info\":{\"n\":\"A\"}}"}"#
        );
        assert_eq!(
            member_removed("presence-x", &text),
            r#"{"event":"pusher_internal:member_removed","channel":"presence-x","data":"{\"user_id\":\"1\"}"}"#
        );
        assert_eq!(
            member_removed("presence-x", &number),
            r#"{"event":"pusher_internal:member_removed","channel":"presence-x","data":"{\"user_id\":1}"}"#
        );
    }

    #[test]
    fn signing_in() {
        assert_eq!(
            signin_success(r#"{"id":"1"}"#),
            r#"{"event":"pusher:signin_success","data":"{\"user_data\":\"{\\\"id\\\":\\\"1\\\"}\"}"}"#
        );
        assert_eq!(
            watchlist_events(&["1", "2"], &["3"]).as_deref(),
            Some(
                r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"online\",\"user_ids\":[\"1\",\"2\"]},{\"name\":\"offline\",\"user_ids\":[\"3\"]}]}"}"#
            )
        );
        let nobody: [&str; 0] = [];
        assert_eq!(
            watchlist_events(&nobody, &["3"]).as_deref(),
            Some(
                r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"offline\",\"user_ids\":[\"3\"]}]}"}"#
            )
        );
        assert_eq!(watchlist_events(&nobody, &nobody), None);
    }

    #[test]
    fn events() {
        assert_eq!(
            event(r"App\Events\OrderShipped", Some("orders"), r#"{"id":1}"#),
            r#"{"event":"App\\Events\\OrderShipped","channel":"orders","data":"{\"id\":1}"}"#
        );
        assert_eq!(event("e", None, "é\u{2028}/"), "{\"event\":\"e\",\"data\":\"é\u{2028}/\"}");
    }

    #[test]
    fn a_clients_event_is_rebuilt_and_stands_on_one_line() {
        let frame = "{\"event\":\"client-x\",\"channel\":\"presence-x\",\"data\":{\"b\" : 1.0,\r\n\"a\":1e400},\"user_id\":\"admin\"}";
        let Ok(incoming::Incoming::ClientEvent { event, channel, data }) = incoming::parse(frame) else {
            panic!("{frame}")
        };
        assert_eq!(
            client_event(&event, &channel, &data, None),
            r#"{"event":"client-x","channel":"presence-x","data":{"b" : 1.0,  "a":1e400}}"#
        );
        let (text, number) = (member(r#"{"user_id":"1"}"#).id_json(), member(r#"{"user_id":1}"#).id_json());
        assert_eq!(
            client_event("client-\"", "c", RawValue::NULL, Some(&text)),
            r#"{"event":"client-\"","channel":"c","data":null,"user_id":"1"}"#
        );
        assert!(client_event("client-x", "c", RawValue::NULL, Some(&number)).ends_with(r#","user_id":1}"#));
    }

    proptest! {
        #[test]
        fn data_is_the_same_byte_for_byte_after_decoding(name in "\\PC{0,20}", data in "\\PC{0,60}|[\\x00-\\x7f\u{2028}]{0,60}") {
            #[derive(serde::Deserialize)]
            struct Frame {
                event: String,
                channel: String,
                data: String,
            }
            let frame: Frame = serde_json::from_str(&event(&name, Some(&name), &data)).unwrap();
            prop_assert_eq!((frame.event, frame.channel, frame.data), (name.clone(), name, data));
        }
    }
}
