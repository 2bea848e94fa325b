//! Workers that do not do as the contract says harm nobody but themselves.

use broadgate_proto::v1::{
    self, Accept, Acks, Event, Refuse, WorkerFrame, WorkerHello, decision::Decision, event::Event as Kind,
    worker_client::WorkerClient, worker_frame::Frame,
};
use tokio_tungstenite::tungstenite::Error;

use crate::harness::*;

fn status(result: Result<Client, Error>) -> u16 {
    match result.map(|_| ()).unwrap_err() {
        Error::Http(answer) => answer.status().as_u16(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn attachment_requires_a_valid_hello() {
    let cluster = Cluster::of(1).start().await;
    let good = WorkerHello {
        incarnation: broadgate_proto::id::Incarnation::from_bits(1).to_string(),
        name: "test".to_owned(),
        services: vec!["default".to_owned()],
        ..WorkerHello::default()
    };
    let cases = [
        (Frame::Acks(Acks { seqs: vec![1] }), "must start with a hello"),
        (Frame::Hello(WorkerHello { services: Vec::new(), ..good.clone() }), "services"),
        (Frame::Hello(WorkerHello { services: vec![String::new()], ..good.clone() }), "services"),
        (Frame::Hello(WorkerHello { incarnation: "me".into(), ..good.clone() }), "not an incarnation"),
        (Frame::Hello(WorkerHello { name: String::new(), ..good.clone() }), "name"),
    ];
    for (first, words) in cases {
        let mut client = WorkerClient::connect(format!("http://{}", cluster.internal[0])).await.unwrap();
        let frames = tokio_stream::iter([WorkerFrame { frame: Some(first) }]);
        let refused = client.attach(frames).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(words), "{refused}");
    }
    assert!(cluster.status(0).await.unwrap().workers.is_empty());
}

/// Answers to what was never asked, twice, or of somebody else.
#[tokio::test]
async fn unexpected_answers_are_ignored() {
    let cluster = Cluster::of(1).start().await;
    let mut worker = TestWorker::attach(&cluster.internal[0], 1).await;
    let other = TestWorker::attach_as(&cluster.internal[0], 2, |hello| {
        hello.services = vec!["another".into()];
    })
    .await;
    let mut client = cluster.client(0).await;
    let opened = worker.event().await;
    for seq in [0, 1, 255, opened.seq + 256_000, u64::MAX, u64::MAX - 255] {
        worker.ack(&Event { seq, ..Event::default() }).await;
    }
    // Another worker's answers are not this one's.
    other.ack(&opened).await;
    worker.decide(&Event { seq: u64::MAX, ..Event::default() }, Decision::Refuse(Refuse::default())).await;
    client.say("first").await;
    let first = worker.event().await;
    assert_eq!(said(&first), Some("first"));
    cluster.unanswered(0, &client.id, 2).await;
    // A decision about what is no handshake is an answer like any other.
    worker.decide(&opened, Decision::Refuse(Refuse::default())).await;
    for _ in 0..3 {
        worker.ack(&first).await;
    }
    cluster.unanswered(0, &client.id, 0).await;
    client.say("second").await;
    worker.takes("second").await;
}

/// A client accepted under an invalid identity is refused, not admitted without one.
#[tokio::test]
async fn invalid_accept_refuses_the_client() {
    let cluster =
        Cluster::of(1).listener("authorize = \"worker\"").limits("groups_per_client_max = 2").start().await;
    let mut worker = TestWorker::attach(&cluster.internal[0], 1).await;
    let url = format!("ws://{}/ws", cluster.web(0));
    let long = "x".repeat(201);
    let groups = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    for accept in [
        Accept { uid: long.clone(), ..Accept::default() },
        Accept { uid: "a\nb".into(), ..Accept::default() },
        Accept { groups: groups(&["good", ""]), ..Accept::default() },
        Accept { groups: groups(&[&long]), ..Accept::default() },
        Accept { groups: groups(&["a", "b", "c"]), ..Accept::default() },
        Accept { session_json: "[1]".into(), ..Accept::default() },
        Accept { session_json: "{".into(), ..Accept::default() },
        Accept { session_json: format!("{{\"x\":\"{}\"}}", "y".repeat(20_000)), ..Accept::default() },
    ] {
        let url = url.clone();
        let coming = tokio::spawn(async move { Client::try_connect(&url, &[]).await });
        let asked = worker.event().await;
        assert!(matches!(asked.event, Some(Kind::Handshake(_))), "{asked:?}");
        worker.decide(&asked, Decision::Accept(accept.clone())).await;
        assert_eq!(status(coming.await.unwrap()), 500, "{accept:?}");
    }
    for (asked_for, told) in [(0, 403), (200, 403), (101, 403), (451, 451), (70_000, 403)] {
        let url = url.clone();
        let coming = tokio::spawn(async move { Client::try_connect(&url, &[]).await });
        let asked = worker.event().await;
        worker.decide(&asked, Decision::Refuse(Refuse { status: asked_for, body: "no".into() })).await;
        assert_eq!(status(coming.await.unwrap()), told, "{asked_for}");
    }
    assert_eq!(cluster.count(0).await, 0);
    let coming = tokio::spawn(async move { Client::try_connect(&url, &[]).await });
    let asked = worker.event().await;
    let accept = Accept { uid: "ann".into(), groups: groups(&["a", "b"]), ..Accept::default() };
    worker.decide(&asked, Decision::Accept(accept)).await;
    let mut client = coming.await.unwrap().unwrap();
    assert_eq!(worker.take().await.uid, "ann");
    cluster.caller(0).await.send(text(uids(&["ann"]), "welcome")).await.unwrap();
    client.hears(&["welcome"]).await;
}

/// A worker that lost its stream attaches again before the gateway has noticed: the newer stream is it.
#[tokio::test]
async fn worker_that_attaches_twice_is_one_worker() {
    let cluster = Cluster::of(1).start().await;
    let mut older = TestWorker::attach(&cluster.internal[0], 1).await;
    let mut client = cluster.client(0).await;
    older.take().await;
    client.say("to the older").await;
    let unanswered = older.event().await;
    assert_eq!(said(&unanswered), Some("to the older"));
    let mut newer = TestWorker::attach(&cluster.internal[0], 1).await;
    // Every shard answers behind the news of it, so every shard has heard of it.
    cluster.status(0).await.unwrap();
    let second = cluster.client(0).await;
    let opened = newer.event().await;
    assert_eq!(opened.client_id, second.id);
    drop(older);
    // It may have handled it on the other stream.
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let event = newer.take().await;
        match &event.event {
            Some(Kind::Adopted(_)) => seen.push("adopted"),
            _ => {
                assert_eq!((said(&event), event.redelivered), (Some("to the older"), true));
                seen.push("again");
            }
        }
        assert_eq!(event.client_id, client.id);
    }
    assert_eq!(seen, ["adopted", "again"]);
    newer.ack(&opened).await;
    client.say("to the newer").await;
    newer.takes("to the newer").await;
    let workers = cluster.status(0).await.unwrap().workers;
    assert_eq!(workers.iter().map(|worker| (worker.clients, worker.gateways)).collect::<Vec<_>>(), [(2, 1)]);
}

/// A caller that sends commands and never reads an answer is held back, not stored.
#[tokio::test]
async fn caller_that_does_not_read_is_held_back() {
    let cluster = Cluster::quiet(2).start().await;
    let mut client = cluster.client(0).await;
    let (commands, queue) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(queue);
    // Its answers are not read.
    let answers = cluster.caller(1).await.commands(stream).await.unwrap().into_inner();
    let asked = std::cell::Cell::new(0_u64);
    let asking = async {
        // A page with everything about a client: answers of some size.
        let fields = vec![1, 2, 3, 4, 5];
        let list = v1::ListClientsRequest { of: Some(all()), fields, ..Default::default() };
        while asked.get() < 100_000 {
            let command = Some(v1::command::Command::ListClients(list.clone()));
            let one = v1::Command { id: asked.get(), command, after: None };
            commands
                .send(v1::CommandBatch { commands: vec![one] })
                .await
                .unwrap_or_else(|_| panic!("cut off after {}", asked.get()));
            asked.set(asked.get() + 1);
        }
    };
    // Everybody else goes on, and measures the time.
    let mut caller = cluster.caller(1).await;
    let others = async {
        let (mut before, mut still) = (0, 0);
        while still < 200 {
            caller.send(text(all(), "for others")).await.unwrap();
            client.hears(&["for others"]).await;
            still = if asked.get() == before { still + 1 } else { 0 };
            before = asked.get();
        }
    };
    tokio::select! {
        () = asking => panic!("all commands were taken, and not one answer was read"),
        () = others => println!("held back after {} commands", asked.get()),
    }
    // Once it reads, all that it asked is answered.
    drop(commands);
    let mut answers = answers;
    let mut answered = 0;
    while let Some(batch) = soon("answers come", answers.message()).await.unwrap() {
        answered += batch.answers.len() as u64;
    }
    assert!(answered.abs_diff(asked.get()) <= 1, "{answered} of {}", asked.get());
}
