//! A replica and a ledger that is this test.

use broadgate_proto::{
    id::Incarnation,
    limits::{LEASE, LEDGER_LEASE, VIEWS_KEPT_BYTES_MAX},
    v1::{Epoch, Hello, Member, MemberState, Role},
};

use super::*;
use crate::server::{
    check::PeerOrigin,
    step::{ConnectionId, Write},
};

const BEAT: Duration = Duration::from_secs(1);

const fn at(millis: u64) -> Now {
    Now { up: Duration::from_millis(millis), unix_ms: 0 }
}

fn hello(connection: ConnectionId, bits: u64) -> Input {
    let member = Member {
        incarnation: Incarnation::from_bits(bits).to_string(),
        role: Role::Worker.into(),
        name: format!("w{bits}"),
        ..Member::default()
    };
    let hello = Box::new(Hello { member: Some(member), view: None, ..Hello::default() });
    Input::Hello { connection, origin: PeerOrigin::default(), hello }
}

fn elected(guard: Guard, views: Vec<Arc<View>>, until: u64) -> FromLedger {
    let until = Duration::from_millis(until);
    FromLedger::Elected(Box::new(Elected { guard, until, salt: 7, views, removed: Vec::new() }))
}

fn leading() -> Replica {
    let mut replica = Replica::over_ledger(BEAT, LEASE).with_view_interval(Duration::ZERO);
    replica.ledger(elected(1, Vec::new(), 100_000), at(0));
    replica
}

fn write(effects: &[Effect]) -> Option<Arc<Write>> {
    effects.iter().find_map(|effect| match effect {
        Effect::Commit(write) => Some(write.clone()),
        _ => None,
    })
}

fn done(write: &Write) -> FromLedger {
    FromLedger::Written { guard: write.guard, number: write.number, outcome: CommitOutcome::Done }
}

/// Is there anything that a member or an operator sees?
fn shows(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| !matches!(effect, Effect::Commit(_) | Effect::Happened(_)))
}

fn views(effects: &[Effect]) -> Vec<Epoch> {
    let epoch = |effect: &Effect| match effect {
        Effect::View(view) => view.epoch,
        _ => None,
    };
    effects.iter().filter_map(epoch).collect()
}

#[test]
fn view_and_welcome_wait_for_the_commit_and_beats_do_not() {
    let mut replica = leading();
    let first = replica.apply(hello(1, 1), at(10));
    let one = write(&first).unwrap();
    assert!(!shows(&first) && one.views.len() == 1);
    let beat = replica.apply(Input::Beat { connection: 1, number: 9 }, at(60));
    assert!(
        matches!(&beat[..], [Effect::Reply(1, Reply::Beat(answer))] if answer.ledger_lag_ms == 50),
        "{beat:?}"
    );
    // What comes meanwhile goes together into the next write, each view with its own number.
    assert!(replica.apply(hello(2, 2), at(20)).is_empty() && replica.apply(hello(3, 3), at(20)).is_empty());
    let incarnation = Incarnation::from_bits(2).to_string();
    assert!(replica.apply(Input::Leave { incarnation }, at(30)).is_empty());
    assert_eq!(replica.view().unwrap().members.len(), 0);
    let released = replica.ledger(done(&one), at(40));
    assert!(
        matches!(&released[..], [.., Effect::View(_), Effect::Happened(_), Effect::Commit(_)]),
        "{released:?}"
    );
    let two = write(&released).unwrap();
    assert_eq!(two.views.iter().map(|view| view.epoch.unwrap().count).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(two.removed, [Incarnation::from_bits(2)]);
    assert_eq!(replica.view().unwrap().members.len(), 1);
    let released = replica.ledger(done(&two), at(50));
    assert_eq!(views(&released).len(), 3);
    assert!(released.iter().any(|effect| matches!(effect, Effect::Answer(Ok(_)))), "{released:?}");
    assert!(write(&released).is_none() && replica.lag(at(99)) == Some(Duration::ZERO));
}

#[test]
fn unknown_write_is_repeated_and_a_refused_one_ends_the_lead() {
    let mut replica = leading();
    let one = write(&replica.apply(hello(1, 1), at(0))).unwrap();
    let unknown = CommitOutcome::Unknown("timeout".to_owned());
    let again = replica.ledger(FromLedger::Written { guard: 1, number: 1, outcome: unknown }, at(10));
    assert!(write(&again).as_ref() == Some(&one) && !shows(&again));
    // Of another lead, or of a write that is over.
    for (guard, number) in [(9, 1), (1, 9)] {
        assert!(
            replica
                .ledger(FromLedger::Written { guard, number, outcome: CommitOutcome::Done }, at(11))
                .is_empty()
        );
    }
    let refused = CommitOutcome::Refused("another leads".to_owned());
    let end = replica.ledger(FromLedger::Written { guard: 1, number: 1, outcome: refused }, at(20));
    assert!(matches!(&end[..], [Effect::Happened(_), Effect::Follow(1)]), "{end:?}");
    assert!(replica.view().is_none());
    assert!(replica.ledger(done(&one), at(30)).is_empty(), "what is known too late shows nothing");
    replica.ledger(FromLedger::Leader(Some("r2:7100".to_owned())), at(40));
    assert_eq!(replica.leader(), Some("r2:7100"));
    let answer = replica.apply(Input::Drain { gateway: "g".to_owned(), by: None }, at(50));
    assert!(
        matches!(&answer[..], [Effect::AnswerNewest(Err(RegisterRefusal::StandsBy { leader: Some(leader) }))] if leader == "r2:7100")
    );
}

#[test]
fn lease_is_looked_at_before_what_came_during_a_pause() {
    let mut replica = Replica::over_ledger(BEAT, LEASE).with_view_interval(Duration::ZERO);
    let millis = LEDGER_LEASE.as_millis() as u64;
    replica.ledger(elected(1, Vec::new(), millis), at(0));
    replica.ledger(FromLedger::Renewed { guard: 1, until: Duration::from_millis(millis + 1000) }, at(1000));
    let one = write(&replica.apply(hello(1, 1), at(1500))).unwrap();
    // The acknowledgement waited in the queue while this process slept.
    let end = replica.ledger(done(&one), at(millis + 1000));
    assert!(matches!(&end[..], [Effect::Happened(_), Effect::Follow(1)]), "{end:?}");
}

#[test]
fn ledger_that_takes_no_writes_ends_the_lead_although_the_lease_is_renewed() {
    let mut replica = leading();
    replica.apply(hello(1, 1), at(0));
    let late = LEDGER_COMMIT_TIME_MAX.as_millis() as u64;
    assert!(replica.apply(Input::Tick, at(late - 1)).is_empty());
    let end = replica.apply(Input::Tick, at(late));
    assert!(matches!(&end[..], [Effect::Happened(_), Effect::Follow(1)]), "{end:?}");
}

#[test]
fn next_leader_goes_on_with_the_stored_members_and_removes_nobody_for_a_lease() {
    let member = |bits| Member {
        incarnation: Incarnation::from_bits(bits).to_string(),
        role: Role::Worker.into(),
        state: MemberState::Ready.into(),
        ..Member { name: format!("w{bits}"), ..Member::default() }
    };
    let view = |term, count, members: &[u64]| {
        let members = members.iter().map(|bits| member(*bits)).collect();
        Arc::new(View { epoch: Some(Epoch::new(term, count)), members, before: None })
    };
    let term = 5 << 16 | 3;
    let stored = vec![view(term, 8, &[1]), view(term, 9, &[1, 2])];
    let mut replica = Replica::over_ledger(BEAT, LEASE).with_view_interval(Duration::ZERO);
    let start = 60_000;
    let out = replica.ledger(elected(4, stored.clone(), 900_000), at(start));
    let first = write(&out).unwrap();
    assert!(!shows(&out) && first.oldest == Epoch::new(term, 8));
    assert_eq!(first.views[0].epoch, Some(Epoch::new(6 << 16 | 7, 1)));
    assert_eq!(first.views[0].before, stored[1].epoch);
    assert_eq!(first.views[0].members, stored[1].members);
    assert_eq!(replica.view(), Some(&stored[1]), "shown until the first view is committed");
    replica.ledger(done(&first), at(start + 10));
    let lease = LEASE.as_millis() as u64;
    for millis in (start..start + lease - 1).step_by(100) {
        assert!(!shows(&replica.apply(Input::Tick, at(millis))));
    }
    // A member that knows the stored view, or an earlier one, is where it was.
    for (connection, known) in [(1, &stored[0]), (2, &stored[1])] {
        let Input::Hello { origin, mut hello, .. } = hello(connection, connection) else { unreachable!() };
        hello.view = Some(View::clone(known));
        hello.member.as_mut().unwrap().set_state(MemberState::Ready);
        let out = replica.apply(Input::Hello { connection, origin, hello }, at(start + lease - 1));
        assert!(
            matches!(&out[..], [Effect::Happened(_), Effect::Reply(_, Reply::Welcome(_)), ..]),
            "{out:?}"
        );
        assert!(write(&out).is_none());
    }
    assert!(write(&replica.apply(Input::Tick, at(start + lease + 100))).is_none());
}

#[test]
fn nothing_is_shown_of_a_change_that_waits_for_its_view() {
    let mut replica = leading().with_view_interval(VIEW_INTERVAL);
    replica.ledger(elected(2, Vec::new(), 100_000), at(0));
    let one = write(&replica.apply(hello(1, 1), at(0))).unwrap();
    let released = replica.ledger(done(&one), at(5));
    assert!(shows(&released) && replica.lag(at(6)) == Some(Duration::ZERO));
    // No write is under way, and there is no view yet to be committed.
    assert!(replica.apply(hello(2, 2), at(10)).is_empty());
    let incarnation = Incarnation::from_bits(1).to_string();
    assert!(replica.apply(Input::Leave { incarnation }, at(20)).is_empty());
    let wakes = replica.wakes_at().unwrap();
    assert_eq!(wakes, VIEW_INTERVAL);
    let made = replica.apply(Input::Tick, at(50));
    let two = write(&made).unwrap();
    assert!(!shows(&made) && two.views.len() == 1 && two.views[0].members.len() == 1);
    let released = replica.ledger(done(&two), at(60));
    assert!(released.iter().any(|effect| matches!(effect, Effect::Answer(Ok(_)))), "{released:?}");
    assert_eq!(views(&released), [two.views[0].epoch.unwrap()]);
}

#[test]
fn too_much_that_waits_for_the_ledger_turns_members_away() {
    let mut replica = leading();
    let large = |bits: u64| {
        let Input::Hello { origin, mut hello, .. } = hello(bits, bits) else { unreachable!() };
        hello.member.as_mut().unwrap().services = vec!["s".repeat(200); 18];
        Input::Hello { connection: bits, origin, hello }
    };
    let refused = (1..=1000).find(|bits| {
        replica.apply(large(*bits), at(0)).iter().any(|effect| matches!(effect, Effect::Refuse(..)))
    });
    // A few hundred views of up to a megabyte.
    assert!(refused.is_some_and(|bits| bits > 50), "{refused:?}");
    // Of operators the one that has just come, not one whose command waits.
    let refused = replica.apply(Input::Drain { gateway: "g".to_owned(), by: None }, at(0));
    assert!(
        matches!(&refused[..], [Effect::AnswerNewest(Err(RegisterRefusal::Unavailable(_)))]),
        "{refused:?}"
    );
    let super::ReplicaRole::Leading(leading) = &replica.role else { panic!("it leads") };
    let bytes = leading.commits.waiting_bytes();
    assert!(bytes <= VIEWS_KEPT_BYTES_MAX + LEDGER_VIEW_BYTES_MAX, "{bytes}");
}
