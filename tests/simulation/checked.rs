//! The checker is checked: what is injected into a good history is reported. And a seed is a seed.

use std::collections::BTreeSet;

use broadgate_topics::{TopicKind, TopicPosition};

use super::{
    bugs::Bug,
    checker,
    history::{ClientNo, Fact, History, Outcome},
    model::Model,
    script::Script,
    traced,
    world::Trace,
};

/// A seed with faults, views and repeats that all hold.
const GOOD: u64 = 5;

/// What must hold, and whether it does.
type Test = (&'static str, fn() -> bool);

/// Runs all; prints what does not hold.
pub fn all() -> bool {
    let tests: [Test; 9] = [
        ("a drop is reported", || reported(&[5], drop_one)),
        ("a duplicate is reported", || reported(&[4], duplicate_one)),
        ("a swap is reported", || reported(&[2, 3, 10], swap_two)),
        ("a ghost is reported", || reported(&[6], ghost)),
        ("a ghost on a roster is reported", || reported(&[6, 7], roster_ghost)),
        ("a dead gateway's message is reported", || reported(&[9], dead_message)),
        ("a second joined is reported", || reported(&[8], joined_twice)),
        ("a gap at an entrance is reported", || reported(&[14], entered_early)),
        ("a seed run twice gives the same trace", same_trace),
    ];
    let mut good = true;
    for (name, test) in tests {
        let held = test();
        good &= held;
        println!("{} {name}", if held { "ok    " } else { "FAILED" });
    }
    good
}

/// One of these rules is broken, as it was not before.
fn reported(rules: &[u32], inject: fn(&mut History) -> Option<()>) -> bool {
    let mut history = super::run(&Script::of(GOOD), None).history;
    if !checker::check(&history, false, false).0.is_empty() || inject(&mut history).is_none() {
        return false;
    }
    let violations = checker::check(&history, false, false).0;
    violations.iter().any(|violation| rules.contains(&violation.rule))
}

/// A message that one must have, by a complete receipt.
fn must_have(history: &History) -> Option<(ClientNo, u64)> {
    let model = Model::of(history);
    model.commands.iter().find_map(|(no, command)| {
        let (answered, _) = command.answers.iter().find(|(_, outcome)| outcome.complete())?;
        let topic = command.topics().first()?;
        let mut stays = model.known_stays(topic, command.made, command.carried, *answered);
        let span =
            stays.find(|span| model.clients.get(&span.client).is_some_and(|life| life.slow > *answered))?;
        Some((span.client, *no))
    })
}

fn drop_one(history: &mut History) -> Option<()> {
    let (who, what) = must_have(history)?;
    history.retain(
        |record| !matches!(record.fact, Fact::Got { client, cmd, .. } if (client, cmd) == (who, what)),
    );
    Some(())
}

fn duplicate_one(history: &mut History) -> Option<()> {
    let at = history.iter().rposition(|record| matches!(record.fact, Fact::Got { .. }))?;
    let again = history[at].clone();
    history.push(again);
    Some(())
}

/// Two messages of one topic that somebody else has got too.
fn swap_two(history: &mut History) -> Option<()> {
    let model = Model::of(history);
    for gots in model.gots.values() {
        for pair in gots.windows(2) {
            let single = |no| model.commands.get(no).is_some_and(|command| !command.is_repeat());
            let apart = pair.iter().all(|got| got.at.is_some() && single(&got.cmd));
            if apart && pair[0].topic == pair[1].topic {
                let (one, other) = (history[pair[0].index].fact.clone(), history[pair[1].index].fact.clone());
                history[pair[0].index].fact = other;
                history[pair[1].index].fact = one;
                return Some(());
            }
        }
    }
    None
}

/// Somebody gets what was sent to a group in which it never was.
fn ghost(history: &mut History) -> Option<()> {
    let model = Model::of(history);
    let everybody: BTreeSet<ClientNo> = model.clients.keys().copied().collect();
    for at in (0..history.len()).rev() {
        let Fact::Got { topic, at: place, cmd, .. } = history[at].fact.clone() else { continue };
        let was = |client: &ClientNo| {
            model.spans.get(&topic).is_some_and(|s| s.iter().any(|s| s.client == *client))
        };
        if topic.kind() == TopicKind::Group
            && model.commands.get(&cmd).is_some_and(|command| command.topics().len() == 1)
            && let Some(client) = everybody.iter().copied().find(|client| !was(client))
        {
            let mut record = history[at].clone();
            record.fact = Fact::Got { client, topic, at: place, cmd };
            history.insert(at + 1, record);
            return Some(());
        }
    }
    None
}

fn roster_ghost(history: &mut History) -> Option<()> {
    let last = history.iter_mut().rev().find_map(|record| match &mut record.fact {
        Fact::Answered { outcome: Outcome::Roster { users, complete: true, .. }, .. } => Some(users),
        _ => None,
    })?;
    last.push("ghost".to_owned());
    Some(())
}

fn dead_message(history: &mut History) -> Option<()> {
    let model = Model::of(history);
    let (dead, removed) = model.removed.first_key_value()?;
    let Fact::Installed { by, .. } = history[*removed].fact.clone() else { return None };
    let Fact::Placing { topic, cmd, .. } =
        history.iter().find(|record| matches!(record.fact, Fact::Placing { .. }))?.fact.clone()
    else {
        return None;
    };
    let mut record = history[*removed].clone();
    record.fact = Fact::Placing { by, from: *dead, topic, at: TopicPosition::default(), cmd };
    history.insert(removed + 1, record);
    Some(())
}

fn joined_twice(history: &mut History) -> Option<()> {
    let at = history.iter().position(|record| matches!(record.fact, Fact::Present { joined: true, .. }))?;
    let again = history[at].clone();
    history.insert(at + 1, again);
    Some(())
}

fn entered_early(history: &mut History) -> Option<()> {
    let users = history.iter_mut().rev().find_map(|record| match &mut record.fact {
        Fact::Entered { users, .. } if !users.is_empty() => Some(users),
        _ => None,
    })?;
    users.pop_first().map(drop)
}

fn same_trace() -> bool {
    let hash = |seed, bug| traced(&Script::of(seed), bug, Trace { on: true, ..Trace::default() }).1;
    let seeds = [GOOD, GOOD + 1, GOOD + 2, GOOD + 3];
    let same = |seed: &u64| hash(*seed, None) == hash(*seed, None);
    let wishes = seeds.iter().all(same) && hash(GOOD, None) != hash(GOOD + 1, None);
    wishes && hash(GOOD, Some(Bug::NoParking)) == hash(GOOD, Some(Bug::NoParking))
}
