//! What must hold, read from a history. The numbers are those of the promise's list.

use std::collections::{BTreeMap, BTreeSet};

use broadgate_proto::{id::Incarnation, v1::Epoch};
use broadgate_topics::Topic;

use super::{
    chain, convergence, entering, halves,
    history::{ClientNo, CmdNo, Fact, Outcome, Record, Wish},
    model::{ClientLife, Command, Got, Index, Model, NEVER},
    presence, reports,
};

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub rule: u32,
    pub text: String,
}

/// What a run amounted to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    pub sends: u64,
    pub complete: u64,
    pub incomplete: u64,
    pub refused: u64,
    pub repeats: u64,
    pub got: u64,
    pub views: u64,
    /// Views that were skipped, and among them those of members that had lost no stream.
    pub gaps: u64,
    pub gaps_unexplained: u64,
}

/// Everything that is wrong with a history; more must hold in a calm life.
pub fn check(history: &[Record], calm: bool, rolling: bool) -> (Vec<Violation>, Tally) {
    let model = Model::of(history);
    let mut found = Found::default();
    let mut tally = tally(history, &model);
    views(history, &mut tally, &mut found);
    for (client, gots) in &model.gots {
        rises(&model, *client, gots, &mut found);
        once(*client, gots, &mut found);
        callers_order(&model, *client, gots, &mut found);
    }
    one_order(&model, &mut found);
    for (no, command) in &model.commands {
        receipts(&model, *no, command, &mut found);
        counts(&model, *no, command, &mut found);
        ghosts(&model, *no, command, &mut found);
    }
    let told = presence::check(history, &model, &mut found);
    entering::check(history, &mut found);
    halves::check(history, &mut found);
    chain::check(history, &mut found);
    fences(history, &mut found);
    closes(&model, &mut found);
    put_out(history, &mut found);
    convergence::check(history, &model, &mut found);
    convergence::everybody_knows(&model, &told, &mut found);
    if rolling {
        completeness(&model, &mut found);
    }
    if calm {
        reports::check(history, &model, &mut found);
    }
    (found.0, tally)
}

/// Violations, one of a kind is enough to read.
#[derive(Debug, Default)]
pub struct Found(Vec<Violation>);

impl Found {
    pub fn add(&mut self, rule: u32, text: String) {
        if self.0.len() < 20 {
            self.0.push(Violation { rule, text });
        }
    }
}

fn tally(history: &[Record], model: &Model) -> Tally {
    let got = history.iter().filter(|record| matches!(record.fact, Fact::Got { .. })).count() as u64;
    let mut tally = Tally { got, ..Tally::default() };
    for command in model.commands.values().filter(|command| matches!(command.wish, Wish::Send(_))) {
        tally.sends += 1;
        tally.repeats += u64::from(command.attempts > 1);
        match command.answers.last() {
            Some((_, outcome)) if outcome.complete() => tally.complete += 1,
            Some((_, Outcome::Receipt { .. })) => tally.incomplete += 1,
            _ => tally.refused += 1,
        }
    }
    tally
}

/// (1) Views have one content and rise; none is skipped while a member hears its register.
fn views(history: &[Record], tally: &mut Tally, found: &mut Found) {
    let mut content: BTreeMap<Epoch, (&Vec<Incarnation>, BTreeSet<Incarnation>)> = BTreeMap::new();
    let mut last: BTreeMap<Incarnation, (Epoch, u32)> = BTreeMap::new();
    for record in history {
        if let Fact::Ended { by } = &record.fact {
            // Where nobody is left who knew it, the register starts from scratch.
            content.retain(|_, (_, who)| !who.remove(by) || !who.is_empty());
        }
        let Fact::Installed { by, epoch, before, gateways, streams_lost } = &record.fact else { continue };
        tally.views += 1;
        let (known, who) = content.entry(*epoch).or_insert((gateways, BTreeSet::new()));
        who.insert(*by);
        if *known != gateways {
            found.add(1, format!("view {epoch} has two contents"));
        }
        if let Some((former, lost)) = last.insert(*by, (*epoch, *streams_lost)) {
            if former >= *epoch {
                found.add(1, format!("{by} installs {epoch} after {former}"));
            }
            if *before != former {
                tally.gaps += 1;
                tally.gaps_unexplained += u64::from(lost == *streams_lost);
            }
        }
    }
}

/// (12) While nobody sleeps or is cut off, nobody living is removed, whatever happens to registers.
fn put_out(history: &[Record], found: &mut Found) {
    for record in history {
        if let Fact::PutOut { by } = &record.fact {
            found.add(12, format!("{by} is put out of the view although nobody slept or was cut off"));
        }
    }
}

/// (2) A topic's messages rise at each client, repeats aside.
fn rises(model: &Model, client: ClientNo, gots: &[Got], found: &mut Found) {
    let mut last = BTreeMap::new();
    for got in gots {
        let repeat = model.commands.get(&got.cmd).is_none_or(Command::is_repeat);
        if let Some(at) = got.at.filter(|_| !repeat)
            && let Some((former, cmd)) = last.insert(&got.topic, (at, got.cmd))
            && former >= at
        {
            found.add(
                2,
                format!(
                    "client {client} got {at:?} ({}) after {former:?} ({cmd}) of {:?}",
                    got.cmd, got.topic
                ),
            );
        }
    }
}

/// (4) No message twice.
fn once(client: ClientNo, gots: &[Got], found: &mut Found) {
    let mut seen = BTreeSet::new();
    for got in gots {
        if !seen.insert(got.cmd) {
            found.add(4, format!("client {client} got {} twice", got.cmd));
        }
    }
}

/// (10) What one caller sent to one topic comes in the order in which it was made. It can wait for what
/// is answered before it goes to another gateway, but not for what it fired.
fn callers_order(model: &Model, client: ClientNo, gots: &[Got], found: &mut Found) {
    let mut last: BTreeMap<(usize, &Topic, Option<usize>), (Index, CmdNo)> = BTreeMap::new();
    for got in gots.iter().filter(|got| got.at.is_some()) {
        let Some(command) = model.commands.get(&got.cmd).filter(|command| !command.is_repeat()) else {
            continue;
        };
        let ordered =
            |(_, outcome): &(Index, Outcome)| matches!(outcome, Outcome::Receipt { ordered: true, .. });
        let fired = matches!(command.wish, Wish::Fire(_));
        let answered = command.answers.iter().any(ordered);
        let Some(topic) = command.topic().filter(|_| answered || fired) else { continue };
        for via in [Some(command.via), None].into_iter().filter(|via| via.is_some() || !fired) {
            if let Some((former, cmd)) = last.insert((command.caller, topic, via), (command.made, got.cmd))
                && former > command.made
            {
                found.add(
                    10,
                    format!("client {client} got {} after {cmd}, which its caller sent later", got.cmd),
                );
            }
        }
    }
}

/// (3) Any two clients agree on the order of a topic's messages, repeats aside.
fn one_order(model: &Model, found: &mut Found) {
    let mut topics: BTreeMap<&Topic, Vec<(ClientNo, Vec<CmdNo>)>> = BTreeMap::new();
    for (client, gots) in &model.gots {
        let mut mine: BTreeMap<&Topic, Vec<CmdNo>> = BTreeMap::new();
        for got in gots.iter().filter(|got| got.at.is_some()) {
            if model.commands.get(&got.cmd).is_some_and(|command| !command.is_repeat()) {
                mine.entry(&got.topic).or_default().push(got.cmd);
            }
        }
        for (topic, cmds) in mine {
            topics.entry(topic).or_default().push((*client, cmds));
        }
    }
    for (topic, orders) in topics {
        for (number, (client, order)) in orders.iter().enumerate() {
            let place: BTreeMap<CmdNo, usize> =
                order.iter().enumerate().map(|(at, cmd)| (*cmd, at)).collect();
            for (other, theirs) in &orders[number + 1..] {
                let places: Vec<usize> = theirs.iter().filter_map(|cmd| place.get(cmd).copied()).collect();
                if places.windows(2).any(|pair| pair[0] > pair[1]) {
                    found.add(3, format!("clients {client} and {other} disagree on the order of {topic:?}"));
                }
            }
        }
    }
}

/// (5) Who must have it has it when a complete receipt says so; and the receipt counts right.
fn receipts(model: &Model, no: CmdNo, command: &Command, found: &mut Found) {
    for (answered, outcome) in &command.answers {
        let Outcome::Receipt { complete: true, receipt, .. } = outcome else { continue };
        for topic in command.topics() {
            for span in model.known_stays(topic, command.made, command.carried, *answered) {
                let slow = model.clients.get(&span.client).is_some_and(|life| life.slow < *answered);
                let gots = model.gots.get(&span.client).into_iter().flatten();
                let has = gots.clone().any(|got| got.cmd == no && got.index < *answered);
                if !has && !slow {
                    found.add(
                        5,
                        format!("{no} to {topic:?} is complete, but client {} has not got it", span.client),
                    );
                }
            }
        }
        let got = |got: &&Got| got.cmd == no && got.index < *answered;
        let clients = model.gots.values().flatten().filter(got).count();
        if !command.topics().is_empty() && !command.is_repeat() && clients < receipt.clients as usize {
            found.add(
                5,
                format!("{no}: the receipt says {} clients, but {clients} have got it", receipt.clients),
            );
        }
        // What is done again, and what who is removed has done, no answer counts.
        let gone = |life: &&ClientLife| {
            life.over > command.made && life.over < *answered
                || model.removed.get(&life.by).is_some_and(|removed| *removed < *answered)
        };
        if clients > receipt.clients as usize
            && command.topics().len() == 1
            && !command.is_repeat()
            && command.asks < 2
            && model.clients.values().find(gone).is_none()
        {
            found
                .add(5, format!("{no}: the receipt says {} clients, but {clients} have it", receipt.clients));
        }
    }
}

/// (6) A complete count or roster knows what its caller knew.
fn counts(model: &Model, no: CmdNo, command: &Command, found: &mut Found) {
    let (Wish::Count(topic) | Wish::Roster(topic)) = &command.wish else { return };
    for (answered, outcome) in command.answers.iter().filter(|(_, outcome)| outcome.complete()) {
        let known: BTreeSet<_> = model
            .known_stays(topic, command.made, command.carried, *answered)
            .collect::<Vec<_>>()
            .into_iter()
            .map(|span| (span.client, span.user.clone()))
            .collect();
        let possible: Vec<_> =
            model.possible_stays(topic, command.made, command.carried, *answered).collect();
        match outcome {
            Outcome::Counted { clients, .. } => {
                if (*clients as usize) < known.len() {
                    found.add(
                        6,
                        format!("{no}: {clients} clients of {topic:?}, but {} are known", known.len()),
                    );
                }
                if *clients as usize > possible.len() {
                    found.add(
                        6,
                        format!("{no}: {clients} clients of {topic:?}, but {} are possible", possible.len()),
                    );
                }
            }
            Outcome::Roster { users, .. } => {
                for (client, user) in known {
                    if let Some(user) = user.filter(|user| !users.contains(user)) {
                        found.add(
                            6,
                            format!("{no}: {user} (client {client}) is not on the roster of {topic:?}"),
                        );
                    }
                }
                for user in users {
                    if !possible.iter().any(|span| span.user.as_ref() == Some(user)) {
                        found.add(6, format!("{no}: {user} cannot be on the roster of {topic:?}"));
                    }
                }
            }
            _ => {}
        }
    }
}

/// (6) Nobody gets a message after its leave was answered to the one who sent it; and nobody gets what
/// was not sent to it.
fn ghosts(model: &Model, no: CmdNo, command: &Command, found: &mut Found) {
    let topics: Vec<&Topic> = command.topics().iter().chain(command.topic()).collect();
    if topics.is_empty() {
        return;
    }
    for (client, gots) in &model.gots {
        for got in gots.iter().filter(|got| got.cmd == no) {
            let is_in = |topic: &&Topic| {
                model
                    .possible_stays(topic, command.made, command.carried, got.index)
                    .any(|s| s.client == *client)
            };
            if !topics.iter().any(is_in) {
                found.add(6, format!("client {client} got {no}, but was in none of its topics"));
            }
        }
    }
}

/// (14) Where gateways only drain, each answer has everybody's part.
fn completeness(model: &Model, found: &mut Found) {
    for (no, command) in &model.commands {
        for (_, outcome) in &command.answers {
            if !outcome.complete() && !matches!(outcome, Outcome::Refused(_)) {
                found.add(14, format!("{no}: {:?} is answered with {outcome:?}", command.wish));
            }
        }
    }
}

/// (9) Nothing of who is out of the view is taken.
fn fences(history: &[Record], found: &mut Found) {
    let mut views: BTreeMap<Incarnation, (BTreeSet<Incarnation>, &Vec<Incarnation>)> = BTreeMap::new();
    for record in history {
        match &record.fact {
            Fact::Installed { by, gateways, .. } => {
                let (ever, now) = views.entry(*by).or_insert_with(|| (BTreeSet::new(), gateways));
                ever.extend(gateways.iter().copied());
                *now = gateways;
            }
            Fact::Placing { by, from, cmd, .. } if by != from => {
                let Some((ever, now)) = views.get(by) else { continue };
                if ever.contains(from) && !now.contains(from) {
                    found.add(9, format!("{by} places {cmd} of {from}, which it knows to be removed"));
                }
            }
            _ => {}
        }
    }
}

/// (11) What was opened is closed or its gateway has gone, or it is still open in the end.
fn closes(model: &Model, found: &mut Found) {
    let everybody = model.spans.iter().find(|(topic, _)| topic.name().is_empty());
    let Some((_, spans)) = everybody else { return };
    for span in spans {
        let told = model.clients.get(&span.client).is_some_and(|life| life.over != NEVER);
        if span.to != NEVER && !told {
            found.add(11, format!("client {} is gone, but nobody was told", span.client));
        }
    }
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.sends += other.sends;
        self.complete += other.complete;
        self.incomplete += other.incomplete;
        self.refused += other.refused;
        self.repeats += other.repeats;
        self.got += other.got;
        self.views += other.views;
        self.gaps += other.gaps;
        self.gaps_unexplained += other.gaps_unexplained;
    }
}
