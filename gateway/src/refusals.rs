//! Refusals: log lines, some per minute for each reason, then a count, so that an operator sees why clients
//! and publishes are refused and a flood cannot fill the log; and the last of them in memory.
//!
//! At level `debug` every refusal has its line. Texts of refused callers are truncated, and no secret is in
//! it.

use std::{
    borrow::Cow,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use broadgate_port::Book;
use broadgate_proto::{limits::REFUSAL_FIELD_BYTES_MAX, v1};
use broadgate_pusher::api::params::percent_decode;
use metrics::counter;
use xxhash_rust::xxh3::Xxh3;

use crate::{
    apps::{AppTable, Apps},
    recorder::{EndQuestion, Kept, LimitsMet, REFUSAL_REASONS, RefusalRow, RefusalRows, shared_limit},
};

/// Shorter secrets could be part of any word; only a whole segment is compared with them.
const SECRET_BYTES_MIN: usize = 8;

static BOOK: Mutex<Book> = Mutex::new(Book::new());

/// What is known of a refused connection or request. Texts are "" where nothing is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct RefusalContext<'a> {
    /// One of [`REFUSAL_REASONS`].
    pub(crate) reason: &'static str,
    pub(crate) why: &'a str,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) app: &'a str,
    pub(crate) key: &'a str,
    /// Decoded, without the query.
    pub(crate) path: &'a str,
    pub(crate) origin: &'a str,
}

/// The last refusals of a gateway, and the apps whose secrets are kept out of them.
#[derive(Debug)]
pub(crate) struct Refusals {
    apps: Apps,
    rows: Mutex<RefusalRows>,
    met: Mutex<LimitsMet>,
    /// Refusals that were not kept: too many new ones came, or another thread was at it.
    left_out: AtomicU64,
}

/// What a gateway remembers of the refusals that somebody asks about.
#[derive(Debug, Default)]
pub(crate) struct FoundRefusals {
    pub(crate) newest: Vec<v1::RefusedClient>,
    pub(crate) total: u64,
    pub(crate) since_ms: u64,
    pub(crate) left_out: u64,
}

impl Refusals {
    /// 0 remembers none.
    pub(crate) fn new(apps: Apps, max: usize) -> Self {
        let rows = Mutex::new(RefusalRows::new(max, now_ms()));
        Self { apps, rows, met: Mutex::default(), left_out: AtomicU64::new(0) }
    }

    pub(crate) fn find(&self, question: &EndQuestion, gateway: &str) -> FoundRefusals {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let (newest, total) = rows.find(question, gateway);
        let left_out = self.left_out.load(Ordering::Relaxed);
        FoundRefusals { newest, total, since_ms: rows.since_ms(), left_out }
    }

    /// How many refusals of each app are remembered.
    pub(crate) fn by_app(&self) -> HashMap<String, u64> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).by_app()
    }

    /// Counts a refusal by a limit that several clients share: of an app, or of all if the app is "". Some are left out
    /// where several shards refuse at the same moment.
    pub(crate) fn limit_met<P: ToString>(&self, limit: &'static str, app: &str, place: P) {
        if let Ok(mut met) = self.met.try_lock() {
            let named = || clean(&place.to_string(), &self.apps.load()).into();
            met.refused(limit, app, named, now_ms());
        }
    }

    /// Such limits that have refused somebody in this minute or the one before.
    pub(crate) fn limits_met(&self) -> Vec<v1::MetLimit> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).list(now_ms())
    }

    fn leave_out(&self) {
        self.left_out.fetch_add(1, Ordering::Relaxed);
    }

    /// No shard waits for another one, nor for somebody who asks: what comes meanwhile is left out.
    fn keep(&self, refused: &RefusalContext<'_>) {
        debug_assert!(REFUSAL_REASONS.contains(&refused.reason), "{refused:?}: its reason is not in the set");
        let (hash, now_ms) = (refused.hash(), now_ms());
        let address = refused.address.map(|address| address.ip());
        match (shared_limit(refused.reason), address) {
            (Some(limit @ "clients_per_ip_max"), Some(ip)) => self.limit_met(limit, "", ip),
            (Some(limit), _) => self.limit_met(limit, refused.app, ""),
            (None, _) => {}
        }
        let Ok(kept) = self.rows.try_lock().map(|mut rows| rows.again(hash, address, refused.reason, now_ms))
        else {
            return self.leave_out();
        };
        match kept {
            Kept::Counted => {}
            Kept::No => self.leave_out(),
            Kept::New => {
                let row = refused.row(&self.apps.load());
                match self.rows.try_lock() {
                    Ok(mut rows) => rows.add(hash, row, now_ms),
                    Err(_) => self.leave_out(),
                }
            }
        }
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl RefusalContext<'_> {
    /// Counts it by its reason, and writes a line or counts that.
    pub(crate) fn count_and_log(&self, refusals: &Refusals) {
        counter!("broadgate_gateway_refused_total", "reason" => self.reason).increment(1);
        self.log(refusals);
    }

    /// Remembers the refusal, and writes a line or counts it.
    pub(crate) fn log(&self, refusals: &Refusals) {
        refusals.keep(self);
        let apps = &refusals.apps;
        // No shard waits for another one's line.
        let is_logged = may_log(self.reason);
        if !is_logged && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let table = apps.load();
        let field = |text| Some(clean(text, &table)).filter(|text| !text.is_empty());
        let (why, app, key) = (clean(self.why, &table), field(self.app), field(self.key));
        let path = decoded(self.path);
        let (path, origin) = (field(without_query(&path)), field(self.origin));
        let (app, key, path, origin) = (app.as_deref(), key.as_deref(), path.as_deref(), origin.as_deref());
        let (reason, why) = (self.reason, &*why);
        let address = self.address.map(tracing::field::display);
        if is_logged {
            tracing::info!(reason, why, address, app, key, path, origin, "refused");
        } else {
            tracing::debug!(reason, why, address, app, key, path, origin, "refused");
        }
    }

    /// Refusals with the same hash are alike.
    fn hash(&self) -> u64 {
        let mut hash = Xxh3::new();
        let path = without_query(self.path);
        for text in [self.reason, self.why, self.app, self.key, path] {
            hash.update(text.as_bytes());
            // It is in no text.
            hash.update(&[0xff]);
        }
        match self.address.map(|address| address.ip()) {
            Some(IpAddr::V4(ip)) => hash.update(&ip.octets()),
            Some(IpAddr::V6(ip)) => hash.update(&ip.octets()),
            None => {}
        }
        hash.digest()
    }

    /// What is remembered: no query, and of the headers only an Origin that is the reason.
    fn row(&self, table: &AppTable) -> RefusalRow {
        let text = |text: &str| clean(text, table).into();
        let why = self.why;
        let without_origin = if self.origin.is_empty() {
            Cow::Borrowed(why)
        } else {
            let shown = format!("{:?}", broadgate_pusher::shown(self.origin));
            Cow::Owned(why.replace(&shown, "\"…\"").replace(self.origin, "…"))
        };
        RefusalRow {
            reason: self.reason,
            why: text(&without_origin),
            address: self.address.map(|address| address.ip()),
            app: text(self.app),
            key: text(self.key),
            path: text(without_query(&decoded(self.path))),
            origin: if self.reason == "origin" { text(self.origin) } else { "".into() },
        }
    }
}

fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or_default()
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

/// What a parameter is called, at its end, whose value may be a secret.
const SECRET_PARAMETERS: [&str; 6] = ["key", "token", "secret", "password", "signature", "authorization"];
/// How often a text may be percent-encoded, by proxies and by those who hide something.
const ENCODED_TIMES_MAX: usize = 4;

/// Without percent-encoding, so that nothing hides in it.
fn decoded(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for _ in 0..ENCODED_TIMES_MAX {
        if !text.contains('%') {
            break;
        }
        text = String::from_utf8_lossy(&percent_decode(&text, false)).into_owned().into();
    }
    text
}

/// Without the values of parameters that may be secrets, wherever a query stands in a text.
fn without_parameters(text: &str) -> Cow<'_, str> {
    let mut parts = text.split('=');
    let mut shown = parts.next().unwrap_or_default().to_owned();
    let mut is_secret = false;
    let names_secret = |before: &str| {
        let is_name = |char: char| char.is_ascii_alphanumeric() || "_-[]".contains(char);
        let name = before.rsplit(|char| !is_name(char)).next().unwrap_or_default().to_ascii_lowercase();
        SECRET_PARAMETERS.iter().any(|secret| name.trim_end_matches(['[', ']']).ends_with(secret))
    };
    let mut before = shown.clone();
    for part in parts {
        // A value that has an equals sign goes on.
        is_secret |= names_secret(&before);
        let end = part.find(|char: char| char.is_whitespace() || "&;,\"'`<>)".contains(char));
        let (value, after) = part.split_at(end.unwrap_or(part.len()));
        shown.push('=');
        shown.push_str(if is_secret && !value.is_empty() { "…" } else { value });
        shown.push_str(after);
        is_secret &= end.is_none();
        part.clone_into(&mut before);
    }
    if shown == text { Cow::Borrowed(text) } else { shown.into() }
}

/// A text as a log may contain it: decoded, truncated, and without the secrets of apps, which people mistake for
/// keys, or values of parameters that may be others' secrets.
fn clean<'a>(text: &'a str, table: &AppTable) -> Cow<'a, str> {
    let mut text = decoded(text);
    if text.contains('=') {
        text = without_parameters(&text).into_owned().into();
    }
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
        assert_eq!(clean("/app/%30123456789abcde%66", &table), "/app/[the secret of an app]");
        assert_eq!(clean("/app/%2530123456789abcdef", &table), "/app/[the secret of an app]");
        for (text, shown) in [
            ("/x?auth_key=hush&name=a", "/x?auth_key=…&name=a"),
            ("nothing is at /x%3Faccess_token%3Dhush: requests", "nothing is at /x?access_token=… requests"),
            ("KEY=hush==, Api-Token=hush", "KEY=…==, Api-Token=…"),
            ("key[]=hush=hush x=y", "key[]=…=… x=y"),
            ("connect with ?key= and the key", "connect with ?key= and the key"),
            ("set socketio = true in one", "set socketio = true in one"),
        ] {
            assert_eq!(clean(text, &table), shown);
        }
        let long = clean("éé", &AppTable::default()).repeat(REFUSAL_FIELD_BYTES_MAX);
        assert_eq!(clean(&long, &table).len(), REFUSAL_FIELD_BYTES_MAX + "…".len());
    }
}
