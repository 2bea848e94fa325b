//! Queries: commands that only read.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use broadgate_proto::{
    id::{ClientId, Incarnation},
    limits, v1,
};
use broadgate_topics::{Pattern, Position, Topic, TopicPosition};
use ipnet::IpNet;
use tonic::Code;

use crate::{
    command::{
        fields::{app, audience, checked, client, clients, few, known_caller, names, page, understood},
        parsed::{CommandRefusal, EvidenceQuestion, ParsedCommand, invalid, refusal},
        top::parse_top,
    },
    events::{EventKind, EventQuestion},
    observers::{ObserverRequest, TapQuestion, TapWhose},
    recorder::{EndQuestion, EndedWhose, SendQuestion, SentWhat, SentWhose},
};

pub(super) fn parse_query(command: &v1::command::Command) -> Result<ParsedCommand, CommandRefusal> {
    use v1::command::Command as C;
    Ok(match command {
        C::Online(request) => {
            understood(&request.requires)?;
            ParsedCommand::Online {
                app: app(&request.app)?,
                clients: clients(&request.clients)?,
                uids: names("uids", &request.uids)?,
            }
        }
        C::Count(request) => {
            understood(&request.requires)?;
            let groups = names("groups", &request.groups)?;
            ParsedCommand::Count { app: app(&request.app)?, groups, uids: request.uids }
        }
        C::GetClient(request) => {
            ParsedCommand::GetClient { app: app(&request.app)?, client: client(&request.client_id)? }
        }
        C::ListClients(request) => {
            understood(&request.requires)?;
            let after = Cursor::parse(&request.cursor)?.map(|cursor| (cursor.shard, cursor.slot));
            ParsedCommand::ListClients {
                of: audience(request.of.as_ref(), "of")?,
                fields: request.fields().collect(),
                state: state(request.state)?,
                address: Some(&*request.address).filter(|text| !text.is_empty()).map(network).transpose()?,
                limit: page(request.limit)?,
                after,
            }
        }
        C::ListUids(request) => {
            understood(&request.requires)?;
            ParsedCommand::ListUids {
                app: app(&request.app)?,
                groups: names("groups", &request.groups)?,
                limit: page(request.limit)?,
                after: request.cursor.as_str().into(),
            }
        }
        C::ListGroups(request) => {
            understood(&request.requires)?;
            ParsedCommand::ListGroups {
                app: app(&request.app)?,
                prefix: request.prefix.as_str().into(),
                limit: page(request.limit)?,
                after: request.cursor.as_str().into(),
            }
        }
        C::Roster(request) => {
            understood(&request.requires)?;
            ParsedCommand::Roster {
                app: app(&request.app)?,
                group: checked("group", &request.group)?,
                limit: page(request.limit)?,
                after: request.cursor.as_str().into(),
            }
        }
        C::History(request) => history(request)?,
        C::LastValue(request) => {
            understood(&request.requires)?;
            ParsedCommand::LastValue { app: app(&request.app)?, group: checked("group", &request.group)? }
        }
        C::Status(request) => {
            let evidence = request.evidence.then(|| {
                let apps = names("apps", &request.apps)?;
                Ok::<_, CommandRefusal>(Arc::new(EvidenceQuestion { salt: request.salt, apps }))
            });
            ParsedCommand::Status { evidence: evidence.transpose()? }
        }
        C::Inspect(request) => ParsedCommand::Inspect(inspected(request)?),
        C::Ended(request) => ParsedCommand::Ended(ended(request)?),
        C::Sends(request) => ParsedCommand::Sends(sends(request)?),
        C::Events(request) => ParsedCommand::Events(events(request)?),
        C::Top(request) => ParsedCommand::Top(parse_top(request)?),
        _ => return Err(refusal(Code::Unimplemented, "this gateway does not know the command")),
    })
}

fn inspected(request: &v1::InspectRequest) -> Result<Topic, CommandRefusal> {
    use v1::inspect_request::Of;
    understood(&request.requires)?;
    let app = app(&request.app)?;
    match &request.of {
        Some(Of::Group(group)) => Ok(Topic::group(&app, &checked("group", group)?)),
        Some(Of::Uid(uid)) => Ok(Topic::uid(&app, &checked("uid", uid)?)),
        None => Err(invalid("of is missing: name a group or a uid")),
    }
}

/// A state that this gateway does not know would list too many.
fn state(number: i32) -> Result<Option<v1::ClientState>, CommandRefusal> {
    match v1::ClientState::try_from(number) {
        Ok(v1::ClientState::Unspecified) => Ok(None),
        Ok(state) => Ok(Some(state)),
        Err(_) => Err(invalid(format!("state: this gateway does not know the client state {number}"))),
    }
}

fn history(request: &v1::HistoryRequest) -> Result<ParsedCommand, CommandRefusal> {
    understood(&request.requires)?;
    Ok(ParsedCommand::History {
        app: app(&request.app)?,
        group: checked("group", &request.group)?,
        since: request.since.as_ref().map(position).transpose()?,
        limit: page(request.limit)?,
        payload: !request.without_payload,
    })
}

/// Which ends and refusals are asked for.
fn ended(request: &v1::EndedRequest) -> Result<EndQuestion, CommandRefusal> {
    use v1::ended_request::Of;
    understood(&request.requires)?;
    let whose = match &request.of {
        None => EndedWhose::All,
        Some(Of::Uid(uid)) => EndedWhose::Uid(checked("uid", uid)?),
        Some(Of::ClientId(id)) => EndedWhose::Client(client(id)?),
        Some(Of::Address(address)) => EndedWhose::Address(network(address)?),
    };
    let cause = match request.cause() {
        v1::Cause::Unspecified => None,
        cause => Some(cause),
    };
    Ok(EndQuestion {
        app: if request.app.is_empty() { None } else { Some(app(&request.app)?) },
        whose,
        since_ms: request.since_ms,
        until_ms: if request.until_ms == 0 { u64::MAX } else { request.until_ms },
        cause,
        limit: page(request.limit)?,
    })
}

/// Which sends are asked for, and what of which clients.
fn sends(request: &v1::SendsRequest) -> Result<SendQuestion, CommandRefusal> {
    use v1::sends_request::{About, Of};
    understood(&request.requires)?;
    let what = match &request.about {
        Some(About::CommandId(id)) if id.is_empty() || id.len() > limits::COMMAND_ID_BYTES_MAX => {
            let (len, max) = (id.len(), limits::COMMAND_ID_BYTES_MAX);
            return Err(invalid(format!("command_id has {len} bytes: ids have 1 to {max}")));
        }
        Some(About::CommandId(id)) => SentWhat::Command(id.as_str().into()),
        Some(About::Group(group)) => SentWhat::Group(checked("group", group)?),
        Some(About::Uid(uid)) => SentWhat::Uid(checked("uid", uid)?),
        None => return Err(invalid("about is missing: name a command_id, a group or a uid")),
    };
    let whose = match &request.of {
        None => None,
        Some(Of::OfClientId(id)) => Some(SentWhose::Client(client(id)?)),
        Some(Of::OfUid(uid)) => Some(SentWhose::Uid(checked("of_uid", uid)?)),
    };
    let asked = |what: &'static str, list: &[String]| {
        let (len, max) = (list.len(), limits::SENT_ASKED_MAX);
        if len > max {
            return Err(invalid(format!("{what} has {len} entries: at most {max} may be asked about")));
        }
        names(what, list)
    };
    Ok(SendQuestion {
        app: if request.app.is_empty() { None } else { Some(app(&request.app)?) },
        what,
        whose,
        groups: asked("in_groups", &request.in_groups)?,
        uids: asked("in_uids", &request.in_uids)?,
        since_ms: request.since_ms,
        limit: page(request.limit)?,
    })
}

/// Which events are asked for.
fn events(request: &v1::EventsRequest) -> Result<EventQuestion, CommandRefusal> {
    understood(&request.requires)?;
    few("kinds", request.kinds.len())?;
    few("after", request.after.len())?;
    let kind = |name: &String| {
        let known = EventKind::ALL.into_iter().find(|kind| kind.name() == name);
        let names = || EventKind::ALL.map(EventKind::name).join(", ");
        known.ok_or_else(|| invalid(format!("there are no events of the kind {name:?}: use {}", names())))
    };
    Ok(EventQuestion {
        since_ms: request.since_ms,
        kinds: request.kinds.iter().map(kind).collect::<Result<_, _>>()?,
        after: request.after.clone(),
        limit: page(request.limit)?,
    })
}

/// An IP address, also with a port, or a network.
fn network(text: &str) -> Result<IpNet, CommandRefusal> {
    let ip = text.parse::<IpAddr>().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    let net = ip.map(|ip| IpNet::from(ip.to_canonical())).or_else(|| text.parse().ok());
    net.ok_or_else(|| {
        invalid(format!("address is {text:?}: give an IP address, or a network such as 10.1.7.0/24"))
    })
}

/// The patterns of the groups to watch.
pub(crate) fn patterns(request: &v1::WatchGroupsRequest) -> Result<Vec<Pattern>, CommandRefusal> {
    understood(&request.requires)?;
    if request.patterns.is_empty() {
        return Err(invalid("patterns is empty: give names of groups, or prefixes with a *"));
    }
    few("patterns", request.patterns.len())?;
    let app = app(&request.app)?;
    let pattern = |text: &String| {
        if text != "*" {
            checked("patterns", text.strip_suffix('*').unwrap_or(text))?;
        }
        Ok(Pattern { app: app.to_string(), pattern: text.clone() })
    };
    request.patterns.iter().map(pattern).collect()
}

/// The parsed request of an observer of an app's Pusher clients.
pub(crate) fn observing(request: &v1::WatchPusherRequest) -> Result<ObserverRequest, CommandRefusal> {
    understood(&request.requires)?;
    let app = app(&request.app)?;
    if request.share.is_empty() {
        return Ok(ObserverRequest { app, share: None });
    }
    let share = checked("share", &request.share)?;
    let sharer = request.sharer.parse();
    let sharer =
        sharer.map_err(|error| invalid(format!("sharer must identify one of those that share: {error}")))?;
    Ok(ObserverRequest { app, share: Some((share, sharer)) })
}

/// The parsed request of a tap.
pub(crate) fn tapping(request: &v1::TapRequest) -> Result<TapQuestion, CommandRefusal> {
    use v1::tap_request::Of;
    understood(&request.requires)?;
    let whose = match &request.of {
        Some(Of::ClientId(id)) => TapWhose::Client(client(id)?),
        Some(Of::Uid(uid)) => TapWhose::Uid(checked("uid", uid)?),
        Some(Of::Group(group)) => TapWhose::Group(checked("group", group)?),
        Some(Of::WholeApp(true)) => TapWhose::App,
        Some(Of::Caller(by)) => match known_caller(by) {
            caller if caller.is_empty() => {
                return Err(invalid("caller is malformed: name one as events do, such as token:ann"));
            }
            caller => TapWhose::Caller(caller),
        },
        Some(Of::WholeApp(false)) | None => {
            return Err(invalid("of is missing: name a client, a uid or a group, or say whole_app"));
        }
    };
    let mut kinds = 0;
    for &number in &request.kinds {
        match v1::TapKind::try_from(number) {
            Ok(kind) if kind != v1::TapKind::Unspecified => kinds |= 1 << number,
            _ => {
                return Err(invalid(format!("kinds: this gateway does not know the kind of event {number}")));
            }
        }
    }
    let up_to = |what: &str, given: u32, default: u32, max: u32| match given {
        0 => Ok(default),
        given if given <= max => Ok(given),
        _ => Err(invalid(format!("{what} is {given}: {max} is the most"))),
    };
    let (most, default) = (limits::TAP_PAYLOAD_BYTES_MAX, limits::TAP_PAYLOAD_BYTES_DEFAULT);
    let payload_max = up_to("payload_bytes_max", request.payload_bytes_max, default, most)?;
    let per_second = limits::TAP_EVENTS_PER_SECOND_MAX;
    let seconds = limits::TAP_SECONDS_MAX;
    Ok(TapQuestion {
        app: app(&request.app)?,
        whose,
        kinds: if kinds == 0 { u32::MAX } else { kinds },
        payload_max: request.payload.then_some(payload_max as usize),
        per_second_max: up_to("per_second_max", request.per_second_max, per_second, per_second)?,
        seconds: up_to("seconds", request.seconds, seconds, seconds)?,
    })
}

/// A position as its readers see it: TERM.COUNT.NUMBER of the first message's place, and an offset.
fn position(given: &v1::HistoryPosition) -> Result<Position, CommandRefusal> {
    let parse = || {
        let (tenure, number) = given.epoch.rsplit_once('.')?;
        Some(TopicPosition { tenure: tenure.parse().ok()?, number: number.parse().ok()? })
    };
    let epoch = parse()
        .ok_or_else(|| invalid("since.epoch is not from a receipt or a history: read without since"))?;
    Ok(Position { epoch, offset: given.offset })
}

pub(crate) fn position_text(position: Position) -> v1::HistoryPosition {
    let TopicPosition { tenure, number } = position.epoch;
    v1::HistoryPosition { epoch: format!("{tenure}.{number}"), offset: position.offset }
}

/// Where a page of clients ended: the last client that was listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) incarnation: Incarnation,
    pub(crate) shard: u8,
    pub(crate) slot: u32,
}

impl Cursor {
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, CommandRefusal> {
        if text.is_empty() {
            return Ok(None);
        }
        let ClientId { incarnation, shard, slot, .. } = text
            .parse()
            .map_err(|_| invalid("cursor is not from this list: start again without a cursor"))?;
        Ok(Some(Self { incarnation, shard, slot }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_about_ends_are_parsed_or_refused() {
        use v1::ended_request::Of;
        let of = |of: Of| ended(&v1::EndedRequest { of: Some(of), ..v1::EndedRequest::default() });
        let net = |text: &str| match of(Of::Address(text.to_owned())) {
            Ok(EndQuestion { whose: EndedWhose::Address(net), .. }) => net.to_string(),
            Ok(other) => panic!("{other:?}"),
            Err(refused) => refused.message,
        };
        for (given, parsed) in [
            ("10.1.7.9", "10.1.7.9/32"),
            ("10.1.7.9:52000", "10.1.7.9/32"),
            ("::ffff:10.1.7.9", "10.1.7.9/32"),
            ("10.1.7.0/24", "10.1.7.0/24"),
            ("[2001:db8::1]:443", "2001:db8::1/128"),
        ] {
            assert_eq!(net(given), parsed);
        }
        for wrong in ["", "10.1.7", "gw-1", "10.1.7.0/33"] {
            assert!(net(wrong).contains("give an IP address"), "{wrong}");
        }
        assert!(of(Of::Uid(String::new())).is_err() && of(Of::ClientId("x".to_owned())).is_err());
        let everything = ended(&v1::EndedRequest::default()).unwrap();
        assert_eq!((everything.app, everything.whose), (None, EndedWhose::All));
        assert_eq!((everything.cause, everything.until_ms, everything.limit), (None, u64::MAX, 100));
        assert!(ended(&v1::EndedRequest { limit: 1001, ..v1::EndedRequest::default() }).is_err());
    }

    #[test]
    fn questions_about_sends_are_parsed_or_refused() {
        use v1::sends_request::{About, Of};
        let of = |about: About| v1::SendsRequest { about: Some(about), ..v1::SendsRequest::default() };
        let command = || of(About::CommandId("x".to_owned()));
        let parsed = sends(&command()).unwrap();
        assert_eq!((parsed.app, parsed.what, parsed.whose), (None, SentWhat::Command("x".into()), None));
        let uid = v1::SendsRequest { of: Some(Of::OfUid("42".to_owned())), ..command() };
        assert_eq!(sends(&uid).unwrap().whose, Some(SentWhose::Uid("42".into())));
        for (request, word) in [
            (v1::SendsRequest::default(), "about is missing"),
            (of(About::CommandId(String::new())), "command_id"),
            (of(About::CommandId("x".repeat(65))), "65 bytes"),
            (of(About::Group("a\nb".to_owned())), "group"),
            (v1::SendsRequest { of: Some(Of::OfClientId("x".to_owned())), ..command() }, "client"),
            (v1::SendsRequest { in_groups: vec!["g".to_owned(); 65], ..command() }, "in_groups has 65"),
            (v1::SendsRequest { limit: 1001, ..command() }, "1000"),
            (v1::SendsRequest { requires: vec!["x".to_owned()], ..command() }, "requires"),
        ] {
            let refused = sends(&request).unwrap_err().message;
            assert!(refused.contains(word), "{word}: {refused}");
        }
    }

    #[test]
    fn taps_are_parsed_or_refused() {
        use v1::tap_request::Of;
        let tap = |of: Of| v1::TapRequest { of: Some(of), ..v1::TapRequest::default() };
        let all = tapping(&tap(Of::WholeApp(true))).unwrap();
        assert_eq!((all.whose, all.kinds, all.payload_max), (TapWhose::App, u32::MAX, None));
        assert_eq!((all.per_second_max, all.seconds), (1000, 600));
        let some = v1::TapRequest {
            kinds: vec![v1::TapKind::In.into(), v1::TapKind::Closed.into()],
            payload: true,
            seconds: 5,
            ..tap(Of::Uid("42".to_owned()))
        };
        let some = tapping(&some).unwrap();
        assert_eq!((some.whose, some.kinds), (TapWhose::Uid("42".into()), 1 << 2 | 1 << 14));
        assert_eq!((some.payload_max, some.seconds), (Some(256), 5));
        let refused = |request: v1::TapRequest| tapping(&request).unwrap_err().message;
        assert!(refused(v1::TapRequest::default()).contains("whole_app"));
        let whose = tapping(&tap(Of::Caller("token:ann".to_owned()))).unwrap().whose;
        assert_eq!(whose, TapWhose::Caller("token:ann".into()));
        for caller in ["", "token:\u{7}", &"x".repeat(limits::CALLER_BYTES_MAX + 1)] {
            assert!(refused(tap(Of::Caller(caller.to_owned()))).contains("caller is malformed"));
        }
        assert!(refused(tap(Of::Uid(String::new()))).contains("uid"));
        let whole = || tap(Of::WholeApp(true));
        assert!(refused(v1::TapRequest { kinds: vec![99], ..whole() }).contains("99"));
        assert!(refused(v1::TapRequest { seconds: 601, ..whole() }).contains("600"));
        assert!(refused(v1::TapRequest { payload_bytes_max: 5000, ..whole() }).contains("4096"));
        assert!(refused(v1::TapRequest { requires: vec!["x".to_owned()], ..whole() }).contains("requires"));
    }

    fn parsed(app: &str, share: &str, sharer: &str) -> Result<ObserverRequest, String> {
        let (app, share, sharer) = (app.to_owned(), share.to_owned(), sharer.to_owned());
        let request = v1::WatchPusherRequest { app, share, sharer, ..v1::WatchPusherRequest::default() };
        observing(&request).map_err(|refused| refused.message)
    }

    #[test]
    fn observe_requests_are_parsed_or_refused() {
        assert_eq!(parsed("", "", ""), Ok(ObserverRequest { app: "default".into(), share: None }));
        let seven = Incarnation::from_bits(7);
        let shared = ObserverRequest { app: "shop".into(), share: Some(("mail".into(), seven)) };
        assert_eq!(parsed("shop", "mail", &seven.to_string()), Ok(shared));
        assert!(parsed(&"x".repeat(201), "", "").unwrap_err().contains("201 bytes"));
        assert!(parsed("shop", "a\nb", "").unwrap_err().contains("share"));
        assert!(parsed("shop", "mail", "").unwrap_err().contains("sharer"));
        let more = v1::WatchPusherRequest { requires: vec!["x".into()], ..v1::WatchPusherRequest::default() };
        assert!(observing(&more).unwrap_err().message.contains("requires"));
    }
}
