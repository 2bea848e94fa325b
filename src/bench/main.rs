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
mod load;
mod meter;
mod publish;
mod report;
mod slow;
mod socket;
mod storm;
mod target;

use std::process::ExitCode;

use broadgate::{environment, failure::Failure};
use clap::{Parser, Subcommand};

use crate::{engine::serve, load::Load};

/// Benchmark a running cluster
#[derive(Debug, Parser)]
#[command(name = "broadgate bench", bin_name = "broadgate bench", version)]
struct Cli {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Connect clients and keep them: connects per second, memory per client
    Idle(idle::IdleArgs),
    /// Send to one group: deliveries per second, latency
    Fanout(fanout::FanoutArgs),
    /// Send to many small groups in turn
    Groups(groups::GroupsArgs),
    /// Clients send to an echo worker and wait for the answer: echoes per second, latency
    Echo(echo::EchoArgs),
    /// Some clients stop reading: the effect on the others
    Slow(slow::SlowArgs),
    /// All clients connect at once, or lose their gateway, during a broadcast to others
    Storm(storm::StormArgs),
    /// Send to one client, and to groups by the place of their home: the cost of the extra hop
    Hop(hop::HopArgs),
    /// Run all benchmarks next to this machine's ceiling, and write a report
    Report(report::ReportArgs),
    /// The most that this machine can write, for `report` to compare with
    #[command(hide = true)]
    Ceiling(ceiling::CeilingArgs),
}

fn main() -> ExitCode {
    let cli: Cli = broadgate::cli::parse();
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
    let sender = match &cli.kind {
        Kind::Idle(args) => Some(&args.sender),
        Kind::Fanout(args) => Some(&args.sender),
        Kind::Groups(args) => Some(&args.sender),
        Kind::Slow(args) => Some(&args.sender),
        Kind::Storm(args) => Some(&args.sender),
        Kind::Echo(_) | Kind::Hop(_) | Kind::Report(_) | Kind::Ceiling(_) => None,
    };
    sender.map_or(Ok(()), |sender| sender.at.check_load())?;
    if let Some(load) = load {
        check(load, groups.is_some(), more, files)?;
        if let (Some(_), Some(groups)) = (load.part, groups) {
            return tokio::task::block_in_place(|| serve::serve(load, groups));
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
