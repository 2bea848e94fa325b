//! The view that this gateway has installed.

use std::sync::Arc;

use broadgate_proto::{id::Incarnation, ring::Ring, v1::View};

use crate::dispatch::removed::RemovedMembers;

/// The view that this gateway has installed, and its ring.
#[derive(Clone, Default)]
pub(crate) struct Installed {
    pub(crate) view: Arc<View>,
    pub(crate) ring: Option<Arc<Ring>>,
    /// This gateway as it is in the view; none if it is not.
    pub(crate) inside: Option<Incarnation>,
    /// Members that have vanished from the views so far.
    pub(crate) removed: RemovedMembers,
}
