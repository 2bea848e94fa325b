//! Log lines of refusals: some per minute for each reason, then a count, so that an operator sees why clients
//! and publishes are refused and a flood cannot fill the log.
//!
//! At level `debug` every refusal has its line. Texts of refused callers are truncated, and no secret is in
//! it.

use std::{borrow::Cow, net::SocketAddr, sync::Mutex, time::Instant};

use broadgate_port::Book;
use broadgate_proto::limits::REFUSAL_FIELD_BYTES_MAX;
use metrics::counter;

use crate::apps::{AppTable, Apps};

/// Shorter secrets could be part of any word; only a whole segment is compared with them.
const SECRET_BYTES_MIN: usize = 8;

static BOOK: Mutex<Book> = Mutex::new(Book::new());

/// What is known of a refused connection or request. Texts are "" where nothing is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct RefusalContext<'a> {
    /// From a closed set.
    pub(crate) reason: &'static str,
    pub(crate) why: &'a str,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) app: &'a str,
    pub(crate) key: &'a str,
    /// Decoded, without the query.
    pub(crate) path: &'a str,
    pub(crate) origin: &'a str,
}

impl RefusalContext<'_> {
    /// Counts it by its reason, and writes a line or counts that.
    pub(crate) fn count_and_log(&self, apps: &Apps) {
        counter!("broadgate_gateway_refused_total", "reason" => self.reason).increment(1);
        self.log(apps);
    }

    /// Writes a line, or counts it.
    pub(crate) fn log(&self, apps: &Apps) {
        // No shard waits for another one's line.
        let is_logged = may_log(self.reason);
        if !is_logged && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let table = apps.load();
        let field = |text| Some(clean(text, &table)).filter(|text| !text.is_empty());
        let (why, app, key) = (clean(self.why, &table), field(self.app), field(self.key));
        let (path, origin) = (field(self.path.split('?').next().unwrap_or_default()), field(self.origin));
        let (app, key, path, origin) = (app.as_deref(), key.as_deref(), path.as_deref(), origin.as_deref());
        let (reason, why) = (self.reason, &*why);
        let address = self.address.map(tracing::field::display);
        if is_logged {
            tracing::info!(reason, why, address, app, key, path, origin, "refused");
        } else {
            tracing::debug!(reason, why, address, app, key, path, origin, "refused");
        }
    }
}

/// Whether a line that clients can cause may be logged again in this minute.
pub(crate) fn may_log(reason: &'static str) -> bool {
    BOOK.try_lock().is_ok_and(|mut book| book.take(reason, Instant::now()))
}

/// Once a second, by one thread: how many refusals of the last minute have no line.
pub(crate) fn tell_left_out() {
    let Ok(left_out) = BOOK.try_lock().map(|mut book| book.left_out(Instant::now())) else { return };
    for (reason, refusals) in left_out {
        tracing::info!(reason, refusals, "more refusals for this reason within a minute");
    }
}

/// A text as a log may contain it: truncated, and without the secrets of apps, which people mistake for keys.
fn clean<'a>(text: &'a str, table: &AppTable) -> Cow<'a, str> {
    let mut text = Cow::Borrowed(text);
    for key in table.iter().flat_map(|app| &app.keys) {
        let secret = key.secret.reveal();
        let leaks = match secret.len() {
            0 => false,
            SECRET_BYTES_MIN.. => text.contains(secret),
            _ => text.split('/').any(|segment| segment == secret),
        };
        if leaks {
            text = text.replace(secret, "[the secret of an app]").into();
        }
    }
    if text.len() > REFUSAL_FIELD_BYTES_MAX {
        let end = text.floor_char_boundary(REFUSAL_FIELD_BYTES_MAX);
        text = format!("{}…", &text[..end]).into();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::{App, KeyPair, KeySecret};

    #[test]
    fn no_secret_and_nothing_long_is_logged() {
        let key = |secret| KeyPair {
            key: format!("key-of-{secret}"),
            secret: KeySecret::new(secret),
            secret_file: None,
        };
        let app = App { keys: vec![key("0123456789abcdef"), key("short")], ..App::new("1") };
        let table = AppTable::new(vec![app]).unwrap();
        assert_eq!(clean("/app/0123456789abcdef", &table), "/app/[the secret of an app]");
        assert_eq!(clean("/app/short", &table), "/app/[the secret of an app]");
        assert_eq!(clean("/app/shorter", &table), "/app/shorter");
        let long = clean("éé", &AppTable::default()).repeat(REFUSAL_FIELD_BYTES_MAX);
        assert_eq!(clean(&long, &table).len(), REFUSAL_FIELD_BYTES_MAX + "…".len());
    }
}
