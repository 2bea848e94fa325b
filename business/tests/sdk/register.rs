//! A real register, and patience.

use std::time::Duration;

use broadgate_register::server;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Only a test that has failed waits this long.
const PATIENCE: Duration = Duration::from_secs(10);

pub async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

pub struct Register {
    pub address: String,
    _running: DropGuard,
}

impl Register {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        let config = server::Config {
            beat: Duration::from_millis(200),
            lease: Duration::from_secs(2),
            ..server::Config::default()
        };
        tokio::spawn(server::run(listener, config, stop.clone().cancelled_owned()));
        Self { address, _running: stop.drop_guard() }
    }
}
