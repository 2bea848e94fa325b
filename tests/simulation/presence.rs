//! (8) What clients of a presence group are told of who comes and goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use broadgate_gateway::homes::Topic;
use broadgate_proto::id::Incarnation;

use super::{
    checker::Found,
    history::{ClientNo, Fact, Record},
    model::{Index, Model},
};

/// How long what a home says may be under way, if nobody sleeps.
const UNDER_WAY: Duration = Duration::from_secs(7);

#[derive(Default)]
struct Told {
    /// Who was told of; none if the gateway had no clients there meanwhile.
    users: BTreeMap<String, Option<bool>>,
    clients: BTreeSet<ClientNo>,
}

/// What each gateway has told its clients of each group in the end.
pub type Everything = BTreeMap<(Incarnation, Topic), BTreeSet<String>>;

pub fn check(history: &[Record], model: &Model, found: &mut Found) -> Everything {
    let mut told: BTreeMap<(Incarnation, Topic), Told> = BTreeMap::new();
    let mut slept = Duration::ZERO;
    let mut asleep = 0;
    for (index, record) in history.iter().enumerate() {
        if asleep > 0 {
            slept = record.now;
        }
        match &record.fact {
            Fact::Paused { .. } => asleep += 1,
            Fact::Resumed { .. } => asleep -= 1,
            Fact::In { client, topic, .. } => {
                if let Some(life) = model.clients.get(client) {
                    told.entry((life.by, topic.clone())).or_default().clients.insert(*client);
                }
            }
            Fact::Out { client, topic } => {
                let Some(life) = model.clients.get(client) else { continue };
                let one = told.entry((life.by, topic.clone())).or_default();
                one.clients.remove(client);
                if one.clients.is_empty() {
                    // It is told of everybody when somebody comes again.
                    one.users.values_mut().for_each(|known| *known = None);
                }
            }
            Fact::Present { by, topic, user, joined } => {
                let one = told.entry((*by, topic.clone())).or_default();
                // Its last client there has gone and the core does not know yet: nobody hears it.
                let heard = (!one.clients.is_empty()).then_some(*joined);
                let former = one.users.insert(user.clone(), heard);
                let first = former.is_none() && heard.is_some();
                if former == Some(Some(*joined)) || first && !joined {
                    let word = if *joined { "joined" } else { "left" };
                    found.add(8, format!("{by} is told twice that {user} {word} {topic:?}"));
                }
                if !joined && record.now > slept + 2 * UNDER_WAY && asleep == 0 {
                    still_there(history, model, index, *by, topic, user, found);
                }
            }
            _ => {}
        }
    }
    let there = told.into_iter().filter(|(_, told)| !told.clients.is_empty());
    let present = |told: Told| told.users.into_iter().filter(|(_, joined)| *joined == Some(true));
    there.map(|(key, told)| (key, present(told).map(|(user, _)| user).collect())).collect()
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
            found.add(
                8,
                format!("{by} is told that {user} left {topic:?}, but client {} is there", span.client),
            );
        }
    }
}
