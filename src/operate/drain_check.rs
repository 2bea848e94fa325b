//! `broadgate drain --check`: may this gateway be restarted now?

use broadgate_business::v1::MemberState;
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
    output::{counted, print, print_json},
};

/// Checks of the doctor without which a drain makes answers incomplete, or leaves clients without a gateway.
const NEEDED: [&str; 5] = ["answers", "register", "links", "views", "homes"];

/// Succeeds if the gateway may be restarted.
pub(super) async fn may_restart(
    chosen: &ChosenCluster,
    gateway: &str,
    within: std::time::Duration,
    is_json: bool,
) -> Result<(), Failure> {
    let question = DoctorQuestion::new(chosen, within)?;
    let (seen, all) = examine(question, |seen| decide(seen, gateway)).await?;
    let Some(name) = find(&seen, gateway).map(SeenGateway::name) else {
        return Err(Failure::NotFound(format!("no gateway {gateway:?} is in the view {}", seen.epoch)));
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
    let Some(leaver) = find(seen, gateway) else { return all };
    let is_other = |one: &&SeenGateway| one.member.incarnation != leaver.member.incarnation;
    let others: Vec<&SeenGateway> = seen.gateways.iter().filter(is_other).collect();

    let well = "no other gateway leaves or joins".to_owned();
    let mut ready = Checked { name: "ready", well, findings: Vec::new() };
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
    let mut room = Checked { name: "room", well: said.clone(), findings: Vec::new() };
    if free < clients {
        room.fail(said, "add a gateway, or raise clients_max of the others");
    }
    all.push(room);
    all
}
