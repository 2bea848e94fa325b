//! What webhooks' receivers get while gateways die. What is in a post is checked by real libraries in
//! `tests/clients`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::{
        mpsc::{UnboundedReceiver, unbounded_channel},
        watch,
    },
};

use crate::{
    harness::*,
    pusher::{APPS, Pusher},
};

/// A receiver of webhooks: what it was told, in order.
async fn receiver(address: SocketAddr) -> UnboundedReceiver<Value> {
    held_receiver(address, watch::channel(true).1).await
}

/// A receiver that answers nobody before it is opened.
async fn held_receiver(address: SocketAddr, open: watch::Receiver<bool>) -> UnboundedReceiver<Value> {
    // Another test's process may have the port for a moment.
    let listener = until("the receiver listens", async || TcpListener::bind(address).await.ok()).await;
    // What the receiver notes down; the webhooks that the test causes bound it.
    let (told, events) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (told, mut open) = (told.clone(), open.clone());
            tokio::spawn(async move {
                // The test may have ended.
                let _ = open.wait_for(|open| *open).await;
                let mut bytes = Vec::new();
                while stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.to_ascii_lowercase();
                    let length = length.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
                    if length.and_then(|length| length.parse().ok()) != Some(body.len()) {
                        continue;
                    }
                    let post: Value = serde_json::from_str(body).unwrap();
                    for event in post["events"].as_array().unwrap() {
                        let _ = told.send(event.clone());
                    }
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                    bytes.clear();
                }
            });
        }
    });
    events
}

/// Who is in which channel, as a receiver believes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Belief(BTreeMap<String, BTreeSet<String>>);

impl Belief {
    fn take(&mut self, event: &Value) {
        let text = |key: &str| event[key].as_str().unwrap().to_owned();
        let channel = text("channel");
        match event["name"].as_str().unwrap() {
            "channel_occupied" => drop(self.0.entry(channel).or_default()),
            "channel_vacated" => drop(self.0.remove(&channel)),
            "member_added" => drop(self.0.entry(channel).or_default().insert(text("user_id"))),
            "member_removed" => drop(self.0.entry(channel).or_default().remove(&text("user_id"))),
            _ => {}
        }
    }

    /// Receives events until this state is believed; returns how many came.
    async fn becomes(&mut self, what: &str, events: &mut UnboundedReceiver<Value>, wanted: &Self) -> usize {
        let mut count = 0;
        while self != wanted {
            let event = tokio::time::timeout(GENEROUS, events.recv()).await;
            let event = event.unwrap_or_else(|_| panic!("{what}: {self:?} is believed, not {wanted:?}"));
            self.take(&event.unwrap());
            count += 1;
        }
        count
    }
}

/// An app whose webhooks go to this address.
pub fn hooked(address: SocketAddr) -> String {
    format!("{APPS}[[apps.webhooks]]\nurl = \"http://{address}/\"\n")
}

/// Users lost with a gateway are reported as left, also by the successor of the home that died with them;
/// that a channel has moved is no news.
#[tokio::test]
async fn members_lost_with_a_home_are_reported_as_left() {
    let address = free_address();
    let mut events = receiver(address).await;
    let settings = Cluster::quiet(2).register("beat = \"500ms\"\nlease = \"3s\"");
    let mut cluster = settings.more(&hooked(address)).start().await;
    let mut believed = Belief::default();
    let rooms = |users: &[&str]| {
        let users: BTreeSet<String> = users.iter().map(ToString::to_string).collect();
        Belief((0..8).map(|number| (format!("presence-{number}"), users.clone())).collect())
    };
    let (mut ann, mut cid) = (Pusher::connect(&cluster, 0).await, Pusher::connect(&cluster, 1).await);
    let mut both = rooms(&["ann", "cid"]);
    for number in 0..8 {
        ann.join(&format!("presence-{number}"), "ann").await;
    }
    for number in 0..8 {
        cid.join(&format!("presence-{number}"), "cid").await;
        cid.subscribe(&format!("alone-{number}")).await;
        both.0.insert(format!("alone-{number}"), BTreeSet::new());
    }
    believed.becomes("all have come", &mut events, &both).await;
    // Half of the channels have their home there, or so.
    cluster.gateways[1].kill();
    let told = believed.becomes("cid is lost", &mut events, &rooms(&["ann"])).await;
    let mut bob = Pusher::connect(&cluster, 0).await;
    for number in 0..8 {
        bob.join(&format!("presence-{number}"), "bob").await;
    }
    let joined = believed.becomes("bob has come", &mut events, &rooms(&["ann", "bob"])).await;
    println!("{told} events told of 16 that had happened, then {joined} of 8: at least once");
}

/// What waits for an endpoint is sent after the gateway was killed and started again.
#[tokio::test]
async fn spooled_events_survive_a_kill() {
    let address = free_address();
    let mut cluster = Cluster::quiet(1).more(&hooked(address)).spooled().start().await;
    std::fs::create_dir_all(cluster.spool()).unwrap();
    Pusher::connect(&cluster, 0).await.subscribe("kept").await;
    until("the event is on disk", async || {
        let files = std::fs::read_dir(cluster.spool()).ok()?.filter_map(Result::ok);
        let mut texts = files.filter_map(|file| std::fs::read(file.path()).ok());
        texts.any(|bytes| String::from_utf8_lossy(&bytes).contains("channel_occupied")).then_some(())
    })
    .await;
    cluster.kill_and_start_again(0).await;
    let mut events = receiver(address).await;
    let wanted = Belief([("kept".to_owned(), BTreeSet::new())].into());
    Belief::default().becomes("what was spooled is sent", &mut events, &wanted).await;
}

/// A cache channel's home reports that it is empty, once for all gateways.
#[tokio::test]
async fn empty_cache_is_reported_once_for_all_gateways() {
    let address = free_address();
    let mut events = receiver(address).await;
    let cluster = Cluster::quiet(3).more(&hooked(address)).start().await;
    let mut clients = Vec::new();
    for number in 0..6 {
        let channel = format!("cache-{number}");
        for gateway in 0..3 {
            let mut client = Pusher::connect(&cluster, gateway).await;
            client.subscribe(&channel).await;
            assert_eq!(client.hear().await["event"], "pusher:cache_miss");
            clients.push(client);
        }
    }
    // Told behind everything else by the same home, or nearly: nothing is awaited that does not come.
    let mut last = Pusher::connect(&cluster, 0).await;
    last.subscribe("cache-last").await;
    let mut misses: BTreeMap<String, usize> = BTreeMap::new();
    while misses.len() < 7 {
        let event = tokio::time::timeout(GENEROUS, events.recv()).await.unwrap().unwrap();
        if event["name"] == "cache_miss" {
            *misses.entry(event["channel"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    // A duplicate would be in flight by now.
    cluster.run(&["status"]);
    while let Ok(event) = events.try_recv() {
        if event["name"] == "cache_miss" {
            *misses.entry(event["channel"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    assert!(misses.values().all(|count| *count == 1), "{misses:?}");
}

/// The only gateway has no heir; with a spool, its next run tells who has not come back, once, and nothing
/// of who has.
#[tokio::test]
async fn members_lost_with_the_only_gateway_are_reported_as_left() {
    let address = free_address();
    let mut events = receiver(address).await;
    let settings = Cluster::quiet(1).register("beat = \"500ms\"\nlease = \"3s\"");
    let mut cluster = settings.more(&hooked(address)).spooled().start().await;
    let channels = |list: &[(&str, &[&str])]| {
        let users = |users: &[&str]| users.iter().map(ToString::to_string).collect();
        Belief(list.iter().map(|(channel, all)| ((*channel).to_owned(), users(all))).collect())
    };
    let (mut ann, mut bob) = (Pusher::connect(&cluster, 0).await, Pusher::connect(&cluster, 0).await);
    ann.join("presence-room", "ann").await;
    ann.join("presence-alone", "ann").await;
    ann.subscribe("empty-soon").await;
    bob.join("presence-room", "bob").await;
    let mut believed = Belief::default();
    let all =
        channels(&[("presence-room", &["ann", "bob"]), ("presence-alone", &["ann"]), ("empty-soon", &[])]);
    believed.becomes("all have come", &mut events, &all).await;
    until("that they have heard it is on disk", async || {
        let files = std::fs::read_dir(cluster.spool()).ok()?.filter_map(Result::ok);
        let mut told = files.filter(|file| file.path().extension().is_some_and(|end| end == "told"));
        let bytes = std::fs::read(told.next()?.path()).ok()?;
        String::from_utf8_lossy(&bytes).contains("empty-soon").then_some(())
    })
    .await;
    // The last of what receivers have answered is noted a moment after they have.
    cluster.run(&["status"]);
    for round in 0..2 {
        cluster.kill_and_start_again(0).await;
        let mut back = Pusher::connect(&cluster, 0).await;
        back.join("presence-room", "bob").await;
        let rest = channels(&[("presence-room", &["bob"])]);
        let told = believed.becomes("ann is lost", &mut events, &rest).await;
        // Only what was not recorded in the last moment before the kill may be repeated.
        assert!(told <= 8 && (round == 0 || told == 0), "{told} events in round {round}");
        let mut other = Pusher::connect(&cluster, 0).await;
        other.join("presence-other", "eve").await;
        let more = channels(&[("presence-room", &["bob"]), ("presence-other", &["eve"])]);
        believed.becomes("eve has come", &mut events, &more).await;
        other.client.goodbye(1000, "").await;
        believed.becomes("eve has gone", &mut events, &rest).await;
        drop(back);
        if round == 0 {
            // Everything is noted before the next kill.
            cluster.run(&["status"]);
        }
    }
}

/// Channels that one client makes by the thousand, only to leave them, push out nobody else's events.
#[tokio::test]
async fn flood_of_channels_loses_its_own_events() {
    const FLOOD: usize = 5600;
    let address = free_address();
    let (open, opened) = watch::channel(false);
    let mut events = held_receiver(address, opened).await;
    let app = format!("{APPS}[apps.limits]\nsubscriptions_per_second_max = 100_000\n")
        + "app_subscriptions_per_second_max = 100_000\n[[apps.webhooks]]\nbatch = true\n";
    let settings = Cluster::quiet(1).more(&format!("{app}url = \"http://{address}/\"\n"));
    let cluster = settings.more("[metrics]\nbind = \"127.0.0.1:0\"").start().await;
    let metrics = cluster.gateways[0].logged("metrics and probes address=").await.parse().unwrap();
    let (mut genuine, mut rude) = (Pusher::connect(&cluster, 0).await, Pusher::connect(&cluster, 0).await);
    for number in 0..20 {
        genuine.subscribe(&format!("genuine-{number}")).await;
    }
    for first in (0..FLOOD).step_by(50) {
        for event in ["pusher:subscribe", "pusher:unsubscribe"] {
            for number in first..first + 50 {
                rude.say(event, json!({ "channel": format!("random-{number}") })).await;
            }
        }
        for _ in 0..50 {
            assert_eq!(rude.hear().await["event"], "pusher_internal:subscription_succeeded");
        }
    }
    until("too much waits", async || {
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answer = crate::malformed_input::answer(metrics, request.as_bytes(), false).await;
        let answer = String::from_utf8(answer).unwrap();
        answer.contains("webhook_drops_total{reason=\"queue_full\"").then_some(())
    })
    .await;
    for number in 20..40 {
        genuine.subscribe(&format!("genuine-{number}")).await;
    }
    open.send_replace(true);
    let mut missing: BTreeSet<String> = (0..40).map(|number| format!("genuine-{number}")).collect();
    while !missing.is_empty() {
        let event = tokio::time::timeout(GENEROUS, events.recv()).await;
        let event = event.unwrap_or_else(|_| panic!("never told of {missing:?}")).unwrap();
        if event["name"] == "channel_occupied" {
            missing.remove(event["channel"].as_str().unwrap());
        }
    }
}
