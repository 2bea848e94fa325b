//! Apps whose backends publish through Redis, with a stub of Redis: what a real one cannot be made to do, and what is
//! the same with every one. Real ones, alone and in a cluster, are in `tests/redis`.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};

use crate::{
    apps::{replace, told},
    harness::*,
    pusher::{self, Pusher},
};

/// What a stub says to every connection before anything else, and then no more.
type Greeting = Option<&'static str>;

/// A subscriber's connection: its patterns, and what is sent to it.
struct Subscriber {
    patterns: Arc<Mutex<Vec<String>>>,
    out: mpsc::UnboundedSender<Vec<u8>>,
}

#[derive(Default)]
struct Shared {
    subscribers: Mutex<Vec<Subscriber>>,
    commands: Mutex<Vec<String>>,
}

/// A stub of Redis, as far as subscribers need it. Its connections end with it.
pub struct FakeRedis {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl FakeRedis {
    pub async fn start() -> Self {
        Self::at(free_address(), None).await
    }

    async fn at(address: SocketAddr, greeting: Greeting) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let shared = Arc::new(Shared::default());
        let (mut tasks, serving) = (JoinSet::new(), Arc::clone(&shared));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&serving), greeting));
            }
        });
        Self { address, shared, _tasks: tasks }
    }

    /// An app that reads here.
    pub fn app(&self, id: &str, prefix: &str) -> String {
        app(id, prefix, self.address)
    }

    /// As Redis does it: to every connection, once for each of its patterns that fits.
    pub fn publish(&self, channel: &str, payload: &str) {
        for Subscriber { patterns, out } in &*self.shared.subscribers.lock().unwrap() {
            for pattern in patterns.lock().unwrap().iter() {
                if channel.starts_with(pattern.trim_end_matches('*')) {
                    let _ = out.send(array(&["pmessage", pattern, channel, payload]));
                }
            }
        }
    }

    fn commands(&self) -> Vec<String> {
        self.shared.commands.lock().unwrap().clone()
    }
}

fn app(id: &str, prefix: &str, at: SocketAddr) -> String {
    format!(
        "[[apps]]\nid = \"{id}\"\nraw = true\nsocketio = true\n[[apps.keys]]\nkey = \"{id}-key\"\n\
         secret = \"secret-of-the-shop\"\n[apps.redis]\nurl = \"redis://{at}\"\nprefix = \"{prefix}\"\n"
    )
}

fn array(parts: &[&str]) -> Vec<u8> {
    let text = parts.iter().map(|part| format!("${}\r\n{part}\r\n", part.len()));
    format!("*{}\r\n{}", parts.len(), text.collect::<String>()).into_bytes()
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, greeting: Greeting) {
    let (mut read, mut write) = stream.into_split();
    if let Some(greeting) = greeting {
        let _ = read.readable().await;
        let _ = write.write_all(greeting.as_bytes()).await;
        if greeting.is_empty() {
            return;
        }
    }
    let patterns = Arc::new(Mutex::new(Vec::new()));
    // What the test publishes; the test itself bounds it.
    let (out, mut outgoing) = mpsc::unbounded_channel::<Vec<u8>>();
    let subscriber = Subscriber { patterns: Arc::clone(&patterns), out: out.clone() };
    shared.subscribers.lock().unwrap().push(subscriber);
    let mut received = Vec::new();
    loop {
        tokio::select! {
            bytes = outgoing.recv() => if write.write_all(&bytes.unwrap()).await.is_err() { return },
            count = read.read_buf(&mut received) => {
                if count.unwrap_or(0) == 0 {
                    return;
                }
                if greeting.is_some() {
                    received.clear();
                    continue;
                }
                while let Some(command) = command(&mut received) {
                    shared.commands.lock().unwrap().push(command.join(" "));
                    let mut patterns = patterns.lock().unwrap();
                    let answer = match &*command[0] {
                        "PSUBSCRIBE" => {
                            patterns.push(command[1].clone());
                            [&array(&["psubscribe", &command[1]])[..], b":1\r\n"].concat()
                        }
                        "PUNSUBSCRIBE" => {
                            patterns.retain(|pattern| *pattern != command[1]);
                            [&array(&["punsubscribe", &command[1]])[..], b":1\r\n"].concat()
                        }
                        "PING" => array(&["pong", ""]),
                        _ => b"+OK\r\n".to_vec(),
                    };
                    // Both have one element more.
                    let answer = String::from_utf8(answer).unwrap();
                    let answer = if answer.ends_with(":1\r\n") { answer.replacen("*2", "*3", 1) } else { answer };
                    out.send(answer.into_bytes()).unwrap();
                }
            }
        }
    }
}

/// The first whole command, which is removed.
fn command(received: &mut Vec<u8>) -> Option<Vec<String>> {
    let text = String::from_utf8(received.clone()).unwrap();
    let mut lines = text.split_inclusive("\r\n");
    let mut next = || lines.next().filter(|line| line.ends_with("\r\n"));
    let head = next()?;
    let mut len = head.len();
    let mut parts = Vec::new();
    for _ in 0..head[1..].trim().parse().unwrap() {
        let (size, part) = (next()?, next()?);
        len += size.len() + part.len();
        parts.push(part.trim_end().to_owned());
    }
    received.drain(..len);
    Some(parts)
}

/// Until every gateway's reader of the app is connected, or is not.
pub async fn readers(cluster: &Cluster, app: &str, connected: bool) {
    until("the readers' states", async || {
        let status = cluster.status(0).await?;
        let mut readers =
            status.gateways.iter().map(|gateway| gateway.redis_readers.iter().find(|one| one.app == app));
        readers.all(|reader| reader.is_some_and(|reader| reader.connected == connected)).then_some(())
    })
    .await
}

pub fn event(number: u32, socket: &Value) -> (String, String) {
    let data = format!(r#"{{"n":{number},"text":{{"h\u00e9llo":1.50}},"socket":{socket}}}"#);
    (format!(r#"{{"event":"App\\Events\\News","data":{data},"socket":{socket}}}"#), data)
}

/// Clients at both gateways, in channels with either home: each message once, in order, its data as it was.
#[tokio::test]
async fn every_client_gets_each_message_once() {
    let redis = FakeRedis::start().await;
    let cluster = Cluster::quiet(2).more(&redis.app("shop", "laravel-database-")).start().await;
    cluster.synced().await;
    readers(&cluster, "shop", true).await;
    let channels = ["a", "b", "c", "d", "e", "f"].map(|name| format!("room.{name}"));
    let mut clients = [Pusher::connect(&cluster, 0).await, Pusher::connect(&cluster, 1).await];
    for client in &mut clients {
        for channel in &channels {
            client.subscribe(channel).await;
        }
    }
    let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket&key=shop-key", cluster.web(1));
    let mut io = Client::connect(&url).await;
    io.hear().await;
    io.say("40").await;
    io.hear().await;
    // No Pusher client may be in a channel of such a name.
    io.say(r##"42["subscribe",{"channel":"orders: 1"}]"##).await;
    io.say(r##"42["subscribe",{"channel":"room.a"}]"##).await;
    io.say(r##"42["subscribe",{"channel":"#"}]"##).await;
    assert_eq!(io.hear().await, r##"42["subscription_error","#",403]"##);

    for number in 0..30 {
        let channel = &channels[number as usize % channels.len()];
        redis.publish(&format!("laravel-database-{channel}"), &event(number, &Value::Null).0);
    }
    for client in &mut clients {
        let mut heard = vec![Vec::new(); channels.len()];
        for _ in 0..30 {
            let frame = client.hear().await;
            assert_eq!(frame["event"], "App\\Events\\News");
            let index = channels.iter().position(|channel| frame["channel"] == **channel).unwrap();
            heard[index].push(frame["data"].as_str().unwrap().to_owned());
        }
        for (index, heard) in heard.iter().enumerate() {
            let expected: Vec<_> =
                (0..5).map(|round| event(round * 6 + index as u32, &Value::Null).1).collect();
            assert_eq!(*heard, expected);
        }
    }
    for round in 0..5 {
        let (_, data) = event(round * 6, &Value::Null);
        io.hears(&[&format!("42[\"App\\\\Events\\\\News\",\"room.a\",{data}]")]).await;
    }

    // All but one; what is no message disturbs nothing.
    let (payload, data) = event(30, &json!(clients[0].socket_id));
    for nonsense in ["", "no JSON", "[1]", "{\"event\":7}"] {
        redis.publish("laravel-database-room.a", nonsense);
    }
    redis.publish("laravel-database-room.a", &payload);
    assert_eq!(clients[1].hear().await["data"], *data);
    io.hears(&[&format!("42[\"App\\\\Events\\\\News\",\"room.a\",{data}]")]).await;
    redis.publish("laravel-database-orders: 1", r#"{"event":"e","data":"text","socket":null}"#);
    io.hears(&[r#"42["e","orders: 1","text"]"#]).await;
    redis.publish("laravel-database-room.a", r#"{"event":"last","data":null,"socket":null}"#);
    for client in &mut clients {
        assert_eq!(client.hear().await, json!({"event": "last", "channel": "room.a", "data": "null"}));
    }
    let logs = format!("{}{}", cluster.gateways[0].log(), cluster.gateways[1].log());
    assert!(logs.contains("reason=\"unparsable\""), "{logs}");
    let (code, out, _) = cluster.run(&["status"]);
    assert_eq!((code, out.matches(&format!("redis://{}", redis.address)).count()), (0, 2), "{out}");
}

/// Redis that goes away and comes back; settings that are changed and removed while the gateway runs.
#[tokio::test]
async fn reader_reconnects_and_follows_the_settings() {
    let first = FakeRedis::start().await;
    let cluster = Cluster::quiet(1).start().await;
    let (config, apps) = (cluster.dir.join("gateway-1.toml"), cluster.dir.join("apps.toml"));
    let plain = std::fs::read_to_string(&config).unwrap();
    replace(&apps, &first.app("shop", "x-"));
    replace(&config, &format!("apps_file = {:?}\n{plain}", apps.display().to_string()));
    told(&cluster.gateways[0], 0).await;
    readers(&cluster, "shop", true).await;
    let mut client = Pusher::connect(&cluster, 0).await;
    client.subscribe("news").await;
    first.publish("x-news", &event(1, &Value::Null).0);
    assert_eq!(pusher::data(&client.hear().await)["n"], 1);

    let address = first.address;
    drop(first);
    readers(&cluster, "shop", false).await;
    let (code, out, _) = cluster.run(&["status"]);
    assert!(
        code == 0 && out.contains("not connected") && out.contains("what is published meanwhile is lost"),
        "{out}"
    );
    let again = FakeRedis::at(address, None).await;
    readers(&cluster, "shop", true).await;
    again.publish("x-news", &event(2, &Value::Null).0);
    assert_eq!(pusher::data(&client.hear().await)["n"], 2);

    let other = FakeRedis::start().await;
    replace(&apps, &other.app("shop", "y-"));
    told(&cluster.gateways[0], 1).await;
    until("it reads the other", async || {
        other.publish("y-news", &event(3, &Value::Null).0);
        other.commands().contains(&"PSUBSCRIBE y-*".to_owned()).then_some(())
    })
    .await;
    readers(&cluster, "shop", true).await;
    other.publish("y-news", &event(4, &Value::Null).0);
    while pusher::data(&client.hear().await)["n"] != 4 {}
    again.publish("x-news", &event(5, &Value::Null).0);

    // Without the section, or disabled, nothing is read.
    let without = other.app("shop", "y-").split("[apps.redis]").next().unwrap().to_owned();
    replace(&apps, &without);
    told(&cluster.gateways[0], 2).await;
    until("no reader is left", async || {
        cluster.status(0).await?.gateways[0].redis_readers.is_empty().then_some(())
    })
    .await;
}

/// Each thing that may be wrong has its line in the log, once.
#[tokio::test]
async fn what_is_wrong_is_said() {
    let mut apps = String::new();
    let mut stubs = Vec::new();
    for (id, greeting) in [
        ("password", "-NOAUTH Authentication required.\r\n"),
        ("denied", "-NOPERM No permissions to access a channel used as an argument\r\n"),
        ("web", "HTTP/1.1 400 Bad Request\r\n\r\n"),
        ("tls", "\u{15}\u{3}\u{3}"),
        ("closes", ""),
    ] {
        let stub = FakeRedis::at(free_address(), Some(greeting)).await;
        apps += &stub.app(id, "x-");
        stubs.push(stub);
    }
    apps += &app("nobody", "x-", free_address());
    let [odd, short] = [FakeRedis::start().await, FakeRedis::start().await];
    apps += &odd.app("odd", "laravel_database_");
    apps += &short.app("short", "");
    let plain = stubs[0].address;
    apps += &app("encrypted", "x-", plain).replace("redis://", "rediss://");
    let cluster = Cluster::quiet(1).more(&apps).start().await;
    let log = async |words: &str| {
        until("a line of the log", async || {
            let log = cluster.gateways[0].log();
            log.lines().find(|line| line.contains(words)).map(str::to_owned)
        })
        .await
    };
    for (app, words) in [
        ("password", "it requires a password: set password_file"),
        ("denied", "ACL SETUSER default +psubscribe +ping &x-*"),
        ("web", "it is no Redis: it answers"),
        ("tls", "it answers with TLS: url must begin with rediss://"),
        ("closes", "it closed the connection without an answer: if this port is for TLS"),
        ("nobody", "it cannot be reached: Connection refused"),
        ("encrypted", "it does not speak TLS at this port: url must begin with redis://"),
    ] {
        let line = log(words).await;
        assert!(line.contains(&format!("app={app}")), "{line}");
    }

    // A wrong prefix is found by what comes under others, a missing one by the names themselves.
    for (app, stub, channel) in
        [("odd", &odd, "laravel-database-private-a"), ("short", &short, "laravel-database-private-a")]
    {
        readers(&cluster, app, true).await;
        until("the prefix is found", async || {
            stub.publish(channel, &event(1, &Value::Null).0);
            let status = cluster.status(0).await?;
            let reader = status.gateways[0].redis_readers.iter().find(|reader| reader.app == app)?;
            reader.trouble.contains("set prefix = \"laravel-database-\"").then_some(())
        })
        .await;
    }
    let line = log("prefix is \"laravel_database_\", but Laravel's channels in this Redis begin with").await;
    assert!(line.contains("app=odd"), "{line}");
    until("it looks out no more", async || {
        odd.commands().contains(&"PUNSUBSCRIBE *".to_owned()).then_some(())
    })
    .await;
    assert_eq!(cluster.gateways[0].log().matches("it requires a password").count(), 1, "one line a minute");
}

/// One that talks without end and never confirms the subscription is given up in time, as a silent one is.
/// Subscribed, and then a reply without an end: bytes that come are no sign of life.
#[tokio::test]
async fn reply_without_an_end_is_given_up() {
    let listener = TcpListener::bind(free_address()).await.unwrap();
    let apps = app("endless", "x-", listener.local_addr().unwrap());
    let mut talking = JoinSet::new();
    talking.spawn(async move {
        let mut streams = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            streams.spawn(async move {
                let mut received = [0; 4096];
                let _ = stream.read(&mut received).await;
                let _ = stream.write_all(b"*3\r\n$10\r\npsubscribe\r\n$3\r\nx-*\r\n:1\r\n").await;
                let _ = stream
                    .write_all(b"*4\r\n$8\r\npmessage\r\n$3\r\nx-*\r\n$3\r\nx-a\r\n$999999999\r\n")
                    .await;
                while stream.write_all(b"xxxxx").await.is_ok() {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            });
        }
    });
    let cluster = Cluster::quiet(1).more(&apps).start().await;
    readers(&cluster, "endless", true).await;
    until("the reader gives up", async || {
        let log = cluster.gateways[0].log();
        let given_up =
            |line: &str| line.contains("app=endless") && line.contains("it does not answer any more");
        log.lines().any(given_up).then_some(())
    })
    .await;
}

#[tokio::test]
async fn server_that_only_talks_is_given_up() {
    let listener = TcpListener::bind(free_address()).await.unwrap();
    let apps = app("talks", "x-", listener.local_addr().unwrap());
    let mut talking = JoinSet::new();
    talking.spawn(async move {
        let mut streams = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            streams.spawn(async move {
                while stream.write_all(b"+OK\r\n").await.is_ok() {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            });
        }
    });
    let cluster = Cluster::quiet(1).more(&apps).start().await;
    until("the reader gives up", async || {
        let log = cluster.gateways[0].log();
        log.lines()
            .any(|line| line.contains("app=talks") && line.contains("did not answer within 5 s"))
            .then_some(())
    })
    .await;
}
