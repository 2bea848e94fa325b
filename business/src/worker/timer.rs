//! Timers of a worker.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use broadgate_proto::{id::Incarnation, v1::View};
use broadgate_register::member::leader;
use futures_util::FutureExt as _;
use metrics::counter;
use tokio::sync::watch;

use super::context::Context;
use crate::cluster::Cluster;

/// The workers that a timer ticks on; see [`Worker::every`](super::Worker::every).
///
/// ```no_run
/// use std::time::Duration;
///
/// use broadgate_business::{Audience, Once, Worker};
///
/// # fn example(worker: Worker) -> Worker {
/// worker.every(Duration::from_secs(60), Once::InCluster, |cluster| async move {
///     if let Err(error) = cluster.send(Audience::all(), "a minute has passed").await {
///         tracing::warn!(%error, "no clients were reached");
///     }
/// })
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Once {
    /// On one worker of the cluster: the ready one of this worker's first service with the lowest
    /// incarnation in the current view. Ticks fall on whole multiples of the period since the Unix
    /// epoch, so that they keep their beat when another worker takes over. This is a rule, not a
    /// lock. A tick may run **twice** when two workers' views differ for a moment, or when their
    /// clocks do while one takes over from the other. A tick may be **missed** while a worker that
    /// has died is still in the view (one lease), while a worker drains, and when the tick before
    /// it takes longer than the period.
    InCluster,
    /// On every worker, each in its own time.
    PerWorker,
}

type Tick = dyn Fn(Cluster) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

#[derive(Clone)]
pub(crate) struct Timer {
    period: Duration,
    once: Once,
    tick: Arc<Tick>,
}

/// Until the next whole multiple of the period. One that is very near counts as the one that has
/// just been: the clock may have been set back a little while the timer slept.
fn until_next(period: Duration, since_epoch: Duration) -> Duration {
    let period = period.as_nanos().max(1);
    let rest = period - since_epoch.as_nanos() % period;
    let rest = if rest < period / 8 { rest + period } else { rest };
    Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX))
}

fn may_tick(once: Once, view: &View, service: &str, worker: Incarnation) -> bool {
    once == Once::PerWorker || leader::leads(view, service, worker)
}

impl Timer {
    pub(crate) fn new<F, T>(period: Duration, once: Once, tick: F) -> Self
    where
        F: Fn(Cluster) -> T + Send + Sync + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        Self { period, once, tick: Arc::new(move |cluster| Box::pin(tick(cluster))) }
    }

    /// Ticks for ever.
    pub(crate) async fn run(self, context: Context, views: watch::Receiver<Arc<View>>, service: String) {
        loop {
            let wait = match self.once {
                Once::PerWorker => self.period,
                Once::InCluster => {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    until_next(self.period, now)
                }
            };
            tokio::time::sleep(wait).await;
            let ticks = may_tick(self.once, &views.borrow(), &service, context.incarnation());
            if !ticks {
                continue;
            }
            // Also what the closure does before it returns its future.
            let tick = async { (self.tick)(context.cluster.clone()).await };
            if AssertUnwindSafe(tick).catch_unwind().await.is_err() {
                counter!("broadgate_worker_timer_panics_total").increment(1);
                tracing::error!("a timer's tick panicked; later ticks go ahead");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::v1::{Member, MemberState, Role};

    use super::*;

    #[test]
    fn ticks_fall_on_whole_multiples() {
        let ten = Duration::from_secs(10);
        assert_eq!(until_next(ten, Duration::from_secs(1003)), Duration::from_secs(7));
        assert_eq!(until_next(ten, Duration::from_secs(1010)), ten);
        assert_eq!(until_next(ten, Duration::from_millis(1_009_999)), Duration::from_millis(10_001));
    }

    #[test]
    fn one_ready_worker_of_the_service_ticks_for_the_cluster() {
        let worker = |bits, state: MemberState| Member {
            incarnation: Incarnation::from_bits(bits).to_string(),
            role: Role::Worker.into(),
            state: state.into(),
            services: vec!["chat".into()],
            ..Member::default()
        };
        let members = vec![
            worker(1, MemberState::Draining),
            worker(2, MemberState::Ready),
            worker(3, MemberState::Ready),
        ];
        let view = View { members, ..View::default() };
        let ticks = |once, bits| may_tick(once, &view, "chat", Incarnation::from_bits(bits));
        let ticking: Vec<_> = (1..=3).filter(|bits| ticks(Once::InCluster, *bits)).collect();
        assert_eq!(ticking, [2]);
        assert!((1..=3).all(|bits| ticks(Once::PerWorker, bits)));
    }
}
