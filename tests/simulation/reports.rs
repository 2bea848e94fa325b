//! (13) What gateways report of groups reaches a receiver, late; who dies takes what is on its way along.
//! In a calm life, in which one thing goes wrong at a time, the receiver believes in the end what is so.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use broadgate_proto::id::Incarnation;
use broadgate_topics::{Input, Pattern, Report, ReportSubscription, Topic};

use super::{
    checker::Found,
    history::{Fact, Record},
    model::{Model, NEVER},
    rng::Rng,
    world::{Event, World},
};

/// From a report to the receiver.
const LATE_MILLIS: u64 = 2500;

/// Every gateway reports of every group.
pub fn about_everything() -> Input<super::history::Sim> {
    let pattern = Pattern { app: super::script::APP.to_owned(), pattern: "*".to_owned() };
    Input::Report(vec![ReportSubscription { pattern, inherited: true }])
}

impl World {
    pub fn reports(&mut self, host: usize, by: Incarnation, topic: Topic, report: Report, awaited: bool) {
        let (now, seed, life) = (self.now, self.seed, self.life_of(host));
        let Some(gateway) = self.gateway(host) else { return };
        gateway.reported += 1;
        let mut rng = Rng::of(&[seed, 10, by.bits(), gateway.reported]);
        // What is reported of a group comes in its order.
        let last = gateway.on_the_way.entry(topic.clone()).or_default();
        *last = (*last).max(now + Duration::from_millis(rng.between(1, LATE_MILLIS)));
        let at = *last;
        if let Some(life) = life {
            self.at(at, Event::Reported { host, life, topic, report, awaited });
        }
    }

    pub fn reported(&mut self, host: usize, life: u64, topic: Topic, report: Report, awaited: bool) {
        if self.life_of(host) != Some(life) {
            return;
        }
        self.note(Fact::Reported { topic: topic.clone(), report: report.clone() });
        if awaited {
            self.input(host, Input::Arrived(topic, report));
        }
    }
}

pub fn check(history: &[Record], model: &Model, found: &mut Found) {
    let mut believed: BTreeMap<&Topic, (bool, BTreeSet<String>)> = BTreeMap::new();
    for record in history {
        let Fact::Reported { topic, report } = &record.fact else { continue };
        let (occupied, users) = believed.entry(topic).or_default();
        match report {
            Report::Occupied => *occupied = true,
            Report::Vacated => *occupied = false,
            Report::Joined(user) => drop(users.insert(user.to_string())),
            Report::Left(user) => drop(users.remove(&**user)),
            Report::Count(_) | Report::Moved => {}
        }
    }
    let all: BTreeSet<&Topic> = believed.keys().copied().chain(model.spans.keys()).collect();
    for topic in all.into_iter().filter(|topic| topic.key().starts_with(b"g")) {
        let clients = model.members(topic, NEVER - 1, NEVER - 1);
        let users = model.users(topic, NEVER - 1, NEVER - 1, true);
        let told = believed.remove(topic).unwrap_or_default();
        if told != (!clients.is_empty(), users.clone()) {
            let text = format!("{told:?} was reported of {topic:?}, but {clients:?} as {users:?} are there");
            found.add(13, text);
        }
    }
}
