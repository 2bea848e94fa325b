//! The worker that the README shows. Start `broadgate up --workers 0` before it.
//!
//! Run: `cargo run --release -p broadgate-business --example readme`

/// For the tests, which run it in a cluster of their own.
#[cfg(test)]
pub fn shout() -> impl Handler {
    Shout
}

use broadgate_business::{Audience, Client, Handler, Message, Worker, shutdown_signal, worker::Handshake};

struct Shout;

impl Handler for Shout {
    async fn opened(&self, client: &Client, _: Handshake) -> anyhow::Result<()> {
        client.join("lobby").await?;
        Ok(())
    }

    async fn message(&self, client: &Client, message: Message) -> anyhow::Result<()> {
        client.cluster().send(Audience::group("lobby"), message).await?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().init();
    Worker::from_env()?.run(Shout, shutdown_signal()).await
}
