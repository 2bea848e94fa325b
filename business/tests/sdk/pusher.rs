//! Watchers of Pusher clients, and workers that take their share.

use std::sync::Arc;

use broadgate_business::{
    Client, Cluster, Context, Handler, Message, PusherEvent, Secret, Worker, WorkerConfig,
    cluster::{DEFAULT_TIMEOUT, PusherEventKind, PusherNews, PusherWatch, Refusal},
};
use broadgate_proto::id::Incarnation;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::fake::{Fake, Register, soon};

fn cluster(gateway: &Fake, app: &str) -> Cluster {
    Cluster::with_views(gateway.view(), Secret::default(), app, DEFAULT_TIMEOUT)
}

async fn news(watch: &mut PusherWatch) -> PusherNews {
    soon("news", watch.next()).await.unwrap()
}

fn channel_of(event: &PusherEvent) -> &str {
    match &event.kind {
        PusherEventKind::Unsubscribed { channel } => channel,
        other => panic!("{other:?}"),
    }
}

/// The next news are of this event.
async fn left(watch: &mut PusherWatch, client: &str, channel: &str) {
    let PusherNews::Event(event) = news(watch).await else { panic!("no event") };
    assert_eq!((&*event.client_id, channel_of(&event)), (client, channel));
}

#[tokio::test]
async fn gaps_breaks_and_lost_gateways_are_reported() {
    let register = Register::start().await;
    let (mut a, b) = (Fake::start(&register, "a").await, Fake::start(&register, "b").await);
    let shop = cluster(&b, "shop");
    let mut watch = shop.watch_pusher().unwrap();
    let by_a = a.observed().await;
    assert_eq!((&*by_a.request.app, &*by_a.request.share), ("shop", ""));
    assert_eq!(by_a.request.gateway, a.incarnation.to_string());
    by_a.tell(&[("1", "x"), ("1", "y")], 0).await;
    left(&mut watch, "1", "x").await;
    left(&mut watch, "1", "y").await;
    by_a.tell(&[("1", "z")], 7).await;
    let gateway = a.incarnation.to_string();
    assert_eq!(news(&mut watch).await, PusherNews::Missed { gateway: gateway.clone(), events: Some(7) });
    left(&mut watch, "1", "z").await;
    drop(by_a);
    let by_a = a.observed().await;
    assert_eq!(news(&mut watch).await, PusherNews::Missed { gateway: gateway.clone(), events: None });
    // What it has said before it went is heard.
    by_a.tell(&[("1", "last")], 0).await;
    a.lose().await;
    drop(by_a);
    left(&mut watch, "1", "last").await;
    assert_eq!(news(&mut watch).await, PusherNews::GatewayLeft { gateway });
}

#[tokio::test]
async fn a_gateway_that_is_too_old_is_named() {
    let register = Register::start().await;
    let gateway = Fake::start(&register, "a").await;
    let mut watch = cluster(&gateway, "old").watch_pusher().unwrap();
    let refused = soon("a refusal", watch.next()).await.unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::Unknown));
    assert!(refused.to_string().contains("gateway a does not know"), "{refused}");
    assert!(cluster(&gateway, "shop").share_pusher("").is_err());
    let alone = Cluster::to_gateway(&gateway.address, Secret::default(), "", DEFAULT_TIMEOUT).unwrap();
    assert_eq!(alone.watch_pusher().unwrap_err().refusal(), Some(Refusal::Invalid));
}

/// Tells the test what it hears, and waits where it says so.
struct Recorder {
    heard: mpsc::UnboundedSender<String>,
    go_on: Arc<Semaphore>,
}

impl Handler for Recorder {
    async fn message(&self, _: &Client, _: Message) -> anyhow::Result<()> {
        Ok(())
    }

    async fn pusher(&self, _: &Context, event: PusherEvent) -> anyhow::Result<()> {
        let channel = channel_of(&event);
        self.heard.send(format!("{} {channel}", event.client_id))?;
        match channel {
            "panic" => panic!("on purpose"),
            "fail" => anyhow::bail!("on purpose"),
            "wait" => self.go_on.acquire().await?.forget(),
            _ => {}
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_worker_takes_its_share_client_by_client() {
    let register = Register::start().await;
    let mut gateway = Fake::start(&register, "a").await;
    // What the test notes down; the test itself bounds it.
    let (sender, mut heard) = mpsc::unbounded_channel();
    let go_on = Arc::new(Semaphore::new(0));
    let recorder = Recorder { heard: sender, go_on: go_on.clone() };
    let shutdown = CancellationToken::new();
    let config = WorkerConfig {
        registers: vec![register.address.clone()],
        services: vec!["mail".into(), "more".into()],
        // One that a gateway does not know is no reason to stop.
        pusher_apps: vec!["shop".into(), "old".into()],
        ..WorkerConfig::default()
    };
    let running = tokio::spawn(Worker::new(config).run(recorder, shutdown.clone().cancelled_owned()));
    let attachment = gateway.attached().await;
    let by = gateway.observed().await;
    assert_eq!((&*by.request.app, &*by.request.share), ("shop", "mail"));
    assert_eq!(by.request.sharer, attachment.hello.incarnation);
    assert!(by.request.sharer.parse::<Incarnation>().is_ok());
    let mut hears = async |expected: &str| assert_eq!(soon(expected, heard.recv()).await.unwrap(), expected);
    by.tell(&[("1", "wait"), ("1", "after"), ("2", "panic")], 0).await;
    hears("1 wait").await;
    hears("2 panic").await;
    by.tell(&[("2", "fail")], 3).await;
    hears("2 fail").await;
    by.tell(&[("2", "fine")], 0).await;
    hears("2 fine").await;
    // A stopping worker takes no more, and handles what it has.
    shutdown.cancel();
    by.ended().await;
    go_on.add_permits(1);
    hears("1 after").await;
    attachment.release().await;
    soon("the worker's end", running).await.unwrap().unwrap();
}
