//! What an operator's commands print of strangers' texts: nothing that a terminal acts on or hides, also in errors and
//! in JSON.

use broadgate_proto::v1;

use crate::harness::*;

/// Colours, a title, a forged line, reordering, C1 and what is not seen.
const EVIL: &str = "e\u{1b}[31m\u{1b}]0;t\u{7}\u{202e}v\u{9b}i\u{2066}l\u{200b}\u{e0041}\u{3164}";

/// Fails if any of it would reach a terminal; a line end only where the program has put it.
fn is_safe(what: &str, text: &str) {
    let acts = |char: char| char != '\n' && (char.is_control() || EVIL.contains(char) && !char.is_ascii());
    if let Some(char) = text.chars().find(|char| acts(*char)) {
        panic!("{what} has {char:?}: {text:?}");
    }
    assert!(!text.lines().any(|line| line.starts_with("forged")), "{what}: {text}");
}

/// Sends and publishes what [`EVIL`] is until it is dropped.
fn sends(cluster: &Cluster, caller: &Caller) -> tokio::task::JoinHandle<()> {
    let (mut caller, address) = (caller.clone(), cluster.web(0));
    tokio::spawn(async move {
        while caller.send(text(all(), EVIL)).await.is_ok() {
            let mut client = Client::connect(&format!("ws://{address}/ws")).await;
            client.say(EVIL).await;
            client.goodbye(3000, "x\u{202e}y\u{200b}").await;
        }
    })
}

/// What is shown as it happens.
#[tokio::test(flavor = "multi_thread")]
async fn taps_of_strangers_do_nothing_at_a_terminal() {
    let cluster = Cluster::quiet(1).start().await;
    let _client = cluster.client(0).await;
    let sending = sends(&cluster, &cluster.caller(0).await);
    for json in [&[][..], &["--json"]] {
        let tap = ["tap", "--whole-app", "--payload", "--for", "2s"];
        let (code, out, errors) = cluster.run(&[&tap[..], json].concat());
        is_safe("tap", &(out.clone() + &errors));
        assert!(code == 0 && out.lines().count() > 3 && out.contains("\\u"), "{out}{errors}");
        for line in out.lines().filter(|_| !json.is_empty()) {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }
    sending.abort();
}

#[tokio::test]
async fn texts_of_strangers_do_nothing_at_a_terminal() {
    let cluster = Cluster::quiet(1).start().await;
    let client = cluster.client(0).await;
    let mut caller = cluster.caller(0).await;
    let info = format!("{EVIL}\nforged {}", "x".repeat(1500));
    // Names have no control characters, and may have all others.
    let name = "u\u{202e}v\u{2066}\u{200b}\u{e0041}\u{3164}";
    let member = v1::PresenceMember { user_id: name.to_owned(), info: info.clone() };
    caller.bind(bind(&client.id, name)).await.unwrap();
    let request = v1::JoinGroupsRequest { member: Some(member), ..join(&[&client.id], &["room", name]) };
    caller.join(request).await.unwrap();
    let session = serde_json::json!({ "nick": EVIL }).to_string();
    let set = v1::SetSessionRequest { client_id: client.id.clone(), json: session, ..Default::default() };
    caller.set_session(set).await.unwrap();
    let mut leaves = cluster.client(0).await;
    leaves.goodbye(3000, "x\u{202e}y\u{200b}").await;
    crate::malformed_input::answer(
        cluster.web(0),
        b"GET /%1b]0;t%07%e2%80%ae%0aforged HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        false,
    )
    .await;
    until("the refusal is remembered", async || {
        (cluster.run(&["why", "--address", "127.0.0.1"]).1.contains("REFUSED path")).then_some(())
    })
    .await;
    for command in [
        &["status"][..],
        &["clients"],
        &["client", &client.id],
        &["groups"],
        &["group", name],
        &["roster", "room"],
        &["uids"],
        &["why", "--address", "127.0.0.1"],
        &["doctor"],
    ] {
        for json in [&[][..], &["--json"]] {
            let (_, out, errors) = cluster.run(&[command, json].concat());
            is_safe(&format!("{command:?}"), &(out.clone() + &errors));
            assert!(!out.is_empty() && out.lines().all(|line| line.chars().count() < 8000), "{command:?}");
            if !json.is_empty() {
                serde_json::from_str::<serde_json::Value>(&out).unwrap();
            }
        }
    }
    let roster: serde_json::Value =
        serde_json::from_str(&cluster.run(&["roster", "room", "--json"]).1).unwrap();
    assert_eq!(roster["members"][0]["info"], info.as_str(), "JSON has all of it: {roster}");
    // Errors repeat what was typed, shortly.
    let long = format!("{EVIL}{}", "y".repeat(10_000));
    let long = long.as_str();
    for command in [
        &["client", long][..],
        &["groups", "--app", long],
        &["why", "--uid", long],
        &["status", "--cluster", long],
        &["status", "--addr", long],
        &["status", "--timeout", long],
        &["apps", "env", long],
        &["apps", "new", long],
        &["apps", "import", long],
        &["kick", "--client", long],
        &["drain", long],
        &["check-config", long],
        &[long],
    ] {
        let (code, out, errors) = cluster.run(command);
        assert_ne!(code, 0, "{:?}", command[0]);
        is_safe(&format!("{:?}", &command[..command.len() - 1]), &(out + &errors));
        assert!(errors.len() < 5000, "{:?}: {} bytes", &command[..command.len() - 1], errors.len());
    }
}
