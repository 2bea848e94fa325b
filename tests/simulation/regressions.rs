//! Scripts that failed once, as short as they were found. Each is a story; the commit that mended it
//! tells why.

use std::time::Duration;

use broadgate_topics::Topic;

use super::{
    net::REGISTER,
    run,
    script::{Action, Action::*, Script, Step},
};

/// Runs all; prints what does not hold.
pub fn all() -> bool {
    let tests = [
        ("who left while a link was broken is not known for ever", missed_while_broken()),
        ("an order that a later view has overtaken is repeated", overtaken_order()),
        ("nobody left because a new home has not heard yet", not_heard_yet()),
        ("what a view lost that others did not see is said again", lost_in_between()),
        ("two registers that take over one view name theirs apart", two_registers()),
        ("who finds a fresh register first does not put the others out", first_comer()),
        ("false report of a high term does not keep the members from the next register", false_report()),
        ("a register that has stepped down names no view as one before", Script::two_registers(495)),
    ];
    let mut good = true;
    for (name, script) in tests {
        let violations = run(&script, None).violations;
        println!("{} {name}", if violations.is_empty() { "ok    " } else { "FAILED" });
        for violation in &violations {
            println!("    ({}) {}", violation.rule, violation.text);
        }
        good &= violations.is_empty();
    }
    good
}

/// The seed, hosts, callers, people and groups, length in milliseconds, and the steps: number, time, what.
fn script(
    seed: u64,
    [hosts, callers, clients, groups]: [usize; 4],
    millis: u64,
    steps: Vec<(u64, u64, Action)>,
) -> Script {
    let length = Duration::from_millis(millis);
    let step = |(no, at, what)| Step { no, at: Duration::from_millis(at), what };
    let steps = steps.into_iter().map(step).collect();
    Script {
        seed,
        hosts,
        callers,
        clients,
        groups: groups as u64,
        length,
        calm: false,
        ledger: false,
        registers: Vec::new(),
        steps,
    }
}

fn group(name: &str) -> Topic {
    Topic::group("a", name)
}

const fn start(host: usize) -> Action {
    Start { host, ring_version: 1 }
}

fn join(caller: usize, person: usize, name: &str, user: &str) -> Action {
    Join { caller, person, topic: group(name), user: Some(user.to_owned()) }
}

fn missed_while_broken() -> Script {
    let steps = vec![
        (0, 279, start(0)),
        (2, 87, start(2)),
        (9, 2112, Connect { person: 6, host: 0 }),
        (36, 5002, Send { caller: 1, topics: vec![group("g0")], times: 2 }),
        (37, 5103, Connect { person: 9, host: 0 }),
        (103, 12_489, join(1, 6, "p1", "user0")),
        (128, 15_628, join(2, 9, "p1", "user3")),
        (161, 20_274, Pause { host: 2, millis: 2680 }),
        (177, 22_328, Close { person: 9 }),
    ];
    script(56, [4, 3, 10, 2], 24_405, steps)
}

fn overtaken_order() -> Script {
    let uid = Topic::uid("a", "u0");
    let steps = vec![
        (0, 245, start(0)),
        (1, 267, start(1)),
        (6, 1880, Connect { person: 4, host: 0 }),
        (7, 2314, Connect { person: 5, host: 1 }),
        (78, 10_445, Hole { from: 0, to: REGISTER, millis: 8237 }),
        (128, 17_227, Bind { caller: 3, person: 5, topic: uid.clone() }),
        (130, 17_488, Pause { host: 1, millis: 8357 }),
        (138, 18_391, RegisterStop { millis: 614 }),
        (139, 18_628, Send { caller: 1, topics: vec![uid.clone()], times: 1 }),
        (144, 19_396, Bind { caller: 0, person: 4, topic: uid }),
    ];
    script(1588, [2, 4, 9, 1], 22_033, steps)
}

fn not_heard_yet() -> Script {
    let steps = vec![
        (0, 145, start(0)),
        (1, 318, start(1)),
        (3, 422, start(3)),
        (7, 2426, Connect { person: 3, host: 1 }),
        (8, 1921, Connect { person: 4, host: 3 }),
        (19, 3128, join(3, 3, "p0", "user3")),
        (105, 13_536, join(1, 4, "p0", "user1")),
        (119, 15_422, Island { host: 1, but: 0, by_millis: 239, millis: 8213 }),
        (126, 16_076, Crash { host: 0, silently: false }),
        (145, 17_896, start(0)),
    ];
    script(3158, [4, 4, 11, 2], 23_481, steps)
}

fn lost_in_between() -> Script {
    let steps = vec![
        (0, 449, start(0)),
        (1, 55, start(1)),
        (2, 180, start(2)),
        (3, 84, start(3)),
        (4, 482, start(4)),
        (9, 1658, Connect { person: 4, host: 4 }),
        (66, 9383, Crash { host: 4, silently: true }),
        (67, 9608, RegisterStop { millis: 1700 }),
        (84, 11_709, Crash { host: 1, silently: false }),
        (92, 12_681, Hole { from: 2, to: REGISTER, millis: 8245 }),
        (145, 19_007, join(3, 4, "p0", "user0")),
        (150, 19_554, RegisterStop { millis: 8494 }),
    ];
    script(3808, [5, 4, 8, 3], 19_765, steps)
}

fn two_registers() -> Script {
    let steps = vec![
        (42, 6756, Island { host: 0, but: 3, by_millis: 1155, millis: 8220 }),
        (94, 13_531, start(1)),
        (96, 13_821, Start { host: 0, ring_version: 2 }),
        (101, 14_593, RegisterStop { millis: 789 }),
        (106, 15_183, Pause { host: 0, millis: 5002 }),
        (113, 16_124, Pause { host: 1, millis: 8323 }),
        (142, 19_487, RegisterStop { millis: 410 }),
    ];
    script(5775, [4, 2, 7, 2], 25_506, steps)
}

fn false_report() -> Script {
    let steps = vec![
        (0, 180, start(0)),
        (1, 200, start(1)),
        (2, 2000, Connect { person: 1, host: 0 }),
        (3, 9000, FalseReport { term: (1 << 48) - 1 }),
        (4, 9100, FalseReport { term: u64::MAX - 1 }),
        (5, 12_000, RegisterStop { millis: 700 }),
        (6, 16_000, start(2)),
    ];
    script(7, [3, 2, 4, 2], 22_000, steps)
}

/// The newcomer reaches the fresh register before the member that knows a view.
fn first_comer() -> Script {
    let steps = vec![(1, 180, start(1)), (21, 4873, RegisterStop { millis: 1672 }), (27, 5723, start(2))];
    script(1018, [3, 2, 6, 2], 23_552, steps)
}
