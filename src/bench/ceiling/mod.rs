//! `broadgate ceiling`: what this machine can write at most, for `broadgate bench` to compare with.
//!
//! Plain epoll on a few threads, frames encoded once, merged writes straight from a group's log, no
//! protocol beyond the handshake. It is no server: it trusts every client, and must only be as
//! fast as we can make it. It is never changed in the same commit as the gateway.

mod client;
mod frames;
mod groups;
mod inbox;
mod listen;
mod log;
mod publish;
mod shared;
mod stats;
mod thread;

use std::sync::Arc;

use broadgate::{failure::Failure, output};

use crate::ceiling::{groups::Names, inbox::Inbox, shared::Shared, stats::Counts, thread::Thread};

pub(crate) use self::shared::CeilingArgs;

pub(crate) use self::publish::record;

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
