//! What strangers can do with Socket.IO, beside two honest clients that go on whispering all the time.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use broadgate_business::cluster::{Audience as To, Payload};
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    flood::METRICS,
    harness::*,
    metrics::scrape,
    pusher::sdk,
    socketio::{Io, Laravel, http},
};

/// A whisper takes milliseconds, and some seconds on a machine that has much else to do.
const STALL_MAX: Duration = Duration::from_secs(15);

/// Two clients, of both versions and at both gateways, that whisper to each other.
struct Honest {
    stop: Arc<AtomicBool>,
    going: JoinHandle<(u32, Duration)>,
}

impl Honest {
    async fn start(cluster: &Cluster) -> Self {
        let mut ann = Io::connect(cluster, 0, 4).await;
        let mut bob = Io::connect(cluster, 1, 3).await;
        for client in [&mut ann, &mut bob] {
            client.subscribe("private-honest", "ann").await;
            client.has_subscribed().await;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let going = tokio::spawn(async move {
            let (mut rounds, mut worst) = (0, Duration::ZERO);
            while !stopped.load(Ordering::Relaxed) {
                rounds += 1;
                let began = Instant::now();
                whisper(&mut ann, &mut bob, rounds).await;
                whisper(&mut bob, &mut ann, rounds).await;
                worst = worst.max(began.elapsed());
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            (rounds, worst)
        });
        Self { stop, going }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (rounds, worst) = self.going.await.expect("every whisper came");
        println!("honest clients: {rounds} rounds, worst {worst:?}");
        assert!(rounds > 50 && worst < STALL_MAX, "{rounds} rounds, worst {worst:?}");
    }
}

async fn whisper(from: &mut Io, to: &mut Io, number: u32) {
    let event = json!({"channel": "private-honest", "event": "client-n", "data": number});
    from.say("client event", event).await;
    assert_eq!(to.hear().await, json!(["client-n", "private-honest", number]));
}

fn url(cluster: &Cluster, rest: &str) -> String {
    format!("ws://{}/socket.io/?transport=websocket&{rest}", cluster.web(0))
}

/// Says this, and then answers pings or does nothing at all, until it is closed: after how long, and whether the
/// close had a code.
fn idle(cluster: &Cluster, query: &str, first: &[&'static str], pongs: bool) -> JoinHandle<(Duration, bool)> {
    let (url, first) = (url(cluster, query), first.to_vec());
    tokio::spawn(async move {
        let mut client = Client::connect(&url).await;
        let began = Instant::now();
        for frame in first {
            client.say(frame).await;
        }
        loop {
            match soon("the idle client is closed", client.socket.next()).await {
                Some(Ok(Message::Text(text))) if pongs && text.as_str() == "2" => client.say("3").await,
                Some(Ok(Message::Text(_))) => {}
                Some(Ok(Message::Close(frame))) => return (began.elapsed(), frame.is_some()),
                other => panic!("no close frame: {other:?}"),
            }
        }
    })
}

#[tokio::test]
async fn abuse_harms_only_who_does_it() {
    let laravel = Laravel::start().await;
    let apps = laravel.apps();
    // Pages of this origin belong to an application that is down.
    let nobody = free_address();
    let apps =
        format!("{apps}by_origin = [{{ origin = \"https://dead.example\", url = \"http://{nobody}/\" }}]\n");
    let cluster = Cluster::quiet(2).more(&format!("{apps}{METRICS}")).start().await;
    let honest = Honest::start(&cluster).await;
    // These take 45 s; everything else happens meanwhile.
    let idle = [
        ("connects to no namespace", idle(&cluster, "EIO=4", &[], true)),
        ("connects to another namespace", idle(&cluster, "EIO=4", &["40/none,"], true)),
        ("does not finish its upgrade", idle(&cluster, "EIO=4&sid=0.5", &["2probe"], true)),
        ("says nothing", idle(&cluster, "EIO=4", &[], false)),
        ("does not answer pings", idle(&cluster, "EIO=4", &["40"], false)),
        ("does not ping", idle(&cluster, "EIO=3", &[], false)),
    ];
    wrong_packets(&cluster).await;
    attachments_that_never_come(&cluster).await;
    lying_ids(&cluster).await;
    smuggled_headers(&cluster, &laravel).await;
    failing_backends(&cluster).await;
    many_subscriptions(&cluster, &laravel).await;
    polling_flood(&cluster).await;
    for (who, idle) in idle {
        let (after, with_code) = idle.await.unwrap();
        assert!(after > Duration::from_secs(40) && !with_code, "{who}: closed after {after:?} {with_code}");
    }
    honest.end().await;
    counted(&cluster).await;
}

/// What no client of the protocol sends ends the one that sends it, or has no effect.
async fn wrong_packets(cluster: &Cluster) {
    let deep = format!("42[\"subscribe\",{}", "[".repeat(50_000));
    let mut breaches = vec![("EIO=4", Message::text(deep)), ("EIO=4", Message::binary(vec![4, 1, 2]))];
    let texts =
        ["", "0{}", "7", "\u{e9}", "4", "47", "42", "42[]", "42[1]", "42{\"0\":\"subscribe\"}", "451["];
    breaches.extend(texts.map(|text| ("EIO=3", Message::text(text))));
    breaches.extend(["42[\"a\"]", "40[]", "401", "2"].map(|text| ("EIO=4", Message::text(text))));
    breaches.extend(["40", "42[\"a\"]"].map(|text| ("EIO=4&sid=0.5", Message::text(text))));
    for (query, frame) in breaches {
        let mut client = Client::connect(&url(cluster, query)).await;
        let shown = format!("{query} {:.40}", format!("{frame:?}"));
        futures_util::SinkExt::send(&mut client.socket, frame).await.unwrap();
        assert_eq!(client.closed().await.code, 1006, "{shown}: without a code");
    }
    // Not UTF-8.
    let mut client = Client::connect(&url(cluster, "EIO=4")).await;
    client.raw(&[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28]).await;
    assert_eq!(client.closed().await.code, 1007);
    let mut client = Io::connect(cluster, 0, 4).await;
    for argument in [
        json!(null),
        json!(7),
        json!([]),
        json!("no JSON"),
        json!({}),
        json!({"channel": 7}),
        json!({"channel": null, "event": {}, "data": []}),
    ] {
        for event in ["subscribe", "unsubscribe", "client event", "connect", "disconnect", "error", ""] {
            client.say(event, argument.clone()).await;
        }
    }
    let auths = [json!(7), json!([]), json!({"headers": 7}), json!({"headers": ["a"]})];
    for (number, auth) in auths.into_iter().chain([json!({"headers": {"Authorization": {}}})]).enumerate() {
        let channel = format!("private-{number}");
        client.say("subscribe", json!({"channel": channel, "auth": auth})).await;
        assert_eq!(client.hear().await, json!(["subscription_error", channel, 403]));
    }
    let long = "x".repeat(300);
    client.subscribe(&long, "").await;
    assert_eq!(client.hear().await, json!(["subscription_error", long, 400]));
    client.has_subscribed().await;
}

async fn attachments_that_never_come(cluster: &Cluster) {
    let mut client = Io::connect(cluster, 0, 4).await;
    for _ in 0..500 {
        client.client.say(r#"4599-["bin",{"_placeholder":true,"num":0}]"#).await;
    }
    client.client.say("461-7[{}]").await;
    futures_util::SinkExt::send(&mut client.client.socket, Message::binary(vec![1; 10_000])).await.unwrap();
    client.has_subscribed().await;
}

/// An id that is another client's brings nothing: neither that client's place nor what it is spared.
async fn lying_ids(cluster: &Cluster) {
    let mut victim = Io::come_over(cluster, 3).await;
    let mut with_websocket = Io::connect(cluster, 1, 4).await;
    for id in [&*with_websocket.id, "0.00", "x", "0.99999999999999999999"] {
        for (method, transport) in [("GET", "polling"), ("POST", "polling"), ("UPGRADE", "websocket")] {
            let query = format!("/socket.io/?EIO=3&transport={transport}&sid={id}");
            let (_, body) = http(cluster.web(0), method, &query, "").await;
            assert_eq!(body, r#"{"code":1,"message":"Session ID unknown"}"#, "{method} {id}");
        }
    }
    let mut thief = Client::connect(&url(cluster, &format!("EIO=3&sid={}", victim.id))).await;
    thief.say("2probe").await;
    thief.hears(&["3probe"]).await;
    thief.say("5").await;
    thief.hears(&["40"]).await;
    thief.say(r#"42["subscribe",{"channel":"news"}]"#).await;
    thief.say(r##"42["subscribe",{"channel":"#"}]"##).await;
    thief.hears(&[r##"42["subscription_error","#",403]"##]).await;
    for client in [&mut victim, &mut with_websocket] {
        client.subscribe("news", "").await;
        client.has_subscribed().await;
    }
    let body = json!({"name": "e", "data": "1", "channel": "news", "socket_id": victim.id}).to_string();
    let answer = crate::backends::call(cluster, 0, "POST", "/events", "", "", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(with_websocket.hear().await, json!(["e", "news", 1]));
    victim.has_subscribed().await;
    // The thief goes; the id is still the victim's.
    drop(thief);
    let shop = sdk(cluster).await;
    shop.send(To::group("news"), Payload::event("e", "2")).await.unwrap();
    assert_eq!(victim.hear().await, json!(["e", "news", 2]));
}

/// Laravel gets from a client what it may pass on, and nothing that would change the request.
async fn smuggled_headers(cluster: &Cluster, laravel: &Laravel) {
    let url = url(cluster, "EIO=3");
    let long = format!("c={}", "x".repeat(12_000));
    let headers = [("Cookie", &*long), ("X-Forwarded-For", "192.0.2.66"), ("X-Evil", "evil")];
    let mut client = Client::try_connect(&url, &headers).await.unwrap();
    client.hear().await;
    client.hears(&["40"]).await;
    let headers = json!({
        "Authorization": "Bearer ann",
        "Host": "evil.example",
        "Content-Length": "0",
        "Content-Type": "text/evil",
        "Transfer-Encoding": "chunked",
        "Connection": "evil",
        "Expect": "100-continue",
        "X-Forwarded-For": "192.0.2.66",
        "X-Forwarded-Host": "evil.example",
        "X-Real-IP": "192.0.2.66",
        "X-Evil": "evil",
        "X-CSRF-TOKEN": "a\r\nX-Evil: evil",
        "X-XSRF-TOKEN": "a\nX-Evil: evil",
        "Cookie\r\nX-Evil": "evil",
        "Authorization ": "Bearer evil",
        ":authority": "evil.example",
    });
    let subscribe = json!(["subscribe", {"channel": "private-smuggled", "auth": {"headers": headers}}]);
    client.say(&format!("42{subscribe}")).await;
    client.say(r##"42["subscribe",{"channel":"#"}]"##).await;
    client.hears(&[r##"42["subscription_error","#",403]"##]).await;
    let asked = laravel.asked().into_iter().find(|asked| asked.contains("private-smuggled")).unwrap();
    let asked = asked.to_lowercase();
    for word in ["evil", "192.0.2.66", "chunked", "100-continue", "xxxx", "x-csrf-token", "x-real-ip"] {
        assert!(!asked.contains(word), "{word}: {asked}");
    }
    for line in ["content-length: ", "host: ", "content-type: application/x-www-form-urlencoded\r\n"] {
        assert_eq!(asked.matches(line).count(), 1, "{line}: {asked}");
    }
    assert!(asked.contains("x-forwarded-for: 127.0.0.1\r\n") && asked.contains("bearer ann"), "{asked}");
}

/// Whatever the application does instead of answering costs the subscription, and after its time limit.
async fn failing_backends(cluster: &Cluster) {
    let dead = [("Origin", "https://dead.example")];
    let mut dead = Client::try_connect(&url(cluster, "EIO=3"), &dead).await.unwrap();
    dead.hear().await;
    dead.hears(&["40"]).await;
    dead.say(r#"42["subscribe",{"channel":"private-x"}]"#).await;
    dead.hears(&[r#"42["subscription_error","private-x",0]"#]).await;
    let mut waiting = Vec::new();
    for _ in 0..40 {
        let mut client = Io::connect(cluster, 0, 4).await;
        client.subscribe("private-slow", "ann").await;
        waiting.push(client);
    }
    // More than are asked at once: neither public channels nor whispers wait for them.
    let mut other = Io::connect(cluster, 0, 4).await;
    other.subscribe("news", "").await;
    other.has_subscribed().await;
    for (number, client) in waiting.iter_mut().enumerate() {
        let heard = client.hear().await;
        let (slow, busy) = (json!(0), json!(503));
        assert!(heard[1] == "private-slow" && [&slow, &busy].contains(&&heard[2]), "{number}: {heard}");
    }
    for (channel, status) in [
        ("private-login", 302),
        ("private-broken", 500),
        ("private-page", 502),
        ("private-nothing", 502),
        ("private-endless", 502),
        ("private-cut", 0),
    ] {
        other.subscribe(channel, "ann").await;
        assert_eq!(other.hear().await, json!(["subscription_error", channel, status]));
    }
}

/// Ten thousand at once: what is beyond the limits is refused, and a client that goes asks nothing more.
async fn many_subscriptions(cluster: &Cluster, laravel: &Laravel) {
    let mut client = Io::connect(cluster, 0, 4).await;
    let mut all = Vec::new();
    for number in 0..10_000 {
        let text = format!("42[\"subscribe\",{{\"channel\":\"many-{number}\"}}]");
        all.extend_from_slice(&[0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0]);
        all.extend_from_slice(text.as_bytes());
    }
    // It reads while it writes, as a browser does.
    let mut refused = 0;
    let mut written = 0;
    while written < all.len() {
        let next = (written + 50_000).min(all.len());
        client.client.raw(&all[written..next]).await;
        written = next;
        while let Ok(Some(Ok(message))) =
            tokio::time::timeout(Duration::from_millis(20), client.client.socket.next()).await
        {
            refused += u32::from(message.to_text().is_ok_and(|text| text.contains("subscription_error")));
        }
    }
    client.subscribe("#", "").await;
    loop {
        let heard = client.hear().await;
        if heard[1] == "#" {
            break;
        }
        assert!([429, 403].contains(&heard[2].as_u64().unwrap()), "{heard}");
        refused += 1;
    }
    println!("{refused} of 10,000 subscriptions were refused");
    assert!(refused > 1_000, "{refused}");
    let mut asking = Io::connect(cluster, 0, 4).await;
    for number in 0..200 {
        asking.subscribe(&format!("private-asking-{number}"), "ann").await;
    }
    let asked = || laravel.asked().iter().filter(|asked| asked.contains("private-asking-")).count();
    until("Laravel is asked", async || (asked() > 0).then_some(())).await;
    drop(asking);
    // What it had sent may still be decided, but not after its end was read.
    let began = Instant::now();
    let mut before = 0;
    while std::mem::replace(&mut before, asked()) != before {
        assert!(began.elapsed() < GENEROUS, "Laravel is asked for a client that is gone");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn polling_flood(cluster: &Cluster) {
    let floods = (0..16).map(|number| {
        let to: SocketAddr = cluster.web(number % 2);
        tokio::spawn(async move {
            for round in 0..60 {
                let version = 3 + round % 2;
                let at = format!("/socket.io/?EIO={version}&transport=polling");
                let (head, body) = http(to, "GET", &at, "").await;
                assert!(head.starts_with("HTTP/1.1 200"), "{head}");
                let sid = body.split("\"sid\":\"").nth(1).unwrap().split('"').next().unwrap();
                let posted = "x".repeat(if round % 10 == 0 { 60_000 } else { 2 });
                assert_eq!(http(to, "POST", &format!("{at}&sid={sid}"), &posted).await.1, "ok");
                if round % 10 == 0 {
                    let noop = if version == 3 { "1:6" } else { "6" };
                    assert_eq!(http(to, "GET", &format!("{at}&sid={sid}"), "").await.1, noop);
                }
            }
        })
    });
    for flood in floods.collect::<Vec<_>>() {
        flood.await.unwrap();
    }
}

/// Every refusal and every close has its reason in the metrics.
async fn counted(cluster: &Cluster) {
    let metrics = cluster.gateways[0].logged("metrics and probes address=").await.parse().unwrap();
    let text = scrape(metrics).await;
    let expected = |name: &str, label: &str, values: &[&str]| {
        values.iter().map(|value| format!("{name}{{{label}=\"{value}\"}} ")).collect::<Vec<_>>()
    };
    let gateway = "broadgate_gateway";
    for line in [
        expected(
            &format!("{gateway}_refused_total"),
            "reason",
            &["subscription", "authorization", "socketio"],
        ),
        expected(&format!("{gateway}_clients_closed_total"), "cause", &["protocol", "silent"]),
        expected(&format!("{gateway}_socketio_ignored_total"), "reason", &["binary", "argument"]),
        expected(
            &format!("{gateway}_socketio_handshakes_total"),
            "step",
            &["polling", "upgrade", "websocket"],
        ),
        expected(
            &format!("{gateway}_authorizations_total"),
            "outcome",
            &["allowed", "refused", "redirect", "answer", "connect", "too_long", "broken", "timeout"],
        ),
        expected(&format!("{gateway}_drops_total"), "reason", &["rate"]),
    ]
    .concat()
    {
        let count = text.lines().find_map(|found| found.strip_prefix(&*line)?.parse::<f64>().ok());
        assert!(count.is_some_and(|count| count > 0.0), "{line}: {count:?}");
    }
}
