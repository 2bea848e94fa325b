//! Clients and claims that enter groups, until their homes know of them.

use std::{sync::Arc, time::Duration};

use crate::{step::Ticket, topic::Topic};

/// Who waits to be told.
#[derive(Debug, Clone)]
pub(super) struct Entering {
    pub(super) ticket: Ticket,
    pub(super) topic: Topic,
    /// As whom: the home's presence must name it.
    pub(super) user: Option<Arc<str>>,
    pub(super) since: Duration,
}

/// Whose home has not yet said that it knows of them, and who else is there.
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
