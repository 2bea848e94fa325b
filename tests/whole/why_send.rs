//! `broadgate why --command`: each thing that can become of a message at a client is made for real, and said.

use broadgate_proto::v1::{Except, SendRequest};
use serde_json::Value;

use crate::harness::*;

/// What is said of a command, as JSON.
fn asked(cluster: &Cluster, of: &[&str]) -> Value {
    let (code, out, problem) = cluster.run(&[&["why", "--json", "--app", "default"], of].concat());
    assert_eq!((code, &*problem), (0, ""), "{of:?}: {out}");
    serde_json::from_str(&out).unwrap()
}

/// What became of a command at one client: the verdict, and why; and people read the same.
fn at_client(cluster: &Cluster, id: &str, command: &str) -> (String, String) {
    let of = ["--client", id, "--command", command];
    let reply = asked(cluster, &of);
    let verdicts = reply["verdicts"].as_array().unwrap();
    assert_eq!((verdicts.len(), &verdicts[0]["client_id"]), (1, &id.into()), "{reply}");
    let said = |what: &str| verdicts[0][what].as_str().unwrap().to_owned();
    let text = cluster.run(&[&["why", "--app", "default"][..], &of].concat()).1;
    let word = said("verdict").to_uppercase().replace('_', " ");
    assert!(text.contains(&word) && text.contains("sends remembered since"), "{word}: {text}");
    (said("verdict"), said("because"))
}

#[track_caller]
fn is((verdict, because): (String, String), wanted: &str, words: &str) {
    assert!(verdict == wanted && because.contains(words), "{wanted}, {words}: {verdict}, {because}");
}

fn named(id: &str, request: SendRequest) -> SendRequest {
    SendRequest { command_id: id.to_owned(), ..request }
}

#[tokio::test]
async fn who_got_a_message_and_who_was_not_meant_is_said() {
    let cluster = Cluster::quiet(2).start().await;
    let mut caller = cluster.caller(1).await;
    let (mut got, mut other, left) =
        (cluster.client(0).await, cluster.client(1).await, cluster.client(0).await);
    caller.bind(bind(&got.id, "42")).await.unwrap();
    caller.join(join(&[&got.id, &other.id, &left.id], &["orders"])).await.unwrap();
    caller
        .leave(broadgate_proto::v1::LeaveGroupsRequest {
            clients: vec![left.id.clone()],
            groups: vec!["orders".to_owned()],
            ..Default::default()
        })
        .await
        .unwrap();
    let receipt =
        caller.send(named("order-991", text(groups(&["orders"]), "991"))).await.unwrap().into_inner();
    assert_eq!(receipt.clients, 2, "{receipt:?}");
    got.hears(&["991"]).await;
    other.hears(&["991"]).await;
    let later = cluster.client(1).await;
    caller.join(join(&[&left.id], &["orders"])).await.unwrap();

    is(at_client(&cluster, &got.id, "order-991"), "got_it", "its outbox was empty later");
    is(at_client(&cluster, &left.id, "order-991"), "not_addressed", "left orders");
    is(at_client(&cluster, &left.id, "order-991"), "not_addressed", "joined orders");
    is(at_client(&cluster, &later.id, "order-991"), "not_addressed", "it connected");

    // By her uid, and of the command alone: by whom, to what, and what each gateway placed.
    let of_uid = asked(&cluster, &["--uid", "42", "--command", "order-991"]);
    assert_eq!(of_uid["verdicts"][0]["verdict"], "got_it", "{of_uid}");
    let (code, text_of, _) = cluster.run(&["why", "--command", "order-991"]);
    for words in [
        "order-991 to default/orders by local",
        "gateway-1 placed for 1 client",
        "gateway-2 placed for 1 client",
    ] {
        assert!(code == 0 && text_of.contains(words), "{words}: {text_of}");
    }

    // Its place in the order of the group.
    let heading = text_of.lines().find(|line| line.starts_with("order-991 to ")).unwrap();
    assert!(
        heading.rsplit(" at ").next().unwrap().contains('/') && heading.contains(", placed "),
        "{text_of}"
    );

    // Somebody is excepted, somebody has joined too late, and one's connection has ended.
    let except = Except { uids: vec!["42".to_owned()], ..Except::default() };
    let mut all_but = groups(&["orders"]);
    all_but.except = Some(except);
    let receipt = caller.send(named("order-992", text(all_but, "992"))).await.unwrap().into_inner();
    assert_eq!(receipt.clients, 2, "{receipt:?}");
    caller.join(join(&[&later.id], &["orders"])).await.unwrap();
    is(at_client(&cluster, &got.id, "order-992"), "not_addressed", "excepts uid 42");
    is(at_client(&cluster, &later.id, "order-992"), "not_addressed", "joined orders");
    let id = other.id.clone();
    other.hears(&["992"]).await;
    other.goodbye(1000, "").await;
    until("its end is remembered", async || {
        let reply = asked(&cluster, &["--client", &id, "--command", "order-992"]);
        let verdict = reply["verdicts"].as_array().unwrap().first()?.clone();
        (verdict["because"].as_str()?.contains("connection ended") && verdict["verdict"] == "got_it")
            .then_some(())
    })
    .await;
    caller.send(named("order-993", text(groups(&["orders"]), "993"))).await.unwrap();
    is(at_client(&cluster, &id, "order-993"), "not_addressed", "had ended");
}

#[tokio::test]
async fn what_a_slow_client_lost_is_said() {
    let cluster = Cluster::quiet(1)
        .limits("outbox_messages_max = 50\noutbox_bytes_max = 60000000\noutbox_time_max = \"120s\"")
        .start()
        .await;
    let (slow, kicked) = (cluster.client(0).await, cluster.client(0).await);
    let mut caller = cluster.caller(0).await;
    let payload = "x".repeat(1_000_000);
    let mut last = 0;
    // Until its socket takes no more, and then its outbox.
    while caller
        .send(named(&format!("big-{last}"), text(clients(&[&slow.id]), &payload)))
        .await
        .unwrap()
        .into_inner()
        .clients
        == 1
    {
        last += 1;
        assert!(last < 200, "it is never closed");
    }
    is(at_client(&cluster, &slow.id, &format!("big-{last}")), "dropped", "its outbox was full");
    is(at_client(&cluster, &slow.id, &format!("big-{}", last - 1)), "unsent", "4100, slow");

    // More than any kernel's buffers take.
    for number in 0..30 {
        caller.send(named(&format!("kick-{number}"), text(clients(&[&kicked.id]), &payload))).await.unwrap();
    }
    // It does not read: what the kernel does not take waits.
    is(at_client(&cluster, &kicked.id, "kick-29"), "waits", "may be among them");
    assert_eq!(cluster.run(&["kick", "--client", &kicked.id, "--at-once"]).0, 0);
    is(at_client(&cluster, &kicked.id, "kick-29"), "unsent", "command");
    drop((slow, kicked));
}

#[tokio::test]
async fn unknown_commands_and_gateways_that_do_not_answer_are_named() {
    let cluster = Cluster::quiet(2).start().await;
    let mut caller = cluster.caller(0).await;
    let (here, there) = (cluster.client(0).await, cluster.client(1).await);
    caller.join(join(&[&here.id, &there.id], &["g"])).await.unwrap();
    caller.send(named("known", text(groups(&["g"]), "x"))).await.unwrap();
    // Nobody is in this group, so no gateway has carried it out.
    caller.send(named("typo", text(groups(&["G"]), "x"))).await.unwrap();
    let (code, out, _) = cluster.run(&["why", "--command", "typo"]);
    assert!(
        code == 0 && out.contains("typo to default/G by local") && out.contains("for nobody"),
        "{code} {out}"
    );
    is(at_client(&cluster, &here.id, "typo"), "not_addressed", "was not in G");
    let (code, _, problem) = cluster.run(&["why", "--command", "unknown", "--uid", "42", "--app", "default"]);
    assert!(
        code == 4 && problem.contains("nothing is remembered of command \"unknown\""),
        "{code} {problem}"
    );
    assert!(problem.contains("sends remembered since"), "{problem}");
    let (code, out, problem) =
        cluster.run(&["why", "--command", "known", "--uid", "nobody", "--app", "default"]);
    assert!(
        code == 4 && out.contains("known to default/g") && problem.contains("uid \"nobody\""),
        "{out} {problem}"
    );
    cluster.gateways[1].signal("STOP");
    let (code, out, problem) = cluster.run(&["why", "--command", "known"]);
    cluster.gateways[1].signal("CONT");
    assert!(code == 3 && problem.contains("gateway-2 did not answer"), "{code} {problem}");
    assert!(out.contains("gateway-2 NO ANSWER") && out.contains("gateway-1 placed for 1 client"), "{out}");
}

#[tokio::test]
async fn a_gateway_that_remembers_nothing_says_so() {
    let off = "[gateway.recorder]\nsends_max = 0\njoins_max = 0\ndrops_max = 0";
    let cluster = Cluster::quiet(1).more(off).start().await;
    let client = cluster.client(0).await;
    let mut caller = cluster.caller(0).await;
    caller.send(named("x", text(clients(&[&client.id]), "x"))).await.unwrap();
    let (code, _, problem) = cluster.run(&["why", "--command", "x", "--client", &client.id]);
    assert!(
        code == 4 && problem.contains("gateway-1: not everything, by its [gateway.recorder]"),
        "{problem}"
    );
}
