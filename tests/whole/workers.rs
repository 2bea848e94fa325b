//! Events: order, acknowledgement, redelivery, handing over.

use std::collections::HashMap;

use broadgate_proto::v1::{Cause, event::Event as Kind};

use crate::harness::*;

/// A gateway, a worker, and a client whose `opened` has been answered.
async fn one() -> (Cluster, TestWorker, Client) {
    let cluster = Cluster::of(1).start().await;
    let mut worker = TestWorker::attach(&cluster.internal[0], 1).await;
    let client = cluster.client(0).await;
    let opened = worker.take().await;
    assert!(matches!(opened.event, Some(Kind::Opened(_))), "{opened:?}");
    assert_eq!(opened.client_id, client.id);
    (cluster, worker, client)
}

#[tokio::test]
async fn events_come_in_order_with_session_uid_and_cause() {
    let (cluster, mut worker, mut client) = one().await;
    for number in 0..100 {
        client.say(&number.to_string()).await;
    }
    for number in 0..100 {
        worker.takes(&number.to_string()).await;
    }
    let mut caller = cluster.caller(0).await;
    caller.bind(bind(&client.id, "ann")).await.unwrap();
    caller.join(join(&[&client.id], &["room"])).await.unwrap();
    let session = broadgate_proto::v1::SetSessionRequest {
        client_id: client.id.clone(),
        json: r#"{"k":1}"#.into(),
        ..Default::default()
    };
    caller.set_session(session).await.unwrap();
    client.say("with session").await;
    let event = worker.takes("with session").await;
    assert_eq!((event.uid.as_str(), event.session.as_ref().unwrap().json.as_str()), ("ann", r#"{"k":1}"#));
    client.socket.close(None).await.unwrap();
    let closed = worker.take().await;
    let Some(Kind::Closed(how)) = &closed.event else { panic!("{closed:?}") };
    assert_eq!((how.cause(), how.code, &how.groups[..]), (Cause::Client, 1005, &["room".to_owned()][..]));
    assert_eq!((closed.uid.as_str(), closed.session.unwrap().version), ("ann", 1));
}

/// A session that the handler of the last message sets is in the closed event.
#[tokio::test]
async fn session_set_by_the_last_message_is_in_the_closed_event() {
    let (cluster, mut worker, mut client) = one().await;
    client.say("last").await;
    let last = worker.event().await;
    client.goodbye(1000, "").await;
    let mut caller = cluster.caller(0).await;
    until("the client is gone", async || {
        let get =
            broadgate_proto::v1::GetClientRequest { client_id: client.id.clone(), ..Default::default() };
        caller.clone().get_client(get).await.is_err().then_some(())
    })
    .await;
    let set = broadgate_proto::v1::SetSessionRequest {
        command_id: "once".into(),
        client_id: client.id.clone(),
        json: r#"{"left":true}"#.into(),
        ..Default::default()
    };
    for _ in 0..2 {
        // A repeat is answered with the session as it is.
        let reply = caller.set_session(set.clone()).await.unwrap().into_inner();
        assert_eq!(reply.session.unwrap().version, 1);
    }
    worker.ack(&last).await;
    let closed = worker.take().await;
    assert!(matches!(closed.event, Some(Kind::Closed(_))), "{closed:?}");
    assert_eq!(closed.session.unwrap().json, r#"{"left":true}"#);
    until("it is forgotten", async || caller.clone().set_session(set.clone()).await.err()).await;
}

/// A worker that does not answer stops its client from being read, and loses nothing of it.
#[tokio::test]
async fn client_with_a_full_window_is_not_read() {
    let (cluster, mut worker, mut client) = one().await;
    for number in 0..200 {
        client.say(&number.to_string()).await;
    }
    let mut held = Vec::new();
    for _ in 0..32 {
        held.push(worker.event().await);
    }
    let details = cluster.unanswered(0, &client.id, 32).await;
    assert_eq!(details.messages_in, 32, "not decoded beyond the window");
    for event in &held {
        worker.ack(event).await;
    }
    for number in 32..200 {
        worker.takes(&number.to_string()).await;
    }
    assert_eq!(
        held.iter().map(|event| said(event).unwrap().parse().unwrap()).collect::<Vec<u32>>(),
        (0..32).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn lost_workers_events_go_to_another_worker() {
    let (cluster, mut first, mut client) = one().await;
    for text in ["answered", "unanswered", "unseen"] {
        client.say(text).await;
    }
    first.takes("answered").await;
    let event = first.event().await;
    assert_eq!(said(&event), Some("unanswered"));
    cluster.unanswered(0, &client.id, 2).await;
    drop(first);
    let mut second = TestWorker::attach(&cluster.internal[0], 2).await;
    let adopted = second.take().await;
    assert!(matches!(adopted.event, Some(Kind::Adopted(_))), "{adopted:?}");
    assert_eq!(adopted.client_id, client.id);
    let again = second.takes("unanswered").await;
    assert!(again.redelivered);
    second.takes("unseen").await;
    client.say("after").await;
    assert!(!second.takes("after").await.redelivered);
}

/// Without a worker, a client that has sent something is held, and closed with 1013 after a while; one that is
/// silent stays.
#[tokio::test]
async fn without_a_worker_clients_are_held_and_then_closed() {
    let cluster = Cluster::of(1).limits("hold_time_max = \"1s\"").start().await;
    let mut held = Client::connect(&format!("ws://{}/ws", cluster.web(0))).await;
    let closed = held.closed().await;
    assert_eq!(closed.code, 1013, "{closed:?}");
    let mut worker = TestWorker::attach(&cluster.internal[0], 1).await;
    let mut client = cluster.client(0).await;
    worker.take().await;
    cluster.unanswered(0, &client.id, 0).await;
    drop(worker);
    until("the worker is gone", async || cluster.status(0).await.unwrap().workers.is_empty().then_some(()))
        .await;
    let mut again = TestWorker::attach(&cluster.internal[0], 2).await;
    let adopted = again.take().await;
    assert!(matches!(adopted.event, Some(Kind::Adopted(_))), "the silent client was kept: {adopted:?}");
    client.say("still here").await;
    again.takes("still here").await;
}

#[tokio::test]
async fn leaving_worker_answers_before_its_successor_continues() {
    let (cluster, mut first, mut client) = one().await;
    client.say("1").await;
    let unanswered = first.event().await;
    let mut second = TestWorker::attach(&cluster.internal[0], 2).await;
    first.leave().await;
    client.say("2").await;
    // What is new waits until what is old is answered.
    cluster.unanswered(0, &client.id, 2).await;
    assert!(!first.released);
    first.ack(&unanswered).await;
    first.wait_released().await;
    let adopted = second.take().await;
    assert!(matches!(adopted.event, Some(Kind::Adopted(_))), "{adopted:?}");
    assert!(!second.takes("2").await.redelivered);
}

/// Two workers are replaced one after the other while clients talk without pause: no event is lost,
/// repeated or out of order, and no client notices.
#[tokio::test]
async fn rolling_worker_replacement_is_not_noticed() {
    let cluster = Cluster::of(1).start().await;
    let attach = async |number| Talker::start(TestWorker::attach(&cluster.internal[0], number).await);
    let (mut a, mut b) = (attach(1).await, attach(2).await);
    let mut talking = Vec::new();
    for _ in 0..20 {
        let mut client = cluster.client(0).await;
        talking.push(tokio::spawn(async move {
            for number in 0..300 {
                client.say(&number.to_string()).await;
                if number % 10 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            client
        }));
    }
    let mut seen = Vec::new();
    let c = attach(3).await;
    seen.push(a.leave().await);
    let d = attach(4).await;
    seen.push(b.leave().await);
    let mut clients = Vec::new();
    for talk in talking {
        clients.push(soon("the client has said everything", talk).await.unwrap());
    }
    until("all is heard", async || (a.count() + b.count() + c.count() + d.count() == 20 * 300).then_some(()))
        .await;
    for mut talker in [c, d] {
        seen.push(talker.leave().await);
    }
    // In the order in which workers took over, each client's numbers are 0..300.
    let mut all: HashMap<String, Vec<u32>> = HashMap::new();
    for event in seen.iter().flatten() {
        assert!(!event.redelivered, "{event:?}");
        if let Some(text) = said(event) {
            all.entry(event.client_id.clone()).or_default().push(text.parse().unwrap());
        }
    }
    assert_eq!(all.len(), 20);
    for numbers in all.values_mut() {
        // A client may have gone to the third and then to the fourth worker, or the other way round.
        numbers.sort_unstable();
        assert_eq!(*numbers, (0..300).collect::<Vec<_>>(), "once each");
    }
    for events in &seen {
        let mut last: HashMap<&str, u32> = HashMap::new();
        for event in events {
            if let Some(number) = said(event).map(|text| text.parse().unwrap()) {
                let before = last.insert(&event.client_id, number);
                assert!(before.is_none_or(|before| before < number), "in order at each worker");
            }
        }
    }
}

/// A worker on a task of its own that answers everything and keeps it.
struct Talker {
    leave: Option<tokio::sync::oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<Vec<broadgate_proto::v1::Event>>,
    count: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Talker {
    fn start(mut worker: TestWorker) -> Self {
        let (leave, mut leaving) = tokio::sync::oneshot::channel();
        let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = count.clone();
        let task = tokio::spawn(async move {
            let mut events = Vec::new();
            let mut told = false;
            while !worker.released {
                tokio::select! {
                    event = worker.poll_event() => {
                        let Some(event) = event else { continue };
                        worker.ack(&event).await;
                        counted.fetch_add(usize::from(said(&event).is_some()), std::sync::atomic::Ordering::Relaxed);
                        events.push(event);
                    }
                    _ = &mut leaving, if !told => {
                        told = true;
                        worker.leave().await;
                    }
                }
            }
            events
        });
        Self { leave: Some(leave), task, count }
    }

    fn count(&self) -> usize {
        self.count.load(std::sync::atomic::Ordering::Relaxed)
    }

    async fn leave(&mut self) -> Vec<broadgate_proto::v1::Event> {
        self.leave.take().unwrap().send(()).unwrap();
        soon("the worker is released", &mut self.task).await.unwrap()
    }
}
