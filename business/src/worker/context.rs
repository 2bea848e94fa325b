//! What a worker knows of itself.

use std::sync::Arc;

use broadgate_proto::id::Incarnation;
use tokio::sync::watch;

use crate::cluster::Cluster;

/// The worker, as its handler sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    pub(crate) cluster: Cluster,
    pub(crate) name: Arc<str>,
    pub(crate) incarnation: watch::Receiver<Incarnation>,
}

impl Context {
    /// The cluster, to command.
    #[must_use]
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The worker's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// This run of this worker; another one after the register has removed it and it came back.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        *self.incarnation.borrow()
    }
}
