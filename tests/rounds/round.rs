//! One round, from the first process to the record.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use broadgate_proto::v1;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    clients::{Client, Part},
    cluster::Cluster,
    driver,
    faults::schedule,
    ground::Ground,
    harness::{self, Caller},
    joiner::Joiner,
    live::Live,
    network::Network,
    presence::Presence,
    publishers::Publisher,
    record::{Message, Record},
    seed::Seed,
    wires::{Kind, group_name},
};

const GATEWAYS: usize = 3;
const CLIENTS: u16 = 300;
const GROUPS: usize = 100;
const GROUPS_PER_CLIENT: usize = 4;
/// Two for each gateway, also for the one that is added: one with unary calls, one with a stream.
const PUBLISHERS: u16 = 8;
const MESSAGES_PER_SECOND: f64 = 1000.0;
/// Fills the socket and the outbox of the client that stalled.
const FILLER_BYTES: usize = 256 * 1024;
const FILLERS_MAX: usize = 100;

pub async fn run(seed: u64, seconds: u64, network: Network, dir: PathBuf) -> Record {
    let ground = Arc::new(Ground::new(seed, network));
    let mut cluster = Cluster::start(Arc::clone(&ground), dir, GATEWAYS).await;
    let live = Arc::new(Live::default());
    let groups_of = groups_of(seed);
    let clients = start_clients(&ground, &live, seconds);
    let names = groups_of.iter().map(|groups| groups.iter().map(|group| group_name(*group)).collect());
    let joiner =
        Joiner { ground: Arc::clone(&ground), live: Arc::clone(&live), groups: Arc::new(names.collect()) };
    tokio::spawn(Arc::new(joiner).run());
    harness::until("all clients have joined", async || {
        (live.reading().1.len() == usize::from(CLIENTS)).then_some(())
    })
    .await;
    // The schedule counts from here: starting took as long as it took.
    let begun_ms = ground.now() / 1000;
    let mut publishers = start_publishers(&ground, begun_ms + seconds * 1000);
    tokio::spawn(fill_the_stalled(Arc::clone(&ground), Arc::clone(&live)));
    let steps = schedule(seed, GATEWAYS, seconds);
    let done = driver::drive(&mut cluster, &steps, begun_ms).await;
    let mut messages: Vec<Message> = Vec::new();
    while let Some(published) = publishers.join_next().await {
        messages.extend(published.unwrap());
    }
    // By now it has been read what was sent last.
    sleep(Duration::from_secs(1)).await;
    let gone_on_purpose: HashSet<u16> = [STALLS, CLOSES].into();
    let presence = Presence {
        ground: Arc::clone(&ground),
        live,
        groups_of: groups_of.clone(),
        groups: GROUPS,
        expected: usize::from(CLIENTS) - gone_on_purpose.len(),
    };
    let presence_errors = presence.errors().await;
    cluster.check_processes();
    ground.over.cancel();
    let connections = clients.join_all().await.into_iter().flatten().collect();
    let views = cluster.views.lock().unwrap().clone();
    for (epoch, gateways) in &views.0 {
        println!("view {epoch:?}: {gateways:?}");
    }
    Record {
        messages,
        connections,
        groups_of,
        views,
        deeds: done.deeds,
        quiet: done.quiet,
        gone_on_purpose,
        presence_errors,
        process_errors: std::mem::take(&mut cluster.errors),
    }
}

/// Each client is in some, all different.
fn groups_of(seed: u64) -> Vec<Vec<u16>> {
    let mut seed = Seed::of(seed, 2);
    let mut all: Vec<u16> = (0..u16::try_from(GROUPS).unwrap()).collect();
    let mut some = || {
        seed.shuffle(&mut all);
        all[..GROUPS_PER_CLIENT].to_vec()
    };
    (0..CLIENTS).map(|_| some()).collect()
}

/// The clients that do more than read.
const STALLS: u16 = 100;
const CLOSES: u16 = 101;
const IS_CUT: u16 = 102;

fn start_clients(
    ground: &Arc<Ground>,
    live: &Arc<Live>,
    seconds: u64,
) -> JoinSet<Vec<crate::record::Connection>> {
    let mut seed = Seed::of(ground.seed, 3);
    let mut some_time = || seed.between(seconds * 1000 / 5, seconds * 1000 / 2);
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let part = match number {
            STALLS => Part::Stalls { at_ms: some_time() },
            CLOSES => Part::Closes { at_ms: some_time() },
            IS_CUT => Part::IsCut { at_ms: some_time() },
            _ => Part::Reads,
        };
        let client = Client { number, part, ground: Arc::clone(ground), live: Arc::clone(live) };
        clients.spawn(client.live());
    }
    clients
}

fn start_publishers(ground: &Arc<Ground>, until_ms: u64) -> JoinSet<Vec<Message>> {
    let mut publishers = JoinSet::new();
    for number in 0..PUBLISHERS {
        let publisher = Publisher {
            number,
            kind: if number % 2 == 0 { Kind::Unary } else { Kind::Pipelined },
            home: usize::from(number / 2),
            per_second: MESSAGES_PER_SECOND / f64::from(PUBLISHERS),
            groups: GROUPS,
            ground: Arc::clone(ground),
        };
        publishers.spawn(publisher.publish(until_ms));
    }
    publishers
}

/// Sends the client that stalled more than its socket and its outbox hold, until it is closed.
async fn fill_the_stalled(ground: Arc<Ground>, live: Arc<Live>) {
    let id = loop {
        if let Some(id) = live.stalled_id() {
            break id;
        }
        sleep(Duration::from_millis(100)).await;
    };
    let filler = "f".repeat(FILLER_BYTES);
    for _ in 0..FILLERS_MAX {
        let place = ground.up_from(0).and_then(|gateway| ground.place(gateway));
        let sent = async {
            let mut caller = Caller::connect(format!("http://{}", place?.internal)).await.ok()?;
            let request: v1::SendRequest = harness::text(harness::clients(&[&id]), &filler);
            Some(caller.send(ground.request(request)).await.ok()?.into_inner())
        };
        if let Some(receipt) = sent.await
            && receipt.coverage.is_some_and(|coverage| coverage.complete)
            && receipt.clients == 0
        {
            println!("{:>6} ms  the stalled client is closed: {:?}", ground.now() / 1000, receipt.drops);
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}
