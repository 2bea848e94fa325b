//! Clients that enter groups, until the groups' homes know of them.

use std::{sync::Arc, time::Duration};

use crate::{step::Ticket, topic::Topic};

/// A client that waits for its entrance.
#[derive(Debug, Clone)]
pub(super) struct Entering {
    pub(super) ticket: Ticket,
    pub(super) topic: Topic,
    /// Its user, whom the home's roster must contain.
    pub(super) user: Option<Arc<str>>,
    pub(super) since: Duration,
}

/// Entrances whose home has not confirmed the client and sent the roster.
#[derive(Debug, Default)]
pub(super) struct Entrances(pub(super) Vec<Entering>);

impl Entrances {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, ready: impl Fn(&Entering) -> bool) -> Vec<Entering> {
        self.0.extract_if(.., |entering| ready(entering)).collect()
    }
}
