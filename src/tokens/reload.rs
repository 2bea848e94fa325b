//! Tokens are read again while a gateway runs: on SIGHUP, and when their file has changed. A file that cannot be
//! used leaves the former tokens, and the log says so; one without any removes them all.

use std::{
    hash::{DefaultHasher, Hasher as _},
    path::PathBuf,
    time::Duration,
};

use broadgate_gateway::{
    callers::Tokens,
    events::{EventKind, EventLog},
};
use broadgate_tasks::bounded_read::{self, ReadableKind};
use metrics::{counter, gauge};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep},
};

use super::read::parse;

/// Between two looks at the file.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// A changed file must stay unchanged for this long: it may still be being written.
const SETTLE_TIME: Duration = Duration::from_millis(200);

/// What follows the file of a gateway's tokens.
pub(crate) struct TokensReload {
    tokens: Tokens,
    events: EventLog,
    path: PathBuf,
    /// A hash of what was read last; none if nothing could be.
    seen: Option<u64>,
    hangups: Signal,
}

impl TokensReload {
    /// Follows the file from which these tokens were read.
    ///
    /// # Errors
    /// If the system does not tell of SIGHUP.
    pub(crate) fn new(tokens: Tokens, path: PathBuf, events: EventLog) -> std::io::Result<Self> {
        let hangups = signal(SignalKind::hangup())?;
        // It is read once more at the first look: it may have changed since the start.
        Ok(Self { tokens, events, path, seen: None, hangups })
    }

    /// Follows the file for as long as the process lives.
    pub(crate) async fn run(mut self) {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // It cannot end while the runtime lives.
                _ = self.hangups.recv() => self.look(true).await,
                _ = looks.tick() => self.look(false).await,
            }
        }
    }

    async fn text(&self) -> Result<(Option<u64>, Result<String, String>), String> {
        let path = self.path.clone();
        broadgate_tasks::blocking("tokens file", move || {
            let read = bounded_read::read_text(&path, ReadableKind::Regular);
            let read = read.map_err(|error| format!("tokens file {}: {error}", path.display()));
            (read.as_deref().ok().map(hash), read)
        })
        .await
        .map_err(|panic| format!("reading the tokens file panicked: {panic}"))
    }

    /// Reads the file if it has changed, or if that was ordered, and takes what it says.
    async fn look(&mut self, is_ordered: bool) {
        let (mut now, mut text) = match self.text().await {
            Ok(read) => read,
            Err(why) => return tracing::error!("the tokens stay as they were: {why}"),
        };
        while now != self.seen && !is_ordered {
            sleep(SETTLE_TIME).await;
            let Ok((again, later)) = self.text().await else { return };
            (text, now) = if again == now { break } else { (later, again) };
        }
        if now == self.seen && !is_ordered {
            return;
        }
        let is_first = self.seen.is_none();
        // Also what cannot be used is not looked at twice.
        self.seen = now;
        let taken = text.and_then(|text| {
            let tokens = parse(&self.path, &text)?;
            self.tokens.replace(tokens)
        });
        let outcome = match taken {
            Ok(()) => {
                if !is_first {
                    let count = self.tokens.count();
                    tracing::info!(tokens = count, "tokens read again");
                    let text = format!("tokens read again: there are {count}");
                    self.events.note(EventKind::Settings, "tokens_read", text);
                }
                "taken"
            }
            Err(sentence) => {
                let text = format!("the tokens stay as they were: {sentence}");
                tracing::error!("{text}");
                self.events.note(EventKind::Alarm, "tokens_unusable", text);
                "bad"
            }
        };
        counter!("broadgate_gateway_tokens_read_total", "outcome" => outcome).increment(1);
        gauge!("broadgate_gateway_tokens_stale").set(f64::from(u8::from(outcome == "bad")));
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}
