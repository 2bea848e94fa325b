//! A message at which workers die: it is given up, its client closed, and nobody else loses anything.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use broadgate_proto::v1::{Cause, Event, event::Event as Kind};
use tokio::time::{Instant, timeout_at};

use crate::harness::*;

/// How long a worker thinks about an event.
const THINKS: Duration = Duration::from_millis(20);

/// What clients have said and workers have answered, by client.
type Answered = BTreeMap<String, Vec<String>>;

/// Works until a message says "die": then everything that it has not answered is left so.
async fn live(internal: &str, number: u64, answered: &mut Answered, closed: &mut Vec<Event>) {
    let mut worker = TestWorker::attach(internal, number).await;
    let mut thinking: VecDeque<(Instant, Event)> = VecDeque::new();
    loop {
        let next = thinking.front().map_or_else(|| Instant::now() + GENEROUS, |(at, _)| *at);
        let Ok(event) = timeout_at(next, worker.event()).await else {
            let Some((_, event)) = thinking.pop_front() else { continue };
            worker.ack(&event).await;
            if let Some(text) = said(&event) {
                answered.entry(event.client_id.clone()).or_default().push(text.to_owned());
            } else if matches!(event.event, Some(Kind::Closed(_))) {
                closed.push(event);
            }
            continue;
        };
        if said(&event) == Some("die") {
            return;
        }
        thinking.push_back((Instant::now() + THINKS, event));
    }
}

#[tokio::test]
async fn messages_that_kill_workers_are_isolated() {
    const INNOCENTS: usize = 12;
    const MESSAGES: usize = 60;
    const KILLERS: usize = 2;
    let cluster = Cluster::of(1).start().await;
    let internal = cluster.internal[0].clone();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let workers = tokio::spawn(async move {
        let (mut answered, mut closed, mut deaths) = (Answered::new(), Vec::new(), 0);
        loop {
            tokio::select! {
                () = live(&internal, deaths + 1, &mut answered, &mut closed) => deaths += 1,
                _ = &mut stopped => return (answered, closed, deaths),
            }
        }
    });
    let mut innocents = Vec::new();
    for _ in 0..INNOCENTS {
        innocents.push(cluster.client(0).await);
    }
    let mut killers = Vec::new();
    for _ in 0..KILLERS {
        killers.push(cluster.client(0).await);
    }
    for number in 0..MESSAGES {
        if number == 10 {
            for killer in &mut killers {
                killer.say("before").await;
                killer.say("die").await;
                killer.say("behind").await;
            }
        }
        for innocent in &mut innocents {
            innocent.say(&number.to_string()).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for killer in &mut killers {
        let end = killer.closed().await;
        assert_eq!((end.code, end.reason.as_str()), (4011, "workers crashed on a message"));
    }
    for innocent in &innocents {
        cluster.unanswered(0, &innocent.id, 0).await;
    }
    until("the killers are gone", async || (cluster.count(0).await == INNOCENTS as u64).then_some(())).await;
    let _ = stop.send(());
    let (answered, closed, deaths) = workers.await.unwrap();
    // Each was unanswered when two workers died, perhaps the same two, and alone when a third did.
    let expected = 2 + KILLERS as u64..=3 * KILLERS as u64;
    assert!(expected.contains(&deaths), "{deaths} workers died");
    let all: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    for innocent in &innocents {
        // What was under way at a death is given out again, so it may be answered once more than once.
        let mut texts = answered[&innocent.id].clone();
        texts.dedup();
        assert_eq!(texts, all, "of {}", innocent.id);
    }
    assert!(closed.iter().all(|event| killers.iter().any(|killer| killer.id == event.client_id)));
    assert!(closed.iter().all(|event| {
        matches!(&event.event, Some(Kind::Closed(how)) if how.cause() == Cause::Event && how.code == 4011)
    }));
    let log = cluster.gateways[0].log();
    assert_eq!(log.matches("workers die of an event").count(), KILLERS, "{log}");
}

/// An honest worker may be ended at any time, also twice in a row: nobody is blamed for that.
#[tokio::test]
async fn workers_that_crash_twice_convict_no_client() {
    let cluster = Cluster::of(1).start().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(cluster.client(0).await);
    }
    for client in &mut clients {
        client.say("hello").await;
    }
    for number in 1..=2 {
        let mut crashes = TestWorker::attach(&cluster.internal[0], number).await;
        let mut messages = 0;
        while messages < clients.len() {
            let event = crashes.event().await;
            match said(&event) {
                Some(_) => messages += 1,
                None => crashes.ack(&event).await,
            }
        }
    }
    let mut last = TestWorker::attach(&cluster.internal[0], 3).await;
    let mut greeted = Vec::new();
    while greeted.len() < clients.len() {
        let event = last.take().await;
        if said(&event) == Some("hello") {
            assert!(event.redelivered);
            greeted.push(event.client_id);
        }
    }
    for client in &mut clients {
        client.say("still here").await;
        last.takes("still here").await;
    }
}

/// While a gateway tries an event alone, its other shards send the worker nothing: what kills it there cannot
/// convict the event that is tried.
#[tokio::test]
async fn killer_at_another_shard_does_not_convict_the_event_that_is_tried() {
    const OTHERS: usize = 20;
    let cluster = Cluster::of(1).start().await;
    let mut innocent = cluster.client(0).await;
    let mut others = Vec::new();
    for _ in 0..OTHERS {
        others.push(cluster.client(0).await);
    }
    innocent.say("slow").await;
    // Two workers are lost with it, and have answered everything else.
    for number in 1..=2 {
        let mut lost = TestWorker::attach(&cluster.internal[0], number).await;
        let (mut rest, mut got) = (OTHERS + 1, false);
        while rest > 0 || !got {
            let event = lost.event().await;
            if said(&event) == Some("slow") {
                got = true;
            } else {
                lost.ack(&event).await;
                rest -= 1;
            }
        }
        for client in &others {
            cluster.unanswered(0, &client.id, 0).await;
        }
    }
    let mut third = TestWorker::attach(&cluster.internal[0], 3).await;
    let tried = loop {
        let event = third.event().await;
        if said(&event) == Some("slow") {
            break event;
        }
        third.ack(&event).await;
    };
    for client in &mut others {
        client.say("die").await;
    }
    // It dies of whatever comes now, and otherwise answers.
    let came = tokio::time::timeout(Duration::from_millis(1500), third.event()).await;
    let mut last = match came {
        Ok(event) => {
            assert_eq!(said(&event), Some("die"));
            drop(third);
            TestWorker::attach(&cluster.internal[0], 4).await
        }
        Err(_) => {
            third.ack(&tried).await;
            third
        }
    };
    let mut died = 0;
    while died < OTHERS {
        died += usize::from(said(&last.take().await) == Some("die"));
    }
    innocent.say("still here").await;
    loop {
        let event = last.take().await;
        if event.client_id == innocent.id && said(&event) == Some("still here") {
            break;
        }
    }
    assert!(!cluster.gateways[0].log().contains("workers die of an event"));
}
