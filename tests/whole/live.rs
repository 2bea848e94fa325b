//! `broadgate group`, `history` and `watch`: where a group is at home, what was sent to it, who comes and goes.

use broadgate_proto::v1::{self, inspect_request::Of, observe_client::ObserveClient};
use serde_json::Value;

use crate::{
    harness::*,
    tokens::{TokensFile, as_json},
};

const KEEPING: &str = "[[gateway.groups]]\npattern = \"room-*\"\nhistory_messages = 5\n\
    last_value_time = \"60s\"\n";

async fn join_as(caller: &mut Caller, client: &Client, user: &str, group: &str) {
    let member = v1::PresenceMember { user_id: user.to_owned(), info: "here".to_owned() };
    let request = v1::JoinGroupsRequest { member: Some(member), ..join(&[&client.id], &[group]) };
    caller.join(request).await.unwrap();
}

/// Every gateway says the same of a group, whichever is its home, and what it says is so.
#[tokio::test]
async fn a_group_is_described_by_its_home_whichever_gateway_is_asked() {
    let cluster = Cluster::quiet(2).more(KEEPING).start().await;
    let mut caller = cluster.caller(0).await;
    let clients = [cluster.client(0).await, cluster.client(1).await, cluster.client(1).await];
    let mut homes = std::collections::BTreeSet::new();
    for number in 0..16 {
        let group = format!("room-{number}");
        for client in &clients {
            caller.join(join(&[&client.id], &[&group])).await.unwrap();
        }
        join_as(&mut caller, &clients[0], "ann", &group).await;
        for text_number in 0..7 {
            caller.send(text(groups(&[&group]), &format!("text {text_number}"))).await.unwrap();
        }
        let mut replies = Vec::new();
        for gateway in 0..2 {
            let mut observer =
                ObserveClient::connect(format!("http://{}", cluster.internal[gateway])).await.unwrap();
            let of = Some(Of::Group(group.clone()));
            let request = v1::InspectRequest { of, ..v1::InspectRequest::default() };
            replies.push(observer.inspect(request).await.unwrap().into_inner());
        }
        for reply in &replies {
            assert!(reply.coverage.as_ref().unwrap().complete, "{reply:?}");
            let clients: Vec<_> = reply.clients.iter().map(|one| (&*one.gateway, one.clients)).collect();
            let mut sorted = clients.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [("gateway-1", 1), ("gateway-2", 2)]);
            assert_eq!(reply.present, 1);
            let history = reply.history.unwrap();
            assert_eq!((history.messages, history.messages_max), (5, 5));
            assert_eq!((history.oldest, history.newest), (3, 7));
            assert!(reply.last.unwrap().bytes > 0 && !reply.position.is_empty(), "{reply:?}");
            let mut both = [&*reply.home, &*reply.next_home];
            both.sort_unstable();
            assert_eq!(both, ["gateway-1", "gateway-2"]);
        }
        assert_eq!((&replies[0].home, &replies[0].position), (&replies[1].home, &replies[1].position));
        homes.insert(replies[0].home.clone());
    }
    // Both have been asked as the home, and by way of the other.
    assert_eq!(homes.len(), 2);
    let (code, out, problem) = cluster.run(&["group", "room-1"]);
    assert_eq!((code, problem.as_str()), (0, ""), "{out}");
    for words in
        ["all have synced", "members  3: gateway-2 2, gateway-1 1; 1 user present", "history  5 of 5, 3 to 7"]
    {
        assert!(out.contains(words), "{words}: {out}");
    }
    let sending = tokio::spawn({
        let mut caller = caller.clone();
        async move {
            loop {
                caller.send(text(groups(&["room-1"]), "x")).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    });
    until("rates are measured", async || {
        let (_, out, _) = cluster.run(&["group", "room-1", "--rates"]);
        let (_, json, _) = cluster.run(&["group", "room-1", "--rates", "--json"]);
        let json: Value = serde_json::from_str(&json).ok()?;
        let [messages, deliveries] =
            ["messages_per_s", "deliveries_per_s"].map(|field| json["rates"][field].as_f64());
        // Each message goes to all three clients.
        (out.contains(" messages/s, ") && messages? > 0.0 && deliveries? > 2.0 * messages?).then_some(())
    })
    .await;
    sending.abort();
    let (code, out, _) = cluster.run(&["group", "nobody", "--json"]);
    let reply: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &reply["position"], &reply["since"]), (0, &"".into(), &Value::Null), "{out}");
}

/// What was sent, from where the reader stands, and what is sent from then on.
#[tokio::test]
async fn a_history_is_shown_without_payloads_unless_they_are_asked_for_and_is_followed() {
    let cluster = Cluster::quiet(2).more(KEEPING).start().await;
    let mut caller = cluster.caller(0).await;
    let (code, _, problem) = cluster.run(&["history", "room-1"]);
    assert!(code == 4 && problem.contains("nothing was sent to it"), "{problem}");
    for number in 1..=7 {
        let command_id = format!("order-{number}");
        let send = v1::SendRequest { command_id, ..text(groups(&["room-1"]), "secret text") };
        caller.send(send).await.unwrap();
    }
    let (code, out, problem) = cluster.run(&["history", "room-1", "--limit", "2"]);
    assert_eq!((code, problem.as_str()), (0, ""), "{out}");
    let lines: Vec<&str> = out.lines().map(str::trim).collect();
    assert_eq!(lines.len(), 3, "{out}");
    assert!(lines[1].starts_with('6') && lines[1].ends_with("order-6") && lines[1].contains("11 B"), "{out}");
    assert!(lines[2].starts_with('7') && !out.contains("secret"), "{out}");
    let (_, out, _) = cluster.run(&["history", "room-1", "--since", "5", "--payload"]);
    assert_eq!((out.matches("secret text").count(), out.contains("missing")), (2, false), "{out}");
    let (_, out, _) = cluster.run(&["history", "room-1", "--since", "1"]);
    assert!(out.starts_with("messages before these are missing"), "{out}");
    let (_, out, _) = cluster.run(&["history", "room-1", "--json"]);
    let reply: Value = serde_json::from_str(&out).unwrap();
    assert!(reply["messages"][0].get("text").is_none() && !out.contains("secret"), "{out}");
    assert_eq!(reply["messages"][0]["offset"], 3, "{out}");

    let args = ["history", "room-1", "--follow", "--limit", "1", "--addr", &cluster.internal[1]];
    let mut follows = Process::start(&cluster.dir, "follow", &args, &[]);
    until("what was sent", async || follows.log().contains("order-7").then_some(())).await;
    let send = v1::SendRequest { command_id: "later".to_owned(), ..text(groups(&["room-1"]), "x") };
    caller.send(send).await.unwrap();
    until("what is sent", async || follows.log().contains("later").then_some(())).await;
    assert_eq!((follows.log().matches("order-").count(), follows.log().matches("OFFSET").count()), (1, 1));
    follows.signal("INT");
    assert_eq!(follows.ended().await.code(), Some(0));
}

/// Changes as they happen, at any gateway; a broken stream is named, and a new gateway is watched.
#[tokio::test]
async fn a_watch_shows_who_comes_and_goes_and_says_where_it_may_have_missed_something() {
    let mut cluster = Cluster::quiet(2).start().await;
    let mut caller = cluster.caller(0).await;
    let (ann, bob) = (cluster.client(0).await, cluster.client(0).await);
    join_as(&mut caller, &ann, "ann", "orders.eu").await;
    let args = ["watch", "--group", "orders.*", "--addr", &cluster.internal[0]];
    let typo = ["watch", "--group", "order.*", "--group", "orders.eu", "--addr", &cluster.internal[0]];
    let typo = Process::start(&cluster.dir, "typo", &typo, &[]);
    let said = "no group of app \"default\" fits order.* now: the watch waits for one";
    until("what fits nothing is said", async || typo.log().contains(said).then_some(())).await;
    assert!(!typo.log().contains("fits orders.eu"), "{}", typo.log());
    drop(typo);
    let mut watches = Process::start(&cluster.dir, "watch", &args, &[]);
    let shows = async |words: &str| {
        let ends = |line: &str| line.ends_with(words);
        until(words, async || watches.log().lines().any(ends).then_some(())).await;
    };
    shows("orders.eu joined ann").await;
    join_as(&mut caller, &bob, "bob", "orders.us").await;
    join_as(&mut caller, &bob, "bob", "others").await;
    shows("orders.us occupied").await;
    shows("orders.us joined bob").await;
    drop(ann);
    shows("orders.eu vacated").await;
    cluster.gateways[1].kill();
    shows("what changed and was undone meanwhile is missed").await;
    // The others are its homes now, and a new one is watched.
    let third = cluster.add_gateway().await;
    let cid = cluster.client(third).await;
    for number in 0..8 {
        join_as(&mut cluster.caller(third).await, &cid, "cid", &format!("orders.{number}")).await;
    }
    for number in 0..8 {
        shows(&format!("orders.{number} joined cid")).await;
    }
    assert!(!watches.log().contains("others"), "{}", watches.log());
    watches.signal("INT");
    assert_eq!(watches.ended().await.code(), Some(0));
}

/// What is of one app can be watched with a token of that app, at gateways that the token may not ask for more.
#[tokio::test]
async fn a_token_of_one_app_watches_its_groups_at_all_gateways() {
    let mut tokens = TokensFile::new("watch");
    let shop = tokens.add("shop", &["--role", "reader", "--app", "shop"]);
    let apps = "[[apps]]\nid = \"shop\"\nraw = true\n";
    let cluster = Cluster::quiet(2).gateway(&tokens.setting()).more(apps).start().await;
    let file = tokens.file_of("shop");
    let watch = |app: &str| {
        let at = &cluster.internal[0];
        let args = ["watch", "--group", "orders.*", "--addr", at, "--token-file", &file, "--app", app];
        Process::start(&cluster.dir, &format!("watch-{app}"), &args, &[])
    };
    let mut watches = watch("shop");
    let client = cluster.client_of(1, "shop").await;
    let mut caller = cluster.caller(1).await;
    // The homes of some are at the one gateway, of others at the other.
    for number in 0..8 {
        let member = v1::PresenceMember { user_id: "ann".to_owned(), info: "here".to_owned() };
        let groups = vec![format!("orders.{number}")];
        let join = v1::JoinGroupsRequest { member: Some(member), groups, ..join(&[&client.id], &[]) };
        caller.join(v1::JoinGroupsRequest { app: "shop".to_owned(), ..join }).await.unwrap();
    }
    for number in 0..8 {
        let words = format!("orders.{number} joined ann");
        until(&words, async || watches.log().contains(&words).then_some(())).await;
    }
    watches.signal("INT");
    assert_eq!(watches.ended().await.code(), Some(0));
    assert_eq!(watch("default").ended().await.code(), Some(6));

    // Of the others it learns where they are, and nothing else.
    let (status, reply) = as_json(&cluster.internal[0], "Gateways", &shop, "{\"app\":\"shop\"}").await;
    let members = reply["view"]["members"].as_array().unwrap();
    assert_eq!((status, members.len()), (200, 2), "{reply}");
    for member in members {
        let known = |field: &str| !member[field].as_str().unwrap_or_default().is_empty();
        assert!(known("name") && known("address") && known("incarnation"), "{member}");
        assert!(!known("version") && member["listeners"].as_object().unwrap().is_empty(), "{member}");
    }
    assert_eq!(as_json(&cluster.internal[0], "Gateways", &shop, "{}").await.0, 403);
}

/// There is one cause for which a group has no history, and it is named alone.
#[tokio::test]
async fn the_reason_why_there_is_no_history_is_named() {
    let short = "[[gateway.groups]]\npattern = \"brief-*\"\nhistory_messages = 5\nhistory_time = \"1s\"\n";
    let cluster = Cluster::quiet(2).more(short).start().await;
    let client = cluster.client(0).await;
    let mut caller = cluster.caller(0).await;
    caller.join(join(&[&client.id], &["brief-1", "kept-by-nobody"])).await.unwrap();
    for group in ["brief-1", "kept-by-nobody"] {
        caller.send(text(groups(&[group]), "x")).await.unwrap();
    }
    let (rule, silent, old) = (
        "no rule of [[gateway.groups]]",
        "nothing was sent to it in the last 1 s",
        "its last message was sent",
    );
    for (group, words) in [("kept-by-nobody", rule), ("brief-2", silent), ("brief-1", old)] {
        until(words, async || {
            let (code, _, problem) = cluster.run(&["history", group]);
            let said = [rule, silent, old].map(|cause| problem.contains(cause) == (cause == words));
            (code == 4 && said == [true; 3]).then_some(())
        })
        .await;
    }
}
