//! Groups have homes: one order, honest receipts, repeats, rosters, histories.

use std::collections::BTreeSet;

use broadgate_proto::v1;

use crate::harness::*;

fn named(id: &str, group: &str, user: &str) -> v1::JoinGroupsRequest {
    let member = v1::PresenceMember { user_id: user.to_owned(), info: format!("{{\"of\":\"{user}\"}}") };
    v1::JoinGroupsRequest { member: Some(member), ..join(&[id], &[group]) }
}

async fn roster(caller: &mut Caller, group: &str) -> Vec<String> {
    let request = v1::RosterRequest { group: group.to_owned(), ..Default::default() };
    let reply = caller.roster(request).await.unwrap().into_inner();
    assert!(reply.coverage.unwrap().complete);
    assert_eq!(reply.total, reply.members.len() as u64);
    reply.members.into_iter().map(|member| member.user_id).collect()
}

/// Three callers at three gateways send to one group at once: every client, wherever it is, sees the
/// same order, and each caller's own.
#[tokio::test]
async fn all_clients_of_a_group_see_one_order() {
    let cluster = Cluster::quiet(3).start().await;
    let mut members = Vec::new();
    for gateway in [0, 0, 1, 2] {
        let client = cluster.client(gateway).await;
        cluster.caller(1).await.join(join(&[&client.id], &["room"])).await.unwrap();
        members.push(client);
    }
    let mut sending = Vec::new();
    for gateway in 0..3 {
        let mut caller = cluster.caller(gateway).await;
        sending.push(tokio::spawn(async move {
            for number in 0..100 {
                let message = text(groups(&["room"]), &format!("{gateway} {number}"));
                let receipt = caller.send(message).await.unwrap().into_inner();
                assert_eq!((receipt.clients, receipt.ordered), (4, true));
                assert!(receipt.coverage.unwrap().complete);
            }
        }));
    }
    for sent in sending {
        sent.await.unwrap();
    }
    let mut orders = Vec::new();
    for client in &mut members {
        let mut order = Vec::new();
        for _ in 0..300 {
            order.push(client.hear().await);
        }
        orders.push(order);
    }
    assert!(orders.iter().all(|order| *order == orders[0]));
    for gateway in 0..3 {
        let own = orders[0].iter().filter(|text| text.starts_with(&format!("{gateway} ")));
        let numbers: Vec<u32> = own.map(|text| text[2..].parse().unwrap()).collect();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }
}

/// A message crosses only to gateways with members.
#[tokio::test]
async fn gateway_without_members_is_not_asked() {
    let cluster = Cluster::quiet(3).start().await;
    let client = cluster.client(1).await;
    let mut caller = cluster.caller(1).await;
    let names: Vec<String> = (0..20).map(|number| format!("group-{number}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    caller.join(join(&[&client.id], &all)).await.unwrap();
    for group in &all {
        let receipt = caller.send(text(groups(&[group]), "x")).await.unwrap().into_inner();
        assert_eq!((receipt.clients, receipt.gateways), (1, 1), "wherever its home is");
    }
}

/// A repeat with the same id is answered with what was done, through whichever gateway it comes.
#[tokio::test]
async fn repeated_command_is_not_sent_twice() {
    let cluster = Cluster::quiet(2).start().await;
    let mut client = cluster.client(1).await;
    let mut caller = cluster.caller(0).await;
    caller.join(join(&[&client.id], &["room"])).await.unwrap();
    for to in [groups(&["room"]), clients(&[&client.id]), groups(&["room", "other"]), all()] {
        let what = format!("{to:?}");
        let send = v1::SendRequest { command_id: what.chars().take(60).collect(), ..text(to, "once") };
        for (gateway, repeated) in [(0, false), (1, true), (0, true)] {
            let receipt = cluster.caller(gateway).await.send(send.clone()).await.unwrap().into_inner();
            assert_eq!((receipt.clients, receipt.repeated), (1, repeated), "{what}");
        }
        cluster.caller(0).await.send(text(clients(&[&client.id]), "next")).await.unwrap();
        client.hears(&["once", "next"]).await;
    }
    let set = |id: &str, json: &str| v1::SetSessionRequest {
        command_id: id.to_owned(),
        client_id: client.id.clone(),
        json: json.to_owned(),
        if_version: Some(0),
        ..Default::default()
    };
    for _ in 0..2 {
        let reply = caller.set_session(set("cas", "{\"a\":1}")).await.unwrap().into_inner();
        assert_eq!(reply.session.unwrap().version, 1, "compare-and-set, too");
    }
    assert_eq!(caller.set_session(set("late", "{}")).await.unwrap_err().code(), tonic::Code::Aborted);
    let first = v1::BindRequest { command_id: "bind".into(), ..bind(&client.id, "ann") };
    caller.bind(first.clone()).await.unwrap();
    caller.bind(bind(&client.id, "bob")).await.unwrap();
    caller.bind(first).await.unwrap();
    assert_eq!(cluster.details(0, &client.id).await.uid, "bob", "a repeat does not undo what came after");
}

/// A send without a receipt is answered at once and comes all the same.
#[tokio::test]
async fn send_needs_no_answer() {
    let cluster = Cluster::quiet(2).start().await;
    let mut client = cluster.client(1).await;
    let mut caller = cluster.caller(0).await;
    caller.join(join(&[&client.id], &["room"])).await.unwrap();
    let fire = v1::SendRequest { no_receipt: true, ..text(groups(&["room"]), "fired") };
    assert_eq!(caller.send(fire).await.unwrap().into_inner().clients, 0);
    client.hears(&["fired"]).await;
}

/// Two exclusive binds at the same moment, through two gateways: one client stays.
#[tokio::test]
async fn newest_exclusive_bind_wins() {
    let cluster = Cluster::quiet(2).start().await;
    for round in 0..5 {
        let uid = format!("uid-{round}");
        let (one, two) = (cluster.client(0).await, cluster.client(1).await);
        let bind = |id: &str| v1::BindRequest { exclusive: true, ..bind(id, &uid) };
        let (mut left, mut right) = (cluster.caller(0).await, cluster.caller(1).await);
        let (first, second) = tokio::join!(left.bind(bind(&one.id)), right.bind(bind(&two.id)));
        assert_eq!((first.unwrap().into_inner().clients, second.unwrap().into_inner().clients), (1, 1));
        let online = v1::OnlineRequest {
            uids: vec![uid.clone()],
            clients: vec![one.id.clone(), two.id.clone()],
            ..Default::default()
        };
        let reply = left.online(online).await.unwrap().into_inner();
        assert_eq!(reply.uids[&uid], 1, "{reply:?}");
        assert_eq!(reply.clients.values().filter(|online| **online).count(), 1);
    }
    let gone = v1::BindRequest { exclusive: true, ..bind(&"0".repeat(30), "nobody") };
    assert_eq!(cluster.caller(0).await.bind(gone).await.unwrap_err().code(), tonic::Code::NotFound);
}

/// A user is in a group's roster once, while any of its clients anywhere is in the group.
#[tokio::test]
async fn rosters_name_each_user_once() {
    let mut cluster = Cluster::quiet(3).register("beat = \"500ms\"\nlease = \"3s\"").start().await;
    let mut caller = cluster.caller(0).await;
    let mut connected = Vec::new();
    for (gateway, user) in [(0, "ann"), (1, "ann"), (1, "bob"), (2, "cid"), (2, "dan")] {
        let client = cluster.client(gateway).await;
        caller.join(named(&client.id, "room", user)).await.unwrap();
        connected.push(client);
    }
    let silent = cluster.client(0).await;
    caller.join(join(&[&silent.id], &["room"])).await.unwrap();
    for gateway in 0..3 {
        assert_eq!(roster(&mut cluster.caller(gateway).await, "room").await, ["ann", "bob", "cid", "dan"]);
    }
    let page = v1::RosterRequest { group: "room".into(), limit: 3, ..Default::default() };
    let first = caller.roster(page.clone()).await.unwrap().into_inner();
    assert_eq!((first.members.len(), first.total, &*first.next_cursor), (3, 4, "cid"));
    assert_eq!(first.members[0].info, "{\"of\":\"ann\"}");
    let next = v1::RosterRequest { cursor: first.next_cursor, ..page };
    assert_eq!(caller.roster(next).await.unwrap().into_inner().members.len(), 1);

    let leave = |id: &str| v1::LeaveGroupsRequest {
        clients: vec![id.to_owned()],
        groups: vec!["room".into()],
        ..Default::default()
    };
    caller.leave(leave(&connected[0].id)).await.unwrap();
    assert_eq!(roster(&mut caller, "room").await, ["ann", "bob", "cid", "dan"], "another client of hers");
    caller.leave(leave(&connected[1].id)).await.unwrap();
    assert_eq!(roster(&mut caller, "room").await, ["bob", "cid", "dan"]);
    cluster.gateways[2].kill();
    until("only bob is left", async || {
        let request = v1::RosterRequest { group: "room".into(), ..Default::default() };
        let reply = cluster.caller(1).await.roster(request).await.ok()?.into_inner();
        let users: Vec<_> = reply.members.iter().map(|member| member.user_id.as_str()).collect();
        (reply.coverage?.complete && users == ["bob"]).then_some(())
    })
    .await;
}

/// Groups keep their members, their order and their counts when gateways come and go.
#[tokio::test]
async fn homes_move_when_gateways_join_and_leave() {
    let mut cluster = Cluster::quiet(2).register("beat = \"500ms\"\nlease = \"3s\"").start().await;
    let names: Vec<String> = (0..30).map(|number| format!("group-{number}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut kept, lost) = (cluster.client(1).await, cluster.client(0).await);
    let mut caller = cluster.caller(1).await;
    caller.join(join(&[&kept.id, &lost.id], &all)).await.unwrap();
    let count = v1::CountRequest { groups: names.clone(), ..Default::default() };
    let right = |clients: u64| {
        let (caller, count) = (caller.clone(), count.clone());
        async move {
            let reply = caller.clone().count(count).await.ok()?.into_inner();
            let same = reply.groups.values().all(|counts| counts.clients == clients);
            (reply.coverage?.complete && reply.groups.len() == 30 && same).then_some(())
        }
    };
    until("everybody is counted", || right(2)).await;
    cluster.add_gateway().await;
    cluster.linked().await;
    until("everybody is counted by the new homes", || right(2)).await;
    cluster.gateways[0].kill();
    until("the dead one's clients are not counted", || right(1)).await;
    for group in &all {
        let receipt = caller.send(text(groups(&[group]), group)).await.unwrap().into_inner();
        assert_eq!((receipt.clients, receipt.coverage.unwrap().complete), (1, true));
    }
    kept.hears(&all).await;
}

/// An epoch from the future is not acted upon.
#[tokio::test]
async fn caller_with_a_newer_epoch_waits_for_the_gateway() {
    let cluster = Cluster::quiet(1).limits("link_timeout = \"1500ms\"").start().await;
    let epoch = cluster.view().await.unwrap().epoch.unwrap();
    let ask = async |value: String| {
        let mut request = tonic::Request::new(v1::CountRequest::default());
        request.metadata_mut().insert("broadgate-epoch", value.parse().unwrap());
        cluster.caller(0).await.count(request).await
    };
    assert!(ask(epoch.to_string()).await.is_ok());
    // Beyond the term to which a new cluster's rises meanwhile.
    let later = v1::Epoch::new(epoch.term + (1 << 20), 1);
    assert_eq!(ask(later.to_string()).await.unwrap_err().code(), tonic::Code::Unavailable);
    assert_eq!(ask("soon".into()).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

const KEEPING: &str = "[[gateway.groups]]\npattern = \"room-*\"\nhistory_messages = 5\n\
    last_value_time = \"60s\"\n";

fn history(group: &str, since: Option<v1::HistoryPosition>) -> v1::HistoryRequest {
    v1::HistoryRequest { group: group.to_owned(), since, ..Default::default() }
}

fn texts(reply: &v1::HistoryReply) -> Vec<String> {
    let text = |message: &v1::HistoryMessage| match &message.payload {
        Some(v1::history_message::Payload::Text(text)) => text.clone(),
        other => panic!("{other:?}"),
    };
    reply.messages.iter().map(text).collect()
}

/// A reader gets all that it missed, also when the home has moved; or sees a gap.
#[tokio::test]
async fn history_moves_with_its_home() {
    let mut cluster =
        Cluster::quiet(1).register("beat = \"500ms\"\nlease = \"3s\"").more(KEEPING).start().await;
    let rooms: Vec<String> = (0..20).map(|number| format!("room-{number}")).collect();
    let mut caller = cluster.caller(0).await;
    let mut stood = Vec::new();
    for room in &rooms {
        let receipt = caller.send(text(groups(&[room]), "first")).await.unwrap().into_inner();
        stood.push(receipt.position.unwrap());
        for number in 0..3 {
            caller.send(text(groups(&[room]), &number.to_string())).await.unwrap();
        }
    }
    assert!(caller.send(text(groups(&["other"]), "x")).await.unwrap().into_inner().position.is_none());
    cluster.add_gateway().await;
    cluster.linked().await;
    cluster.synced().await;
    for (room, stood) in rooms.iter().zip(&stood) {
        let reply = caller.history(history(room, Some(stood.clone()))).await.unwrap().into_inner();
        assert_eq!((texts(&reply), reply.recovered), (vec!["0".into(), "1".into(), "2".into()], true));
        let last = v1::LastValueRequest { group: room.clone(), ..Default::default() };
        let reply = cluster.caller(1).await.last_value(last).await.unwrap().into_inner();
        let _ = reply;
        let page = v1::HistoryRequest { limit: 2, ..history(room, None) };
        assert_eq!(texts(&caller.history(page).await.unwrap().into_inner()), ["1", "2"]);
    }
    cluster.gateways[1].kill();
    cluster.gateways.truncate(1);
    cluster.internal.truncate(1);
    until("the dead one is out of the view", async || {
        (cluster.view().await?.members.len() == 1).then_some(())
    })
    .await;
    let mut recovered = BTreeSet::new();
    for (room, stood) in rooms.iter().zip(&stood) {
        caller.send(text(groups(&[room]), "after")).await.unwrap();
        let reply = caller.history(history(room, Some(stood.clone()))).await.unwrap().into_inner();
        recovered.insert(reply.recovered);
        if reply.recovered {
            assert_eq!(texts(&reply), ["0", "1", "2", "after"]);
        } else {
            assert_ne!(reply.position.unwrap().epoch, stood.epoch, "another history, and it says so");
        }
    }
    assert_eq!(recovered.len(), 2, "some were lost with their home, and the others not");
    let bad = v1::HistoryPosition { epoch: "yesterday".into(), offset: 1 };
    let refused = caller.history(history("room-1", Some(bad))).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}

/// The last value survives its home while another gateway has a member.
#[tokio::test]
async fn last_value_survives_its_home() {
    let mut cluster =
        Cluster::quiet(3).register("beat = \"500ms\"\nlease = \"3s\"").more(KEEPING).start().await;
    let member = cluster.client(2).await;
    let rooms: Vec<String> = (0..12).map(|number| format!("room-{number}")).collect();
    let names: Vec<&str> = rooms.iter().map(String::as_str).collect();
    let mut caller = cluster.caller(2).await;
    // One that joins after the message gets to keep it as well.
    for (number, room) in names.iter().enumerate() {
        if number % 2 == 0 {
            caller.join(join(&[&member.id], &[room])).await.unwrap();
        }
        caller.send(text(groups(&[room]), "old")).await.unwrap();
        caller.send(text(groups(&[room]), room)).await.unwrap();
    }
    caller.join(join(&[&member.id], &names)).await.unwrap();
    cluster.gateways[0].kill();
    until("the dead one is out of the view", async || {
        (cluster.view().await?.members.len() == 2).then_some(())
    })
    .await;
    for room in &rooms {
        let last = v1::LastValueRequest { group: room.clone(), ..Default::default() };
        let reply = caller.last_value(last).await.unwrap().into_inner();
        assert_eq!(reply.payload, Some(v1::last_value_reply::Payload::Text(room.clone())));
    }
}

/// What one gateway tells of groups, as text.
async fn watched(cluster: &Cluster, gateway: usize) -> tokio::sync::mpsc::UnboundedReceiver<String> {
    let request = v1::WatchGroupsRequest { patterns: vec!["room-*".into()], ..Default::default() };
    let mut events = cluster.caller(gateway).await.watch_groups(request).await.unwrap().into_inner();
    // What the test notes down; what happens in the test bounds it.
    let (tell, complete_as_of) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(Some(batch)) = events.message().await {
            for event in batch.events {
                let what = match event.event.unwrap() {
                    v1::group_event::Event::Is(state) => {
                        let users: Vec<_> = state.members.iter().map(|member| &*member.user_id).collect();
                        format!("is [{}]", users.join(" "))
                    }
                    v1::group_event::Event::Joined(member) => format!("joined {}", member.user_id),
                    v1::group_event::Event::Left(user) => format!("left {user}"),
                    v1::group_event::Event::Vacated(_) => "vacated".to_owned(),
                    v1::group_event::Event::Moved(_) => "moved".to_owned(),
                };
                let _ = tell.send(format!("{} {what}", event.group));
            }
            if batch.complete_as_of.is_some() {
                let _ = tell.send("told".to_owned());
            }
        }
    });
    complete_as_of
}

/// A watcher of a group learns of its first member, its users, and its last member.
#[tokio::test]
async fn groups_can_be_watched() {
    let mut cluster = Cluster::quiet(1).start().await;
    let (one, two) = (cluster.client(0).await, cluster.client(0).await);
    let mut caller = cluster.caller(0).await;
    caller.join(named(&one.id, "room-1", "ann")).await.unwrap();
    let mut complete_as_of = watched(&cluster, 0).await;
    let mut hears = async |texts: &[&str]| {
        for text in texts {
            assert_eq!(soon("a change", complete_as_of.recv()).await.unwrap(), *text);
        }
    };
    hears(&["room-1 is [ann]", "told"]).await;
    caller.join(named(&two.id, "room-1", "bob")).await.unwrap();
    caller.join(named(&two.id, "other", "bob")).await.unwrap();
    caller.join(join(&[&two.id], &["room-2"])).await.unwrap();
    hears(&["room-1 joined bob", "room-2 is []"]).await;
    drop(one);
    hears(&["room-1 left ann"]).await;
    let groups = (3..30).map(|number| format!("room-{number}")).collect::<Vec<_>>();
    let names: Vec<&str> = groups.iter().map(String::as_str).collect();
    caller.join(join(&[&two.id], &names)).await.unwrap();
    for _ in &groups {
        assert!(soon("a change", complete_as_of.recv()).await.unwrap().ends_with(" is []"));
    }
    cluster.add_gateway().await;
    let mut there = watched(&cluster, 1).await;
    // Every group that has moved is reported by its new home, and nothing else is.
    let (mut moved, mut known) = (BTreeSet::new(), BTreeSet::new());
    while moved.is_empty() || moved != known {
        tokio::select! {
            text = soon("a group moves", complete_as_of.recv()) => {
                moved.extend(text.unwrap().strip_suffix(" moved").map(ToOwned::to_owned));
            }
            text = soon("a change of a group", there.recv()) => {
                known.extend(text.unwrap().split_once(" is [").map(|(group, _)| group.to_owned()));
            }
        }
    }
    drop(two);
    let mut vacated = BTreeSet::new();
    while vacated.len() < 29 {
        let text = tokio::select! {
            text = soon("a group is vacated", complete_as_of.recv()) => text,
            text = soon("a group is vacated", there.recv()) => text,
        };
        vacated.extend(text.unwrap().strip_suffix(" vacated").map(ToOwned::to_owned));
    }
}
