//! `broadgate status`.

use std::time::Duration;

use broadgate_business::v1::{
    FollowedRegister, GatewayStatus, Member, MemberState, RedisReader, Role, StatusReply, WorkerStatus,
};
use serde_json::{Value, json};

use crate::{
    failure::Failure,
    operate::{
        doctor::{refused_in_words, refused_what_to_do},
        target::{ClusterTarget, complete},
    },
    output::{age, age_since_ms, fitted, print, print_json, screen},
    terminal_text::one_line,
};

/// A ledger that takes longer to accept a change is worth a warning.
const LEDGER_LAG_ODD: Duration = Duration::from_secs(1);

pub(crate) async fn status(target: ClusterTarget) -> Result<(), Failure> {
    let mut status = target.any_app().await?.status().await?;
    if let Some(view) = &mut status.view {
        view.members.sort_by(|a, b| (&a.name, &a.incarnation).cmp(&(&b.name, &b.incarnation)));
    }
    status.workers.sort_by(|a, b| (&a.name, &a.incarnation).cmp(&(&b.name, &b.incarnation)));
    if target.json {
        print_json(&as_json(&status))?
    } else {
        print(&as_text(&status, screen()))?
    }
    complete(status.coverage.as_ref())?;
    if !status.register_heard {
        return Err(Failure::Incomplete(format!(
            "the register {} is not heard: nobody can join, leave or be removed; start it again",
            status.register
        )));
    }
    Ok(())
}

/// Workers that gateways know and the register does not: programs that attach without joining.
fn strangers(status: &StatusReply) -> impl Iterator<Item = &WorkerStatus> {
    let joined = |worker: &WorkerStatus| {
        members(status, Role::Worker).any(|member| member.incarnation == worker.incarnation)
    };
    status.workers.iter().filter(move |worker| !joined(worker))
}

/// What is not as it should be.
fn warnings(status: &StatusReply) -> Vec<String> {
    let mut warnings = Vec::new();
    warnings.extend(
        status
            .refused
            .iter()
            .map(|refused| format!("{}; {}", refused_in_words(refused), refused_what_to_do(&refused.reason))),
    );
    // One that is in no view answers for itself alone.
    if status.view.as_ref().is_none_or(|view| view.members.is_empty()) {
        let alone = status.gateways.iter().filter_map(|known| Some((known, known.register.as_ref()?)));
        warnings.extend(alone.map(|(GatewayStatus { name, .. }, register)| {
            let FollowedRegister { address, trouble, .. } = register;
            let how = if register.refuses { "refuses it" } else { "has never answered it" };
            let colon = if trouble.is_empty() { "" } else { ": " };
            format!("{name} is in no cluster: the register {address} {how}{colon}{trouble}")
        }));
    }
    for member in members(status, Role::Gateway) {
        let Some(known) = gateway(status, member) else { continue };
        warnings.extend(register_warning(member, known));
        warnings.extend(known.redis_readers.iter().filter_map(|reader| redis_warning(member, reader)));
        let mut services: Vec<_> = known.listener_services.iter().collect();
        services.sort();
        for (listener, service) in services {
            let takes = |worker: &&WorkerStatus| worker.services.contains(service);
            if !status.workers.iter().any(|worker| takes(&worker)) {
                warnings.push(format!(
                    "{}: no worker takes service {service:?} of listener {listener:?}: what its clients send \
                     waits, and then they are closed; start a worker, or set service = \"\"",
                    member.name
                ));
            }
        }
    }
    warnings
}

/// What a gateway finds wrong with the register that it follows.
fn register_warning(member: &Member, known: &GatewayStatus) -> Option<String> {
    let FollowedRegister { address, heard, trouble, outside, ledger, ledger_lag_ms, .. } =
        known.register.as_ref()?;
    if *heard && Duration::from_millis((*ledger_lag_ms).into()) >= LEDGER_LAG_ODD {
        return Some(format!(
            "{}: register {address}: {ledger} has not accepted a change for {ledger_lag_ms} ms: nobody can join or \
             leave meanwhile; look at the register's log and at {ledger}",
            member.name
        ));
    }
    if *heard && trouble.is_empty() && outside.is_empty() {
        return None;
    }
    let not = if *heard { "" } else { " is not heard" };
    let outside = match &outside[..] {
        [] => String::new(),
        names => format!("; answers are incomplete, only another register knows {}", names.join(", ")),
    };
    let colon = if trouble.is_empty() { "" } else { ": " };
    Some(format!("{}: register {address}{not}{colon}{trouble}{outside}", member.name))
}

/// What is wrong with a reader of an app's Redis.
fn redis_warning(member: &Member, reader: &RedisReader) -> Option<String> {
    let RedisReader { app, url, connected, trouble, .. } = reader;
    match (connected, &**trouble) {
        (true, "") => None,
        (true, trouble) => Some(format!("{}: Redis of app {app:?}, {url}: {trouble}", member.name)),
        (false, trouble) => Some(format!(
            "{}: Redis of app {app:?}, {url}: {trouble}; what is published meanwhile is lost",
            member.name
        )),
    }
}

/// Each gateway's readers.
fn redis_readers(status: &StatusReply) -> impl Iterator<Item = (&Member, &RedisReader)> {
    let of = |member| gateway(status, member).map(|known| (member, &known.redis_readers));
    members(status, Role::Gateway)
        .filter_map(of)
        .flat_map(|(member, readers)| readers.iter().map(move |reader| (member, reader)))
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

pub(super) fn state(member: &Member) -> &'static str {
    match member.state() {
        // Of a later version; it goes, as `view::goes` says.
        MemberState::Unspecified => "unknown",
        MemberState::Joining => "joining",
        MemberState::Ready => "ready",
        MemberState::Draining => "draining",
        MemberState::Leaving => "leaving",
    }
}

pub(super) fn epoch(status: &StatusReply) -> String {
    status.view.as_ref().and_then(|view| view.epoch).unwrap_or_default().to_string()
}

/// What keeps the list, as the gateways know that follow the same register.
fn ledger(status: &StatusReply) -> String {
    let mut followed = status.gateways.iter().filter_map(|gateway| gateway.register.as_ref());
    let known = followed.find(|known| known.address == status.register && !known.ledger.is_empty());
    known.map_or_else(String::new, |known| {
        format!(" leads · ledger {}, lag {} ms", known.ledger, known.ledger_lag_ms)
    })
}

fn as_text(status: &StatusReply, width: Option<usize>) -> String {
    let heard = if status.register_heard { "heard" } else { "NOT HEARD" };
    let register = one_line(&status.register);
    let mut text =
        format!("register {register} ({heard}){} · epoch {}\n\n", one_line(&ledger(status)), epoch(status));
    let count = |value: Option<u64>| value.map_or("?".to_owned(), |value| value.to_string());
    text += &fitted(
        width,
        ["GATEWAY", "ADDRESS", "CLIENTS AT", "STATE", "VERSION", "AGE", "CLIENTS", "GROUPS", "IN/S", "OUT/S"],
        &["VERSION", "GROUPS", "AGE", "CLIENTS AT", "ADDRESS"],
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
    text += &fitted(
        width,
        ["WORKER", "SERVICES", "STATE", "VERSION", "AGE", "CLIENTS", "UNANSWERED", "GATEWAYS"],
        &["VERSION", "AGE", "GATEWAYS", "SERVICES"],
        members(status, Role::Worker)
            .map(|member| {
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
            })
            .chain(strangers(status).map(|worker| {
                [
                    worker.name.clone(),
                    worker.services.join(","),
                    "not joined".to_owned(),
                    "?".to_owned(),
                    "?".to_owned(),
                    worker.clients.to_string(),
                    worker.events_unanswered.to_string(),
                    worker.gateways.to_string(),
                ]
            })),
    );
    if redis_readers(status).next().is_some() {
        text += "\n";
        text += &fitted(
            width,
            ["GATEWAY", "APP", "REDIS", "STATE", "SINCE"],
            &["SINCE", "REDIS"],
            redis_readers(status).map(|(member, reader)| {
                let state = if reader.connected { "connected" } else { "not connected" };
                let since = age(Duration::from_millis(reader.state_ms));
                [member.name.clone(), reader.app.clone(), reader.url.clone(), state.to_owned(), since]
            }),
        );
    }
    for warning in warnings(status) {
        text += &format!("\nwarning: {}\n", one_line(&warning));
    }
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
                    "register": known.and_then(|known| known.register.as_ref()).map(|register| json!({
                        "address": register.address, "heard": register.heard, "trouble": register.trouble,
                        "refuses": register.refuses, "outside": register.outside, "ledger": register.ledger,
                        "ledger_lag_ms": register.ledger_lag_ms,
                    })),
                    "redis_readers": known.map(|known| known.redis_readers.iter().map(|reader| json!({
                        "app": reader.app, "url": reader.url, "connected": reader.connected,
                        "trouble": reader.trouble, "state_ms": reader.state_ms,
                    })).collect::<Vec<_>>()),
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
        .chain(strangers(status).map(|worker| {
            json!({
                "name": worker.name, "incarnation": worker.incarnation, "state": "not joined",
                "version": null, "since_ms": null, "services": worker.services, "clients": worker.clients,
                "events_unanswered": worker.events_unanswered, "gateways": worker.gateways,
            })
        }))
        .collect();
    let coverage = status.coverage.clone().unwrap_or_default();
    json!({
        "epoch": epoch(status),
        "register": { "address": status.register, "heard": status.register_heard },
        "gateways": gateways, "workers": workers,
        "refused": status.refused.iter().map(|refused| json!({
            "role": refused.role().as_str_name().trim_start_matches("ROLE_").to_lowercase(),
            "name": refused.name, "address": refused.address, "reason": refused.reason, "why": refused.why,
            "first_at_ms": refused.first_at_ms, "last_at_ms": refused.last_at_ms, "count": refused.count,
        })).collect::<Vec<_>>(),
        "complete": coverage.complete, "missing": coverage.missing, "warnings": warnings(status),
    })
}

#[cfg(test)]
mod tests {
    use broadgate_business::v1::View;

    use super::*;

    #[test]
    fn what_is_missing_is_warned_of_and_strangers_are_shown() {
        let mut gateway = Member { incarnation: "g".into(), name: "gateway-1".into(), ..Member::default() };
        gateway.set_role(Role::Gateway);
        let services = [("web".to_owned(), "chat".to_owned())].into();
        let known =
            GatewayStatus { incarnation: "g".into(), listener_services: services, ..Default::default() };
        let view = View { members: vec![gateway], ..View::default() };
        let mut status = StatusReply { view: Some(view), gateways: vec![known], ..StatusReply::default() };
        let text = as_text(&status, None);
        assert!(
            text.contains("warning: gateway-1: no worker takes service \"chat\" of listener \"web\""),
            "{text}"
        );
        assert_eq!(as_json(&status)["warnings"].as_array().unwrap().len(), 1);
        status.workers = vec![WorkerStatus {
            incarnation: "w".into(),
            name: "python-1".into(),
            services: vec!["chat".into()],
            ..WorkerStatus::default()
        }];
        let text = as_text(&status, None);
        assert!(
            !text.contains("warning") && text.contains("python-1") && text.contains("not joined"),
            "{text}"
        );
        assert_eq!(as_json(&status)["workers"][0]["state"], "not joined");
        let register = FollowedRegister {
            address: "r1:7100".into(),
            heard: true,
            trouble: "register 10.0.0.2:7100 is active as well: run only one".into(),
            outside: vec!["gateway-9".into()],
            ..FollowedRegister::default()
        };
        status.gateways[0].register = Some(register);
        let text = as_text(&status, None);
        let said = "warning: gateway-1: register r1:7100: register 10.0.0.2:7100 is active as well: run only \
                    one; answers are incomplete, only another register knows gateway-9\n";
        assert!(text.contains(said), "{text}");
        assert_eq!(as_json(&status)["gateways"][0]["register"]["outside"][0], "gateway-9");
        let leads = |ledger_lag_ms| FollowedRegister {
            address: status.register.clone(),
            heard: true,
            ledger: "etcd".into(),
            ledger_lag_ms,
            ..FollowedRegister::default()
        };
        let (quick, slow) = (leads(3), leads(2000));
        status.gateways[0].register = Some(quick);
        assert!(as_text(&status, None).contains(" leads · ledger etcd, lag 3 ms · epoch "));
        status.gateways[0].register = Some(slow);
        assert!(as_text(&status, None).contains("etcd has not accepted a change for 2000 ms"));
        let readers =
            [("a", true, ""), ("b", false, "it closed the connection")].map(|(app, connected, trouble)| {
                RedisReader {
                    app: app.into(),
                    url: "redis://10.0.0.9:6379".into(),
                    connected,
                    trouble: trouble.into(),
                    state_ms: 61_000,
                }
            });
        status.gateways[0].redis_readers = readers.to_vec();
        let text = as_text(&status, None);
        assert!(text.contains("not connected") && text.contains("1 min"), "{text}");
        let said = "Redis of app \"b\", redis://10.0.0.9:6379: it closed the connection; what is published meanwhile is lost\n";
        assert!(text.contains(said) && !text.contains("app \"a\""), "{text}");
        assert_eq!(as_json(&status)["gateways"][0]["redis_readers"][1]["connected"], false);
    }
}
