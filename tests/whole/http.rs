//! The JSON form of the commands, spoken by hand.

use broadgate_proto::v1;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::*;

/// Status and body of a request with these headers.
pub async fn post(address: &str, call: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut request =
        format!("POST /v1/{call} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{request}\r\n{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("the answer comes", stream.read_to_string(&mut answer)).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned())))
}

const JSON: [(&str, &str); 2] = [("Content-Type", "application/json"), ("Host", "127.0.0.1")];

#[tokio::test]
async fn commands_are_the_same_as_json() {
    let cluster = Cluster::quiet(2).start().await;
    let mut a = cluster.client(0).await;
    let address = &cluster.internal[1];
    let call = async |call: &str, body: Value| post(address, call, &JSON, &body.to_string()).await;
    let (status, receipt) = call("Join", json!({"clients": [a.id], "groups": ["room"]})).await;
    assert_eq!((status, &receipt["clients"]), (200, &json!(1)));
    let (status, receipt) = call("Send", json!({"to": {"groups": ["room"]}, "text": "hello"})).await;
    assert_eq!(
        (status, &receipt["clients"], &receipt["coverage"]["complete"]),
        (200, &json!(1), &json!(true))
    );
    assert_eq!(receipt["coverage"]["missing"], json!([]));
    call("Send", json!({"to": {"clients": [a.id]}, "binary": "AP8B"})).await;
    a.hears(&["hello"]).await;
    assert_eq!(&a.message().await.into_data()[..], [0, 255, 1]);
    let (_, session) = call("SetSession", json!({"client_id": a.id, "json": "{\"k\":1}"})).await;
    assert_eq!(session["session"], json!({"json": "{\"k\":1}", "version": 1}));
    let (_, online) = call("Online", json!({"clients": [a.id]})).await;
    assert_eq!(online["clients"][&a.id], json!(true));
    let (_, page) =
        call("ListClients", json!({"of": {"all": true}, "fields": ["CLIENT_FIELD_GROUPS"]})).await;
    let listed = &page["clients"][0];
    assert_eq!(*listed, json!({"client_id": a.id, "app": "default", "groups": ["room"]}));
    let fields = json!(["CLIENT_FIELD_UID", "CLIENT_FIELD_TRAFFIC"]);
    let (_, page) = call("ListClients", json!({"of": {"all": true}, "fields": fields})).await;
    let listed = &page["clients"][0];
    assert!(
        listed["uid"] == "" && listed["outbox_bytes"] == 0 && listed.get("address").is_none(),
        "{listed}"
    );
    let (_, alone) = call("Send", json!({"to": {"except": {"uids": ["ann"]}}, "text": "x"})).await;
    assert_eq!((&alone["clients"], &alone["coverage"]["complete"]), (&json!(0), &json!(true)));
    let (status, reply) = call("Status", json!({})).await;
    assert_eq!((status, reply["gateways"].as_array().unwrap().len()), (200, 2));
    assert!(reply["view"]["epoch"]["count"].is_u64());
}

/// Every call, and every payload that may be sent, however long JSON makes it.
#[tokio::test]
async fn json_accepts_every_call_and_the_largest_payload() {
    let app = "[[apps]]\nid = \"shop\"\n[[apps.keys]]\nkey = \"shop-key\"\nsecret = \"secret-of-the-shop\"\n";
    let limits = "message_bytes_max = 3145728";
    let cluster = Cluster::quiet(1).limits(limits).more(app).start().await;
    let mut client = cluster.client(0).await;
    let call =
        async |call: &str, body: Value| post(&cluster.internal[0], call, &JSON, &body.to_string()).await;
    let (status, reply) = call("GetApp", json!({ "app": "shop" })).await;
    let shop = json!({ "id": "shop", "enabled": true, "raw": false, "keyed": true });
    assert_eq!((status, reply), (200, shop));
    let (status, reply) = call("GetApp", json!({ "app": "nowhere" })).await;
    assert_eq!((status, &reply["error"]["code"]), (404, &json!("NOT_FOUND")));
    let (status, reply) = call("GetApp", json!({ "name": "shop" })).await;
    assert_eq!((status, &reply["error"]["code"]), (400, &json!("INVALID_ARGUMENT")));
    // Six bytes of JSON each.
    let text = "\u{1}".repeat(3 * 1024 * 1024);
    let (status, receipt) = call("Send", json!({ "to": { "clients": [client.id] }, "text": text })).await;
    assert_eq!((status, &receipt["clients"]), (200, &json!(1)), "{receipt}");
    assert_eq!(client.message().await.into_data().len(), text.len());
    let (status, reply) = call("Send", json!({ "to": { "all": true }, "text": format!("{text}x") })).await;
    assert_eq!((status, &reply["error"]["code"]), (413, &json!("RESOURCE_EXHAUSTED")), "{reply}");
}

/// Users have numbers, and `json_encode` makes `[]` of every empty array.
#[tokio::test]
async fn ids_are_accepted_as_php_writes_them() {
    let cluster = Cluster::quiet(1).start().await;
    let mut a = cluster.client(0).await;
    let id = a.id.clone();
    let address = &cluster.internal[0];
    let call = async |call: &str, body: Value| {
        let (status, answer) = post(address, call, &JSON, &body.to_string()).await;
        assert_eq!(status, 200, "{call} {body}: {answer}");
        answer
    };
    call("Bind", json!({"client_id": id, "uid": 7})).await;
    call("Join", json!({"uids": [7], "groups": [12], "clients": []})).await;
    assert_eq!(call("Send", json!({"to": {"uids": [7]}, "text": "a uid"})).await["clients"], 1);
    assert_eq!(
        call("Send", json!({"to": {"groups": [12], "except": []}, "text": "a group"})).await["clients"],
        1
    );
    let holes = json!({"to": {"uids": {"0": 7, "3": 8}}, "text": "a list with holes"});
    assert_eq!(call("Send", holes).await["clients"], 1);
    let but = json!({"to": {"all": true, "except": {"uids": [7]}}, "text": "nobody"});
    assert_eq!(call("Send", but).await["clients"], 0);
    assert_eq!(call("Online", json!({"uids": [7, 8]})).await["uids"], json!({"7": 1, "8": 0}));
    assert_eq!(call("Count", json!([])).await["app"]["clients"], 1);
    assert_eq!(call("Count", json!({"groups": [12]})).await["groups"]["12"]["clients"], 1);
    for session in [json!("[]"), json!([]), json!({})] {
        let set = json!({"client_id": id, "json": session});
        assert_eq!(call("SetSession", set).await["session"]["json"], "{}");
    }
    assert_eq!(
        call("MergeSession", json!({"client_id": id, "json": {"n": 1}})).await["session"]["json"],
        "{\"n\":1}"
    );
    a.hears(&["a uid", "a group", "a list with holes"]).await;
    let (status, answer) = post(address, "Send", &JSON, r#"{"to":{"uids":[7.5]},"text":"x"}"#).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(status == 400 && message.contains("line 1"), "{answer}");
}

#[tokio::test]
async fn errors_are_json() {
    let cluster = Cluster::quiet(1).start().await;
    let address = &cluster.internal[0];
    let send = r#"{"to":{"all":true},"text":"x"}"#;
    let host = ("Host", "127.0.0.1:7200");
    let json = ("Content-Type", "application/json");
    for (headers, call, body, status, words) in [
        (&[json, host][..], "Send", r#"{"to":{"all":true},"txt":"x"}"#, 400, "txt"),
        (&[json, host], "Send", "{", 400, "SendRequest"),
        (&[json, host], "Send", r#"{"to":{"all":true},"text":"x"} more"#, 400, "SendRequest"),
        (&[json, host], "Send", r#"{"text":"x"}"#, 400, "to is missing"),
        (&[json, host], "Sned", "{}", 404, "Sned"),
        (&[json, host], "Commands", "{}", 404, "Commands"),
        (&[json, host], "GetClient", r#"{"client_id":"nope"}"#, 400, "not a client id"),
        (&[host], "Send", send, 400, "Content-Type"),
        (&[("Content-Type", "text/plain"), host], "Send", send, 400, "Content-Type"),
        (&[json, ("Host", "evil.example")], "Send", send, 403, "evil.example"),
    ] {
        let (got, answer) = post(address, call, headers, body).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(got, status, "{call} {body}: {answer}");
        assert!(message.contains(words), "{call} {body}: {answer}");
    }
    // What a browser, a probe or a mistyped path finds.
    for (address, method, path, status, words) in [
        (address, "GET", "/", 404, "internal port"),
        (address, "GET", "/nonsense", 404, "POST /v1/{Call}"),
        (address, "GET", "/healthz", 404, "metrics.bind"),
        (address, "GET", "/readyz", 404, "metrics.bind"),
        (address, "GET", "/v1/Send", 405, "POST"),
        (address, "DELETE", "/v1/Send", 405, "POST"),
        (&cluster.register_address, "GET", "/", 404, "register's port"),
        (&cluster.register_address, "POST", "/metrics", 404, "metrics.bind"),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        let answer =
            crate::malformed_input::answer(address.parse().unwrap(), request.as_bytes(), false).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        let message = body["error"]["message"].as_str().unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {answer}");
        assert!(message.contains(words) && body["error"]["code"].is_string(), "{method} {path}: {answer}");
    }
    for good in ["localhost:7200", "[::1]:7200", "10.1.2.3"] {
        assert_eq!(post(address, "Send", &[json, ("Host", good)], send).await.0, 200, "{good}");
    }
}

#[tokio::test]
async fn every_call_requires_the_secret() {
    let secret = "0123456789abcdefghijklmnopqrstuv";
    let other = "another-secret-0123456789abcdefghijk";
    let dir = std::env::temp_dir().join(format!("broadgate-secret-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("secret");
    // The new one first, then the old one.
    std::fs::write(&file, format!("{other}\n{secret}\n")).unwrap();
    // `[cluster]` is the harness's, so the file goes by environment.
    let cluster = Cluster::quiet(0).start().await;
    let environment = [("BROADGATE_CLUSTER__SECRET_FILE", file.to_str().unwrap())];
    let register = Process::start(&cluster.dir, "r", &["register", "--bind=127.0.0.1:0"], &environment);
    let address = register.logged("register address=").await;
    let flags =
        ["gateway", "--register", &address, "--internal-bind=127.0.0.1:0", "--client-bind=127.0.0.1:0"];
    // One process knows only the old secret: while it is being changed, both are taken.
    let old = Process::start(&cluster.dir, "old", &flags, &[("BROADGATE_SECRET", secret)]);
    let internal = old.logged("internal=").await;
    until("it has joined", async || register.log().contains("joined").then_some(())).await;
    let send = r#"{"to":{"all":true},"text":"x"}"#;
    let bearer = format!("Bearer {secret}");
    assert_eq!(post(&internal, "Send", &[JSON[0], JSON[1], ("Authorization", &bearer)], send).await.0, 200);
    assert_eq!(post(&internal, "Send", &JSON, send).await.0, 401);
    assert_eq!(
        post(&internal, "Send", &[JSON[0], JSON[1], ("Authorization", "Bearer x")], send).await.0,
        401
    );
    let mut caller = Caller::connect(format!("http://{internal}")).await.unwrap();
    let refused = caller.status(v1::StatusRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused}");
    // A gateway without the secret stays out, and says why.
    let stranger = Process::start(&cluster.dir, "stranger", &flags, &[]);
    until("the stranger says why", async || stranger.log().contains("secret").then_some(())).await;
    std::fs::remove_dir_all(&dir).unwrap();
}
