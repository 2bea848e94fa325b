//! Questions about what is busy, and their answers. Pure.

use std::{cmp::Ordering, collections::BTreeMap};

use broadgate_proto::{
    limits::{PAGE_DEFAULT, TOP_ROWS_MAX},
    v1::{self, TopBy, TopSort},
};

use crate::command::{
    fields::{app, understood},
    parsed::{CommandRefusal, TopQuestion, invalid},
};

pub(super) fn parse_top(request: &v1::TopRequest) -> Result<TopQuestion, CommandRefusal> {
    understood(&request.requires)?;
    let by = TopBy::try_from(request.by).ok().filter(|by| *by != TopBy::Unspecified).ok_or_else(|| {
        invalid(
            "by is none that this gateway knows: give groups, clients, apps, workers or callers as TOP_BY_GROUPS …",
        )
    })?;
    let sort = TopSort::try_from(request.sort)
        .map_err(|_| invalid(format!("sort: this gateway does not know the order {}", request.sort)))?;
    let limit = if request.limit == 0 { PAGE_DEFAULT } else { request.limit } as usize;
    if limit > TOP_ROWS_MAX {
        return Err(invalid(format!("limit is {limit}: at most {TOP_ROWS_MAX} rows are kept")));
    }
    let app = if request.app.is_empty() { None } else { Some(app(&request.app)?) };
    Ok(TopQuestion { by, sort, app, limit })
}

/// Adds what another shard or gateway counts of the same worker.
pub(crate) fn add_worker(all: &mut v1::WorkerStatus, part: &v1::WorkerStatus) {
    all.clients += part.clients;
    all.events_unanswered += part.events_unanswered;
    all.oldest_unanswered_s = all.oldest_unanswered_s.max(part.oldest_unanswered_s);
    all.events_sent += part.events_sent;
    all.answers_timed += part.answers_timed;
    all.answers_us += part.answers_us;
}

/// Adds what another gateway counts of the same caller.
fn add_caller(all: &mut v1::TopCaller, part: v1::TopCaller) {
    all.commands_per_s += part.commands_per_s;
    all.sends_per_s += part.sends_per_s;
    all.bytes_per_s += part.bytes_per_s;
    all.refused_per_s += part.refused_per_s;
    all.commands += part.commands;
    all.refused += part.refused;
    all.last_at_ms = all.last_at_ms.max(part.last_at_ms);
    all.gateways.extend(part.gateways);
    all.gateways.sort_unstable();
}

/// Adds what another shard or gateway has measured.
pub(super) fn merge_top(all: &mut v1::TopReply, part: v1::TopReply) {
    // What has just begun has measured nothing.
    all.measured_ms = all.measured_ms.min(part.measured_ms);
    all.groups.extend(part.groups);
    all.clients.extend(part.clients);
    all.apps.extend(part.apps);
    all.workers.extend(part.workers);
    all.callers.extend(part.callers);
}

/// Adds up the parts of a gateway's shards, or those of all gateways: each row once, the busiest first.
pub(super) fn tidy_top(reply: &mut v1::TopReply, sort: TopSort) {
    let mut groups: BTreeMap<(String, String), v1::TopGroup> = BTreeMap::new();
    for part in std::mem::take(&mut reply.groups) {
        let key = (part.app.clone(), part.group.clone());
        let Some(all) = groups.get_mut(&key) else {
            groups.insert(key, part);
            continue;
        };
        all.clients += part.clients;
        // Each message comes to every shard that has members.
        all.messages_per_s = all.messages_per_s.max(part.messages_per_s);
        all.deliveries_per_s += part.deliveries_per_s;
        all.bytes_per_s += part.bytes_per_s;
        all.drops_per_s += part.drops_per_s;
    }
    reply.groups = groups.into_values().collect();
    let mut apps: BTreeMap<String, v1::TopApp> = BTreeMap::new();
    for part in std::mem::take(&mut reply.apps) {
        let Some(all) = apps.get_mut(&part.app) else {
            apps.insert(part.app.clone(), part);
            continue;
        };
        all.clients += part.clients;
        all.connections_max = all.connections_max.max(part.connections_max);
        all.connections_per_gateway_max =
            all.connections_per_gateway_max.max(part.connections_per_gateway_max);
        all.clients_at_a_gateway = all.clients_at_a_gateway.max(part.clients_at_a_gateway);
        all.messages_in_per_s += part.messages_in_per_s;
        all.messages_out_per_s += part.messages_out_per_s;
        all.bytes_in_per_s += part.bytes_in_per_s;
        all.bytes_out_per_s += part.bytes_out_per_s;
        all.refused += part.refused;
    }
    reply.apps = apps.into_values().collect();
    for app in reply.apps.iter_mut().filter(|app| app.clients_at_a_gateway == 0) {
        // The parts are shards: they have left it to their gateway.
        app.clients_at_a_gateway = app.clients;
    }
    let mut workers: BTreeMap<String, v1::WorkerStatus> = BTreeMap::new();
    for part in std::mem::take(&mut reply.workers) {
        let Some(all) = workers.get_mut(&part.incarnation) else {
            workers.insert(part.incarnation.clone(), part);
            continue;
        };
        add_worker(all, &part);
        all.gateways += part.gateways;
    }
    reply.workers = workers.into_values().collect();
    let mut callers: BTreeMap<String, v1::TopCaller> = BTreeMap::new();
    for part in std::mem::take(&mut reply.callers) {
        match callers.get_mut(&part.caller) {
            Some(all) => add_caller(all, part),
            None => drop(callers.insert(part.caller.clone(), part)),
        }
    }
    reply.callers = callers.into_values().collect();
    cut_top(reply, sort, TOP_ROWS_MAX);
}

/// The busiest first, and no more than these.
pub(crate) fn cut_top(reply: &mut v1::TopReply, sort: TopSort, limit: usize) {
    cut(&mut reply.groups, limit, |row| match sort {
        TopSort::In => row.messages_per_s,
        TopSort::Bytes => row.bytes_per_s,
        TopSort::Drops => row.drops_per_s,
        TopSort::Clients => row.clients as f64,
        TopSort::Unspecified | TopSort::Out | TopSort::Waiting => row.deliveries_per_s,
    });
    cut(&mut reply.clients, limit, |row| match sort {
        TopSort::In => row.messages_in_per_s,
        TopSort::Bytes => row.bytes_out_per_s,
        TopSort::Waiting => row.outbox_bytes as f64,
        TopSort::Unspecified | TopSort::Out | TopSort::Drops | TopSort::Clients => row.messages_out_per_s,
    });
    cut(&mut reply.apps, limit, |row| match sort {
        TopSort::In => row.messages_in_per_s,
        TopSort::Bytes => row.bytes_out_per_s,
        TopSort::Drops => row.refused as f64,
        TopSort::Clients => row.clients as f64,
        TopSort::Unspecified | TopSort::Out | TopSort::Waiting => row.messages_out_per_s,
    });
    cut(&mut reply.workers, limit, |row| match sort {
        TopSort::Waiting => row.events_unanswered as f64,
        TopSort::Clients => row.clients as f64,
        _ => row.events_sent as f64,
    });
    cut(&mut reply.callers, limit, |row| match sort {
        TopSort::Bytes => row.bytes_per_s,
        TopSort::Drops => row.refused_per_s,
        _ => row.commands_per_s,
    });
}

/// Rows of equal value keep their order, which is that of their names.
fn cut<R>(rows: &mut Vec<R>, limit: usize, value: impl Fn(&R) -> f64) {
    rows.sort_by(|a, b| value(b).partial_cmp(&value(a)).unwrap_or(Ordering::Equal));
    rows.truncate(limit);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, rates: [f64; 3]) -> v1::TopGroup {
        let [messages_per_s, deliveries_per_s, bytes_per_s] = rates;
        let clients = 2;
        v1::TopGroup {
            group: name.into(),
            clients,
            messages_per_s,
            deliveries_per_s,
            bytes_per_s,
            ..v1::TopGroup::default()
        }
    }

    #[test]
    fn parts_of_a_group_are_added_and_its_messages_are_not() {
        let mut all = v1::TopReply {
            measured_ms: 1000,
            groups: vec![group("a", [3.0, 6.0, 1.0])],
            ..Default::default()
        };
        let part = v1::TopReply {
            measured_ms: 990,
            groups: vec![group("b", [1.0, 10.0, 9.0]), group("a", [3.0, 6.0, 2.0])],
            ..Default::default()
        };
        merge_top(&mut all, part);
        let names =
            |all: &v1::TopReply| all.groups.iter().map(|row| row.group.clone()).collect::<Vec<_>>().concat();
        tidy_top(&mut all, TopSort::Unspecified);
        assert_eq!((all.measured_ms, &*names(&all)), (990, "ab"));
        let a = &all.groups[0];
        assert_eq!((a.clients, a.messages_per_s, a.deliveries_per_s, a.bytes_per_s), (4, 3.0, 12.0, 3.0));
        tidy_top(&mut all, TopSort::Bytes);
        assert_eq!(names(&all), "ba");
        cut_top(&mut all, TopSort::Bytes, 1);
        assert_eq!(names(&all), "b");
        merge_top(&mut all, v1::TopReply::default());
        assert_eq!(all.measured_ms, 0, "a gateway has just begun");
    }

    #[test]
    fn an_app_is_added_up_and_its_limit_is_not() {
        let app = |clients| v1::TopApp {
            app: "shop".into(),
            clients,
            connections_max: 10,
            ..v1::TopApp::default()
        };
        let reply = |apps| v1::TopReply { apps, ..v1::TopReply::default() };
        let mut one = reply(vec![app(1), app(2)]);
        tidy_top(&mut one, TopSort::Clients);
        assert_eq!((one.apps[0].clients, one.apps[0].clients_at_a_gateway), (3, 3));
        let mut all = reply(vec![app(5)]);
        tidy_top(&mut all, TopSort::Clients);
        merge_top(&mut all, one);
        tidy_top(&mut all, TopSort::Clients);
        let row = &all.apps[0];
        assert_eq!((row.clients, row.clients_at_a_gateway, row.connections_max), (8, 5, 10));
    }

    #[test]
    fn a_caller_of_several_gateways_is_one() {
        let caller = |name: &str, gateway: &str, commands_per_s, last_at_ms| v1::TopCaller {
            caller: name.into(),
            commands_per_s,
            last_at_ms,
            gateways: vec![gateway.into()],
            ..v1::TopCaller::default()
        };
        let of = |callers| v1::TopReply { measured_ms: 10_000, callers, ..v1::TopReply::default() };
        let mut all = of(vec![caller("token:ann", "gw-2", 2.0, 7), caller("secret", "gw-2", 4.0, 1)]);
        merge_top(&mut all, of(vec![caller("token:ann", "gw-1", 3.0, 5)]));
        tidy_top(&mut all, TopSort::Out);
        let ann = &all.callers[0];
        assert_eq!((&*ann.caller, ann.commands_per_s, ann.last_at_ms), ("token:ann", 5.0, 7));
        assert_eq!((&ann.gateways[..], all.callers.len()), (&["gw-1".to_owned(), "gw-2".to_owned()][..], 2));
    }

    #[test]
    fn questions_are_parsed_or_refused() {
        let request =
            |by, limit, app: &str| v1::TopRequest { by, limit, app: app.into(), ..v1::TopRequest::default() };
        let parsed = parse_top(&request(TopBy::Groups.into(), 0, "")).unwrap();
        assert_eq!(
            parsed,
            TopQuestion { by: TopBy::Groups, sort: TopSort::Unspecified, app: None, limit: 100 }
        );
        for (request, word) in [
            (request(0, 0, ""), "by is none"),
            (request(99, 0, ""), "by is none"),
            (request(1, 257, ""), "at most 256"),
            (request(1, 1, "a\nb"), "app"),
            (v1::TopRequest { sort: 99, ..request(1, 1, "") }, "order 99"),
            (v1::TopRequest { requires: vec!["x".into()], ..request(1, 1, "") }, "requires"),
        ] {
            let refused = parse_top(&request).unwrap_err().message;
            assert!(refused.contains(word), "{refused}");
        }
    }
}
