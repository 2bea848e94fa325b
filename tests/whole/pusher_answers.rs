//! What Pusher clients are answered when the cluster cannot do what they asked for.

use serde_json::json;

use crate::{
    harness::*,
    pusher::{APPS, Pusher, sign},
};

/// Subscribes, and returns the name of the event that answers it, and its status if it is an error.
async fn answered(client: &mut Pusher, channel: &str) -> (String, u64) {
    let data = json!({ "user_id": "ann" }).to_string();
    let subscribe = match channel.starts_with("presence-") {
        true => {
            let auth = sign(&format!("{}:{channel}:{data}", client.socket_id));
            json!({ "channel": channel, "auth": auth, "channel_data": data })
        }
        false => json!({ "channel": channel }),
    };
    client.say("pusher:subscribe", subscribe).await;
    let heard = client.hear().await;
    assert_eq!(heard["channel"], channel, "{heard}");
    (heard["event"].as_str().unwrap().to_owned(), heard["data"]["status"].as_u64().unwrap_or(0))
}

/// Two gateways that cannot hear each other, and are both in the view: a channel whose home is the other one
/// is confirmed after some seconds, which the log and a counter say; a presence channel, whose members nobody
/// knows, is refused.
#[tokio::test]
async fn subscription_without_its_home_is_refused_without_a_wrong_roster() {
    let cluster =
        Cluster::quiet(2).proxied().more(APPS).more("[metrics]\nbind = \"127.0.0.1:0\"").start().await;
    let metrics = cluster.gateways[0].logged("metrics and probes address=").await.parse().unwrap();
    let channels: Vec<String> =
        (0..24).flat_map(|number| [format!("presence-{number}"), format!("room-{number}")]).collect();
    let mut clients = Vec::new();
    for _ in &channels {
        clients.push(Pusher::connect(&cluster, 0).await);
    }
    let mut there = Pusher::connect(&cluster, 1).await;
    for channel in &channels {
        assert_eq!(answered(&mut there, channel).await.0, "pusher_internal:subscription_succeeded");
    }
    cluster.cut(0, 1, Fault::Blackhole);
    cluster.cut(1, 0, Fault::Blackhole);
    let asked = clients.iter_mut().zip(&channels).map(|(client, channel)| answered(client, channel));
    let answers = futures_util::future::join_all(asked).await;
    let mut refused = 0;
    for (channel, (event, status)) in channels.iter().zip(answers) {
        if event == "pusher:subscription_error" {
            assert!(channel.starts_with("presence-") && status == 503, "{channel}: {status}");
            refused += 1;
        }
    }
    // Each name has its home at either gateway, by chance: that none of so many is at the second is as good as impossible.
    assert!(refused > 0, "no presence channel was refused");
    let log = cluster.gateways[0].log();
    assert!(
        log.contains("did not answer a subscription in time") && log.contains("channel=\"presence-"),
        "{log}"
    );
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let told = crate::malformed_input::answer(metrics, request.as_bytes(), false).await;
    let told = String::from_utf8(told).unwrap();
    let count = |outcome: &str| -> u64 {
        let name = format!("subscriptions_without_home_total{{outcome=\"{outcome}\"}} ");
        told.split_once(&name).unwrap().1.lines().next().unwrap().parse().unwrap()
    };
    assert_eq!(count("refused"), refused);
    assert!(count("confirmed") > 0, "{told}");
    // What was refused may be asked for again.
    cluster.mend(0, 1);
    cluster.mend(1, 0);
    cluster.linked().await;
    for channel in channels.iter().filter(|name| name.starts_with("presence-")) {
        let mut late = Pusher::connect(&cluster, 0).await;
        assert_eq!(answered(&mut late, channel).await.0, "pusher_internal:subscription_succeeded");
    }
}

/// What the cluster does not take of a client event that the gateway has read is answered as every other
/// refusal is.
#[tokio::test]
async fn queued_client_event_that_is_refused_is_answered() {
    // The app admits longer names than a command may have.
    let app = format!("{APPS}[apps.limits]\nevent_name_bytes_max = 300\n");
    let app = app.replace("subscription_count", "client_events");
    let cluster = Cluster::quiet(1).more(&app).start().await;
    let mut clients = [Pusher::connect(&cluster, 0).await, Pusher::connect(&cluster, 0).await];
    for client in &mut clients {
        let auth = sign(&format!("{}:private-room", client.socket_id));
        client.say("pusher:subscribe", json!({ "channel": "private-room", "auth": auth })).await;
        assert_eq!(client.hear().await["event"], "pusher_internal:subscription_succeeded");
    }
    let [one, other] = &mut clients;
    let whisper = |name: &str| json!({ "event": name, "channel": "private-room", "data": [1] }).to_string();
    one.client.say(&whisper(&format!("client-{}", "x".repeat(250)))).await;
    let heard = one.hear().await;
    assert_eq!((&heard["event"], &heard["data"]["code"]), (&json!("pusher:error"), &json!(4301)), "{heard}");
    assert!(heard["data"]["message"].as_str().unwrap().starts_with("Client event rejected - "), "{heard}");
    // It goes on.
    one.client.say(&whisper("client-short")).await;
    assert_eq!(other.hear().await["event"], "client-short");
}

/// Connections that came while an app had no limit count when it gets one; they stay, also if they are too many.
#[tokio::test]
async fn connections_from_before_a_limit_count() {
    let cluster = Cluster::quiet(2).more(APPS).start().await;
    let come = async |gateway: usize| {
        let mut client = Client::connect(&format!("ws://{}/app/shop-key", cluster.web(gateway))).await;
        client.hear().await.contains("connection_established").then_some(client)
    };
    let mut clients = Vec::new();
    for number in 0..6 {
        clients.push(come(number % 2).await.expect("there is no limit"));
    }
    let set_limit = async |max: u32| {
        for name in ["gateway-1", "gateway-2"] {
            let config = cluster.dir.join(format!("{name}.toml"));
            let text = std::fs::read_to_string(&config).unwrap();
            let kept: Vec<_> = text.lines().filter(|line| !line.starts_with("connections_max")).collect();
            let limited = format!("id = \"shop\"\nconnections_max = {max}");
            std::fs::write(&config, kept.join("\n").replace("id = \"shop\"", &limited) + "\n").unwrap();
        }
        for gateway in &cluster.gateways {
            until("the apps are read again", async || {
                let count = gateway.log().matches("apps read again").count();
                (count >= if max == 4 { 1 } else { 2 }).then_some(())
            })
            .await;
        }
    };
    // Six are more than four: nobody else comes in, and nobody has to go.
    set_limit(4).await;
    until("the limit holds at both", async || {
        let refused = come(0).await.is_none() && come(1).await.is_none();
        refused.then_some(())
    })
    .await;
    for client in &mut clients {
        client.say("{\"event\":\"pusher:ping\"}").await;
        assert!(client.hear().await.contains("pusher:pong"));
    }
    // Two more fit into eight.
    set_limit(8).await;
    let mut more = Vec::new();
    for gateway in [0, 1] {
        more.push(until("there is room", async || come(gateway).await).await);
    }
    assert!(come(0).await.is_none() && come(1).await.is_none());
    // Their places are given back like all others.
    drop(clients);
    until("there is room again", async || come(0).await).await;
}
