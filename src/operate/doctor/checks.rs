//! The checks: from what is seen of a cluster to what is wrong with it. Pure.
//!
//! What one fault explains is one check's finding: a gateway that does not answer is not also one without links.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use broadgate_business::v1::{GatewayStatus, MemberState};

use crate::{
    operate::doctor::{
        findings::Checked,
        same::same,
        seen::{SeenCluster, SeenGateway},
    },
    output::{bytes, counted},
};

/// A ledger that takes longer to accept a change is worth a warning.
const LEDGER_LAG_ODD: Duration = Duration::from_secs(1);
/// Clocks of two gateways may differ by so much, besides what the question took.
const CLOCKS_APART_MAX_MS: u64 = 2_000;
/// A gateway or its outboxes are nearly full from here on, in percent.
const NEARLY_FULL: u64 = 90;
const OUTBOXES_NEARLY_FULL: u64 = 80;
/// A pause of a process is reported for so long.
const PAUSE_TOLD: Duration = Duration::from_secs(120);
/// Drops that are nobody's own doing: not those of clients that left, or that asked for too much.
const ODD_DROPS: [&str; 6] =
    ["slow", "outboxes_bytes_max", "no_worker", "worker_killer", "busy", "watcher_slow"];

type Decide = fn(&SeenCluster, &mut Checked);

/// Every check: its name, what it asks, and how it decides.
pub(crate) const CHECKS: [(&str, &str, Decide); 17] = [
    ("answers", "does every gateway of the view answer?", answers),
    ("register", "is it heard by all gateways, with a ledger that keeps up?", register),
    ("links", "does every gateway reach every other one, in both directions?", links),
    ("views", "have all gateways installed the same view?", views),
    ("homes", "does every home know what all gateways hold?", homes),
    ("versions", "do all gateways run the same version?", versions),
    ("services", "does a worker take the service of every listener?", services),
    ("same", "are apps and settings the same at all gateways?", same),
    ("clocks", "do the gateways' clocks agree?", clocks),
    ("capacity", "is there room for more clients?", capacity),
    ("files", "does the limit on open files allow clients_max?", files),
    ("secrets", "do all gateways know the same secret?", secrets),
    ("shards", "has every process run all the time?", shards),
    ("outboxes", "do clients read what is sent to them?", outboxes),
    ("workers", "do workers answer, at all gateways?", workers),
    ("webhooks", "do their endpoints take what is posted?", webhooks),
    ("drops", "was anything dropped in the last minutes?", drops),
];

/// What these checks find; all if none is named.
pub(crate) fn check(seen: &SeenCluster, only: &[String]) -> Vec<Checked> {
    let asked = CHECKS.iter().filter(|(name, ..)| only.is_empty() || only.iter().any(|one| one == name));
    let decided = asked.map(|&(name, _, decide)| {
        let mut checked = Checked { name, well: String::new(), findings: Vec::new() };
        decide(seen, &mut checked);
        checked
    });
    decided.collect()
}

fn answers(seen: &SeenCluster, checked: &mut Checked) {
    checked.well = format!("{} of {} gateways", seen.gateways.len(), seen.gateways.len());
    for silent in seen.gateways.iter().filter(|gateway| gateway.status.is_none()) {
        checked.fail(
            format!("{} does not answer: {}", silent.name(), silent.why),
            "look at its process and its host; the register removes it after its lease",
        );
    }
}

fn register(seen: &SeenCluster, checked: &mut Checked) {
    let (mut heard, mut all) = (0, 0);
    for (gateway, status) in seen.answered() {
        let (name, Some(known)) = (gateway.name(), &status.register) else { continue };
        let (address, trouble) = (&known.address, &known.trouble);
        (all, heard) = (all + 1, heard + usize::from(known.heard));
        let colon = if trouble.is_empty() { "" } else { ": " };
        if !known.heard {
            checked.fail(
                format!("{name} does not hear the register {address}{colon}{trouble}"),
                "start a register again, at one of the configured addresses; traffic goes on meanwhile",
            );
        } else if !known.outside.is_empty() {
            checked.fail(
                format!("{name}: {trouble}{colon}only another register knows {}", known.outside.join(", ")),
                "two registers have members: stop the one that should not run",
            );
        } else if !trouble.is_empty() {
            checked.warn(format!("{name}: register {address}: {trouble}"), "RUNBOOK.md has this sentence");
        }
        if known.heard && u64::from(known.ledger_lag_ms) >= LEDGER_LAG_ODD.as_millis() as u64 {
            let (ledger, lag) = (&known.ledger, known.ledger_lag_ms);
            checked.warn(
                format!("{name}: register {address}: {ledger} has not accepted a change for {lag} ms"),
                format!("look at {ledger}: nobody can join or leave meanwhile"),
            );
        }
    }
    checked.well = format!("heard by {heard} of {all}");
}

/// Names of the gateways that one reaches.
fn reaches(status: &GatewayStatus, name: &str) -> bool {
    status.peers.iter().any(|peer| peer == name)
}

/// Pairs of gateways, each with whether the first reaches the second.
fn pairs(seen: &SeenCluster) -> impl Iterator<Item = (&SeenGateway, &SeenGateway, bool)> {
    seen.answered().flat_map(move |(from, status)| {
        let others = seen.answered().filter(|(to, _)| to.member.incarnation != from.member.incarnation);
        others.map(move |(to, _)| (from, to, reaches(status, to.name())))
    })
}

fn links(seen: &SeenCluster, checked: &mut Checked) {
    let mut up = 0;
    for (from, to, is_up) in pairs(seen) {
        if is_up {
            up += 1;
            continue;
        }
        let back = to.status.as_ref().is_some_and(|status| reaches(status, from.name()));
        let (from, to_name) = (from.name(), to.name());
        let other = if back { format!("; {to_name} reaches {from}") } else { String::new() };
        let advice = if back {
            format!("is {from} -> {} open one way only?", to.member.address)
        } else {
            format!("is {} open to {from}?", to.member.address)
        };
        checked.fail(format!("{from} does not reach {to_name}{other}"), advice);
    }
    checked.well = format!("{} up", counted(up, "link"));
}

fn views(seen: &SeenCluster, checked: &mut Checked) {
    let newest = seen.known().filter_map(|(_, evidence)| evidence.epoch).max().unwrap_or_default();
    for (gateway, evidence) in seen.known() {
        let (name, epoch) = (gateway.name(), evidence.epoch.unwrap_or_default());
        if !evidence.inside {
            checked.fail(
                format!("{name} is outside the view that it has installed, {epoch}"),
                "it joins again by itself; if it does not, restart it",
            );
        } else if epoch != newest {
            checked.fail(
                format!("{name} is at view {epoch}, others are at {newest}"),
                "does it hear the register, and its peers? It catches up by itself",
            );
        }
    }
    checked.well = format!("all are at {newest}");
}

fn homes(seen: &SeenCluster, checked: &mut Checked) {
    let is_cut = |gateway: &SeenGateway| {
        let own = &gateway.member.incarnation;
        seen.gateways.iter().any(|other| other.status.is_none())
            || pairs(seen).any(|(from, to, is_up)| {
                !is_up && (from.member.incarnation == *own || to.member.incarnation == *own)
            })
    };
    let mut parked = 0;
    // What a silent gateway or a cut link explains is said there.
    for (gateway, evidence) in seen.known().filter(|(gateway, _)| !is_cut(gateway)) {
        parked += evidence.parked;
        if evidence.unsynced > 0 {
            let others = counted(evidence.unsynced.into(), "gateway");
            checked.warn(
                format!("{} waits for what {others} hold: its answers are incomplete", gateway.name()),
                "it passes within seconds of a new view; if it stays, look for `peer link` in the logs",
            );
        }
    }
    checked.well = format!("all have synced, {} parked", counted(parked, "command"));
}

fn versions(seen: &SeenCluster, checked: &mut Checked) {
    let versions: BTreeSet<&str> =
        seen.gateways.iter().map(|gateway| gateway.member.version.as_str()).collect();
    let all: Vec<&str> = versions.into_iter().collect();
    checked.well = all.join(", ");
    if all.len() > 1 {
        let sentence = format!("gateways run different versions: {}", all.join(", "));
        checked.warn(sentence, "finish the update: a version and the one before it work together");
    }
    for (gateway, _) in seen.answered().filter(|(gateway, _)| gateway.evidence().is_none()) {
        checked.warn(
            format!("{} gives no evidence: most checks leave it out", gateway.name()),
            "it is of an earlier version: update it",
        );
    }
}

fn services(seen: &SeenCluster, checked: &mut Checked) {
    let mut taken = BTreeSet::new();
    // Workers of gateways that did not answer are not known here.
    for (gateway, status) in seen.answered() {
        let mut services: Vec<_> = status.listener_services.iter().collect();
        services.sort();
        for (listener, service) in services {
            if seen.workers.iter().any(|worker| worker.services.contains(service)) {
                taken.insert(service.as_str());
                continue;
            }
            let held = gateway.evidence().map_or(0, |evidence| evidence.held);
            let held = if held > 0 { format!(", {} wait", counted(held, "client")) } else { String::new() };
            checked.warn(
                format!(
                    "{}: listener {listener:?} names service {service:?}: no worker takes it{held}",
                    gateway.name()
                ),
                "start a worker for it, or set service = \"\" where clients send nothing",
            );
        }
    }
    checked.well = match taken.len() {
        0 => "no listener needs a worker".to_owned(),
        _ => format!("workers take {}", taken.into_iter().collect::<Vec<_>>().join(", ")),
    };
}

fn clocks(seen: &SeenCluster, checked: &mut Checked) {
    // When a gateway looked at its clock is known only as between question and answer.
    let offsets: Vec<(&str, i128, u64)> = seen
        .known()
        .map(|(gateway, evidence)| {
            let (before, after) = gateway.asked_ms;
            let half = after.saturating_sub(before) / 2;
            (gateway.name(), i128::from(evidence.now_ms) - i128::from(before + half), half)
        })
        .collect();
    let mut sorted: Vec<i128> = offsets.iter().map(|(_, offset, _)| *offset).collect();
    sorted.sort_unstable();
    let Some(&middle) = sorted.get((sorted.len().max(1) - 1) / 2) else { return };
    for (name, offset, half) in offsets {
        let apart = u64::try_from((offset - middle).unsigned_abs()).unwrap_or(u64::MAX);
        if apart > CLOCKS_APART_MAX_MS + 2 * half {
            let way = if offset > middle { "ahead of" } else { "behind" };
            checked.warn(
                format!("the clock of {name} is {} s {way} the others'", apart / 1000),
                "is its host's time synchronised (chrony, systemd-timesyncd)?",
            );
        }
    }
    checked.well = "they agree".to_owned();
}

fn capacity(seen: &SeenCluster, checked: &mut Checked) {
    let (mut clients, mut room) = (0, 0);
    for (gateway, status) in seen.answered() {
        let Some(evidence) = &status.evidence else { continue };
        let (name, max) = (gateway.name(), evidence.clients_max);
        clients += status.clients;
        room += max;
        let said = format!("{name} has {} of {max} clients", status.clients);
        let advice = "add a gateway, or raise clients_max";
        if status.clients >= max {
            checked.fail(format!("{said}: it refuses others"), advice);
        } else if status.clients * 100 >= max * NEARLY_FULL {
            checked.warn(said, advice);
        }
    }
    checked.well = format!("{clients} of {room} clients");
}

fn files(seen: &SeenCluster, checked: &mut Checked) {
    for (gateway, evidence) in seen.known() {
        let (name, max, wanted) = (gateway.name(), evidence.clients_max, evidence.clients_wanted);
        if max < wanted {
            checked.warn(
                format!(
                    "{name}: the limit on open files allows {max} of the {wanted} clients of clients_max"
                ),
                "raise `ulimit -n` (LimitNOFILE= in a systemd unit), or lower clients_max",
            );
        }
    }
    checked.well = "they suffice".to_owned();
}

fn secrets(seen: &SeenCluster, checked: &mut Checked) {
    let sets = || seen.known().map(|(gateway, evidence)| (gateway.name(), &evidence.secrets));
    let all: BTreeSet<u64> = sets().flat_map(|(_, secrets)| secrets.iter().copied()).collect();
    let by_size = |size: usize| -> Vec<&str> {
        sets().filter(|(_, secrets)| secrets.len() == size).map(|(name, _)| name).collect()
    };
    let advice = "finish the change: give every process only the new secret, and restart it";
    match (all.len(), by_size(2)) {
        (0 | 1, _) => {}
        (_, both) if both.len() == sets().count() => {
            checked.warn("every gateway knows two secrets, the new one and the old one", advice);
        }
        (_, both) if both.is_empty() => {
            checked.warn("gateways know different secrets, and each only one", "see \"Change the secret\"");
        }
        (_, both) => checked.warn(
            format!("{} know the new and the old secret, the other gateways one of them", both.join(", ")),
            advice,
        ),
    }
    checked.well = if all.is_empty() { "none is set" } else { "the same everywhere" }.to_owned();
}

fn shards(seen: &SeenCluster, checked: &mut Checked) {
    for (gateway, evidence) in seen.known() {
        let (pause, ago) =
            (Duration::from_millis(evidence.pause_ms), Duration::from_millis(evidence.pause_age_ms));
        if !pause.is_zero() && ago <= PAUSE_TOLD {
            let (name, pause, ago) = (gateway.name(), pause.as_secs_f64().round(), ago.as_secs());
            checked.warn(
                format!("{name} was not running for {pause} s, {ago} s ago"),
                "look at its host: was it paused, or without memory or CPU?",
            );
        }
    }
    checked.well = "they have run all the time".to_owned();
}

fn outboxes(seen: &SeenCluster, checked: &mut Checked) {
    let (mut waiting, mut slow) = (0, 0);
    for (gateway, evidence) in seen.known() {
        let (held, max) = (evidence.outboxes_bytes, evidence.outboxes_bytes_max);
        waiting += held;
        slow += evidence.slow;
        if held.saturating_mul(100) >= max.saturating_mul(OUTBOXES_NEARLY_FULL) {
            checked.warn(
                format!(
                    "{} of {} wait in the outboxes of {}, {} slow",
                    bytes(held),
                    bytes(max),
                    gateway.name(),
                    counted(evidence.slow, "client")
                ),
                "`broadgate clients --slow` lists them: beyond the limit the fullest are closed",
            );
        }
    }
    checked.well = format!("{} wait, {} slow", bytes(waiting), counted(slow, "client"));
}

fn workers(seen: &SeenCluster, checked: &mut Checked) {
    let mut silent: BTreeMap<&str, (u32, u64)> = BTreeMap::new();
    for worker in seen.known().flat_map(|(_, evidence)| &evidence.silent_workers) {
        let all = silent.entry(&worker.name).or_default();
        *all = (all.0.max(worker.seconds), all.1 + worker.events_unanswered);
    }
    for (name, (seconds, events)) in silent {
        checked.warn(
            format!("{name} has answered none of {} for {seconds} s", counted(events, "event")),
            "look at its log: does a handler hang? `broadgate clients --paused` lists who waits",
        );
    }
    let ready = seen.gateways.iter().filter(|gateway| gateway.member.state() == MemberState::Ready);
    let ready = u32::try_from(ready.count()).unwrap_or(u32::MAX);
    // Sums over gateways that answered the one that was asked.
    for worker in seen.workers.iter().filter(|worker| seen.complete && worker.gateways < ready) {
        checked.warn(
            format!("{} is attached to {} of {ready} gateways", worker.name, worker.gateways),
            "can it reach the internal port of every gateway? Its log names those that it cannot",
        );
    }
    checked.well = counted(seen.workers.len() as u64, "worker");
}

fn webhooks(seen: &SeenCluster, checked: &mut Checked) {
    let mut failing: BTreeMap<(&str, &str), (Vec<&str>, &str)> = BTreeMap::new();
    for (gateway, evidence) in seen.known() {
        for hook in &evidence.webhooks {
            let (gateways, why) = failing.entry((&hook.app, &hook.url)).or_default();
            gateways.push(gateway.name());
            *why = &hook.why;
        }
    }
    for ((app, url), (gateways, why)) in failing {
        checked.warn(
            format!("{url} of app {app:?} fails at {}: {why}", gateways.join(", ")),
            "look at the receiver; posts are repeated for five minutes",
        );
    }
    checked.well = "none fails".to_owned();
}

fn drops(seen: &SeenCluster, checked: &mut Checked) {
    for (gateway, evidence) in seen.known() {
        let odd = ODD_DROPS.iter().filter_map(|reason| Some((reason, evidence.drops.get(*reason)?)));
        let odd: Vec<String> = odd.map(|(reason, count)| format!("{count} {reason}")).collect();
        if !odd.is_empty() {
            checked.warn(
                format!("{} dropped in the last minutes: {}", gateway.name(), odd.join(", ")),
                "RUNBOOK.md has each reason: broadgate_gateway_drops_total",
            );
        }
    }
    checked.well = "nothing in the last minutes".to_owned();
}
