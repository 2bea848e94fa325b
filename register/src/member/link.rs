//! The thread that belongs to a cluster.

use std::sync::Arc;

use broadgate_proto::{id::Incarnation, secret::Secret, v1::View};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Config, MemberEvent, RegisterStatus, Wish};

/// Where the thread says what it knows.
pub(super) struct Told {
    pub views: watch::Sender<Arc<View>>,
    pub status: watch::Sender<RegisterStatus>,
}

/// 64 bits that nobody can guess.
pub(super) fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}

pub(super) fn start_member(
    _config: Config,
    _incarnation: Incarnation,
    _wishes: watch::Receiver<Wish>,
    _told: Told,
    _events: mpsc::Sender<MemberEvent>,
    _end: oneshot::Sender<()>,
) {
}

pub(super) fn start_watch(_registers: Vec<String>, _secret: Secret, _told: Told, _stop: watch::Receiver<()>) {
}
