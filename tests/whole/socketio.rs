//! Socket.IO clients by hand, frame by frame as Laravel Echo's send them, beside Pusher clients, and with a stub of
//! Laravel's `/broadcasting/auth`.

use std::sync::{Arc, Mutex};

use broadgate_business::cluster::{Audience as To, Close, Payload};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    harness::*,
    pusher::{self, Pusher, sdk},
};

/// A stub of Laravel's endpoint: users are who their bearer tokens say. It notes what it was asked.
pub struct Laravel {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Laravel {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/broadcasting/auth", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&noted)));
            }
        });
        Self { url, asked }
    }

    /// An app with Socket.IO clients that asks here.
    pub fn apps(&self) -> String {
        format!(
            "{}[apps.auth]\nurl = \"{}\"\ntimeout = \"2s\"\n",
            pusher::APPS.replace("raw = true\n", "raw = true\nsocketio = true\n"),
            self.url
        )
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn answer(mut stream: TcpStream, noted: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    while !String::from_utf8_lossy(&request).contains("&socket_id=") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    noted.lock().unwrap().push(request.clone());
    let user = request.split("Bearer ").nth(1).or(request.split("bearer ").nth(1));
    let user = user.and_then(|rest| rest.split("\r\n").next()).unwrap_or_default();
    let channel = request.split("channel_name=").nth(1).unwrap().split('&').next().unwrap();
    let (status, body) = match channel {
        "private-slow" => return std::future::pending().await,
        "private-login" => ("302 Found\r\nLocation: /login", String::new()),
        "private-broken" => ("500 Internal Server Error", String::new()),
        "private-page" => ("200 OK", "<html>".to_owned()),
        "private-nothing" => ("200 OK", String::new()),
        "private-cut" => return,
        "private-endless" => {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let mut part = head.to_owned();
            while stream.write_all(part.as_bytes()).await.is_ok() {
                part = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
            }
            return;
        }
        _ if user.is_empty() => ("403 Forbidden", "{\"message\":\"\"}".to_owned()),
        room if room.starts_with("presence-") => {
            ("200 OK", json!({"channel_data": {"user_id": user, "user_info": {"name": user}}}).to_string())
        }
        _ => ("200 OK", "true".to_owned()),
    };
    let answer =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes()).await;
}

/// A Socket.IO client that has connected.
pub struct Io {
    pub client: Client,
    /// What it takes for its socket's id.
    pub id: String,
}

impl Io {
    /// Directly with a WebSocket.
    pub async fn connect(cluster: &Cluster, gateway: usize, version: u8) -> Self {
        Self::connect_to(&cluster.web(gateway).to_string(), version).await
    }

    /// The same at an address.
    pub async fn connect_to(web: &str, version: u8) -> Self {
        let url = format!("ws://{web}/socket.io/?EIO={version}&transport=websocket");
        let cookie = [("Cookie", "laravel_session=x1")];
        let mut client = Client::try_connect(&url, &cookie).await.unwrap();
        let open = client.hear().await;
        let open: Value = serde_json::from_str(open.strip_prefix('0').unwrap()).unwrap();
        assert_eq!(
            (&open["upgrades"], &open["pingInterval"], &open["pingTimeout"]),
            (&json!([]), &json!(25000), &json!(20000))
        );
        let mut id = open["sid"].as_str().unwrap().to_owned();
        if version == 4 {
            assert!(open["maxPayload"].as_u64().unwrap() > 20_000);
            client.say(r#"40{"headers":{"Authorization":"Bearer ann"}}"#).await;
            id = connected(&client.hear().await);
        } else {
            assert!(open.get("maxPayload").is_none());
            client.hears(&["40"]).await;
        }
        Self { client, id }
    }

    /// By polling, each request at the next gateway, as a round robin would send them.
    pub async fn come_over(cluster: &Cluster, version: u8) -> Self {
        let at = format!("/socket.io/?EIO={version}&transport=polling&t=x1");
        let (head, body) = http(cluster.web(0), "GET", &at, "").await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; charset=UTF-8"), "{head}");
        let packet = if version == 3 { body.split_once(':').unwrap().1 } else { &body };
        let open: Value = serde_json::from_str(packet.strip_prefix('0').unwrap()).unwrap();
        assert_eq!(open["upgrades"], json!(["websocket"]));
        if version == 3 {
            assert_eq!(body, format!("{}:{packet}", packet.encode_utf16().count()));
        }
        let sid = open["sid"].as_str().unwrap().to_owned();
        let at = format!("{at}&sid={sid}");
        assert_eq!(http(cluster.web(1), "POST", &at, "40").await.1, "ok");
        let noop = if version == 3 { "1:6" } else { "6" };
        assert_eq!(http(cluster.web(0), "GET", &at, "").await.1, noop);
        let url = format!("ws://{}{}", cluster.web(1), at.replace("polling", "websocket"));
        let mut client = Client::connect(&url).await;
        client.say("2probe").await;
        client.hears(&["3probe"]).await;
        client.say("5").await;
        let hello = client.hear().await;
        let id = if version == 3 {
            assert_eq!(hello, "40");
            sid
        } else {
            connected(&hello)
        };
        Self { client, id }
    }

    pub async fn say(&mut self, name: &str, argument: Value) {
        self.client.say(&format!("42{}", json!([name, argument]))).await;
    }

    pub async fn subscribe(&mut self, channel: &str, user: &str) {
        let headers =
            if user.is_empty() { json!({}) } else { json!({"Authorization": format!("Bearer {user}")}) };
        self.say("subscribe", json!({"channel": channel, "auth": {"headers": headers}})).await;
    }

    pub async fn hear(&mut self) -> Value {
        loop {
            let heard = self.client.hear().await;
            if heard != "2" {
                let json = heard.strip_prefix("42").unwrap_or_else(|| panic!("{heard}"));
                return serde_json::from_str(json).unwrap();
            }
            self.client.say("3").await;
        }
    }

    /// Nothing confirms a subscription: what is refused behind it shows that it has taken effect.
    pub async fn has_subscribed(&mut self) {
        self.subscribe("#", "").await;
        assert_eq!(self.hear().await, json!(["subscription_error", "#", 403]));
    }
}

fn connected(frame: &str) -> String {
    let hello: Value = serde_json::from_str(frame.strip_prefix("40").unwrap()).unwrap();
    hello["sid"].as_str().unwrap().to_owned()
}

const UPGRADE_HEADERS: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";

/// Head and body of an answer; the method `UPGRADE` asks for a WebSocket.
pub async fn http(to: std::net::SocketAddr, method: &str, target: &str, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let (method, wanted) = match method {
        "UPGRADE" => ("GET", UPGRADE_HEADERS),
        method => (method, "Connection: close\r\n"),
    };
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: x\r\nOrigin: https://shop.example\r\n{wanted}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Without sticky sessions: each request of the handshake may reach another gateway.
#[tokio::test]
async fn clients_of_both_versions_connect_over_polling_at_any_gateway() {
    let laravel = Laravel::start().await;
    let cluster = Cluster::quiet(2).more(&laravel.apps()).start().await;
    let shop = sdk(&cluster).await;
    let mut clients = Vec::new();
    for version in [3, 4] {
        clients.push(Io::connect(&cluster, 0, version).await);
        clients.push(Io::come_over(&cluster, version).await);
    }
    for client in &mut clients {
        client.subscribe("news", "").await;
        client.has_subscribed().await;
    }
    let mut pusher = Pusher::connect(&cluster, 1).await;
    pusher.subscribe("news").await;
    let event = Payload::event(r"App\Events\News", "{\"text\":\"h\u{e9}llo \u{2615}\",\"socket\":null}");
    let receipt = shop.send(To::group("news"), event).await.unwrap();
    assert_eq!(receipt.clients, 5);
    for client in &mut clients {
        client
            .client
            .hears(&[
                "42[\"App\\\\Events\\\\News\",\"news\",{\"text\":\"h\u{e9}llo \u{2615}\",\"socket\":null}]",
            ])
            .await;
    }
    assert_eq!(pusher.hear().await["event"], r"App\Events\News");
    shop.send(To::group("news"), Payload::event("e", "no JSON")).await.unwrap();
    for client in &mut clients {
        assert_eq!(client.hear().await, json!(["e", "news", "no JSON"]));
    }
    assert!(laravel.asked().is_empty(), "a public channel is open to everybody");
    // To others: by the ids that these clients have told their backend.
    for index in 0..clients.len() {
        let body =
            json!({"name": "e", "data": "1", "channel": "news", "socket_id": clients[index].id}).to_string();
        let answer = crate::backends::call(&cluster, 0, "POST", "/events", "", "", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        for other in (0..clients.len()).filter(|other| *other != index) {
            assert_eq!(clients[other].hear().await, json!(["e", "news", 1]), "{index} {other}");
        }
    }
    for client in &mut clients {
        client.has_subscribed().await;
    }
}

#[tokio::test]
async fn polling_refuses_in_the_words_of_the_protocol() {
    let laravel = Laravel::start().await;
    let cluster = Cluster::quiet(1).more(&laravel.apps()).start().await;
    for (method, query, status, body) in [
        ("GET", "EIO=4&transport=x", 400, r#"{"code":0,"message":"Transport unknown"}"#),
        ("GET", "EIO=4&transport=polling&sid=YMKEAAAA", 400, r#"{"code":1,"message":"Session ID unknown"}"#),
        ("POST", "EIO=4&transport=polling", 400, r#"{"code":2,"message":"Bad handshake method"}"#),
        ("GET", "EIO=4&transport=websocket", 400, r#"{"code":3,"message":"Bad request"}"#),
        ("GET", "EIO=4&transport=polling&key=none", 403, r#"{"code":4,"message":"Forbidden"}"#),
        ("UPGRADE", "EIO=4&transport=websocket&key=none", 400, r#"{"code":4,"message":"Forbidden"}"#),
        ("UPGRADE", "EIO=4&transport=websocket&sid=1.5", 400, r#"{"code":1,"message":"Session ID unknown"}"#),
        ("GET", "EIO=5&transport=polling", 400, r#"{"code":5,"message":"Unsupported protocol version"}"#),
    ] {
        let (head, said) = http(cluster.web(0), method, &format!("/socket.io/?{query}"), "").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{query}: {head}");
        assert_eq!(said, body, "{query}");
    }
    // A client that only polls: its id says that it has done so for a minute.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let key = ((now - 60) / 4 % (1 << 24)) << 40 | 7;
    let (head, said) =
        http(cluster.web(0), "GET", &format!("/socket.io/?EIO=4&transport=polling&sid=0.{key}"), "").await;
    assert!(
        head.starts_with("HTTP/1.1 400") && said.contains("\"code\":3") && said.contains("WebSocket"),
        "{said}"
    );
    until("the refusal is logged", async || {
        cluster.gateways[0].log().contains("reason=\"socketio_polling\"").then_some(())
    })
    .await;
    let open = "/socket.io/?EIO=4&transport=polling&key=shop-key";
    let (head, _) = http(cluster.web(0), "GET", open, "").await;
    let head = head.to_lowercase();
    assert!(head.contains("access-control-allow-origin: https://shop.example"), "{head}");
    assert!(head.contains("access-control-allow-credentials: true"), "{head}");
    assert!(http(cluster.web(0), "OPTIONS", open, "").await.0.starts_with("HTTP/1.1 204"));
    // A POST that is too long is not taken; its answer may be lost with the rest of it.
    let mut stream = TcpStream::connect(cluster.web(0)).await.unwrap();
    let head = format!("POST {open}&sid=0.5 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    let _ = stream.write_all([head.as_bytes(), &[b'x'; 1_000_000]].concat().as_slice()).await;
    let mut answer = Vec::new();
    let _ = soon("the connection ends", stream.read_to_end(&mut answer)).await;
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"), "{answer:?}");
}

/// Each answer of the backend, and what the client hears of it; a slow one holds up nobody else.
#[tokio::test]
async fn laravel_decides_who_may_subscribe() {
    let laravel = Laravel::start().await;
    let cluster = Cluster::quiet(1).more(&laravel.apps()).start().await;
    let mut client = Io::connect(&cluster, 0, 4).await;
    let mut other = Io::connect(&cluster, 0, 3).await;
    other.subscribe("private-slow", "ann").await;
    for (channel, user, status) in [
        ("private-orders.1", "", 403),
        ("presence-room", "", 403),
        ("private-login", "ann", 302),
        ("private-broken", "ann", 500),
        ("private-page", "ann", 502),
        ("private-nothing", "ann", 502),
    ] {
        client.subscribe(channel, user).await;
        assert_eq!(client.hear().await, json!(["subscription_error", channel, status]));
    }
    client.subscribe("private-orders.1", "ann").await;
    client.has_subscribed().await;
    let shop = sdk(&cluster).await;
    let receipt = shop.send(To::group("private-orders.1"), Payload::event("e", "1")).await.unwrap();
    assert_eq!((receipt.clients, client.hear().await), (1, json!(["e", "private-orders.1", 1])));
    assert_eq!(other.hear().await, json!(["subscription_error", "private-slow", 0]), "in time");

    let asked =
        laravel.asked().into_iter().find(|asked| asked.contains("orders.1&") && asked.contains("Bearer"));
    let asked = asked.unwrap().to_lowercase();
    for part in [
        "post /broadcasting/auth http/1.1",
        "cookie: laravel_session=x1",
        "authorization: bearer ann",
        "x-requested-with: xmlhttprequest",
        "x-forwarded-for: 127.0.0.1",
        &format!("channel_name=private-orders.1&socket_id={}", client.id),
    ] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
    assert!(!laravel.asked().iter().any(|asked| asked.contains("%23")), "reserved names are not asked about");
}

/// A room with users of both protocols at two gateways: each hears of the other in its own form, and of a user that
/// was lost with its gateway.
#[tokio::test]
async fn presence_is_one_for_both_protocols() {
    let laravel = Laravel::start().await;
    let mut cluster = Cluster::quiet(3).more(&laravel.apps()).start().await;
    cluster.linked().await;
    let room = "presence-room.1";
    let mut ann = Io::connect(&cluster, 0, 4).await;
    ann.subscribe(room, "ann").await;
    let own = json!({"user_id": "ann", "user_info": {"name": "ann"}, "socketId": ann.id});
    assert_eq!(ann.hear().await, json!(["presence:subscribed", room, [own]]));
    let mut bob = Pusher::connect(&cluster, 1).await;
    let roster = bob.join(room, "bob").await;
    assert_eq!(pusher::data(&roster)["presence"]["count"], 2);
    assert_eq!(ann.hear().await, json!(["presence:joining", room, {"user_id": "bob"}]));
    let mut eve = Io::connect(&cluster, 2, 3).await;
    eve.subscribe(room, "eve").await;
    let heard = eve.hear().await;
    assert_eq!((&heard[0], heard[2].as_array().unwrap().len()), (&json!("presence:subscribed"), 3));
    assert_eq!(heard[2][0]["user_id"], "eve", "newest first");
    let joining = json!({"user_id": "eve", "user_info": {"name": "eve"}});
    assert_eq!(ann.hear().await, json!(["presence:joining", room, joining]));
    let added = bob.hear().await;
    assert_eq!((&added["event"], pusher::data(&added)), (&json!("pusher_internal:member_added"), joining));

    // Whispers, in both directions; not to who has sent them, and not from outside.
    let whisper = |event: &str| json!({"channel": room, "event": event, "data": {"who": "ann"}});
    ann.say("client event", whisper("typing")).await;
    ann.say("client event", whisper("client-typing")).await;
    assert_eq!(eve.hear().await, json!(["client-typing", room, {"who": "ann"}]));
    let heard = bob.hear().await;
    assert_eq!((&heard["event"], &heard["data"]), (&json!("client-typing"), &json!({"who": "ann"})));
    assert_eq!(heard["user_id"], "ann");
    bob.client.say(&json!({"event": "client-b", "channel": room, "data": [1]}).to_string()).await;
    assert_eq!(ann.hear().await, json!(["client-b", room, [1]]));
    assert_eq!(eve.hear().await, json!(["client-b", room, [1]]));

    cluster.gateways[2].kill();
    let leaving = ann.hear().await;
    assert_eq!((&leaving[0], &leaving[2]["user_id"]), (&json!("presence:leaving"), &json!("eve")));
    let removed = bob.hear().await;
    assert_eq!(removed["event"], "pusher_internal:member_removed");
    ann.say("unsubscribe", json!({"channel": room, "auth": {"headers": {}}})).await;
    assert_eq!(pusher::data(&bob.hear().await), json!({"user_id": "ann"}));
    bob.client.say(&json!({"event": "client-c", "channel": room, "data": 1}).to_string()).await;
    ann.has_subscribed().await;
}

/// After `41` a client stays away; after a mere close it comes back.
#[tokio::test]
async fn kicks_are_for_good_and_drains_are_not() {
    let laravel = Laravel::start().await;
    let cluster = Cluster::quiet(1).more(&laravel.apps()).start().await;
    let mut kicked = Io::connect(&cluster, 0, 4).await;
    let mut drained = Io::connect(&cluster, 0, 3).await;
    kicked.subscribe("kicked", "").await;
    kicked.has_subscribed().await;
    let shop = sdk(&cluster).await;
    shop.close(To::group("kicked"), Close::default()).await.unwrap();
    assert_eq!(kicked.client.closed().await.before, ["41"]);
    drained.has_subscribed().await;
    cluster.gateways[0].signal("TERM");
    let closed = drained.client.closed().await;
    assert_eq!((closed.code, closed.before), (1006, Vec::new()), "without a code, as the protocol's server");
}

/// What breaks the protocol ends this client, and no other one.
#[tokio::test]
async fn breaches_of_the_protocol_close_one_client() {
    let laravel = Laravel::start().await;
    let cluster = Cluster::quiet(1).more(&laravel.apps()).start().await;
    let mut honest = Io::connect(&cluster, 0, 4).await;
    honest.subscribe("news", "").await;
    honest.has_subscribed().await;
    let url = |rest: &str| format!("ws://{}/socket.io/?transport=websocket&{rest}", cluster.web(0));
    for (rest, frame) in [
        ("EIO=4", r#"42["subscribe",{"channel":"news"}]"#),
        ("EIO=4", "40[]"),
        ("EIO=4", "x"),
        ("EIO=3", "42{}"),
        ("EIO=3", "3"),
        ("EIO=4&sid=0.5", "40"),
    ] {
        let mut client = Client::connect(&url(rest)).await;
        client.say(frame).await;
        assert_eq!(client.closed().await.code, 1006, "{rest} {frame}: without a code");
    }
    let mut large = Client::connect(&url("EIO=4")).await;
    large.say(&format!("40{{\"x\":\"{}\"}}", "x".repeat(10_000_000))).await;
    assert_eq!(large.closed().await.code, 1009);
    // No attachment comes, and none is awaited.
    honest.client.say(r#"451-["bin",{"_placeholder":true,"num":0}]"#).await;
    honest.client.say(r#"420["ask",1]"#).await;
    honest.client.say("40/none,").await;
    assert_eq!(honest.client.hear().await, r#"44/none,{"message":"Invalid namespace"}"#);
    let shop = sdk(&cluster).await;
    shop.send(To::group("news"), Payload::event("e", "1")).await.unwrap();
    assert_eq!(honest.hear().await, json!(["e", "news", 1]));
}
