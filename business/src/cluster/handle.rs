//! The handle of a cluster: where its gateways are, and how commands reach them.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use broadgate_proto::{id::Incarnation, limits, name, secret::Secret, v1::View};
use broadgate_register::member;
use broadgate_tls::{ClusterFiles, ClusterTls, Credentials};
use tokio::{
    sync::watch as cell,
    task::{AbortHandle, JoinSet},
};
use tonic::transport::Channel;

use crate::{
    cluster::{
        error::CommandError,
        link::CallerLink,
        marks::{CommandIdMint, EpochMark},
        table::{GatewayChoice, LinkTable},
        topic::RingTopic,
        turns::CallerTurns,
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

/// Where its certificates are: all or none of the first three.
const TLS_VARIABLES: [&str; 4] = [
    "BROADGATE_CLUSTER__TLS__CA",
    "BROADGATE_CLUSTER__TLS__CERT",
    "BROADGATE_CLUSTER__TLS__KEY",
    "BROADGATE_CLUSTER__TLS__SERVER_NAME",
];

/// Where a cluster is, its secret, and the defaults of commands.
///
/// ```
/// use broadgate_business::ClusterConfig;
///
/// let config = ClusterConfig { registers: vec!["10.0.0.1:7100".into()], ..ClusterConfig::default() };
/// # let _ = config;
/// ```
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// `host:port` of each register; default [`DEFAULT_REGISTER`].
    pub registers: Vec<String>,
    /// The cluster's secret; default none.
    pub secret: Secret,
    /// The cluster's certificates, where its processes have `[cluster.tls]`; default none. While the
    /// [`Cluster`] lives, changed files are taken into use.
    pub tls: Option<ClusterTls>,
    /// The app whose clients commands concern; default "", the app named `default`.
    pub app: String,
    /// Time limit of a command with all its retries; default [`DEFAULT_TIMEOUT`].
    pub timeout: Duration,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            registers: vec![DEFAULT_REGISTER.to_owned()],
            secret: Secret::default(),
            tls: None,
            app: String::new(),
            timeout: DEFAULT_TIMEOUT,
        }
    }
}

impl ClusterConfig {
    /// From `BROADGATE_REGISTER` (one or more `host:port`, separated by commas), `BROADGATE_SECRET` and
    /// `BROADGATE_CLUSTER__TLS__CA`, `…__CERT`, `…__KEY` (files) and `…__SERVER_NAME`, where they are set. An
    /// empty variable counts as not set.
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
        let [ca, cert, key, name] = TLS_VARIABLES.map(variable);
        let files = ClusterFiles::all_or_none([ca?, cert?, key?], name?, TLS_VARIABLES)?;
        config.tls = files.map(ClusterTls::open).transpose()?;
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

/// A handle to the cluster, for the clients of one app. Cheap to clone.
///
/// Workers get one from [`Client::cluster`](crate::Client::cluster) and
/// [`Context::cluster`](crate::Context::cluster); other programs connect:
///
/// ```no_run
/// # async fn example() -> anyhow::Result<()> {
/// use broadgate_business::{Audience, Close, Cluster, ClusterConfig, Who};
///
/// let cluster = Cluster::connect(ClusterConfig::from_env()?).await?;
/// cluster.join(Who::uid("ann"), ["lobby"]).await?;
/// let receipt = cluster.send(Audience::group("lobby"), "welcome, ann").await?;
/// let complete = receipt.coverage.is_some_and(|coverage| coverage.complete);
/// println!("{} clients, complete: {complete}", receipt.clients);
/// cluster.close(Audience::uid("bob"), Close::with(4001, "banned")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Cluster {
    pub(super) inner: Arc<Inner>,
    pub(super) app: Arc<str>,
    /// The id of the next command, if its caller gave one.
    pub(super) id: Option<Arc<str>>,
}

pub(super) struct Inner {
    pub(super) table: cell::Receiver<Arc<LinkTable>>,
    /// None if it speaks to one gateway only.
    pub(super) views: Option<cell::Receiver<Arc<View>>>,
    pub(super) credentials: Credentials,
    pub(super) timeout: Duration,
    pub(super) ids: CommandIdMint,
    pub(super) seen: Arc<EpochMark>,
    pub(super) turns: CallerTurns,
    pub(super) follower: Option<AbortHandle>,
    /// Watches the files of the certificates; ends with this.
    pub(super) _certificates: JoinSet<()>,
    pub(super) _watch: Option<member::ViewWatch>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(follower) = &self.follower {
            follower.abort();
        }
    }
}

impl Cluster {
    /// Connects, and waits until a gateway is known.
    ///
    /// # Errors
    /// If no register names a gateway within the timeout.
    pub async fn connect(config: ClusterConfig) -> Result<Self, CommandError> {
        let registers = config.registers.join(", ");
        let cluster = Self::open(config);
        let mut table = cluster.inner.table.clone();
        let some = table.wait_for(|table| !table.is_empty());
        match tokio::time::timeout(cluster.inner.timeout, some).await {
            Ok(Ok(_)) => Ok(cluster.clone()),
            _ => {
                let trouble = cluster.inner._watch.as_ref().map(|watch| watch.register().trouble);
                let trouble = trouble.filter(|trouble| !trouble.is_empty());
                let trouble = trouble.unwrap_or_else(|| {
                    "is the cluster up, and is the secret the same (BROADGATE_SECRET)?".to_owned()
                });
                Err(CommandError::NotReachable {
                    why: format!("no register at {registers} named a gateway: {trouble}"),
                })
            }
        }
    }

    /// Connects in the background. Must be called inside a tokio runtime.
    #[must_use]
    pub fn open(config: ClusterConfig) -> Self {
        let credentials = Credentials { secret: config.secret, tls: config.tls };
        let watch = member::watch(config.registers, credentials.clone());
        let views = watch.views();
        Self::start(views, credentials, &config.app, config.timeout, Some(watch))
    }

    /// Follows views that another part of the process receives, such as a member of the cluster.
    #[must_use]
    pub fn with_views(
        views: cell::Receiver<Arc<View>>,
        credentials: impl Into<Credentials>,
        app: &str,
        timeout: Duration,
    ) -> Self {
        Self::start(views, credentials.into(), app, timeout, None)
    }

    /// Sends every command to the gateway at `host:port`; needs no register.
    ///
    /// # Errors
    /// If the address is malformed.
    pub fn to_gateway(
        address: &str,
        credentials: impl Into<Credentials>,
        app: &str,
        timeout: Duration,
    ) -> Result<Self, CommandError> {
        let (credentials, seen) = (credentials.into(), Arc::default());
        let link = CallerLink::new(address, address, &credentials, &seen)
            .map_err(|why| CommandError::NotReachable { why })?;
        let (_, table) = cell::channel(Arc::new(LinkTable::fixed(link)));
        let (ids, turns) = (CommandIdMint::new(), CallerTurns::new());
        let inner = Inner {
            table,
            views: None,
            _certificates: watch_certificates(&credentials),
            credentials,
            timeout,
            ids,
            seen,
            turns,
            follower: None,
            _watch: None,
        };
        Ok(Self { inner: Arc::new(inner), app: app.into(), id: None })
    }

    pub(super) fn start(
        views: cell::Receiver<Arc<View>>,
        credentials: Credentials,
        app: &str,
        timeout: Duration,
        watch: Option<member::ViewWatch>,
    ) -> Self {
        let (sender, table) = cell::channel(Arc::new(LinkTable::default()));
        let seen = Arc::default();
        let followed = Some(views.clone());
        let following = follow(views, sender, credentials.clone(), Arc::clone(&seen));
        let follower = Some(broadgate_tasks::spawn("followed views", following));
        let (ids, turns) = (CommandIdMint::new(), CallerTurns::new());
        let inner = Inner {
            table,
            views: followed,
            _certificates: watch_certificates(&credentials),
            credentials,
            timeout,
            ids,
            seen,
            turns,
            follower,
            _watch: watch,
        };
        Self { inner: Arc::new(inner), app: app.into(), id: None }
    }

    /// The same cluster, for the clients of another app.
    #[must_use]
    pub fn in_app(&self, app: &str) -> Self {
        Self { app: app.into(), ..self.clone() }
    }

    /// The same cluster, for one command with this id: at most 64 bytes, and no other command's. A repeat
    /// under the same id within two minutes still happens once, and clients that were missed get it.
    /// Without this, every command gets an id of its own.
    ///
    /// ```no_run
    /// # async fn example(cluster: broadgate_business::Cluster) -> Result<(), broadgate_business::CommandError> {
    /// use broadgate_business::Audience;
    ///
    /// let receipt = cluster.with_id("order-991").send(Audience::group("orders"), "shipped").await?;
    /// if !receipt.coverage.is_some_and(|coverage| coverage.complete) {
    ///     // Only the clients that the first attempt missed get it.
    ///     cluster.with_id("order-991").send(Audience::group("orders"), "shipped").await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_id(&self, id: &str) -> Self {
        Self { id: Some(id.into()), ..self.clone() }
    }

    /// The app whose clients commands concern; "" is the app named `default`.
    #[must_use]
    pub fn app(&self) -> &str {
        &self.app
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.inner.credentials
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
    pub(super) fn home(&self, topics: impl IntoIterator<Item = RingTopic>) -> GatewayChoice {
        self.inner.table.borrow().home(topics.into_iter())
    }
}

pub(super) fn not_reachable(why: &str) -> CommandError {
    CommandError::NotReachable { why: why.to_owned() }
}

fn watch_certificates(credentials: &Credentials) -> JoinSet<()> {
    let mut watching = JoinSet::new();
    if let Some(tls) = credentials.tls.clone() {
        watching.spawn(async { match tls.watch(None).await {} });
    }
    watching
}

/// Makes a table of each view.
pub(super) async fn follow(
    mut views: cell::Receiver<Arc<View>>,
    tables: cell::Sender<Arc<LinkTable>>,
    credentials: Credentials,
    seen: Arc<EpochMark>,
) {
    let caller = dial::random();
    loop {
        let view = views.borrow_and_update().clone();
        let former = tables.borrow().clone();
        let next = Arc::new(former.follow(&view, caller, &credentials, &seen));
        // Register and gateways were all restarted, at terms below those seen before: no gateway
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
