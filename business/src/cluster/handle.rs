//! The handle of a cluster: where its gateways are, and how commands reach them.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use broadgate_proto::{id::Incarnation, limits, name, secret::Secret, v1::View};
use broadgate_register::member;
use tokio::{sync::watch as cell, task::AbortHandle};
use tonic::transport::Channel;

use crate::{
    cluster::{
        error::CommandError,
        link::Link,
        marks::{Ids, Seen},
        table::{Table, Way},
        topic::Topic,
        turns::Turns,
    },
    dial,
    environment::variable,
};

/// How long a command may take, with all its repeats.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

// A home that changes may let a command wait, and then a peer that does not answer; and so may the
// gateway that passes it on.
const _: () = assert!(
    DEFAULT_TIMEOUT.as_millis() > limits::PARKING_TIME_MAX.as_millis() + 2 * limits::LINK_TIMEOUT.as_millis()
);

// A repeat at the last moment is still known to be one.
const _: () = assert!(DEFAULT_TIMEOUT.as_secs() < limits::COMMAND_ID_TIME.as_secs());

/// Where the register is.
pub const DEFAULT_REGISTER: &str = "127.0.0.1:7100";

pub(super) const REGISTER_VARIABLE: &str = "BROADGATE_REGISTER";

pub(super) const SECRET_VARIABLE: &str = "BROADGATE_SECRET";

/// Which cluster, and how to speak to it.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// `host:port` of each register; default [`DEFAULT_REGISTER`].
    pub registers: Vec<String>,
    /// The cluster's secret; default none.
    pub secret: Secret,
    /// The app whose clients are meant; default "", the app named `default`.
    pub app: String,
    /// How long a command may take; default [`DEFAULT_TIMEOUT`].
    pub timeout: Duration,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            registers: vec![DEFAULT_REGISTER.to_owned()],
            secret: Secret::default(),
            app: String::new(),
            timeout: DEFAULT_TIMEOUT,
        }
    }
}

impl ClusterConfig {
    /// From `BROADGATE_REGISTER` (one or more `host:port`, separated by commas) and
    /// `BROADGATE_SECRET`, where they are set. An empty variable counts as not set.
    ///
    /// # Errors
    /// If a variable cannot be used; the error names it.
    pub fn from_env() -> anyhow::Result<Self> {
        let mut config = Self::default();
        if let Some(text) = variable(REGISTER_VARIABLE)? {
            config.registers = addresses(&text).context(REGISTER_VARIABLE)?;
        }
        if let Some(secret) = variable(SECRET_VARIABLE)? {
            config.secret = Secret::parse(&secret).context(SECRET_VARIABLE)?;
        }
        Ok(config)
    }
}

/// The `host:port` of a text with one or more, separated by commas.
pub(super) fn addresses(text: &str) -> anyhow::Result<Vec<String>> {
    let parts = text.split(',').map(str::trim).filter(|one| !one.is_empty());
    let all: Vec<String> = parts.map(str::to_owned).collect();
    anyhow::ensure!(!all.is_empty(), "no address is given: write host:port, such as {DEFAULT_REGISTER:?}");
    for one in &all {
        name::check_address(one)?;
    }
    Ok(all)
}

/// A cluster to command, in the name of one app. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    pub(super) inner: Arc<Inner>,
    pub(super) app: Arc<str>,
    /// What the caller wants its command to be known by.
    pub(super) id: Option<Arc<str>>,
}

pub(super) struct Inner {
    pub(super) table: cell::Receiver<Arc<Table>>,
    /// None if it speaks to one gateway only.
    pub(super) views: Option<cell::Receiver<Arc<View>>>,
    pub(super) secret: Secret,
    pub(super) timeout: Duration,
    pub(super) ids: Ids,
    pub(super) seen: Arc<Seen>,
    pub(super) turns: Turns,
    pub(super) follower: Option<AbortHandle>,
    pub(super) _watch: Option<member::Watch>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(follower) = &self.follower {
            follower.abort();
        }
    }
}

impl Cluster {
    /// Follows a cluster and waits until it has a gateway.
    ///
    /// # Errors
    /// If no register names a gateway in time.
    pub async fn connect(config: ClusterConfig) -> Result<Self, CommandError> {
        let registers = config.registers.join(", ");
        let cluster = Self::open(config);
        let mut table = cluster.inner.table.clone();
        let some = table.wait_for(|table| !table.is_empty());
        match tokio::time::timeout(cluster.inner.timeout, some).await {
            Ok(Ok(_)) => Ok(cluster.clone()),
            _ => Err(CommandError::NotReachable {
                why: format!(
                    "no register at {registers} named a gateway: is the cluster up, and is the secret \
                     the same (BROADGATE_SECRET)?"
                ),
            }),
        }
    }

    /// Follows a cluster without waiting for it. Must be called inside a tokio runtime.
    #[must_use]
    pub fn open(config: ClusterConfig) -> Self {
        let watch = member::watch(config.registers, config.secret.clone());
        let views = watch.views();
        Self::start(views, config.secret, &config.app, config.timeout, Some(watch))
    }

    /// Follows views that somebody else gets, such as a member.
    #[must_use]
    pub fn with_views(
        views: cell::Receiver<Arc<View>>,
        secret: Secret,
        app: &str,
        timeout: Duration,
    ) -> Self {
        Self::start(views, secret, app, timeout, None)
    }

    /// Speaks to one gateway at `host:port` only; needs no register.
    ///
    /// # Errors
    /// If it is no address.
    pub fn to_gateway(
        address: &str,
        secret: Secret,
        app: &str,
        timeout: Duration,
    ) -> Result<Self, CommandError> {
        let seen = Arc::default();
        let link =
            Link::new(address, address, &secret, &seen).map_err(|why| CommandError::NotReachable { why })?;
        let (_, table) = cell::channel(Arc::new(Table::fixed(link)));
        let (ids, turns) = (Ids::new(), Turns::new());
        let inner =
            Inner { table, views: None, secret, timeout, ids, seen, turns, follower: None, _watch: None };
        Ok(Self { inner: Arc::new(inner), app: app.into(), id: None })
    }

    pub(super) fn start(
        views: cell::Receiver<Arc<View>>,
        secret: Secret,
        app: &str,
        timeout: Duration,
        watch: Option<member::Watch>,
    ) -> Self {
        let (sender, table) = cell::channel(Arc::new(Table::default()));
        let seen = Arc::default();
        let followed = Some(views.clone());
        let following = follow(views, sender, secret.clone(), Arc::clone(&seen));
        let follower = Some(tokio::spawn(following).abort_handle());
        let (ids, turns) = (Ids::new(), Turns::new());
        let inner =
            Inner { table, views: followed, secret, timeout, ids, seen, turns, follower, _watch: watch };
        Self { inner: Arc::new(inner), app: app.into(), id: None }
    }

    /// The same cluster, in the name of another app.
    #[must_use]
    pub fn in_app(&self, app: &str) -> Self {
        Self { app: app.into(), ..self.clone() }
    }

    /// The same cluster, for one command that is known by this id: at most 64 bytes, and no other
    /// command's. If the command is made again with it within two minutes, it still happens once, and
    /// who was missed gets it. Without this, every command gets an id of its own.
    #[must_use]
    pub fn with_id(&self, id: &str) -> Self {
        Self { id: Some(id.into()), ..self.clone() }
    }

    /// The app in whose name commands are given; "" is the app named `default`.
    #[must_use]
    pub fn app(&self) -> &str {
        &self.app
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.inner.secret
    }

    /// The connection to a gateway; waits until it is in the view.
    pub(crate) async fn channel(&self, incarnation: Incarnation) -> Channel {
        let mut table = self.inner.table.clone();
        loop {
            if let Some(link) = table.borrow_and_update().link(incarnation) {
                return link.channel();
            }
            if table.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The id of the next command: the one that its caller gave, or one of its own.
    pub(super) fn command_id(&self) -> String {
        match self.id.as_deref() {
            None | Some("") => self.inner.ids.next(),
            Some(id) => id.to_owned(),
        }
    }

    /// The way to the home that these topics share.
    pub(super) fn home(&self, topics: impl IntoIterator<Item = Topic>) -> Way {
        self.inner.table.borrow().home(topics.into_iter())
    }
}

pub(super) fn not_reachable(why: &str) -> CommandError {
    CommandError::NotReachable { why: why.to_owned() }
}

/// Makes a table of each view.
pub(super) async fn follow(
    mut views: cell::Receiver<Arc<View>>,
    tables: cell::Sender<Arc<Table>>,
    secret: Secret,
    seen: Arc<Seen>,
) {
    let caller = dial::random();
    loop {
        let view = views.borrow_and_update().clone();
        let former = tables.borrow().clone();
        let next = Arc::new(former.follow(&view, caller, &secret, &seen));
        // Register and gateways have begun anew, below what was seen of those before them: no gateway
        // could ever catch up with that.
        let behind = seen.after().is_some_and(|seen| broadgate_proto::view::epoch(&view) < seen);
        if behind && !next.is_empty() && !former.lives_on_in(&next) {
            seen.forget();
        }
        tables.send_replace(next.clone());
        former.retire(&next);
        if views.changed().await.is_err() {
            return;
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("app", &self.app).finish_non_exhaustive()
    }
}
