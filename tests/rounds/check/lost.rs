//! What a complete receipt promises, held against what the sockets got.

use super::{
    CONSEQUENCE, Connection, Deed, DeedKind, End, GRACE, Known, Message, Micros, Receipt, Tally, completed,
};

/// What a receipt owes a connection.
#[derive(PartialEq, Eq)]
enum Owed {
    Yes,
    /// It is not said: the connection ended at about that time, or the view was not heard of.
    Doubtful,
    No,
}

/// Every member gets what was completely acknowledged, and the receipt counts no fewer.
pub(super) fn find(known: &Known<'_>, tally: &mut Tally) {
    for message in &known.record.messages {
        let Some((receipt, answered)) = completed(message) else { continue };
        let mut reading = 0u64;
        for (index, connection) in known.members(message.group) {
            let owed = owed(known, message, receipt, answered, connection);
            if owed == Owed::Yes {
                reading += 1;
                tally.add("promised", 1);
            }
            if owed == Owed::No || known.got[index].contains(&message.name) {
                continue;
            }
            if owed == Owed::Doubtful {
                tally.add("in doubt", 1);
                continue;
            }
            tally.wrong("lost after a complete receipt", || {
                let group = message.group;
                let (message, connection) = (known.message(message.name), known.connection(index));
                format!("{message} of group {group} by {connection}")
            });
        }
        let calm = message.attempts.len() == 1 && quiet(known, message.attempts[0].sent, answered);
        if calm {
            tally.add("receipts compared in quiet", 1);
            if receipt.clients < reading {
                tally.wrong("receipts below the sockets", || {
                    format!("{:?}: {} instead of {reading}", message.name, receipt.clients)
                });
            }
        }
    }
}

/// A member counts by the first attempt: what a repeat does for who came meanwhile is not promised.
fn owed(
    known: &Known<'_>,
    message: &Message,
    receipt: &Receipt,
    answered: Micros,
    connection: &Connection,
) -> Owed {
    let first = &message.attempts[0];
    let Some(joined) = connection.joined.as_ref().filter(|joined| joined.at < first.sent) else {
        return Owed::No;
    };
    if connection.read_until < answered {
        return Owed::No;
    }
    // Promised is what was answered up to the receipt's epoch, and that is never lower than the one
    // which the send carried.
    if receipt.epoch < joined.epoch && first.carried < joined.epoch {
        return Owed::No;
    }
    let in_view = match known.record.views.holds(&joined.incarnation, receipt.epoch) {
        _ if receipt.epoch < joined.epoch => Some(true),
        held => held,
    };
    match in_view {
        Some(false) => Owed::No,
        Some(true) if left_unheard(known, connection) => Owed::Doubtful,
        Some(true) if connection.read_until >= answered + GRACE => Owed::Yes,
        _ => Owed::Doubtful,
    }
}

/// It went by itself from a gateway whose packets were perhaps being lost (in namespaces, those to its
/// clients too): what was on its way had no time to come.
fn left_unheard(known: &Known<'_>, connection: &Connection) -> bool {
    let unheard = |deed: &Deed| deed.pid == connection.pid && deed.kind == DeedKind::Unheard;
    matches!(connection.end, End::Closed | End::Cut | End::Stalled { .. })
        && known.record.deeds.iter().any(|deed| unheard(deed) && deed.at <= connection.read_until)
}

fn quiet(known: &Known<'_>, from: Micros, until: Micros) -> bool {
    let settled = |spell: &&(Micros, Micros)| spell.0 + CONSEQUENCE <= from && until <= spell.1;
    known.record.quiet.iter().any(|spell| settled(&spell))
}
