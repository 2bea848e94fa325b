//! `send --trace` and `--dry-run`: which way a message takes, and whom it would reach.

use std::collections::BTreeSet;

use broadgate_proto::v1::{self, HopTrouble, hop::Step, inspect_request::Of, observe_client::ObserveClient};
use serde_json::json;
use tonic::Code;

use crate::{
    backends::call,
    harness::*,
    http::post,
    operator,
    pusher::{APPS, Pusher},
};

const KEEPING: &str = "[[gateway.groups]]\npattern = \"room-*\"\nhistory_messages = 5\n\
    last_value_time = \"60s\"\n";

fn traced(to: v1::Audience, said: &str) -> v1::SendRequest {
    v1::SendRequest { trace: true, requires: vec!["trace".to_owned()], ..text(to, said) }
}

fn dry(to: v1::Audience, said: &str) -> v1::SendRequest {
    v1::SendRequest { dry: true, requires: vec!["dry".to_owned()], ..text(to, said) }
}

async fn sent(cluster: &Cluster, gateway: usize, request: v1::SendRequest) -> v1::Receipt {
    cluster.caller(gateway).await.send(request).await.unwrap().into_inner()
}

fn steps(receipt: &v1::Receipt) -> impl Iterator<Item = (&str, &Step)> {
    let trace = receipt.trace.as_ref().unwrap();
    trace.hops.iter().map(|hop| (&*hop.gateway, hop.step.as_ref().unwrap()))
}

/// The gateways that placed it, and how many clients their shards counted.
fn placed(receipt: &v1::Receipt) -> (BTreeSet<&str>, u64) {
    let placed = steps(receipt).filter_map(|(gateway, step)| match step {
        Step::Placed(placed) => Some((gateway, placed.shards.iter().map(|shard| shard.clients).sum::<u64>())),
        _ => None,
    });
    let all: Vec<_> = placed.collect();
    (all.iter().map(|(gateway, _)| *gateway).collect(), all.iter().map(|(_, clients)| clients).sum())
}

fn asked(receipt: &v1::Receipt) -> Option<&v1::HopAsked> {
    steps(receipt).find_map(|(_, step)| if let Step::Asked(asked) = step { Some(asked) } else { None })
}

/// A client at each gateway, in all of these groups.
async fn members(cluster: &Cluster, groups: &[String]) -> Vec<Client> {
    let names: Vec<&str> = groups.iter().map(String::as_str).collect();
    let mut members = Vec::new();
    for gateway in 0..cluster.gateways.len() {
        let client = cluster.client(gateway).await;
        cluster.caller(0).await.join(join(&[&client.id], &names)).await.unwrap();
        members.push(client);
    }
    members
}

/// A group of many whose home is this gateway.
async fn group_at_home(cluster: &Cluster, home: &str) -> String {
    named_group_at_home(cluster, "room", home).await
}

async fn named_group_at_home(cluster: &Cluster, kind: &str, home: &str) -> String {
    let mut observer = ObserveClient::connect(format!("http://{}", cluster.internal[0])).await.unwrap();
    for number in 0..1000 {
        let group = format!("{kind}-{number}");
        let of = Some(Of::Group(group.clone()));
        let request = v1::InspectRequest { of, ..v1::InspectRequest::default() };
        if observer.inspect(request).await.unwrap().into_inner().home == home {
            return group;
        }
    }
    panic!("{home} is the home of nothing");
}

const ALL: [&str; 3] = ["gateway-1", "gateway-2", "gateway-3"];

/// By way of another home, of the caller's own gateway, and of none.
#[tokio::test]
async fn a_trace_names_each_step_of_a_message() {
    let cluster = Cluster::quiet(3).more(KEEPING).start().await;
    let (far, near) =
        (group_at_home(&cluster, "gateway-2").await, group_at_home(&cluster, "gateway-1").await);
    let members = members(&cluster, &[far.clone(), near.clone()]).await;
    for (group, home) in [(&far, "gateway-2"), (&near, "gateway-1")] {
        for offset in 1..3 {
            let receipt = sent(&cluster, 0, traced(groups(&[group]), "hello")).await;
            let trace = receipt.trace.as_ref().unwrap();
            assert_eq!((receipt.clients, receipt.ordered, &*trace.traceparent), (3, true, ""));
            let mut steps = steps(&receipt);
            let Some(("gateway-1", Step::Taken(taken))) = steps.next() else { panic!("{receipt:?}") };
            assert_eq!((&*taken.caller, taken.bytes), ("local", 5));
            let Some(("gateway-1", Step::Asked(asked))) = steps.next() else { panic!("{receipt:?}") };
            assert_eq!((&*asked.home, asked.link_us > 0), (home, home != "gateway-1"));
            let Some((at, Step::Ordered(ordered))) = steps.next() else { panic!("{receipt:?}") };
            assert_eq!((at, ordered.parked_us, ordered.history_offset), (home, 0, offset));
            assert!(ordered.position.contains('/') && ordered.took_us <= trace.took_us, "{receipt:?}");
            assert_eq!(placed(&receipt), (ALL.into(), 3));
            assert_eq!((trace.hops.len(), trace.hops_left_out), (6, 0));
            let is_in_time = |hop: &v1::Hop| hop.at_us <= trace.took_us;
            assert!(trace.hops.iter().all(is_in_time), "a step takes no longer than the whole: {trace:?}");
        }
    }
    let ids: Vec<&str> = members.iter().map(|client| client.id.as_str()).collect();
    for to in [clients(&ids), groups(&[&far, &near])] {
        let receipt = sent(&cluster, 2, traced(to, "x")).await;
        assert!(matches!(steps(&receipt).next(), Some(("gateway-3", Step::Taken(_)))), "{receipt:?}");
        assert_eq!((placed(&receipt), asked(&receipt)), ((ALL.into(), 3), None), "no home is asked");
    }
    for to in [clients(&ids), groups(&[&far]), all()] {
        assert_eq!(sent(&cluster, 0, text(to, "x")).await.trace, None, "nobody has asked");
    }

    let (code, out, err) = cluster.run(&["send", "--trace", "--group", &far, "hello"]);
    assert_eq!(code, 0, "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("0 ") && lines[0].ends_with("gateway-1 took it from local, 5 B"), "{out}");
    assert!(lines[1].contains("gateway-1 home is gateway-2: asked (link "), "{out}");
    assert!(
        lines[2].contains("gateway-2 not parked; placed at ") && lines[2].contains(", history "),
        "{out}"
    );
    assert_eq!(
        lines[3..6].iter().filter(|line| line.contains(" clients") || line.contains(" client")).count(),
        3
    );
    assert!(lines[6].ends_with("receipt: 3 clients, ordered"), "{out}");
    assert_eq!(lines[7], "sent to 3 clients on 3 gateways");
    let (_, out, _) = cluster.run(&["send", "--trace", "--json", "--group", &far, "hello"]);
    assert_eq!(operator::json(&out)["trace"]["hops"][1]["asked"]["home"], "gateway-2");
}

/// Whatever it is addressed to: nobody gets it, and nothing remembers it.
#[tokio::test]
async fn a_dry_run_counts_whom_a_message_would_reach_and_leaves_nothing_behind() {
    let cluster = Cluster::quiet(3).more(KEEPING).start().await;
    let room = group_at_home(&cluster, "gateway-2").await;
    let mut members = members(&cluster, &[room.clone(), "other".to_owned()]).await;
    let mut caller = cluster.caller(0).await;
    for client in &members {
        caller.bind(bind(&client.id, "ann")).await.unwrap();
    }
    let first = sent(&cluster, 0, text(groups(&[&room]), "first")).await;
    let ids: Vec<String> = members.iter().map(|client| client.id.clone()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let gone = "0".repeat(30);
    for gateway in 0..3 {
        for (to, unknown) in [
            (groups(&[&room]), 0),
            (uids(&["ann"]), 0),
            (all(), 0),
            (clients(&ids), 0),
            (groups(&[&room, "other"]), 0),
            (clients(&[&[&*gone], &ids[..]].concat()), 1),
        ] {
            let request = v1::SendRequest { command_id: "later".to_owned(), ..dry(to, "never") };
            for request in [request.clone(), v1::SendRequest { trace: true, ..request }] {
                let is_traced = request.trace;
                let receipt = sent(&cluster, gateway, request).await;
                assert!(receipt.coverage.as_ref().unwrap().complete, "{receipt:?}");
                assert_eq!(
                    (receipt.clients, receipt.gateways, receipt.unknown_clients.len()),
                    (3, 3, unknown)
                );
                assert_eq!((receipt.position, receipt.repeated, &*receipt.command_id), (None, false, ""));
                assert_eq!(receipt.trace.is_some(), is_traced);
            }
        }
    }
    let receipt = sent(&cluster, 0, v1::SendRequest { trace: true, ..dry(groups(&[&room]), "never") }).await;
    let ordered = steps(&receipt).find_map(|(at, step)| match step {
        Step::Ordered(ordered) => Some((at, &*ordered.position, ordered.history_offset)),
        _ => None,
    });
    assert_eq!((ordered, placed(&receipt)), (Some(("gateway-2", "", 0)), (ALL.into(), 3)));

    let request = v1::HistoryRequest { group: room.clone(), ..v1::HistoryRequest::default() };
    let history = caller.history(request).await.unwrap().into_inner();
    assert_eq!((history.messages.len(), &history.position), (1, &first.position));
    let request = v1::LastValueRequest { group: room.clone(), ..v1::LastValueRequest::default() };
    let last = caller.last_value(request).await.unwrap().into_inner().payload;
    assert_eq!(last, Some(v1::last_value_reply::Payload::Text("first".to_owned())));
    // Its id is no repeat, and its place is the next.
    let second = v1::SendRequest { command_id: "later".to_owned(), ..text(groups(&[&room]), "second") };
    let second = sent(&cluster, 1, second).await;
    assert_eq!((second.clients, second.repeated, second.position.unwrap().offset), (3, false, 2));
    sent(&cluster, 0, text(clients(&ids), "third")).await;
    for client in &mut members {
        client.hears(&["first", "second", "third"]).await;
    }

    let (code, out, _) = cluster.run(&["send", "--dry-run", "--group", &room, "never"]);
    assert_eq!((code, &*out), (0, "would be sent to 3 clients on 3 gateways\n"));
    let (code, out, _) = cluster.run(&["send", "--dry-run", "--trace", "--group", &room, "never"]);
    assert!(code == 0 && out.contains("gateway-2 not parked; nothing is placed"), "{out}");
    assert!(out.contains("receipt: 3 clients, nothing sent, ordered"), "{out}");
    sent(&cluster, 0, text(clients(&ids), "fourth")).await;
    for client in &mut members {
        client.hears(&["fourth"]).await;
    }
}

/// A gateway that stands still is named, with what is known of it, when it is waited for no longer.
#[tokio::test]
async fn a_trace_names_a_gateway_that_does_not_answer() {
    let patient = "beat = \"500ms\"\nlease = \"60s\"";
    let cluster = Cluster::quiet(3).register(patient).more(KEEPING).start().await;
    let room = group_at_home(&cluster, "gateway-2").await;
    let members = members(&cluster, std::slice::from_ref(&room)).await;
    assert_eq!(placed(&sent(&cluster, 0, traced(groups(&[&room]), "x")).await).0, ALL.into());
    cluster.gateways[2].signal("STOP");
    let two: BTreeSet<&str> = ["gateway-1", "gateway-2"].into();
    let ids: Vec<&str> = members.iter().map(|client| client.id.as_str()).collect();
    // At first it is waited for; later its link is known to be broken.
    for to in [groups(&[&room]), clients(&ids), groups(&[&room])] {
        let receipt = sent(&cluster, 0, traced(to, "x")).await;
        assert_eq!(receipt.coverage.as_ref().unwrap().missing, ["gateway-3"]);
        assert_eq!(placed(&receipt), (two.clone(), 2));
        let failed: Vec<_> = steps(&receipt)
            .filter_map(
                |(at, step)| {
                    if let Step::Failed(failed) = step { Some((at, failed.trouble())) } else { None }
                },
            )
            .collect();
        let known = [HopTrouble::NoAnswer, HopTrouble::Unreachable, HopTrouble::NotSynced];
        assert!(matches!(&failed[..], [("gateway-3", trouble)] if known.contains(trouble)), "{receipt:?}");
    }
    let (code, out, _) = cluster.run(&["send", "--trace", "--group", &room, "x"]);
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("receipt: 2 clients, ordered, missing gateway-3"), "{out}");
    let line = out.lines().find(|line| line.trim_start().starts_with("gateway-3 ")).unwrap();
    assert!(["NO ANSWER", "UNREACHABLE", "NOT SYNCED"].iter().any(|word| line.contains(word)), "{out}");
    cluster.gateways[2].signal("CONT");
}

fn failed(receipt: &v1::Receipt) -> Vec<(&str, HopTrouble)> {
    let troubles = steps(receipt).filter_map(|(at, step)| match step {
        Step::Failed(failed) => Some((at, failed.trouble())),
        _ => None,
    });
    troubles.collect()
}

/// A home that stands still is named where the message stopped, and nobody else is: by the receipt, by the command line,
/// and where a group cannot do without its home.
#[tokio::test]
async fn a_trace_names_a_home_that_hangs_where_the_message_stopped() {
    let patient = "beat = \"500ms\"\nlease = \"60s\"";
    let cluster = Cluster::quiet(3).register(patient).more(KEEPING).start().await;
    let free = named_group_at_home(&cluster, "free", "gateway-2").await;
    let kept = group_at_home(&cluster, "gateway-2").await;
    let _members = members(&cluster, &[free.clone(), kept.clone()]).await;
    cluster.gateways[1].signal("STOP");
    for _ in 0..2 {
        let receipt = sent(&cluster, 0, traced(groups(&[&free]), "x")).await;
        let stopped: Vec<_> = steps(&receipt).take(3).collect();
        let [
            ("gateway-1", Step::Taken(_)),
            ("gateway-1", Step::Asked(asked)),
            ("gateway-2", Step::Failed(_)),
        ] = &stopped[..]
        else {
            panic!("{receipt:?}")
        };
        assert_eq!(asked.home, "gateway-2");
        assert_eq!(failed(&receipt), [("gateway-2", HopTrouble::HomeSilent)]);
        assert_eq!(placed(&receipt), (["gateway-1", "gateway-3"].into(), 2));
        let coverage = receipt.coverage.as_ref().unwrap();
        assert_eq!((&coverage.missing[..], receipt.ordered), (&["gateway-2".to_owned()][..], false));
    }
    let (code, out, err) = cluster.run(&["send", "--trace", "--group", &free, "x", "--timeout", "60s"]);
    assert!(code == 3 && err.contains("gateway-2 did not answer in time"), "{code} {out} {err}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[1].contains("gateway-1 home is gateway-2: asked"), "{out}");
    assert!(lines[2].contains("gateway-2 NO ANSWER as the home"), "{out}");
    assert!(out.matches("NO ANSWER").count() == 1 && !out.contains("UNREACHABLE"), "{out}");
    // It is repeated until the time is over: what was said meanwhile names the one that hangs.
    let (code, out, err) = cluster.run(&["send", "--trace", "--group", &kept, "x", "--timeout", "15s"]);
    assert!(code == 1 && err.contains("the group's home, gateway-2, which keeps its history"), "{out} {err}");
    cluster.gateways[1].signal("CONT");
}

/// A gateway that is removed while it is waited for keeps its name.
#[tokio::test]
async fn a_trace_names_a_home_that_is_removed_meanwhile() {
    let cluster = Cluster::quiet(3).register("beat = \"500ms\"\nlease = \"3s\"").start().await;
    let room = group_at_home(&cluster, "gateway-2").await;
    let _members = members(&cluster, std::slice::from_ref(&room)).await;
    cluster.gateways[1].signal("STOP");
    let receipt = sent(&cluster, 0, traced(groups(&[&room]), "x")).await;
    let trace = receipt.trace.as_ref().unwrap();
    let is_named = |name: &str| ALL.contains(&name);
    assert!(trace.hops.iter().all(|hop| is_named(&hop.gateway)), "{receipt:?}");
    assert!(is_named(&asked(&receipt).unwrap().home), "{receipt:?}");
    assert!(receipt.coverage.as_ref().unwrap().missing.iter().all(|name| is_named(name)), "{receipt:?}");
    cluster.gateways[1].signal("CONT");
}

/// What a gateway cannot keep apart from a send in earnest, it refuses.
#[tokio::test]
async fn dry_runs_and_traces_are_refused_where_they_make_no_sense() {
    let cluster = Cluster::quiet(1).start().await;
    let mut client = cluster.client(0).await;
    let mut caller = cluster.caller(0).await;
    for request in [
        v1::SendRequest { no_receipt: true, ..dry(all(), "never") },
        v1::SendRequest { no_receipt: true, ..traced(all(), "never") },
    ] {
        assert_eq!(caller.send(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let unknown = v1::SendRequest { requires: vec!["dry".into(), "drier".into()], ..dry(all(), "never") };
    assert_eq!(caller.send(unknown).await.unwrap_err().code(), Code::Unimplemented);
    // There is no dry run of a close.
    let close = v1::CloseRequest { to: Some(all()), requires: vec!["dry".into()], ..Default::default() };
    assert_eq!(caller.close(close).await.unwrap_err().code(), Code::Unimplemented);

    let headers = [("Content-Type", "application/json"), ("Host", "127.0.0.1")];
    let as_json = async |body: serde_json::Value| {
        let (status, receipt) = post(&cluster.internal[0], "Send", &headers, &body.to_string()).await;
        assert_eq!(status, 200, "{receipt}");
        receipt
    };
    let receipt = as_json(json!({"to": {"all": true}, "text": "never", "dry": true, "trace": true,
        "requires": ["dry", "trace"]}))
    .await;
    let hops = receipt["trace"]["hops"].as_array().unwrap();
    assert_eq!(
        (&receipt["clients"], &hops[0]["taken"]),
        (&json!(1), &json!({"caller": "local", "bytes": 5}))
    );
    let receipt = as_json(json!({"to": {"all": true}, "text": "sent"})).await;
    assert!(receipt["clients"] == 1 && receipt.get("trace").is_none(), "{receipt}");
    client.hears(&["sent"]).await;
}

/// A publish of a backend by Pusher's HTTP API belongs to the backend's own trace: taps of all gateways and the log say so.
#[tokio::test]
async fn a_traceparent_of_a_backend_is_kept() {
    let cluster = Cluster::quiet(2).logging("info,trace=debug").more(APPS).start().await;
    let mut client = Pusher::connect(&cluster, 1).await;
    client.subscribe("room").await;
    let mut observer = ObserveClient::connect(format!("http://{}", cluster.internal[0])).await.unwrap();
    let of = Some(v1::tap_request::Of::Group("room".to_owned()));
    let request = v1::TapRequest { app: "shop".to_owned(), of, ..v1::TapRequest::default() };
    let mut tap = observer.tap(request).await.unwrap().into_inner();
    let mut started = 0;
    while started < 2 {
        let next = soon("both gateways begin", tap.message()).await.unwrap().unwrap();
        started += usize::from(next.start.is_some());
    }
    let sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let body = json!({"name": "e", "channels": ["room"], "data": "d"}).to_string();
    let header = format!("traceparent: {sampled}\r\n");
    let answer = call(&cluster, 0, "POST", "/events", "", &header, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let placed = soon("it is shown", async {
        loop {
            let events = tap.message().await.unwrap().unwrap().events;
            if let Some(placed) = events.into_iter().find(|event| event.kind() == v1::TapKind::Placed) {
                return placed;
            }
        }
    })
    .await;
    assert_eq!((&*placed.traceparent, placed.count), (sampled, 1), "{placed:?}");
    cluster.gateways[0].logged("hops=").await;
    let log = cluster.gateways[0].log();
    let line = log.lines().find(|line| line.contains("hops=")).unwrap();
    assert!(line.contains(sampled) && line.contains("took 1 B from app:shop/"), "{line}");
}

/// The trace of a caller's own is kept in the receipt, in the audit and in the log.
#[tokio::test]
async fn a_traceparent_is_kept() {
    let cluster = Cluster::quiet(1).logging("info,trace=debug").start().await;
    let mut client = cluster.client(0).await;
    let sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let silent = "00-5bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let as_json = async |call: &str, traceparent: &str, body: serde_json::Value| {
        let headers =
            [("Content-Type", "application/json"), ("Host", "127.0.0.1"), ("traceparent", traceparent)];
        let (status, receipt) = post(&cluster.internal[0], call, &headers, &body.to_string()).await;
        assert_eq!(status, 200, "{receipt}");
        receipt
    };
    for (traceparent, kept) in [(sampled, sampled), (silent, silent), ("00-0-0-0", "")] {
        let receipt =
            as_json("Send", traceparent, json!({"to": {"all": true}, "text": "a", "trace": true})).await;
        assert_eq!(receipt["trace"]["traceparent"], kept, "{receipt}");
        let receipt = as_json("Send", traceparent, json!({"to": {"all": true}, "text": "b"})).await;
        assert!(receipt["clients"] == 1 && receipt.get("trace").is_none(), "nobody asked: {receipt}");
        client.hears(&["a", "b"]).await;
    }
    let mut request = tonic::Request::new(traced(all(), "c"));
    request.metadata_mut().insert("traceparent", sampled.parse().unwrap());
    let receipt = cluster.caller(0).await.send(request).await.unwrap().into_inner();
    assert_eq!(receipt.trace.unwrap().traceparent, sampled);
    let close = json!({"to": {"clients": [client.id]}, "command_id": "bye"});
    assert_eq!(as_json("Close", sampled, close).await["clients"], 1);
    // The audit's line is the last.
    let marker = "\"command_id\":\"bye\"";
    cluster.gateways[0].logged(marker).await;
    let log = cluster.gateways[0].log();
    let line = log.lines().find(|line| line.contains(marker)).unwrap();
    assert!(line.contains(&format!("\"traceparent\":\"{sampled}\"")), "{line}");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("hops=")).collect();
    assert_eq!(lines.len(), 3, "each that is sampled has one: {log}");
    for line in lines {
        assert!(
            line.contains(sampled)
                && line.contains("took 1 B from local")
                && line.contains("placed 1, dropped 0"),
            "{line}"
        );
    }
}
