//! Pusher clients, and the API of their backends, by hand: what an unmodified client cannot show. The
//! protocol with real clients is in `tests/clients`.

use broadgate_business::cluster::{Audience as To, Cluster as Sdk, ClusterConfig, Payload, Who};
use serde_json::{Value, json};

use crate::harness::*;

pub const APPS: &str = "[[apps]]\nid = \"shop\"\nraw = true\nsubscription_count = true\n\
    [[apps.keys]]\nkey = \"shop-key\"\nsecret = \"secret-of-the-shop\"\n";

/// A Pusher client, and its socket id.
pub struct Pusher {
    pub client: Client,
    pub socket_id: String,
}

pub fn frame(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// `data` of a frame, which is JSON within JSON.
pub fn data(frame: &Value) -> Value {
    serde_json::from_str(frame["data"].as_str().unwrap()).unwrap()
}

impl Pusher {
    pub async fn connect(cluster: &Cluster, gateway: usize) -> Self {
        Self::with_key(cluster, gateway, SHOP_KEY.0).await
    }

    pub async fn with_key(cluster: &Cluster, gateway: usize, key: &str) -> Self {
        let url =
            format!("ws://{}/app/{key}?protocol=7&client=js&version=8.6.0&flash=false", cluster.web(gateway));
        Self::of(Client::connect(&url).await).await
    }

    /// A client that has connected, and is greeted.
    pub async fn of(mut client: Client) -> Self {
        let hello = frame(&client.hear().await);
        assert_eq!(hello["event"], "pusher:connection_established");
        let socket_id = data(&hello)["socket_id"].as_str().unwrap().to_owned();
        Self { client, socket_id }
    }

    pub async fn say(&mut self, event: &str, data: Value) {
        self.client.say(&json!({ "event": event, "data": data }).to_string()).await;
    }

    /// The next frame that is of none of these events.
    pub async fn hear_but(&mut self, passed_over: &[&str]) -> Value {
        loop {
            let heard = frame(&self.client.hear().await);
            if !passed_over.contains(&heard["event"].as_str().unwrap()) {
                return heard;
            }
        }
    }

    pub async fn hear(&mut self) -> Value {
        self.hear_but(&["pusher_internal:subscription_count"]).await
    }

    pub async fn subscribe(&mut self, channel: &str) -> Value {
        self.say("pusher:subscribe", json!({ "channel": channel, "auth": "" })).await;
        let heard = self.hear().await;
        assert_eq!(heard["event"], "pusher_internal:subscription_succeeded", "{heard}");
        heard
    }

    /// As a user; the signature is what the app's backend would give.
    pub async fn join(&mut self, channel: &str, user: &str) -> Value {
        let channel_data = json!({ "user_id": user }).to_string();
        let auth = sign(&format!("{}:{channel}:{channel_data}", self.socket_id));
        self.say(
            "pusher:subscribe",
            json!({ "channel": channel, "auth": auth, "channel_data": channel_data }),
        )
        .await;
        let heard = self.hear().await;
        assert_eq!(heard["event"], "pusher_internal:subscription_succeeded", "{heard}");
        heard
    }
}

/// A key of the app, and its secret.
pub type Key = (&'static str, &'static str);
pub const SHOP_KEY: Key = ("shop-key", "secret-of-the-shop");

pub fn sign(text: &str) -> String {
    sign_with(SHOP_KEY, text)
}

pub fn sign_with((key, secret): Key, text: &str) -> String {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{key}:{signature}")
}

pub async fn sdk(cluster: &Cluster) -> Sdk {
    let registers = vec![cluster.register_address.clone()];
    let config = ClusterConfig { registers, ..ClusterConfig::default() };
    Sdk::connect(config).await.unwrap().in_app("shop")
}

fn group(name: &str) -> To {
    To::group(name)
}

/// One publish reaches raw and Pusher clients, each in its protocol, wherever they are.
#[tokio::test]
async fn raw_and_pusher_clients_share_groups() {
    let cluster = Cluster::quiet(2).more(APPS).start().await;
    let mut raw = cluster.client_of(0, "shop").await;
    let mut pusher = Pusher::connect(&cluster, 1).await;
    pusher.subscribe("room").await;
    let shop = sdk(&cluster).await;
    shop.join(Who::client(&raw.id), ["room"]).await.unwrap();

    let receipt = shop.send(group("room"), Payload::event("OrderShipped", r#"{"id":1}"#)).await.unwrap();
    assert_eq!(receipt.clients, 2);
    let named = json!({ "event": "OrderShipped", "channel": "room", "data": r#"{"id":1}"# });
    assert_eq!((frame(&raw.hear().await), pusher.hear().await), (named.clone(), named));
    shop.send(group("room"), "plain").await.unwrap();
    raw.hears(&["plain"]).await;
    assert_eq!(pusher.hear().await, json!({ "event": "message", "channel": "room", "data": "plain" }));

    // Bytes have no form in the Pusher protocol: they are dropped there, and counted.
    let receipt = shop.send(group("room"), b"bytes".to_vec()).await.unwrap();
    assert_eq!((receipt.clients, receipt.drops["protocol"]), (1, 1));
    assert_eq!(raw.message().await.into_data(), &b"bytes"[..]);
    // By one of several groups, the event is of the channel that the client is in.
    shop.send(To::groups(["other", "room"]), Payload::event("e", "1")).await.unwrap();
    assert_eq!(pusher.hear().await["channel"], "room");
    let (code, out, _) = cluster.run(&["send", "--app", "shop", "--group", "room", "--event", "cli", "2"]);
    assert_eq!(code, 0, "{out}");
    assert_eq!(pusher.hear().await, json!({ "event": "cli", "channel": "room", "data": "2" }));
}

/// What is published after a subscription was confirmed arrives, through whatever gateway.
#[tokio::test]
async fn confirmed_subscription_misses_nothing() {
    let cluster = Cluster::quiet(3).more(APPS).start().await;
    let shop = sdk(&cluster).await;
    let mut pusher = Pusher::connect(&cluster, 2).await;
    for number in 0..50 {
        let channel = format!("news-{number}");
        pusher.subscribe(&channel).await;
        shop.send(group(&channel), Payload::event("e", number.to_string())).await.unwrap();
        let heard = pusher.hear().await;
        assert_eq!(
            (heard["channel"].as_str(), heard["data"].as_str()),
            (Some(&*channel), Some(&*number.to_string()))
        );
    }
}

/// Who is present, by what a client was told.
#[derive(Debug, Default)]
struct Present(std::collections::BTreeSet<String>);

impl Present {
    fn of(succeeded: &Value) -> Self {
        let data = data(succeeded);
        let ids = data["presence"]["ids"].as_array().unwrap();
        assert_eq!(data["presence"]["count"], ids.len());
        Self(ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect())
    }

    /// Each user joins and leaves in turn, and no user sees itself.
    fn hear(&mut self, heard: &Value, own: &str) {
        let user = data(heard)["user_id"].as_str().unwrap().to_owned();
        assert_ne!(user, own);
        match heard["event"].as_str().unwrap() {
            "pusher_internal:member_added" => assert!(self.0.insert(user), "{heard} twice"),
            "pusher_internal:member_removed" => assert!(self.0.remove(&user), "{heard} was not there"),
            other => panic!("{other}"),
        }
    }
}

/// Everybody comes at once, everywhere; then a gateway is killed.
#[tokio::test]
async fn presence_is_consistent_after_a_crash() {
    let mut cluster = Cluster::quiet(3).register("beat = \"500ms\"\nlease = \"3s\"").more(APPS).start().await;
    let mut clients = Vec::new();
    for number in 0..12 {
        clients.push((Pusher::connect(&cluster, number % 3).await, format!("user-{number}")));
    }
    let joining = clients.into_iter().map(|(mut client, user)| async move {
        let succeeded = client.join("presence-room", &user).await;
        (client, user, Present::of(&succeeded))
    });
    let mut clients = futures_util::future::join_all(joining).await;
    let everybody: Vec<String> = clients.iter().map(|(_, user, _)| user.clone()).collect();
    for (client, user, present) in &mut clients {
        assert!(present.0.contains(user));
        while present.0.len() < everybody.len() {
            present.hear(&client.hear().await, user);
        }
    }
    // The home of the channel, or one that is not: either way, four users are lost.
    for lost in [2, 1] {
        cluster.gateways[lost].kill();
        let (gone, stay): (Vec<_>, Vec<_>) =
            clients.into_iter().partition(|(_, user, _)| user[5..].parse::<usize>().unwrap() % 3 == lost);
        clients = stay;
        for (client, user, present) in &mut clients {
            for _ in 0..gone.len() {
                present.hear(&client.hear().await, user);
            }
            assert!(gone.iter().all(|(_, user, _)| !present.0.contains(user)), "{present:?}");
        }
    }
    let left: Vec<_> = clients.iter().map(|(_, user, _)| user.clone()).collect();
    let (mut late, _) = (Pusher::connect(&cluster, 0).await, ());
    let present = Present::of(&late.join("presence-room", "late").await);
    assert_eq!(present.0.len(), left.len() + 1, "{present:?}");
}

/// A cache channel's event outlives any one gateway while another has a subscriber.
#[tokio::test]
async fn cached_event_survives_a_gateway() {
    let mut cluster = Cluster::quiet(3).register("beat = \"500ms\"\nlease = \"3s\"").more(APPS).start().await;
    let shop = sdk(&cluster).await;
    let channels: Vec<String> = (0..10).map(|number| format!("cache-{number}")).collect();
    let mut pusher = Pusher::connect(&cluster, 0).await;
    for channel in &channels {
        pusher.subscribe(channel).await;
        assert_eq!(pusher.hear().await, json!({ "event": "pusher:cache_miss", "channel": channel }));
        shop.send(group(channel), Payload::event("price", "1")).await.unwrap();
        assert_eq!(pusher.hear().await["event"], "price");
    }
    // Some of the channels have their home there.
    cluster.gateways[1].kill();
    for gateway in [0, 2] {
        for channel in &channels {
            let cached = json!({ "event": "price", "channel": channel, "data": "1" });
            until("the event is still there", async || {
                let mut late = Pusher::connect(&cluster, gateway).await;
                late.subscribe(channel).await;
                (late.hear().await == cached).then_some(())
            })
            .await;
        }
    }
}

/// Subscribers get their count, and signed-in users the online status of their watchlist.
#[tokio::test]
async fn counts_and_watchlists_are_sent() {
    let mut cluster = Cluster::quiet(2).register("beat = \"500ms\"\nlease = \"3s\"").more(APPS).start().await;
    let count = |number: u64| {
        let data = format!("{{\"subscription_count\":{number}}}");
        json!({ "event": "pusher_internal:subscription_count", "channel": "room", "data": data })
    };
    let (mut ann, mut bob) = (Pusher::connect(&cluster, 0).await, Pusher::connect(&cluster, 1).await);
    ann.subscribe("room").await;
    assert_eq!(ann.hear_but(&[]).await, count(1));
    bob.subscribe("room").await;
    assert_eq!(ann.hear_but(&[]).await, count(2));

    for (client, user, watchlist) in [(&mut ann, "ann", vec!["bob", "eve"]), (&mut bob, "bob", vec![])] {
        let user_data = json!({ "id": user, "watchlist": watchlist }).to_string();
        let auth = sign(&format!("{}::user::{user_data}", client.socket_id));
        client.say("pusher:signin", json!({ "auth": auth, "user_data": user_data })).await;
        let heard = client.hear().await;
        assert_eq!(
            (&heard["event"], &data(&heard)["user_data"]),
            (&json!("pusher:signin_success"), &json!(user_data))
        );
    }
    let mut online = std::collections::BTreeMap::new();
    let heard_of = async |ann: &mut Pusher, online: &mut std::collections::BTreeMap<String, bool>| {
        let heard = ann.hear().await;
        assert_eq!(heard["event"], "pusher_internal:watchlist_events", "{heard}");
        for event in data(&heard)["events"].as_array().unwrap() {
            for user in event["user_ids"].as_array().unwrap() {
                online.insert(user.as_str().unwrap().to_owned(), event["name"] == "online");
            }
        }
    };
    // Bob may have come before or after ann was told of all.
    while online.get("bob") != Some(&true) {
        heard_of(&mut ann, &mut online).await;
    }
    assert!(!online["eve"]);
    cluster.gateways[1].kill();
    while online["bob"] {
        heard_of(&mut ann, &mut online).await;
    }
}

/// Clients go on by what the apps say now; a drain lets them come back elsewhere.
#[tokio::test]
async fn clients_are_closed_with_the_protocols_codes() {
    let cluster = Cluster::quiet(1).more(APPS).start().await;
    let mut first = Pusher::connect(&cluster, 0).await;
    let config = cluster.dir.join("gateway-1.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let with = |more: &str| text.replace("id = \"shop\"", &format!("id = \"shop\"\n{more}"));
    std::fs::write(&config, with("enabled = false")).unwrap();
    assert_eq!(first.client.closed().await.code, 4003);
    let url = format!("ws://{}/app/shop-key", cluster.web(0));
    let closed = Client::connect(&url).await.closed().await;
    assert!(closed.code == 4003 && closed.before[0].contains("pusher:error"), "{closed:?}");
    std::fs::write(&config, with("connections_max = 1\nauthorized_within = \"1s\"")).unwrap();
    let mut second = until("the app is back", async || {
        let mut client = Client::connect(&url).await;
        client.hear().await.contains("connection_established").then_some(client)
    })
    .await;
    assert_eq!(Client::connect(&url).await.closed().await.code, 4004);
    assert_eq!(second.closed().await.code, 4009);
    for (url, code) in
        [("/app/nobody", 4001), ("/app/shop-key?protocol=3", 4007), ("/app/shop-key?protocol=x", 4006)]
    {
        let mut client = Client::connect(&format!("ws://{}{url}", cluster.web(0))).await;
        assert_eq!(client.closed().await.code, code, "{url}");
    }
    std::fs::write(&config, &text).unwrap();
    let mut third = until("the limits are gone", async || {
        let mut client = Client::connect(&url).await;
        client.hear().await.contains("connection_established").then_some(client)
    })
    .await;
    cluster.gateways[0].signal("TERM");
    assert_eq!(third.closed().await.code, 4200);
}

/// A frame far beyond the limit ends its own connection, and what still comes of it is thrown away.
#[tokio::test]
async fn endless_frame_harms_no_other_client() {
    let cluster = Cluster::quiet(1).more(APPS).start().await;
    let shop = sdk(&cluster).await;
    let mut witnesses = Vec::new();
    for _ in 0..6 {
        let mut witness = Pusher::connect(&cluster, 0).await;
        witness.subscribe("room").await;
        witnesses.push(witness);
    }
    for _ in 0..4 {
        let mut rude = Pusher::connect(&cluster, 0).await;
        let mut bytes = vec![0x81, 0xff];
        bytes.extend(2_000_000_u64.to_be_bytes());
        bytes.resize(500_000, b'x');
        rude.client.raw(&bytes).await;
        rude.client.raw(&bytes).await;
        assert!([1009, 1006].contains(&rude.client.closed().await.code));
    }
    shop.send(group("room"), Payload::event("e", "undisturbed")).await.unwrap();
    for witness in &mut witnesses {
        assert_eq!(witness.hear().await["data"], "undisturbed");
    }
}
