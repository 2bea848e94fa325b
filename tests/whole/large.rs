//! What is as large as it may be, and what has grown large: nothing breaks by it.

use std::{collections::HashMap, time::Duration};

use broadgate_proto::v1::{self, ClientField, PresenceMember};

use crate::{harness::*, pusher};

/// The ids of all clients but one, by their local addresses: connections to different gateways may have the same.
async fn ids_without(other: &Client, cluster: &Cluster, gateway: usize) -> HashMap<String, String> {
    let (mut ids, mut cursor) = (HashMap::new(), String::new());
    loop {
        let fields = vec![ClientField::Connection.into()];
        let list =
            v1::ListClientsRequest { of: Some(all()), fields, limit: 1000, cursor, ..Default::default() };
        let page = cluster.caller(gateway).await.list_clients(list).await.unwrap().into_inner();
        let clients = page.clients.into_iter().filter(|client| client.client_id != other.id);
        ids.extend(clients.map(|client| (client.address, client.client_id)));
        if page.next_cursor.is_empty() {
            return ids;
        }
        cursor = page.next_cursor;
    }
}

/// More than gRPC takes as one message: links carry it all the same, also when everything is said again.
#[tokio::test]
async fn huge_roster_does_not_cut_gateways_apart() {
    const USERS: usize = 1200;
    const BYTES: usize = 4000;
    // Some have their home at each gateway.
    let rooms = ["room-0", "room-1", "room-2", "room-3"];
    let cluster = Cluster::quiet(2).start().await;
    let other = cluster.client(1).await;
    let mut clients = Vec::new();
    for _ in 0..USERS {
        clients.push(Client::connect(&format!("ws://{}/ws", cluster.web(0))).await);
    }
    let mut caller = cluster.caller(0).await;
    caller.join(join(&[&other.id], &rooms)).await.unwrap();
    let ids = ids_without(&other, &cluster, 0).await;
    for (user, client) in clients.iter().enumerate() {
        let member = PresenceMember { user_id: format!("user-{user:05}"), info: "i".repeat(BYTES) };
        let request = join(&[&ids[&client.local]], &rooms);
        caller.join(v1::JoinGroupsRequest { member: Some(member), ..request }).await.unwrap();
    }
    // A pause breaks the links: everything is said again.
    cluster.gateways[1].signal("STOP");
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.gateways[1].signal("CONT");
    cluster.linked().await;
    cluster.synced().await;
    for (gateway, room) in (0..2).flat_map(|gateway| rooms.map(|room| (gateway, room))) {
        let mut caller = cluster.caller(gateway).await;
        let receipt = caller.send(text(groups(&[room]), "hello")).await.unwrap().into_inner();
        let complete = receipt.coverage.as_ref().unwrap().complete;
        assert_eq!((receipt.clients, complete), (USERS as u64 + 1, true), "{room} at {gateway}: {receipt:?}");
        let (mut cursor, mut members) = (String::new(), 0);
        loop {
            let group = room.to_owned();
            let request = v1::RosterRequest { group, limit: 1000, cursor, ..Default::default() };
            let page = caller.roster(request).await.unwrap().into_inner();
            members += page.members.len();
            assert!(page.members.iter().all(|member| member.info.len() == BYTES));
            cursor = page.next_cursor;
            if cursor.is_empty() {
                break;
            }
        }
        assert_eq!(members, USERS, "{room} at gateway {gateway}");
    }
    for gateway in &cluster.gateways {
        let log = gateway.log();
        assert!(!log.contains("again and again"), "{log}");
    }
}

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn message_of_any_admitted_size_closes_no_client() {
    let cluster = Cluster::quiet(1).more(pusher::APPS).start().await;
    let mut subscribers = Vec::new();
    for _ in 0..3 {
        let mut subscriber = pusher::Pusher::connect(&cluster, 0).await;
        subscriber.subscribe("room").await;
        subscribers.push(subscriber);
    }
    let mut raw = cluster.client_of(0, "shop").await;
    let mut caller = cluster.caller(0).await;
    let to = |audience: v1::Audience| v1::Audience { app: "shop".into(), ..audience };
    for size in [MIB, MIB - 1, MIB - 9] {
        let payload = "x".repeat(size);
        let receipt = caller.send(text(to(clients(&[&raw.id])), &payload)).await.unwrap().into_inner();
        assert_eq!((receipt.clients, receipt.drops.len()), (1, 0));
        assert!(raw.hear().await == payload);
    }
    // JSON makes it twice as long: it is refused, and nobody pays for it.
    let event = |text_: &str| v1::SendRequest { event: "e".into(), ..text(to(groups(&["room"])), text_) };
    let refused = caller.send(event(&"\"".repeat(600_000))).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(refused.message().contains("1200"), "{refused}");
    let whole = "x".repeat(MIB);
    assert_eq!(caller.send(event(&whole)).await.unwrap().into_inner().clients, 3);
    for subscriber in &mut subscribers {
        let heard = subscriber.hear().await;
        assert_eq!(heard["event"], "e");
        assert!(heard["data"] == whole.as_str());
    }
    // A raw client gets the text itself, which is not longer.
    let quotes = "\"".repeat(600_000);
    assert_eq!(caller.send(text(to(clients(&[&raw.id])), &quotes)).await.unwrap().into_inner().clients, 1);
    assert!(raw.hear().await == quotes);
}

/// As large as nearly every suite of tests of WebSocket servers sends them.
#[tokio::test]
async fn huge_message_goes_to_a_worker_and_back() {
    // A slow machine takes its time for such a message between two gateways.
    let limits = "message_bytes_max = 67108864\nlink_timeout = \"10s\"";
    let cluster = Cluster::of(2).limits(limits).start().await;
    let register = format!("--register={}", cluster.register_address);
    let _echo = Process::start(&cluster.dir, "echo", &["worker", "echo", &register, "--name=echo"], &[]);
    let mut client = cluster.client(0).await;
    let mut other = cluster.client(1).await;
    for size in [16 * MIB, 5 * MIB, 10] {
        let said = "m".repeat(size);
        client.say(&said).await;
        assert!(client.hear().await == said, "{size}");
    }
    // Over the link between the gateways, too.
    let large = "l".repeat(12 * MIB);
    let mut caller =
        cluster.caller(0).await.max_encoding_message_size(usize::MAX).max_decoding_message_size(usize::MAX);
    for to in [clients(&[&other.id]), all()] {
        let receipt = caller.send(text(to, &large)).await.unwrap().into_inner();
        assert!(receipt.coverage.unwrap().complete && receipt.drops.is_empty());
        assert!(other.hear().await == large);
    }
    let (code, _, problem) = {
        let path = cluster.dir.join("wrong.toml");
        let limits = "[gateway.limits]\nmessage_bytes_max = 4000000\noutbox_bytes_max = 2000000\n";
        std::fs::write(&path, limits).unwrap();
        cluster.run(&["check-config", &path.display().to_string()])
    };
    assert!(code == 2 && problem.contains("outbox_bytes_max"), "{code} {problem}");
}

/// Large messages do not multiply by the number of events: a client is not read while its worker has bytes
/// enough to answer, and one message always goes.
#[tokio::test]
async fn client_window_is_bounded_in_bytes() {
    const MESSAGES: usize = 6;
    let limits = "message_bytes_max = 4194304\nevents_per_client_bytes_max = 1048576";
    let cluster = Cluster::of(1).limits(limits).start().await;
    let mut worker = TestWorker::attach_as(&cluster.internal[0], 1, |_| {}).await;
    let (mut loud, mut other) = (cluster.client(0).await, cluster.client(0).await);
    for _ in 0..2 {
        worker.take().await;
    }
    let id = loud.id.clone();
    // Each is larger than the window, and small ones come behind.
    let says = tokio::spawn(async move {
        for number in 0..MESSAGES {
            loud.say(&format!("{number}{}", "x".repeat(2 * MIB))).await;
        }
        for number in MESSAGES..2 * MESSAGES {
            loud.say(&number.to_string()).await;
        }
        loud
    });
    let number = |event: &v1::Event| -> usize {
        let text = said(event).unwrap();
        text[..text.find('x').unwrap_or(text.len())].parse().unwrap()
    };
    for expected in 0..MESSAGES {
        let held = worker.event().await;
        assert_eq!((held.client_id.as_str(), number(&held)), (id.as_str(), expected));
        // Meanwhile another client is served: nothing more came of this one.
        for round in 0..3 {
            let text = format!("other-{expected}-{round}");
            other.say(&text).await;
            worker.takes(&text).await;
        }
        assert_eq!(cluster.details(0, &id).await.events_unanswered, 1);
        worker.ack(&held).await;
    }
    // By number as before.
    for expected in MESSAGES..2 * MESSAGES {
        assert_eq!(number(&worker.take().await), expected);
    }
    drop(says.await.unwrap());
}
