//! `broadgate status`.

use std::time::Duration;

use broadgate_business::v1::{GatewayStatus, Member, MemberState, Role, StatusReply, WorkerStatus};
use serde_json::{Value, json};

use super::{
    Target, complete,
    output::{age, age_since_ms, print, print_json, table},
};
use crate::failure::Failure;

pub(crate) async fn status(target: Target) -> Result<(), Failure> {
    let status = target.cluster()?.status().await?;
    if target.json {
        print_json(&as_json(&status))?
    } else {
        print(&as_text(&status))?
    }
    complete(status.coverage.as_ref())
}

/// Members of the view with what is known about each.
fn members(status: &StatusReply, role: Role) -> impl Iterator<Item = &Member> {
    let members = status.view.as_ref().map(|view| &view.members[..]).unwrap_or_default();
    members.iter().filter(move |member| member.role() == role)
}

fn gateway<'a>(status: &'a StatusReply, member: &Member) -> Option<&'a GatewayStatus> {
    status.gateways.iter().find(|gateway| gateway.incarnation == member.incarnation)
}

fn worker<'a>(status: &'a StatusReply, member: &Member) -> Option<&'a WorkerStatus> {
    status.workers.iter().find(|worker| worker.incarnation == member.incarnation)
}

fn state(member: &Member) -> &'static str {
    match member.state() {
        MemberState::Unspecified => "unknown",
        MemberState::Joining => "joining",
        MemberState::Ready => "ready",
        MemberState::Draining => "draining",
    }
}

fn epoch(status: &StatusReply) -> String {
    status.view.as_ref().and_then(|view| view.epoch).unwrap_or_default().to_string()
}

fn as_text(status: &StatusReply) -> String {
    let heard = if status.register_heard { "heard" } else { "NOT HEARD" };
    let mut text = format!("register {} ({heard}) · epoch {}\n\n", status.register, epoch(status));
    let count = |value: Option<u64>| value.map_or("?".to_owned(), |value| value.to_string());
    text += &table(
        ["GATEWAY", "ADDRESS", "CLIENTS AT", "STATE", "VERSION", "AGE", "CLIENTS", "GROUPS", "IN/S", "OUT/S"],
        members(status, Role::Gateway).map(|member| {
            let known = gateway(status, member);
            let mut listeners: Vec<_> = member.listeners.values().map(String::as_str).collect();
            listeners.sort_unstable();
            [
                member.name.clone(),
                member.address.clone(),
                listeners.join(" "),
                state(member).to_owned(),
                member.version.clone(),
                known.map_or_else(
                    || age_since_ms(member.since_ms),
                    |known| age(Duration::from_millis(known.uptime_ms)),
                ),
                count(known.map(|known| known.clients)),
                count(known.map(|known| known.groups)),
                count(known.map(|known| known.messages_in_per_s)),
                count(known.map(|known| known.messages_out_per_s)),
            ]
        }),
    );
    text += "\n";
    text += &table(
        ["WORKER", "SERVICES", "STATE", "VERSION", "AGE", "CLIENTS", "UNANSWERED", "GATEWAYS"],
        members(status, Role::Worker).map(|member| {
            let known = worker(status, member);
            [
                member.name.clone(),
                member.services.join(","),
                state(member).to_owned(),
                member.version.clone(),
                age_since_ms(member.since_ms),
                count(known.map(|known| known.clients)),
                count(known.map(|known| known.events_unanswered)),
                count(known.map(|known| known.gateways.into())),
            ]
        }),
    );
    text
}

fn as_json(status: &StatusReply) -> Value {
    let common = |member: &Member| {
        json!({
            "name": member.name, "incarnation": member.incarnation, "state": state(member),
            "version": member.version, "since_ms": member.since_ms,
        })
    };
    let with = |mut value: Value, more: Value| {
        if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
            value.extend(more);
        }
        value
    };
    let gateways: Vec<Value> = members(status, Role::Gateway)
        .map(|member| {
            let known = gateway(status, member);
            with(
                common(member),
                json!({
                    "address": member.address, "listeners": member.listeners, "answered": known.is_some(),
                    "clients": known.map(|known| known.clients), "groups": known.map(|known| known.groups),
                    "uids": known.map(|known| known.uids),
                    "messages_in_per_s": known.map(|known| known.messages_in_per_s),
                    "messages_out_per_s": known.map(|known| known.messages_out_per_s),
                    "uptime_ms": known.map(|known| known.uptime_ms),
                    "peers": known.map(|known| known.peers.clone()),
                }),
            )
        })
        .collect();
    let workers: Vec<Value> = members(status, Role::Worker)
        .map(|member| {
            let known = worker(status, member);
            with(
                common(member),
                json!({
                    "services": member.services, "clients": known.map(|known| known.clients),
                    "events_unanswered": known.map(|known| known.events_unanswered),
                    "gateways": known.map(|known| known.gateways),
                }),
            )
        })
        .collect();
    let coverage = status.coverage.clone().unwrap_or_default();
    json!({
        "epoch": epoch(status),
        "register": { "address": status.register, "heard": status.register_heard },
        "gateways": gateways, "workers": workers,
        "complete": coverage.complete, "missing": coverage.missing,
    })
}
