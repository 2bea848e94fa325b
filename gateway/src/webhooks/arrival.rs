//! Whether a report has reached its receivers: known when the last copy of its [`Arrival`] is dropped.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use broadgate_proto::id::Incarnation;
use broadgate_topics::{Report, Topic};
use tokio::sync::Notify;

/// Reports that have arrived, or never will, until the actor takes them. There are never more than reports
/// on their way.
#[derive(Debug)]
pub(crate) struct Arrivals {
    arrived: Mutex<Vec<(Incarnation, Topic, Report)>>,
    wake: Arc<Notify>,
}

/// Kept with a report as long as it may still arrive; it is gone with the last copy.
#[derive(Debug, Clone)]
pub(crate) struct Arrival(Arc<OnTheWay>);

impl PartialEq for Arrival {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Arrival {}

#[derive(Debug)]
struct OnTheWay {
    report: Option<(Incarnation, Topic, Report)>,
    arrivals: Arc<Arrivals>,
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        if let Some(report) = self.report.take() {
            self.arrivals.arrived.lock().unwrap_or_else(PoisonError::into_inner).push(report);
            self.arrivals.wake.notify_one();
        }
    }
}

impl Arrivals {
    /// `wake` is notified of every arrival.
    pub(crate) fn new(wake: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { arrived: Mutex::new(Vec::new()), wake })
    }

    /// What goes with a report of this incarnation on its way.
    pub(crate) fn expect(self: &Arc<Self>, me: Incarnation, topic: Topic, report: Report) -> Arrival {
        Arrival(Arc::new(OnTheWay { report: Some((me, topic, report)), arrivals: Arc::clone(self) }))
    }

    /// Takes what has arrived.
    pub(crate) fn take(&self) -> Vec<(Incarnation, Topic, Report)> {
        mem::take(&mut *self.arrived.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
