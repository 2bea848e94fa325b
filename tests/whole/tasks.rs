//! The unexpected end of any task or thread ends its process with an error that names it.

use broadgate_business::{Client, Handler, Message, Worker, WorkerConfig};

use crate::{harness::*, pusher::Pusher, webhooks::hooked};

/// The process must exit with an error that names the part.
async fn ends_by(part: &str, process: &mut Process) {
    assert_eq!(process.ended().await.code(), Some(1), "{part}");
    let log = process.log();
    let last = log.lines().last().unwrap();
    assert!(last.starts_with("broadgate: ") && last.contains(&format!("{part:?}")), "{last}");
}

/// Strikes one part of a gateway, which must leave the view and exit with an error.
async fn gateway_without(part: &str) {
    let cluster = Cluster::quiet(1).accept_one().more("[metrics]\nbind = \"127.0.0.1:0\"");
    let mut cluster = cluster.fault(part).start().await;
    cluster.strike();
    ends_by(part, &mut cluster.gateways[0]).await;
    until("the gateway is out of the view", async || cluster.view().await?.members.is_empty().then_some(()))
        .await;
}

/// Strikes one part of a register, which must exit with an error.
async fn register_without(part: &str) {
    let mut cluster = Cluster::quiet(0).register_fault(part).start().await;
    cluster.strike();
    ends_by(part, cluster.register.as_mut().unwrap()).await;
}

/// Strikes one part of a worker, which must leave the view and exit with an error.
async fn worker_without(part: &str, demo: &str) {
    let cluster = Cluster::of(1).fault(part).start().await;
    let register = format!("--register={}", cluster.register_address);
    let args = ["worker", demo, &register, "--name=struck"];
    let mut worker = Process::start(&cluster.dir, "struck", &args, &cluster.environment());
    let present = async || {
        let view = cluster.view().await?;
        Some(view.members.iter().any(|member| member.name == "struck"))
    };
    until("the worker is in the view", async || present().await?.then_some(())).await;
    // The client's events have been handled once.
    let mut client = cluster.client(0).await;
    client.say("before").await;
    until("the worker handles events", async || {
        (cluster.details(0, &client.id).await.events_unanswered == 0).then_some(())
    })
    .await;
    cluster.strike();
    client.say("after").await;
    ends_by(part, &mut worker).await;
    until("the worker is out of the view", async || (!present().await?).then_some(())).await;
}

#[tokio::test]
async fn panicking_topics_task_ends_the_gateway() {
    gateway_without("topics").await;
}

#[tokio::test]
async fn panicking_internal_port_ends_the_gateway() {
    gateway_without("internal port").await;
}

#[tokio::test]
async fn panicking_webhooks_end_the_gateway() {
    gateway_without("webhooks").await;
}

/// Strikes a thread that writes beside the spool, at its next write.
async fn gateway_without_writer(thread: &str) {
    let settings = Cluster::quiet(1).more(&hooked(free_address())).spooled();
    let mut cluster = settings.fault(thread).start().await;
    cluster.strike();
    let mut client = Pusher::connect(&cluster, 0).await;
    client.say("pusher:subscribe", serde_json::json!({"channel": "written"})).await;
    ends_by(thread, &mut cluster.gateways[0]).await;
}

#[tokio::test]
async fn panicking_spool_writer_ends_the_gateway() {
    gateway_without_writer("webhook-spool").await;
}

#[tokio::test]
async fn panicking_journal_writer_ends_the_gateway() {
    gateway_without_writer("webhook-journal").await;
}

#[tokio::test]
async fn panicking_channel_events_end_the_gateway() {
    gateway_without("channel events").await;
}

#[tokio::test]
async fn panicking_apps_follower_ends_the_gateway() {
    gateway_without("apps").await;
}

#[tokio::test]
async fn panicking_shard_ends_the_gateway() {
    gateway_without("shard-0").await;
}

#[tokio::test]
async fn panicking_acceptor_ends_the_gateway() {
    gateway_without("acceptor-0").await;
}

#[tokio::test]
async fn panicking_membership_thread_ends_the_gateway() {
    gateway_without("register-link").await;
}

#[tokio::test]
async fn panicking_metrics_port_ends_the_gateway() {
    gateway_without("metrics port").await;
}

#[tokio::test]
async fn panicking_metrics_upkeep_ends_the_gateway() {
    gateway_without("metrics upkeep").await;
}

#[tokio::test]
async fn panicking_app_files_follower_ends_the_gateway() {
    gateway_without("app files").await;
}

#[tokio::test]
async fn panicking_signals_task_ends_the_gateway() {
    gateway_without("signals").await;
}

#[tokio::test]
async fn panicking_owner_of_members_ends_the_register() {
    register_without("members").await;
}

#[tokio::test]
async fn panicking_port_ends_the_register() {
    register_without("register port").await;
}

#[tokio::test]
async fn panicking_refusal_log_ends_the_register() {
    register_without("refusals").await;
}

#[tokio::test]
async fn panicking_signals_task_ends_the_register() {
    register_without("signals").await;
}

#[tokio::test]
async fn panicking_membership_thread_ends_the_worker() {
    worker_without("register-link", "echo").await;
}

#[tokio::test]
async fn panicking_link_to_a_gateway_ends_the_worker() {
    worker_without("link to gateway-1", "echo").await;
}

#[tokio::test]
async fn panicking_handling_of_clients_events_ends_the_worker() {
    worker_without("clients", "echo").await;
}

#[tokio::test]
async fn panicking_timer_ends_the_worker() {
    worker_without("timer-1", "chat").await;
}

struct Idle;

impl Handler for Idle {
    async fn message(&self, _: &Client, _: Message) -> anyhow::Result<()> {
        Ok(())
    }
}

/// A worker of the SDK in this process: its app has a name of its own, and so has the fault.
#[tokio::test]
async fn panicking_watch_of_pusher_clients_ends_the_worker() {
    let app = "[[apps]]\nid = \"struck\"\nkeys = [{ key = \"struck-key\", secret = \"secret-of-struck\" }]\n";
    let cluster = Cluster::quiet(1).more(app).start().await;
    let fault = cluster.dir.join("watch-fault");
    broadgate_tasks::arm("Pusher events of struck", &fault);
    let config = WorkerConfig {
        registers: vec![cluster.register_address.clone()],
        name: "struck".into(),
        pusher_apps: vec!["struck".into()],
        ..WorkerConfig::default()
    };
    let running = tokio::spawn(Worker::new(config).run(Idle, std::future::pending()));
    let present = async || {
        let view = cluster.view().await?;
        Some(view.members.iter().any(|member| member.name == "struck"))
    };
    until("the worker is in the view", async || present().await?.then_some(())).await;
    std::fs::write(&fault, "").unwrap();
    let ended = soon("the worker ends", running).await.unwrap();
    let error = format!("{:#}", ended.unwrap_err());
    assert!(error.contains("\"Pusher events of struck\" failed: it panicked"), "{error}");
    until("the worker is out of the view", async || (!present().await?).then_some(())).await;
}

#[tokio::test]
async fn panicking_link_to_a_gateway_ends_the_gateway() {
    let mut cluster = Cluster::quiet(2).fault("link to a gateway").start().await;
    cluster.strike();
    ends_by("link to a gateway", &mut cluster.gateways[0]).await;
}
