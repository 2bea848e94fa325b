//! (7) When faults have stopped, everything agrees.

use super::{
    caller::LAST,
    checker::Found,
    history::{CmdNo, Fact, Outcome, Record, Wish},
    model::{Command, Index, Model, NEVER, Span},
    presence::Everything,
};

pub fn check(history: &[Record], model: &Model, found: &mut Found) {
    for record in history {
        if let Fact::ResetPeer { by, peer, why } = &record.fact
            && *why != broadgate_topics::VIEWS_MISSED
        {
            found.add(7, format!("{by} resets {peer}: {why}"));
        }
    }
    let Some(quiet) = model.quiet else { return };
    let Fact::Quiet { gateways } = &history[quiet].fact else { return };
    for (gateway, epoch, load) in gateways {
        if *epoch != gateways[0].1 {
            found.add(7, format!("{gateway} has view {epoch}, {} has {}", gateways[0].0, gateways[0].1));
        }
        if load.parked + load.unsynced + load.deliveries > 0 {
            found.add(7, format!("{gateway} is not at rest: {load:?}"));
        }
    }
    for (no, command) in model.commands.range(LAST..) {
        let Some((answered, outcome)) = command.answers.first() else {
            found.add(7, format!("{no}: {:?} is not answered in the end", command.wish));
            continue;
        };
        if outcome.complete() {
            agrees(model, *no, command, quiet, *answered, outcome, found);
        } else {
            found.add(7, format!("{no}: {:?} in the end: {outcome:?}", command.wish));
        }
    }
}

fn agrees(
    model: &Model,
    no: CmdNo,
    command: &Command,
    quiet: Index,
    answered: Index,
    outcome: &Outcome,
    found: &mut Found,
) {
    match (&command.wish, outcome) {
        (Wish::Count(topic), Outcome::Counted { clients, .. }) => {
            let least = model.members(topic, quiet, answered).len() as u64;
            let most = model.visitors(topic, quiet, answered).len() as u64;
            if !(least..=most).contains(clients) {
                found
                    .add(7, format!("{no}: {clients} clients of {topic:?}, but there are {least} to {most}"));
            }
        }
        (Wish::Roster(topic), Outcome::Roster { users, .. }) => {
            let users = users.iter().cloned().collect();
            let least = model.users(topic, quiet, answered, true);
            let most = model.users(topic, quiet, answered, false);
            if !least.is_subset(&users) || !users.is_subset(&most) {
                found.add(7, format!("{no}: the roster of {topic:?} is {users:?}, but {most:?} are there"));
            }
        }
        (Wish::Send(topics), Outcome::Receipt { .. }) => {
            for client in model.members(&topics[0], command.made, answered) {
                let slow = model.clients.get(&client).is_some_and(|life| life.slow < answered);
                let has = model.gots.get(&client).into_iter().flatten().any(|got| got.cmd == no);
                if !slow && !has {
                    found.add(7, format!("{no}: client {client} of {topics:?} did not get the last message"));
                }
            }
        }
        _ => {}
    }
}

/// What clients were told of who is present is who is present.
pub fn everybody_knows(model: &Model, told: &Everything, found: &mut Found) {
    let Some(quiet) = model.quiet else { return };
    for ((gateway, topic), users) in told {
        let here = |span: &&Span| {
            let life = model.clients.get(&span.client);
            span.to == NEVER && span.from < quiet && life.is_some_and(|life| life.by == *gateway)
        };
        if !model.spans.get(topic).into_iter().flatten().any(|span| here(&span)) {
            continue;
        }
        let least = model.users(topic, quiet, NEVER - 1, true);
        let most = model.users(topic, quiet, NEVER, false);
        if !least.is_subset(users) || !users.is_subset(&most) {
            found.add(7, format!("{gateway} knows {users:?} in {topic:?}, but {most:?} are there"));
        }
    }
}
