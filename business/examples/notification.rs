//! A slow job that, when it is done, tells all windows of the user who asked for it.
//!
//! Run: `cargo run --release -p broadgate-business --example notification`
//!
//! Connect two WebSocket clients with `/ws?user=ada` and send `export` from one of them: both hear
//! "your export is ready" five seconds later, whichever gateways they are on, also after a
//! reconnect. `BROADGATE_REGISTER` names the register (127.0.0.1:7100), `BROADGATE_SECRET` its
//! secret. Ctrl-C ends it. A real application does not believe a query parameter, of course.

use std::{sync::Arc, time::Duration};

use broadgate_business::{
    Audience, Client, Cluster, Handler, Message, Worker, shutdown_signal, worker::Handshake,
};
use tokio::sync::Semaphore;

/// Jobs at the same time.
const JOBS_MAX: usize = 100;

struct Exports {
    places: Arc<Semaphore>,
}

impl Handler for Exports {
    async fn opened(&self, client: &Client, handshake: Handshake) -> anyhow::Result<()> {
        if let Some(user) = handshake.query.split('&').find_map(|pair| pair.strip_prefix("user=")) {
            client.bind(user).await?;
        }
        Ok(())
    }

    async fn message(&self, client: &Client, message: Message) -> anyhow::Result<()> {
        let Some(user) = client.uid() else {
            client.send("who are you? connect with ?user=<name>").await?;
            return Ok(());
        };
        if message.as_str() != Some("export") {
            client.send("send: export").await?;
            return Ok(());
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            client.send("too many exports are running: try again later").await?;
            return Ok(());
        };
        // A task of its own: the event is answered now, and the client's next ones need not wait.
        let cluster = client.cluster().clone();
        tokio::spawn(async move {
            export(cluster, user).await;
            drop(place);
        });
        client.send("your export has begun").await?;
        Ok(())
    }
}

async fn export(cluster: Cluster, user: String) {
    tokio::time::sleep(Duration::from_secs(5)).await;
    match cluster.send(Audience::uid(&user), "your export is ready").await {
        Ok(receipt) => tracing::info!(user, windows = receipt.clients, "told the user"),
        Err(error) => tracing::warn!(user, %error, "the user was not told"),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let exports = Exports { places: Arc::new(Semaphore::new(JOBS_MAX)) };
    Worker::from_env()?.run(exports, shutdown_signal()).await
}
