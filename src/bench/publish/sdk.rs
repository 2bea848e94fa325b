//! By the Rust SDK.

use broadgate_business::{Audience, Cluster, Payload};
use tokio::runtime::Runtime;

use super::{Kind, Publisher, To, now_ns, payload};
use crate::failure::Failure;

pub(super) struct Sdk<'a> {
    to: To<'a>,
    cluster: Cluster,
    /// Its one worker thread drives the connection while the publisher waits for room.
    runtime: Runtime,
}

impl<'a> Sdk<'a> {
    pub(super) fn open(to: To<'a>) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let cluster = {
            let _inside = runtime.enter();
            to.sender.cluster()?
        };
        Ok(Self { to, cluster, runtime })
    }
}

impl Publisher for Sdk<'_> {
    fn batch_max(&self) -> u64 {
        64
    }

    fn publish(&mut self, numbers: std::ops::Range<u64>) -> Result<(), Failure> {
        let is_text = self.to.target.kind == Kind::Pusher;
        self.runtime.block_on(async {
            for number in numbers {
                let payload = if is_text {
                    Payload::event("bench", payload::text(self.to.size, number, now_ns()))
                } else {
                    Payload::from(payload::bytes(self.to.size, number, now_ns()))
                };
                // The order of the calls is the order of the sends.
                self.cluster.post(Audience::group(self.to.group(number)), payload).await?;
            }
            Ok(())
        })
    }
}
