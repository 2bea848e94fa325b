use std::collections::BTreeSet;

use broadgate_proto::{
    limits::{TERM_FIRST_MAX, TERM_STEP},
    v1::{DrainOrder, OrderGiver},
};
use proptest::prelude::*;

use super::*;

const BEAT: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(5);

fn register() -> Core {
    Core::new(BEAT, LEASE, 8).with_view_interval(Duration::ZERO)
}

const fn at(secs: u64) -> Now {
    Now { up: Duration::from_secs(secs), unix_ms: 1_000 + secs }
}

fn id(bits: u64) -> Incarnation {
    Incarnation::from_bits(bits)
}

fn member(bits: u64) -> Member {
    Member {
        incarnation: id(bits).to_string(),
        role: Role::Gateway.into(),
        name: format!("gateway-{bits}"),
        address: format!("127.0.0.1:{}", 7000 + bits),
        state: MemberState::Ready.into(),
        ..Member::default()
    }
}

fn hello_of(connection: ConnectionId, member: Member, view: Option<View>) -> Input {
    let hello = Box::new(Hello { member: Some(member), view, ..Hello::default() });
    Input::Hello { connection, origin: PeerOrigin::default(), hello }
}

fn hello(connection: ConnectionId, bits: u64) -> Input {
    hello_of(connection, member(bits), None)
}

fn reported(term: u64, count: u64, bits: &[u64]) -> View {
    let members = bits.iter().map(|&bits| Member { since_ms: 7, ..member(bits) }).collect();
    View { epoch: Some(Epoch::new(term, count)), members, before: None }
}

fn reporting(connection: ConnectionId, bits: u64, view: View) -> Input {
    hello_of(connection, member(bits), Some(view))
}

fn epoch(core: &Core) -> Epoch {
    core.view().epoch.unwrap()
}

fn names(core: &Core) -> Vec<String> {
    core.view().members.iter().map(|member| member.name.clone()).collect()
}

fn views(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::View(_))).count()
}

fn was_dismissed(effects: &[Effect], connection: ConnectionId) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Reply(to, Reply::Removed(_)) if *to == connection))
        && effects.contains(&Effect::Close(connection))
}

/// Ticks often enough that the register is not taken for one that was asleep.
fn tick_until(core: &mut Core, from: u64, to: u64) -> Vec<Effect> {
    (from..=to).flat_map(|secs| core.apply(Input::Tick, at(secs))).collect()
}

#[test]
fn every_change_is_one_epoch_and_views_are_ordered() {
    let mut core = register();
    let joined = core.apply(hello(1, 5), at(0));
    assert!(matches!(&joined[1], Effect::Reply(1, Reply::Welcome(welcome)) if welcome.term == 1));
    assert!(matches!(&joined[2], Effect::View(view) if view.members.len() == 1));
    core.apply(hello(2, 3), at(0));
    assert_eq!(epoch(&core), Epoch::new(1, 2));
    assert_eq!(names(&core), ["gateway-3", "gateway-5"]);
    let drained = Input::SetState { connection: 1, state: MemberState::Draining };
    assert_eq!(views(&core.apply(drained.clone(), at(1))), 1);
    assert_eq!(views(&core.apply(drained, at(1))), 0);
    let gone = core.apply(Input::Goodbye { connection: 1 }, at(2));
    assert_eq!(gone.first(), Some(&Effect::Close(1)));
    assert_eq!(names(&core), ["gateway-3"]);
    assert_eq!(epoch(&core), Epoch::new(1, 4));
    assert_eq!(core.apply(Input::Beat { connection: 1, number: 9 }, at(2)), []);
}

#[test]
fn a_broken_stream_is_silence_and_silence_ends_with_the_lease() {
    let mut core = register();
    core.apply(hello(1, 1), at(0));
    core.apply(hello(2, 2), at(0));
    assert_eq!(core.apply(Input::Lost { connection: 1 }, at(3)), []);
    for secs in 1..=8 {
        core.apply(Input::Beat { connection: 2, number: secs }, at(secs));
        core.apply(Input::Tick, at(secs));
    }
    assert_eq!(names(&core), ["gateway-2"]);
    let back = core.apply(hello(3, 1), at(9));
    assert!(was_dismissed(&back, 3), "removed is dead");
    assert_eq!(names(&core), ["gateway-2"]);
}

#[test]
fn a_redial_continues_and_its_old_connection_touches_nothing() {
    let mut core = register();
    core.apply(hello(1, 1), at(0));
    let redialled = core.apply(hello(2, 1), at(4));
    assert!(redialled.contains(&Effect::Close(1)));
    assert!(redialled.iter().any(|effect| matches!(effect, Effect::Show(2, _))));
    assert_eq!(views(&redialled), 0);
    for late in [
        Input::Goodbye { connection: 1 },
        Input::Lost { connection: 1 },
        Input::Beat { connection: 1, number: 1 },
        Input::SetState { connection: 1, state: MemberState::Draining },
    ] {
        assert_eq!(core.apply(late, at(4)), []);
    }
    assert_eq!(core.apply(Input::Beat { connection: 2, number: 1 }, at(5)).len(), 1);
    assert_eq!(core.view().members[0].since_ms, 1_000);
    assert!(matches!(core.apply(hello(2, 1), at(5))[0], Effect::Refuse(2, RegisterRefusal::Invalid(_))));
}

/// The newcomer's sentence.
fn taken(effects: &[Effect]) -> &str {
    match effects {
        [Effect::Refuse(_, RegisterRefusal::Taken(sentence))] => sentence,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn newcomer_at_the_address_or_name_of_a_living_gateway_is_refused() {
    let mut core = register();
    core.apply(hello(1, 1), at(0));
    let same_address = || Member { incarnation: id(2).to_string(), name: "other".into(), ..member(1) };
    let same_name = || Member { name: "gateway-1".into(), ..member(3) };
    for secs in 0..20 {
        core.apply(Input::Beat { connection: 1, number: secs }, at(secs));
        let address = core.apply(hello_of(2 + 10 * secs, same_address(), None), at(secs));
        assert!(taken(&address).contains("advertise"), "{address:?}");
        let name = core.apply(hello_of(3 + 10 * secs, same_name(), None), at(secs));
        assert!(taken(&name).contains("name"), "{name:?}");
        core.apply(Input::Tick, at(secs));
        assert_eq!(names(&core), ["gateway-1"]);
    }
    // A worker's name says nothing about its place.
    let worker = Member { role: Role::Worker.into(), address: String::new(), ..same_name() };
    core.apply(hello_of(4, worker, None), at(19));
    assert_eq!(names(&core), ["gateway-1", "gateway-1"]);
}

#[test]
fn newer_gateway_replaces_one_at_its_address_that_has_crashed_at_once() {
    let mut core = register();
    core.apply(hello(1, 1), at(0));
    core.apply(hello(2, 2), at(0));
    // The process has ended: its connection broke. Of a host that lost power nothing is heard.
    core.apply(Input::Lost { connection: 1 }, at(1));
    let effects =
        core.apply(hello_of(3, Member { incarnation: id(3).to_string(), ..member(1) }, None), at(1));
    assert_eq!(views(&effects), 1);
    assert_eq!(core.view().members.len(), 2);
    let effects =
        core.apply(hello_of(4, Member { incarnation: id(4).to_string(), ..member(2) }, None), at(3));
    assert!(was_dismissed(&effects, 2), "silent for half a lease");
    let incarnations: Vec<_> = core.view().members.iter().map(|one| one.incarnation.clone()).collect();
    assert_eq!(incarnations, [id(3).to_string(), id(4).to_string()]);
}

#[test]
fn register_steps_down_for_a_higher_term_and_serves_again_when_that_is_gone() {
    let mut core = register();
    core.apply(reporting(1, 1, reported(5, 7, &[1, 2])), at(0));
    assert_eq!(epoch(&core).term, 6);
    for lower in [Epoch::new(6, 9), Epoch::new(5, 1), Epoch::new(u64::MAX, 1)] {
        let effects = core.apply(Input::StepDown { epoch: lower, register: String::new() }, at(1));
        assert!(matches!(&effects[..], [Effect::Answer(Ok(_))]), "{effects:?}");
    }
    let register = "r2:7100".to_owned();
    let effects = core.apply(Input::StepDown { epoch: Epoch::new(9, 1), register }, at(1));
    let named = |effect: &Effect| matches!(effect, Effect::Reply(1, Reply::Elsewhere(it)) if it.register == "r2:7100" && it.term == 9);
    assert!(
        effects.iter().position(named)
            < effects.iter().position(|effect| matches!(effect, Effect::Refuse(..)))
    );
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::Refuse(1, RegisterRefusal::Unavailable(_))))
    );
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Happened(Happened::SteppedDown { .. }))));
    assert_eq!((epoch(&core), core.view().members.len()), (Epoch::new(0, 0), 0));
    // Who comes from the cluster of the lower term, or from none, goes to the other register.
    for hello in [hello(2, 2), reporting(3, 1, reported(6, 1, &[1, 2]))] {
        let refused = core.apply(hello, at(2));
        assert!(
            matches!(
                &refused[..],
                [Effect::Reply(_, Reply::Elsewhere(_)), Effect::Refuse(_, RegisterRefusal::Unavailable(_))]
            ),
            "{refused:?}"
        );
    }
    // The other register is gone: its members come here.
    core.apply(reporting(4, 3, reported(9, 4, &[1, 2, 3])), at(3));
    assert_eq!((epoch(&core).term, core.view().members.len()), (10, 3));
    core.apply(hello(5, 4), at(3));
    assert_eq!(core.view().members.len(), 4);
    // Without anybody from there it serves again after a lease.
    let register = "no address".to_owned();
    core.apply(Input::StepDown { epoch: Epoch::new(20, 1), register }, at(4));
    assert!(matches!(core.apply(hello(6, 5), at(8))[0], Effect::Refuse(6, RegisterRefusal::Unavailable(_))));
    core.apply(hello(7, 5), at(10));
    assert_eq!(names(&core), ["gateway-5"]);
}

#[test]
fn register_that_has_stepped_down_names_no_view_as_one_before() {
    let mut core = register();
    let mut named = std::collections::BTreeSet::new();
    let mut higher = 1000;
    for (life, from) in [(0, 0_u64), (1, 10), (2, 20), (3, 30)] {
        let takes_over = reporting(10 * life + 3, 3, reported(500, 1, &[3]));
        for input in [hello(10 * life + 1, 1), hello(10 * life + 2, 2), takes_over] {
            for effect in core.apply(input, at(from)) {
                if let Effect::View(view) = effect {
                    assert!(named.insert(view.epoch), "{:?} twice", view.epoch);
                }
            }
        }
        higher += 1000;
        let epoch = Epoch::new(higher, 1);
        core.apply(Input::StepDown { epoch, register: String::new() }, at(from + 2));
    }
    assert_eq!(named.len(), 12, "{named:?}");
}

#[test]
fn fresh_register_takes_over_the_highest_view_with_silent_members() {
    let mut core = register();
    let effects = core.apply(reporting(1, 1, reported(5, 7, &[1, 2, 3])), at(0));
    assert_eq!(views(&effects), 1);
    assert_eq!(epoch(&core), Epoch::new(6, 1));
    assert_eq!(names(&core), ["gateway-1", "gateway-2", "gateway-3"]);
    assert_eq!(core.view().members[0].since_ms, 7);
    // A lower view changes nothing; a higher one of the same line does, under a higher term.
    core.apply(reporting(2, 2, reported(5, 6, &[1, 2])), at(1));
    assert_eq!(epoch(&core), Epoch::new(6, 1));
    core.apply(reporting(4, 4, reported(5, 8, &[1, 2, 4])), at(2));
    assert_eq!(epoch(&core), Epoch::new(7, 1));
    assert_eq!(names(&core), ["gateway-1", "gateway-2", "gateway-4"], "3 was removed in 5.8");
    assert!(was_dismissed(&core.apply(reporting(3, 3, reported(5, 7, &[1, 2, 3])), at(2)), 3));
    // Its own views reported back are no reason for another term.
    core.apply(Input::Lost { connection: 1 }, at(2));
    core.apply(reporting(5, 1, reported(7, 1, &[1, 2, 4])), at(3));
    assert_eq!(epoch(&core).term, 7);
    tick_until(&mut core, 1, 4);
    assert_eq!(core.view().members.len(), 3);
    tick_until(&mut core, 5, 9);
    assert!(core.view().members.is_empty());
}

#[test]
fn member_that_redials_late_has_no_gap_after_a_take_over() {
    let mut core = register();
    let of_the_former = reported(5, 7, &[1, 2]);
    core.apply(reporting(1, 1, of_the_former.clone()), at(0));
    // The list changes before the other one comes.
    core.apply(hello(3, 3), at(0));
    core.apply(Input::Tick, at(1));
    let newest = epoch(&core);
    assert!(newest > Epoch::new(6, 1), "{newest:?}");
    let shown: Vec<_> = core
        .apply(reporting(2, 2, of_the_former), at(1))
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Show(2, view) => Some((view.before, view.epoch)),
            _ => None,
        })
        .collect();
    assert_eq!(shown.first().unwrap().0, Some(Epoch::new(5, 7)));
    assert_eq!(shown.last().unwrap().1, Some(newest));
    assert!(shown.is_sorted() && shown.windows(2).all(|pair| pair[1].0 == pair[0].1), "{shown:?}");
}

#[test]
fn a_first_comer_without_a_view_does_not_hide_the_cluster_of_the_others() {
    let mut core = register();
    for bits in 4..7 {
        core.apply(hello(bits, bits), at(0));
    }
    assert_eq!(epoch(&core), Epoch::new(1, 3));
    core.apply(reporting(1, 1, reported(1, 2, &[1, 2])), at(1));
    assert_eq!(epoch(&core), Epoch::new(2, 1));
    assert_eq!(core.view().members.len(), 5);
}

#[test]
fn what_a_fresh_register_names_is_below_every_cluster_that_has_lived_for_a_lease() {
    for (old, new) in [(0, u16::MAX), (u16::MAX, 0), (7, 8)] {
        let mut living = register().with_salt(old);
        living.apply(hello(1, 1), at(0));
        let first = epoch(&living);
        assert_eq!(views(&tick_until(&mut living, 1, 4)), 0);
        living.apply(Input::Beat { connection: 1, number: 1 }, at(4));
        assert_eq!(views(&tick_until(&mut living, 5, 6)), 1, "its first lease is over");
        assert_eq!(living.view().before, Some(first));
        let known = View::clone(living.view());

        let mut fresh = register().with_salt(new);
        fresh.apply(hello(2, 2), at(0));
        assert!(epoch(&fresh) < epoch(&living) && epoch(&fresh).term > 0);
        let effects = fresh.apply(reporting(1, 1, known), at(1));
        assert!(
            !effects.iter().any(|effect| matches!(effect, Effect::Show(1, _))),
            "not the view without it"
        );
        assert!(epoch(&fresh) > epoch(&living));
        assert_eq!(names(&fresh), ["gateway-1", "gateway-2"]);
        fresh.apply(Input::Beat { connection: 2, number: 1 }, at(1));
        assert_eq!(views(&tick_until(&mut fresh, 2, 5)), 0, "it has grown up by the report");
    }
}

#[test]
fn member_removed_by_an_earlier_register_learns_it() {
    let mut core = register();
    core.apply(reporting(1, 1, reported(5, 7, &[1])), at(0));
    assert!(was_dismissed(&core.apply(reporting(2, 2, reported(5, 6, &[1, 2])), at(0)), 2));
}

#[test]
fn a_register_that_was_asleep_waits_for_what_it_has_not_read() {
    let mut core = register();
    core.apply(hello(1, 1), at(0));
    tick_until(&mut core, 1, 4);
    core.apply(Input::Tick, at(60));
    assert_eq!(core.view().members.len(), 1);
    tick_until(&mut core, 61, 65);
    assert!(core.view().members.is_empty());
}

#[test]
fn limits_and_nonsense_are_refused_and_change_nothing() {
    let mut core = register();
    for bits in 1..=8 {
        core.apply(hello(bits, bits), at(0));
    }
    let before = epoch(&core);
    assert!(matches!(core.apply(hello(9, 9), at(0))[0], Effect::Refuse(9, RegisterRefusal::Full(_))));
    let nobody = Input::Hello { connection: 10, origin: PeerOrigin::default(), hello: Box::default() };
    assert!(matches!(core.apply(nobody, at(0))[0], Effect::Refuse(10, RegisterRefusal::Invalid(_))));
    core.apply(reporting(11, 1, reported(u64::MAX, 1, &[1])), at(0));
    assert_eq!(epoch(&core), before);
    let unknown = Input::Leave { incarnation: id(99).to_string() };
    assert!(matches!(core.apply(unknown, at(0))[0], Effect::Answer(Err(RegisterRefusal::NotFound(_)))));
    let malformed = Input::Leave { incarnation: "x".into() };
    assert!(matches!(core.apply(malformed, at(0))[0], Effect::Answer(Err(RegisterRefusal::Invalid(_)))));
}

/// A register whose first lease is over, with this gateway, which beats on.
fn living(salt: u16, bits: u64) -> Core {
    let mut core = register().with_salt(salt);
    core.apply(hello(1, bits), at(0));
    for secs in 1..=6 {
        core.apply(Input::Beat { connection: 1, number: secs }, at(secs));
        core.apply(Input::Tick, at(secs));
    }
    core
}

#[test]
fn false_report_of_a_high_term_does_not_end_the_terms() {
    let mut core = living(7, 1);
    let before = View::clone(core.view());
    for term in [(1 << 48) - 1, 1 << 40, 1 << 62, u64::MAX] {
        let refused = core.apply(reporting(2, 2, reported(term, 9, &[])), at(6));
        assert!(matches!(&refused[..], [Effect::Refuse(2, RegisterRefusal::Unavailable(_))]), "{refused:?}");
        core.apply(Input::StepDown { epoch: Epoch::new(term, 1), register: String::new() }, at(6));
        assert_eq!(**core.view(), before);
    }
    // One near the own term is taken over, and after it every register takes over the one before.
    core.apply(reporting(3, 3, reported(before.epoch.unwrap().term + (1 << 31), 9, &[1])), at(6));
    for salt in 8..108 {
        let known = View::clone(core.view());
        core = register().with_salt(salt);
        core.apply(reporting(1, 1, known.clone()), at(0));
        assert!(epoch(&core) > known.epoch.unwrap());
        assert!(core.view().members.iter().any(|member| member.name == "gateway-1"));
    }
}

#[test]
fn fresh_register_waits_for_the_living_members_before_it_believes_a_very_high_term() {
    let high = TERM_FIRST_MAX + TERM_STEP;
    let known = View::clone(living(7, 1).view());
    // A liar is the first to come, but then the cluster does.
    let mut core = register().with_salt(8);
    core.apply(reporting(1, 9, reported(high, 1, &[9])), at(0));
    core.apply(reporting(2, 1, known), at(1));
    assert_eq!(names(&core), ["gateway-1"]);
    for secs in [2, 5, 9, 60] {
        core.apply(reporting(10 + secs, 9, reported(high, 1, &[9])), at(secs));
        assert!(epoch(&core).term < 1 << 20);
    }
    // Nobody else has come for a lease.
    let mut core = register().with_salt(8);
    tick_until(&mut core, 1, 9);
    core.apply(reporting(1, 1, reported(high, 7, &[1])), at(9));
    assert!(epoch(&core).term > high);
    // A cluster that has come so far comes back after a lease, whatever newcomers do.
    let mut core = register().with_salt(9);
    core.apply(hello(1, 2), at(0));
    core.apply(reporting(2, 1, reported(high, 7, &[1])), at(1));
    assert_eq!(names(&core), ["gateway-2"]);
    for secs in 1..=6 {
        core.apply(Input::Beat { connection: 1, number: secs }, at(secs));
        core.apply(Input::Tick, at(secs));
    }
    core.apply(reporting(3, 1, reported(high, 7, &[1])), at(6));
    assert_eq!(names(&core), ["gateway-1", "gateway-2"]);
    assert!(epoch(&core).term > high);
}

#[test]
fn newcomer_that_does_not_fit_into_a_view_is_refused() {
    let mut core = register();
    core.view_bytes_max = 3000;
    let fat =
        |bits: u64, services: usize| Member { services: vec!["s".repeat(100); services], ..member(bits) };
    core.apply(hello_of(1, fat(1, 10), None), at(0));
    core.apply(hello_of(2, fat(2, 10), None), at(0));
    for services in [10, 9] {
        let refused = core.apply(hello_of(3, fat(3, services), None), at(0));
        let [Effect::Refuse(3, RegisterRefusal::Full(sentence))] = &refused[..] else {
            panic!("{refused:?}")
        };
        assert!(sentence.contains("3000"), "{sentence}");
    }
    core.apply(hello(4, 4), at(0));
    // A known member may come back with as much as before, but not with more than there is room for.
    assert_eq!(views(&core.apply(hello_of(5, fat(1, 10), None), at(1))), 0);
    assert!(matches!(
        core.apply(hello_of(6, fat(1, 20), None), at(1))[0],
        Effect::Refuse(6, RegisterRefusal::Full(_))
    ));
    // What others report is taken in as far as there is room.
    let members = (1..9).map(|bits| fat(bits, 5)).collect();
    let view = View { epoch: Some(Epoch::new(9, 1)), members, before: None };
    core.apply(hello_of(7, member(4), Some(view)), at(1));
    let encoded = core.view().members.iter().map(broadgate_proto::view::member_bytes).sum::<usize>();
    assert!(core.view().members.len() > 3 && encoded <= core.members_bytes && core.members_bytes <= 3000);
    // What leaves makes room.
    core.apply(Input::Leave { incarnation: id(2).to_string() }, at(1));
    core.apply(hello_of(8, fat(8, 5), None), at(1));
    let in_view = core.view().members.iter().map(check::bytes_in_view).sum::<usize>();
    assert_eq!(core.members_bytes, in_view);
}

#[test]
fn operators_take_out_and_drain() {
    let mut core = register();
    core.apply(hello(1, 1), at(0));
    let by = OrderGiver { who: "token:ann".to_owned(), ..OrderGiver::default() };
    let drain = Input::Drain { gateway: "gateway-1".into(), by: Some(Box::new(by.clone())) };
    let drained = core.apply(drain, at(0));
    assert_eq!(drained[0], Effect::Reply(1, Reply::Drain(DrainOrder { by: Some(by) })));
    assert!(matches!(&drained[1], Effect::Answer(Ok(answer)) if answer.incarnation == id(1)));
    core.apply(Input::Lost { connection: 1 }, at(0));
    let away = core.apply(Input::Drain { gateway: id(1).to_string(), by: None }, at(0));
    assert!(matches!(away[0], Effect::Answer(Err(RegisterRefusal::Unavailable(_)))));
    let left = core.apply(Input::Leave { incarnation: id(1).to_string() }, at(1));
    let answer = OperatorAnswer { epoch: Epoch::new(1, 2), incarnation: id(1) };
    assert!(left.contains(&Effect::Answer(Ok(answer))), "{left:?}");
    assert!(core.view().members.is_empty());
}

/// One step of a random life of a register.
#[derive(Debug, Clone)]
enum Event {
    Hello { who: u64, view: Option<(u64, u64, Vec<u64>)> },
    Input(u8, u64),
    Pass(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let view = (1..4_u64, 1..6_u64, prop::collection::vec(1..7_u64, 0..6));
    let hello =
        (1..7_u64, prop::option::weighted(0.3, view)).prop_map(|(who, view)| Event::Hello { who, view });
    let input = (0..5_u8, 0..40_u64).prop_map(|(kind, connection)| Event::Input(kind, connection));
    prop::collection::vec(prop_oneof![3 => hello, 2 => input, 4 => (1..4_u64).prop_map(Event::Pass)], 1..80)
}

fn plain(kind: u8, connection: u64) -> Input {
    match kind {
        0 => Input::Beat { connection, number: 1 },
        1 => Input::SetState { connection, state: MemberState::Draining },
        2 => Input::Goodbye { connection },
        3 => Input::Lost { connection },
        _ => Input::Leave { incarnation: id(connection % 7).to_string() },
    }
}

/// What must hold after every input, whatever came before.
struct Watcher {
    last: Epoch,
    buried: BTreeSet<Incarnation>,
}

impl Watcher {
    fn look(&mut self, core: &Core, input: &Input, effects: &[Effect], now: Now) {
        // A member that leaves is shown to go before it is gone.
        let most = if matches!(input, Input::Goodbye { .. }) { 2 } else { 1 };
        assert!(views(effects) <= most, "one input, one epoch: {input:?}");
        if let Input::Hello { hello, .. } = input
            && let Some(Effect::View(view)) = effects.iter().find(|effect| matches!(effect, Effect::View(_)))
            && effects.iter().any(|effect| matches!(effect, Effect::Happened(Happened::TookOver { .. })))
        {
            let reported = hello.view.as_ref().unwrap().epoch.unwrap();
            assert!(view.epoch.unwrap().term > reported.term);
        }
        for effect in effects {
            match effect {
                Effect::View(view) => {
                    let epoch = view.epoch.unwrap();
                    assert!(epoch > self.last, "{epoch} after {}", self.last);
                    let same_term = epoch.term == self.last.term;
                    assert_eq!(epoch.count, if same_term { self.last.count + 1 } else { 1 });
                    assert!(view.members.is_sorted_by(|a, b| a.incarnation < b.incarnation));
                    self.last = epoch;
                }
                Effect::Happened(Happened::Removed(member, reason)) => {
                    self.buried.insert(member.incarnation.parse().unwrap());
                    if *reason == RemovalReason::Lease {
                        assert!(now.up >= LEASE, "removed for silence within a lease of the start");
                    }
                }
                _ => {}
            }
        }
        for member in &core.view().members {
            assert!(!self.buried.contains(&member.incarnation.parse().unwrap()), "removed is dead");
        }
        assert_eq!(epoch(core), self.last);
        assert_eq!(core.members_bytes, core.view().members.iter().map(check::bytes_in_view).sum::<usize>());
        assert!(core.view().members.len() <= 8);
        assert_eq!(
            core.connections.len(),
            core.members.values().filter(|one| one.connection.is_some()).count()
        );
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_rules_hold(events in events()) {
        let mut core = register();
        let mut watcher = Watcher { last: Epoch::new(0, 0), buried: BTreeSet::new() };
        let (mut secs, mut next) = (0, 1);
        for event in events {
            let inputs = match event {
                Event::Hello { who, view } => {
                    next += 1;
                    let view = view.map(|(term, count, bits)| reported(term, count, &bits));
                    vec![hello_of(next - 1, member(who), view)]
                }
                Event::Input(kind, connection) => vec![plain(kind, connection)],
                Event::Pass(more) => {
                    secs += more;
                    vec![Input::Tick]
                }
            };
            for input in inputs {
                let effects = core.apply(input.clone(), at(secs));
                watcher.look(&core, &input, &effects, at(secs));
            }
        }
        // Silent members are gone after a lease, and nobody else is needed for that.
        tick_until(&mut core, secs + 1, secs + 1 + 2 * LEASE.as_secs());
        prop_assert!(core.view().members.is_empty());
    }

    #[test]
    fn beating_member_is_never_removed(others in events()) {
        let mut core = register();
        // The steady one's incarnation and connection are out of the others' reach.
        core.apply(hello(1000, 50), at(0));
        let (mut secs, mut next) = (0, 1);
        for event in others {
            match event {
                Event::Hello { who, view } => {
                    let view = view.map(|(term, count, bits)| reported(term, count, &bits));
                    core.apply(hello_of(next, member(who), view), at(secs));
                    next += 1;
                }
                Event::Input(kind, connection) => drop(core.apply(plain(kind, connection), at(secs))),
                Event::Pass(more) => for _ in 0..more {
                    secs += 1;
                    let answered = core.apply(Input::Beat { connection: 1000, number: secs }, at(secs));
                    prop_assert_eq!(answered.len(), 1);
                    core.apply(Input::Tick, at(secs));
                },
            }
            prop_assert!(names(&core).contains(&"gateway-50".to_owned()));
        }
    }
}
