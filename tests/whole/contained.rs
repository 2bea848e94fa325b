//! A panic that concerns one stream ends this stream and nothing else; it is counted and logged.

use std::net::SocketAddr;

use broadgate_proto::v1::{self, command::Command};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::tungstenite::Message;
use tonic::Code;

use crate::{flood::METRICS, harness::*, metrics::scrape};

async fn metrics_of(process: &Process) -> SocketAddr {
    process.logged("metrics and probes address=").await.parse().unwrap()
}

/// Panics of this part, as the metrics have them.
async fn panics(address: SocketAddr, part: &str) -> u64 {
    let series = format!("broadgate_task_panics_total{{task=\"{part}\"}} ");
    let page = scrape(address).await;
    page.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or(0)
}

/// The part has panicked once, and its process has noted it.
async fn noted(part: &str, process: &Process) {
    let metrics = metrics_of(process).await;
    until("the panic is counted", async || (panics(metrics, part).await == 1).then_some(())).await;
    let log = process.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("a task panicked")).collect();
    assert!(matches!(told[..], [one] if one.contains(part)), "{log}");
}

/// A client's next text, or none if its connection has ended.
async fn next(client: &mut Client) -> Option<String> {
    loop {
        match soon("a text or the end", client.socket.next()).await {
            Some(Ok(Message::Text(text))) => return Some(text.as_str().to_owned()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            _ => return None,
        }
    }
}

#[tokio::test]
async fn panic_at_one_client_closes_only_this_client() {
    let cluster = Cluster::quiet(1).more(METRICS).fault("client").start().await;
    let mut both = [cluster.client(0).await, cluster.client(0).await];
    cluster.strike();
    noted("client", &cluster.gateways[0]).await;
    until("one client is left", async || (cluster.count(0).await == 1).then_some(())).await;
    cluster.caller(0).await.send(text(all(), "to the one that is left")).await.unwrap();
    let mut ends = 0;
    for client in &mut both {
        match next(client).await {
            Some(heard) => assert_eq!(heard, "to the one that is left"),
            None => ends += 1,
        }
    }
    assert_eq!(ends, 1, "the other one has stayed");
    // Its thread goes on with others.
    let mut third = cluster.client(0).await;
    cluster.caller(0).await.send(text(clients(&[&third.id]), "hello")).await.unwrap();
    third.hears(&["hello"]).await;
}

/// A command stream of a caller, and its next answer.
struct CommandStream {
    commands: mpsc::Sender<v1::CommandBatch>,
    answers: tonic::Streaming<v1::AnswerBatch>,
}

impl CommandStream {
    async fn open(cluster: &Cluster) -> Self {
        let (commands, queue) = mpsc::channel(1);
        let answers =
            cluster.caller(0).await.commands(ReceiverStream::new(queue)).await.unwrap().into_inner();
        Self { commands, answers }
    }

    /// The status of the stream, if it has ended.
    async fn count(&mut self) -> Result<(), tonic::Status> {
        let command = Some(Command::Count(v1::CountRequest::default()));
        let commands = vec![v1::Command { id: 1, command, after: None }];
        // The stream may have ended.
        let _ = self.commands.send(v1::CommandBatch { commands }).await;
        let answer = soon("an answer or the end", self.answers.message()).await?;
        assert_eq!(answer.expect("no end without a status").answers.len(), 1);
        Ok(())
    }
}

#[tokio::test]
async fn panic_at_one_command_stream_ends_only_this_stream() {
    let cluster = Cluster::quiet(1).more(METRICS).fault("command stream").start().await;
    let mut both = [CommandStream::open(&cluster).await, CommandStream::open(&cluster).await];
    for stream in &mut both {
        stream.count().await.unwrap();
    }
    cluster.strike();
    noted("command stream", &cluster.gateways[0]).await;
    let mut ends = Vec::new();
    for stream in &mut both {
        ends.extend(stream.count().await.err());
    }
    let [end] = &ends[..] else { panic!("one stream ends, not {ends:?}") };
    assert_eq!(end.code(), Code::Internal);
    assert!(end.message().contains("see its log"), "{end}");
    CommandStream::open(&cluster).await.count().await.unwrap();
}

#[tokio::test]
async fn panic_at_one_peers_frames_resets_only_this_link() {
    let cluster = Cluster::quiet(3).more(METRICS).fault("peer's link").start().await;
    let mut clients = Vec::new();
    for gateway in 0..3 {
        clients.push(cluster.client(gateway).await);
    }
    cluster.strike();
    // Any gateway may be the one.
    let struck = until("a gateway has counted it", async || {
        for (number, gateway) in cluster.gateways.iter().enumerate() {
            if panics(metrics_of(gateway).await, "peer's link").await > 0 {
                return Some(number);
            }
        }
        None
    })
    .await;
    noted("peer's link", &cluster.gateways[struck]).await;
    // The link comes back by itself, and no gateway has left.
    cluster.linked().await;
    cluster.synced().await;
    for gateway in 0..3 {
        let from = format!("from {gateway}");
        until("all gateways answer", async || {
            let receipt = cluster.caller(gateway).await.count(v1::CountRequest::default()).await;
            let reply = receipt.ok()?.into_inner();
            (reply.app?.clients == 3 && reply.coverage?.complete).then_some(())
        })
        .await;
        cluster.caller(gateway).await.send(text(all(), &from)).await.unwrap();
        for client in &mut clients {
            client.hears(&[&from]).await;
        }
    }
    assert_eq!(cluster.view().await.unwrap().members.len(), 3);
}

#[tokio::test]
async fn panic_at_one_workers_frames_reattaches_only_this_worker() {
    let cluster = Cluster::of(1).more(METRICS).fault("worker's stream").start().await;
    let register = format!("--register={}", cluster.register_address);
    let workers = ["one", "two"].map(|name| {
        let args = ["worker", "echo", &register, &format!("--name={name}")];
        Process::start(&cluster.dir, name, &args, &[])
    });
    let attached = async || {
        let status = cluster.status(0).await?;
        (status.workers.len() == 2).then_some(())
    };
    until("both workers are attached", attached).await;
    let mut client = cluster.client(0).await;
    client.say("before").await;
    client.hears(&["before"]).await;
    cluster.strike();
    noted("worker's stream", &cluster.gateways[0]).await;
    client.say("after").await;
    client.hears(&["after"]).await;
    until("both workers are attached again", attached).await;
    for mut worker in workers {
        assert!(worker.has_ended().is_none(), "{}", worker.log());
    }
}

#[tokio::test]
async fn panic_at_one_members_stream_ends_only_this_stream() {
    let settings = Cluster::quiet(2).more(METRICS).register_fault("member's stream");
    let mut cluster = settings.start().await;
    let before = cluster.view().await.unwrap();
    cluster.strike();
    noted("member's stream", cluster.register.as_ref().unwrap()).await;
    // The member opens another stream: it hears of who comes, and nobody is removed.
    cluster.add_gateway().await;
    cluster.linked().await;
    cluster.synced().await;
    let after = cluster.view().await.unwrap();
    let stays = |member: &v1::Member| after.members.iter().any(|now| now.incarnation == member.incarnation);
    assert!(before.members.iter().all(stays) && after.members.len() == 3, "{after:?}");
}

/// The SDK opens a stream of commands again after a panic: the only gateway stays reachable.
#[tokio::test]
async fn panic_at_a_command_stream_of_the_sdk_ends_one_stream() {
    let cluster = Cluster::of(1).start().await;
    let fault = cluster.dir.join("worker-fault");
    let register = format!("--register={}", cluster.register_address);
    let args = ["worker", "echo", &register, "--name=struck", "--metrics-bind=127.0.0.1:0"];
    let environment = format!("command stream={}", fault.display());
    let worker = Process::start(&cluster.dir, "struck", &args, &[("BROADGATE_FAULT", &environment)]);
    let mut client = cluster.client(0).await;
    client.say("before").await;
    client.hears(&["before"]).await;
    std::fs::write(&fault, "").unwrap();
    noted("command stream", &worker).await;
    client.say("after").await;
    client.hears(&["after"]).await;
}
