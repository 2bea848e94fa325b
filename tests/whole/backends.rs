//! The HTTP API of backends: what its answers promise, also when a gateway stands still.

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use md5::{Digest as _, Md5};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    harness::*,
    pusher::{APPS, Key, Pusher, SHOP_KEY, sign_with},
};

/// What a backend was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// A signed request to a gateway's client port.
pub async fn call(
    cluster: &Cluster,
    gateway: usize,
    method: &str,
    path: &str,
    query: &str,
    headers: &str,
    body: &str,
) -> Answer {
    call_with(SHOP_KEY, cluster.web(gateway), method, path, query, headers, body).await
}

/// The same with a key of its own, without a cluster at hand.
pub async fn call_with(
    key: Key,
    web: SocketAddr,
    method: &str,
    path: &str,
    query: &str,
    headers: &str,
    body: &str,
) -> Answer {
    let path = format!("/apps/shop{path}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let md5: String = Md5::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut params = vec![format!("auth_key={}&auth_timestamp={now}&auth_version=1.0", key.0)];
    if !body.is_empty() {
        params.push(format!("body_md5={md5}"));
    }
    params.extend((!query.is_empty()).then(|| query.to_owned()));
    let params = params.join("&");
    let signature = sign_with(key, &format!("{method}\n{path}\n{params}"));
    let signature = signature.split_once(':').unwrap().1;
    let request = format!(
        "{method} {path}?{params}&auth_signature={signature} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(web).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("the answer comes", stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// Publishes to channels, with a key or without.
async fn publish(
    cluster: &Cluster,
    gateway: usize,
    channels: &[&str],
    data: &str,
    key: Option<&str>,
) -> Answer {
    let body = json!({ "name": "e", "channels": channels, "data": data }).to_string();
    let header = key.map(|key| format!("X-Idempotency-Key: {key}\r\n")).unwrap_or_default();
    call(cluster, gateway, "POST", "/events", "", &header, &body).await
}

/// The data of the events that a client gets, up to this one.
async fn heard_until(pusher: &mut Pusher, last: &str) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        let event = pusher.hear().await;
        assert_eq!(event["event"], "e", "{event}");
        let data = event["data"].as_str().unwrap().to_owned();
        if data == last {
            return heard;
        }
        heard.push(data);
    }
}

#[tokio::test]
async fn idempotency_key_identifies_one_publish() {
    let cluster = Cluster::quiet(2).more(APPS).start().await;
    let mut pusher = Pusher::connect(&cluster, 0).await;
    pusher.subscribe("room").await;
    for (gateway, channels, data, key, status) in [
        (0, &["room"][..], "a", Some(""), 200),
        (0, &["room"], "b", Some(""), 200),
        (1, &["room"], "c", Some("k1"), 200),
        // A repeat, by the way of another gateway.
        (0, &["room"], "c", Some("k1"), 200),
        (0, &["room"], "other data", Some("k1"), 422),
        (1, &["other channel".trim_end_matches(" channel")], "c", Some("k1"), 422),
        (1, &["room", "more"], "c", Some("k1"), 422),
        // Also where nobody has heard the first one.
        (0, &["empty"], "x", Some("k2"), 200),
        (1, &["empty"], "y", Some("k2"), 422),
        (0, &["room"], "d", None, 200),
        (0, &["room"], "d", None, 200),
    ] {
        let answer = publish(&cluster, gateway, channels, data, key).await;
        assert_eq!(answer.status, status, "{data} {key:?}: {answer:?}");
    }
    publish(&cluster, 0, &["room"], "end", None).await;
    assert_eq!(heard_until(&mut pusher, "end").await, ["a", "b", "c", "d", "d"]);
    let long = publish(&cluster, 0, &["room"], "x", Some(&"k".repeat(51))).await;
    assert_eq!((long.status, long.body.contains("at most 50")), (400, true), "{long:?}");
}

/// A publish that may have missed somebody is not called done, and reaches who was missed when it is
/// repeated, and nobody twice.
#[tokio::test]
async fn publish_past_a_stopped_gateway_is_incomplete() {
    // The stopped gateway stays in the view.
    let cluster = Cluster::quiet(2).register("lease = \"60s\"").more(APPS).start().await;
    let (mut here, mut there) = (Pusher::connect(&cluster, 0).await, Pusher::connect(&cluster, 1).await);
    for pusher in [&mut here, &mut there] {
        pusher.subscribe("room").await;
    }
    assert_eq!(publish(&cluster, 0, &["room"], "before", None).await.status, 200);
    cluster.gateways[1].signal("STOP");
    let with_key = publish(&cluster, 0, &["room"], "keyed", Some("k")).await;
    let without = publish(&cluster, 0, &["room"], "keyless", None).await;
    let channels = call(&cluster, 0, "GET", "/channels", "", "", "").await;
    let users = call(&cluster, 0, "GET", "/channels/presence-x/users", "", "", "").await;
    cluster.gateways[1].signal("CONT");
    for answer in [&with_key, &without, &channels] {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.head.contains("retry-after: "), "{answer:?}");
    }
    assert!(users.status == 503 || users.status == 200, "{users:?}");
    assert!(with_key.body.contains("repeat with the same"), "{with_key:?}");
    until("a repeat reaches everybody", async || {
        let answer = publish(&cluster, 0, &["room"], "keyed", Some("k")).await;
        (answer.status == 200).then_some(())
    })
    .await;
    until("a publish reaches everybody", async || {
        (publish(&cluster, 0, &["room"], "end", None).await.status == 200).then_some(())
    })
    .await;
    for pusher in [&mut here, &mut there] {
        let heard = heard_until(pusher, "end").await;
        assert_eq!(heard.iter().filter(|data| *data == "keyed").count(), 1, "{heard:?}");
    }
}

/// The list of all channels, in pages from all gateways, each channel once.
#[tokio::test]
async fn channel_list_is_complete() {
    let cluster = Cluster::quiet(2).more(APPS).start().await;
    let mut clients = [Pusher::connect(&cluster, 0).await, Pusher::connect(&cluster, 1).await];
    for (index, client) in clients.iter_mut().enumerate() {
        for number in 0..700 {
            client.subscribe(&format!("room-{index}-{number}")).await;
        }
        client.subscribe("both").await;
    }
    let all = async |query: &str| {
        let answer = call(&cluster, 1, "GET", "/channels", query, "", "").await;
        let list: Value = serde_json::from_str(&answer.body).unwrap();
        list["channels"].as_object().unwrap().clone()
    };
    let list = all("info=subscription_count").await;
    assert_eq!((list.len(), &list["both"]["subscription_count"]), (1401, &json!(2)));
    assert_eq!(all("filter_by_prefix=room-1-").await.len(), 700);
    assert_eq!(all("filter_by_prefix=none").await.len(), 0);
}
