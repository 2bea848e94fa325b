//! Commands to the whole cluster, for workers and for any other program.
//!
//! A [`Cluster`] follows the register's views and keeps one pipelined stream to each gateway that
//! it uses. A command about one client goes to the gateway that holds it, everything else to one
//! preferred gateway, so that what one caller sends in turn stays in order. Any gateway answers
//! any command, so when one is gone the next is taken.
//!
//! | file | what |
//! |---|---|
//! | `audience.rs` | whom a command reaches, and what is sent |
//! | `commands.rs`, `queries.rs`, `sessions.rs` | the calls |
//! | `table.rs` | which gateway a command goes to |
//! | `link.rs` | the stream to one gateway |
//! | `error.rs` | what can go wrong |

use std::{sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    secret::Secret,
    v1::{View, answer, command},
};
use broadgate_register::member;
use tokio::{sync::watch, task::AbortHandle, time::Instant};
use tonic::transport::Channel;

mod audience;
mod commands;
mod error;
mod link;
mod queries;
mod sessions;
mod table;

pub use audience::{Audience, Close, Payload, Who};
pub use error::{CommandError, Refusal};
pub use queries::Page;
pub use sessions::SessionAt;
pub(crate) use sessions::parse as parse_session;

use self::{
    link::{Link, Reply},
    table::Table,
};
use crate::dial;

/// How long a command may take.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// Where the register is.
pub const DEFAULT_REGISTER: &str = "127.0.0.1:7100";

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
    /// `BROADGATE_SECRET`, where they are set.
    ///
    /// # Errors
    /// If the secret cannot be used.
    pub fn from_env() -> anyhow::Result<Self> {
        let mut config = Self::default();
        if let Ok(registers) = std::env::var("BROADGATE_REGISTER") {
            config.registers = registers.split(',').map(|one| one.trim().to_owned()).collect();
        }
        if let Ok(secret) = std::env::var("BROADGATE_SECRET") {
            config.secret = Secret::parse(&secret)?;
        }
        Ok(config)
    }
}

/// A cluster to command, in the name of one app. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
    app: Arc<str>,
}

struct Inner {
    table: watch::Receiver<Arc<Table>>,
    secret: Secret,
    timeout: Duration,
    follower: Option<AbortHandle>,
    _watch: Option<member::Watch>,
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
        views: watch::Receiver<Arc<View>>,
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
        let link = Link::new(address, address, &secret).map_err(|why| CommandError::NotReachable { why })?;
        let (_, table) = watch::channel(Arc::new(Table::fixed(link)));
        let inner = Inner { table, secret, timeout, follower: None, _watch: None };
        Ok(Self { inner: Arc::new(inner), app: app.into() })
    }

    fn start(
        views: watch::Receiver<Arc<View>>,
        secret: Secret,
        app: &str,
        timeout: Duration,
        watch: Option<member::Watch>,
    ) -> Self {
        let (sender, table) = watch::channel(Arc::new(Table::default()));
        let follower = tokio::spawn(follow(views, sender, secret.clone())).abort_handle();
        let inner = Inner { table, secret, timeout, follower: Some(follower), _watch: watch };
        Self { inner: Arc::new(inner), app: app.into() }
    }

    /// The same cluster, in the name of another app.
    #[must_use]
    pub fn in_app(&self, app: &str) -> Self {
        Self { inner: self.inner.clone(), app: app.into() }
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

    /// Gives a command, to the gateway that holds its client if that is known.
    async fn call(
        &self,
        holder: Option<Incarnation>,
        command: command::Command,
    ) -> Result<answer::Answer, CommandError> {
        let mut at = None;
        let deadline = Instant::now() + self.inner.timeout;
        let done = tokio::time::timeout_at(deadline, self.attempts(holder, command, &mut at)).await;
        match (done, at) {
            (Ok(result), _) => result,
            // On a stream that is open, it may have been written.
            (Err(_), Some(link)) if link.is_up() => {
                Err(CommandError::Unanswered { gateway: link.name.clone() })
            }
            (Err(_), Some(link)) => Err(not_reachable(&format!("gateway {} does not answer", link.name))),
            (Err(_), None) => Err(not_reachable("no register named a gateway")),
        }
    }

    async fn attempts(
        &self,
        holder: Option<Incarnation>,
        mut command: command::Command,
        at: &mut Option<Arc<Link>>,
    ) -> Result<answer::Answer, CommandError> {
        loop {
            let link = self.choose(holder).await;
            *at = Some(link.clone());
            match link.call(command).await {
                Reply::Answered(answer::Answer::Error(error)) => {
                    return Err(CommandError::Refused {
                        kind: Refusal::from_code(error.code),
                        message: error.message,
                    });
                }
                Reply::Answered(answer) => return Ok(answer),
                Reply::Unanswered => {
                    return Err(CommandError::Unanswered { gateway: link.name.clone() });
                }
                Reply::Refused(error) => return Err(error),
                // It has not happened: another gateway may take it, or this one when it is back.
                Reply::NotWritten(back) => command = back,
            }
            tokio::task::yield_now().await;
        }
    }

    /// Gives a command without waiting for its answer.
    async fn give(&self, holder: Option<Incarnation>, command: command::Command) -> Result<(), CommandError> {
        let link = self.choose(holder);
        let deadline = Instant::now() + self.inner.timeout;
        let place = async { link.await.post(command).await };
        match tokio::time::timeout_at(deadline, place).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(not_reachable("no gateway took it in time")),
        }
    }

    async fn choose(&self, holder: Option<Incarnation>) -> Arc<Link> {
        if let Some(link) = self.inner.table.borrow().choose(holder) {
            return link;
        }
        let mut table = self.inner.table.clone();
        loop {
            if let Ok(table) = table.wait_for(|table| !table.is_empty()).await
                && let Some(link) = table.choose(holder)
            {
                return link;
            }
            // The views have ended, and with them the program.
            std::future::pending::<()>().await;
        }
    }
}

fn not_reachable(why: &str) -> CommandError {
    CommandError::NotReachable { why: why.to_owned() }
}

/// Makes a table of each view.
async fn follow(mut views: watch::Receiver<Arc<View>>, tables: watch::Sender<Arc<Table>>, secret: Secret) {
    let caller = dial::random();
    loop {
        let view = views.borrow_and_update().clone();
        let former = tables.borrow().clone();
        let next = Arc::new(former.follow(&view, caller, &secret));
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
