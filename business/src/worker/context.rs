//! A worker's own identity and its cluster.

use std::sync::Arc;

use broadgate_proto::id::Incarnation;
use tokio::sync::watch;

use crate::cluster::Cluster;

/// The worker that a handler runs in. Cheap to clone.
///
/// ```no_run
/// # async fn example(context: broadgate_business::Context) -> anyhow::Result<()> {
/// use broadgate_business::Audience;
///
/// context.cluster().send(Audience::all(), format!("{} is here", context.name())).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Context {
    pub(crate) cluster: Cluster,
    pub(crate) name: Arc<str>,
    pub(crate) incarnation: watch::Receiver<Incarnation>,
}

impl Context {
    /// The cluster.
    #[must_use]
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The worker's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of this membership; it changes when the register has removed the worker and it rejoins.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        *self.incarnation.borrow()
    }
}
