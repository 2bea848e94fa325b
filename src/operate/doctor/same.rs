//! Are apps and settings the same at all gateways? By hashes, of which the most common one is taken for right. Pure.

use std::collections::{BTreeMap, BTreeSet};

use broadgate_business::v1::GatewayEvidence;

use crate::{
    operate::doctor::{
        findings::{Checked, some},
        seen::SeenCluster,
    },
    output::counted,
};

/// Differing apps whose settings are asked for one by one.
const DIFFERING_ASKED: usize = 8;

/// What most gateways have; if no value is most common, the first of them.
fn usual<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: BTreeMap<T, (usize, usize)> = BTreeMap::new();
    for (place, value) in values.enumerate() {
        counts.entry(value).or_insert((0, usize::MAX - place)).0 += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(value, _)| value)
}

pub(super) fn same(seen: &SeenCluster, checked: &mut Checked) {
    let advice = "give all gateways the same files; `broadgate apps` shows what one reads";
    let mut differ: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (gateway, names) in settings_that_differ(seen) {
        differ.entry(gateway).or_default().extend(names);
    }
    for (gateway, names) in differ {
        checked.warn(format!("settings of {gateway} differ: {}", some(&names)), advice);
    }
    for (gateway, names) in apps_that_differ(seen) {
        checked.warn(format!("apps of {gateway} differ: {}", some(&names)), advice);
    }
    let apps = seen.known().map(|(_, evidence)| evidence.apps.len()).max().unwrap_or_default();
    checked.well = format!("{} and settings", counted(apps as u64, "app"));
}

fn settings_that_differ(seen: &SeenCluster) -> Vec<(&str, Vec<String>)> {
    let mut names: BTreeSet<&str> =
        seen.known().flat_map(|(_, evidence)| evidence.settings.keys().map(String::as_str)).collect();
    // A file that one of them cannot use is said there.
    if seen.known().any(|(_, evidence)| !evidence.tokens_stale.is_empty()) {
        names.remove("tokens");
    }
    let usual: BTreeMap<&str, Option<u64>> = names
        .into_iter()
        .filter_map(|name| {
            let hashes = seen.known().map(|(_, evidence)| evidence.settings.get(name).copied());
            Some((name, usual(hashes)?))
        })
        .collect();
    let of = |evidence: &GatewayEvidence| -> Vec<String> {
        let differ = usual.iter().filter(|(name, usual)| evidence.settings.get(**name).copied() != **usual);
        differ.map(|(name, _)| format!("gateway.{name}")).collect()
    };
    let all = seen.known().map(|(gateway, evidence)| (gateway.name(), of(evidence)));
    all.filter(|(_, names)| !names.is_empty()).collect()
}

/// By gateway: the settings that differ, where they were asked for, else the apps.
fn apps_that_differ(seen: &SeenCluster) -> Vec<(&str, Vec<String>)> {
    let app = |evidence: &GatewayEvidence, id: &str| {
        evidence.apps.iter().find(|app| app.id == id).map(|app| (app.all, app.settings.clone()))
    };
    let all_usual = usual(seen.known().map(|(_, evidence)| evidence.apps_all));
    let ids: BTreeSet<&str> =
        seen.known().flat_map(|(_, evidence)| evidence.apps.iter().map(|app| app.id.as_str())).collect();
    let mut differ = Vec::new();
    for (gateway, evidence) in seen.known().filter(|(_, evidence)| Some(evidence.apps_all) != all_usual) {
        let mut names = Vec::new();
        for &id in &ids {
            let others = seen.known().map(|(_, evidence)| app(evidence, id).map(|(all, _)| all));
            let usual_app = usual(others).flatten();
            let own = app(evidence, id);
            if own.as_ref().map(|(all, _)| *all) == usual_app {
                continue;
            }
            let model =
                seen.known().find_map(|(_, one)| app(one, id).filter(|(all, _)| Some(*all) == usual_app));
            match (own, model) {
                (Some((_, own)), Some((_, model))) if !own.is_empty() && !model.is_empty() => {
                    let mut keys: Vec<&String> = model
                        .iter()
                        .filter(|(key, hash)| own.get(*key) != Some(*hash))
                        .map(|(key, _)| key)
                        .collect();
                    keys.sort();
                    names.extend(keys.into_iter().map(|key| format!("{id}.{key}")));
                }
                (None, Some(_)) => names.push(format!("{id} is missing")),
                (Some(_), None) => names.push(format!("{id} is at no other")),
                _ => names.push(id.to_owned()),
            }
        }
        if names.is_empty() {
            names.push("one beyond those that are compared by name".to_owned());
        }
        differ.push((gateway.name(), names));
    }
    differ
}

/// Apps of which some gateway has another version, to be asked for in detail.
pub(super) fn differing_apps(seen: &SeenCluster) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for app in seen.known().flat_map(|(_, evidence)| &evidence.apps) {
        versions.entry(&app.id).or_default().insert(app.all);
    }
    let differing = versions.into_iter().filter(|(_, hashes)| hashes.len() > 1);
    differing.map(|(id, _)| id.to_owned()).take(DIFFERING_ASKED).collect()
}
