//! One order for everybody, and each publisher's own. Only messages that their homes placed and that
//! were sent in one attempt: a repeat may reach who missed it at first later than others.

use std::collections::HashMap;

use super::{Known, Message, Name, Tally};

/// Two connections that both got two messages of a group got them in the same order. Counted are the
/// places at which one got next what the other had got before.
pub(super) fn between_connections(known: &Known<'_>, tally: &mut Tally) {
    let mut orders: Vec<Vec<(usize, Vec<Name>)>> = vec![Vec::new(); known.of_group.len()];
    for (index, connection) in known.record.connections.iter().enumerate() {
        for (group, names) in by_group(known, &connection.got) {
            orders[usize::from(group)].push((index, names));
        }
    }
    for (group, orders) in orders.iter().enumerate() {
        for (place, (one, first)) in orders.iter().enumerate() {
            let places: HashMap<Name, usize> = first.iter().copied().zip(0..).collect();
            for (two, second) in &orders[place + 1..] {
                let common = second.iter().filter_map(|name| Some((*name, *places.get(name)?)));
                let mut before: Option<(Name, usize)> = None;
                for (name, at) in common {
                    if let Some((last, _)) = before.filter(|(_, last)| *last > at) {
                        if known.told_as_repeated(name) || known.told_as_repeated(last) {
                            tally.add("order: told as repeated", 1);
                        }
                        tally.wrong("order differences", || {
                            format!(
                                "group {group}: {} got {} before {}, {} after",
                                known.connection(*one),
                                known.message(name),
                                known.message(last),
                                known.connection(*two)
                            )
                        });
                    }
                    before = Some((name, at));
                }
            }
        }
    }
}

/// What a connection got of each group in one attempt, the first time that it got it.
fn by_group(known: &Known<'_>, got: &[Name]) -> HashMap<u16, Vec<Name>> {
    let mut groups: HashMap<u16, Vec<Name>> = HashMap::new();
    let mut seen = std::collections::HashSet::new();
    for name in got {
        if let Some(message) = known.placed(*name).filter(|_| seen.insert(*name)) {
            groups.entry(message.group).or_default().push(*name);
        }
    }
    groups
}

/// The latest that has arrived of one publisher in one group.
#[derive(Default)]
struct Arrived {
    /// By stream: the highest place.
    places: HashMap<u64, u64>,
    sent: u64,
}

/// A send was made after another if it was written later to the same stream, or after the other's
/// answer.
pub(super) fn of_one_publisher(known: &Known<'_>, tally: &mut Tally) {
    for (index, connection) in known.record.connections.iter().enumerate() {
        let mut arrived: HashMap<(u16, u16), Arrived> = HashMap::new();
        let mut seen = std::collections::HashSet::new();
        for name in &connection.got {
            let Some(message) = known.placed(*name).filter(|_| seen.insert(*name)) else { continue };
            let before = arrived.entry((name.publisher, message.group)).or_default();
            if overtaken(message, before) {
                tally.wrong("a publisher's order", || {
                    format!("{} came late at {}", known.message(*name), known.connection(index))
                });
            }
        }
    }
}

fn overtaken(message: &Message, before: &mut Arrived) -> bool {
    let attempt = &message.attempts[0];
    let by_answer = attempt.answered < before.sent;
    before.sent = before.sent.max(attempt.sent);
    let by_place = attempt.place.is_some_and(|(stream, place)| {
        let highest = before.places.entry(stream).or_default();
        let overtaken = place < *highest;
        *highest = place.max(*highest);
        overtaken
    });
    by_answer || by_place
}
