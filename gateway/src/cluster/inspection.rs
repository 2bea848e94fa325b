//! Encoding of how a topic stands in the contract's messages. Between gateways, incarnations are named.

use std::time::Duration;

use broadgate_proto::{id::Incarnation, v1};
use broadgate_topics::{HistoryInspection, TopicInspection, TopicPosition};

use crate::cluster::{
    coding::{DecodeError, Readable},
    parcel::age_ms,
};

/// As the contract has it, with these names of gateways.
pub(crate) fn encode_inspection(
    state: &TopicInspection,
    name: impl Fn(Incarnation) -> String,
) -> v1::InspectReply {
    let tenure = state.since.map(|(tenure, _)| tenure);
    let position = state.placed.zip(tenure).map(|((number, _), tenure)| TopicPosition { tenure, number });
    v1::InspectReply {
        coverage: Some(v1::Coverage {
            epoch: Some(state.epoch),
            complete: state.missing.is_empty(),
            missing: state.missing.iter().map(|gateway| name(*gateway)).collect(),
        }),
        home: name(state.home),
        next_home: state.next.map(&name).unwrap_or_default(),
        since: tenure,
        since_ms: state.since.map_or(0, |(_, age)| age_ms(age)),
        position: position.map(|at| format!("{}/{}", at.tenure, at.number)).unwrap_or_default(),
        position_age_ms: state.placed.map_or(0, |(_, age)| age_ms(age)),
        clients: state
            .clients
            .iter()
            .map(|(gateway, clients)| v1::TopicClients { gateway: name(*gateway), clients: *clients })
            .collect(),
        present: state.present,
        history: state.history.map(|history| v1::TopicHistory {
            messages: history.messages.0 as u64,
            messages_max: history.messages.1 as u64,
            oldest: history.offsets.0,
            newest: history.offsets.1,
            oldest_age_ms: age_ms(history.age.0),
            age_max_ms: age_ms(history.age.1),
            bytes: history.bytes as u64,
        }),
        last: state.last.map(|(age, bytes)| v1::TopicValue { age_ms: age_ms(age), bytes: bytes as u64 }),
    }
}

pub(super) fn decode_inspection(reply: v1::InspectReply) -> Readable<TopicInspection> {
    let unreadable = || DecodeError::Other("inspection");
    let incarnation = |text: &str| text.parse::<Incarnation>().map_err(|_| unreadable());
    let coverage = reply.coverage.unwrap_or_default();
    let number = reply.position.rsplit_once('/').map(|(_, number)| number.parse().map_err(|_| unreadable()));
    let size = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    let age = Duration::from_millis;
    Ok(TopicInspection {
        epoch: coverage.epoch.unwrap_or_default(),
        home: incarnation(&reply.home)?,
        next: reply.next_home.parse().ok(),
        since: reply.since.map(|tenure| (tenure, age(reply.since_ms))),
        placed: number.transpose()?.map(|number| (number, age(reply.position_age_ms))),
        clients: reply
            .clients
            .iter()
            .map(|one| Ok((incarnation(&one.gateway)?, one.clients)))
            .collect::<Readable<_>>()?,
        present: reply.present,
        history: reply.history.map(|history| HistoryInspection {
            messages: (size(history.messages), size(history.messages_max)),
            offsets: (history.oldest, history.newest),
            age: (age(history.oldest_age_ms), age(history.age_max_ms)),
            bytes: size(history.bytes),
        }),
        last: reply.last.map(|last| (age(last.age_ms), size(last.bytes))),
        missing: coverage.missing.iter().filter_map(|text| text.parse().ok()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use broadgate_proto::v1::Epoch;

    use super::*;

    #[test]
    fn what_a_home_knows_travels_unchanged() {
        let gateway = Incarnation::from_bits;
        let state = TopicInspection {
            epoch: Epoch::new(7, 38),
            home: gateway(1),
            next: Some(gateway(2)),
            since: Some((Epoch::new(7, 30), Duration::from_secs(660))),
            placed: Some((90_214, Duration::from_millis(1200))),
            clients: vec![(gateway(1), 8790), (gateway(2), 391)],
            present: 3,
            history: Some(HistoryInspection {
                messages: (100, 100),
                offsets: (4913, 5012),
                age: (Duration::from_secs(299), Duration::from_secs(300)),
                bytes: 21_504,
            }),
            last: Some((Duration::from_secs(1), 212)),
            missing: vec![gateway(3)],
        };
        let text = |gateway: Incarnation| gateway.to_string();
        let reply = encode_inspection(&state, text);
        assert_eq!(reply.position, "7.30/90214");
        assert_eq!(decode_inspection(reply).unwrap(), state);
        let nothing = TopicInspection {
            next: None,
            since: None,
            placed: None,
            clients: Vec::new(),
            history: None,
            last: None,
            ..state
        };
        let reply = encode_inspection(&nothing, text);
        assert_eq!((&*reply.position, &*reply.next_home), ("", ""));
        assert_eq!(decode_inspection(reply).unwrap(), nothing);
        assert!(decode_inspection(v1::InspectReply::default()).is_err());
    }
}
