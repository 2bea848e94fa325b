use proptest::prelude::*;

use super::{
    EngineVersion::{V3, V4},
    SocketStage::{Connected, Opened, Probing},
    *,
};

/// The client is in every channel whose name ends with "in".
fn said(frame: &str, version: EngineVersion, stage: SocketStage) -> SocketAct {
    let limits = PusherLimits::default();
    let rules = SocketRules { limits: &limits, client_events: true };
    decide(frame, &rules, &SocketSpeaker { version, stage, is_in: &|channel| channel.ends_with("in") })
}

fn connected(frame: &str) -> SocketAct {
    let act = said(frame, V4, Connected);
    assert_eq!(act, said(frame, V3, Connected), "{frame}");
    act
}

fn say(frame: &'static str) -> SocketAct {
    SocketAct::Say(frame.into())
}

fn breach(breach: ProtocolBreach) -> SocketAct {
    SocketAct::Close(breach)
}

#[test]
fn a_client_connects_as_recorded() {
    let auth = r#"40{"headers":{"X-CSRF-TOKEN":"tok","Authorization":"Bearer abc"}}"#;
    for frame in ["40", "40{}", auth] {
        assert_eq!(said(frame, V4, Opened), SocketAct::Connect, "{frame}");
        assert_eq!(said(frame, V4, Connected), SocketAct::Nothing, "{frame}");
    }
    for version in [V3, V4] {
        assert_eq!(said("2probe", version, Probing), say("3probe"));
        assert_eq!(said("5", version, Probing), SocketAct::Connect);
        assert_eq!(said("5", version, Connected), SocketAct::Nothing);
        assert_eq!(said("6", version, Connected), SocketAct::Nothing);
        assert_eq!(said("41", version, Connected), SocketAct::Leave);
        assert_eq!(said("1", version, Connected), SocketAct::Leave);
        assert_eq!(said("1", version, Probing), SocketAct::Leave);
    }
    assert_eq!(said("40/none,", V3, Connected), say(r#"44/none,"Invalid namespace""#));
    assert_eq!(said("40/none?token=x", V3, Connected), say(r#"44/none,"Invalid namespace""#));
    assert_eq!(said("40/none,", V4, Opened), say(r#"44/none,{"message":"Invalid namespace"}"#));
}

#[test]
fn heartbeats_have_the_direction_of_their_version() {
    assert_eq!(said("2", V3, Connected), say("3"));
    assert_eq!(said("3", V4, Connected), SocketAct::Nothing);
    assert_eq!(said("3", V4, Opened), SocketAct::Nothing);
    assert_eq!(said("2", V4, Connected), breach(ProtocolBreach::Heartbeat));
    assert_eq!(said("3", V3, Connected), breach(ProtocolBreach::Heartbeat));
}

#[test]
fn echo_subscribes_and_unsubscribes_as_recorded() {
    let frame = r#"42["subscribe",{"channel":"presence-room.1","auth":{"headers":{"X-CSRF-TOKEN":"tok","Authorization":"Bearer abc"}}}]"#;
    let headers = vec![
        ("Authorization".to_owned(), "Bearer abc".to_owned()),
        ("X-CSRF-TOKEN".to_owned(), "tok".to_owned()),
    ];
    let kind = ChannelKind::of("presence-room.1");
    let request = SubscribeRequest { channel: "presence-room.1".to_owned(), kind, headers };
    assert_eq!(connected(frame), SocketAct::Subscribe(request));
    let out = r#"42["unsubscribe",{"channel":"private-orders.in","auth":{"headers":{}}}]"#;
    assert_eq!(connected(out), SocketAct::Unsubscribe("private-orders.in".to_owned()));
    assert_eq!(connected(&out.replace(".in", ".1")), SocketAct::Nothing);
}

#[test]
fn auth_without_headers_is_no_error() {
    for auth in
        ["", r#","auth":null"#, r#","auth":[]"#, r#","auth":{"headers":7}"#, r#","auth":{"headers":["a"]}"#]
    {
        let act = connected(&format!(r#"42["subscribe",{{"channel":"a:b"{auth}}}]"#));
        assert!(
            matches!(&act, SocketAct::Subscribe(request) if request.headers.is_empty()),
            "{auth}: {act:?}"
        );
    }
    let mixed =
        r#"42["subscribe",{"channel":"a","auth":{"headers":{"n":1,"b":true,"z":null,"o":{},"s":"é"}}}]"#;
    let SocketAct::Subscribe(request) = connected(mixed) else { panic!("{mixed}") };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(request.headers, [pair("b", "true"), pair("n", "1"), pair("s", "é")]);
}

#[test]
fn names_that_no_group_has_are_refused() {
    for (channel, status) in
        [("", 400), ("a\\nb", 400), (&*"x".repeat(201), 400), ("#server-to-user-7", 403), ("#online-7", 403)]
    {
        let act = connected(&format!(r#"42["subscribe",{{"channel":"{channel}"}}]"#));
        let SocketAct::Refuse { frame, .. } = act else { panic!("{channel}: {act:?}") };
        assert_eq!(frame, format!(r#"42["subscription_error","{channel}",{status}]"#));
    }
    for channel in ["a:b", "a b", "é☕", "laravel_database_x"] {
        let act = connected(&format!(r#"42["subscribe",{{"channel":"{channel}"}}]"#));
        assert!(matches!(act, SocketAct::Subscribe(_)), "{channel}: {act:?}");
    }
}

#[test]
fn whispers_are_of_members_of_private_channels() {
    let whisper = |channel: &str, event: &str, data: &str| {
        format!(r#"42["client event",{{"channel":"{channel}","event":"{event}","data":{data}}}]"#)
    };
    let good = whisper("presence-in", "client-typing", r#"{"who":"ann"}"#);
    let publish = |data: &str| SocketAct::Publish {
        channel: "presence-in".to_owned(),
        event: "client-typing".to_owned(),
        data: data.to_owned(),
    };
    assert_eq!(connected(&good), publish(r#"{"who":"ann"}"#));
    // Also as a text that holds the object, as laravel-echo-server takes it.
    let text = serde_json::to_string(
        &serde_json::json!({"channel":"presence-in","event":"client-typing","data":[1]}).to_string(),
    )
    .unwrap();
    assert_eq!(connected(&format!(r#"42["client event",{text}]"#)), publish("[1]"));
    assert_eq!(
        connected(r#"42["client event",{"channel":"presence-in","event":"client-typing"}]"#),
        publish("null")
    );
    for (channel, event) in [("presence-out", "client-x"), ("news-in", "client-x"), ("private-in", "x")] {
        assert_eq!(connected(&whisper(channel, event, "1")), SocketAct::Ignore(Ignored::ClientEvent));
    }
    let long = format!("\"{}\"", "x".repeat(10_240));
    assert_eq!(connected(&whisper("private-in", "client-x", &long)), SocketAct::Ignore(Ignored::TooLarge));
    let limits = PusherLimits::default();
    let rules = SocketRules { limits: &limits, client_events: false };
    let speaker = SocketSpeaker { version: V4, stage: Connected, is_in: &|_| true };
    assert_eq!(decide(&good, &rules, &speaker), SocketAct::Ignore(Ignored::ClientEvent));
}

#[test]
fn wrong_arguments_and_unknown_events_have_no_effect() {
    for argument in ["", ",null", ",7", ",[]", r#",["x"]"#, ",{}", r#",{"channel":7}"#, r#","x""#, r#","[]""#]
    {
        for event in ["subscribe", "unsubscribe", "client event"] {
            assert_eq!(
                connected(&format!(r#"42["{event}"{argument}]"#)),
                SocketAct::Ignore(Ignored::Argument)
            );
        }
    }
    assert_eq!(connected(r#"42["dance",{"channel":"x"}]"#), SocketAct::Nothing);
    assert_eq!(connected(r#"42/other,["subscribe",{"channel":"x"}]"#), SocketAct::Nothing);
    assert_eq!(connected(r#"430["yes",1]"#), SocketAct::Nothing);
    assert_eq!(connected(r#"420["ask",1]"#), SocketAct::Nothing);
    let binary = r#"451-["bin",{"_placeholder":true,"num":0}]"#;
    assert_eq!(connected(binary), SocketAct::Ignore(Ignored::Binary));
    assert_eq!(decide_binary(Connected), SocketAct::Ignore(Ignored::Binary));
}

#[test]
fn a_breach_of_the_protocol_closes() {
    for frame in ["", "x", "7", "0{}"] {
        assert_eq!(connected(frame), breach(ProtocolBreach::Engine), "{frame}");
    }
    for frame in ["4", "4x", "42", "42{}", "42[]", "42[1]", "42[\"subscribe\"", "45x"] {
        assert_eq!(connected(frame), breach(ProtocolBreach::Socket), "{frame}");
    }
    for frame in ["40[]", "40x", "40{", "40\"x\"", "407"] {
        let act = said(frame, V4, Opened);
        assert!(
            matches!(act, SocketAct::Close(ProtocolBreach::Socket)) || frame == "407",
            "{frame}: {act:?}"
        );
    }
    let event = r#"42["subscribe",{"channel":"x"}]"#;
    assert_eq!(said(event, V4, Opened), breach(ProtocolBreach::TooEarly));
    assert_eq!(said(event, V3, Probing), breach(ProtocolBreach::TooEarly));
    assert_eq!(said("40", V4, Probing), breach(ProtocolBreach::TooEarly));
    assert_eq!(said("41", V4, Opened), breach(ProtocolBreach::TooEarly));
    assert_eq!(decide_binary(Opened), breach(ProtocolBreach::TooEarly));
}

proptest! {
    #[test]
    fn no_frame_panics(
        kind in "[0-7]{0,2}",
        name in "subscribe|unsubscribe|client event|\\PC{0,5}",
        noise in "(\\{|\\}|\\[|\\]|:|,|\"|\\\\|\"channel\"|\"event\"|\"auth\"|\"headers\"|\"client-x\"|null|1e9|é| ){0,20}",
        text in "\\PC{0,30}",
    ) {
        for version in [V3, V4] {
            for stage in [Probing, Opened, Connected] {
                let _ = said(&text, version, stage);
                let _ = said(&format!("{kind}[\"{name}\",{noise}]"), version, stage);
                let _ = said(&format!("{kind}{noise}"), version, stage);
            }
        }
    }

    /// Whatever is published is JSON, and of a channel that the client is in.
    #[test]
    fn what_is_published_may_be(channel in "(private-|presence-|)[a-z]{0,3}(in)?", event in "(client-)?[a-z]{0,3}", data in "null|1|\\[\\]|\"\"|\\{\"a\":1\\}|x") {
        let frame = format!(r#"42["client event",{{"channel":"{channel}","event":"{event}","data":{data}}}]"#);
        if let SocketAct::Publish { channel, event, data } = said(&frame, V4, Connected) {
            prop_assert!(channel.ends_with("in") && channel.starts_with('p') && event.starts_with("client-"));
            prop_assert!(serde_json::from_str::<serde_json::Value>(&data).is_ok());
        }
    }
}
