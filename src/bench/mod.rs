//! `broadgate bench`: measures a running cluster with real clients.
//!
//! What is sent carries a number and a time; every client checks that nothing is lost, doubled or
//! out of order. The load runs on the same machine as what it measures unless the URLs are of
//! another one: quote it so.

mod echo;
mod fanout;
mod frames;
mod hop;
mod idle;
mod socket;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use self::socket::Socket;
use crate::{failure::Failure, operate};

/// Handshakes under way at once.
const CONNECTING_MAX: usize = 64;

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Connect clients and hold them: connects per second, memory per client
    Idle(idle::IdleArgs),
    /// Send to one group: deliveries per second, latency
    Fanout(fanout::FanoutArgs),
    /// Clients send to an echo worker and wait: echoes per second, latency
    Echo(echo::EchoArgs),
    /// Send to one client, and to groups by where their home is: what the hop over a home costs
    Hop(hop::HopArgs),
}

#[derive(Debug, Clone, Args)]
struct Load {
    /// Where clients connect, Pusher clients to /app/KEY; repeat to spread them over gateways
    #[arg(long, default_value = "ws://127.0.0.1:8080/ws")]
    url: Vec<String>,
    /// How many clients
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// For scripts
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: BenchArgs) -> Result<(), Failure> {
    // As many sockets as the system lets us have.
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(0);
    let clients = match &args.kind {
        Kind::Idle(args) => args.load.clients,
        Kind::Fanout(args) => args.load.clients,
        Kind::Echo(args) => args.load.clients,
        Kind::Hop(_) => 1,
    };
    if clients == 0 || clients as u64 + 64 > files {
        return Err(Failure::usage(format!(
            "--clients {clients}: give 1 to {}, which the open-files limit of {files} allows",
            files.saturating_sub(64)
        )));
    }
    match args.kind {
        Kind::Idle(args) => idle::run(args).await,
        Kind::Fanout(args) => fanout::run(args).await,
        Kind::Echo(args) => echo::run(args).await,
        Kind::Hop(args) => hop::run(args).await,
    }
}

/// Connects all clients, in turn to each URL; returns them with the time that it took.
async fn connect(load: &Load) -> Result<(Vec<Socket>, Duration), Failure> {
    let mut targets = Vec::new();
    for url in &load.url {
        targets.push(socket::Target::parse(url).await.map_err(Failure::Usage)?);
    }
    let bar = progress(load.clients as u64, "connecting");
    let started = Instant::now();
    let mut connecting = JoinSet::new();
    let mut sockets = Vec::with_capacity(load.clients);
    for index in 0..load.clients {
        if connecting.len() >= CONNECTING_MAX {
            sockets.push(connected(&mut connecting).await?);
            bar.inc(1);
        }
        let target = targets[index % targets.len()].clone();
        connecting.spawn(async move { Socket::connect(&target, index).await });
    }
    while !connecting.is_empty() {
        sockets.push(connected(&mut connecting).await?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((sockets, started.elapsed()))
}

async fn connected(connecting: &mut JoinSet<Result<Socket, String>>) -> Result<Socket, Failure> {
    match connecting.join_next().await {
        Some(Ok(Ok(socket))) => Ok(socket),
        Some(Ok(Err(error))) => Err(Failure::Unreachable(error)),
        _ => Err(Failure::Failed("a connecting task has ended".to_owned())),
    }
}

/// This run's group, or channel.
fn group() -> String {
    format!("bench-{}", std::process::id())
}

fn progress(length: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template("{msg:>12} [{bar:40}] {pos}/{len} {eta}") {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}

fn histogram() -> Result<Histogram<u64>, Failure> {
    // Nanoseconds up to a minute, three digits.
    Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| Failure::Failed(error.to_string()))
}

fn latency_json(histogram: &Histogram<u64>) -> Value {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
    json!({ "p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": histogram.max() as f64 / 1e6 })
}

fn latency_text(histogram: &Histogram<u64>) -> String {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
    format!(
        "latency  p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, max {:.2} ms\n",
        at(0.5),
        at(0.9),
        at(0.99),
        histogram.max() as f64 / 1e6
    )
}

fn report(load: &Load, json: &Value, text: &str) -> Result<(), Failure> {
    if load.json { operate::print(&format!("{json:#}\n")) } else { operate::print(text) }
}

/// The ids of this run's clients: those that the cluster lists under their local addresses.
async fn ids_of(cluster: &broadgate_business::Cluster, sockets: &[Socket]) -> Result<Vec<String>, Failure> {
    use broadgate_business::{Audience, v1::ClientField};
    use futures_util::TryStreamExt as _;
    // Two sockets may have the same local port, if they lead to different gateways.
    let mut addresses: std::collections::HashMap<SocketAddr, usize> = std::collections::HashMap::new();
    for socket in sockets {
        *addresses.entry(socket.local).or_default() += 1;
    }
    let mut left = sockets.len();
    let mut pages = std::pin::pin!(cluster.client_pages(Audience::all(), &[ClientField::Connection]));
    let mut ids = Vec::new();
    while let Some(page) = pages.try_next().await? {
        for client in page.clients {
            let address: Option<SocketAddr> = client.address.parse().ok();
            let count = address.and_then(|address| addresses.get_mut(&address));
            if let Some(count) = count.filter(|count| **count > 0) {
                *count -= 1;
                left -= 1;
                ids.push(client.client_id);
            }
        }
    }
    if left == 0 {
        return Ok(ids);
    }
    Err(Failure::Failed(format!(
        "the cluster at --addr does not list {} of the clients: are --url and --addr of the same cluster, and is \
         --app the app of the URL?",
        left
    )))
}
