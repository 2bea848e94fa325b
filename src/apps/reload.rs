//! Apps are read again while a gateway runs: on SIGHUP, and when a file has changed.

use std::time::Duration;

use broadgate_gateway::apps::Apps;
use metrics::counter;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep},
};

use super::read::{Seen, Source};

/// Between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// A file that has changed must stay as it is for so long: whoever writes it may not be through.
const SETTLE_TIME: Duration = Duration::from_millis(200);

/// What follows the files of a gateway's apps.
pub(crate) struct Reload {
    apps: Apps,
    source: Source,
    /// The files as they were when they were read.
    seen: Vec<Seen>,
    hangups: Signal,
}

impl Reload {
    /// Reads the apps for the first time.
    ///
    /// # Errors
    /// One sentence about what cannot be used.
    pub(crate) fn open(source: Source) -> Result<Self, String> {
        let mut seen = Vec::new();
        let apps = source.read(&mut seen)?.open()?;
        let hangups = signal(SignalKind::hangup()).map_err(|error| format!("SIGHUP: {error}"))?;
        Ok(Self { apps, source, seen, hangups })
    }

    /// The apps, as they are and as they become.
    pub(crate) fn apps(&self) -> Apps {
        self.apps.clone()
    }

    /// Follows the files for as long as the process lives.
    pub(crate) async fn run(mut self) {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // It cannot end while the runtime lives.
                _ = self.hangups.recv() => self.read().await,
                _ = looks.tick() => {
                    if self.has_changed().await {
                        self.read().await;
                    }
                }
            }
        }
    }

    /// Has a file changed, and come to rest? If it has not come to rest, the next look finds it.
    async fn has_changed(&self) -> bool {
        let now = look(&self.seen).await;
        if now == self.seen {
            return false;
        }
        sleep(SETTLE_TIME).await;
        now == look(&now).await
    }

    /// Takes what the files say, or goes on with what they said.
    async fn read(&mut self) {
        let (source, apps) = (self.source.clone(), self.apps.clone());
        let read = tokio::task::spawn_blocking(move || {
            let mut seen = Vec::new();
            let change = source.read(&mut seen).and_then(|reading| reading.swap_into(&apps));
            (seen, change)
        });
        let Ok((seen, change)) = read.await else { return };
        // Also what cannot be used is not looked at twice.
        self.seen = seen;
        let outcome = match change {
            Ok(change) => {
                tracing::info!("apps read again: {change}");
                if change.is_empty() { "unchanged" } else { "changed" }
            }
            Err(sentence) => {
                tracing::warn!("the apps stay as they were: {sentence}");
                "bad"
            }
        };
        counter!("broadgate_gateway_apps_read_total", "outcome" => outcome).increment(1);
    }
}

async fn look(files: &[Seen]) -> Vec<Seen> {
    let files = files.to_vec();
    let looked = tokio::task::spawn_blocking(move || files.iter().map(Seen::again).collect());
    looked.await.unwrap_or_default()
}

/// From now on SIGHUP does not end this process, which may have nothing to read again.
pub(crate) fn outlive_hangups() -> std::io::Result<()> {
    // The handler stays when the stream is gone.
    signal(SignalKind::hangup()).map(drop)
}
