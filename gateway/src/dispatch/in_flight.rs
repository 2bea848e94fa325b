//! Commands on their way.

use std::{collections::BTreeMap, sync::Arc};

use broadgate_proto::{
    id::{ClientId, Incarnation},
    v1::command::Command,
};
use broadgate_topics::Topic;
use tokio::sync::oneshot;

use crate::{
    cluster::Routed,
    command::{CommandRefusal, ParsedCommand},
};

/// Who may place a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlacingRight {
    /// The home of its topic, if it has one topic.
    Home,
    /// Every gateway that it concerns, among its own clients: in no order.
    Everywhere,
}

/// One command on its way.
pub(crate) struct Placing {
    /// The caller's number.
    pub(crate) id: u64,
    pub(crate) command: Command,
    pub(crate) order: Result<Arc<ParsedCommand>, CommandRefusal>,
    /// Incarnations that were named and are in no view, with how many clients.
    pub(crate) unknown: Vec<(Incarnation, Vec<ClientId>)>,
    /// Entries of its lists of clients that are no ids.
    pub(crate) malformed: Vec<String>,
    /// Gateways asked.
    pub(crate) asked: usize,
    /// The caller wants no answer.
    pub(crate) no_receipt: bool,
}

/// What is placed without a home and not in the queues yet.
#[derive(Default)]
pub(super) struct Direct {
    pub(super) here: Vec<(usize, Arc<ParsedCommand>)>,
    pub(super) there: BTreeMap<Incarnation, Vec<usize>>,
}

/// A home's answer on its way.
pub(super) struct HomeQuestion {
    pub(super) index: usize,
    pub(super) routed: oneshot::Receiver<Routed>,
    /// The topics that are counted, if that is the question.
    pub(super) counted: Option<(ClientScope, Vec<Topic>)>,
}

/// Of what clients are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientScope {
    Groups,
    Uids,
}
