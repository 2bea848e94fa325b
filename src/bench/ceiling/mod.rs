//! `broadgate ceiling`: what this machine can write at most, for `broadgate bench` to compare with.
//!
//! Plain epoll on a few threads, frames encoded once, merged writes straight from a group's log, no
//! protocol beyond the handshake. It is no server: it trusts whoever connects, and must only be as
//! fast as we can make it. It is never changed in the same commit as the gateway.

mod client;
mod frames;
mod groups;
mod inbox;
mod listen;
mod log;
mod publish;
mod stats;
mod thread;

use std::{net::SocketAddr, sync::Arc};

use clap::{Args, ValueEnum};

pub(crate) use self::publish::record;
use self::{groups::Names, inbox::Inbox, stats::Counts, thread::Thread};
use broadgate::{failure::Failure, output};

#[derive(Debug, Args)]
pub(crate) struct CeilingArgs {
    /// Where clients (/g/GROUP) and publishers (/publish) connect; /stats tells what it has cost
    #[arg(long, default_value = "127.0.0.1:7999", value_name = "ADDRESS")]
    bind: SocketAddr,
    /// Threads; as many as the gateway that it is compared with has shards
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// How deliveries are written
    #[arg(long, value_enum, default_value = "merged")]
    mode: Mode,
    /// The TCP congestion control of its connections, such as reno [default: the system's, as the gateway's]
    #[arg(long, value_name = "NAME")]
    congestion: Option<String>,
    /// Stop when standard input ends: a supervisor holds its other end
    #[arg(long)]
    supervised: bool,
}

/// How deliveries are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// What has gathered for a client, in one write
    Merged,
    /// Each delivery in a write of its own
    Single,
}

/// What all threads know of each other.
struct Shared {
    mode: Mode,
    names: Names,
    inboxes: Vec<Inbox>,
    counts: Vec<Counts>,
}

pub(crate) async fn run(args: CeilingArgs) -> Result<(), Failure> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let count = usize::from(args.threads);
    let shared = Arc::new(Shared {
        mode: args.mode,
        names: Names::default(),
        inboxes: (0..count).map(|_| Inbox::new()).collect::<Result<_, _>>()?,
        counts: (0..count).map(|_| Counts::default()).collect(),
    });
    let (failed, failure) = tokio::sync::oneshot::channel();
    let mut failed = Some(failed);
    for me in 0..count {
        let thread = Thread::open(me, &args, Arc::clone(&shared))
            .map_err(|error| Failure::usage(format!("--bind {}: {error}", args.bind)))?;
        let failed = failed.take();
        std::thread::Builder::new().name(format!("ceiling-{me}")).spawn(move || {
            let error = thread.run();
            // One that tells is enough: all fail for the same reason, a broken epoll.
            failed.map(|failed| failed.send(error))
        })?;
    }
    tokio::select! {
        () = broadgate_business::shutdown_signal() => {}
        () = broadgate::roles::supervisor_gone(), if args.supervised => {}
        Ok(error) = failure => return Err(Failure::Failed(format!("a thread has ended: {error}"))),
    }
    output::print(&format!("{}\n", stats::json(&shared.counts)))
}
