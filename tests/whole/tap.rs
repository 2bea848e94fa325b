//! `Observe.Tap` and `broadgate tap`: what clients do and are sent, seen from any gateway; and nobody who notices.

use broadgate_proto::v1::{
    self, TapEvent, TapEvents, TapKind, TapRequest, observe_client::ObserveClient, tap_event::Payload,
    tap_request::Of,
};
use tonic::{Code, Streaming, transport::Channel};

use crate::{
    harness::*,
    pusher::{Pusher, sign},
    tokens::{TokensFile, as_json},
};

async fn observer(cluster: &Cluster, gateway: usize) -> ObserveClient<Channel> {
    ObserveClient::connect(format!("http://{}", cluster.internal[gateway])).await.unwrap()
}

/// What one tap has shown so far.
struct Shown {
    stream: Streaming<TapEvents>,
    started: Vec<(String, u64)>,
    unreachable: Vec<String>,
    missed: u64,
    /// With the gateway of each.
    events: Vec<(String, TapEvent)>,
}

impl Shown {
    /// Opens a tap by way of a gateway, and waits until so many gateways have begun.
    async fn open(cluster: &Cluster, gateway: usize, request: TapRequest, gateways: usize) -> Self {
        let stream = observer(cluster, gateway).await.tap(request).await.unwrap().into_inner();
        let (started, events, unreachable) = (Vec::new(), Vec::new(), Vec::new());
        let mut shown = Self { stream, started, unreachable, missed: 0, events };
        soon("all gateways begin", async {
            while shown.started.len() < gateways {
                shown.more().await;
            }
        })
        .await;
        shown
    }

    async fn more(&mut self) {
        let events = self.stream.message().await.unwrap().expect("the tap goes on");
        self.started.extend(events.start.map(|start| (events.gateway.clone(), start.clients)));
        self.unreachable.extend((!events.unreachable.is_empty()).then(|| events.gateway.clone()));
        self.missed += events.missed;
        self.events.extend(events.events.into_iter().map(|event| (events.gateway.clone(), event)));
    }

    /// The first event that fits, whenever it comes.
    async fn find(&mut self, what: &str, fits: impl Fn(&TapEvent) -> bool) -> (String, TapEvent) {
        soon(what, async {
            let mut looked_at = 0;
            loop {
                if let Some(found) = self.events[looked_at..].iter().find(|(_, event)| fits(event)) {
                    return found.clone();
                }
                looked_at = self.events.len();
                self.more().await;
            }
        })
        .await
    }

    async fn kind(&mut self, kind: TapKind) -> (String, TapEvent) {
        self.find(kind.as_str_name(), |event| event.kind() == kind).await
    }
}

fn of(of: Of) -> TapRequest {
    TapRequest { of: Some(of), ..TapRequest::default() }
}

/// Everything that clients of a uid do on two gateways, asked of the one that has none of it first.
#[tokio::test]
async fn a_uid_is_followed_over_all_gateways_from_open_to_close() {
    let cluster = Cluster::of(2).start().await;
    let mut worker = TestWorker::attach(&cluster.internal[1], 7).await;
    let mut caller = cluster.caller(0).await;
    let mut other = cluster.client(1).await;
    let mut client = cluster.client(1).await;
    for _ in 0..2 {
        worker.take().await;
    }
    let request = TapRequest { payload: true, payload_bytes_max: 4, ..of(Of::Uid("42".to_owned())) };
    let mut shown = Shown::open(&cluster, 0, request, 2).await;
    assert!(shown.started.iter().all(|(_, clients)| *clients == 0), "{:?}", shown.started);

    // From the bind on it is shown; the other client never is.
    caller.bind(bind(&client.id, "42")).await.unwrap();
    let (gateway, bound) = shown.kind(TapKind::Bound).await;
    assert_eq!((&*gateway, &*bound.place, &bound.client_id), ("gateway-2", "42", &client.id));
    caller.join(join(&[&client.id, &other.id], &["orders"])).await.unwrap();
    assert_eq!(shown.kind(TapKind::Joined).await.1.place, "orders");

    other.say("not shown").await;
    worker.takes("not shown").await;
    client.say("hello").await;
    let event = worker.event().await;
    let (_, said) = shown.kind(TapKind::In).await;
    assert_eq!((said.bytes, said.count, said.payload), (5, 0, Some(Payload::Text("hell".to_owned()))));
    assert_eq!((&*said.uid, said.max > 0), ("42", true));
    let (_, went) = shown.kind(TapKind::Event).await;
    assert_eq!((&*went.place, &*went.reason, went.count), ("test-7", "message", event.seq));
    worker.ack(&event).await;
    let (_, answered) = shown.kind(TapKind::Answered).await;
    assert_eq!(answered.count, event.seq);
    assert!(answered.took_us > 0, "{answered:?}");

    let send = v1::SendRequest { command_id: "order-991".to_owned(), ..text(groups(&["orders"]), "shipped") };
    caller.send(send).await.unwrap();
    client.hears(&["shipped"]).await;
    other.hears(&["shipped"]).await;
    let (_, placed) = shown.kind(TapKind::Placed).await;
    assert_eq!((&*placed.place, &*placed.command_id, placed.bytes), ("orders", "order-991", 7));
    assert!(placed.position.contains('/'), "{placed:?}");
    assert_eq!((placed.count, placed.payload), (1, Some(Payload::Text("ship".to_owned()))));
    let (_, written) = shown.kind(TapKind::Written).await;
    assert_eq!((written.bytes, written.count, written.outbox_bytes), (9, 1, 0));

    assert_eq!(cluster.run(&["kick", "--uid", "42", "--code", "4321", "--reason", "enough"]).0, 0);
    let (_, closed) = shown.kind(TapKind::Closed).await;
    assert_eq!((closed.code, &*closed.reason), (4321, "command: enough"));
    assert!(!closed.command_id.is_empty(), "{closed:?}");
    client.closed().await;
    assert_eq!(shown.missed, 0);
    assert!(shown.events.iter().all(|(_, event)| event.client_id != other.id), "{:?}", shown.events);
}

/// A message to a group is one event for each shard, also a client's own deeds are shown while it is in it.
#[tokio::test]
async fn a_group_and_a_whole_app_show_each_message_once() {
    let cluster = Cluster::quiet(2).start().await;
    let mut caller = cluster.caller(0).await;
    let clients = [cluster.client(0).await, cluster.client(1).await];
    let [one, two] = &clients;
    caller.join(join(&[&one.id, &two.id], &["g"])).await.unwrap();
    let mut group = Shown::open(&cluster, 1, of(Of::Group("g".to_owned())), 2).await;
    let mut whole = Shown::open(&cluster, 0, of(Of::WholeApp(true)), 2).await;
    for tap in [&group, &whole] {
        assert_eq!(tap.started.iter().map(|(_, clients)| clients).sum::<u64>(), 2, "{:?}", tap.started);
    }
    caller.send(text(groups(&["g"]), "hi")).await.unwrap();
    caller.send(text(groups(&["other"]), "nobody")).await.unwrap();
    for tap in [&mut group, &mut whole] {
        let mut reached = 0;
        let mut from = 0;
        while reached < 2 {
            tap.find("the message is shown", |event| event.kind() == TapKind::Placed).await;
            while tap.events.len() == from {
                soon("more is shown", tap.more()).await;
            }
            for (_, event) in tap.events[from..].iter().filter(|(_, event)| event.kind() == TapKind::Placed) {
                assert_eq!((&*event.place, &*event.client_id), ("g", ""));
                assert_eq!(event.payload, None, "payloads are hidden unless they are asked for");
                reached += event.count;
            }
            from = tap.events.len();
        }
        assert_eq!(reached, 2);
    }
    let leave = v1::LeaveGroupsRequest {
        clients: vec![two.id.clone()],
        groups: vec!["g".to_owned()],
        ..Default::default()
    };
    caller.leave(leave).await.unwrap();
    let (gateway, left) = group.kind(TapKind::Left).await;
    assert_eq!((&*gateway, &left.client_id), ("gateway-2", &two.id));
    let newcomer = cluster.client(1).await;
    let (_, opened) = whole.kind(TapKind::Opened).await;
    assert_eq!((&opened.client_id, &*opened.place), (&newcomer.id, "web"));
    assert_eq!(opened.reason, newcomer.local);
}

/// A reader that sleeps: its client gets everything, what the tap cannot hold is missed and counted; and when the
/// reader goes, its place is free.
#[tokio::test]
async fn a_tap_that_is_not_read_holds_nobody_up_and_misses_at_its_place() {
    let cluster = Cluster::quiet(1).start().await;
    let mut caller = cluster.caller(0).await;
    let mut client = cluster.client(0).await;
    let client_tap = || TapRequest {
        kinds: vec![TapKind::Placed.into()],
        payload: true,
        payload_bytes_max: 4096,
        ..of(Of::ClientId(client.id.clone()))
    };
    let mut asleep = Shown::open(&cluster, 0, client_tap(), 1).await;
    let mut seven = Vec::new();
    for _ in 0..7 {
        seven.push(Shown::open(&cluster, 0, client_tap(), 1).await);
    }
    let refused = observer(&cluster, 0).await.tap(client_tap()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    // More than queue and connection hold, while nobody reads the taps.
    let (long, id) = ("x".repeat(4000), client.id.clone());
    for _ in 0..30 {
        for _ in 0..100 {
            caller.send(text(clients(&[&id]), &long)).await.unwrap();
        }
        for _ in 0..100 {
            assert_eq!(client.hear().await.len(), long.len());
        }
    }
    soon("each message is shown or missed", async {
        while asleep.events.len() as u64 + asleep.missed < 3000 {
            asleep.more().await;
        }
    })
    .await;
    let (placed, missed) = (asleep.events.len(), asleep.missed);
    assert!(
        placed > 100 && missed > 1000 && placed as u64 + missed == 3000,
        "{placed} shown, {missed} missed"
    );
    let client_tap = || of(Of::ClientId(id.clone()));
    drop(seven);
    until("there is room for a tap", async || observer(&cluster, 0).await.tap(client_tap()).await.ok()).await;
}

/// Only what is asked for, only for so long; and what cannot be asked is refused with a sentence.
#[tokio::test]
async fn taps_end_with_their_time_and_refuse_what_they_cannot_show() {
    let cluster = Cluster::quiet(2).start().await;
    let mut client = cluster.client(0).await;
    let request = TapRequest { kinds: vec![TapKind::Closed.into()], seconds: 4, ..of(Of::WholeApp(true)) };
    let mut shown = Shown::open(&cluster, 1, request, 2).await;
    client.say("not shown").await;
    client.goodbye(3000, "bye").await;
    let (gateway, closed) = shown.kind(TapKind::Closed).await;
    assert_eq!((&*gateway, closed.code, shown.events.len()), ("gateway-1", 3000, 1));
    soon("the tap ends", async { while shown.stream.message().await.unwrap().is_some() {} }).await;
    let mut observer = observer(&cluster, 0).await;
    for (wrong, words) in [
        (TapRequest::default(), "whole_app"),
        (of(Of::ClientId("x".to_owned())), "client"),
        (of(Of::Caller("token:\u{7}".to_owned())), "caller"),
        (TapRequest { seconds: 601, ..of(Of::WholeApp(true)) }, "600"),
    ] {
        let refused = observer.tap(wrong).await.unwrap_err();
        assert!(refused.message().contains(words), "{refused}");
    }
}

/// A gateway that is gone is named, and one that comes is tapped, without a new tap.
#[tokio::test]
async fn a_tap_follows_gateways_that_go_and_come() {
    let mut cluster = Cluster::quiet(2).start().await;
    let mut shown = Shown::open(&cluster, 0, of(Of::WholeApp(true)), 2).await;
    cluster.gateways[1].kill();
    soon("the gateway is named", async {
        while shown.unreachable.is_empty() {
            shown.more().await;
        }
    })
    .await;
    assert_eq!(shown.unreachable, ["gateway-2"]);
    let third = cluster.add_gateway().await;
    soon("the new gateway begins", async {
        while shown.started.len() < 3 {
            shown.more().await;
        }
    })
    .await;
    let client = cluster.client(third).await;
    let (gateway, opened) = shown.kind(TapKind::Opened).await;
    assert_eq!((&*gateway, opened.client_id), ("gateway-3", client.id));
}

/// A user who signs in by the Pusher protocol is a uid to a tap, and what is refused to them is shown.
#[tokio::test]
async fn users_of_the_pusher_protocol_are_followed_by_their_ids() {
    let apps =
        "[[apps]]\nid = \"shop\"\n[[apps.keys]]\nkey = \"shop-key\"\nsecret = \"secret-of-the-shop\"\n";
    let cluster = Cluster::quiet(2).more(apps).start().await;
    let in_shop = |whose: Of| TapRequest { app: "shop".to_owned(), ..of(whose) };
    let mut shown = Shown::open(&cluster, 0, in_shop(Of::Uid("42".to_owned())), 2).await;
    let mut ann = Pusher::connect(&cluster, 1).await;
    let user_data = serde_json::json!({ "id": "42" }).to_string();
    let auth = sign(&format!("{}::user::{user_data}", ann.socket_id));
    ann.say("pusher:signin", serde_json::json!({ "auth": auth, "user_data": user_data })).await;
    let (gateway, bound) = shown.kind(TapKind::Bound).await;
    assert_eq!((&*gateway, &*bound.place), ("gateway-2", "42"));
    assert_eq!(ann.hear().await["event"], "pusher:signin_success");
    ann.subscribe("news").await;
    for kind in [TapKind::Subscribing, TapKind::Joined] {
        assert_eq!(shown.kind(kind).await.1.place, "news");
    }
    ann.say("pusher:subscribe", serde_json::json!({ "channel": "private-x", "auth": "shop-key:00" })).await;
    let (_, refused) = shown.kind(TapKind::Dropped).await;
    assert!(refused.reason.contains("private-x"), "{refused:?}");
    let to = v1::Audience { app: "shop".to_owned(), ..groups(&["news"]) };
    let send = v1::SendRequest { event: "Shipped".to_owned(), ..text(to, "{}") };
    cluster.caller(0).await.send(send).await.unwrap();
    let (_, placed) = shown.kind(TapKind::Placed).await;
    assert_eq!((&*placed.place, &*placed.uid), ("news", "42"));
    ann.say("pusher:unsubscribe", serde_json::json!({ "channel": "news" })).await;
    assert_eq!(shown.kind(TapKind::Left).await.1.place, "news");
    drop(ann);
    assert_eq!(shown.kind(TapKind::Closed).await.1.reason, "lost");
}

/// What people read, and how the command ends.
#[tokio::test]
async fn broadgate_tap_prints_lines_and_ends_cleanly() {
    let cluster = Cluster::quiet(2).start().await;
    let mut caller = cluster.caller(0).await;
    let mut client = cluster.client(1).await;
    caller.bind(bind(&client.id, "42")).await.unwrap();
    let start = |name: &str, args: &[&str]| {
        let args = [&["tap", "--addr", &cluster.internal[0]], args].concat();
        Process::start(&cluster.dir, name, &args, &[])
    };
    let mut people = start("tap", &["--uid", "42", "--payload"]);
    let mut scripts = start("tap-json", &["--uid", "42", "--json", "--kind", "in"]);
    until("the first line", async || people.log().contains("uid 42: 1 client on gateway-2").then_some(()))
        .await;
    until("both gateways", async || (scripts.log().matches("\"start\":{").count() == 2).then_some(())).await;
    client.say("a\u{1b}[2Jb").await;
    caller.send(text(uids(&["42"]), "psst")).await.unwrap();
    client.hears(&["psst"]).await;
    let has = |log: String, words: &str| log.lines().any(|line| line.contains(words)).then_some(());
    until("what it said", async || has(people.log(), "in       6 B, window 0/32  a\\u{1b}[2Jb")).await;
    // With its place in the order of the uid.
    until("what it got", async || {
        let log = people.log();
        let line = log.lines().find(|line| line.contains("placed   uid 42 "))?;
        (line.contains("/") && line.contains(" 4 B by local, command ")).then_some(())
    })
    .await;
    let log = people.log();
    assert!(log.starts_with("uid 42: 1 client on gateway-2; payloads shown; ends in 10 min\n"), "{log}");
    until("an object a line", async || has(scripts.log(), "\"kind\":\"TAP_KIND_IN\"")).await;
    for line in scripts.log().lines() {
        let events: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(events["gateway"].as_str().unwrap().starts_with("gateway-"), "{line}");
    }
    for process in [&mut people, &mut scripts] {
        process.signal("INT");
        assert_eq!(process.ended().await.code(), Some(0));
    }
    let (code, out, problem) = cluster.run(&["tap", "--whole-app", "--for", "2s"]);
    assert_eq!((code, problem.as_str()), (0, ""), "{out}");
    assert!(out.starts_with("the whole app: 1 client on gateway-2; payloads hidden; ends in 2 s\n"), "{out}");
    // What may be a mistake is said at the start.
    for (args, said) in [
        (["--caller", "local"], ""),
        (["--caller", "token:nobody"], "no caller token:nobody has given a command in app \"default\" since"),
        (["--uid", "nobody"], "no client with this uid is connected: the tap waits for one\n"),
        (["--group", "nowhere"], "no client is in this group: the tap waits for one\n"),
        (["--client", "000000001000000000000000000000"], "no client with this id is connected, and no id is"),
    ] {
        let (code, out, problem) = cluster.run(&[&["tap", "--for", "1s"], &args[..]].concat());
        assert!(code == 0 && out.contains("ends in 1 s"), "{args:?}: {out}{problem}");
        let lines = usize::from(!said.is_empty());
        assert!(problem.starts_with(said) && problem.lines().count() == lines, "{args:?}: {problem}");
    }
    let (code, _, problem) = cluster.run(&["tap", "--uid", "42", "--group", "g"]);
    assert_eq!(code, 2, "{problem}");
    let (code, _, problem) = cluster.run(&["tap", "--uid", "42", "--app", "nowhere"]);
    assert_eq!(code, 4, "{problem}");
}

/// Who would open one more learns whose those are that are open, as far as that is its business.
#[tokio::test]
async fn a_tap_too_many_says_whose_the_others_are() {
    let mut tokens = TokensFile::new("taps");
    let ann = tokens.add("ann", &["--role", "reader"]);
    let bob = tokens.add("bob", &["--role", "reader", "--app", "shop"]);
    let apps = "[[apps]]\nid = \"shop\"\nraw = true\n";
    let secret = "secret-of-the-taps-0123456789abcdef";
    let cluster = Cluster::quiet(2).secret(secret).gateway(&tokens.setting()).more(apps).start().await;
    let tap = async |gateway: usize, bearer: &str, app: &str| {
        let request = TapRequest { app: app.to_owned(), ..of(Of::WholeApp(true)) };
        let mut request = tonic::Request::new(request);
        request.metadata_mut().insert("authorization", format!("Bearer {bearer}").parse().unwrap());
        observer(&cluster, gateway).await.tap(request).await.map(tonic::Response::into_inner)
    };
    let mut open = Vec::new();
    for number in 0..8 {
        let (bearer, app) = [(&*ann, "default"), (&*bob, "shop"), (&*ann, "shop")][number % 3];
        let mut stream = tap(0, bearer, app).await.unwrap();
        // The other gateway knows it, too.
        let mut started = 0;
        while started < 2 {
            let events = soon("all gateways begin", stream.message()).await.unwrap().unwrap();
            started += usize::from(events.start.is_some());
        }
        open.push(stream);
    }
    for gateway in 0..2 {
        let name = format!("gateway-{}", gateway + 1);
        let refused = tap(gateway, &ann, "default").await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let all =
            format!("{name} has 8 taps, as many as it may have: 5 of token:ann, 3 of token:bob; end one");
        assert!(refused.message().contains(&all), "{refused:?}");
        let refused = tap(gateway, &bob, "shop").await.unwrap_err();
        let some = "2 of token:ann, 3 of token:bob, 3 of other apps";
        assert!(refused.message().contains(some), "{refused:?}");
    }
}

/// What the commands of one caller do, and of nobody else.
#[tokio::test]
async fn a_caller_is_followed_by_what_its_commands_do() {
    let mut tokens = TokensFile::new("tap-caller");
    let (ann, bob) = (tokens.add("ann", &["--role", "operator"]), tokens.add("bob", &["--role", "operator"]));
    let cluster = Cluster::quiet(2).gateway(&tokens.setting()).start().await;
    let mut client = cluster.client(1).await;
    let mut caller = cluster.caller(0).await;
    caller.bind(bind(&client.id, "42")).await.unwrap();
    let mut shown = Shown::open(&cluster, 0, of(Of::Caller("token:ann".to_owned())), 2).await;
    let mut of_client = Shown::open(&cluster, 0, of(Of::Uid("42".to_owned())), 2).await;
    let send = async |bearer: &str, id: &str| {
        let body = format!(r#"{{"to":{{"uids":["42"]}},"text":"x","command_id":"{id}"}}"#);
        assert_eq!(as_json(&cluster.internal[0], "Send", bearer, &body).await.0, 200);
    };
    send(&bob, "of-bob").await;
    send(&ann, "of-ann").await;
    client.hears(&["x", "x"]).await;
    let (_, placed) = shown.kind(TapKind::Placed).await;
    assert_eq!((&*placed.command_id, &*placed.caller, placed.count), ("of-ann", "token:ann", 1));
    assert_eq!((&*placed.place, &*placed.client_id), ("uid 42", ""));
    let (_, placed) = of_client.find("bob's message", |event| event.command_id == "of-bob").await;
    assert_eq!((placed.kind(), &*placed.caller), (TapKind::Placed, "token:bob"));
    let close = r#"{"to":{"uids":["42"]},"command_id":"close-of-ann"}"#;
    assert_eq!(as_json(&cluster.internal[0], "Close", &ann, close).await.0, 200);
    for tap in [&mut shown, &mut of_client] {
        let (_, closed) = tap.kind(TapKind::Closed).await;
        assert_eq!((&*closed.caller, &*closed.command_id), ("token:ann", "close-of-ann"));
        assert_eq!(closed.client_id, client.id);
    }
    assert!(shown.events.iter().all(|(_, event)| event.caller == "token:ann"), "{:?}", shown.events);
}
