//! The unexpected end of any task or thread ends its process with an error that names it.

use crate::harness::*;

/// Strikes one part of a gateway, which must leave the view and exit with an error.
async fn gateway_without(part: &str) {
    let mut cluster = Cluster::quiet(1).accept_one().fault(part).start().await;
    cluster.strike();
    assert_eq!(cluster.gateways[0].ended().await.code(), Some(1), "{part}");
    let log = cluster.gateways[0].log();
    let last = log.lines().last().unwrap();
    assert!(last.starts_with("broadgate: ") && last.contains(&format!("{part:?}")), "{last}");
    until("the gateway is out of the view", async || cluster.view().await?.members.is_empty().then_some(()))
        .await;
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
