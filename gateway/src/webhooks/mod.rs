//! Webhooks: from a fact about a channel to a post that arrives.
//!
//! The home of a channel tells what happens in it, and one task per gateway makes posts of it. Every
//! endpoint of every app has its own queue, so one that is slow delays nobody else.
//!
//! | file | what |
//! |---|---|
//! | `fact.rs` | pure: what has happened, and its JSON |
//! | `settle.rs` | pure: debounces leave and vacate events |
//! | `event.rs` | pure: an event on its way to one endpoint, and what becomes of it |
//! | `queue.rs` | pure: what waits for one endpoint, in which order it goes, what becomes of it |
//! | `batch.rs` | pure: what fits into one post, and how long its first event waits for others |
//! | `retry.rs` | pure: how long a failed post waits |
//! | `health.rs` | pure: does an endpoint take what it is sent? |
//! | `alarms.rs` | pure: who must be woken when |
//! | `core.rs` | pure: all of this, for every endpoint of every app |
//! | `post.rs` | pure: the body, its signature and the headers |
//! | `send.rs` | HTTP and TLS |
//! | `record.rs` | pure: the spool's records as bytes |
//! | `appended.rs` | a file that a thread appends to |
//! | `spool.rs` | what is queued, on disk |
//! | `arrival.rs` | whether a report has reached its receivers |
//! | `journal.rs`, `notified.rs` | what receivers have heard, on disk and as messages |
//! | `run.rs` | the task that feeds the core and does what it decides |
//!
//! What a receiver can rely on: the events of one channel come in their order, one post of a channel
//! after the other; each comes at least once, unless it could not be delivered for five minutes or too
//! much waited; one that comes twice has the same `id`, which the hosted service does not have. What is
//! lost is counted in `broadgate_gateway_webhook_drops_total`.

mod alarms;
mod appended;
mod arrival;
mod batch;
mod core;
mod event;
mod fact;
mod health;
mod journal;
mod notified;
mod post;
mod queue;
mod record;
mod retry;
mod run;
mod send;
mod settle;
mod spool;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use broadgate_proto::limits::{WEBHOOK_INBOX_BYTES_MAX, WEBHOOK_LEAVE_TIME, WEBHOOK_SPOOLED_DRAIN_TIME};
use broadgate_tasks::Spawner;
use metrics::counter;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

pub(crate) use self::{
    arrival::{Arrival, Arrivals},
    fact::{Fact, TrackedFact},
    journal::Journal,
    notified::{decode_notified, encode_notified},
    run::FailingEndpoints,
};
use self::{
    run::{Drain, RunInput, Shell},
    spool::Spool,
};
use crate::{
    apps::Apps,
    fair_queue::{self, Thinned, inbox},
};

/// A disk that hangs does not keep a gateway from stopping.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// A handle, cloned to every source of facts. The task behind it ends with the last one.
#[derive(Clone)]
pub(crate) struct Webhooks(Arc<WebhookTask>);

struct WebhookTask {
    apps: Apps,
    inbox: fair_queue::FairSender<RunInput>,
    has_spool: bool,
    failing: FailingEndpoints,
    /// Beside the spool: where what receivers have heard is noted.
    journal: Option<PathBuf>,
}

impl Webhooks {
    /// The handle, and the task behind it. `spool` is the folder of the setting, and `gateway` the name under
    /// which this gateway finds its queues there again.
    ///
    /// # Errors
    /// If the spool cannot be opened.
    pub(crate) fn open(
        apps: &Apps,
        spool: Option<&Path>,
        gateway: &str,
        spawner: &Spawner,
    ) -> anyhow::Result<(Self, impl Future<Output = ()> + Send + use<>)> {
        let (webhooks, shell) = Self::shell(apps, spool, gateway, spawner)?;
        Ok((webhooks, shell.run()))
    }

    /// Could a gateway of this name have its spool here? `gateway` is none if its name follows from a free port.
    ///
    /// # Errors
    /// If the folder or a file in it cannot be made, read or written.
    pub(crate) fn check(spool: &Path, gateway: Option<&str>) -> anyhow::Result<()> {
        Spool::check(spool, gateway)
    }

    fn shell(
        apps: &Apps,
        spool: Option<&Path>,
        gateway: &str,
        spawner: &Spawner,
    ) -> anyhow::Result<(Self, Shell)> {
        let run = getrandom::u64().context("no random number for ids of webhook events")?;
        let journal = spool.map(|folder| {
            let [_, _, journal] = spool::files(folder, gateway);
            journal
        });
        let spool = spool.map(|folder| Spool::open(folder, gateway, spawner)).transpose()?;
        let has_spool = spool.is_some();
        let (sender, inbox) = inbox(WEBHOOK_INBOX_BYTES_MAX);
        let shell = Shell::new(apps, inbox, spool, run);
        let failing = shell.failing();
        let task = WebhookTask { apps: apps.clone(), inbox: sender, has_spool, failing, journal };
        Ok((Self(Arc::new(task)), shell))
    }

    /// Where what receivers have heard is noted; nobody else uses it for as long as this has the spool.
    pub(crate) fn journal(&self) -> Option<&Path> {
        self.0.journal.as_deref()
    }

    /// The endpoints that fail; the handle keeps nothing alive.
    pub(crate) fn failing(&self) -> FailingEndpoints {
        self.0.failing.clone()
    }

    /// Something has happened in a channel of an app whose home is here. Never waits: what the task
    /// cannot take is dropped, fairly (see `inbox`), and counted. Facts of one channel must be told one after the other.
    pub(crate) fn tell(&self, app: &str, news: impl Into<TrackedFact>) {
        if self.has_endpoints(app) {
            self.put(RunInput::Fact { app: app.to_owned(), news: news.into() });
        }
    }

    /// Another gateway is the home of this channel now, and tells what happens in it. What is held back
    /// here is posted at once, since this gateway would not see a return.
    pub(crate) fn moved(&self, app: &str, channel: &str) {
        if self.has_endpoints(app) {
            let (app, channel) = (app.to_owned(), channel.to_owned());
            self.put(RunInput::Moved { app, channel });
        }
    }

    fn has_endpoints(&self, app: &str) -> bool {
        self.0.apps.load().by_id(app).is_some_and(|app| !app.webhooks.is_empty())
    }

    fn put(&self, input: RunInput) {
        let Thinned { full, undone } = self.0.inbox.put(input);
        for (count, reason) in [(full, "inbox_full"), (undone, "inbox_undone")] {
            if count > 0 {
                counter!("broadgate_gateway_webhook_drops_total", "reason" => reason).increment(count);
            }
        }
    }

    /// Ends in good order: debounced events are posted when they are due, and waiting ones are posted,
    /// until `within` is over. With a spool the wait is short, since the rest is safe. To be called when
    /// all clients are gone, while this gateway still is the home of its channels: those who come back
    /// at another gateway are not told as gone then.
    pub(crate) async fn drain(&self, within: Duration) {
        let handle = &self.0;
        let short = WEBHOOK_LEAVE_TIME + WEBHOOK_SPOOLED_DRAIN_TIME;
        let within = if handle.has_spool { within.min(short) } else { within };
        // Events that become due at the end must still be posted.
        let hold_until =
            Some(Instant::now() + WEBHOOK_LEAVE_TIME.min(within.saturating_sub(WEBHOOK_SPOOLED_DRAIN_TIME)));
        let drained = async {
            let (done, drained) = oneshot::channel();
            self.put(RunInput::Drain(Drain { hold_until, done }));
            drained.await
        };
        let _ = timeout(within, drained).await;
        let stopped = async {
            let (done, stopped) = oneshot::channel();
            self.put(RunInput::Stop(done));
            stopped.await
        };
        let Ok(left) = timeout(STOP_TIME_MAX, stopped).await else {
            tracing::error!("webhook spool was not written in time: queued events may be lost");
            return;
        };
        match left {
            Err(_) | Ok(0) => {}
            Ok(events) if handle.has_spool => {
                tracing::info!(events, "queued webhook events stay in the spool for the next start");
            }
            Ok(events) => {
                counter!("broadgate_gateway_webhook_drops_total", "reason" => "stopped")
                    .increment(events as u64);
                tracing::error!(events, "queued webhook events are lost: set gateway.spool to keep them");
            }
        }
    }
}

#[cfg(test)]
mod receiver;
#[cfg(test)]
mod tests;
