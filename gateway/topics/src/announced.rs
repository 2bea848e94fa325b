//! What a report has announced to the heir of its home.

use std::{collections::BTreeMap, time::Duration};

use broadgate_proto::id::Incarnation;

use crate::{membership::Report, topic::Topic};

/// Reports on their way out, and what heirs must have taken before.
#[derive(Debug)]
pub(super) struct Announced {
    pub(super) needs: BTreeMap<Incarnation, u64>,
    pub(super) reports: Vec<(Topic, Report, bool)>,
    pub(super) since: Duration,
}
