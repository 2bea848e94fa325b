//! From what was written down to the table. Pure.

mod lost;
mod order;
mod table;

use std::collections::{HashMap, HashSet};

use super::record::{
    Attempt, Connection, Deed, DeedKind, End, Message, Micros, Name, Outcome, Receipt, Record,
};

pub use self::table::{Tally, render};

/// What a receipt speaks of is in an outbox, and its gateway writes at the end of the same turn. A
/// connection that ended (or stopped reading) within this after the receipt proves nothing.
const GRACE: Micros = 250_000;
/// A spell counts as quiet from this long after the fault before it.
const CONSEQUENCE: Micros = 1_000_000;
/// Examples kept of each kind of fault found.
const EXAMPLES_MAX: usize = 5;

/// The record with what every check needs at hand.
struct Known<'a> {
    record: &'a Record,
    messages: HashMap<Name, &'a Message>,
    /// By connection.
    got: Vec<HashSet<Name>>,
    /// Connections whose client belongs to it, by group.
    of_group: Vec<Vec<usize>>,
}

pub fn tally(record: &Record) -> Tally {
    let known = Known::of(record);
    let mut tally = Tally::default();
    sends(record, &mut tally);
    duplicates(&known, &mut tally);
    lost::find(&known, &mut tally);
    order::between_connections(&known, &mut tally);
    order::of_one_publisher(&known, &mut tally);
    unexplained_ends(record, &mut tally);
    absent_clients(record, &mut tally);
    for error in &record.presence_errors {
        tally.wrong("presence errors", || error.clone());
    }
    for error in &record.process_errors {
        tally.wrong("processes ended badly", || error.clone());
    }
    tally.add("connections", record.connections.len());
    tally.add("deliveries", record.connections.iter().map(|connection| connection.got.len()).sum());
    tally
}

impl<'a> Known<'a> {
    fn of(record: &'a Record) -> Self {
        let groups = record.groups_of.iter().flatten().max().map_or(0, |last| usize::from(*last) + 1);
        let mut of_group = vec![Vec::new(); groups];
        for (index, connection) in record.connections.iter().enumerate() {
            for group in &record.groups_of[usize::from(connection.client)] {
                of_group[usize::from(*group)].push(index);
            }
        }
        Self {
            record,
            messages: record.messages.iter().map(|message| (message.name, message)).collect(),
            got: record.connections.iter().map(|c| c.got.iter().copied().collect()).collect(),
            of_group,
        }
    }

    /// Its receipt says that gateways repeated it, although its publisher did not.
    fn told_as_repeated(&self, name: Name) -> bool {
        let repeated = |attempt: &Attempt| matches!(&attempt.outcome, Outcome::Receipt(r) if r.repeated);
        self.messages.get(&name).is_some_and(|message| message.attempts.iter().any(repeated))
    }

    /// A message, to look at.
    fn message(&self, name: Name) -> String {
        let Some(message) = self.messages.get(&name) else { return format!("{name:?}") };
        let attempts = message.attempts.iter().map(|attempt| {
            let (sent, answered) = (attempt.sent / 1000, attempt.answered / 1000);
            let by = match attempt.place {
                Some((stream, place)) => format!("stream {stream}, place {place}"),
                None => "a call".to_owned(),
            };
            format!("{sent}..{answered} ms by {by}, after {:?}: {:?}", attempt.carried, attempt.outcome)
        });
        let attempts: Vec<String> = attempts.collect();
        format!("{}-{} ({})", name.publisher, name.number, attempts.join("; "))
    }

    /// A connection, to look at.
    fn connection(&self, index: usize) -> String {
        let connection = &self.record.connections[index];
        let joined = connection.joined.as_ref();
        let (at, incarnation) = joined.map_or((0, ""), |joined| (joined.at / 1000, &joined.incarnation));
        format!(
            "client {} of {incarnation} (process {}, joined at {at} ms, read until {} ms, {:?})",
            connection.client,
            connection.pid,
            connection.read_until / 1000,
            connection.end
        )
    }

    /// The connections of a group's members.
    fn members(&self, group: u16) -> impl Iterator<Item = (usize, &'a Connection)> {
        let members = self.of_group.get(usize::from(group)).into_iter().flatten();
        members.map(|index| (*index, &self.record.connections[*index]))
    }

    /// A message that was sent in one attempt and has a place in its group's order.
    fn placed(&self, name: Name) -> Option<&'a Message> {
        let ordered = |attempt: &Attempt| matches!(&attempt.outcome, Outcome::Receipt(r) if r.ordered);
        self.messages.get(&name).copied().filter(|m| m.attempts.len() == 1 && ordered(&m.attempts[0]))
    }
}

/// The first complete receipt of a message, and when it came.
fn completed(message: &Message) -> Option<(&Receipt, Micros)> {
    message.attempts.iter().find_map(|attempt| match &attempt.outcome {
        Outcome::Receipt(receipt) if receipt.complete => Some((receipt, attempt.answered)),
        _ => None,
    })
}

fn sends(record: &Record, tally: &mut Tally) {
    for message in &record.messages {
        for attempt in &message.attempts {
            let cell = match &attempt.outcome {
                Outcome::Receipt(receipt) if !receipt.complete => "attempts incomplete",
                Outcome::Receipt(receipt) if !receipt.ordered => "attempts complete, not ordered",
                Outcome::Receipt(_) => "attempts complete",
                Outcome::Refused(_) => "attempts refused",
                Outcome::Unanswered => "attempts unanswered",
            };
            tally.add(cell, 1);
        }
        let last = message.attempts.last().map(|attempt| &attempt.outcome);
        let acknowledged = |attempt: &Attempt| matches!(attempt.outcome, Outcome::Receipt(_));
        let became = match last {
            _ if completed(message).is_some() => "complete",
            _ if message.attempts.iter().any(acknowledged) => "incomplete",
            Some(Outcome::Refused(_)) => "refused",
            _ => "unanswered",
        };
        tally.add("tried", 1);
        tally.add(became, 1);
        tally.add("repeats", message.attempts.len() - 1);
    }
    let (tried, acknowledged) = (tally.get("tried"), tally.get("complete") + tally.get("incomplete"));
    if acknowledged * 100 < tried * 95 {
        tally.wrong("too few acknowledged", || format!("{acknowledged} of {tried}"));
    }
}

fn duplicates(known: &Known<'_>, tally: &mut Tally) {
    for (index, connection) in known.record.connections.iter().enumerate() {
        let mut seen = HashSet::new();
        for name in &connection.got {
            if !seen.insert(name) {
                tally.wrong("duplicates", || {
                    format!("{} at {}", known.message(*name), known.connection(index))
                });
            }
        }
    }
}

/// A connection may end with what was done to its gateway, or by its client.
fn unexplained_ends(record: &Record, tally: &mut Tally) {
    for connection in &record.connections {
        let done = |kinds: &[DeedKind]| {
            let to_it = |deed: &&Deed| deed.pid == connection.pid && kinds.contains(&deed.kind);
            record.deeds.iter().filter(to_it).any(|deed| deed.at <= connection.read_until)
        };
        let explained = match connection.end {
            End::Open | End::Closed | End::Cut | End::Stalled { closed: true } => true,
            End::Stalled { closed: false } => false,
            End::Code(1012) => done(&[DeedKind::Stopped, DeedKind::Paused, DeedKind::Unheard]),
            End::Code(_) => false,
            End::Broken => done(&[DeedKind::Killed]),
        };
        if !explained {
            tally.wrong("unexplained ends", || {
                format!(
                    "client {} of process {}: {:?} at {} ms",
                    connection.client,
                    connection.pid,
                    connection.end,
                    connection.read_until / 1000
                )
            });
        }
        if connection.end != End::Open {
            tally.add("ends", 1);
        }
    }
}

/// Every client is connected and in its groups in the end, except who has gone on purpose.
fn absent_clients(record: &Record, tally: &mut Tally) {
    let mut present = vec![false; record.groups_of.len()];
    for connection in &record.connections {
        if connection.end == End::Open && connection.joined.is_some() {
            present[usize::from(connection.client)] = true;
        }
    }
    for (client, present) in present.into_iter().enumerate() {
        let away = u16::try_from(client).is_ok_and(|client| record.gone_on_purpose.contains(&client));
        if !present && !away {
            tally.wrong("clients not accounted for", || format!("client {client}"));
        }
    }
}
