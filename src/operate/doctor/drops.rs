//! What was dropped, other than by clients' own doing. Pure.

use crate::operate::doctor::{findings::Checked, seen::SeenCluster};

/// Drops that are nobody's own doing, with what to do: not those of clients that left, or that asked for too much.
pub(super) const ODD_DROPS: [(&str, &str); 6] = [
    (
        "slow",
        "clients do not read what is sent to them: `broadgate why --app APP`; RUNBOOK \"closed with 4100\"",
    ),
    (
        "outboxes_bytes_max",
        "all clients together do not read: `broadgate clients --slow`; RUNBOOK \"share of outboxes_bytes_max\"",
    ),
    (
        "no_worker",
        "no worker took events in time: `broadgate doctor --only services,workers`; RUNBOOK \"1013\"",
    ),
    ("worker_killer", "workers died of events: `broadgate why --app APP`; RUNBOOK \"closed with 4011\""),
    (
        "busy",
        "clients ask for more than is passed on in time; RUNBOOK \"dropped in the last minutes: … busy\"",
    ),
    (
        "watcher_slow",
        "a program that watches Pusher clients does not keep up; RUNBOOK \"dropped in the last minutes: … watcher_slow\"",
    ),
];

pub(super) fn drops(seen: &SeenCluster, checked: &mut Checked) {
    for (reason, advice) in ODD_DROPS {
        let of = seen.known().filter_map(|(gateway, evidence)| {
            Some(format!("{} {reason} at {}", evidence.drops.get(reason)?, gateway.name()))
        });
        let of: Vec<String> = of.collect();
        if !of.is_empty() {
            checked.warn(format!("dropped in the last minutes: {}", of.join(", ")), advice);
        }
    }
    checked.well = "nothing in the last minutes".to_owned();
}
