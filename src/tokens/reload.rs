//! Tokens are read again while a gateway runs: on SIGHUP, and when their file has changed. A file that cannot be
//! used leaves the former tokens, and the log says so; one without any removes them all.

use std::{
    hash::{DefaultHasher, Hasher as _},
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
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
    /// The file was read since the start.
    has_looked: bool,
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
        Ok(Self { tokens, events, path, seen: None, has_looked: false, hangups })
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
        let is_due = |this: &Self, now| now != this.seen || !this.has_looked || is_ordered;
        while is_due(self, now) && !is_ordered {
            sleep(SETTLE_TIME).await;
            let Ok((again, later)) = self.text().await else { return };
            (text, now) = if again == now { break } else { (later, again) };
        }
        if !is_due(self, now) {
            return;
        }
        let is_first = !std::mem::replace(&mut self.has_looked, true);
        // Also what cannot be used is not looked at twice.
        self.seen = now;
        let taken = text.and_then(|text| {
            let tokens = parse(&self.path, &text)?;
            self.tokens.replace(tokens)
        });
        let outcome = match taken {
            Ok(change) => {
                // Between the start and the first look nothing has happened, mostly.
                if !change.is_empty() || !is_first {
                    let count = self.tokens.count();
                    tracing::info!(tokens = count, %change, "tokens read again");
                    let text = format!("tokens read again: there are {count}; {change}");
                    self.events.note(EventKind::Settings, "tokens_read", text);
                }
                self.tokens.set_stale("", 0);
                "taken"
            }
            Err(sentence) => {
                self.tokens.set_stale(&sentence, now_ms());
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

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: &str = "[[tokens]]\nname = \"ann\"\nrole = \"reader\"\napps = [\"*\"]\nsha256 = \"";

    /// Every change of the file becomes an event, also one before the first look.
    #[tokio::test]
    async fn every_change_becomes_an_event() {
        let path = std::env::temp_dir().join(format!("broadgate-reload-{}.toml", std::process::id()));
        let one = format!("{ANN}{}\"\n", "a1".repeat(32));
        std::fs::write(&path, &one).unwrap();
        let tokens = super::super::open(Some(&path)).unwrap();
        let events = EventLog::default();
        let mut reload = TokensReload::new(tokens.clone(), path.clone(), events.clone()).unwrap();
        let told = |what: &str| format!("{events:?}").matches(what).count();

        std::fs::write(&path, "# nobody\n").unwrap();
        reload.look(false).await;
        assert_eq!((tokens.count(), told("tokens read again: there are 0; removed ann\"")), (0, 1));
        std::fs::remove_file(&path).unwrap();
        reload.look(false).await;
        assert_eq!((tokens.count(), told("the tokens stay as they were")), (0, 1));
        std::fs::write(&path, "# nobody\n").unwrap();
        reload.look(false).await;
        assert_eq!(told("tokens read again: there are 0"), 2, "it is back");
        reload.look(false).await;
        assert_eq!(told("tokens read again"), 2, "nothing has changed");

        // Nothing has changed since the start.
        std::fs::write(&path, &one).unwrap();
        let mut quiet =
            TokensReload::new(super::super::open(Some(&path)).unwrap(), path.clone(), events.clone())
                .unwrap();
        quiet.look(false).await;
        assert_eq!(told("tokens read again"), 2);
        std::fs::remove_file(&path).unwrap();
    }
}
