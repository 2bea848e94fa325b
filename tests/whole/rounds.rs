//! What the rounds (`tests/rounds`) decide without a cluster: the schedule of faults, and what the
//! table says of what was written down.

#[path = "../rounds/check/mod.rs"]
mod check;
#[path = "../rounds/faults.rs"]
mod faults;
#[path = "../rounds/record.rs"]
mod record;
#[path = "../rounds/seed.rs"]
mod seed;

use std::collections::HashSet;

use self::{
    check::{Tally, render, tally},
    faults::{Fault, schedule},
    record::{
        Attempt, Connection, Deed, DeedKind, End, Joined, Message, Name, Outcome, Receipt, Record, Views,
    },
};

const SECOND: u64 = 1_000_000;

#[test]
fn a_minute_holds_every_kind_of_fault_with_quiet_between_and_at_the_end() {
    for seed in 0..1000 {
        let steps = schedule(seed, 3, 60);
        assert_eq!(steps, schedule(seed, 3, 60), "the seed decides");
        assert!(steps.iter().all(|step| step.until_ms <= 50_000));
        assert!(steps.windows(2).all(|pair| pair[0].until_ms + 3000 <= pair[1].at_ms));
        let sometimes = |fault: &Fault| matches!(fault, Fault::Together { .. } | Fault::Unheard { .. });
        let always = steps.iter().map(|step| step.fault).filter(|fault| !sometimes(fault));
        let kinds: HashSet<_> = always.map(|fault| std::mem::discriminant(&fault)).collect();
        assert_eq!(kinds.len(), 6, "seed {seed}: {steps:?}");
        let mut gateways = 3;
        for step in &steps {
            match step.fault {
                Fault::Add => gateways += 1,
                Fault::Cut { from, to, .. } => assert!(from != to && from.max(to) < gateways),
                _ => {}
            }
        }
    }
}

/// The number of a message of the one publisher.
fn name(number: u32) -> Name {
    Name { publisher: 0, number }
}

fn receipt(clients: u64) -> Receipt {
    Receipt { complete: true, epoch: (1, 1), clients, ordered: true, repeated: false }
}

fn attempt(sent: u64, receipt: Receipt) -> Attempt {
    Attempt { sent, answered: sent + 1000, place: None, carried: (1, 1), outcome: Outcome::Receipt(receipt) }
}

fn joined(at: u64) -> Option<Joined> {
    Some(Joined { at, epoch: (1, 1), incarnation: "a".to_owned() })
}

/// Two clients of group 0 got two messages, one a second, in order.
fn good() -> Record {
    let message = |number: u32| {
        let sent = SECOND * (u64::from(number) + 10);
        Message { name: name(number), group: 0, attempts: vec![attempt(sent, receipt(2))] }
    };
    let connection = |client| Connection {
        client,
        pid: 1,
        joined: joined(SECOND),
        got: vec![name(0), name(1)],
        read_until: 60 * SECOND,
        end: End::Open,
    };
    let mut views = Views::default();
    views.heard((1, 1), HashSet::from(["a".to_owned()]));
    Record {
        messages: vec![message(0), message(1)],
        connections: vec![connection(0), connection(1)],
        groups_of: vec![vec![0], vec![0]],
        views,
        quiet: vec![(0, u64::MAX)],
        ..Record::default()
    }
}

/// What is wrong, and how often.
fn wrongs(record: &Record) -> Vec<(&'static str, usize)> {
    let tally = tally(record);
    let mut kinds: Vec<_> = tally.examples.iter().map(|(kind, _)| *kind).collect();
    kinds.dedup();
    assert_eq!(tally.is_good(), kinds.is_empty());
    kinds.into_iter().map(|kind| (kind, tally.get(kind))).collect()
}

#[test]
fn nothing_is_wrong_with_a_good_record() {
    let tally: Tally = tally(&good());
    assert!(tally.examples.is_empty(), "{:?}", tally.examples);
    let cells = ["tried", "complete", "repeats", "promised", "deliveries", "receipts compared in quiet"];
    assert_eq!(cells.map(|cell| tally.get(cell)), [2, 2, 0, 4, 4, 2]);
    let table = render(&[tally.clone(), tally]);
    let line = table.lines().find(|line| line.starts_with("promised")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["promised", "4", "4", "8"]);
}

#[test]
fn member_without_its_message_has_lost_it() {
    let mut record = good();
    record.connections[1].got.pop();
    assert_eq!(wrongs(&record), [("lost after a complete receipt", 1)]);
    let excused: [fn(&mut Record); 6] = [
        |record| record.connections[1].joined = joined(SECOND * 11 + 500),
        |record| record.connections[1].joined = None,
        // In doubt: it ended at that time.
        |record| record.connections[1].read_until = SECOND * 11 + 50_000,
        |record| record.messages[1].attempts[0].outcome = Outcome::Unanswered,
        // Its gateway was not in the view any more.
        |record| {
            record.views.heard((1, 2), HashSet::new());
            let outcome = Outcome::Receipt(Receipt { epoch: (1, 2), ..receipt(1) });
            record.messages[1].attempts[0].outcome = outcome;
        },
        // Its join was answered under an epoch that the send did not know.
        |record| {
            record.connections[1].joined =
                Some(Joined { at: SECOND, epoch: (1, 2), incarnation: "b".to_owned() });
        },
    ];
    for (case, excuse) in excused.iter().enumerate() {
        let mut record = record.clone();
        excuse(&mut record);
        assert_eq!(tally(&record).get("lost after a complete receipt"), 0, "case {case}");
    }
    // The send carried the epoch under which the join was answered.
    let later = Joined { at: SECOND, epoch: (1, 2), incarnation: "b".to_owned() };
    record.connections[1].joined = Some(later);
    record.messages[1].attempts[0].carried = (1, 2);
    assert_eq!(tally(&record).get("lost after a complete receipt"), 1);
}

#[test]
fn member_that_joined_between_send_and_repeat_is_owed_nothing() {
    let mut record = good();
    let incomplete = Receipt { complete: false, ..receipt(1) };
    record.messages[1].attempts.insert(0, attempt(SECOND * 2, incomplete));
    record.connections[1].got.pop();
    assert_eq!(wrongs(&record), [("lost after a complete receipt", 1)]);
    record.connections[1].joined = joined(SECOND * 3);
    assert_eq!(wrongs(&record), []);
}

#[test]
fn message_received_twice_is_a_duplicate() {
    let mut record = good();
    record.connections[0].got.push(name(0));
    assert_eq!(wrongs(&record), [("duplicates", 1)]);
}

#[test]
fn two_orders_are_a_difference_unless_one_was_repeated() {
    let mut record = good();
    // Two publishers: nothing is said about which was first.
    record.messages[1].name.publisher = 1;
    let second = record.messages[1].name;
    record.connections[0].got = vec![name(0), second];
    record.connections[1].got = vec![second, name(0)];
    assert_eq!(wrongs(&record), [("order differences", 1)]);
    let incomplete = Receipt { complete: false, ..receipt(1) };
    let mut repeated = record.clone();
    repeated.messages[1].attempts.insert(0, attempt(SECOND * 2, incomplete));
    assert_eq!(wrongs(&repeated), []);
    let unordered = Receipt { ordered: false, ..receipt(2) };
    record.messages[1].attempts[0].outcome = Outcome::Receipt(unordered);
    assert_eq!(wrongs(&record), []);
}

#[test]
fn a_publisher_is_not_overtaken_by_itself() {
    let mut record = good();
    for connection in &mut record.connections {
        connection.got.reverse();
    }
    assert_eq!(wrongs(&record), [("a publisher's order", 2)], "the first was answered before the second");
    // Both were on their way at the same time: no order was made.
    record.messages[0].attempts[0].answered = SECOND * 12;
    assert_eq!(wrongs(&record), []);
    // In one stream there is an order all the same.
    for (place, message) in record.messages.iter_mut().enumerate() {
        message.attempts[0].place = Some((7, place as u64));
    }
    assert_eq!(wrongs(&record), [("a publisher's order", 2)]);
}

#[test]
fn receipt_counts_all_readers() {
    let mut record = good();
    record.messages[0].attempts[0].outcome = Outcome::Receipt(receipt(1));
    assert_eq!(wrongs(&record), [("receipts below the sockets", 1)]);
    record.quiet = vec![(0, SECOND * 5)];
    assert_eq!(wrongs(&record), []);
}

#[test]
fn connection_ends_are_explained_by_faults() {
    let mut record = good();
    // It came again.
    let again = Connection { joined: joined(SECOND * 31), ..record.connections[1].clone() };
    record.connections.push(again);
    record.connections[1].read_until = SECOND * 30;
    for own in [End::Closed, End::Cut, End::Stalled { closed: true }] {
        record.connections[1].end = own;
        assert_eq!(wrongs(&record), []);
    }
    record.connections[1].end = End::Broken;
    assert_eq!(wrongs(&record), [("unexplained ends", 1)]);
    record.deeds.push(Deed { pid: 1, at: SECOND * 29, kind: DeedKind::Killed });
    assert_eq!(wrongs(&record), []);
    record.connections[1].end = End::Code(1012);
    assert_eq!(wrongs(&record), [("unexplained ends", 1)]);
    record.deeds[0].kind = DeedKind::Paused;
    assert_eq!(wrongs(&record), []);
    record.connections.pop();
    assert_eq!(wrongs(&record), [("clients not accounted for", 1)]);
    record.gone_on_purpose.insert(1);
    assert_eq!(wrongs(&record), []);
}

#[test]
fn five_percent_may_stay_unanswered() {
    let mut record = good();
    let message = record.messages[0].clone();
    record.messages = vec![message; 100];
    for message in &mut record.messages[..5] {
        message.attempts[0].outcome = Outcome::Unanswered;
    }
    assert_eq!(tally(&record).get("too few acknowledged"), 0);
    record.messages[5].attempts[0].outcome = Outcome::Refused(3);
    assert_eq!(tally(&record).get("too few acknowledged"), 1);
}
