//! Tells everybody the server's time, every ten seconds, whichever gateway they are on.
//!
//! Run: `cargo run --release -p broadgate-business --example timed_broadcast`
//!
//! Start it twice: still only one of the two tells it, and when that one ends the other goes on.
//! `BROADGATE_REGISTER` names the register (127.0.0.1:7100), `BROADGATE_SECRET` its secret. Ctrl-C
//! ends it.

use std::time::Duration;

use broadgate_business::{Audience, Client, Cluster, Handler, Message, Once, Worker, chat, shutdown_signal};

/// What clients send is of no interest here.
struct Deaf;

impl Handler for Deaf {
    async fn message(&self, _: &Client, _: Message) -> anyhow::Result<()> {
        Ok(())
    }
}

async fn tell(cluster: Cluster) {
    match cluster.send(Audience::all(), format!("It is {}.", chat::now())).await {
        Ok(receipt) => {
            tracing::info!(clients = receipt.clients, gateways = receipt.gateways, "told the time")
        }
        Err(error) => tracing::warn!(%error, "nobody was told the time"),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    Worker::from_env()?
        .every(Duration::from_secs(10), Once::InCluster, tell)
        .run(Deaf, shutdown_signal())
        .await
}
