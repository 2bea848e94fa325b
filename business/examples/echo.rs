//! Sends every message back to its client.
//!
//! Run: `cargo run --release -p broadgate-business --example echo`
//!
//! `BROADGATE_REGISTER` names the register (127.0.0.1:7100), `BROADGATE_SECRET` its secret. Ctrl-C
//! ends it. Benchmarks and tests use it, too: `BROADGATE_SERVICE` and `BROADGATE_NAME` say whose
//! events it takes and what it is called.

use broadgate_business::{
    Client, Handler, Message, Worker, WorkerConfig, environment::variable, shutdown_signal,
};

struct Echo;

impl Handler for Echo {
    async fn message(&self, client: &Client, message: Message) -> anyhow::Result<()> {
        // `post` does not wait for the receipt: the echoes of one client keep their order anyway.
        client.post(message).await?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut config = WorkerConfig::from_env()?;
    if let Some(service) = variable("BROADGATE_SERVICE")? {
        config.services = vec![service];
    }
    config.name = variable("BROADGATE_NAME")?.unwrap_or_default();
    Worker::new(config).run(Echo, shutdown_signal()).await
}
