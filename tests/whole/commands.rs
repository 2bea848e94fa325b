//! Every command that changes or sends something, given at another gateway than the one that holds
//! the client.

use broadgate_proto::v1::{self, Audience, Except, command::Command, send_request::Payload};
use tonic::Code;

use crate::harness::*;

/// Three gateways; one client on each of the first two; commands go to the third.
async fn far() -> (Cluster, Caller, Client, Client) {
    let cluster = Cluster::quiet(3).start().await;
    let (a, b) = (cluster.client(0).await, cluster.client(1).await);
    let caller = cluster.caller(2).await;
    (cluster, caller, a, b)
}

fn except(mut audience: Audience, clients: &[&str], uids: &[&str], groups: &[&str]) -> Audience {
    let texts = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    audience.except = Some(Except { clients: texts(clients), uids: texts(uids), groups: texts(groups) });
    audience
}

#[tokio::test]
async fn sends_reach_their_audience() {
    let (_cluster, mut caller, mut a, mut b) = far().await;
    let (x, y) = (a.id.clone(), b.id.clone());
    caller.bind(bind(&x, "ann")).await.unwrap();
    caller.bind(bind(&y, "bob")).await.unwrap();
    caller.join(join(&[&x, &y], &["room"])).await.unwrap();
    caller.join(join(&[&x], &["other"])).await.unwrap();
    let cases = [
        (clients(&[&x]), "a client", 1),
        (clients(&[&x, &y]), "clients", 2),
        (uids(&["ann"]), "a uid", 1),
        (uids(&["ann", "bob"]), "uids", 2),
        (groups(&["room"]), "a group", 2),
        (groups(&["room", "other"]), "two groups, one copy", 2),
        (all(), "all", 2),
        (except(all(), &[&y], &[], &[]), "all but a client", 1),
        (except(all(), &[], &["bob"], &[]), "all but a uid", 1),
        (except(groups(&["room"]), &[], &[], &["other"]), "a group but another", 1),
        (except(clients(&[&x, &y]), &[&x], &[], &[]), "clients but one", 1),
        (Audience::default(), "nobody", 0),
        (except(Audience::default(), &[&x], &["bob"], &[]), "exceptions alone", 0),
        (groups(&["empty"]), "an empty group", 0),
        (
            Audience { clients: vec![x.clone()], uids: vec!["ann".into()], ..groups(&["room"]) },
            "in every way",
            2,
        ),
    ];
    let (mut heard_a, mut heard_b) = (0, 0);
    for (to, what, reached) in cases {
        let receipt = caller.send(text(to, what)).await.unwrap().into_inner();
        assert_eq!(receipt.clients, reached, "{what}");
        assert!(receipt.coverage.unwrap().complete, "{what}");
        assert!(!receipt.command_id.is_empty());
        let only_b = what == "a group but another" || what == "clients but one";
        heard_a += u32::from(reached > 0 && !only_b);
        heard_b += u32::from(reached == 2 || only_b);
        if reached > 0 && !only_b {
            assert_eq!(a.hear().await, what);
        }
        if reached == 2 || only_b {
            assert_eq!(b.hear().await, what);
        }
    }
    assert_eq!((heard_a, heard_b), (10, 8));
    // Nothing else is under way to either.
    caller.send(text(all(), "the end")).await.unwrap();
    a.hears(&["the end"]).await;
    b.hears(&["the end"]).await;
}

#[tokio::test]
async fn text_binary_and_frames_arrive_unchanged() {
    let (_cluster, mut caller, mut a, _b) = far().await;
    let to = Some(clients(&[&a.id]));
    let mut send = async |payload| {
        let request = v1::SendRequest { to: to.clone(), payload: Some(payload), ..Default::default() };
        caller.send(request).await
    };
    send(Payload::Text("grüße ☕".into())).await.unwrap();
    send(Payload::Binary(vec![0, 255, 1].into())).await.unwrap();
    // Two messages in one buffer.
    send(Payload::Framed(b"\x81\x02hi\x82\x01\x07".to_vec().into())).await.unwrap();
    let refused = send(Payload::Framed(b"\x81\x05hi".to_vec().into())).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    a.hears(&["grüße ☕"]).await;
    assert_eq!(&a.message().await.into_data()[..], [0, 255, 1]);
    a.hears(&["hi"]).await;
    assert_eq!(&a.message().await.into_data()[..], [7]);
}

#[tokio::test]
async fn closes_carry_code_reason_and_last_message() {
    let (cluster, mut caller, mut a, mut b) = far().await;
    caller.bind(bind(&a.id, "ann")).await.unwrap();
    caller.join(join(&[&b.id], &["room"])).await.unwrap();
    let close = |of, code, reason: &str| v1::CloseRequest {
        to: Some(of),
        code,
        reason: reason.to_owned(),
        last: Some(v1::close_request::Last::Text("bye".into())),
        ..Default::default()
    };
    let receipt = caller.close(close(uids(&["ann"]), 4001, "go")).await.unwrap().into_inner();
    assert_eq!(receipt.clients, 1);
    assert_eq!(a.closed().await, Closed { code: 4001, reason: "go".into(), before: vec!["bye".into()] });
    caller.close(close(groups(&["room"]), 0, "")).await.unwrap();
    assert_eq!(b.closed().await, Closed { code: 1000, reason: String::new(), before: vec!["bye".into()] });
    let (mut c, mut d) = (cluster.client(0).await, cluster.client(1).await);
    let at_once = v1::CloseRequest { to: Some(clients(&[&c.id])), at_once: true, ..Default::default() };
    assert_eq!(caller.close(at_once).await.unwrap().into_inner().clients, 1);
    assert_eq!(c.closed().await.code, 1006, "cut without a farewell");
    caller.close(close(all(), 1001, "")).await.unwrap();
    assert_eq!(d.closed().await.code, 1001);
    let reserved = caller.close(close(all(), 1006, "")).await.unwrap_err();
    assert_eq!(reserved.code(), Code::InvalidArgument, "{reserved}");
    until("all are gone", async || (cluster.count(2).await == 0).then_some(())).await;
}

#[tokio::test]
async fn exclusive_bind_closes_the_uids_other_clients() {
    let (_cluster, mut caller, mut a, mut b) = far().await;
    for id in [&a.id, &b.id] {
        caller.bind(bind(id, "ann")).await.unwrap();
    }
    assert_eq!(caller.send(text(uids(&["ann"]), "both")).await.unwrap().into_inner().clients, 2);
    caller.bind(bind(&a.id, "eve")).await.unwrap();
    assert_eq!(caller.send(text(uids(&["ann"]), "one")).await.unwrap().into_inner().clients, 1);
    let other = v1::UnbindRequest { client_id: a.id.clone(), uid: "ann".into(), ..Default::default() };
    caller.unbind(other).await.unwrap();
    assert_eq!(caller.send(text(uids(&["eve"]), "still eve")).await.unwrap().into_inner().clients, 1);
    let unbind = v1::UnbindRequest { client_id: a.id.clone(), ..Default::default() };
    assert!(caller.unbind(unbind).await.unwrap().into_inner().command_id.starts_with('~'));
    assert_eq!(caller.send(text(uids(&["eve"]), "nobody")).await.unwrap().into_inner().clients, 0);
    let exclusive = v1::BindRequest { exclusive: true, ..bind(&a.id, "ann") };
    assert_eq!(caller.bind(exclusive).await.unwrap().into_inner().clients, 1);
    let closed = b.closed().await;
    assert_eq!((closed.code, closed.before), (4009, vec!["both".to_owned(), "one".to_owned()]));
    caller.send(text(uids(&["ann"]), "mine alone")).await.unwrap();
    a.hears(&["both", "still eve", "mine alone"]).await;
}

#[tokio::test]
async fn groups_are_joined_left_and_dissolved() {
    let (_cluster, mut caller, mut a, b) = far().await;
    caller.bind(bind(&b.id, "bob")).await.unwrap();
    let by_uid = v1::JoinGroupsRequest {
        clients: vec![a.id.clone()],
        uids: vec!["bob".into()],
        groups: vec!["r1".into(), "r2".into()],
        ..Default::default()
    };
    assert_eq!(caller.join(by_uid).await.unwrap().into_inner().clients, 2);
    // Each has an id by which it can be repeated, also where no home is asked.
    let receipt = caller.join(join(&[&a.id], &["r3"])).await.unwrap().into_inner();
    assert!(receipt.command_id.starts_with('~'), "{receipt:?}");
    let leave = v1::LeaveGroupsRequest {
        clients: vec![a.id.clone()],
        groups: vec!["r3".into()],
        ..Default::default()
    };
    let receipt = caller.leave(leave).await.unwrap().into_inner();
    assert!(receipt.command_id.starts_with('~'), "{receipt:?}");
    let leave =
        v1::LeaveGroupsRequest { uids: vec!["bob".into()], groups: vec!["r1".into()], ..Default::default() };
    assert_eq!(caller.leave(leave).await.unwrap().into_inner().clients, 1);
    assert_eq!(caller.send(text(groups(&["r1"]), "a")).await.unwrap().into_inner().clients, 1);
    assert_eq!(caller.send(text(groups(&["r2"]), "both")).await.unwrap().into_inner().clients, 2);
    let dissolve = v1::DissolveRequest { groups: vec!["r2".into()], ..Default::default() };
    assert_eq!(caller.dissolve(dissolve).await.unwrap().into_inner().clients, 2);
    assert_eq!(caller.send(text(groups(&["r2"]), "nobody")).await.unwrap().into_inner().clients, 0);
    caller.send(text(all(), "connected")).await.unwrap();
    a.hears(&["a", "both", "connected"]).await;
}

/// On one pipelined stream, a join that was written before a send counts for it, and one that was
/// written after does not; whatever the gateways.
#[tokio::test]
async fn command_stream_takes_effect_in_order() {
    let (_cluster, mut caller, mut a, mut b) = far().await;
    // To a topic, in the topic's order; to a client, in the stream's. The two may overtake each other.
    let send = |what: &str| Command::Send(text(groups(&["room"]), what));
    caller.join(join(&[&a.id, &b.id], &["room"])).await.unwrap();
    let mut commands = Vec::new();
    for number in 0..200 {
        commands.push(send(&number.to_string()));
        commands.push(Command::Send(text(clients(&[&a.id]), &format!("direct {number}"))));
    }
    let count = commands.len() as u64;
    // Half in batches of their own, half together.
    let mut batches = Vec::new();
    let numbered =
        (0u64..).zip(commands).map(|(id, command)| v1::Command { id, command: Some(command), after: None });
    let mut numbered = numbered.collect::<Vec<_>>();
    let together = numbered.split_off(100);
    batches.extend(numbered.into_iter().map(|command| v1::CommandBatch { commands: vec![command] }));
    batches.push(v1::CommandBatch { commands: together });
    let mut answers = caller.commands(tokio_stream::iter(batches)).await.unwrap().into_inner();
    let mut seen = std::collections::BTreeSet::new();
    while let Some(batch) = soon("answers come", answers.message()).await.unwrap() {
        seen.extend(batch.answers.into_iter().map(|answer| answer.id));
    }
    assert_eq!(seen.len() as u64, count, "every command is answered under its id");
    let expected = |prefix: &str| (0..200).map(|number| format!("{prefix}{number}")).collect::<Vec<_>>();
    let mut heard = Vec::new();
    for _ in 0..400 {
        heard.push(a.hear().await);
    }
    let (direct, room): (Vec<_>, Vec<_>) = heard.into_iter().partition(|text| text.starts_with("direct"));
    assert_eq!((direct, room), (expected("direct "), expected("")));
    for text in expected("") {
        assert_eq!(b.hear().await, text);
    }
}

#[tokio::test]
async fn sessions_are_set_merged_compared_and_bounded() {
    let (_cluster, mut caller, a, _b) = far().await;
    let set = |json: &str, if_version| v1::SetSessionRequest {
        client_id: a.id.clone(),
        json: json.into(),
        if_version,
        ..Default::default()
    };
    let merge = |json: &str| v1::MergeSessionRequest {
        client_id: a.id.clone(),
        json: json.into(),
        ..Default::default()
    };
    let json = |reply: v1::SessionReply| {
        serde_json::from_str::<serde_json::Value>(&reply.session.unwrap().json).unwrap()
    };
    let first =
        caller.set_session(set(r#"{"n":9007199254740993,"a":{"b":1}}"#, None)).await.unwrap().into_inner();
    assert_eq!(first.session.as_ref().unwrap().version, 1);
    let merged = caller.merge_session(merge(r#"{"a":{"b":null,"c":2},"d":[1]}"#)).await.unwrap().into_inner();
    assert_eq!(json(merged), serde_json::json!({"n": 9_007_199_254_740_993_u64, "a": {"c": 2}, "d": [1]}));
    let conflict = caller.set_session(set("{}", Some(1))).await.unwrap_err();
    assert_eq!(conflict.code(), Code::Aborted, "{conflict}");
    assert!(conflict.message().contains("version 2"), "{conflict}");
    caller.set_session(set(r#"{"x":1}"#, Some(2))).await.unwrap();
    let get = v1::GetSessionRequest { client_id: a.id.clone(), ..Default::default() };
    let got = caller.get_session(get).await.unwrap().into_inner();
    assert_eq!((got.session.as_ref().unwrap().version, json(got)), (3, serde_json::json!({"x": 1})));
    for (bad, code) in [
        ("[1]".to_owned(), Code::InvalidArgument),
        ("{".to_owned(), Code::InvalidArgument),
        (format!(r#"{{"x":"{}"}}"#, "y".repeat(20_000)), Code::InvalidArgument),
    ] {
        assert_eq!(caller.set_session(set(&bad, None)).await.unwrap_err().code(), code);
    }
    let nearly = format!(r#"{{"y":"{}"}}"#, "y".repeat(10_000));
    caller.merge_session(merge(&nearly)).await.unwrap();
    let too_large = caller.merge_session(merge(&nearly.replace("\"y\":", "\"z\":"))).await.unwrap_err();
    assert_eq!(too_large.code(), Code::ResourceExhausted, "{too_large}");
}

#[tokio::test]
async fn invalid_commands_are_refused_without_effect() {
    let (cluster, mut caller, mut a, b) = far().await;
    let gone = b.id.clone();
    drop(b);
    until("the client is gone", async || (cluster.count(2).await == 1).then_some(())).await;
    let code =
        |result: Result<_, tonic::Status>| result.map(|_: tonic::Response<v1::Receipt>| ()).unwrap_err();
    let nobody = "0123456789".to_owned() + &"0".repeat(20);
    for unknown in [&gone, &nobody.replacen("9", "8", 1)] {
        let status = code(caller.bind(bind(unknown, "ann")).await);
        assert_eq!(status.code(), Code::NotFound, "{status}");
        let receipt = caller.send(text(clients(&[unknown, &a.id]), "here")).await.unwrap().into_inner();
        assert_eq!((receipt.clients, receipt.drops["unknown_client"]), (1, 1));
        assert_eq!(receipt.unknown_clients, std::slice::from_ref(unknown));
    }
    for (status, words) in [
        (code(caller.bind(bind("nonsense", "ann")).await), "\"nonsense\" is not a client id"),
        (code(caller.bind(bind(&a.id, "")).await), "uid is empty"),
        (code(caller.join(join(&[&a.id], &[""])).await), "groups is empty"),
        (code(caller.join(join(&[&a.id], &[])).await), "groups is empty"),
        (code(caller.join(join(&[], &["g"])).await), "clients and uids are both empty"),
        (code(caller.send(text(groups(&[&"x".repeat(201)]), "x")).await), "201 bytes"),
        (code(caller.send(v1::SendRequest::default()).await), "to is missing"),
        (
            code(caller.send(v1::SendRequest { to: Some(all()), ..Default::default() }).await),
            "payload is missing",
        ),
    ] {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(words), "{status}");
    }
    let newer = v1::SendRequest { requires: vec!["only_vips".into()], ..text(all(), "must not arrive") };
    let status = code(caller.send(newer).await);
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
    caller.send(text(all(), "end")).await.unwrap();
    a.hears(&["here", "here", "end"]).await;
}

/// Ids come from somebody's database: some are stale, and some are no ids.
#[tokio::test]
async fn invalid_client_id_does_not_fail_the_list() {
    let (cluster, mut caller, mut a, b) = far().await;
    let gone = b.id.clone();
    drop(b);
    until("the client is gone", async || (cluster.count(2).await == 1).then_some(())).await;
    let elsewhere = "0123456788".to_owned() + &"0".repeat(20);
    let wrong = [gone.as_str(), &elsewhere, "garbage", ""];
    let list = [&[a.id.as_str()][..], &wrong].concat();
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let named = sorted(wrong.iter().map(ToString::to_string).collect());
    let check = |receipt: v1::Receipt| {
        assert_eq!((receipt.clients, receipt.drops["unknown_client"]), (1, 4), "{receipt:?}");
        assert_eq!(sorted(receipt.unknown_clients), named);
        assert!(receipt.coverage.unwrap().complete);
    };
    check(caller.send(text(clients(&list), "to a list")).await.unwrap().into_inner());
    check(caller.join(join(&list, &["room"])).await.unwrap().into_inner());
    let both = Audience { groups: vec!["room".into()], ..clients(&list) };
    check(caller.send(text(both, "to both")).await.unwrap().into_inner());
    let but = except(all(), &["garbage", &gone], &[], &[]);
    assert_eq!(caller.send(text(but, "to all")).await.unwrap().into_inner().clients, 1);
    let asked = v1::OnlineRequest {
        clients: list.iter().map(ToString::to_string).collect(),
        ..v1::OnlineRequest::default()
    };
    let online = caller.online(asked).await.unwrap().into_inner().clients;
    assert_eq!((online.len(), online[&a.id], online["garbage"]), (5, true, false));
    let leave = v1::LeaveGroupsRequest {
        clients: list.iter().map(ToString::to_string).collect(),
        groups: vec!["room".into()],
        ..v1::LeaveGroupsRequest::default()
    };
    check(caller.leave(leave).await.unwrap().into_inner());
    a.hears(&["to a list", "to both", "to all"]).await;
    // With nobody left who could be meant, the error says more.
    let refused = caller.send(text(clients(&["garbage"]), "to nobody")).await.unwrap_err();
    assert!(refused.message().contains("\"garbage\" is not a client id"), "{refused}");
}

#[tokio::test]
async fn apps_do_not_see_each_other() {
    let cluster =
        Cluster::quiet(2).more("[[apps]]\nid = \"blue\"\nraw = true\n[[apps]]\nid = \"off\"").start().await;
    let mut white = cluster.client(0).await;
    let mut blue = cluster.client_of(1, "blue").await;
    let mut caller = cluster.caller(0).await;
    let of_blue = |audience| Audience { app: "blue".into(), ..audience };
    assert_eq!(caller.send(text(of_blue(all()), "blue only")).await.unwrap().into_inner().clients, 1);
    assert_eq!(caller.send(text(all(), "white only")).await.unwrap().into_inner().clients, 1);
    let foreign = caller.send(text(of_blue(clients(&[&white.id])), "no")).await.unwrap().into_inner();
    assert_eq!((foreign.clients, foreign.drops["unknown_client"]), (0, 1));
    let bound = caller.bind(v1::BindRequest { app: "blue".into(), ..bind(&white.id, "x") }).await;
    assert_eq!(bound.unwrap_err().code(), Code::NotFound);
    white.hears(&["white only"]).await;
    blue.hears(&["blue only"]).await;
    let off = Client::try_connect(&format!("ws://{}/ws/off", cluster.web(0)), &[]).await;
    assert!(off.is_err(), "an app is off unless it says raw = true");
}

/// A command that cannot be carried out is answered with its error, in its place, and those behind it
/// go on; a stream of commands that breaks takes nothing with it.
#[tokio::test]
async fn bad_command_does_not_stop_the_stream() {
    let (cluster, mut caller, mut a, b) = far().await;
    let mut commands = Vec::new();
    for number in 0..3000_u64 {
        let command = match number % 3 {
            0 => Some(Command::Send(text(clients(&[&a.id]), &number.to_string()))),
            1 => Some(Command::Bind(bind("nonsense", "ann"))),
            _ if number % 2 == 0 => None,
            _ => Some(Command::GetClient(v1::GetClientRequest {
                client_id: b.id.clone(),
                ..Default::default()
            })),
        };
        commands.push(v1::Command { id: number, command, after: None });
    }
    let batches: Vec<_> =
        commands.chunks(7).map(|some| v1::CommandBatch { commands: some.to_vec() }).collect();
    let mut answers = caller.commands(tokio_stream::iter(batches)).await.unwrap().into_inner();
    let mut seen = std::collections::BTreeMap::new();
    while let Some(batch) = soon("answers come", answers.message()).await.unwrap() {
        for answer in batch.answers {
            assert!(seen.insert(answer.id, answer.answer.unwrap()).is_none(), "answered once");
        }
    }
    assert_eq!(seen.len(), 3000);
    for (number, answer) in seen {
        use v1::answer::Answer;
        let fits = match (number % 3, answer) {
            (0, Answer::Receipt(receipt)) => receipt.clients == 1,
            (1, Answer::Error(error)) => error.code == Code::InvalidArgument as i32,
            (_, Answer::Error(error)) => number % 2 == 0 && error.code == Code::Unimplemented as i32,
            (_, Answer::Client(reply)) => number % 2 == 1 && reply.client.unwrap().client_id == b.id,
            _ => false,
        };
        assert!(fits, "{number}");
    }
    for number in (0..3000).step_by(3) {
        a.hears(&[&number.to_string()]).await;
    }
    // A caller that goes away without reading an answer.
    let rude = v1::CommandBatch {
        commands: vec![v1::Command {
            id: 1,
            command: Some(Command::Send(text(all(), "last words"))),
            after: None,
        }],
    };
    let stream = cluster.caller(2).await.commands(tokio_stream::iter([rude])).await.unwrap();
    drop(stream);
    caller.send(text(all(), "end")).await.unwrap();
    let heard = a.hear().await;
    if heard != "end" {
        assert_eq!(heard, "last words");
        a.hears(&["end"]).await;
    }
}
