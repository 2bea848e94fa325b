use std::collections::HashMap;

use broadgate_business::v1::{
    Epoch, FollowedRegister, GatewayEvidence, GatewayStatus, Member, MemberState, Role, WorkerStatus,
};
use broadgate_proto::v1::{
    AppHashes, FailingWebhook, MetLimit, RedisReader, RefusedMember, RemovedMember, SilentWorker,
};

use super::{
    checks::check,
    drops::ODD_DROPS,
    findings::{Checked, Severity},
    seen::{SeenCluster, SeenGateway},
};

const NOW_MS: u64 = 1_700_000_000_000;

fn gateway(number: usize) -> SeenGateway {
    let (name, incarnation) = (format!("gw-{number}"), format!("i{number}"));
    let mut member = Member { incarnation: incarnation.clone(), name: name.clone(), ..Member::default() };
    member.address = format!("{name}:7200");
    member.version = "1.0.0".into();
    member.set_role(Role::Gateway);
    member.set_state(MemberState::Ready);
    let evidence = GatewayEvidence {
        now_ms: NOW_MS,
        epoch: Some(Epoch { term: 7, count: 41 }),
        inside: true,
        clients_max: 100,
        clients_wanted: 100,
        outboxes_bytes_max: 1000,
        secrets: vec![5],
        settings: HashMap::from([("limits.clients_max".into(), 1), ("affinity".into(), 2)]),
        apps: vec![AppHashes {
            id: "shop".into(),
            all: 3,
            settings: HashMap::from([("origins".into(), 4)]),
            ..AppHashes::default()
        }],
        apps_all: 9,
        ..GatewayEvidence::default()
    };
    let register = FollowedRegister { address: "r:7100".into(), heard: true, ..FollowedRegister::default() };
    let status = GatewayStatus {
        incarnation,
        name,
        peers: (1..=3).filter(|other| *other != number).map(|other| format!("gw-{other}")).collect(),
        listener_services: HashMap::from([("web".into(), "default".into())]),
        register: Some(register),
        evidence: Some(evidence),
        ..GatewayStatus::default()
    };
    SeenGateway { member, status: Some(status), why: String::new(), asked_ms: (NOW_MS - 5, NOW_MS + 5) }
}

fn healthy() -> SeenCluster {
    let worker = WorkerStatus {
        name: "chat-1".into(),
        services: vec!["default".into()],
        gateways: 3,
        ..WorkerStatus::default()
    };
    let gateways: Vec<SeenGateway> = (1..=3).map(gateway).collect();
    SeenCluster {
        members: gateways.iter().map(|gateway| gateway.member.clone()).collect(),
        gateways,
        workers: vec![worker],
        complete: true,
        ..SeenCluster::default()
    }
}

fn status(seen: &mut SeenCluster, index: usize) -> &mut GatewayStatus {
    seen.gateways[index].status.as_mut().unwrap()
}

fn evidence(seen: &mut SeenCluster, index: usize) -> &mut GatewayEvidence {
    status(seen, index).evidence.as_mut().unwrap()
}

fn bad(seen: &SeenCluster) -> Vec<Checked> {
    check(seen, &[]).into_iter().filter(|checked| checked.level() != Severity::Ok).collect()
}

/// A fault, the check that finds it, how bad it is, and what it says.
type Planted = (fn(&mut SeenCluster), &'static str, Severity, &'static str);

const PLANTED: [Planted; 25] = [
    (
        |seen| {
            // Another gateway has read a later file.
            evidence(seen, 0).settings.insert("tokens".into(), 8);
            evidence(seen, 1).tokens_stale = "tokens file t.toml: no".into();
            evidence(seen, 1).tokens_stale_since_ms = NOW_MS - 120_000;
        },
        "tokens",
        Severity::Warn,
        "gw-2 goes on with the tokens of 2 min ago, and one that was removed since still counts: tokens file t.toml",
    ),
    (
        |seen| {
            for index in [0, 1] {
                evidence(seen, index).refused_by = vec!["gw-3".into()];
                status(seen, index).peers.retain(|peer| peer != "gw-3");
            }
            seen.gateways[2].status = None;
            seen.gateways[2].why = "gw-3:7200: the shared secret is missing or differs".into();
            seen.complete = false;
        },
        "secrets",
        Severity::Fail,
        "gw-3 does not accept the secret of gw-1, gw-2",
    ),
    (
        |seen| {
            // A token is known to all of them, and so they all answer.
            evidence(seen, 0).refused_by = vec!["gw-3".into(), "gw-2".into()];
            evidence(seen, 0).secrets = vec![6];
            status(seen, 0).peers.clear();
            status(seen, 1).peers.retain(|peer| peer != "gw-1");
            status(seen, 2).peers.retain(|peer| peer != "gw-1");
        },
        "secrets",
        Severity::Fail,
        "gw-2, gw-3 do not accept the secret of gw-1",
    ),
    (
        |seen| {
            seen.gateways[2].status = None;
            seen.gateways[2].why = "gw-3:7200 does not answer".into();
            seen.complete = false;
        },
        "answers",
        Severity::Fail,
        "gw-3 does not answer: gw-3:7200",
    ),
    (
        |seen| status(seen, 1).register.as_mut().unwrap().heard = false,
        "register",
        Severity::Fail,
        "gw-2 does not hear the register r:7100",
    ),
    (
        |seen| status(seen, 1).register.as_mut().unwrap().outside = vec!["gw-9".into()],
        "register",
        Severity::Fail,
        "only another register knows gw-9",
    ),
    (
        |seen| status(seen, 1).register.as_mut().unwrap().ledger_lag_ms = 2000,
        "register",
        Severity::Warn,
        "has not accepted a change for 2000 ms",
    ),
    (
        |seen| status(seen, 0).peers.retain(|peer| peer != "gw-3"),
        "links",
        Severity::Fail,
        "gw-1 does not reach gw-3; gw-3 reaches gw-1",
    ),
    (
        |seen| evidence(seen, 1).epoch = Some(Epoch { term: 7, count: 40 }),
        "views",
        Severity::Fail,
        "gw-2 is at view 7.40, others are at 7.41",
    ),
    (|seen| evidence(seen, 1).inside = false, "views", Severity::Fail, "gw-2 is outside the view"),
    (|seen| evidence(seen, 1).unsynced = 1, "homes", Severity::Warn, "gw-2 waits for what 1 gateway hold"),
    (|seen| seen.gateways[0].member.version = "1.1.0".into(), "versions", Severity::Warn, "1.0.0, 1.1.0"),
    (|seen| status(seen, 1).evidence = None, "versions", Severity::Warn, "gw-2 gives no evidence"),
    (
        |seen| {
            seen.workers.clear();
            (evidence(seen, 0).held, evidence(seen, 2).held) = (3, 4);
            // What took it: that is no finding of its own.
            seen.removed = vec![removed(Role::Worker, "chat-1", 40)];
        },
        "services",
        Severity::Fail,
        "no worker takes service \"default\" of listener \"web\" at gw-1, gw-2, gw-3, 7 clients wait; chat-1 was \
         removed 40 s ago: it did not beat",
    ),
    (
        |seen| _ = evidence(seen, 1).settings.insert("affinity".into(), 99),
        "same",
        Severity::Warn,
        "settings of gw-2 differ: gateway.affinity",
    ),
    (
        |seen| {
            let evidence = evidence(seen, 1);
            evidence.apps_all = 10;
            evidence.apps[0].all = 33;
            evidence.apps[0].settings.insert("origins".into(), 44);
        },
        "same",
        Severity::Warn,
        "apps of gw-2 differ: shop.origins",
    ),
    (
        |seen| {
            evidence(seen, 1).apps_all = 10;
            evidence(seen, 1).apps.clear();
        },
        "same",
        Severity::Warn,
        "apps of gw-2 differ: shop is missing",
    ),
    (
        |seen| evidence(seen, 2).now_ms += 60_000,
        "clocks",
        Severity::Warn,
        "the clock of gw-3 is 60 s ahead of",
    ),
    (|seen| evidence(seen, 0).now_ms -= 60_000, "clocks", Severity::Warn, "the clock of gw-1 is 60 s behind"),
    (|seen| status(seen, 1).clients = 100, "capacity", Severity::Fail, "gw-2 has 100 of 100 clients"),
    (|seen| status(seen, 1).clients = 95, "capacity", Severity::Warn, "gw-2 has 95 of 100 clients"),
    (|seen| evidence(seen, 1).clients_wanted = 500, "files", Severity::Warn, "allows 100 of the 500 clients"),
    (
        |seen| evidence(seen, 1).secrets = vec![6, 5],
        "secrets",
        Severity::Warn,
        "gw-2 knows the new and the old secret, gw-1, gw-3 only the old one",
    ),
    (
        |seen| (evidence(seen, 1).pause_ms, evidence(seen, 1).pause_age_ms) = (4000, 9000),
        "shards",
        Severity::Warn,
        "gw-2 was not running for 4 s, 9 s ago",
    ),
    (
        |seen| evidence(seen, 1).outboxes_bytes = 900,
        "outboxes",
        Severity::Warn,
        "wait in the outboxes of gw-2",
    ),
];

/// Told by its name; it was removed so many seconds ago.
fn removed(role: Role, name: &str, seconds: u64) -> RemovedMember {
    let mut removed = RemovedMember {
        incarnation: format!("old-{name}"),
        name: name.into(),
        age_ms: seconds * 1000,
        ..RemovedMember::default()
    };
    removed.set_role(role);
    if role == Role::Worker {
        removed.services = vec!["default".into()];
    }
    removed
}

fn redis(seen: &mut SeenCluster, connected: bool) {
    let (app, url, trouble) = ("shop".into(), "redis://r:6379".into(), "connection refused".into());
    status(seen, 1).redis_readers =
        vec![RedisReader { app, url, connected, trouble, ..RedisReader::default() }];
}

const PLANTED_TOO: [Planted; 22] = [
    (
        |seen| seen.removed = vec![removed(Role::Gateway, "gw-4", 40)],
        "removed",
        Severity::Fail,
        "gw-4 was removed 40 s ago: it did not beat, and its clients have lost it",
    ),
    (
        |seen| seen.removed = vec![removed(Role::Gateway, "gw-2", 40)],
        "removed",
        Severity::Warn,
        "gw-2 was removed 40 s ago: it did not beat, and is back since",
    ),
    (
        |seen| seen.removed = vec![removed(Role::Worker, "chat-2", 40)],
        "removed",
        Severity::Warn,
        "chat-2 was removed 40 s ago",
    ),
    (
        |seen| evidence(seen, 1).apps[0].service = "shop".into(),
        "services",
        Severity::Fail,
        "no worker takes service \"shop\" of app \"shop\" at gw-2",
    ),
    (
        |seen| evidence(seen, 1).apps_stale = "apps.toml:7: unknown key".into(),
        "apps",
        Severity::Warn,
        "gw-2 goes on with the former apps: apps.toml:7",
    ),
    (
        |seen| {
            [0, 1, 2].into_iter().for_each(|index| evidence(seen, index).apps_stale = "apps.toml:7: x".into())
        },
        "apps",
        Severity::Warn,
        "gw-1, gw-2, gw-3 go on with the former apps: apps.toml:7",
    ),
    (
        |seen| {
            let known = status(seen, 1).register.as_mut().unwrap();
            (known.heard, known.trouble) =
                (false, "the shared secret is missing or differs: give every process".into());
        },
        "register",
        Severity::Fail,
        "gw-2 does not hear the register r:7100: the shared secret",
    ),
    (
        |seen| redis(seen, false),
        "redis",
        Severity::Fail,
        "gw-2: Redis of app \"shop\", redis://r:6379 is not read: connection refused",
    ),
    (|seen| redis(seen, true), "redis", Severity::Warn, "gw-2: Redis of app \"shop\", redis://r:6379: conn"),
    (
        |seen| {
            seen.gateways.truncate(1);
            status(seen, 0).peers.clear();
            status(seen, 0).register.as_mut().unwrap().heard = false;
            (evidence(seen, 0).inside, evidence(seen, 0).epoch) = (false, None);
            seen.workers.clear();
        },
        "register",
        Severity::Fail,
        "gw-1 is in no cluster: it has never heard the register r:7100",
    ),
    (
        |seen| {
            seen.gateways.truncate(1);
            status(seen, 0).peers.clear();
            (evidence(seen, 0).inside, evidence(seen, 0).epoch) = (false, None);
            seen.workers.clear();
        },
        "views",
        Severity::Fail,
        "gw-1 is in no view, although it hears the register",
    ),
    (
        |seen| {
            let (name, address) = ("gw-9".to_owned(), "10.0.0.9:7200".to_owned());
            let why = "a gateway with the name gw-1 is alive".to_owned();
            let refused =
                RefusedMember { name, address, why, reason: "taken".into(), count: 3, ..Default::default() };
            seen.refused = vec![RefusedMember { role: Role::Gateway.into(), ..refused }];
        },
        "refused",
        Severity::Warn,
        "gateway gw-9 at 10.0.0.9:7200 is not in the cluster: the register has refused it 3 times, last ",
    ),
    (
        |seen| [0, 1, 2].into_iter().for_each(|index| evidence(seen, index).secrets = vec![6, 5]),
        "secrets",
        Severity::Warn,
        "every gateway knows two secrets",
    ),
    (
        |seen| evidence(seen, 1).secrets = vec![5, 4],
        "secrets",
        Severity::Warn,
        "gw-2 knows the new and the old secret, gw-1, gw-3 only the new one",
    ),
    (|seen| evidence(seen, 1).secrets.clear(), "secrets", Severity::Warn, "gw-2 has no secret"),
    (|seen| evidence(seen, 1).secrets = vec![6], "secrets", Severity::Warn, "and each only one"),
    (
        |seen| {
            evidence(seen, 1).secrets = vec![6, 5];
            evidence(seen, 2).secrets = vec![6];
        },
        "secrets",
        Severity::Fail,
        "gw-3 knows only the new secret, gw-1 only the old one",
    ),
    (
        |seen| {
            let silent = SilentWorker { name: "chat-1".into(), seconds: 12, events_unanswered: 3 };
            evidence(seen, 1).silent_workers = vec![silent];
        },
        "workers",
        Severity::Warn,
        "chat-1 has answered none of 3 events for 12 s",
    ),
    (
        |seen| (seen.workers[0].oldest_unanswered_s, seen.workers[0].events_unanswered) = (41, 3),
        "workers",
        Severity::Warn,
        "chat-1 answers others, and one of 3 events not for 41 s",
    ),
    (|seen| seen.workers[0].gateways = 2, "workers", Severity::Warn, "chat-1 is attached to 2 of 3 gateways"),
    (
        |seen| {
            let (app, url, why) = ("shop".into(), "http://hook".into(), "refused".into());
            evidence(seen, 1).webhooks = vec![FailingWebhook { app, url, why }];
        },
        "webhooks",
        Severity::Warn,
        "http://hook of app \"shop\" fails at gw-2: refused",
    ),
    (
        |seen| _ = evidence(seen, 1).drops.insert("slow".into(), 7),
        "drops",
        Severity::Warn,
        "dropped in the last minutes: 7 slow at gw-2",
    ),
];

/// Limits that refuse clients.
const PLANTED_LIMITS: [Planted; 5] = [
    (
        |seen| {
            full(seen, [3, 4, 3], (10, 0));
            meet(seen, 0, "connections_max", 2);
            meet(seen, 2, "connections_max", 3);
        },
        "limits",
        Severity::Warn,
        "app \"shop\" has 10 of 10 connections (connections_max): 5 refused in the last minutes, at gw-1, gw-3",
    ),
    (
        |seen| {
            full(seen, [8, 1, 0], (12, 8));
            meet(seen, 0, "connections_max", 3);
        },
        "limits",
        Severity::Warn,
        "app \"shop\" has 8 of 8 connections at gw-1 (connections_per_gateway_max): 3 refused",
    ),
    (
        |seen| {
            (0..3).for_each(|index| evidence(seen, index).apps.clear());
            meet(seen, 1, "connections_max", 9);
        },
        "limits",
        Severity::Warn,
        "app \"shop\" has as many connections as it may, 5 (connections_max): 9 refused",
    ),
    (
        |seen| meet(seen, 1, "limits.presence_members_max", 4),
        "limits",
        Severity::Warn,
        "app \"shop\": channel \"there\" has its 5 members (limits.presence_members_max): 4 refused",
    ),
    (
        |seen| {
            meet(seen, 1, "clients_per_ip_max", 4);
            evidence(seen, 1).limits_met[0].app.clear();
        },
        "limits",
        Severity::Warn,
        "address there has its 5 connections (clients_per_ip_max): 4 refused in the last minutes, at gw-2",
    ),
];

/// The shop has so many connections at each gateway, of so many in the cluster and at one gateway.
fn full(seen: &mut SeenCluster, clients: [u64; 3], (max, here_max): (u64, u64)) {
    for (index, clients) in clients.into_iter().enumerate() {
        let app = &mut evidence(seen, index).apps[0];
        (app.clients, app.connections_max, app.connections_per_gateway_max) = (clients, max, here_max);
    }
}

fn meet(seen: &mut SeenCluster, index: usize, limit: &str, refused: u64) {
    let (app, limit, place) = ("shop".into(), limit.into(), "there".into());
    evidence(seen, index).limits_met.push(MetLimit { app, limit, refused, place, allowed: 5 });
}

/// Each fault is found by its check, and by no other.
#[test]
fn each_fault_has_its_check() {
    assert_eq!(bad(&healthy()), []);
    for (plant, name, level, said) in PLANTED.into_iter().chain(PLANTED_TOO).chain(PLANTED_LIMITS) {
        let mut seen = healthy();
        plant(&mut seen);
        let found = bad(&seen);
        let names: Vec<&str> = found.iter().map(|checked| checked.name).collect();
        assert_eq!(names, [name], "{said}: {found:?}");
        assert_eq!(found[0].level(), level, "{said}: {found:?}");
        assert!(found[0].findings[0].what.contains(said), "{said}: {found:?}");
        assert!(!found[0].findings[0].advice.is_empty(), "{said}");
    }
}

/// What clients do is no trouble of the cluster, and a long question is no clock's fault.
#[test]
fn ordinary_life_is_no_finding() {
    let mut seen = healthy();
    for (reason, count) in [("unsent", 5), ("closing", 9), ("rate", 3), ("unread_at_hang_up", 1)] {
        evidence(&mut seen, 1).drops.insert(reason.into(), count);
    }
    (evidence(&mut seen, 1).pause_ms, evidence(&mut seen, 1).pause_age_ms) = (4000, 600_000);
    evidence(&mut seen, 2).slow = 3;
    // Somebody who tries twice, at a full app.
    full(&mut seen, [5, 0, 0], (5, 0));
    meet(&mut seen, 0, "connections_max", 1);
    meet(&mut seen, 2, "connections_max", 1);
    evidence(&mut seen, 2).now_ms += 3000;
    seen.gateways[2].asked_ms = (NOW_MS - 2000, NOW_MS + 4000);
    // It has come back, or has been away for long.
    seen.removed = vec![removed(Role::Gateway, "gw-3", 300), removed(Role::Gateway, "gw-9", 900)];
    assert_eq!(bad(&seen), []);
    // A silent gateway explains what others do not know of it.
    seen.gateways[0].status = None;
    seen.complete = false;
    seen.workers[0].gateways = 2;
    evidence(&mut seen, 1).unsynced = 1;
    status(&mut seen, 1).peers.retain(|peer| peer != "gw-1");
    let names: Vec<&str> = bad(&seen).iter().map(|checked| checked.name).collect();
    assert_eq!(names, ["answers"]);
}

/// What to do about the secrets is right whichever way the change goes.
#[test]
fn advice_about_secrets_follows_the_change() {
    let advice = |secrets: [&[u64]; 3]| {
        let mut seen = healthy();
        for (index, secrets) in secrets.into_iter().enumerate() {
            evidence(&mut seen, index).secrets = secrets.to_vec();
        }
        bad(&seen).first().map(|checked| checked.findings[0].advice.clone()).unwrap_or_default()
    };
    let (old, both, new) = (&[5][..], &[6, 5][..], &[6][..]);
    assert!(
        advice([old, both, old])
            .starts_with("go on with the change: give gw-1, gw-3 both, the new one first")
    );
    assert!(advice([both, both, both]).starts_with("finish the change: when workers and scripts know both"));
    assert!(advice([new, both, new]).starts_with("finish the change: give gw-2 only the new one"));
    assert!(advice([new, both, old]).starts_with("they refuse each other: give them both"));
    assert!(advice([new, old, old]).starts_with("give every process both, the new one first"));
    assert!(advice([both, &[5, 6], both]).starts_with("give every process both, the new one first"));
    assert!(advice([both, &[7], both]).starts_with("give every process both, the new one first"));
    assert_eq!(advice([new, new, new]), "");
}

/// A register that refuses the secret is there, and one file has one finding.
#[test]
fn advice_fits_the_cause() {
    let mut seen = healthy();
    let known = status(&mut seen, 1).register.as_mut().unwrap();
    known.heard = false;
    assert!(bad(&seen)[0].findings[0].advice.starts_with("start a register again"));
    let known = status(&mut seen, 1).register.as_mut().unwrap();
    known.trouble = "the shared secret is missing or differs: give every process the same".into();
    assert!(bad(&seen)[0].findings[0].advice.starts_with("give the gateway the secret of the register"));
    let mut seen = healthy();
    (0..3).for_each(|index| evidence(&mut seen, index).apps_stale = "apps.toml:7: x".into());
    assert_eq!(bad(&seen)[0].findings.len(), 1);
}

/// Each reason of a drop, and each sentence that sends there, has its entry in the runbook.
#[test]
fn drops_have_entries_in_the_runbook() {
    let runbook = include_str!("../../../deploy/RUNBOOK.md");
    for (reason, advice) in ODD_DROPS {
        let (_, entry) = advice.split_once("RUNBOOK \"").unwrap();
        assert!(runbook.contains(entry.trim_end_matches('"')), "{reason}: {entry}");
    }
}
