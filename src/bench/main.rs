//! `broadgate bench`: measures a running cluster with real clients. An executable of its own, so that the one
//! that runs in production does not carry a load generator.
//!
//! What is sent carries a number and a time; every client checks that nothing is lost, doubled or
//! out of order. The load runs on the same machine as what it measures unless the URLs are of
//! another one: quote it so.

mod broadcast;
mod ceiling;
mod echo;
mod engine;
mod fanout;
mod frames;
mod groups;
mod hop;
mod idle;
mod meter;
mod publish;
mod report;
mod slow;
mod socket;
mod storm;
mod target;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use broadgate::{environment, failure::Failure, operate, output};
use broadgate_business::Cluster;
use clap::{Args, Parser, Subcommand};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use self::engine::part::{self, Share};

/// Measure a running cluster
#[derive(Debug, Parser)]
#[command(name = "broadgate bench", bin_name = "broadgate bench", version)]
struct Cli {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Connect clients and hold them: connects per second, memory per client
    Idle(idle::IdleArgs),
    /// Send to one group: deliveries per second, latency
    Fanout(fanout::FanoutArgs),
    /// Send to many small groups in turn
    Groups(groups::GroupsArgs),
    /// Clients send to an echo worker and wait: echoes per second, latency
    Echo(echo::EchoArgs),
    /// Some clients do not read: what the others notice of it
    Slow(slow::SlowArgs),
    /// Clients come all at once, or lose their gateway, while others hear a broadcast
    Storm(storm::StormArgs),
    /// Send to one client, and to groups by where their home is: what the hop over a home costs
    Hop(hop::HopArgs),
    /// Measure everything, against what this machine can do at most, and write a report
    Report(report::ReportArgs),
    /// What this machine can write at most, for `report` to compare with
    #[command(hide = true)]
    Ceiling(ceiling::CeilingArgs),
}

#[derive(Debug, Clone, Args)]
struct Load {
    /// Where clients connect, Pusher clients to /app/KEY; repeat to spread them over gateways
    #[arg(long, default_value = "ws://127.0.0.1:8080/ws")]
    url: Vec<String>,
    /// How many clients
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// Threads that hold the clients
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    load_threads: u16,
    /// Processes that hold the clients, where one may not open as many files (idle, fanout, groups)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    processes: u16,
    #[arg(long, hide = true)]
    part: Option<Share>,
    /// Handshakes under way at once
    #[arg(long, default_value_t = 64)]
    connecting: usize,
    /// A gateway's process, to tell its memory and CPU (Linux); repeat for several
    #[arg(long)]
    pid: Vec<u32>,
    /// For scripts
    #[arg(long)]
    json: bool,
}

/// Who sends what the clients hear. `--json` is the load's.
#[derive(Debug, Clone, Args)]
struct Sender {
    #[command(flatten)]
    at: operate::At,
    /// The app of the clients
    #[arg(long, default_value = "default")]
    app: String,
    /// By what messages are sent [default: the SDK; to the ceiling program what it takes]
    #[arg(long, value_enum)]
    publish: Option<publish::By>,
    /// The file of apps with the app's key and secret, for `--publish api` [env: BROADGATE_APPS]
    #[arg(long, value_name = "FILE")]
    apps: Option<PathBuf>,
}

impl Sender {
    async fn cluster(&self) -> Result<Cluster, Failure> {
        let timeout = Duration::from_secs(30);
        let app = Some(self.app.clone());
        operate::Target { at: self.at.clone(), app, timeout, json: false }.cluster().await
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    broadgate::run(environment::threads(), run(cli))
}

async fn run(cli: Cli) -> Result<(), Failure> {
    // As many sockets as the system lets us have.
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(0);
    let (load, groups, more) = match &cli.kind {
        Kind::Idle(args) => (Some(&args.load), Some(1), 0),
        Kind::Fanout(args) => (Some(&args.load), Some(1), 0),
        Kind::Groups(args) => (Some(&args.load), Some(args.groups), 0),
        Kind::Echo(args) => (Some(&args.load), None, 0),
        Kind::Slow(args) => (Some(&args.load), None, 0),
        Kind::Storm(args) => (Some(&args.load), None, args.stay),
        Kind::Hop(_) | Kind::Report(_) | Kind::Ceiling(_) => (None, None, 0),
    };
    if let Some(load) = load {
        check(load, groups.is_some(), more, files)?;
        if let (Some(_), Some(groups)) = (load.part, groups) {
            return tokio::task::block_in_place(|| part::serve(load, groups));
        }
    }
    // The load has threads of its own, and waits for them.
    let wait = |act: &dyn Fn() -> Result<(), Failure>| tokio::task::block_in_place(act);
    match cli.kind {
        Kind::Idle(args) => wait(&|| idle::run(&args)),
        Kind::Fanout(args) => wait(&|| fanout::run(&args)),
        Kind::Groups(args) => wait(&|| groups::run(&args)),
        Kind::Echo(args) => wait(&|| echo::run(&args)),
        Kind::Slow(args) => wait(&|| slow::run(&args)),
        Kind::Storm(args) => wait(&|| storm::run(&args)),
        Kind::Hop(args) => hop::run(&args).await,
        Kind::Report(args) => wait(&|| report::run(&args)),
        Kind::Ceiling(args) => ceiling::run(args).await,
    }
}

fn check(load: &Load, may_be_parts: bool, more: usize, files: u64) -> Result<(), Failure> {
    let processes = load.part.map_or(usize::from(load.processes), |part| part.count);
    if processes > 1 && !may_be_parts {
        return Err(Failure::usage("--processes is for idle, fanout and groups"));
    }
    let each = load.clients.div_ceil(processes) + more;
    if each == 0 || each as u64 + 64 > files {
        return Err(Failure::usage(format!(
            "--clients {}: give 1 to {}, which the open-files limit of {files} allows, or more --processes",
            load.clients,
            files.saturating_sub(64)
        )));
    }
    Ok(())
}

/// What this run's groups, or channels, are named by: the process, or the one that it is a part of.
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

/// Waits for a call to the cluster, from within the load's blocking part.
fn block<T>(call: impl Future<Output = T>) -> T {
    tokio::runtime::Handle::current().block_on(call)
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

fn tell(is_json: bool, json: &Value, text: &str) -> Result<(), Failure> {
    if is_json { output::print(&format!("{json:#}\n")) } else { output::print(text) }
}

/// The ids of this run's clients, and their groups: the cluster lists them under their addresses.
async fn ids_of(cluster: &Cluster, locals: &[(SocketAddr, u32)]) -> Result<Vec<(String, u32)>, Failure> {
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
