//! By the Rust SDK.

use std::{
    sync::Arc,
    task::{Wake, Waker},
    time::{Duration, Instant},
};

use broadgate::failure::Failure;
use broadgate_business::{Audience, Cluster, Payload};
use tokio::{runtime::Runtime, sync::Notify};

use crate::{
    engine::{now_ns, payload},
    publish::to::{Publisher, To},
    target::Kind,
};

/// Longer than a lease and what is settled after it.
const REPEAT_TIME_MAX: Duration = Duration::from_secs(30);
const REPEAT_PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Sdk<'a> {
    to: To<'a>,
    cluster: Cluster,
    with_receipt: bool,
    /// It has no thread of its own: the connection goes on while the publisher rests, so that no other
    /// thread has to be woken for a message.
    runtime: Runtime,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

impl<'a> Sdk<'a> {
    pub(super) fn open(to: To<'a>, with_receipt: bool) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let cluster = runtime.block_on(to.sender.cluster())?;
        Ok(Self { to, cluster, with_receipt, runtime, woken: Arc::default() })
    }
}

impl Publisher for Sdk<'_> {
    fn batch_max(&self) -> u64 {
        64
    }

    fn publish(&mut self, numbers: std::ops::Range<u64>) -> Result<(), Failure> {
        let is_text = matches!(self.to.target.kind, Kind::Pusher | Kind::SocketIo);
        self.runtime.block_on(async {
            for number in numbers {
                let payload = if is_text {
                    Payload::event("bench", payload::text(self.to.size, number, now_ns()))
                } else {
                    Payload::from(payload::bytes(self.to.size, number, now_ns()))
                };
                if self.with_receipt {
                    surely(&self.cluster, number, self.to.group(number), payload).await?;
                    continue;
                }
                // The order of the calls is the order of the sends.
                self.cluster.post(Audience::group(self.to.group(number)), payload).await?;
            }
            Ok(())
        })
    }

    fn rest(&mut self, at_most: Duration) {
        // It does not matter what has ended the rest.
        let _ = self.runtime.block_on(async { tokio::time::timeout(at_most, self.woken.0.notified()).await });
    }

    fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.woken))
    }
}

/// Sends again, under the same id, until nobody has been missed.
async fn surely(cluster: &Cluster, number: u64, group: &str, payload: Payload) -> Result<(), Failure> {
    let cluster = cluster.with_id(&format!("{group}-{number}"));
    let began = Instant::now();
    loop {
        let sent = cluster.send(Audience::group(group), payload.clone()).await;
        let complete = |coverage: &broadgate_business::v1::Coverage| coverage.complete;
        match sent {
            Ok(receipt) if receipt.coverage.as_ref().is_some_and(complete) => return Ok(()),
            Err(error) if began.elapsed() > REPEAT_TIME_MAX => return Err(error.into()),
            _ if began.elapsed() > REPEAT_TIME_MAX => {
                return Err(Failure::Failed(format!(
                    "message {number} misses somebody for {REPEAT_TIME_MAX:?}"
                )));
            }
            _ => tokio::time::sleep(REPEAT_PAUSE).await,
        }
    }
}
