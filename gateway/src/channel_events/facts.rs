//! Facts for webhooks from reports of homes. Pure.

use broadgate_pusher::socket_id;
use broadgate_topics::{Report, Topic};

use crate::{cluster::ChannelChange, command::ClientEvent, webhooks::Fact};

pub(super) fn of(seen: &ChannelChange) -> Option<Fact> {
    match seen {
        ChannelChange::Report(topic, report, _) => of_report(topic, report),
        ChannelChange::CacheMiss(topic) => Some(Fact::CacheMiss { channel: topic.name().to_owned() }),
        ChannelChange::ClientEvent(topic, job) => job.client_event().map(|event| client_event(topic, event)),
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

fn client_event(topic: &Topic, event: ClientEvent<'_>) -> Fact {
    Fact::ClientEvent {
        channel: topic.name().to_owned(),
        event: event.name.to_owned(),
        data: event.data.to_owned(),
        socket_id: socket_id::text(event.sender),
        user_id: (!event.user_id_json.is_empty()).then(|| id_text(event.user_id_json)),
    }
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
        let incarnation = broadgate_proto::id::Incarnation::from_bits(5);
        let id = broadgate_proto::id::ClientId { incarnation, shard: 1, slot: 2, key: 3 };
        let event = ClientEvent { name: "client-x", data: "[1]", sender: id, user_id_json: "7" };
        match client_event(&Topic::group("a", "private-x"), event) {
            Fact::ClientEvent { socket_id: told, user_id, data, .. } => {
                assert_eq!((told, user_id.as_deref(), &*data), (socket_id::text(id), Some("7"), "[1]"));
            }
            other => panic!("{other:?}"),
        }
    }
}
