//! Somebody who is logged in, with what the cluster is asked by.

use crate::{
    dashboard::{asker::Asker, head::ClusterHead},
    operate::ChosenCluster,
};

/// A visitor.
pub(super) struct Visitor {
    pub(super) asker: Asker,
    pub(super) head: ClusterHead,
    /// The cluster, with the visitor's credentials.
    pub(super) chosen: ChosenCluster,
}

impl Visitor {
    pub(super) fn new(chosen: ChosenCluster) -> Self {
        let asker = Asker::new(chosen.addresses.clone(), chosen.credentials.clone());
        Self { asker, head: ClusterHead::default(), chosen }
    }
}
