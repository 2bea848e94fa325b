//! Queries: commands that only read.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use broadgate_proto::{
    id::{ClientId, Incarnation},
    v1,
};
use broadgate_topics::{Pattern, Position, TopicPosition};
use ipnet::IpNet;
use tonic::Code;

use crate::{
    command::{
        fields::{app, audience, checked, client, clients, few, names, page, understood},
        parsed::{CommandRefusal, EvidenceQuestion, ParsedCommand, invalid, refusal},
    },
    observers::ObserverRequest,
    recorder::{EndQuestion, EndedWhose},
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
        C::History(request) => {
            understood(&request.requires)?;
            ParsedCommand::History {
                app: app(&request.app)?,
                group: checked("group", &request.group)?,
                since: request.since.as_ref().map(position).transpose()?,
                limit: page(request.limit)?,
            }
        }
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
        C::Ended(request) => ParsedCommand::Ended(ended(request)?),
        _ => return Err(refusal(Code::Unimplemented, "this gateway does not know the command")),
    })
}

/// A state that this gateway does not know would list too many.
fn state(number: i32) -> Result<Option<v1::ClientState>, CommandRefusal> {
    match v1::ClientState::try_from(number) {
        Ok(v1::ClientState::Unspecified) => Ok(None),
        Ok(state) => Ok(Some(state)),
        Err(_) => Err(invalid(format!("state: this gateway does not know the client state {number}"))),
    }
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
