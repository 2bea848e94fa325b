//! All apps at one moment, found by id and by key.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    sync::Arc,
};

use broadgate_pusher::limits::PusherLimits;

use crate::apps::{check::check, settings::App};

/// All apps. Made whole and never changed: another one takes its place.
#[derive(Debug, Clone, Default)]
pub struct AppTable {
    apps: Vec<Arc<App>>,
    /// Where in `apps`.
    by_id: HashMap<String, usize>,
    /// Where in `apps`, and which of its keys.
    by_key: HashMap<String, (usize, usize)>,
}

/// The first thing that does not hold in a list of apps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which app of the list.
    pub app: usize,
    /// Where in it, such as `.keys[0]`.
    pub at: String,
    /// What is wrong, and what to do.
    pub sentence: String,
    /// The app of the list that it collides with.
    pub other: Option<usize>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "apps[{}]{}: {}", self.app, self.at, self.sentence)
    }
}

impl std::error::Error for Fault {}

/// How one table differs from the one before: ids, in the order of the lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppsChange {
    /// They were not there.
    pub added: Vec<String>,
    /// Some setting of theirs differs.
    pub changed: Vec<ChangedApp>,
    /// They are not there any more.
    pub removed: Vec<String>,
}

/// An app of which some setting differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedApp {
    /// The app's name.
    pub id: String,
    /// The names of the settings that differ; never their values, which may be secrets.
    pub settings: Vec<&'static str>,
}

impl AppsChange {
    /// Is everything as it was?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl fmt::Display for AppsChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changed = self.changed.iter().map(|app| format!("{} ({})", app.id, app.settings.join(", ")));
        let changed = changed.collect();
        let parts = [("added", &self.added), ("changed", &changed), ("removed", &self.removed)];
        let mut separator = "";
        for (what, ids) in parts.into_iter().filter(|(_, ids)| !ids.is_empty()) {
            write!(f, "{separator}{what} {}", ids.join(", "))?;
            separator = "; ";
        }
        if self.is_empty() { f.write_str("nothing has changed") } else { Ok(()) }
    }
}

impl AppTable {
    /// Checks the apps, each alone and all together.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn new(apps: Vec<App>) -> Result<Self, Fault> {
        let mut table = Self::default();
        for (index, app) in apps.into_iter().enumerate() {
            check(&app).map_err(|(at, sentence)| Fault { app: index, at, sentence, other: None })?;
            if let Some(other) = table.by_id.insert(app.id.clone(), index) {
                let sentence = format!("another app has the id {:?}", app.id);
                return Err(Fault { app: index, at: String::new(), sentence, other: Some(other) });
            }
            for (number, key) in app.keys.iter().enumerate() {
                if let Some((other, _)) = table.by_key.insert(key.key.clone(), (index, number)) {
                    let mut sentence = format!("the key {:?} is given twice", key.key);
                    if other != index {
                        let _ = write!(sentence, ", here and in app {:?}", table.apps[other].id);
                    }
                    let at = format!(".keys[{number}]");
                    return Err(Fault { app: index, at, sentence, other: Some(other) });
                }
            }
            table.apps.push(Arc::new(app));
        }
        Ok(table)
    }

    /// The app of this id, enabled or not.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<&Arc<App>> {
        self.by_id.get(id).map(|&index| &self.apps[index])
    }

    /// The app, enabled or not, that has this key, and which of its keys it is.
    #[must_use]
    pub fn by_key(&self, key: &str) -> Option<(&Arc<App>, usize)> {
        self.by_key.get(key).map(|&(index, number)| (&self.apps[index], number))
    }

    /// All, in the order in which they were given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<App>> {
        self.apps.iter()
    }

    /// How this table differs from a former one. What has not changed stays the same app: who holds
    /// it may go on doing so.
    pub(super) fn after(&mut self, former: &Self) -> AppsChange {
        let mut change = AppsChange::default();
        for app in &mut self.apps {
            match former.by_id(&app.id) {
                None => change.added.push(app.id.clone()),
                Some(same) if same == app => *app = Arc::clone(same),
                Some(former) => {
                    change.changed.push(ChangedApp { id: app.id.clone(), settings: differing(former, app) });
                }
            }
        }
        let gone = former.apps.iter().filter(|app| !self.by_id.contains_key(&app.id));
        change.removed = gone.map(|app| app.id.clone()).collect();
        change
    }
}

/// The fields of a structure in which two of them differ. All fields are to be named: the compiler says so.
macro_rules! differing_fields {
    ($of:ident, $prefix:literal, $one:expr, $other:expr, $($field:ident),+ $(,)?) => {{
        let $of { $($field: _),+ } = $one;
        let fields = [$((concat!($prefix, stringify!($field)), $one.$field != $other.$field)),+];
        fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name)
    }};
}

/// The names of the settings in which an app differs from what it was.
fn differing(former: &App, app: &App) -> Vec<&'static str> {
    let settings = differing_fields!(
        App,
        "",
        former,
        app,
        id,
        enabled,
        raw,
        service,
        origins,
        keys,
        client_events,
        subscription_count,
        watchlist,
        tls_only,
        authorized_within,
        compat,
        activity_timeout,
        pong_timeout,
        cache_time,
        connections_max,
        connections_per_gateway_max,
        path_prefix,
        limits,
        webhooks,
        socketio,
        auth,
        redis,
    );
    let (before, now) = (&former.limits, &app.limits);
    let limits = differing_fields!(
        PusherLimits,
        "limits.",
        before,
        now,
        channel_name_bytes_max,
        event_name_bytes_max,
        event_data_bytes_max,
        channels_per_event_max,
        batch_events_max,
        presence_members_max,
        user_id_bytes_max,
        user_info_bytes_max,
        watchlist_max,
        client_events_per_second_max,
        subscriptions_per_second_max,
        app_subscriptions_per_second_max,
        timestamp_window_seconds,
    );
    settings.filter(|name| *name != "limits").chain(limits).collect()
}
