//! Apps, the tenants of a cluster: their settings, and the table of them, which can be replaced while
//! the gateway runs.
//!
//! | file | what |
//! |---|---|
//! | `settings.rs` | what an `[[apps]]` entry can say |
//! | `check.rs` | relations between its settings that their types cannot say |
//! | `redis.rs` | where its backend publishes through Redis |
//! | `origin.rs` | patterns for the Origin header |
//! | `secret.rs` | the secret of a key, which is never printed |
//! | `table.rs` | all apps at one moment, and how two moments differ |

mod check;
mod origin;
mod redis;
mod secret;
mod settings;
mod table;

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

pub use self::{
    origin::AllowedOrigin,
    redis::{AppRedis, RedisTlsFiles, RedisUrl},
    secret::KeySecret,
    settings::{
        App, AppAuth, DEFAULT_ACTIVITY_TIMEOUT, DEFAULT_AUTH_TIMEOUT, DEFAULT_CACHE_TIME,
        DEFAULT_PONG_TIMEOUT, KeyPair, OriginAuth, Webhook, WebhookEvent,
    },
    table::{AppTable, AppsChange, ChangedApp, Fault},
};
pub use broadgate_pusher::{Compat, limits::PusherLimits};

/// The apps of a gateway: a handle that is cheap to clone; the table behind it may be replaced at any
/// moment, always by one that holds.
#[derive(Clone)]
pub struct Apps(Arc<AppsShared>);

/// Why an app has no clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppEnd {
    Disabled,
    Removed,
}

struct AppsShared {
    table: ArcSwap<AppTable>,
    /// Every id that was ever configured: as many as operators have written.
    known: Mutex<HashSet<String>>,
    /// How often it was replaced.
    versions: watch::Sender<u64>,
    /// Is there an app with Socket.IO clients?
    socketio: AtomicBool,
    /// Why what was read last is not in use; "" if it is.
    stale: ArcSwap<String>,
}

impl Apps {
    /// Checks the apps.
    ///
    /// # Errors
    /// The first violation.
    pub fn new(apps: Vec<App>) -> Result<Self, Fault> {
        let table = AppTable::new(apps)?;
        let known = Mutex::new(table.iter().map(|app| app.id.clone()).collect());
        let socketio = AtomicBool::new(table.iter().any(|app| app.socketio));
        let table = ArcSwap::from_pointee(table);
        Ok(Self(Arc::new(AppsShared {
            table,
            known,
            versions: watch::Sender::new(0),
            socketio,
            stale: ArcSwap::default(),
        })))
    }

    /// The apps as they are now. Load once to decide several things about one client.
    #[must_use]
    pub fn load(&self) -> Arc<AppTable> {
        self.0.table.load_full()
    }

    /// Replaces all apps, and returns the differences. If nothing differs, nothing is replaced and nothing is
    /// notified.
    ///
    /// # Errors
    /// The first violation; then the apps stay as they are.
    pub fn swap(&self, apps: Vec<App>) -> Result<AppsChange, Fault> {
        let mut next = AppTable::new(apps)?;
        let mut change = AppsChange::default();
        // Two swaps at once come one after the other here, so that each tells what it has changed.
        self.0.versions.send_if_modified(|version| {
            change = next.after(&self.0.table.load());
            if change.is_empty() {
                return false;
            }
            self.known().extend(change.added.iter().cloned());
            self.0.socketio.store(next.iter().any(|app| app.socketio), Ordering::Relaxed);
            self.0.table.store(Arc::new(next));
            *version += 1;
            true
        });
        Ok(change)
    }

    /// What a swap would change.
    ///
    /// # Errors
    /// The first violation.
    pub fn compare(&self, apps: Vec<App>) -> Result<AppsChange, Fault> {
        Ok(AppTable::new(apps)?.after(&self.load()))
    }

    /// Why a raw client of this app may not be connected, if it may not: the app is disabled, or was
    /// removed. An app that was never configured may have clients of `text` and `frame` listeners.
    #[must_use]
    pub(crate) fn closed_to_raw(&self, id: &str, websocket: bool) -> Option<AppEnd> {
        match self.load().by_id(id) {
            Some(app) if !app.enabled => Some(AppEnd::Disabled),
            Some(app) if websocket && !app.raw => Some(AppEnd::Removed),
            None if self.known().contains(id) => Some(AppEnd::Removed),
            _ => None,
        }
    }

    /// Says why what was read last is not in use, or that it is.
    pub fn set_stale(&self, why: &str) {
        self.0.stale.store(Arc::new(why.to_owned()));
    }

    /// Why what was read last is not in use; "" if it is.
    #[must_use]
    pub(crate) fn stale(&self) -> Arc<String> {
        self.0.stale.load_full()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// May an app have Socket.IO clients? For every message: without any such app, it costs a look at a flag.
    #[must_use]
    pub(crate) fn has_socketio(&self, id: &str) -> bool {
        self.0.socketio.load(Ordering::Relaxed)
            && self.0.table.load().by_id(id).is_some_and(|app| app.socketio)
    }

    /// Wakes followers of the table; the value is how often the table was replaced.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.versions.subscribe()
    }
}

impl fmt::Debug for Apps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.load().iter().map(|app| &app.id)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(id: &str, keys: &[&str]) -> App {
        let key = |key: &&str| KeyPair { key: (*key).into(), secret: KeySecret::new("s"), secret_file: None };
        App { keys: keys.iter().map(key).collect(), ..App::new(id) }
    }

    #[test]
    fn apps_are_found_by_id_and_by_each_key() {
        let apps = Apps::new(vec![app("a", &["k1", "k2"]), app("b", &["k3"]), app("raw", &[])]).unwrap();
        let table = apps.load();
        assert_eq!(table.by_id("b").unwrap().id, "b");
        let (found, number) = table.by_key("k2").unwrap();
        assert_eq!((found.id.as_str(), number), ("a", 1));
        assert!(table.by_key("k4").is_none() && table.by_id("k1").is_none());
        assert_eq!(format!("{apps:?}"), "[\"a\", \"b\", \"raw\"]");
    }

    #[test]
    fn ids_and_keys_are_unique_over_all_apps() {
        let fault = |apps| Apps::new(apps).unwrap_err();
        let twice = fault(vec![app("a", &[]), app("b", &[]), app("a", &[])]);
        assert_eq!((twice.app, twice.other), (2, Some(0)));
        assert_eq!(twice.to_string(), "apps[2]: another app has the id \"a\"");
        let key = fault(vec![app("a", &["k"]), app("b", &["l", "k"])]);
        assert_eq!(key.to_string(), "apps[1].keys[1]: the key \"k\" is given twice, here and in app \"a\"");
        let own = fault(vec![app("a", &["k", "k"])]);
        assert_eq!(own.to_string(), "apps[0].keys[1]: the key \"k\" is given twice");
        let alone = fault(vec![app("a", &[]), app("b", &["x:y"])]);
        assert!(alone.to_string().starts_with("apps[1].keys[0]: "), "{alone}");
    }

    #[test]
    fn a_swap_says_what_has_changed_and_keeps_what_has_not() {
        let apps = Apps::new(vec![app("kept", &["k"]), app("other", &[]), app("gone", &[])]).unwrap();
        let mut changes = apps.changes();
        let (before, clone) = (apps.load(), apps.clone());
        let raw = App { raw: true, ..app("other", &[]) };
        let next = vec![app("new", &[]), raw, app("kept", &["k"])];
        let preview = clone.compare(next.clone()).unwrap();
        assert!(Arc::ptr_eq(&before, &apps.load()), "a comparison changes nothing");
        let change = clone.swap(next).unwrap();
        assert_eq!(preview, change);
        assert_eq!(change.to_string(), "added new; changed other (raw); removed gone");
        assert!(changes.has_changed().unwrap() && *changes.borrow_and_update() == 1);
        let after = apps.load();
        assert!(Arc::ptr_eq(before.by_id("kept").unwrap(), after.by_key("k").unwrap().0));
        assert!(after.by_id("other").unwrap().raw && after.by_id("gone").is_none());
        assert!(!before.by_id("other").unwrap().raw, "a loaded table does not change");
    }

    #[test]
    fn a_change_names_the_settings_and_no_values() {
        let key = KeyPair { key: "k".into(), secret: KeySecret::new("hush"), secret_file: None };
        let before = App { keys: vec![key], ..App::new("a") };
        let apps = Apps::new(vec![before.clone()]).unwrap();
        let mut next = App { connections_max: 7, ..before.clone() };
        next.keys[0].secret = KeySecret::new("other");
        next.limits.watchlist_max = 5;
        let change = apps.compare(vec![next]).unwrap().to_string();
        assert_eq!(change, "changed a (keys, connections_max, limits.watchlist_max)");
    }

    #[test]
    fn raw_clients_of_apps_that_are_gone_are_not_connected() {
        let raw = |id: &str| App { raw: true, ..App::new(id) };
        let apps = Apps::new(vec![raw("a"), raw("b"), raw("c")]).unwrap();
        assert_eq!(apps.closed_to_raw("a", true), None);
        apps.swap(vec![App { enabled: false, ..raw("a") }, App::new("c")]).unwrap();
        for (app, websocket, gone) in [
            ("a", true, Some(AppEnd::Disabled)),
            ("a", false, Some(AppEnd::Disabled)),
            ("b", true, Some(AppEnd::Removed)),
            ("b", false, Some(AppEnd::Removed)),
            ("c", true, Some(AppEnd::Removed)),
            ("c", false, None),
            ("never configured", false, None),
        ] {
            assert_eq!(apps.closed_to_raw(app, websocket), gone, "{app} {websocket}");
        }
    }

    #[test]
    fn what_does_not_hold_changes_nothing() {
        let apps = Apps::new(vec![app("a", &["k"])]).unwrap();
        let changes = apps.changes();
        assert!(apps.swap(vec![app("b", &[]), app("b", &[])]).is_err());
        let same = apps.swap(vec![app("a", &["k"])]).unwrap();
        assert!(same.is_empty() && same.to_string() == "nothing has changed");
        assert!(apps.load().by_id("a").is_some() && !changes.has_changed().unwrap());
    }
}
