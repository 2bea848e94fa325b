//! What an operator may know of each app's reader: its row in the status, its metrics, its lines in the log.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use broadgate_proto::{limits::REDIS_TROUBLE_INTERVAL, v1};
use metrics::{Counter, Gauge, counter, gauge};

/// The readers of all apps. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReaderStates(Arc<Mutex<BTreeMap<String, ReaderState>>>);

#[derive(Debug)]
struct ReaderState {
    /// Of a reader; a later one of the same app has another.
    id: u64,
    url: String,
    is_connected: bool,
    trouble: String,
    since: Instant,
}

impl ReaderStates {
    /// The rows of the status.
    pub(crate) fn rows(&self) -> Vec<v1::RedisReader> {
        let row = |(app, state): (&String, &ReaderState)| v1::RedisReader {
            app: app.clone(),
            url: state.url.clone(),
            connected: state.is_connected,
            trouble: state.trouble.clone(),
            state_ms: u64::try_from(state.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        self.lock().iter().map(row).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, ReaderState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a message was not placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReaderDrop {
    /// It is no message of Laravel's.
    Unparsable,
    /// No client can be in a channel of this name.
    Name,
    TooLong,
    /// More was published than the cluster places.
    Full,
    /// The command was refused: a name or the data is too long.
    Refused,
    /// The channel's home could not be asked.
    Unanswered,
}

impl ReaderDrop {
    const ALL: [Self; 6] =
        [Self::Unparsable, Self::Name, Self::TooLong, Self::Full, Self::Refused, Self::Unanswered];

    const fn label(self) -> &'static str {
        match self {
            Self::Unparsable => "unparsable",
            Self::Name => "name",
            Self::TooLong => "too_long",
            Self::Full => "full",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
        }
    }
}

/// One reader's part of it. When it is dropped, the app has no reader any more.
pub(super) struct ReaderReport {
    states: ReaderStates,
    id: u64,
    pub(super) app: String,
    /// Messages of channels whose home is here, of others, and those that came while this gateway was in no view:
    /// then the other gateways are the homes.
    pub(super) taken: Counter,
    pub(super) elsewhere: Counter,
    pub(super) outside: Counter,
    drops: [Counter; ReaderDrop::ALL.len()],
    disconnected: Gauge,
    disconnected_seconds: Counter,
    /// Without a connection since then, as far as it is counted.
    uncounted_since: Mutex<Option<Instant>>,
    logged: Mutex<Logged>,
}

#[derive(Default)]
struct Logged {
    trouble: Option<(String, Instant)>,
    /// The connection has had its line since the last line about trouble.
    is_connected: bool,
    /// When each reason had its line last, and what has had none since.
    drops: [(Option<Instant>, u64); ReaderDrop::ALL.len()],
}

impl ReaderReport {
    pub(super) fn new(states: &ReaderStates, id: u64, app: &str, url: String) -> Self {
        let state = ReaderState {
            id,
            url,
            is_connected: false,
            trouble: "it has not answered yet".to_owned(),
            since: Instant::now(),
        };
        states.lock().insert(app.to_owned(), state);
        let label = || app.to_owned();
        let messages = |home: &'static str| counter!("broadgate_gateway_redis_messages_total", "app" => label(), "home" => home);
        let drop = |reason: ReaderDrop| {
            let (app, reason) = (label(), reason.label());
            counter!("broadgate_gateway_redis_drops_total", "app" => app, "reason" => reason)
        };
        let report = Self {
            states: states.clone(),
            id,
            app: app.to_owned(),
            taken: messages("here"),
            elsewhere: messages("elsewhere"),
            outside: messages("unknown"),
            drops: ReaderDrop::ALL.map(drop),
            disconnected: gauge!("broadgate_gateway_redis_disconnected", "app" => label()),
            disconnected_seconds: counter!("broadgate_gateway_redis_disconnected_seconds_total", "app" => label()),
            uncounted_since: Mutex::new(Some(Instant::now())),
            logged: Mutex::default(),
        };
        // Alerts watch them: they exist before the first loss.
        report.drops.iter().for_each(|counter| counter.increment(0));
        report.disconnected_seconds.increment(0);
        report.disconnected.set(1.0);
        report
    }

    fn change(&self, change: impl FnOnce(&mut ReaderState)) {
        if let Some(state) = self.states.lock().get_mut(&self.app).filter(|state| state.id == self.id) {
            change(state);
        }
    }

    pub(super) fn connected(&self, url: &str) {
        self.count_outage(false);
        self.disconnected.set(0.0);
        // As many lines as there are about trouble, however often it connects.
        if !std::mem::replace(&mut self.logged().is_connected, true) {
            tracing::info!(app = %self.app, %url, "subscribed to Redis");
        }
        self.change(|state| {
            (state.url, state.trouble) = (url.to_owned(), String::new());
            (state.is_connected, state.since) = (true, Instant::now());
        });
    }

    /// The connection is lost, or an attempt has failed.
    pub(super) fn failed(&self, url: &str, trouble: &str) {
        self.count_outage(true);
        self.disconnected.set(1.0);
        let mut logged = self.logged();
        let is_news = logged
            .trouble
            .as_ref()
            .is_none_or(|(former, at)| former != trouble || at.elapsed() >= REDIS_TROUBLE_INTERVAL);
        if is_news {
            tracing::warn!(
                app = %self.app, %url,
                "Redis is not read: {trouble}; what is published meanwhile is lost"
            );
            (logged.trouble, logged.is_connected) = (Some((trouble.to_owned(), Instant::now())), false);
        }
        drop(logged);
        self.change(|state| {
            (state.url, state.trouble) = (url.to_owned(), trouble.to_owned());
            if std::mem::take(&mut state.is_connected) {
                state.since = Instant::now();
            }
        });
    }

    /// Something seems wrong with the settings, though there is a connection; "" if not any more.
    pub(super) fn doubt(&self, trouble: &str) {
        if !trouble.is_empty() {
            tracing::warn!(app = %self.app, "Redis: {trouble}");
        }
        self.change(|state| {
            if state.is_connected {
                state.trouble = trouble.to_owned();
            }
        });
    }

    /// Adds the whole seconds of an outage that are not counted yet.
    pub(super) fn count_outage(&self, goes_on: bool) {
        let mut since = self.uncounted_since.lock().unwrap_or_else(PoisonError::into_inner);
        let from = since.unwrap_or_else(Instant::now);
        let seconds = from.elapsed().as_secs();
        self.disconnected_seconds.increment(seconds);
        *since = goes_on.then(|| from + Duration::from_secs(seconds));
    }

    /// Counts a message that was not placed; some have a line in the log.
    pub(super) fn dropped(&self, reason: ReaderDrop, name: &str, why: &str) {
        let index = ReaderDrop::ALL.iter().position(|one| *one == reason).unwrap_or_default();
        self.drops[index].increment(1);
        let mut logged = self.logged();
        let (at, left_out) = &mut logged.drops[index];
        if at.is_some_and(|at| at.elapsed() < REDIS_TROUBLE_INTERVAL) {
            *left_out += 1;
            return;
        }
        let before = std::mem::take(left_out);
        *at = Some(Instant::now());
        drop(logged);
        let channel = broadgate_pusher::shown(name);
        tracing::warn!(app = %self.app, ?channel, reason = reason.label(), before, "a message from Redis was dropped: {why}");
    }

    fn logged(&self) -> MutexGuard<'_, Logged> {
        self.logged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ReaderReport {
    fn drop(&mut self) {
        let mut states = self.states.lock();
        if states.get(&self.app).is_some_and(|state| state.id == self.id) {
            states.remove(&self.app);
            self.disconnected.set(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_those_of_the_latest_reader() {
        let states = ReaderStates::default();
        let first = ReaderReport::new(&states, 1, "shop", "redis://a:1".into());
        assert!(!states.rows()[0].connected && !states.rows()[0].trouble.is_empty());
        first.connected("redis://b:1");
        assert!(states.rows()[0].connected && states.rows()[0].url == "redis://b:1");
        first.doubt("odd");
        assert_eq!(states.rows()[0].trouble, "odd");
        first.failed("redis://b:1", "gone");
        assert!(!states.rows()[0].connected && states.rows()[0].trouble == "gone");
        // A changed app: its former reader ends later.
        let second = ReaderReport::new(&states, 2, "shop", "redis://c:1".into());
        first.connected("redis://b:1");
        drop(first);
        assert!(!states.rows()[0].connected && states.rows()[0].url == "redis://c:1");
        drop(second);
        assert!(states.rows().is_empty());
    }
}
