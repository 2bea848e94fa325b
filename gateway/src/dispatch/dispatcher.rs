//! The dispatcher: everything that placing a command needs.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use broadgate_proto::v1;
use broadgate_register::member::RegisterStatus;
use broadgate_tasks::Spawner;
use broadgate_topics::RetentionRules;
use tokio::sync::watch;

use crate::{
    apps::Apps,
    audit::Audit,
    callers::CallerCounts,
    cluster::{ClusterHandle, links::Peers},
    command::Parser,
    dispatch::{evidence::EvidenceSource, installed::Installed, latencies::Latencies},
    identity::Identity,
    refusals::Refusals,
    shard::Pool,
};

/// Places commands and gathers their answers.
pub(crate) struct Dispatcher {
    pub(crate) me: Arc<ArcSwap<Identity>>,
    pub(crate) local: Pool,
    pub(crate) peers: Peers,
    pub(crate) homes: ClusterHandle,
    pub(crate) spawner: Spawner,
    pub(crate) retention: RetentionRules,
    pub(crate) parser: Parser,
    pub(crate) apps: Apps,
    /// The services of the listeners whose clients need workers.
    pub(crate) listener_services: HashMap<String, String>,
    /// Time from receiving a batch of commands to its answer.
    pub(crate) latencies: Latencies,
    pub(crate) link_timeout: Duration,
    pub(crate) register: Box<dyn Fn() -> RegisterStatus + Send + Sync>,
    /// The readers of apps' Redis, for the status.
    pub(crate) redis: Box<dyn Fn() -> Vec<v1::RedisReader> + Send + Sync>,
    /// Gateways that are registered at another register only.
    pub(crate) outside: ArcSwap<Vec<String>>,
    pub(crate) installed: watch::Receiver<Installed>,
    pub(crate) started: Instant,
    pub(crate) evidence: EvidenceSource,
    pub(crate) audit: Audit,
    /// How much each caller commands.
    pub(crate) callers: Arc<CallerCounts>,
    /// Who was refused lately, by every port.
    pub(crate) refusals: Arc<Refusals>,
    /// Generates ids for commands whose caller gave none.
    pub(crate) next_id: AtomicU64,
}
