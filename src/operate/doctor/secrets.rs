//! Do all gateways know the same secret? What to do depends on how far a change of it has come. Pure.

use std::collections::BTreeMap;

use crate::operate::doctor::{
    findings::{Checked, some},
    seen::SeenCluster,
};

/// By name, with the hashes of its secrets, the one that it sends first.
type Known<'a> = (&'a str, &'a [u64]);

const GIVE_BOTH: &str = "give every process both, the new one first, and restart them one by one; the old one goes when all know both";

/// Says which gateways refuse each other, from their links; whether there are any.
fn refused(seen: &SeenCluster, checked: &mut Checked) -> bool {
    let mut pairs: Vec<(&str, &str)> = seen
        .known()
        .flat_map(|(from, evidence)| evidence.refused_by.iter().map(|by| (from.name(), by.as_str())))
        .collect();
    // A gateway lists its neighbours in no order.
    pairs.sort_unstable();
    let (mut by_refuser, mut by_refused): (BTreeMap<_, Vec<_>>, BTreeMap<_, Vec<_>>) = Default::default();
    for (from, by) in pairs {
        by_refuser.entry(by).or_default().push(from);
        by_refused.entry(from).or_default().push(by);
    }
    // The one with another secret is the one that is in every pair.
    let others_are_refused = by_refuser.len() <= by_refused.len();
    for (odd, others) in if others_are_refused { &by_refuser } else { &by_refused } {
        let is_plural = !others_are_refused && others.len() > 1;
        let others = some(others);
        let (refusing, refused) =
            if others_are_refused { (*odd, others.as_str()) } else { (others.as_str(), *odd) };
        let verb = if is_plural { "do" } else { "does" };
        checked.fail(
            format!("{refusing} {verb} not accept the secret of {refused}: their secrets differ"),
            format!("give {odd} the secret of the others (BROADGATE_SECRET), and restart it; or go on with the change"),
        );
    }
    !by_refuser.is_empty()
}

pub(super) fn secrets(seen: &SeenCluster, checked: &mut Checked) {
    let all: Vec<Known> =
        seen.known().map(|(gateway, evidence)| (gateway.name(), &evidence.secrets[..])).collect();
    let names = |is: &dyn Fn(&[u64]) -> bool| -> Vec<&str> {
        all.iter().filter(|(_, secrets)| is(secrets)).map(|(name, _)| *name).collect()
    };
    let first = all.first().map_or(&[][..], |(_, secrets)| *secrets);
    checked.well = if first.is_empty() { "none is set" } else { "the same everywhere" }.to_owned();
    if refused(seen, checked) {
        return;
    }
    let is_same = all.iter().all(|(_, secrets)| *secrets == first);
    if is_same && first.len() > 1 {
        checked.warn(
            "every gateway knows two secrets, the new one and the old one",
            "finish the change: when workers and scripts know both as well, give every process only the new one, \
             which is sent first, and restart them one by one",
        );
    }
    if is_same {
        return;
    }
    let without = names(&|secrets| secrets.is_empty());
    if !without.is_empty() {
        let said = format!("{} has no secret, and the others have one", some(&without));
        return checked
            .warn(said, "without one it takes commands of everybody: give it theirs, and restart it");
    }
    let mut pairs = all.iter().map(|(_, secrets)| *secrets).filter(|secrets| secrets.len() > 1);
    let Some(pair @ &[new, old]) = pairs.next() else {
        return checked.warn("gateways know different secrets, and each only one", GIVE_BOTH);
    };
    if pairs.any(|other| other != pair) {
        return checked.warn("gateways know two secrets, and not the same in the same order", GIVE_BOTH);
    }
    let both = some(names(&|secrets| secrets.len() > 1));
    let (only_new, only_old) = (names(&|secrets| secrets == [new]), names(&|secrets| secrets == [old]));
    if only_new.len() + only_old.len() + names(&|secrets| secrets.len() > 1).len() < all.len() {
        return checked.warn("gateways know different secrets, more than two in all", GIVE_BOTH);
    }
    match (only_new.is_empty(), only_old.is_empty()) {
        (true, _) => checked.warn(
            format!("{both} knows the new and the old secret, {} only the old one", some(&only_old)),
            format!(
                "go on with the change: give {} both, the new one first, and restart it; nobody may lose the old \
                 one before all know both",
                some(&only_old)
            ),
        ),
        (_, true) => checked.warn(
            format!("{both} knows the new and the old secret, {} only the new one", some(&only_new)),
            format!("finish the change: give {both} only the new one, and restart it"),
        ),
        _ => checked.fail(
            format!("{} knows only the new secret, {} only the old one", some(&only_new), some(&only_old)),
            "they refuse each other: give them both, the new one first, and restart them",
        ),
    }
}
