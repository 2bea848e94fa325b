//! Processes that are killed, paused and started again.

use std::sync::Arc;

use broadgate_business::{Client as Handled, Handler, Message, Worker, WorkerConfig};
use broadgate_proto::v1;
use tokio::sync::mpsc;

use crate::harness::*;

fn epoch(view: &v1::View) -> v1::Epoch {
    view.epoch.unwrap_or_default()
}

#[tokio::test]
async fn cluster_survives_a_register_restart() {
    let mut cluster = Cluster::quiet(2).start().await;
    let (mut a, mut b) = (cluster.client(0).await, cluster.client(1).await);
    let before = cluster.view().await.unwrap();
    cluster.register.as_mut().unwrap().kill();
    for (gateway, what) in [(0, "one"), (1, "two")] {
        let receipt = cluster.caller(gateway).await.send(text(all(), what)).await.unwrap().into_inner();
        assert_eq!((receipt.clients, receipt.coverage.unwrap().complete), (2, true), "traffic goes on");
    }
    a.hears(&["one", "two"]).await;
    cluster.start_register().await;
    let after = until("the members are back", async || {
        let view = cluster.view().await?;
        (view.members.len() == 2).then_some(view)
    })
    .await;
    assert!(epoch(&after).term > epoch(&before).term, "{after:?}");
    let incarnations =
        |view: &v1::View| view.members.iter().map(|m| m.incarnation.clone()).collect::<Vec<_>>();
    assert_eq!(incarnations(&after), incarnations(&before), "no member rejoined");
    cluster.add_gateway().await;
    cluster.linked().await;
    assert_eq!(cluster.caller(2).await.send(text(all(), "three")).await.unwrap().into_inner().clients, 2);
    b.hears(&["one", "two", "three"]).await;
}

#[tokio::test]
async fn second_register_takes_over() {
    let port = free_address();
    // A name is resolved again at every redial.
    let second = format!("localhost:{}", port.port());
    let mut cluster = Cluster::quiet(2).second_register(&second).start().await;
    let before = cluster.view().await.unwrap();
    cluster.register = None;
    let bind = format!("--bind={port}");
    let process = Process::start(&cluster.dir, "second", &["register", &bind], &[]);
    cluster.register = Some(process);
    cluster.register_address = port.to_string();
    let after = until("the members follow", async || {
        let view = cluster.view().await?;
        (view.members.len() == 2).then_some(view)
    })
    .await;
    assert!(epoch(&after).term > epoch(&before).term);
    assert_eq!(cluster.status(0).await.unwrap().gateways.len(), 2);
}

/// A register stands still, and members go to the one that runs beside it. When the first goes on, with all
/// members on its list, it steps down, or finds that they are gone: one register has them all, and nobody came
/// back as another.
#[tokio::test]
async fn paused_register_steps_down_for_its_rival() {
    let started = std::time::Instant::now();
    let port = free_address();
    let settings = Cluster::quiet(2).register("beat = \"500ms\"\nlease = \"2s\"");
    let mut cluster = settings.second_register(&port.to_string()).start().await;
    let mut client = cluster.client(0).await;
    let members = |view: &v1::View| view.members.iter().map(|m| m.incarnation.clone()).collect::<Vec<_>>();
    let before = members(&cluster.view().await.unwrap());
    let paused = cluster.register.take().unwrap();
    paused.signal("STOP");
    let bind = format!("--bind={port}");
    cluster.register = Some(Process::start(&cluster.dir, "second", &["register", &bind], &[]));
    cluster.register_address = port.to_string();
    let at_the_second = async || {
        until("all members are at the second register, and it is the only one", async || {
            for gateway in 0..2 {
                let status = cluster.status(gateway).await?;
                let register = status.gateways.iter().filter_map(|one| one.register.as_ref());
                let well = |one: &v1::FollowedRegister| one.heard && one.trouble.is_empty();
                (register.filter(|one| well(one)).count() == 2).then_some(())?;
                (status.register == port.to_string() && status.coverage?.complete).then_some(())?;
            }
            Some(())
        })
        .await;
    };
    at_the_second().await;
    paused.signal("CONT");
    // If its leases are looked at before anybody tells it of the other, it has no members left, and nothing to
    // step down from.
    until("the first steps down, or has removed all members", async || {
        let log = paused.log();
        (log.contains("this one steps down") || log.matches(" removed name=").count() == 2).then_some(())
    })
    .await;
    at_the_second().await;
    assert_eq!(members(&cluster.view().await.unwrap()), before);
    cluster.caller(1).await.send(text(all(), "undisturbed")).await.unwrap();
    client.hears(&["undisturbed"]).await;
    println!("{:.1?}", started.elapsed());
}

#[tokio::test]
async fn killed_gateway_costs_only_its_own_clients() {
    let mut cluster = Cluster::quiet(3).register("lease = \"4s\"").start().await;
    let mut lost = cluster.client(0).await;
    let mut kept = cluster.client(1).await;
    let mut caller = cluster.caller(2).await;
    caller.join(join(&[&lost.id, &kept.id], &["room"])).await.unwrap();
    cluster.gateways[0].kill();
    assert_eq!(lost.closed().await.code, 1006);
    let receipt = caller.send(text(groups(&["room"]), "first")).await.unwrap().into_inner();
    let coverage = receipt.coverage.unwrap();
    assert_eq!(receipt.clients, 1);
    if !coverage.complete {
        assert_eq!(coverage.missing, ["gateway-1"], "who did not answer is named");
    }
    until("the gateway is out of the view and counts are right", async || {
        let reply = cluster.caller(1).await.count(v1::CountRequest::default()).await.unwrap().into_inner();
        (reply.coverage.unwrap().complete && reply.app.unwrap().clients == 1).then_some(())
    })
    .await;
    let gone = v1::BindRequest { client_id: lost.id.clone(), uid: "x".into(), ..Default::default() };
    assert_eq!(caller.bind(gone).await.unwrap_err().code(), tonic::Code::NotFound);
    kept.hears(&["first"]).await;
    cluster.add_gateway().await;
}

#[tokio::test]
async fn paused_gateway_rejoins_as_another_incarnation() {
    let cluster = Cluster::quiet(2).register("beat = \"500ms\"\nlease = \"3s\"").start().await;
    let mut away = cluster.client(0).await;
    let mut kept = cluster.client(1).await;
    let before = cluster.view().await.unwrap();
    cluster.gateways[0].signal("STOP");
    let mut caller = cluster.caller(1).await;
    let reply = caller.count(v1::CountRequest::default()).await.unwrap().into_inner();
    let coverage = reply.coverage.unwrap();
    assert_eq!(
        (coverage.complete, &coverage.missing[..]),
        (false, &["gateway-1".to_owned()][..]),
        "never by omission"
    );
    until("it is removed", async || (cluster.view().await?.members.len() == 1).then_some(())).await;
    cluster.gateways[0].signal("CONT");
    assert_eq!(away.closed().await.code, 1012, "come back");
    let after = until("it has rejoined", async || {
        let view = cluster.view().await?;
        (view.members.len() == 2).then_some(view)
    })
    .await;
    let known = |member: &v1::Member| before.members.iter().any(|old| old.incarnation == member.incarnation);
    assert_eq!(after.members.iter().filter(|member| known(member)).count(), 1);
    cluster.linked().await;
    let mut again = cluster.client(0).await;
    assert_ne!(again.id[..10], away.id[..10]);
    assert_eq!(caller.send(text(all(), "both")).await.unwrap().into_inner().clients, 2);
    again.hears(&["both"]).await;
    kept.hears(&["both"]).await;
}

/// The events of an SDK worker.
struct Tell(mpsc::Sender<(String, String)>);

impl Handler for Tell {
    async fn message(&self, client: &Handled, message: Message) -> anyhow::Result<()> {
        self.0
            .send((client.id().to_owned(), format!("said {}", message.as_str().unwrap_or_default())))
            .await?;
        Ok(())
    }

    async fn closed(
        &self,
        client: &Handled,
        closed: broadgate_business::worker::Closed,
    ) -> anyhow::Result<()> {
        self.0.send((client.id().to_owned(), format!("closed {:?}", closed.cause))).await?;
        Ok(())
    }
}

async fn sdk_worker(
    cluster: &Cluster,
    gateways: u32,
) -> (mpsc::Receiver<(String, String)>, Arc<tokio::sync::Notify>) {
    let (told, hears) = mpsc::channel(1000);
    let stop = Arc::new(tokio::sync::Notify::new());
    let config =
        WorkerConfig { registers: vec![cluster.register_address.clone()], ..WorkerConfig::default() };
    let stopping = stop.clone();
    tokio::spawn(async move {
        Worker::new(config).run(Tell(told), async move { stopping.notified().await }).await
    });
    until("the worker is attached everywhere", async || {
        let status = cluster.status(0).await?;
        status.workers.iter().any(|worker| worker.gateways == gateways).then_some(())
    })
    .await;
    (hears, stop)
}

#[tokio::test]
async fn worker_learns_of_every_client_lost_with_a_gateway() {
    let mut cluster = Cluster::of(2).register("lease = \"4s\"").start().await;
    let (mut hears, stop) = sdk_worker(&cluster, 2).await;
    let mut lost = Vec::new();
    for number in 0..10 {
        let mut client = cluster.client(0).await;
        client.say(&number.to_string()).await;
        lost.push(client);
    }
    let mut kept = cluster.client(1).await;
    kept.say("kept").await;
    for _ in 0..11 {
        soon("a message event", hears.recv()).await.unwrap();
    }
    cluster.gateways[0].kill();
    let mut closed = std::collections::BTreeMap::new();
    while closed.len() < 10 {
        let (client, what) = soon("a lost client", hears.recv()).await.unwrap();
        assert_eq!(what, "closed GatewayLost");
        assert!(closed.insert(client, what).is_none(), "once each");
    }
    assert!(lost.iter().all(|client| closed.contains_key(&client.id)));
    kept.say("still here").await;
    assert_eq!(soon("it goes on", hears.recv()).await.unwrap().1, "said still here");
    stop.notify_one();
}

/// A worker process is killed in the middle of echo traffic: every client gets each of its answers,
/// some perhaps twice, and none loses its connection.
#[tokio::test]
async fn clients_do_not_notice_a_killed_worker() {
    let cluster = Cluster::of(2).start().await;
    let start = |name: &str| {
        let register = format!("--register={}", cluster.register_address);
        Process::start(&cluster.dir, name, &["worker", "echo", &register, &format!("--name={name}")], &[])
    };
    let (mut first, _second) = (start("one"), start("two"));
    until("both are attached", async || {
        let status = cluster.status(0).await?;
        (status.workers.iter().filter(|worker| worker.gateways == 2).count() == 2).then_some(())
    })
    .await;
    let mut echoing = Vec::new();
    let (half, mut halves) = mpsc::channel(20);
    for number in 0..20 {
        let mut client = cluster.client(number % 2).await;
        let half = half.clone();
        echoing.push(tokio::spawn(async move {
            for turn in 0..100 {
                if turn == 50 {
                    half.send(()).await.unwrap();
                }
                let text = turn.to_string();
                client.say(&text).await;
                // A repeat of an earlier echo may come before.
                while client.hear().await != text {}
            }
        }));
    }
    soon("some are half way", halves.recv()).await;
    first.kill();
    for echo in echoing {
        soon("every echo comes", echo).await.unwrap();
    }
    until("the killed one is out of the view", async || {
        let view = cluster.view().await?;
        (view.members.len() == 3).then_some(())
    })
    .await;
}

/// It knows nobody but itself, so nothing that it adds up is complete.
#[tokio::test]
async fn status_outside_of_the_view_is_incomplete() {
    let mut cluster = Cluster::quiet(1).start().await;
    cluster.register.take().unwrap().kill();
    let internal = free_address().to_string();
    let args = [
        "gateway",
        "--register",
        &cluster.register_address,
        "--name=late",
        "--internal-bind",
        &internal,
        "--client-bind=127.0.0.1:0",
        "--raw-app=default",
    ];
    let _late = Process::start(&cluster.dir, "late", &args, &cluster.environment());
    cluster.internal.push(internal);
    let status = until("the late gateway answers", async || cluster.status(1).await).await;
    assert_eq!(status.gateways.len(), 1);
    assert!(!status.coverage.unwrap().complete);
    cluster.start_register().await;
    until("it is in the view, and its answers are complete", async || {
        let status = cluster.status(1).await?;
        (status.gateways.len() == 2 && status.coverage?.complete).then_some(())
    })
    .await;
}
