//! Limits that clients share and that refuse them: of apps, their channels, and addresses. Pure.

use std::collections::BTreeMap;

use broadgate_business::v1::GatewayEvidence;
use broadgate_proto::{limits::LIMIT_REFUSALS_ODD, v1::AppHashes};

use crate::operate::doctor::{
    findings::{Checked, some},
    seen::SeenCluster,
};

/// One limit of one app, at all gateways.
#[derive(Default)]
struct MetEverywhere<'a> {
    refused: u64,
    gateways: Vec<&'a str>,
    place: &'a str,
    allowed: u64,
}

pub(super) fn limits(seen: &SeenCluster, checked: &mut Checked) {
    let mut all: BTreeMap<(&str, &str), MetEverywhere<'_>> = BTreeMap::new();
    for (gateway, evidence) in seen.known() {
        for met in &evidence.limits_met {
            let known = all.entry((&met.app, &met.limit)).or_default();
            known.refused += met.refused;
            known.gateways.push(gateway.name());
            known.place = &met.place;
            known.allowed = known.allowed.max(met.allowed);
        }
    }
    // 0: the limit has been taken away since.
    let odd = |met: &MetEverywhere<'_>| met.refused >= LIMIT_REFUSALS_ODD && met.allowed > 0;
    for ((app, limit), met) in all.into_iter().filter(|(_, met)| odd(met)) {
        let refused = format!("{} refused in the last minutes, at {}", met.refused, some(&met.gateways));
        let MetEverywhere { place, allowed, .. } = met;
        match limit {
            "connections_max" => checked.warn(
                format!("{}: {refused}", connections(seen, app, &met)),
                format!(
                    "raise it in the app's settings if these are its users: `broadgate why --app {app}` names who was \
                     refused, `broadgate clients --app {app}` who is connected; RUNBOOK \"… connections (connections_max)\""
                ),
            ),
            "limits.presence_members_max" => checked.warn(
                format!("app {app:?}: channel {place:?} has its {allowed} members ({limit}): {refused}"),
                format!(
                    "raise it in the app's [apps.limits], or divide the users among channels: `broadgate roster {place} \
                     --app {app}` lists who is in it"
                ),
            ),
            "clients_per_ip_max" => checked.warn(
                format!("address {place} has its {allowed} connections ({limit}): {refused}"),
                "is that a proxy? Then set trusted_proxies: all clients count for its address; else raise the limit if \
                 many users share the address",
            ),
            _ => checked.warn(
                format!("app {app:?} meets its limit {limit}: {refused}"),
                format!("`broadgate why --app {app}` names who was refused"),
            ),
        }
    }
    checked.well = "no app and no address refuses for want of room".to_owned();
}

/// Which of an app's two limits of connections is met, with its setting.
fn connections(seen: &SeenCluster, app: &str, met: &MetEverywhere<'_>) -> String {
    let of_app = |evidence: &GatewayEvidence| -> Option<AppHashes> {
        evidence.apps.iter().find(|one| one.id == app).cloned()
    };
    let known: Vec<(&str, AppHashes)> =
        seen.known().filter_map(|(gateway, evidence)| Some((gateway.name(), of_app(evidence)?))).collect();
    let used: u64 = known.iter().map(|(_, app)| app.clients).sum();
    let max = known.iter().map(|(_, app)| app.connections_max).max().unwrap_or_default();
    let full = known.iter().find(|(name, app)| {
        let per_gateway = app.connections_per_gateway_max;
        met.gateways.contains(name) && per_gateway > 0 && app.clients >= per_gateway
    });
    match full.filter(|_| max == 0 || used < max) {
        Some((name, one)) => format!(
            "app {app:?} has {} of {} connections at {name} (connections_per_gateway_max)",
            one.clients, one.connections_per_gateway_max
        ),
        None if max > 0 => format!("app {app:?} has {used} of {max} connections (connections_max)"),
        None => format!("app {app:?} has as many connections as it may, {} (connections_max)", met.allowed),
    }
}
