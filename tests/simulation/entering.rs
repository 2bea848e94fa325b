//! (14) A client that enters a group gets the roster exactly as its gateway's clients know it so far:
//! later changes fit to it. And it gets one at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use broadgate_proto::id::Incarnation;
use broadgate_topics::{Entered, Input, Ticket, Topic};

use super::{
    checker::Found,
    history::{Fact, Record, Sim},
    world::World,
};

impl World {
    /// A shard has said that a client is there.
    pub fn enters(&mut self, host: usize, topic: Topic, user: Option<Arc<str>>) {
        let Some(gateway) = self.gateway(host) else { return };
        gateway.entered += 1;
        let (by, ticket) = (gateway.me, gateway.entered);
        self.note(Fact::Entering { by, ticket });
        self.input(host, Input::Enter { ticket, topic, user });
    }

    pub fn entered(&mut self, by: Incarnation, ticket: Ticket, topic: Topic, entered: &Entered<Sim>) {
        if entered.refused.is_some() {
            // Its client has left again: without a limit nobody is refused.
            return self.note(Fact::NotEntered { by, ticket });
        }
        let users = entered.members.iter().map(|(user, _)| user.to_string()).collect();
        self.note(Fact::Entered { by, ticket, topic, users });
    }
}

pub fn check(history: &[Record], found: &mut Found) {
    let mut waiting = BTreeSet::new();
    let mut told: BTreeMap<(Incarnation, &Topic), BTreeSet<&str>> = BTreeMap::new();
    for record in history {
        match &record.fact {
            Fact::Ended { by } => waiting.retain(|(gateway, _)| gateway != by),
            Fact::Emptied { by, topic } => drop(told.remove(&(*by, topic))),
            Fact::Present { by, topic, user, joined } => {
                let users = told.entry((*by, topic)).or_default();
                if *joined {
                    users.insert(user)
                } else {
                    users.remove(&**user)
                };
            }
            Fact::Entering { by, ticket } => drop(waiting.insert((*by, *ticket))),
            Fact::NotEntered { by, ticket } => drop(waiting.remove(&(*by, *ticket))),
            Fact::Entered { by, ticket, topic, users } => {
                if !waiting.remove(&(*by, *ticket)) {
                    found.add(14, format!("{by} tells number {ticket} in {topic:?} twice"));
                }
                let so_far = told.get(&(*by, topic)).cloned().unwrap_or_default();
                if !users.iter().map(String::as_str).eq(so_far.iter().copied()) {
                    found.add(14, format!("{by} tells of {users:?} in {topic:?}, after {so_far:?}"));
                }
            }
            _ => {}
        }
    }
    for (by, ticket) in waiting {
        found.add(14, format!("{by} never tells number {ticket} who is present"));
    }
}
