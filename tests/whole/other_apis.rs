//! The APIs of other servers by which backends publish to the same channels: laravel-echo-server's, and Ably's as
//! far as Laravel's driver uses it.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    harness::*,
    pusher::{self, Pusher, SHOP_KEY},
    socketio::{Io, Laravel},
};

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}: {:?}", self.head, self.body))
    }
}

/// One request with these headers.
async fn ask(to: SocketAddr, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    for header in headers {
        head += &format!("{header}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = Vec::new();
    soon("an answer", stream.read_to_end(&mut answer)).await.unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: answer[end + 4..].to_vec() }
}

/// What a script of a user of laravel-echo-server does, at one gateway; the clients are at the other.
#[tokio::test]
async fn secret_authorizes_laravel_echo_servers_calls() {
    let laravel = Laravel::start().await;
    let cluster = Cluster::quiet(2).more(&laravel.apps()).start().await;
    cluster.linked().await;
    let bearer = format!("Authorization: Bearer {}", SHOP_KEY.1);
    let at = cluster.web(0);
    let get = async |path: &str| {
        let answer = ask(at, "GET", path, &[&bearer], b"").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    };
    let mut ann = Io::connect(&cluster, 1, 3).await;
    let mut bob = Pusher::connect(&cluster, 1).await;
    ann.subscribe("orders:1", "").await;
    ann.has_subscribed().await;
    bob.subscribe("news").await;

    let event = json!({"channels": ["orders:1", "news"], "name": "event-name", "data": {"key": "value"}});
    let post = async |body: &Value| {
        ask(at, "POST", "/apps/shop/events", &[&bearer], body.to_string().as_bytes()).await
    };
    let answer = post(&event).await;
    assert_eq!((answer.status, answer.text()), (200, r#"{"message":"ok"}"#));
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    assert_eq!(ann.hear().await, json!(["event-name", "orders:1", {"key": "value"}]));
    let heard = bob.hear().await;
    assert_eq!((&heard["event"], pusher::data(&heard)), (&json!("event-name"), json!({"key": "value"})));

    // To others, with the secret in the query; an id of another server excludes nobody.
    let target = format!("/apps/shop/events?auth_key={}", SHOP_KEY.1);
    let own = ann.id.clone();
    for (socket_id, hears) in [(own.as_str(), false), ("h3nAdb134tbvqwrg", true)] {
        let body = json!({"channel": "orders:1", "name": "e", "data": "{\"a\":1}", "socket_id": socket_id});
        let answer = ask(at, "POST", &target, &[], body.to_string().as_bytes()).await;
        assert_eq!((answer.status, answer.text()), (200, r#"{"message":"ok"}"#));
        if hears {
            assert_eq!(ann.hear().await, json!(["e", "orders:1", {"a": 1}]));
        } else {
            ann.has_subscribed().await;
        }
    }

    // Without credentials also the call that Pusher does not have is answered as by that server.
    let answer = ask(at, "GET", "/apps/shop/status", &[], b"").await;
    assert_eq!((answer.status, answer.text()), (403, r#"{"error":"Unauthorized"}"#));

    bob.join("presence-room", "bob").await;
    let channels = json!({
        "news": {"subscription_count": 1, "occupied": true},
        "orders:1": {"subscription_count": 1, "occupied": true},
        "presence-room": {"subscription_count": 1, "occupied": true},
    });
    assert_eq!(get("/apps/shop/channels").await, json!({"channels": channels}));
    let filtered = get("/apps/shop/channels?filter_by_prefix=presence-").await;
    assert_eq!(filtered, json!({"channels": {"presence-room": channels["presence-room"]}}));
    assert_eq!(get("/apps/shop/channels/orders:1").await, channels["orders:1"]);
    assert_eq!(
        get("/apps/shop/channels/presence-room").await,
        json!({"subscription_count": 1, "occupied": true, "user_count": 1})
    );
    assert_eq!(get("/apps/shop/channels/none").await, json!({"subscription_count": 0, "occupied": false}));
    assert_eq!(get("/apps/shop/channels/presence-room/users").await, json!({"users": [{"id": "bob"}]}));
    let status = get("/apps/shop/status").await;
    assert_eq!((&status["subscription_count"], &status["memory_usage"]), (&json!(2), &json!({})));
    assert!(status["uptime"].as_f64().unwrap() > 0.0, "{status}");
    let root = ask(at, "GET", "/", &[], b"").await;
    assert_eq!((root.status, root.text()), (200, "OK"));
    let script = ask(at, "GET", "/socket.io/socket.io.js", &[], b"").await;
    assert!(
        script.status == 404 && script.text().contains("npm package socket.io-client"),
        "{}",
        script.text()
    );
}

/// Refusals have that server's form, and no log has what was sent for a secret.
#[tokio::test]
async fn laravel_echo_servers_calls_are_refused_in_its_form() {
    let laravel = Laravel::start().await;
    let cluster = Cluster::quiet(1).more(&laravel.apps()).start().await;
    let at = cluster.web(0);
    let bearer = format!("Authorization: Bearer {}", SHOP_KEY.1);
    let unauthorized = (403, json!({"error": "Unauthorized"}));
    for (query, header) in [
        ("", "Authorization: Bearer wrong-hush-hush"),
        ("", "Authorization: Bearer shop-key"),
        ("?auth_key=wrong-hush-hush", "X: 1"),
    ] {
        let answer = ask(at, "GET", &format!("/apps/shop/channels{query}"), &[header], b"").await;
        assert_eq!((answer.status, answer.json()), unauthorized, "{query} {header}");
    }
    // The key is public, so it needs a signature, and without one the answer is Pusher's.
    let answer = ask(at, "GET", "/apps/shop/channels?auth_key=shop-key", &[], b"").await;
    assert_eq!(answer.status, 401);
    assert!(answer.text().contains("auth_version is missing"), "{}", answer.text());
    for (method, path, body, status, word) in [
        ("POST", "/apps/shop/events", "{}", 400, "Event must include channel, event name and data"),
        ("POST", "/apps/shop/events", "no", 400, "JSON object"),
        ("GET", "/apps/shop/channels/news/users", "", 400, "only possible for Presence Channels"),
        ("GET", "/apps/shop/connections", "", 404, "sign the request"),
        ("GET", "/apps/shop/events", "", 405, "use POST"),
        ("GET", "/apps/none/channels", "", 404, "No matching application"),
    ] {
        let answer = ask(at, method, path, &[&bearer], body.as_bytes()).await;
        let said = answer.json();
        assert_eq!(answer.status, status, "{path}: {said}");
        assert!(said["error"].as_str().unwrap().contains(word), "{path}: {said}");
    }
    let log = cluster.gateways[0].log();
    assert!(log.contains("api_403") && log.contains("is a secret of the app"), "{log}");
    assert!(!log.contains("hush") && !log.contains(SHOP_KEY.1), "{log}");
}

const ABLY_APP: &str =
    "[[apps]]\nid = \"shop\"\n[[apps.keys]]\nkey = \"app1.key1\"\nsecret = \"secret-of-the-shop\"\n";
/// `app1.key1:secret-of-the-shop`.
const BASIC: &str = "Authorization: Basic YXBwMS5rZXkxOnNlY3JldC1vZi10aGUtc2hvcA==";
const JSON: &str = "Content-Type: application/json";
const BINARY: &str = "Content-Type: application/x-msgpack";

/// A map of strings in MessagePack, each shorter than 256 bytes.
fn packed(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = vec![0x80 | u8::try_from(pairs.len()).unwrap()];
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend([0xd9, u8::try_from(text.len()).unwrap()]);
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// As Laravel's driver `ably` publishes: to another gateway than the clients', in both formats.
#[tokio::test]
async fn ablys_driver_publishes() {
    let cluster = Cluster::quiet(2).more(ABLY_APP).start().await;
    cluster.linked().await;
    let at = cluster.web(0);
    let mut ann = Pusher::with_key(&cluster, 1, "app1.key1").await;
    let mut bob = Pusher::with_key(&cluster, 1, "app1.key1").await;
    ann.subscribe("orders.1").await;
    bob.subscribe("orders.1").await;
    let socket = ann.socket_id.clone();
    let data = json!({"text": "y", "socket": socket}).to_string();
    let message = [
        ("id", "cWPIsqJM608AQI9a:0"),
        ("data", data.as_str()),
        ("encoding", "json"),
        ("name", r"App\Events\News"),
        ("connectionKey", socket.as_str()),
    ];
    let path = "/channels/public%3Aorders.1/messages";
    let accepted = json!({"channel": "public:orders.1", "messageId": "cWPIsqJM608AQI9a:0"});
    let text = json!({
        "id": message[0].1, "data": data, "encoding": "json", "name": message[3].1, "connectionKey": socket,
    })
    .to_string();
    // The library repeats a request with the same id at its next host, which is another gateway.
    for gateway in [0, 1] {
        let answer = ask(cluster.web(gateway), "POST", path, &[BASIC, JSON], text.as_bytes()).await;
        assert_eq!((answer.status, answer.json()), (201, accepted.clone()));
    }
    let heard = bob.hear().await;
    assert_eq!(heard, json!({"event": r"App\Events\News", "channel": "orders.1", "data": data}));

    let headers = [BASIC, BINARY, "Accept: application/x-msgpack"];
    let mut second = message;
    second[0].1 = "another:0";
    second[3].1 = "second";
    let answer = ask(at, "POST", path, &headers, &packed(&second)).await;
    assert_eq!(answer.status, 201);
    assert!(answer.head.contains("content-type: application/x-msgpack"), "{}", answer.head);
    assert!(String::from_utf8_lossy(&answer.body).contains("another:0"), "{:?}", answer.body);
    assert_eq!(bob.hear().await["event"], "second", "and the first came once");
    let both = json!([{"name": "third", "data": "3"}, {"name": "fourth", "data": "4"}]).to_string();
    let answer = ask(at, "POST", path, &[BASIC, JSON], both.as_bytes()).await;
    assert_eq!(answer.status, 201);
    for name in ["third", "fourth"] {
        assert_eq!(bob.hear().await["event"], name);
        assert_eq!(ann.hear().await["event"], name, "what excluded her did not come before");
    }
}

#[tokio::test]
async fn ablys_calls_are_refused_in_its_form() {
    let cluster = Cluster::quiet(1).more(ABLY_APP).start().await;
    let at = cluster.web(0);
    let path = "/channels/private%3Ax/messages";
    let wrong = "Authorization: Basic YXBwMS5rZXkxOndyb25nLWh1c2gtaHVzaA==";
    for (method, path, headers, body, status, code, word) in [
        ("GET", path, &[BASIC][..], "", 405, 40500, "only POST"),
        ("POST", path, &[JSON], "{}", 401, 40101, "appId.keyId:secret"),
        ("POST", path, &[JSON, wrong], "{}", 401, 40101, "invalid credentials"),
        ("POST", path, &[JSON, "Authorization: Basic eDp5"], "{}", 401, 40101, "invalid credentials"),
        ("POST", path, &[BASIC, "Content-Type: text/plain"], "{}", 415, 41500, "application/x-msgpack"),
        ("POST", path, &[BASIC, JSON], "{", 400, 40000, "does not parse"),
        ("POST", path, &[BASIC, JSON], r#"{"name":"e"}"#, 400, 40000, "data is missing"),
        ("POST", path, &[BASIC, BINARY], "\u{1}", 400, 40000, "does not parse"),
        ("POST", "/channels/private%3Aencrypted-x/messages", &[BASIC, JSON], "{}", 400, 40000, "in clear"),
        ("POST", "/x/channels/y/messages", &[BASIC, JSON], "{}", 404, 40400, "path prefix"),
    ] {
        let headers = [headers, &["Accept: application/json"]].concat();
        let answer = ask(at, method, path, &headers, body.as_bytes()).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["statusCode"]), (status, &json!(status)), "{path}: {error}");
        assert_eq!(error["code"], code, "{error}");
        assert!(error["message"].as_str().unwrap().contains(word), "{error}");
        assert!(answer.head.contains(&format!("x-ably-errorcode: {code}")), "{}", answer.head);
    }
    let log = cluster.gateways[0].log();
    assert!(log.contains("invalid credentials") && log.contains("key=\"app1.key1\""), "{log}");
    assert!(!log.contains("hush") && !log.contains("secret-of-the-shop"), "{log}");
}
