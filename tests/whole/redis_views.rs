//! What is published through Redis while the view changes: a message may be lost or come twice in that moment, and never
//! before or after it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use serde_json::Value;

use crate::{
    harness::*,
    pusher::{self, Pusher},
    redis::{FakeRedis, event, readers},
};

const CHANNELS: u32 = 6;
/// Of a batch that is published while nothing changes.
const BATCH: u32 = 30;

/// Numbered messages, in turn to each channel.
struct Numbered {
    redis: FakeRedis,
    next: AtomicU32,
}

impl Numbered {
    fn publish(&self) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.redis.publish(&format!("x-room.{}", number % CHANNELS), &event(number, &Value::Null).0);
    }

    /// Publishes a batch; the first number of it.
    fn batch(&self) -> u32 {
        let first = self.next.load(Ordering::Relaxed);
        (0..BATCH).for_each(|_| self.publish());
        first
    }
}

/// How often a client has heard each number, once it has heard the whole batch that begins with `first`.
async fn heard(client: &mut Pusher, first: u32) -> HashMap<u32, u32> {
    let mut heard = HashMap::new();
    while (first..first + BATCH).any(|number| !heard.contains_key(&number)) {
        let number = pusher::data(&client.hear().await)["n"].as_u64().unwrap();
        *heard.entry(u32::try_from(number).unwrap()).or_insert(0) += 1;
    }
    heard
}

/// Publishes without a pause while the view changes, and then a batch: what of it clients have heard.
async fn around(
    numbered: &Arc<Numbered>,
    clients: &mut [Pusher],
    what: &str,
    change: impl Future<Output = ()>,
) {
    let before = numbered.next.load(Ordering::Relaxed);
    let changing = Arc::new(AtomicBool::new(true));
    let publisher = {
        let (numbered, changing) = (Arc::clone(numbered), Arc::clone(&changing));
        tokio::spawn(async move {
            while changing.load(Ordering::Relaxed) {
                numbered.publish();
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
    };
    change.await;
    changing.store(false, Ordering::Relaxed);
    publisher.await.unwrap();
    let after = numbered.batch();
    for client in clients {
        let heard = heard(client, after).await;
        let count = |numbers: std::ops::Range<u32>, times| {
            numbers.filter(|number| heard.get(number).copied().unwrap_or(0) == times).count()
        };
        let published = (after - before) as usize;
        let (lost, twice) = (count(before..after, 0), count(before..after, 2));
        println!("{what}: of {published} messages {lost} were lost, and {twice} came twice");
        assert_eq!(lost + twice + count(before..after, 1), published, "never more than twice: {heard:?}");
        assert_eq!(count(after..after + BATCH, 1), BATCH as usize, "after the change: {heard:?}");
        assert!(heard.keys().all(|number| *number >= before), "nothing of before comes again: {heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_lost_or_doubled_only_while_the_view_changes() {
    let redis = FakeRedis::start().await;
    let mut cluster = Cluster::quiet(2).more(&redis.app("shop", "x-")).start().await;
    cluster.synced().await;
    readers(&cluster, "shop", true).await;
    let numbered = Arc::new(Numbered { redis, next: AtomicU32::new(0) });
    let mut clients = [Pusher::connect(&cluster, 0).await, Pusher::connect(&cluster, 1).await];
    for client in &mut clients {
        for channel in 0..CHANNELS {
            client.subscribe(&format!("room.{channel}")).await;
        }
    }
    around(&numbered, &mut clients, "nothing", async {}).await;
    around(&numbered, &mut clients, "a gateway joins", async {
        cluster.add_gateway().await;
        cluster.ready().await;
        cluster.synced().await;
        readers(&cluster, "shop", true).await;
    })
    .await;
    around(&numbered, &mut clients, "a gateway leaves", async {
        assert_eq!(cluster.run(&["drain", "gateway-3", "--wait"]).0, 0);
        cluster.gateways.pop();
        cluster.internal.pop();
        cluster.listeners.pop();
        cluster.ready().await;
        cluster.synced().await;
    })
    .await;
}
