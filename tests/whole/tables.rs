//! Every call there is, by name: what each must do, refuse, and never widen.

use serde_json::{Value, json};

use crate::{harness::*, http::post};

const JSON: [(&str, &str); 2] = [("Content-Type", "application/json"), ("Host", "localhost")];

/// A minimal good body of every unary call; `ID` stands for a client's id.
const CALLS: [(&str, &str); 20] = [
    ("Send", r#"{"to": {"all": true}, "text": "heard by all"}"#),
    ("Close", r#"{"to": {"groups": ["nobody"]}}"#),
    ("Bind", r#"{"client_id": "ID", "uid": "ann"}"#),
    ("Unbind", r#"{"client_id": "ID"}"#),
    ("Join", r#"{"clients": ["ID"], "groups": ["room"]}"#),
    ("Dissolve", r#"{"groups": ["room"]}"#),
    ("Leave", r#"{"clients": ["ID"], "groups": ["room"]}"#),
    ("SetSession", r#"{"client_id": "ID", "json": "{}"}"#),
    ("MergeSession", r#"{"client_id": "ID", "json": "{}"}"#),
    ("GetSession", r#"{"client_id": "ID"}"#),
    ("Roster", r#"{"group": "room"}"#),
    ("History", r#"{"group": "room"}"#),
    ("LastValue", r#"{"group": "room"}"#),
    ("Online", r#"{"clients": ["ID"], "uids": ["ann"]}"#),
    ("Count", r#"{"groups": ["room"], "uids": true}"#),
    ("GetClient", r#"{"client_id": "ID"}"#),
    ("ListClients", r#"{"of": {"all": true}}"#),
    ("ListUids", "{}"),
    ("ListGroups", "{}"),
    ("Status", "{}"),
];

fn body(template: &str, id: &str) -> Value {
    serde_json::from_str(&template.replace("ID", id)).unwrap()
}

async fn call(address: &str, name: &str, body: &Value) -> (u16, Value) {
    post(address, name, &JSON, &body.to_string()).await
}

/// What changes under a call: state and deliveries of a client, as told by another gateway.
async fn state(cluster: &Cluster, id: &str) -> Value {
    let (status, reply) = call(&cluster.internal[0], "GetClient", &json!({"client_id": id})).await;
    assert_eq!(status, 200, "{reply}");
    let client = &reply["client"];
    json!([client["uid"], client["groups"], client["session"], client["messages_out"]])
}

#[tokio::test]
async fn every_call_answers_for_the_whole_cluster() {
    let cluster = Cluster::quiet(2).start().await;
    let mut client = cluster.client(0).await;
    for (name, template) in CALLS {
        let (status, reply) = call(&cluster.internal[1], name, &body(template, &client.id)).await;
        assert_eq!(status, 200, "{name}: {reply}");
        let coverage = &reply["coverage"];
        assert_eq!((&coverage["complete"], &coverage["missing"]), (&json!(true), &json!([])), "{name}");
        assert!(coverage["epoch"]["term"].as_u64().unwrap() > 0, "{name}: {reply}");
        if let Some(clients) = reply.get("clients").and_then(Value::as_u64) {
            assert_eq!(clients, u64::from(name != "Close"), "{name}: {reply}");
        }
    }
    client.hears(&["heard by all"]).await;
}

/// A caller that needs something newer is refused as a whole; so is one that names an unknown field.
#[tokio::test]
async fn no_call_hides_an_incomplete_result() {
    let cluster = Cluster::quiet(2).start().await;
    let mut client = cluster.client(0).await;
    let before = state(&cluster, &client.id).await;
    for (name, template) in CALLS {
        let mut newer = body(template, &client.id);
        if name == "Close" {
            newer["to"] = json!({"all": true});
        }
        newer["requires"] = json!(["something_newer"]);
        let (status, reply) = call(&cluster.internal[1], name, &newer).await;
        // These have no way to ask for more.
        let plain = ["GetSession", "GetClient", "Status"].contains(&name);
        assert_eq!(status, if plain { 400 } else { 501 }, "{name}: {reply}");
        let word = if plain { "requires" } else { "something_newer" };
        assert!(reply["error"]["message"].as_str().unwrap().contains(word), "{name}: {reply}");
        let mut unknown = body(template, &client.id);
        unknown["only_on_sundays"] = json!(true);
        let (status, reply) = call(&cluster.internal[1], name, &unknown).await;
        assert_eq!(status, 400, "{name}: {reply}");
        assert!(reply["error"]["message"].as_str().unwrap().contains("only_on_sundays"), "{name}: {reply}");
    }
    assert_eq!(state(&cluster, &client.id).await, before);
    call(&cluster.internal[1], "Send", &json!({"to": {"all": true}, "text": "first"})).await;
    client.hears(&["first"]).await;
}

/// Names that are empty, too long or unprintable, ids that are none, clients that are gone: each call
/// says so with a sentence.
#[tokio::test]
async fn every_call_refuses_invalid_names() {
    let cluster = Cluster::quiet(2).start().await;
    let client = cluster.client(0).await;
    let before = state(&cluster, &client.id).await;
    let long = "x".repeat(201);
    for name in ["", &long, "line\nbreak", "nul\0"] {
        for (call_name, mut broken) in [
            ("Send", json!({"to": {"groups": [name]}, "text": "x"})),
            ("Send", json!({"to": {"uids": ["ann", name]}, "text": "x"})),
            ("Send", json!({"to": {"all": true, "except": {"groups": [name]}}, "text": "x"})),
            ("Close", json!({"to": {"uids": [name]}})),
            ("Bind", json!({"client_id": client.id, "uid": name})),
            ("Join", json!({"clients": [client.id], "groups": ["room", name]})),
            ("Join", json!({"uids": [name], "groups": ["room"]})),
            ("Leave", json!({"clients": [client.id], "groups": [name]})),
            ("Dissolve", json!({"groups": [name]})),
            ("Online", json!({"uids": [name]})),
            ("Count", json!({"groups": [name]})),
            ("ListClients", json!({"of": {"groups": [name]}})),
            ("ListUids", json!({"groups": [name]})),
        ] {
            broken["requires"] = json!([]);
            let (status, reply) = call(&cluster.internal[1], call_name, &broken).await;
            assert_eq!(status, 400, "{call_name} {broken}: {reply}");
            assert_eq!(reply["error"]["code"], "INVALID_ARGUMENT", "{call_name} {broken}");
        }
    }
    assert_eq!(state(&cluster, &client.id).await, before, "nothing was done in part");
    let gone = client.id.clone();
    drop(client);
    until("it is gone", async || (cluster.count(1).await == 0).then_some(())).await;
    for (name, template) in CALLS {
        let one = template.contains("client_id");
        if !template.contains("ID") {
            continue;
        }
        let (status, reply) = call(&cluster.internal[1], name, &body(template, &gone)).await;
        assert_eq!(status, if one { 404 } else { 200 }, "{name}: {reply}");
        for no_id in ["", "short", "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", &format!("{gone}0")] {
            let (status, reply) = call(&cluster.internal[1], name, &body(template, no_id)).await;
            // A command for nobody else has nothing to do; a question has an answer.
            assert_eq!(status, if name == "Online" { 200 } else { 400 }, "{name} {no_id:?}: {reply}");
        }
    }
}

/// The limits of a request, each with a status of its own.
#[tokio::test]
async fn requests_have_limits() {
    let cluster = Cluster::quiet(1).limits("groups_per_client_max = 3").start().await;
    let client = cluster.client(0).await;
    let address = &cluster.internal[0];
    let many: Vec<String> = (0..10_001).map(|number| format!("g{number}")).collect();
    let (status, reply) = call(address, "Dissolve", &json!({"groups": many})).await;
    assert!(status == 400 || status == 413, "{status} {reply}");
    assert!(reply["error"]["message"].as_str().unwrap().contains("10000"), "{reply}");
    let payload = "x".repeat(1024 * 1024 + 1);
    let (status, reply) = call(address, "Send", &json!({"to": {"all": true}, "text": payload})).await;
    assert!(status == 400 || status == 413, "{status} {reply}");
    let body = json!({"to": {"all": true}, "text": "x".repeat(3_000_000)});
    assert_eq!(call(address, "Send", &body).await.0, 413);
    let join = json!({"clients": [client.id], "groups": ["a", "b", "c", "d"]});
    let (status, reply) = call(address, "Join", &join).await;
    assert_eq!((status, &reply["drops"]["too_many_groups"]), (200, &json!(1)), "{reply}");
    let (status, reply) = call(address, "Join", &json!({"clients": [client.id], "groups": ["a"]})).await;
    assert_eq!((status, &reply["clients"]), (200, &json!(1)), "{reply}");
    let get = b"GET /v1/Send HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let told = crate::malformed_input::answer(address.parse().unwrap(), get, false).await;
    assert!(told.starts_with(b"HTTP/1.1 405"), "{}", String::from_utf8_lossy(&told));
}
