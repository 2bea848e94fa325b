//! Facts for webhooks from reports of homes. Pure.

use broadgate_proto::{
    id::ClientId,
    v1::{self, command::Command, send_request::Payload},
};
use broadgate_pusher::socket_id;
use broadgate_topics::{Report, Topic};

use crate::{cluster::ChannelChange, webhooks::Fact};

pub(super) fn of(seen: &ChannelChange) -> Option<Fact> {
    match seen {
        ChannelChange::Report(topic, report, _) => of_report(topic, report),
        ChannelChange::CacheMiss(topic) => Some(Fact::CacheMiss { channel: topic.name().to_owned() }),
        ChannelChange::ClientEvent(topic, job) => match &job.command {
            Command::Send(send) => client_event(topic, send),
            _ => None,
        },
    }
}

fn of_report(topic: &Topic, report: &Report) -> Option<Fact> {
    let channel = topic.name().to_owned();
    Some(match report {
        Report::Occupied => Fact::Occupied { channel },
        Report::Vacated => Fact::Vacated { channel },
        Report::Joined(user) => Fact::MemberAdded { channel, user_id: user.to_string() },
        Report::Left(user) => Fact::MemberRemoved { channel, user_id: user.to_string() },
        Report::Count(count) if is_counted(&channel) => Fact::SubscriptionCount { channel, count: *count },
        Report::Count(_) | Report::Moved => return None,
    })
}

fn client_event(topic: &Topic, send: &v1::SendRequest) -> Option<Fact> {
    let Some(Payload::Text(data)) = &send.payload else { return None };
    let sender = send.to.as_ref()?.except.as_ref()?.clients.first()?.parse::<ClientId>().ok()?;
    Some(Fact::ClientEvent {
        channel: topic.name().to_owned(),
        event: send.event.clone(),
        data: data.clone(),
        socket_id: socket_id::text(sender),
        user_id: (!send.user_id_json.is_empty()).then(|| id_text(&send.user_id_json)),
    })
}

/// An id as text, whether it was sent as a string or a number.
fn id_text(json: &str) -> String {
    serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())
}

/// Subscribers of presence channels know each other; names with `#` belong to the server.
pub(super) fn is_counted(channel: &str) -> bool {
    !channel.starts_with('#') && !broadgate_pusher::channel::ChannelKind::of(channel).is_presence()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_become_facts() {
        let room = Topic::group("a", "presence-room");
        let fact = |report| of(&ChannelChange::Report(room.clone(), report, None));
        let channel = || "presence-room".to_owned();
        assert_eq!(fact(Report::Occupied), Some(Fact::Occupied { channel: channel() }));
        let ann = Fact::MemberAdded { channel: channel(), user_id: "ann".to_owned() };
        assert_eq!(fact(Report::Joined("ann".into())), Some(ann));
        assert!(fact(Report::Count(3)).is_none(), "presence channels are not counted");
        let plain = ChannelChange::Report(Topic::group("a", "room"), Report::Count(3), None);
        assert_eq!(of(&plain), Some(Fact::SubscriptionCount { channel: "room".to_owned(), count: 3 }));
    }

    #[test]
    fn a_client_event_names_its_sender() {
        let id = ClientId {
            incarnation: broadgate_proto::id::Incarnation::from_bits(5),
            shard: 1,
            slot: 2,
            key: 3,
        };
        let except = v1::Except { clients: vec![id.to_string()], ..v1::Except::default() };
        let send = v1::SendRequest {
            to: Some(v1::Audience { except: Some(except), ..v1::Audience::default() }),
            payload: Some(Payload::Text("[1]".to_owned())),
            event: "client-x".to_owned(),
            user_id_json: "7".to_owned(),
            ..v1::SendRequest::default()
        };
        match client_event(&Topic::group("a", "private-x"), &send) {
            Some(Fact::ClientEvent { socket_id: told, user_id, data, .. }) => {
                assert_eq!((told, user_id.as_deref(), &*data), (socket_id::text(id), Some("7"), "[1]"));
            }
            other => panic!("{other:?}"),
        }
    }
}
