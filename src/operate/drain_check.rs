//! `broadgate drain --check`: may this gateway be restarted now?

use std::time::Duration;

use broadgate_business::v1::{MemberState, Role};
use broadgate_proto::v1::RemovedMember;
use serde_json::json;

use crate::{
    failure::Failure,
    operate::{
        doctor::{
            Checked, DoctorQuestion, SeenCluster, SeenGateway, Severity, as_json, as_text, check, examine,
            sum,
        },
        target::ChosenCluster,
    },
    output::{age, counted, print, print_json},
};

/// Checks of the doctor without which a drain makes answers incomplete, or leaves clients without a gateway.
const NEEDED: [&str; 5] = ["answers", "register", "links", "views", "homes"];

/// A gateway that was removed so lately may have clients that are still on their way to the others.
const JUST_GONE_MS: u64 = 60_000;

/// Succeeds if the gateway may be restarted.
pub(super) async fn may_restart(
    chosen: &ChosenCluster,
    gateway: &str,
    within: Duration,
    is_json: bool,
) -> Result<(), Failure> {
    let question = DoctorQuestion::new(chosen, within)?;
    let (seen, all) = examine(question, |seen| decide(seen, gateway)).await?;
    let Some(name) = find(&seen, gateway).map(SeenGateway::name) else {
        let removed = seen.removed.iter().find(|one| one.name == gateway || one.incarnation == gateway);
        let removed = removed.map(|removed| {
            let ago = age(Duration::from_millis(removed.age_ms));
            format!(": it was removed {ago} ago, since it did not beat")
        });
        let sentence = format!("no gateway {gateway:?} is in the view {}", seen.epoch);
        return Err(Failure::NotFound(sentence + &removed.unwrap_or_default()));
    };
    let may = all.iter().all(|checked| checked.level() == Severity::Ok);
    if is_json {
        print_json(&json!({ "gateway": name, "may_restart": may, "checks": as_json(&all) }))?;
    } else {
        print(&as_text(&all))?;
    }
    if may {
        Ok(())
    } else {
        Err(Failure::Failed(format!("{name} should not be restarted now: {}", sum(&all))))
    }
}

fn find<'a>(seen: &'a SeenCluster, gateway: &str) -> Option<&'a SeenGateway> {
    seen.gateways.iter().find(|one| one.name() == gateway || one.member.incarnation == gateway)
}

/// Pure.
fn decide(seen: &SeenCluster, gateway: &str) -> Vec<Checked> {
    let mut all = check(seen, &NEEDED.map(str::to_owned));
    // What one that went before this leaves to the others is counted in their room; one that goes just now is not.
    let just_gone =
        |removed: &&RemovedMember| removed.role() == Role::Gateway && removed.age_ms <= JUST_GONE_MS;
    let removed = seen.removed.iter().filter(just_gone).cloned().collect();
    all.extend(check(&SeenCluster { removed, ..seen.clone() }, &["removed".to_owned()]));
    let Some(leaver) = find(seen, gateway) else { return all };
    let is_other = |one: &&SeenGateway| one.member.incarnation != leaver.member.incarnation;
    let others: Vec<&SeenGateway> = seen.gateways.iter().filter(is_other).collect();

    let well = "no other gateway leaves or joins".to_owned();
    let mut ready = Checked::new("ready", well);
    if others.is_empty() {
        ready.fail("there is no other gateway: its clients would find none", "add a gateway first");
    }
    for other in others.iter().filter(|other| other.member.state() != MemberState::Ready) {
        let state = crate::operate::status::state(&other.member);
        ready.fail(format!("{} is {state}", other.name()), "wait until it is ready, or has left");
    }
    all.push(ready);

    let clients = leaver.status.as_ref().map_or(0, |status| status.clients);
    let free = others.iter().filter_map(|other| {
        let status = other.status.as_ref()?;
        Some(status.evidence.as_ref()?.clients_max.saturating_sub(status.clients))
    });
    let free: u64 = free.sum();
    let said = format!("{}, and the others have room for {free}", counted(clients, "client"));
    let mut room = Checked::new("room", said.clone());
    if free < clients {
        room.fail(said, "add a gateway, or raise clients_max of the others");
    }
    all.push(room);
    all
}
