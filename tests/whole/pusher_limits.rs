//! What Pusher clients may do to others: their limits, by hand.

use broadgate_business::cluster::{Audience as To, Payload};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{harness::*, pusher::*};

/// The `VmRSS` of a process, in bytes.
fn resident(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// A signed request of the app's backend without a body: the status.
async fn backend(cluster: &Cluster, gateway: usize, method: &str, path: &str) -> u16 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let query = format!("auth_key=shop-key&auth_timestamp={now}&auth_version=1.0");
    let signature = sign(&format!("{method}\n{path}\n{query}"));
    let signature = signature.split_once(':').unwrap().1;
    let mut stream = TcpStream::connect(cluster.web(gateway)).await.unwrap();
    let request = format!(
        "{method} {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("the answer comes", stream.read_to_string(&mut answer)).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

impl Pusher {
    async fn sign_in_with(&mut self, user_data: &Value) {
        let user_data = user_data.to_string();
        let auth = sign(&format!("{}::user::{user_data}", self.socket_id));
        self.say("pusher:signin", json!({ "auth": auth, "user_data": user_data })).await;
    }

    async fn whisper_number(&mut self, channel: &str, data: usize) {
        let frame = json!({ "event": "client-x", "channel": channel, "data": data });
        self.client.say(&frame.to_string()).await;
    }
}

fn watchlist(first: usize) -> Vec<String> {
    (first..first + 100).map(|number| format!("{number:0>100}")).collect()
}

/// Sign-ins that repeat themselves, or change every time, neither fill the memory nor delay others.
#[tokio::test]
async fn repeated_sign_ins_harm_no_other_client() {
    const REPEATS: usize = 1000;
    // Enough for what is asked below: here it is about what each costs.
    let app = format!("{APPS}[apps.limits]\nsubscriptions_per_second_max = 100_000\n");
    let cluster = Cluster::quiet(2).more(&app).start().await;
    let shop = sdk(&cluster).await;
    let mut witness = Pusher::connect(&cluster, 1).await;
    witness.subscribe("room").await;
    let mut rude = Pusher::connect(&cluster, 0).await;
    let same = json!({ "id": "ann", "watchlist": watchlist(0) });
    rude.sign_in_with(&same).await;
    assert_eq!(rude.hear().await["event"], "pusher:signin_success");
    assert_eq!(rude.hear().await["event"], "pusher_internal:watchlist_events");
    let before = resident(&cluster.gateways[0]);

    // It does not read while it speaks.
    let frame = {
        let user_data = same.to_string();
        let auth = sign(&format!("{}::user::{user_data}", rude.socket_id));
        json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": user_data } }).to_string()
    };
    let flood = async {
        for number in 0..REPEATS {
            rude.client.say(&frame).await;
            // What is answered is read now and then, or the client would be closed as slow.
            if number % 20 == 19 {
                for _ in 0..20 {
                    assert_eq!(rude.hear().await["event"], "pusher:signin_success");
                }
            }
        }
    };
    let publishes = async {
        for number in 0..20 {
            let started = std::time::Instant::now();
            shop.send(To::group("room"), Payload::event("e", number.to_string())).await.unwrap();
            assert_eq!(witness.hear().await["data"], number.to_string());
            println!("publish {number}: {:?}", started.elapsed());
        }
    };
    tokio::join!(flood, publishes);
    let grown = resident(&cluster.gateways[0]).saturating_sub(before);
    println!("grown by {} KiB", grown / 1024);
    assert!(grown < 24 * 1024 * 1024, "{grown} bytes more");

    // Another watchlist each time, all said at once: each is answered, in order, and takes effect.
    for number in 1..=50 {
        rude.sign_in_with(&json!({ "id": "ann", "watchlist": watchlist(100 * (number % 2)) })).await;
    }
    rude.say("pusher:subscribe", json!({ "channel": "room" })).await;
    for _ in 1..=50 {
        assert_eq!(rude.hear().await["event"], "pusher:signin_success");
        let heard = rude.hear().await;
        assert_eq!(heard["event"], "pusher_internal:watchlist_events", "{heard}");
    }
    assert_eq!(rude.hear().await["event"], "pusher_internal:subscription_succeeded");
}

/// A client that is in as many channels as it may be is a user all the same, and is terminated.
#[tokio::test]
async fn client_at_its_group_limit_is_terminated() {
    let cluster = Cluster::quiet(2).limits("groups_per_client_max = 5").more(APPS).start().await;
    let mut full = Pusher::connect(&cluster, 0).await;
    for number in 0..5 {
        full.subscribe(&format!("room-{number}")).await;
    }
    full.sign_in_with(&json!({ "id": "ann", "watchlist": ["bob", "eve"] })).await;
    assert_eq!(full.hear().await["event"], "pusher:signin_success");
    assert_eq!(full.hear().await["event"], "pusher_internal:watchlist_events");
    // The server's own groups leave the client's limit as it was.
    full.say("pusher:subscribe", json!({ "channel": "room-5" })).await;
    assert_eq!(full.hear().await["event"], "pusher:subscription_error");
    full.say("pusher:unsubscribe", json!({ "channel": "room-0" })).await;
    full.subscribe("room-5").await;
    let status = backend(&cluster, 1, "POST", "/apps/shop/users/ann/terminate_connections").await;
    assert_eq!(status, 200);
    assert_eq!(full.client.closed().await.code, 4009);
}

/// Whispers over the hosted service's limit are refused one by one with 4301; Reverb has no such limit.
#[tokio::test]
async fn client_event_limits_follow_the_apps_compat_setting() {
    let reverb = "[[apps]]\nid = \"free\"\ncompat = \"reverb\"\n[[apps.keys]]\nkey = \"free-key\"\n\
        secret = \"secret-of-the-shop\"\n";
    let cluster = Cluster::quiet(1).more(APPS).more(reverb).start().await;
    for (key, arrive) in [("shop-key", 10), ("free-key", 40)] {
        let mut clients = Vec::new();
        for _ in 0..2 {
            let url = format!("ws://{}/app/{key}", cluster.web(0));
            let mut client = Client::connect(&url).await;
            let hello = frame(&client.hear().await);
            let socket_id = data(&hello)["socket_id"].as_str().unwrap().to_owned();
            let channel = "private-room";
            let auth = sign(&format!("{socket_id}:{channel}")).replace("shop-key", key);
            let mut client = Pusher { client, socket_id };
            client.say("pusher:subscribe", json!({ "channel": channel, "auth": auth })).await;
            assert_eq!(client.hear().await["event"], "pusher_internal:subscription_succeeded");
            clients.push(client);
        }
        let mut listener = clients.pop().unwrap();
        let mut speaker = clients.pop().unwrap();
        for number in 0..40 {
            speaker.whisper_number("private-room", number).await;
        }
        // A second may end in between, and then more are let through.
        let mut refused = 0;
        speaker.say("pusher:ping", json!({})).await;
        loop {
            let heard = speaker.hear().await;
            if heard["event"] == "pusher:pong" {
                break;
            }
            assert_eq!((&heard["event"], &heard["data"]["code"]), (&json!("pusher:error"), &json!(4301)));
            refused += 1;
        }
        assert!(refused <= 40 - arrive && (refused > 0) == (arrive < 40), "{key}: {refused}");
        for _ in 0..40 - refused {
            assert_eq!(listener.hear().await["event"], "client-x");
        }
    }
}

/// A disabled or removed app has no clients, whatever they speak.
#[tokio::test]
async fn clients_of_a_removed_app_are_closed() {
    let text = free_address();
    let listener = format!(
        "[[gateway.listeners]]\nname = \"text\"\nkind = \"text\"\napp = \"shop\"\nservice = \"\"\nbind = \"{text}\"\n"
    );
    let cluster = Cluster::quiet(1).more(&listener).more(APPS).start().await;
    let config = cluster.dir.join("gateway-1.toml");
    let whole = std::fs::read_to_string(&config).unwrap();
    let disabled = whole.replace("id = \"shop\"", "id = \"shop\"\nenabled = false");
    let removed = whole.replace(APPS, "");
    let mut other = cluster.client(0).await;
    for (config_now, codes) in [(disabled, (4003, 4003)), (removed, (4001, 4001))] {
        let mut pusher = Pusher::connect(&cluster, 0).await;
        let mut raw = cluster.client_of(0, "shop").await;
        let mut plain = TcpStream::connect(text).await.unwrap();
        plain.write_all(b"hello\n").await.unwrap();
        cluster.id_of(0, "shop", &plain.local_addr().unwrap().to_string()).await;
        std::fs::write(&config, &config_now).unwrap();
        assert_eq!((pusher.client.closed().await.code, raw.closed().await.code), codes);
        let mut rest = Vec::new();
        soon("the text client is closed", plain.read_to_end(&mut rest)).await.unwrap();
        // Nor does it come back.
        let mut plain = TcpStream::connect(text).await.unwrap();
        let _ = soon("the text client is refused", plain.read_to_end(&mut rest)).await;
        std::fs::write(&config, &whole).unwrap();
        until("the app is back", async || {
            let url = format!("ws://{}/app/shop-key", cluster.web(0));
            Client::connect(&url).await.hear().await.contains("connection_established").then_some(())
        })
        .await;
    }
    let mut caller = cluster.caller(0).await;
    caller.send(crate::harness::text(clients(&[&other.id]), "still here")).await.unwrap();
    other.hears(&["still here"]).await;
}

/// Subscribes as a user, and says whether that was granted.
async fn may_join(client: &mut Pusher, channel: &str, user: &str) -> bool {
    let channel_data = json!({ "user_id": user }).to_string();
    let auth = sign(&format!("{}:{channel}:{channel_data}", client.socket_id));
    let subscribe = json!({ "channel": channel, "auth": auth, "channel_data": channel_data });
    client.say("pusher:subscribe", subscribe).await;
    let heard = client
        .hear_but(&[
            "pusher_internal:subscription_count",
            "pusher_internal:member_added",
            "pusher_internal:member_removed",
        ])
        .await;
    match heard["event"].as_str().unwrap() {
        "pusher_internal:subscription_succeeded" => {
            let count = data(&heard)["presence"]["count"].as_u64().unwrap();
            assert!(count <= 20, "{count} are present");
            true
        }
        "pusher:subscription_error" => {
            assert_eq!(heard["data"]["type"], "LimitReached", "{heard}");
            false
        }
        other => panic!("{other}: {heard}"),
    }
}

/// A presence channel has as many users as it may have and not one more, however many come at once and
/// wherever; also after its home is gone.
#[tokio::test]
async fn member_limit_holds_for_concurrent_joins() {
    const CHANNEL: &str = "presence-room";
    let app = format!("{APPS}[apps.limits]\npresence_members_max = 20\n");
    let mut cluster = Cluster::quiet(3).register("beat = \"500ms\"\nlease = \"3s\"").more(&app).start().await;
    let come = async |cluster: &Cluster, gateways: &[usize], users: Vec<String>| {
        let mut clients = Vec::new();
        for (number, user) in users.into_iter().enumerate() {
            let gateway = gateways[number % gateways.len()];
            clients.push((Pusher::connect(cluster, gateway).await, user, gateway));
        }
        let joining = clients.into_iter().map(|(mut client, user, gateway)| async move {
            let is_in = may_join(&mut client, CHANNEL, &user).await;
            (client, user, gateway, is_in)
        });
        futures_util::future::join_all(joining).await
    };
    // Every fourth user comes twice, at different gateways.
    let users =
        (0..75).map(|number| format!("user-{}", if number < 60 { number } else { 4 * (number - 60) }));
    // Somebody who is left when gateways are lost.
    let mut there = come(&cluster, &[0], vec!["witness".to_owned()]).await;
    there.extend(come(&cluster, &[0, 1, 2], users.collect()).await);
    there.retain(|(_, _, _, is_in)| *is_in);
    let mut present: std::collections::BTreeSet<String> =
        there.iter().map(|(_, user, _, _)| user.clone()).collect();
    assert_eq!(present.len(), 20, "{present:?}");

    for lost in [2, 1] {
        cluster.gateways[lost].kill();
        there.retain(|(_, _, gateway, _)| *gateway != lost);
        let left: std::collections::BTreeSet<String> =
            there.iter().map(|(_, user, _, _)| user.clone()).collect();
        // Who is left hears of everybody who is not.
        let (witness, own, _, _) = &mut there[0];
        let mut gone: Vec<_> = present.difference(&left).cloned().collect();
        while !gone.is_empty() {
            let heard = witness.hear().await;
            if heard["event"] == "pusher_internal:member_removed" {
                let user = data(&heard)["user_id"].as_str().unwrap().to_owned();
                assert_ne!(user, *own);
                gone.retain(|one| *one != user);
            }
        }
        let gateways: Vec<usize> = (0..lost).collect();
        let users = (0..40).map(|number| format!("late-{lost}-{number}")).collect();
        let late = come(&cluster, &gateways, users).await;
        there.extend(late.into_iter().filter(|(_, _, _, is_in)| *is_in));
        present = there.iter().map(|(_, user, _, _)| user.clone()).collect();
        assert_eq!(present.len(), 20, "{present:?}");
    }
}

/// An app has as many connections as it may have in the cluster, and at one gateway.
#[tokio::test]
async fn connection_limit_holds_over_the_cluster() {
    let limits = "id = \"shop\"\nconnections_max = 12\nconnections_per_gateway_max = 8";
    let cluster = Cluster::quiet(3).more(&APPS.replace("id = \"shop\"", limits)).start().await;
    let come = async |gateway: usize| {
        let mut client = Client::connect(&format!("ws://{}/app/shop-key", cluster.web(gateway))).await;
        let first = frame(&client.hear().await);
        match first["event"].as_str().unwrap() {
            "pusher:connection_established" => Some(client),
            _ => {
                assert_eq!(first["data"]["code"], 4004, "{first}");
                assert_eq!(client.closed().await.code, 4004);
                None
            }
        }
    };
    let all = futures_util::future::join_all((0..36).map(|number| come(number % 3))).await;
    let mut clients: Vec<Client> = all.into_iter().flatten().collect();
    assert_eq!(clients.len(), 12);
    // Places are given back, and taken again anywhere.
    for mut client in clients.drain(..4) {
        client.goodbye(1000, "").await;
    }
    for _ in 0..4 {
        // One of them may have its own share already.
        let anywhere = async || match come(0).await {
            None => come(1).await,
            client => client,
        };
        clients.push(until("there is a place again", anywhere).await);
    }
    assert!(come(1).await.is_none() && come(2).await.is_none());
    // One gateway takes no more than its own share, though the cluster has room.
    drop(clients);
    let mut here = Vec::new();
    for _ in 0..8 {
        here.push(until("there is a place again", async || come(0).await).await);
    }
    assert!(come(0).await.is_none());
    here.push(until("another gateway has places", async || come(1).await).await);
    // By its own share or the cluster's, a refusal says whose it was.
    let logs: String = cluster.gateways.iter().map(Process::log).collect();
    let mut lines = logs.lines().filter(|line| line.contains("reason=\"connections_max\"")).peekable();
    assert!(lines.peek().is_some());
    for line in lines {
        let whole = ["app=\"shop\"", "key=\"shop-key\"", "path=\"/app/shop-key\"", "address=127.0.0.1:"];
        assert!(whole.iter().all(|words| line.contains(words)), "{line}");
    }
}

/// Who subscribes too fast is refused, one by one, and nobody else is.
#[tokio::test]
async fn subscription_rate_is_limited() {
    let limits = "[apps.limits]\nsubscriptions_per_second_max = 1\nwatchlist_max = 1\n";
    let cluster =
        Cluster::quiet(1).limits("groups_per_client_max = 20").more(&format!("{APPS}{limits}")).start().await;
    let started = std::time::Instant::now();
    let mut rude = Pusher::connect(&cluster, 0).await;
    let (mut done, mut refused) = (0, 0);
    for number in 0..80 {
        let channel = format!("random-{number}");
        rude.say("pusher:subscribe", json!({ "channel": channel })).await;
        let heard = rude.hear().await;
        if heard["event"] == "pusher_internal:subscription_succeeded" {
            done += 1;
            rude.say("pusher:unsubscribe", json!({ "channel": channel })).await;
        } else {
            assert_eq!(
                (&heard["event"], &heard["data"]["status"]),
                (&json!("pusher:subscription_error"), &json!(429))
            );
            refused += 1;
        }
    }
    // As many as it may be in at once, and one for each second.
    let most = 21 + 2 + started.elapsed().as_secs();
    assert!(
        done >= 21 && done <= most && refused == 80 - done,
        "{done} of at most {most}, {refused} refused"
    );
    Pusher::connect(&cluster, 0).await.subscribe("room").await;
    // It gets what it may have as time passes.
    soon("it may subscribe again", async {
        loop {
            rude.say("pusher:subscribe", json!({ "channel": "late" })).await;
            if rude.hear().await["event"] == "pusher_internal:subscription_succeeded" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// An app whose clients subscribe to more than it may in a second waits, and nothing is refused.
#[tokio::test]
async fn app_that_subscribes_too_fast_waits() {
    let limits = "[apps.limits]\napp_subscriptions_per_second_max = 20\n";
    let cluster = Cluster::quiet(1).more(&format!("{APPS}{limits}")).start().await;
    let mut client = Pusher::connect(&cluster, 0).await;
    let started = std::time::Instant::now();
    for number in 0..34 {
        client.subscribe(&format!("room-{number}")).await;
    }
    // Ten in a second, by its shard, and one more: that is at least three seconds, of which two are whole.
    assert!(started.elapsed() >= std::time::Duration::from_secs(1), "{:?}", started.elapsed());
}
