//! Reports that have been announced to heirs before they go out.

use std::{collections::BTreeMap, time::Duration};

use broadgate_proto::id::Incarnation;

use crate::{membership::Report, topic::Topic};

/// Reports on their way out, and the serials that heirs must acknowledge first.
#[derive(Debug)]
pub(super) struct Announced {
    pub(super) needs: BTreeMap<Incarnation, u64>,
    pub(super) reports: Vec<(Topic, Report, bool)>,
    pub(super) since: Duration,
}
