//! Workers and other programs see what Pusher clients do, and no client ever waits for them.

use std::collections::{BTreeMap, BTreeSet};

use broadgate_business::{
    Client, Context, Handler, Message, Worker, WorkerConfig,
    cluster::{PusherEvent, PusherEventKind as Kind, PusherNews, PusherWatch, Who},
    worker::Cause,
};
use broadgate_proto::v1::{self, pusher_event::Event};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    harness::*,
    pusher::{Pusher, sdk, sign},
};

const APPS: &str = "[[apps]]\nid = \"shop\"\nraw = true\nclient_events = true\n\
    [[apps.keys]]\nkey = \"shop-key\"\nsecret = \"secret-of-the-shop\"\n\
    [apps.limits]\nevent_data_bytes_max = 100_000\nclient_events_per_second_max = 100_000\n";

/// The next event of this client; those of others are passed over.
async fn event_of(watch: &mut PusherWatch, socket_id: &str) -> PusherEvent {
    loop {
        match soon("an event", watch.next()).await.unwrap() {
            PusherNews::Event(event) if event.socket_id == socket_id => return event,
            PusherNews::Event(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Waits until the watch has reached a gateway: then a new client is observed.
async fn reaches(cluster: &Cluster, watch: &mut PusherWatch, gateway: usize) {
    soon("the watch has reached the gateway", async {
        let patience = std::time::Duration::from_millis(200);
        loop {
            let probe = Pusher::connect(cluster, gateway).await;
            if tokio::time::timeout(patience, event_of(watch, &probe.socket_id)).await.is_ok() {
                return;
            }
        }
    })
    .await;
}

impl Pusher {
    async fn sign_in(&mut self, user: &str) {
        let user_data = json!({ "id": user }).to_string();
        let auth = sign(&format!("{}::user::{user_data}", self.socket_id));
        self.say("pusher:signin", json!({ "auth": auth, "user_data": user_data })).await;
        assert_eq!(self.hear().await["event"], "pusher:signin_success");
    }

    async fn subscribe_signed(&mut self, channel: &str) {
        let auth = sign(&format!("{}:{channel}", self.socket_id));
        self.say("pusher:subscribe", json!({ "channel": channel, "auth": auth })).await;
        assert_eq!(self.hear().await["event"], "pusher_internal:subscription_succeeded");
    }

    async fn whisper(&mut self, channel: &str, data: &str) {
        let event = json!({ "event": "client-whisper", "channel": channel, "data": data });
        self.client.say(&event.to_string()).await;
    }
}

/// What a client does at one gateway, and what a watcher hears of it.
async fn a_life_is_told(cluster: &Cluster, gateway: usize, watch: &mut PusherWatch) {
    let shop = sdk(cluster).await;
    let mut ann = Pusher::connect(cluster, gateway).await;
    let socket_id = ann.socket_id.clone();
    let opened = event_of(watch, &socket_id).await;
    assert_eq!((&*opened.app, &opened.user_id), ("shop", &None));
    assert_eq!(opened.kind, Kind::Opened { address: ann.client.local.clone() });
    ann.sign_in("ann").await;
    // As the runbook says.
    let (_, out, _) = cluster.run(&["clients", "--app", "shop", "--group", "#signed-in-ann"]);
    assert!(out.contains(&*opened.client_id), "{out}");
    // The server's own groups are none of the client's business.
    ann.say("pusher:unsubscribe", json!({ "channel": "#signed-in-ann" })).await;
    assert_eq!(ann.hear().await["event"], "pusher:error");
    ann.subscribe("news").await;
    ann.subscribe_signed("private-room").await;
    ann.join("presence-room", "7").await;
    // What is refused is not told.
    ann.say("pusher:subscribe", json!({ "channel": "private-other", "auth": "shop-key:00" })).await;
    assert_eq!(ann.hear().await["event"], "pusher:subscription_error");
    ann.whisper("private-room", "psst").await;
    ann.whisper("presence-room", "hello").await;
    ann.say("pusher:unsubscribe", json!({ "channel": "news" })).await;
    // The commands come behind what the client has said.
    ann.say("pusher:ping", json!({})).await;
    assert_eq!(ann.hear().await["event"], "pusher:pong");
    let id = &*opened.client_id;
    shop.join(Who::client(id), ["given", "taken"]).await.unwrap();
    shop.join(Who::client(id), ["given"]).await.unwrap();
    shop.leave(Who::client(id), ["taken"]).await.unwrap();
    shop.dissolve(["given"]).await.unwrap();
    ann.client.goodbye(1000, "that was it").await;

    let channel = |name: &str| name.to_owned();
    let subscribed = |name: &str, user: Option<&str>| Kind::Subscribed {
        channel: channel(name),
        user_id: user.map(str::to_owned),
        user_info: None,
    };
    let whisper = |name: &str, data: &str, user: Option<&str>| Kind::ClientEvent {
        channel: channel(name),
        event: "client-whisper".into(),
        data: json!(data).to_string(),
        user_id: user.map(str::to_owned),
    };
    for expected in [
        Kind::SignedIn { user_data: json!({ "id": "ann" }).to_string() },
        subscribed("news", None),
        subscribed("private-room", None),
        subscribed("presence-room", Some("7")),
        whisper("private-room", "psst", None),
        whisper("presence-room", "hello", Some("7")),
        Kind::Unsubscribed { channel: channel("news") },
        subscribed("given", None),
        subscribed("taken", None),
        Kind::Unsubscribed { channel: channel("taken") },
        Kind::Unsubscribed { channel: channel("given") },
    ] {
        let event = event_of(watch, &socket_id).await;
        assert_eq!((event.kind, event.user_id.as_deref()), (expected, Some("ann")));
        assert_eq!(event.client_id, opened.client_id);
    }
    let Kind::Closed { cause, code, reason, mut channels } = event_of(watch, &socket_id).await.kind else {
        panic!("not closed")
    };
    channels.sort_unstable();
    assert_eq!((cause, code, &*reason), (Cause::Client, 1000, "that was it"));
    assert_eq!(channels, ["presence-room", "private-room"]);
}

#[tokio::test]
async fn client_actions_are_observed_once_and_in_order() {
    let cluster = Cluster::quiet(2).more(APPS).start().await;
    let shop = sdk(&cluster).await;
    let (mut watch, mut other) =
        (shop.watch_pusher().unwrap(), shop.in_app("default").watch_pusher().unwrap());
    for gateway in [0, 1] {
        reaches(&cluster, &mut watch, gateway).await;
        a_life_is_told(&cluster, gateway, &mut watch).await;
    }
    // A gateway that stops tells how it lets its clients go.
    let mut last = Pusher::connect(&cluster, 1).await;
    let socket_id = last.socket_id.clone();
    cluster.gateways[1].signal("TERM");
    assert_eq!(last.client.closed().await.code, 4200);
    assert!(matches!(event_of(&mut watch, &socket_id).await.kind, Kind::Opened { .. }));
    let closed = event_of(&mut watch, &socket_id).await.kind;
    assert!(matches!(closed, Kind::Closed { cause: Cause::Drain, code: 4200, .. }), "{closed:?}");
    let left = soon("the gateway leaves", async {
        loop {
            match watch.next().await.unwrap() {
                PusherNews::GatewayLeft { gateway } => return gateway,
                PusherNews::Event(_) | PusherNews::Missed { events: None, .. } => {}
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(left.await.len(), 10);
    // Other apps hear nothing of all that, but of the gateway.
    assert!(matches!(soon("news", other.next()).await.unwrap(), PusherNews::GatewayLeft { .. }));
}

/// Only completed actions are observed: no subscription twice, and no refused one.
#[tokio::test]
async fn unconfirmed_actions_are_not_observed() {
    let apps = APPS
        .replace("id = \"shop\"", "id = \"shop\"\ncompat = \"reverb\"")
        .replace("[apps.limits]", "[apps.limits]\npresence_members_max = 1");
    let settings = Cluster::quiet(2).register("beat = \"500ms\"\nlease = \"3s\"");
    let mut cluster = settings.more(&apps).start().await;
    let mut watch = sdk(&cluster).await.watch_pusher().unwrap();
    reaches(&cluster, &mut watch, 0).await;
    reaches(&cluster, &mut watch, 1).await;
    let (mut ann, mut bob) = (Pusher::connect(&cluster, 0).await, Pusher::connect(&cluster, 1).await);
    ann.join("presence-room", "ann").await;
    // With Reverb, clients may subscribe twice.
    bob.subscribe("news").await;
    bob.subscribe("news").await;
    let channel_data = json!({ "user_id": "bob" }).to_string();
    let auth = sign(&format!("{}:presence-room:{channel_data}", bob.socket_id));
    let full = json!({ "channel": "presence-room", "auth": auth, "channel_data": channel_data });
    bob.say("pusher:subscribe", full).await;
    assert!(bob.hear().await.to_string().contains("as many as it may have"));
    let (socket_id, gateway) = (bob.socket_id.clone(), &mut cluster.gateways[1]);
    drop(bob);
    let told = [event_of(&mut watch, &socket_id).await, event_of(&mut watch, &socket_id).await];
    assert!(matches!(&told[0].kind, Kind::Opened { .. }), "{told:?}");
    assert!(matches!(&told[1].kind, Kind::Subscribed { channel, .. } if channel == "news"), "{told:?}");
    let closed = event_of(&mut watch, &socket_id).await.kind;
    let Kind::Closed { cause: Cause::Lost, code: 1006, channels, .. } = closed else { panic!("{closed:?}") };
    assert_eq!(channels, ["news"]);
    // Of a crash the view tells.
    gateway.kill();
    let left = loop {
        match soon("news", watch.next()).await.unwrap() {
            PusherNews::GatewayLeft { gateway } => break gateway,
            PusherNews::Event(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(told[0].client_id.starts_with(&left));
}

/// Notes which worker hears what.
struct Noter {
    number: usize,
    heard: mpsc::UnboundedSender<(usize, PusherEvent)>,
}

impl Handler for Noter {
    async fn message(&self, _: &Client, _: Message) -> anyhow::Result<()> {
        Ok(())
    }

    async fn pusher(&self, _: &Context, event: PusherEvent) -> anyhow::Result<()> {
        self.heard.send((self.number, event))?;
        Ok(())
    }
}

#[tokio::test]
async fn workers_of_a_service_share_the_clients() {
    let cluster = Cluster::quiet(2).more(APPS).start().await;
    // What the test notes down; the clients of the test bound it.
    let (sender, mut heard) = mpsc::unbounded_channel();
    let workers: Vec<_> = [0, 1]
        .map(|number| {
            let config = WorkerConfig {
                registers: vec![cluster.register_address.clone()],
                services: vec!["mail".into()],
                name: format!("mail-{number}"),
                pusher_apps: vec!["shop".into()],
                ..WorkerConfig::default()
            };
            let stop = CancellationToken::new();
            let noter = Noter { number, heard: sender.clone() };
            let running = Worker::new(config).run(noter, stop.clone().cancelled_owned());
            (stop, tokio::spawn(running))
        })
        .into();
    // Both workers are known to both gateways once each has heard of a client at each.
    let mut reached = BTreeSet::new();
    soon("all workers have reached all gateways", async {
        while reached.len() < 4 {
            for gateway in [0, 1] {
                Pusher::connect(&cluster, gateway).await.client.goodbye(1000, "").await;
            }
            while let Ok((worker, event)) = heard.try_recv() {
                reached.insert((worker, event.client_id[..10].to_owned()));
            }
        }
    })
    .await;
    let mut clients = BTreeMap::new();
    for number in 0..40 {
        let mut client = Pusher::connect(&cluster, number % 2).await;
        client.subscribe("news").await;
        clients.insert(client.socket_id.clone(), client);
    }
    // Which worker has heard of which client, and what.
    let mut told: BTreeMap<String, Vec<(usize, Kind)>> = BTreeMap::new();
    soon("events of all clients", async {
        while told.values().map(Vec::len).sum::<usize>() < 2 * clients.len() {
            let (worker, event) = heard.recv().await.unwrap();
            if clients.contains_key(&event.socket_id) {
                told.entry(event.socket_id).or_default().push((worker, event.kind));
            }
        }
    })
    .await;
    let mut shares = [0, 0];
    for told in told.values() {
        let [(first, Kind::Opened { .. }), (second, Kind::Subscribed { .. })] = &**told else {
            panic!("{told:?}")
        };
        assert_eq!(first, second);
        shares[*first] += 1;
    }
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");

    // When a worker stops, the other hears of all.
    let mut workers = workers.into_iter();
    let (stop, running) = workers.next().unwrap();
    stop.cancel();
    soon("the worker stops", running).await.unwrap().unwrap();
    while heard.try_recv().is_ok() {}
    let count = clients.len();
    drop(clients);
    for _ in 0..count {
        let (worker, event) = soon("a client is gone", heard.recv()).await.unwrap();
        assert_eq!(worker, 1);
        assert!(matches!(event.kind, Kind::Closed { .. }), "{event:?}");
    }
    let (stop, running) = workers.next().unwrap();
    stop.cancel();
    soon("the worker stops", running).await.unwrap().unwrap();
}

/// A watcher that reads nothing for a while misses something, and nobody else does.
#[tokio::test]
async fn slow_observer_slows_no_client_and_learns_what_it_missed() {
    const EVENTS: u64 = 400;
    let cluster = Cluster::quiet(1).more(APPS).start().await;
    let (mut ann, mut bob) = (Pusher::connect(&cluster, 0).await, Pusher::connect(&cluster, 0).await);
    ann.subscribe_signed("private-room").await;
    bob.subscribe_signed("private-room").await;
    let request = v1::WatchPusherRequest { app: "shop".into(), ..v1::WatchPusherRequest::default() };
    let mut caller = cluster.caller(0).await;
    let mut watching = caller.watch_pusher(request.clone()).await.unwrap().into_inner();
    let data = "x".repeat(90_000);
    for _ in 0..EVENTS {
        ann.whisper("private-room", &data).await;
        assert_eq!(bob.hear().await["event"], "client-whisper");
    }
    let (mut told, mut missed) = (0, 0);
    while told + missed < EVENTS {
        let events = soon("events", watching.message()).await.unwrap().unwrap();
        missed += events.missed;
        told += events.events.len() as u64;
        assert!(events.events.iter().all(|event| matches!(event.event, Some(Event::ClientEvent(_)))));
    }
    assert!(told > 100 && missed > 100, "{told} were told, {missed} missed");
    crate::doctor::finds(&cluster, "drops", "warn", "watcher_slow").await;
    ann.whisper("private-room", "again").await;
    let events = soon("events", watching.message()).await.unwrap().unwrap();
    assert_eq!((events.missed, events.events.len()), (0, 1));
    // What is asked of another gateway, or not understood, is refused.
    let of = |change: fn(&mut v1::WatchPusherRequest)| {
        let mut request = request.clone();
        change(&mut request);
        request
    };
    for (request, code) in [
        (of(|request| request.gateway = "0000000000".into()), tonic::Code::Unavailable),
        (of(|request| request.app = "x".repeat(201)), tonic::Code::InvalidArgument),
        (of(|request| request.share = "mail".into()), tonic::Code::InvalidArgument),
        (of(|request| request.requires = vec!["more".into()]), tonic::Code::Unimplemented),
    ] {
        assert_eq!(caller.watch_pusher(request).await.unwrap_err().code(), code);
    }
}
