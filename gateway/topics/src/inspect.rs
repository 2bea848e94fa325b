//! Looking at a topic at its home: of constant cost, but for the gateways that have clients in it.

use std::time::Duration;

use crate::{content::Content, home::TopicHomes, inspection::TopicInspection, shared::Shared, topic::Topic};

/// Looks at a topic of this home.
pub(super) fn inspect<C: Content>(
    shared: &mut Shared<C>,
    topics: &TopicHomes,
    topic: &Topic,
) -> TopicInspection {
    let now = shared.now;
    let home = topics.get(topic);
    let age = |since: Duration| now.saturating_sub(since);
    let mut clients: Vec<_> = home.into_iter().flat_map(|home| home.clients_by_gateway()).collect();
    clients.sort_unstable();
    TopicInspection {
        epoch: shared.members.epoch,
        home: shared.me,
        next: shared.rings.heir(topic),
        since: home.map(|home| (home.tenure, age(home.since))),
        placed: home.and_then(|home| home.placed).map(|(number, since)| (number, age(since))),
        clients,
        present: home.and_then(|home| home.roster.as_ref()).map_or(0, |roster| roster.len() as u64),
        history: shared.retained.inspect(topic, now),
        last: shared.retained.value(topic, now).map(|value| (age(value.since), C::bytes(&value.command))),
        missing: shared.peers.unsynced(),
    }
}
