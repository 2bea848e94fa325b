//! Clients go from worker to worker and from open to closed, and nobody misses anything.

use std::collections::{BTreeMap, BTreeSet};

use broadgate_proto::v1::{self, Cause, event::Event as Kind};
use tokio::sync::watch;

use crate::harness::*;

fn echo(cluster: &Cluster, name: &str) -> Process {
    let register = format!("--register={}", cluster.register_address);
    Process::start(&cluster.dir, name, &["worker", "echo", &register, &format!("--name={name}")], &[])
}

/// Waits until exactly these workers are attached to both gateways.
async fn attached(cluster: &Cluster, names: &[&str]) {
    until(&format!("{names:?} are attached"), async || {
        let workers = cluster.status(0).await?.workers;
        let attached: BTreeSet<&str> =
            workers.iter().filter(|worker| worker.gateways == 2).map(|worker| worker.name.as_str()).collect();
        (attached == names.iter().copied().collect()).then_some(())
    })
    .await;
}

/// Says numbers and hears them back, some ahead of their echoes, until told to stop: each comes back
/// once, in order.
pub async fn converse(mut client: Client, stop: watch::Receiver<bool>) -> u32 {
    const AHEAD: u32 = 8;
    let mut said = 0;
    let mut heard = 0;
    loop {
        while said < heard + AHEAD && !*stop.borrow() {
            client.say(&said.to_string()).await;
            said += 1;
        }
        if heard == said {
            return said;
        }
        assert_eq!(client.hear().await, heard.to_string(), "neither lost, nor twice, nor out of order");
        heard += 1;
    }
}

/// Two workers, as processes, are replaced one after the other under echo traffic.
#[tokio::test]
async fn workers_are_replaced_under_traffic() {
    let cluster = Cluster::of(2).start().await;
    let (mut one, mut two) = (echo(&cluster, "one"), echo(&cluster, "two"));
    attached(&cluster, &["one", "two"]).await;
    let (stop, stopped) = watch::channel(false);
    let mut talking = Vec::new();
    for number in 0..24 {
        talking.push(tokio::spawn(converse(cluster.client(number % 2).await, stopped.clone())));
    }
    let _three = echo(&cluster, "three");
    attached(&cluster, &["one", "two", "three"]).await;
    one.signal("TERM");
    assert_eq!(one.ended().await.code(), Some(0));
    attached(&cluster, &["two", "three"]).await;
    let _four = echo(&cluster, "four");
    attached(&cluster, &["two", "three", "four"]).await;
    two.signal("TERM");
    assert_eq!(two.ended().await.code(), Some(0));
    attached(&cluster, &["three", "four"]).await;
    stop.send(true).unwrap();
    let mut sum = 0;
    for talk in talking {
        sum += soon("every echo comes", talk).await.unwrap();
    }
    println!("{sum} echoes");
    assert!(sum > 24 * 8);
}

/// A worker that joins takes over its share: each of these clients answers its old worker first, and
/// goes on with the new one, in order.
#[tokio::test]
async fn joining_worker_takes_over_its_share() {
    let cluster = Cluster::of(1).start().await;
    let mut first = TestWorker::attach(&cluster.internal[0], 1).await;
    let mut talking = BTreeMap::new();
    for _ in 0..20 {
        let client = cluster.client(0).await;
        first.take().await;
        talking.insert(client.id.clone(), client);
    }
    let mut held = Vec::new();
    for client in talking.values_mut() {
        client.say("1").await;
        held.push(first.event().await);
        client.say("2").await;
        held.push(first.event().await);
    }
    let second = TestWorker::attach(&cluster.internal[0], 2).await;
    // As long as something is unanswered, the old worker keeps its client.
    for client in talking.values_mut() {
        client.say("3").await;
    }
    for id in talking.keys() {
        cluster.unanswered(0, id, 3).await;
    }
    let status = cluster.status(0).await.unwrap();
    assert!(status.workers.iter().all(|worker| worker.clients == 0 || worker.name == "test-1"), "{status:?}");
    for event in &held {
        first.ack(event).await;
    }
    // From now on both answer everything.
    // What the test notes down; the test itself bounds it.
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    for (number, mut worker) in [(1, first), (2, second)] {
        let heard = heard.clone();
        tokio::spawn(async move {
            loop {
                let event = worker.take().await;
                let what = match &event.event {
                    Some(Kind::Adopted(_)) => "adopted".to_owned(),
                    Some(Kind::Moved(_)) => "moved".to_owned(),
                    _ => said(&event).unwrap_or("?").to_owned(),
                };
                assert!(!event.redelivered);
                heard.send((event.client_id, number, what)).unwrap();
            }
        });
    }
    let mut told: BTreeMap<String, BTreeMap<i32, Vec<String>>> = BTreeMap::new();
    let (mut thirds, mut fourths, mut moved, mut adopted) = (0, 0, 0, 0);
    while fourths < 20 || moved < adopted {
        let (client, number, what) = soon("an event", hears.recv()).await.unwrap();
        moved += u32::from(what == "moved");
        adopted += u32::from(what == "adopted");
        fourths += u32::from(what == "4");
        if what == "3" {
            thirds += 1;
            talking.get_mut(&client).unwrap().say("4").await;
        }
        told.entry(client).or_default().entry(number).or_default().push(what);
    }
    assert_eq!((thirds, fourths, moved), (20, 20, adopted));
    assert!((1..20).contains(&adopted), "each has a share: {adopted} of 20");
    for (client, mut by_worker) in told {
        let mut all = by_worker.remove(&1).unwrap_or_default();
        let at_second = by_worker.remove(&2).unwrap_or_default();
        if !at_second.is_empty() {
            assert_eq!(all.pop().as_deref(), Some("moved"), "{client}: the last word to the old worker");
            assert_eq!(at_second[0], "adopted", "{client}: the first word to the new one");
            all.extend(at_second.into_iter().skip(1));
        }
        assert_eq!(all, ["3", "4"], "{client}");
    }
}

/// A client whose window is full is not read, so it cannot show that it is there: it is not taken for
/// silent. That it has hung up is noticed all the same, and told after what it said.
#[tokio::test]
async fn unread_client_is_not_silent_and_may_disconnect() {
    let cluster = Cluster::of(1)
        .listener("ping_interval = \"1s\"\nsilence_max = \"3s\"")
        .limits("events_per_client_max = 4\nclose_time_max = \"1s\"")
        .start()
        .await;
    let mut worker = TestWorker::attach(&cluster.internal[0], 1).await;
    let mut unread = cluster.client(0).await;
    worker.take().await;
    for number in 0..20 {
        unread.say(&number.to_string()).await;
    }
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(worker.event().await);
    }
    // Clients that come later and answer no ping measure the time.
    for _ in 0..2 {
        let bytes =
            crate::malformed_input::answer(cluster.web(0), crate::malformed_input::UPGRADE.as_bytes(), false);
        let opened = worker.take();
        let (answer, opened) = tokio::join!(bytes, opened);
        assert!(matches!(opened.event, Some(Kind::Opened(_))), "{opened:?}");
        assert!(answer.windows(2).any(|two| two == 4201_u16.to_be_bytes()), "the silent one is closed");
        let closed = worker.take().await;
        assert!(
            matches!(&closed.event, Some(Kind::Closed(how)) if how.cause() == Cause::Silent),
            "{closed:?}"
        );
    }
    assert_eq!(cluster.details(0, &unread.id).await.events_unanswered, 4);
    let id = unread.id.clone();
    drop(unread);
    until("the hang-up is noticed", async || (cluster.count(0).await == 0).then_some(())).await;
    for event in &waiting {
        worker.ack(event).await;
    }
    let closed = worker.take().await;
    assert_eq!(closed.client_id, id);
    assert!(matches!(&closed.event, Some(Kind::Closed(how)) if how.cause() == Cause::Lost), "{closed:?}");
}

/// How a client may end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Goodbye,
    HangUp,
    BadFrame,
    TooLarge,
    Closed,
    CutAtOnce,
    Replaced,
}

impl End {
    const ALL: [Self; 7] = [
        Self::Goodbye,
        Self::HangUp,
        Self::BadFrame,
        Self::TooLarge,
        Self::Closed,
        Self::CutAtOnce,
        Self::Replaced,
    ];

    /// The worker's event.
    fn told(self) -> (Cause, u32) {
        match self {
            Self::Goodbye => (Cause::Client, 4711),
            Self::HangUp => (Cause::Lost, 1006),
            Self::BadFrame => (Cause::Protocol, 1002),
            Self::TooLarge => (Cause::Protocol, 1009),
            Self::Closed => (Cause::Command, 4321),
            // No close was sent.
            Self::CutAtOnce => (Cause::Command, 1006),
            Self::Replaced => (Cause::Command, 4009),
        }
    }

    /// Ends a client of the uid "ann" so; the client gets the same code, unless it left itself.
    async fn of(self, mut client: Client, caller: &mut Caller, successor: &str) {
        let close = v1::CloseRequest {
            to: Some(clients(&[&client.id])),
            code: 4321,
            reason: "enough".into(),
            at_once: self == Self::CutAtOnce,
            ..Default::default()
        };
        match self {
            Self::Goodbye => return client.goodbye(4711, "bye").await,
            Self::HangUp => return,
            Self::BadFrame => client.raw(b"\x83\x80\0\0\0\0").await,
            Self::TooLarge => client.say(&"x".repeat(1001)).await,
            Self::Closed | Self::CutAtOnce => {
                assert_eq!(caller.close(close).await.unwrap().into_inner().clients, 1);
            }
            Self::Replaced => {
                let exclusive = v1::BindRequest { exclusive: true, ..bind(successor, "ann") };
                caller.bind(exclusive).await.unwrap();
            }
        }
        assert_eq!(u32::from(client.closed().await.code), self.told().1, "{self:?}");
    }
}

/// However a client ends, its worker learns why, with the client's state.
#[tokio::test]
async fn closed_event_has_its_cause() {
    let cluster = Cluster::of(2).limits("message_bytes_max = 1000").start().await;
    let mut worker = TestWorker::attach(&cluster.internal[0], 1).await;
    let mut caller = cluster.caller(1).await;
    let successor = cluster.client(0).await;
    worker.take().await;
    for end in End::ALL {
        let client = cluster.client(0).await;
        let id = client.id.clone();
        worker.take().await;
        caller.bind(bind(&id, "ann")).await.unwrap();
        caller.join(join(&[&id], &["room"])).await.unwrap();
        let json = r#"{"k":1}"#.to_owned();
        let session = v1::SetSessionRequest { client_id: id.clone(), json, ..Default::default() };
        caller.set_session(session).await.unwrap();
        end.of(client, &mut caller, &successor.id).await;
        let event = worker.take().await;
        let Some(Kind::Closed(closed)) = &event.event else { panic!("{end:?}: {event:?}") };
        assert_eq!((closed.cause(), closed.code), end.told(), "{end:?}");
        assert_eq!((event.client_id.as_str(), event.uid.as_str()), (id.as_str(), "ann"), "{end:?}");
        assert_eq!(closed.groups, ["room"], "{end:?}");
        assert_eq!(event.session.unwrap().json, r#"{"k":1}"#, "{end:?}");
    }
}

/// Only workers of a service get its events; one that takes few at a time gets few.
#[tokio::test]
async fn workers_get_their_services_within_their_credit() {
    let cluster = Cluster::of(1).listener("service = \"orders\"").start().await;
    let other = TestWorker::attach(&cluster.internal[0], 1).await;
    let mut worker = TestWorker::attach_as(&cluster.internal[0], 2, |hello| {
        hello.services = vec!["orders".into(), "more".into()];
        hello.events_max = 3;
    })
    .await;
    let mut coming = Vec::new();
    for _ in 0..12 {
        coming.push(cluster.client(0).await);
    }
    let mut ids = BTreeSet::new();
    while ids.len() < 12 {
        let event = worker.event().await;
        assert_eq!((event.service.as_str(), event.listener.as_str()), ("orders", "web"));
        let status = cluster.status(0).await.unwrap();
        for seen in &status.workers {
            assert!(seen.events_unanswered <= if seen.name == "test-2" { 3 } else { 0 }, "{status:?}");
        }
        worker.ack(&event).await;
        assert!(ids.insert(event.client_id), "once each");
    }
    drop(other);
}
