//! The checks: from what is seen of a cluster to what is wrong with it. Pure.
//!
//! A check fails where clients are refused, held up or lost, messages are lost, or answers are incomplete; it warns where
//! that may come, or has passed.
//! What one fault explains is one check's finding: a gateway that does not answer is not also one without links.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    operate::doctor::{
        drops::drops,
        findings::{Checked, some},
        limits::limits,
        membership::{answers, links, pairs, refused, register, removed, versions, views},
        same::same,
        secrets::secrets,
        seen::{SeenCluster, SeenGateway},
        workers::{services, workers},
    },
    output::{age, bytes, counted},
};

/// Clocks of two gateways may differ by so much, besides what the question took.
const CLOCKS_APART_MAX_MS: u64 = 2_000;
/// A gateway or its outboxes are nearly full from here on, in percent.
const NEARLY_FULL: u64 = 90;
const OUTBOXES_NEARLY_FULL: u64 = 80;
/// A pause of a process is reported for so long.
const PAUSE_TOLD: Duration = Duration::from_secs(120);

type Decide = fn(&SeenCluster, &mut Checked);

/// Every check: its name, what it asks, and how it decides.
pub(crate) const CHECKS: [(&str, &str, Decide); 24] = [
    ("answers", "does every gateway of the view answer?", answers),
    ("removed", "have members gone only after they left?", removed),
    ("refused", "has the register taken in everybody who asked?", refused),
    ("register", "is it heard by all gateways, with a ledger that keeps up?", register),
    ("links", "does every gateway reach every other one, in both directions?", links),
    ("views", "have all gateways installed the same view?", views),
    ("homes", "does every home know what all gateways hold?", homes),
    ("versions", "do all gateways run the same version?", versions),
    ("services", "does a worker take the service of every listener and app?", services),
    ("same", "are apps and settings the same at all gateways?", same),
    ("apps", "do all gateways use the apps that their files have now?", apps),
    ("tokens", "do all gateways use the tokens that their files have now?", tokens),
    ("redis", "is the Redis of every app read?", redis),
    ("clocks", "do the gateways' clocks agree?", clocks),
    ("capacity", "is there room for more clients?", capacity),
    ("limits", "do apps, their channels and addresses have room for those who come?", limits),
    ("files", "does the limit on open files allow clients_max?", files),
    ("secrets", "do all gateways know the same secret?", secrets),
    ("shards", "has every process run all the time?", shards),
    ("outboxes", "do clients read what is sent to them?", outboxes),
    ("workers", "do workers answer, at all gateways?", workers),
    ("webhooks", "do their endpoints take what is posted?", webhooks),
    ("drops", "was anything dropped in the last minutes?", drops),
    ("audit", "is everything written down that callers do?", audit),
];

/// Those about what gateways have in common: one that is in no cluster cannot know.
const OF_THE_CLUSTER: [&str; 9] =
    ["answers", "removed", "refused", "links", "homes", "versions", "services", "same", "secrets"];

/// What these checks find; all if none is named.
pub(crate) fn check(seen: &SeenCluster, only: &[String]) -> Vec<Checked> {
    let asked = CHECKS.iter().filter(|(name, ..)| only.is_empty() || only.iter().any(|one| one == name));
    let decided = asked.map(|&(name, _, decide)| {
        let mut checked = Checked::new(name, "");
        // What has happened is true without a second look.
        checked.has_happened = name == "removed";
        decide(seen, &mut checked);
        if let Some(alone) = seen.is_of_no_cluster()
            && OF_THE_CLUSTER.contains(&name)
        {
            checked.unknown = format!("{alone} is in no cluster");
        }
        checked
    });
    decided.collect()
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
    for (gateway, evidence) in seen.known().filter(|(gateway, evidence)| evidence.inside && !is_cut(gateway))
    {
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

fn apps(seen: &SeenCluster, checked: &mut Checked) {
    // All gateways may have the same file.
    let mut stale: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (gateway, evidence) in seen.known().filter(|(_, evidence)| !evidence.apps_stale.is_empty()) {
        stale.entry(&evidence.apps_stale).or_default().push(gateway.name());
    }
    for (why, gateways) in stale {
        let verb = if gateways.len() == 1 { "goes" } else { "go" };
        checked.warn(
            format!("{} {verb} on with the former apps: {why}", some(&gateways)),
            "correct the file: the gateway reads it again by itself; `broadgate apps` says whether it can be used",
        );
    }
    checked.well = "as their files are".to_owned();
}

fn tokens(seen: &SeenCluster, checked: &mut Checked) {
    let mut stale: BTreeMap<&str, (Vec<&str>, u64)> = BTreeMap::new();
    for (gateway, evidence) in seen.known().filter(|(_, evidence)| !evidence.tokens_stale.is_empty()) {
        let ms = evidence.now_ms.saturating_sub(evidence.tokens_stale_since_ms);
        let (gateways, longest) = stale.entry(&evidence.tokens_stale).or_default();
        gateways.push(gateway.name());
        *longest = ms.max(*longest);
    }
    for (why, (gateways, ms)) in stale {
        let verb = if gateways.len() == 1 { "goes" } else { "go" };
        checked.warn(
            format!(
                "{} {verb} on with the tokens of {} ago, and one that was removed since still counts: {why}",
                some(&gateways),
                age(Duration::from_millis(ms))
            ),
            "correct the file: the gateway reads it again by itself; `broadgate token list --file FILE` says whether it \
             can be used",
        );
    }
    checked.well = "as their files are".to_owned();
}

fn redis(seen: &SeenCluster, checked: &mut Checked) {
    let mut read = 0;
    for (gateway, status) in seen.answered() {
        for reader in &status.redis_readers {
            let said = format!("{}: Redis of app {:?}, {}", gateway.name(), reader.app, reader.url);
            let trouble = &reader.trouble;
            read += 1;
            if !reader.connected {
                checked.fail(
                    format!("{said} is not read: {trouble}"),
                    "what is published meanwhile is lost for channels of this gateway; it tries again by itself",
                );
            } else if !trouble.is_empty() {
                checked.warn(format!("{said}: {trouble}"), "RUNBOOK.md has this sentence");
            }
        }
    }
    checked.well =
        if read == 0 { "no app has one".to_owned() } else { format!("{} read", counted(read, "connection")) };
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

fn audit(seen: &SeenCluster, checked: &mut Checked) {
    checked.well = "every line is written".to_owned();
    for (gateway, status) in seen.answered() {
        let trouble = status.evidence.as_ref().map_or("", |evidence| &evidence.audit_trouble);
        if !trouble.is_empty() {
            checked.fail(
                format!("{} loses lines of the audit: {trouble}", gateway.name()),
                "make room on that disk, or let the gateway write there; what is lost is in `broadgate events`",
            );
        }
    }
}
