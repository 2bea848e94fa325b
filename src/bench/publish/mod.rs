//! Who sends what the clients hear.

mod api;
mod ceiling;
mod sdk;

use std::{
    sync::Arc,
    task::{Wake, Waker},
    thread::Thread,
    time::Duration,
};

use clap::ValueEnum;

use super::{
    Sender,
    engine::{Engine, now_ns, payload},
    target::{Kind, Target},
};
use broadgate::failure::Failure;

/// By what a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    /// The Rust SDK's `Cluster::post`
    Sdk,
    /// The Rust SDK's `Cluster::send`, repeated until its receipt is complete
    Receipt,
    /// The Pusher HTTP API's `batch_events`, over one connection that is kept
    Api,
    /// The ceiling program's publish connection
    Ceiling,
}

/// What is told a publisher.
pub(super) struct To<'a> {
    pub(super) sender: &'a Sender,
    pub(super) target: Target,
    pub(super) groups: &'a [String],
    pub(super) size: usize,
}

/// Sends the messages with these numbers, in this order.
pub(super) trait Publisher {
    /// At once, at most.
    fn batch_max(&self) -> u64;
    fn publish(&mut self, numbers: std::ops::Range<u64>) -> Result<(), Failure>;

    /// Returns after this time, or when it was woken; what is under way goes on meanwhile.
    fn rest(&mut self, at_most: Duration) {
        std::thread::park_timeout(at_most);
    }

    /// What ends a rest of this thread's.
    fn waker(&self) -> Waker {
        Waker::from(Arc::new(Unpark(std::thread::current())))
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Opens a publisher; on the thread that will use it.
pub(super) fn open<'a>(to: To<'a>) -> Result<Box<dyn Publisher + 'a>, Failure> {
    let by = to.sender.publish.unwrap_or(if to.target.kind == Kind::Ceiling { By::Ceiling } else { By::Sdk });
    Ok(match by {
        By::Sdk => Box::new(sdk::Sdk::open(to, false)?),
        By::Receipt => Box::new(sdk::Sdk::open(to, true)?),
        By::Api => Box::new(api::Api::open(to)?),
        By::Ceiling => Box::new(ceiling::Ceiling::open(to)?),
    })
}

impl To<'_> {
    fn group(&self, number: u64) -> &str {
        &self.groups[(number % self.groups.len() as u64) as usize]
    }
}

/// Joins raw clients to their groups.
pub(super) async fn join(sender: &Sender, engine: &Engine) -> Result<(), Failure> {
    use broadgate_business::Who;
    if engine.plan.targets.iter().any(|target| target.kind != Kind::Raw) {
        return Ok(());
    }
    let cluster = sender.cluster().await?;
    let locals = engine.locals();
    let ids = super::ids_of(&cluster, &locals).await?;
    let mut by_group = vec![Vec::new(); engine.plan.groups as usize];
    for (id, group) in ids {
        by_group[group as usize].push(id);
    }
    for (ids, name) in by_group.iter().zip(&engine.plan.group_names) {
        for some in ids.chunks(1000) {
            cluster.join(Who::clients(some.to_vec()), [name.clone()]).await?;
        }
    }
    Ok(())
}
