//! (8) Joins and leaves as clients of a presence group see them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use broadgate_proto::id::Incarnation;
use broadgate_topics::Topic;

use super::{
    checker::Found,
    history::{Fact, Record},
    model::{Index, Model},
};

/// How long what a home says may be under way, if nobody sleeps.
const UNDER_WAY: Duration = Duration::from_secs(7);

/// What each gateway has told its clients of each group in the end.
pub type Everything = BTreeMap<(Incarnation, Topic), BTreeSet<String>>;

pub fn check(history: &[Record], model: &Model, found: &mut Found) -> Everything {
    let mut told: BTreeMap<(Incarnation, Topic), BTreeMap<String, bool>> = BTreeMap::new();
    let mut slept = Duration::ZERO;
    let mut asleep: BTreeSet<Incarnation> = BTreeSet::new();
    for (index, record) in history.iter().enumerate() {
        if !asleep.is_empty() {
            slept = record.now;
        }
        match &record.fact {
            Fact::Paused { by } => drop(asleep.insert(*by)),
            Fact::Resumed { by } | Fact::Ended { by } => drop(asleep.remove(by)),
            // The next client there gets the whole roster.
            Fact::Emptied { by, topic } => drop(told.remove(&(*by, topic.clone()))),
            Fact::Present { by, topic, user, joined } => {
                let users = told.entry((*by, topic.clone())).or_default();
                if users.insert(user.clone(), *joined).unwrap_or(false) == *joined {
                    let word = if *joined { "joined" } else { "left" };
                    found.add(8, format!("{by} learns out of turn that {user} {word} {topic:?}"));
                }
                if !joined && record.now > slept + 2 * UNDER_WAY && asleep.is_empty() {
                    still_there(history, model, index, *by, topic, user, found);
                }
            }
            _ => {}
        }
    }
    let present = |users: BTreeMap<String, bool>| users.into_iter().filter(|(_, joined)| *joined);
    told.into_iter().map(|(key, users)| (key, present(users).map(|(user, _)| user).collect())).collect()
}

/// Nobody is said to have left who had a client there throughout.
fn still_there(
    history: &[Record],
    model: &Model,
    index: Index,
    by: Incarnation,
    topic: &Topic,
    user: &str,
    found: &mut Found,
) {
    let now = history[index].now;
    let spans = model.spans.get(topic).into_iter().flatten();
    for span in spans.filter(|span| span.user.as_deref() == Some(user) && span.to > index) {
        let known = model.joined.get(topic).into_iter().flatten();
        let long = known.filter(|known| known.client == span.client && known.index > span.from);
        let mut long = long.filter(|known| history[known.index].now + UNDER_WAY < now);
        if long.next().is_some() && !model.is_removed(span.client, index) {
            found
                .add(8, format!("{by} sees that {user} left {topic:?}, but client {} is there", span.client));
        }
    }
}
