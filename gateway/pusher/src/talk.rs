//! Decides about a client's frame, given the client and what its app allows. Pure: returns actions, executes
//! none.

use super::{
    Compat,
    auth::{self, AppKey},
    channel::{self, Access, ChannelKind},
    incoming::{Incoming, MalformedFrame},
    limits::PusherLimits,
    member::{ChannelMember, SignedInUser},
    outgoing,
};

/// What an app allows.
pub struct Rules<'a> {
    pub keys: &'a [AppKey],
    pub limits: &'a PusherLimits,
    pub compat: Compat,
    pub client_events: bool,
}

/// The sender.
pub struct Speaker<'a> {
    pub socket_id: &'a str,
    pub user: Option<&'a SignedInUser>,
    /// Whether it is subscribed to this channel, or about to be.
    pub is_in: &'a dyn Fn(&str) -> bool,
}

/// An action.
#[derive(Debug)]
pub enum Act {
    Nothing,
    /// Send it this frame.
    Say(String),
    /// Send it this frame, which refuses its request.
    Refuse {
        frame: String,
        /// For the log, from a closed set.
        reason: &'static str,
        /// For the log; no signature is in it.
        why: String,
    },
    Subscribe(Subscription),
    Unsubscribe(String),
    SignIn {
        user: SignedInUser,
        user_data: String,
    },
    /// To all other clients in the channel.
    Publish {
        channel: String,
        event: String,
        /// A JSON value.
        data: String,
    },
}

/// A subscription that is allowed.
#[derive(Debug)]
pub struct Subscription {
    pub channel: String,
    pub kind: ChannelKind,
    /// Presence: the user's id, and its member info.
    pub member: Option<(String, String)>,
}

/// Decides about one frame.
pub fn decide(said: Result<Incoming, MalformedFrame>, rules: &Rules<'_>, speaker: &Speaker<'_>) -> Act {
    match said {
        Ok(Incoming::Ping) => Act::Say(outgoing::PONG.to_owned()),
        Ok(Incoming::Pong) => Act::Nothing,
        Ok(Incoming::Subscribe { channel, auth, channel_data }) => {
            subscribe(channel, auth.as_deref(), channel_data.as_deref(), rules, speaker)
        }
        Ok(Incoming::Unsubscribe { channel }) => unsubscribe(channel, rules, speaker),
        Ok(Incoming::Signin { auth, user_data }) => sign_in(&auth, user_data, rules, speaker),
        Ok(Incoming::ClientEvent { event, channel, data }) => {
            match client_event(&event, &channel, data.get(), rules, speaker) {
                Ok(()) => Act::Publish { channel, event, data: data.get().to_owned() },
                Err((code, sentence)) => say_error(rules, code, &sentence),
            }
        }
        Ok(Incoming::Unknown { event }) => {
            let sentence = format!("unsupported client event {:?}", short(&event));
            say_malformed(rules, &sentence)
        }
        Err(malformed) => say_malformed(rules, &malformed.to_string()),
    }
}

fn say_error(rules: &Rules<'_>, code: Option<u16>, sentence: &str) -> Act {
    Act::Say(outgoing::error(code, sentence, rules.compat))
}

fn say_malformed(rules: &Rules<'_>, sentence: &str) -> Act {
    let sentence = match rules.compat {
        Compat::Pusher => sentence,
        Compat::Reverb => MalformedFrame::REVERB_TEXT,
    };
    say_error(rules, Some(MalformedFrame::CODE), sentence)
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Why a subscription is refused: a word, a sentence, an HTTP status.
struct RefusedSubscription(&'static str, String, u16);

impl RefusedSubscription {
    fn for_log(&self, channel: &str) -> String {
        format!("{}: {}", short(channel), auth::for_log(&self.1))
    }
}

fn subscribe(
    channel: String,
    auth: Option<&str>,
    channel_data: Option<&str>,
    rules: &Rules<'_>,
    speaker: &Speaker<'_>,
) -> Act {
    if (speaker.is_in)(&channel) && rules.compat == Compat::Pusher {
        return say_error(rules, None, &format!("Existing subscription to channel {channel}"));
    }
    match allowed(&channel, auth, channel_data, rules, speaker) {
        Ok((kind, member)) => Act::Subscribe(Subscription { channel, kind, member }),
        Err(refused) => {
            let why = refused.for_log(&channel);
            let RefusedSubscription(kind, sentence, status) = refused;
            let frame = refusal(&channel, kind, &sentence, status, rules.compat);
            Act::Refuse { frame, reason: "subscription", why }
        }
    }
}

/// The frame that refuses a subscription.
pub fn refusal(channel: &str, kind: &str, sentence: &str, status: u16, compat: Compat) -> String {
    match (compat, status) {
        (Compat::Reverb, 401) => outgoing::error(Some(4009), "Connection is unauthorized", compat),
        _ => outgoing::subscription_error(channel, kind, sentence, status),
    }
}

type Allowed = (ChannelKind, Option<(String, String)>);

fn allowed(
    channel: &str,
    auth: Option<&str>,
    channel_data: Option<&str>,
    rules: &Rules<'_>,
    speaker: &Speaker<'_>,
) -> Result<Allowed, RefusedSubscription> {
    channel::check_name(channel, rules.limits.channel_name_bytes_max)
        .map_err(|error| RefusedSubscription("InvalidChannel", error.to_string(), 400))?;
    let kind = ChannelKind::of(channel);
    let signed = || {
        auth::channel(rules.keys, speaker.socket_id, channel, channel_data, auth)
            .map_err(|error| RefusedSubscription("AuthError", error.to_string(), 401))
    };
    match kind.access {
        Access::Public => Ok((kind, None)),
        Access::Private => signed().map(|()| (kind, None)),
        Access::User => {
            let own = speaker.user.is_some_and(|user| channel::user_of(channel) == Some(&user.id));
            let sentence = || format!("{channel} is open to its own user alone, once signed in");
            if own { Ok((kind, None)) } else { Err(RefusedSubscription("AuthError", sentence(), 401)) }
        }
        Access::Presence => {
            signed()?;
            let member = member(channel_data, rules, speaker)?;
            Ok((kind, Some((member.id.clone().into_owned(), member.seat_info()))))
        }
    }
}

fn member<'a>(
    channel_data: Option<&'a str>,
    rules: &Rules<'_>,
    speaker: &Speaker<'a>,
) -> Result<ChannelMember<'a>, RefusedSubscription> {
    let invalid = |sentence: String| RefusedSubscription("InvalidChannelData", sentence, 400);
    let parsed = match (channel_data, speaker.user) {
        (Some(data), _) => ChannelMember::parse(data, rules.limits),
        (None, Some(user)) => user.member(rules.limits),
        (None, None) => {
            return Err(invalid(
                "a presence channel needs channel_data with a user_id, or a signed-in user".into(),
            ));
        }
    };
    parsed.map_err(|error| invalid(error.to_string()))
}

fn unsubscribe(channel: String, rules: &Rules<'_>, speaker: &Speaker<'_>) -> Act {
    if (speaker.is_in)(&channel) {
        return Act::Unsubscribe(channel);
    }
    match rules.compat {
        Compat::Reverb => Act::Nothing,
        Compat::Pusher => {
            let channel = short(&channel);
            let sentence =
                format!("No current subscription to channel {channel}, or subscription in progress");
            say_error(rules, None, &sentence)
        }
    }
}

fn sign_in(auth: &str, user_data: String, rules: &Rules<'_>, speaker: &Speaker<'_>) -> Act {
    let refused = |sentence: String| Act::Refuse {
        frame: outgoing::error(Some(4009), &sentence, rules.compat),
        reason: "signin",
        why: auth::for_log(&sentence).to_owned(),
    };
    if let Err(error) = auth::signin(rules.keys, speaker.socket_id, &user_data, auth) {
        return refused(error.to_string());
    }
    match SignedInUser::parse(&user_data, rules.limits) {
        Err(error) => refused(error.to_string()),
        Ok(user) if speaker.user.is_some_and(|former| former.id != user.id) => {
            refused("Connection not authorized: it is signed in as another user".to_owned())
        }
        Ok(user) => Act::SignIn { user, user_data },
    }
}

type Rejection = (Option<u16>, String);

/// The code of the `pusher:error` for a request that the server has no room for: retry later.
pub const BUSY: u16 = 4100;
/// The code of the `pusher:error` for a client event dropped by a limit.
pub const CLIENT_EVENT_LIMIT: u16 = 4301;

fn client_event(
    event: &str,
    channel: &str,
    data: &str,
    rules: &Rules<'_>,
    speaker: &Speaker<'_>,
) -> Result<(), Rejection> {
    let reverb = rules.compat == Compat::Reverb;
    let reject = |sentence: &str| Err((None, sentence.to_owned()));
    if !rules.client_events {
        return match reverb {
            true => Err((Some(4301), "The app does not have client messaging enabled.".to_owned())),
            false => {
                reject("To send client events, you must enable this feature: set client_events of the app")
            }
        };
    }
    let limits = rules.limits;
    for (what, len, max) in [
        ("name", event.len(), limits.event_name_bytes_max),
        ("data", data.len(), limits.event_data_bytes_max),
    ] {
        if len > max {
            let sentence =
                format!("Client event rejected - its {what} has {len} bytes: at most {max} are allowed");
            return Err((Some(CLIENT_EVENT_LIMIT), sentence));
        }
    }
    if !ChannelKind::of(channel).client_events_allowed() {
        return reject("Client event rejected - only supported on private and presence channels");
    }
    if !(speaker.is_in)(channel) {
        return match reverb {
            true => Err((Some(4009), "The client is not a member of the specified channel.".to_owned())),
            false => reject("Client event rejected - you are not subscribed to the channel"),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::incoming, *};

    const KEY: &str = "278d425bdf160c739803";

    fn said(text: &str, user: Option<&SignedInUser>, compat: Compat) -> Act {
        let keys = [AppKey::new(KEY, "7ad3773142a6692b25b8")];
        let rules = Rules { keys: &keys, limits: &PusherLimits::default(), compat, client_events: true };
        let is_in = |channel: &str| channel.ends_with("-in");
        let speaker = Speaker { socket_id: "1234.1234", user, is_in: &is_in };
        decide(incoming::parse(text), &rules, &speaker)
    }

    fn hosted(text: &str) -> Act {
        said(text, None, Compat::Pusher)
    }

    fn answer_of(act: Act) -> String {
        match act {
            Act::Say(frame) | Act::Refuse { frame, .. } => frame,
            other => panic!("{other:?}"),
        }
    }

    fn subscribing(channel: &str, auth: &str, data: &str) -> String {
        serde_json::json!({"event": "pusher:subscribe", "data": {"channel": channel, "auth": auth, "channel_data": data}})
            .to_string()
    }

    #[test]
    fn who_may_subscribe() {
        assert!(matches!(hosted(&subscribing("news", "", "")), Act::Subscribe(it) if it.member.is_none()));
        let good = format!("{KEY}:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4");
        assert!(matches!(hosted(&subscribing("private-foobar", &good, "")), Act::Subscribe(_)));
        let refused = answer_of(hosted(&subscribing("private-foobaz", &good, "")));
        assert!(
            refused.contains("pusher:subscription_error") && refused.contains("\"status\":401"),
            "{refused}"
        );
        let reverb = answer_of(said(&subscribing("private-foobaz", &good, ""), None, Compat::Reverb));
        assert!(reverb.contains("4009") && reverb.contains("Connection is unauthorized"), "{reverb}");
        let presence = format!("{KEY}:afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c");
        let data = r#"{"user_id":10,"user_info":{"name":"Mr. Pusher"}}"#;
        match hosted(&subscribing("presence-foobar", &presence, data)) {
            Act::Subscribe(it) => assert_eq!(it.member, Some(("10".to_owned(), data.to_owned()))),
            other => panic!("{other:?}"),
        }
        assert!(answer_of(hosted(&subscribing("a b", "", ""))).contains("\"status\":400"));
        assert!(
            answer_of(hosted(&subscribing("news-in", "", "")))
                .contains("Existing subscription to channel news-in")
        );
        assert!(matches!(said(&subscribing("news-in", "", ""), None, Compat::Reverb), Act::Subscribe(_)));
    }

    #[test]
    fn a_users_channel_is_its_own() {
        let ann = SignedInUser::parse(r#"{"id":"ann"}"#, &PusherLimits::default()).unwrap();
        for (channel, allowed) in
            [("#server-to-user-ann", true), ("#server-to-user-bob", false), ("#anything", false)]
        {
            let act = said(&subscribing(channel, "", ""), Some(&ann), Compat::Pusher);
            assert_eq!(matches!(act, Act::Subscribe(_)), allowed, "{channel}");
            assert!(matches!(hosted(&subscribing(channel, "", "")), Act::Refuse { .. }), "{channel}");
        }
    }

    #[test]
    fn a_connection_has_one_user() {
        let frame = |data: &str| {
            let key = AppKey::new(KEY, "7ad3773142a6692b25b8");
            let auth = auth::sign_signin(&key, "1234.1234", data);
            serde_json::json!({"event": "pusher:signin", "data": {"auth": auth, "user_data": data}})
                .to_string()
        };
        let ann = SignedInUser::parse(r#"{"id":"ann"}"#, &PusherLimits::default()).unwrap();
        let as_ann = frame(r#"{"id":"ann"}"#);
        assert!(matches!(hosted(&as_ann), Act::SignIn { user, .. } if user.id == "ann"));
        assert!(matches!(said(&as_ann, Some(&ann), Compat::Pusher), Act::SignIn { .. }));
        assert!(
            answer_of(said(&frame(r#"{"id":"bob"}"#), Some(&ann), Compat::Pusher)).contains("another user")
        );
        assert!(answer_of(hosted(&frame(r#"{"id":7}"#))).contains("4009"), "pusher-js wants a string");
        assert!(answer_of(hosted(&as_ann.replace("ann", "eve"))).contains("Invalid signature"));
    }

    #[test]
    fn who_may_send_client_events() {
        let event = |channel: &str, name: &str| {
            serde_json::json!({"event": name, "channel": channel, "data": [1]}).to_string()
        };
        match hosted(&event("private-in", "client-x")) {
            Act::Publish { channel, event, data } => {
                assert_eq!((&*channel, &*event, &*data), ("private-in", "client-x", "[1]"));
            }
            other => panic!("{other:?}"),
        }
        assert!(answer_of(hosted(&event("news-in", "client-x"))).contains("only supported on private"));
        assert!(answer_of(hosted(&event("private-out", "client-x"))).contains("not subscribed"));
        let long = answer_of(hosted(&event("private-in", &format!("client-{}", "x".repeat(200)))));
        assert!(long.contains("207 bytes") && long.contains("4301"), "{long}");
        assert!(answer_of(hosted(&event("private-in", "x"))).contains("4200"));
        assert!(answer_of(hosted("{")).contains("4200"));
        assert!(answer_of(said("{", None, Compat::Reverb)).contains("Invalid message format"));
        assert!(matches!(hosted(r#"{"event":"pusher:ping"}"#), Act::Say(pong) if pong == outgoing::PONG));
    }

    #[test]
    fn unsubscribing_is_silent_where_there_is_something_to_leave() {
        let frame =
            |channel: &str| format!(r#"{{"event":"pusher:unsubscribe","data":{{"channel":"{channel}"}}}}"#);
        assert!(matches!(hosted(&frame("news-in")), Act::Unsubscribe(channel) if channel == "news-in"));
        assert!(answer_of(hosted(&frame("news"))).contains("No current subscription to channel news"));
        assert!(matches!(said(&frame("news"), None, Compat::Reverb), Act::Nothing));
    }
}
