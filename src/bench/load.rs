//! Flags that every kind of load has, and how it prints its figures.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use broadgate::{failure::Failure, operate, output};
use broadgate_business::Cluster;
use clap::Args;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::engine::share::Share;

#[derive(Debug, Clone, Args)]
pub(crate) struct Load {
    /// URL to connect to: /app/KEY for Pusher clients, /socket.io/?EIO=4&transport=websocket&key=KEY for Socket.IO
    /// clients; repeat to spread clients over gateways
    #[arg(long, default_value = "ws://127.0.0.1:8080/ws")]
    pub(crate) url: Vec<String>,
    /// Number of clients
    #[arg(long, default_value_t = 1000)]
    pub(crate) clients: usize,
    /// Threads that hold the clients
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) load_threads: u16,
    /// Processes that hold the clients, if one may not open enough files (idle, fanout, groups)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) processes: u16,
    #[arg(long, hide = true)]
    pub(crate) part: Option<Share>,
    /// Concurrent handshakes
    #[arg(long, default_value_t = 64)]
    pub(crate) connecting: usize,
    /// Process id of a gateway, to measure its memory and CPU (Linux); repeat for several
    #[arg(long)]
    pub(crate) pid: Vec<u32>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Who sends what the clients hear. `--json` is the load's.
#[derive(Debug, Clone, Args)]
pub(crate) struct Sender {
    #[command(flatten)]
    pub(crate) at: operate::At,
    /// The app of the clients
    #[arg(long, default_value = "default")]
    pub(crate) app: String,
    /// How messages are sent [default: the SDK; for the ceiling program, its own connection]
    #[arg(long, value_enum)]
    pub(crate) publish: Option<crate::publish::by::By>,
    /// File of apps with the app's key and secret, for `--publish api` [env: BROADGATE_APPS]
    #[arg(long, value_name = "FILE")]
    pub(crate) apps: Option<PathBuf>,
}

impl Sender {
    pub(crate) async fn cluster(&self) -> Result<Cluster, Failure> {
        let timeout = Duration::from_secs(30);
        let app = Some(self.app.clone());
        operate::ClusterTarget { at: self.at.clone(), app, timeout, json: false }
            .cluster_for_load()
            .await
            .map(|(cluster, _)| cluster)
    }
}

/// What this run's groups, or channels, are named by: the process, or the one that it is a part of.
pub(crate) fn group() -> String {
    format!("bench-{}", std::process::id())
}

pub(crate) fn progress(length: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template("{msg:>12} [{bar:40}] {pos}/{len} {eta}") {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}

pub(crate) fn histogram() -> Result<Histogram<u64>, Failure> {
    // Nanoseconds up to a minute, three digits.
    Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| Failure::Failed(error.to_string()))
}

/// Waits for a call to the cluster, from within the load's blocking part.
pub(crate) fn block<T>(call: impl Future<Output = T>) -> T {
    tokio::runtime::Handle::current().block_on(call)
}

pub(crate) fn latency_json(histogram: &Histogram<u64>) -> Value {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
    json!({ "p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": histogram.max() as f64 / 1e6 })
}

pub(crate) fn latency_text(histogram: &Histogram<u64>) -> String {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
    format!(
        "latency  p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, max {:.2} ms\n",
        at(0.5),
        at(0.9),
        at(0.99),
        histogram.max() as f64 / 1e6
    )
}

pub(crate) fn tell(is_json: bool, json: &Value, text: &str) -> Result<(), Failure> {
    if is_json { output::print_json(json) } else { output::print(text) }
}

/// The ids of this run's clients, and their groups: the cluster lists them under their addresses.
pub(crate) async fn ids_of(
    cluster: &Cluster,
    locals: &[(SocketAddr, u32)],
) -> Result<Vec<(String, u32)>, Failure> {
    use broadgate_business::{Audience, v1::ClientField};
    use futures_util::TryStreamExt as _;
    // Two sockets may have the same local port, if they lead to different gateways.
    let mut groups: std::collections::HashMap<SocketAddr, Vec<u32>> = std::collections::HashMap::new();
    for (local, group) in locals {
        groups.entry(*local).or_default().push(*group);
    }
    let mut pages = std::pin::pin!(cluster.client_pages(Audience::all(), &[ClientField::Connection]));
    let mut ids = Vec::with_capacity(locals.len());
    while let Some(page) = pages.try_next().await? {
        for client in page.clients {
            let address: Option<SocketAddr> = client.address.parse().ok();
            if let Some(group) = address.and_then(|address| groups.get_mut(&address)?.pop()) {
                ids.push((client.client_id, group));
            }
        }
    }
    if ids.len() == locals.len() {
        return Ok(ids);
    }
    Err(Failure::Failed(format!(
        "the cluster at --addr does not list {} of the clients: are --url and --addr of the same cluster, and is \
         --app the app of the URL?",
        locals.len() - ids.len()
    )))
}
