//! Who is in the cluster: gateways that answer, members that were removed, the register, links and views. Pure.

use std::{collections::BTreeSet, time::Duration};

use broadgate_business::v1::{Epoch, GatewayStatus, Role};
use broadgate_proto::v1::{RefusedMember, RemovedMember};

use crate::{
    operate::doctor::{
        findings::Checked,
        seen::{SeenCluster, SeenGateway},
    },
    output::{age, age_since_ms, counted},
};

/// A ledger that takes longer to accept a change is worth a warning.
const LEDGER_LAG_ODD: Duration = Duration::from_secs(1);
/// A removed member that has not come back is reported for so long.
const REMOVED_TOLD: Duration = Duration::from_secs(600);
/// And for so long if it has.
const BACK_TOLD: Duration = Duration::from_secs(120);

pub(super) fn answers(seen: &SeenCluster, checked: &mut Checked) {
    checked.well = format!("{} of {} gateways", seen.gateways.len(), seen.gateways.len());
    // That its secret is another one is said there.
    let is_silent = |gateway: &&SeenGateway| gateway.status.is_none() && !seen.refuses_some(gateway.name());
    for silent in seen.gateways.iter().filter(is_silent) {
        checked.fail(
            format!("{} does not answer: {}", silent.name(), silent.why),
            "look at its process and its host; the register removes it after its lease",
        );
    }
}

/// How long ago it was, in words.
pub(super) fn ago(removed: &RemovedMember) -> String {
    age(Duration::from_millis(removed.age_ms))
}

pub(super) fn removed(seen: &SeenCluster, checked: &mut Checked) {
    let within = |removed: &RemovedMember, told| Duration::from_millis(removed.age_ms) <= told;
    for removed in seen.removed.iter().filter(|removed| within(removed, REMOVED_TOLD)) {
        let RemovedMember { name, address, .. } = removed;
        let back = seen.members.iter().find(|member| {
            let is_there = !address.is_empty() && member.address == *address;
            member.role() == removed.role() && (member.name == *name || is_there)
        });
        let said = format!("{name} was removed {} ago: it did not beat", ago(removed));
        match (removed.role(), back) {
            (_, Some(_)) if !within(removed, BACK_TOLD) || is_explained(seen, removed) => {}
            (_, Some(_)) => checked.warn(
                format!("{said}, and is back since"),
                "look at its log and its host: did it crash, or was it cut off from the register?",
            ),
            (Role::Gateway, None) => checked.fail(
                format!("{said}, and its clients have lost it"),
                "look at its process and its host, and start it again; clients reconnect to the others",
            ),
            // That nobody takes its service is said there.
            (_, None) if lacks_worker(seen, removed) => {}
            (_, None) => checked.warn(
                said,
                "look at its process and its host, and start it again; others have taken its clients over",
            ),
        }
    }
    checked.well = "nobody without having left".to_owned();
}

/// Its pause is another check's finding.
fn is_explained(seen: &SeenCluster, removed: &RemovedMember) -> bool {
    seen.known().any(|(gateway, evidence)| gateway.name() == removed.name && evidence.pause_ms > 0)
}

/// Whether it took a service that somebody's clients need, and that no worker takes now.
fn lacks_worker(seen: &SeenCluster, removed: &RemovedMember) -> bool {
    removed.services.iter().any(|service| !seen.takes(service) && seen.needs(service))
}

/// In the sentence of a port that does not know a caller's secret.
const SECRET_TROUBLE: &str = "shared secret";

/// Members that the register keeps out. Of one that is asked itself, or that was in the view before, its own sentence says
/// it.
pub(super) fn refused(seen: &SeenCluster, checked: &mut Checked) {
    let says_so = |refused: &&RefusedMember| {
        let mut answered = seen.answered();
        answered.any(|(gateway, status)| {
            refused.role() == Role::Gateway
                && gateway.name() == refused.name
                && status.register.as_ref().is_some_and(|known| known.refuses)
        })
    };
    for refused in seen.refused.iter().filter(|refused| !says_so(refused)) {
        checked.warn(refused_in_words(refused), refused_what_to_do(&refused.reason));
    }
    checked.well = "nobody is kept out".to_owned();
}

/// "gateway gw-9 at 10.0.0.9:7200 is not in the cluster: the register has refused it 12 times, 3 s ago: why"
pub(crate) fn refused_in_words(refused: &RefusedMember) -> String {
    let RefusedMember { name, address, why, last_at_ms, count, .. } = refused;
    let role = match refused.role() {
        Role::Gateway => "gateway",
        Role::Worker => "worker",
        Role::Unspecified => "a member",
    };
    let name = if name.is_empty() { String::new() } else { format!(" {name}") };
    let times = if *count == 1 { String::new() } else { format!(" {count} times, last") };
    let ago = age_since_ms(*last_at_ms);
    format!(
        "{role}{name} at {address} is not in the cluster: the register has refused it{times} {ago} ago: {why}"
    )
}

/// Where the sentence does not say it.
pub(crate) fn refused_what_to_do(reason: &str) -> &'static str {
    match reason {
        "secret" => "give it the secret of the register and of the others (BROADGATE_SECRET), and restart it",
        "token" => "members have no tokens: give it the shared secret (BROADGATE_SECRET), and restart it",
        "taken" => {
            "is it started twice, or with a copied configuration? `broadgate status` shows the other one"
        }
        "full" => "remove members that are not needed, or raise the limit that it names",
        _ => "correct its configuration: it ends with this sentence, and has to be started again",
    }
}

/// What to do about a register that is not heard: one that answers is there.
fn about_register(trouble: &str, otherwise: &'static str) -> &'static str {
    if trouble.contains(SECRET_TROUBLE) {
        return "give the gateway the secret of the register and of the others (BROADGATE_SECRET), and restart it";
    }
    otherwise
}

pub(super) fn register(seen: &SeenCluster, checked: &mut Checked) {
    let (mut heard, mut all) = (0, 0);
    for (gateway, status) in seen.answered() {
        let (name, Some(known)) = (gateway.name(), &status.register) else { continue };
        let (address, trouble) = (&known.address, &known.trouble);
        (all, heard) = (all + 1, heard + usize::from(known.heard));
        let colon = if trouble.is_empty() { "" } else { ": " };
        if !known.heard && gateway.is_in_no_view() {
            let how = if known.refuses { "is refused by" } else { "has never heard" };
            checked.fail(
                format!("{name} is in no cluster: it {how} the register {address}{colon}{trouble}"),
                about_register(
                    trouble,
                    "is that the register's address (cluster.register), is it started, and is the way open?",
                ),
            );
        } else if !known.heard {
            checked.fail(
                format!("{name} does not hear the register {address}{colon}{trouble}"),
                about_register(
                    trouble,
                    "start a register again, at one of the configured addresses; traffic goes on meanwhile",
                ),
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
pub(super) fn pairs(seen: &SeenCluster) -> impl Iterator<Item = (&SeenGateway, &SeenGateway, bool)> {
    seen.inside().flat_map(move |(from, status)| {
        let others = seen.inside().filter(|(to, _)| to.member.incarnation != from.member.incarnation);
        others.map(move |(to, _)| (from, to, reaches(status, to.name())))
    })
}

pub(super) fn links(seen: &SeenCluster, checked: &mut Checked) {
    let mut up = 0;
    for (from, to, is_up) in pairs(seen) {
        if is_up {
            up += 1;
            continue;
        }
        // That their secrets differ is said there, whichever way the first link was tried.
        if from.is_refused_by(to.name()) || to.is_refused_by(from.name()) {
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

pub(super) fn views(seen: &SeenCluster, checked: &mut Checked) {
    let newest = seen.known().filter_map(|(_, evidence)| evidence.epoch).max().unwrap_or_default();
    for (gateway, evidence) in seen.known() {
        let (name, epoch) = (gateway.name(), evidence.epoch.unwrap_or_default());
        let hears = |status: &GatewayStatus| status.register.as_ref().is_some_and(|known| known.heard);
        if gateway.is_in_no_view() {
            // One that hears no register cannot be in a view.
            if gateway.status.as_ref().is_some_and(hears) {
                checked.fail(
                    format!("{name} is in no view, although it hears the register"),
                    "its log says why the register refused it",
                );
            }
        } else if !evidence.inside {
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

pub(super) fn versions(seen: &SeenCluster, checked: &mut Checked) {
    let of = seen.gateways.iter().map(|gateway| gateway.member.version.as_str());
    let versions: BTreeSet<&str> = of.filter(|version| !version.is_empty()).collect();
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

impl SeenGateway {
    /// It has never installed a view.
    fn is_in_no_view(&self) -> bool {
        self.evidence().is_some_and(|evidence| evidence.epoch.unwrap_or_default() == Epoch::default())
    }
}
