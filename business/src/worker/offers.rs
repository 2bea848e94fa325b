//! What Pusher clients do, as far as it is this worker's share: offered by the gateways, and never waited
//! for by them.

use std::{
    collections::{HashMap, VecDeque},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{PusherEvent, PusherNews},
    worker::{
        core::{RunnerWatch, WorkerCore},
        handler::Handler,
    },
};

/// What was missed is warned of at most once within this.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Takes this worker's share of what an app's Pusher clients do, until the worker is leaving and everything
/// that was taken is handled.
///
/// # Errors
/// If it cannot watch, or the watch ends before the worker is leaving.
pub(crate) async fn run<H: Handler>(
    core: Arc<WorkerCore<H>>,
    app: String,
    leaving: CancellationToken,
) -> anyhow::Result<()> {
    // All workers of a service share.
    let share = core.hello.services.first().cloned().unwrap_or_default();
    let sharer = core.context.incarnation();
    let mut watch = core.context.cluster().in_app(&app).share_pusher_as(&share, sharer, false)?;
    let under_way_max = core.hello.events_max as usize;
    let mut lines = Lines::default();
    let mut running: JoinSet<String> = JoinSet::new();
    let mut gaps = Gaps::default();
    loop {
        let news = tokio::select! {
            biased;
            () = leaving.cancelled() => break,
            Some(Ok(client)) = running.join_next() => {
                if let Some(event) = lines.done(&client) {
                    running.spawn(handle(core.clone(), event));
                }
                continue;
            }
            news = watch.next(), if lines.count < under_way_max => news,
        };
        match news {
            Ok(PusherNews::Event(event)) => {
                core.meters.pusher.increment(1);
                if let Some(event) = lines.push(event) {
                    running.spawn(handle(core.clone(), event));
                }
            }
            Ok(PusherNews::Missed { gateway, events }) => {
                core.meters.pusher_missed.increment(events.unwrap_or_default());
                if let Some(missed) = gaps.note(events, Instant::now()) {
                    tracing::warn!(app, gateway, missed, "events of Pusher clients were missed");
                }
            }
            // The handler hears of it as of every lost gateway.
            Ok(PusherNews::GatewayLeft { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    drop(watch);
    while let Some(done) = running.join_next().await {
        if let Some(event) = done.ok().and_then(|client| lines.done(&client)) {
            running.spawn(handle(core.clone(), event));
        }
    }
    Ok(())
}

/// Returns whose event it was.
async fn handle<H: Handler>(core: Arc<WorkerCore<H>>, event: PusherEvent) -> String {
    let _watch = RunnerWatch(&core.runner_panicked);
    let client = event.client_id.clone();
    // Whatever the handler does, its client's next event has its turn.
    let handled = async { core.handler.pusher(&core.context, event).await };
    let handled = AssertUnwindSafe(handled).catch_unwind().await;
    core.note("pusher", handled);
    client
}

/// The events of each client, one after the other. Pure.
#[derive(Default)]
struct Lines {
    /// Clients with an event that is being handled, and what waits behind it.
    waiting: HashMap<String, VecDeque<PusherEvent>>,
    /// Events that wait or are being handled.
    count: usize,
}

impl Lines {
    /// Returns the event if it is to be handled now.
    fn push(&mut self, event: PusherEvent) -> Option<PusherEvent> {
        self.count += 1;
        if let Some(line) = self.waiting.get_mut(&event.client_id) {
            line.push_back(event);
            return None;
        }
        self.waiting.insert(event.client_id.clone(), VecDeque::new());
        Some(event)
    }

    /// The client's event has been handled; returns its next one.
    fn done(&mut self, client: &str) -> Option<PusherEvent> {
        self.count -= 1;
        let next = self.waiting.get_mut(client).and_then(VecDeque::pop_front);
        if next.is_none() {
            self.waiting.remove(client);
        }
        next
    }
}

/// What was missed and not yet warned of. Pure.
#[derive(Default)]
struct Gaps {
    missed: u64,
    warned: Option<Instant>,
}

impl Gaps {
    /// Returns how many events are known to be missed, if a warning is due.
    fn note(&mut self, events: Option<u64>, now: Instant) -> Option<u64> {
        self.missed += events.unwrap_or_default();
        if self.warned.is_some_and(|warned| now - warned < WARN_EVERY) {
            return None;
        }
        self.warned = Some(now);
        Some(std::mem::take(&mut self.missed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::PusherEventKind;

    fn event(client: &str, number: usize) -> PusherEvent {
        let kind = PusherEventKind::Unsubscribed { channel: number.to_string() };
        let (app, socket_id) = (String::new(), String::new());
        PusherEvent { app, client_id: client.to_owned(), socket_id, user_id: None, kind }
    }

    #[test]
    fn events_wait_only_for_their_own_client() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(event("a", 1)), Some(event("a", 1)));
        assert_eq!(lines.push(event("a", 2)), None);
        assert_eq!(lines.push(event("b", 3)), Some(event("b", 3)));
        assert_eq!((lines.count, lines.done("a")), (3, Some(event("a", 2))));
        assert_eq!((lines.done("b"), lines.done("a")), (None, None));
        assert!(lines.count == 0 && lines.waiting.is_empty());
    }

    #[test]
    fn warnings_are_rare_and_leave_nothing_out() {
        let (mut gaps, now) = (Gaps::default(), Instant::now());
        assert_eq!(gaps.note(Some(3), now), Some(3));
        assert_eq!((gaps.note(Some(4), now), gaps.note(None, now)), (None, None));
        assert_eq!(gaps.note(Some(1), now + WARN_EVERY), Some(5));
    }
}
