//! Apps are read again while a gateway runs: on SIGHUP, and when a file has changed.
//!
//! A file that is being written looks like one with fewer apps, or with less in them, and taking those at
//! their word would close clients for good. So what only adds is taken at once; what removes or changes
//! waits until the files have rested; and that a file loses all its apps is never believed.

use std::time::{Duration, Instant};

use broadgate_gateway::{
    apps::{Apps, AppsChange},
    events::{EventKind, EventLog},
};
use metrics::{counter, gauge};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep},
};

use super::read::{AppsReading, Files, SeenFile, Source};

/// Between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// A changed file must stay unchanged for this long: it may still be being written.
const SETTLE_TIME: Duration = Duration::from_millis(200);
/// And for so long before an app is removed or changed by it.
const REMOVAL_SETTLE_TIME: Duration = Duration::from_secs(3);

/// What follows the files of a gateway's apps.
pub(crate) struct Reload {
    apps: Apps,
    source: Source,
    /// The files as they were when they were read.
    seen: Vec<SeenFile>,
    /// Which apps each file had when they were taken.
    files: Files,
    events: EventLog,
    hangups: Signal,
}

/// What became of a reading.
enum ReloadOutcome {
    Taken(AppsChange, Files),
    /// It removes or changes apps, and the files have not rested for long enough.
    TooFresh,
    /// It would lose every app of a file.
    Lost(String),
    /// It cannot be used.
    Bad(String),
}

impl Reload {
    /// Reads the apps for the first time.
    ///
    /// # Errors
    /// One sentence about what cannot be used.
    pub(crate) fn open(source: Source) -> Result<Self, String> {
        let mut seen = Vec::new();
        let reading = source.read(&mut seen)?;
        let apps = reading.open()?;
        for warning in reading.warnings() {
            tracing::warn!("{warning}");
        }
        let files = reading.files().clone();
        let hangups = signal(SignalKind::hangup()).map_err(|error| format!("SIGHUP: {error}"))?;
        Ok(Self { apps, source, seen, files, events: EventLog::default(), hangups })
    }

    /// The apps, as they are and as they become.
    pub(crate) fn apps(&self) -> Apps {
        self.apps.clone()
    }

    /// What happens is noted here.
    pub(crate) fn noted_in(self, events: EventLog) -> Self {
        Self { events, ..self }
    }

    /// Follows the files for as long as the process lives.
    pub(crate) async fn run(mut self) {
        gauge!("broadgate_gateway_apps_stale").set(0.0);
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // It cannot end while the runtime lives. An order: nothing is waited for.
                _ = self.hangups.recv() => {
                    self.read(true).await;
                }
                _ = looks.tick() => self.look().await,
            }
        }
    }

    /// Reads the files if they have changed, when they have come to rest.
    async fn look(&mut self) {
        let mut now = look(&self.seen).await;
        let mut since = Instant::now();
        while now != self.seen {
            sleep(SETTLE_TIME).await;
            let again = look(&now).await;
            if again != now {
                (now, since) = (again, Instant::now());
                continue;
            }
            if self.read(since.elapsed() >= REMOVAL_SETTLE_TIME).await {
                return;
            }
        }
    }

    fn stay(&self, sentence: &str) {
        let text = format!("the apps stay as they were: {sentence}");
        tracing::error!("{text}");
        self.events.note(EventKind::Alarm, "apps_unusable", text);
    }

    /// Takes what the files say, or goes on with what they said; false if they must rest for longer.
    async fn read(&mut self, is_at_rest: bool) -> bool {
        let (source, apps, former) = (self.source.clone(), self.apps.clone(), self.files.clone());
        let known = self.seen.clone();
        let read = broadgate_tasks::blocking("app files", move || {
            let mut seen = Vec::new();
            let reading = source.read(&mut seen);
            let outcome = reading.and_then(|reading| decide(&reading, &apps, &former, is_at_rest));
            (seen, outcome.unwrap_or_else(ReloadOutcome::Bad))
        });
        let (seen, outcome) = match read.await {
            Ok(read) => read,
            Err(panic) => (look(&known).await, ReloadOutcome::Bad(format!("reading them panicked: {panic}"))),
        };
        if matches!(outcome, ReloadOutcome::TooFresh) {
            return false;
        }
        // Also what cannot be used is not looked at twice.
        self.seen = seen;
        let (word, stale) = match outcome {
            ReloadOutcome::Taken(change, files) => {
                self.files = files;
                tracing::info!("apps read again: {change}");
                self.events.note(EventKind::Settings, "apps_read", format!("apps read again: {change}"));
                (if change.is_empty() { "unchanged" } else { "changed" }, String::new())
            }
            ReloadOutcome::Lost(sentence) => {
                self.stay(&sentence);
                ("lost", sentence)
            }
            ReloadOutcome::Bad(sentence) => {
                self.stay(&sentence);
                ("bad", sentence)
            }
            ReloadOutcome::TooFresh => return false,
        };
        counter!("broadgate_gateway_apps_read_total", "outcome" => word).increment(1);
        gauge!("broadgate_gateway_apps_stale").set(f64::from(u8::from(!stale.is_empty())));
        self.apps.set_stale(&stale);
        true
    }
}

/// Compares what was read with what is so, and takes it if it may be.
fn decide(
    reading: &AppsReading,
    apps: &Apps,
    former: &Files,
    is_at_rest: bool,
) -> Result<ReloadOutcome, String> {
    let change = reading.compare(apps)?;
    if let Some(file) = reading.lost_since(former) {
        return Ok(ReloadOutcome::Lost(format!(
            "{} has no app any more, and all its clients would be closed: to close an app's clients set \
             enabled = false on it, to remove the last app restart the gateway",
            file.display()
        )));
    }
    let only_adds = change.removed.is_empty() && change.changed.is_empty();
    if !only_adds && !is_at_rest {
        return Ok(ReloadOutcome::TooFresh);
    }
    Ok(ReloadOutcome::Taken(reading.swap_into(apps)?, reading.files().clone()))
}

async fn look(files: &[SeenFile]) -> Vec<SeenFile> {
    let now = files.to_vec();
    let looked = broadgate_tasks::blocking("app files", move || now.iter().map(SeenFile::again).collect());
    // After a panic they count as unchanged: an empty list would differ at every look.
    looked.await.unwrap_or_else(|_| files.to_vec())
}

/// From now on SIGHUP does not end this process, which may have nothing to read again.
pub(crate) fn outlive_hangups() -> std::io::Result<()> {
    // The handler stays when the stream is gone.
    signal(SignalKind::hangup()).map(drop)
}
