//! The tasks of a role's process besides the role itself: metrics, probes, signals, the files of apps. The unexpected
//! end of one stops the process with an error that names it.

use std::{pin::pin, time::Duration};

use broadgate_tasks::Tasks;
use broadgate_tls::ClusterTls;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// From the end of the role to the end of these tasks: the metrics port is given back.
const END_TIME_MAX: Duration = Duration::from_secs(2);

/// Tasks that run until the role has ended.
#[derive(Default)]
pub(crate) struct RoleTasks {
    tasks: Tasks,
    end: CancellationToken,
}

impl RoleTasks {
    /// Cancelled when the role has ended.
    pub(crate) fn end(&self) -> CancellationToken {
        self.end.clone()
    }

    /// Starts a task that runs until the role has ended.
    pub(crate) fn spawn(&mut self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        let until_end = self.end().run_until_cancelled_owned(task);
        self.tasks.spawn(name, async { until_end.await.unwrap_or_default() });
    }

    /// Starts the task that watches the certificates of the cluster, if there are any.
    ///
    /// # Errors
    /// If the system gives no signals.
    pub(crate) fn spawn_certificates(&mut self, tls: Option<ClusterTls>) -> Result<(), Failure> {
        if let Some(tls) = tls {
            let hangups = signal(SignalKind::hangup())?;
            self.spawn("certificates", async { match tls.watch(Some(hangups)).await {} });
        }
        Ok(())
    }

    /// Starts a task that ends by itself after [`RoleTasks::end`].
    pub(crate) fn spawn_ending(&mut self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(name, task);
    }

    /// Runs a role to its end. If a task fails, the role is shut down in good order.
    pub(crate) async fn run(
        mut self,
        shutdown: CancellationToken,
        role: impl Future<Output = anyhow::Result<()>>,
    ) -> Result<(), Failure> {
        let mut role = pin!(role);
        let ended = tokio::select! {
            ended = &mut role => ended,
            failed = self.tasks.failed() => {
                let failed = failed.context("the process exits, to be restarted");
                tracing::error!("{failed:#}");
                shutdown.cancel();
                if let Err(error) = role.await {
                    tracing::error!("{error:#}");
                }
                Err(failed)
            }
        };
        self.end.cancel();
        if let Err(late) = self.tasks.join(END_TIME_MAX).await {
            tracing::warn!(?late, "aborting tasks that did not end in time");
        }
        Ok(ended?)
    }
}
