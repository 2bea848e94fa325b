//! Where shards, which are started first, find the part of the gateway that commands the cluster.

use std::sync::{Arc, OnceLock, Weak};

use crate::commands::Dispatcher;

/// Known to all shards of a gateway. It does not keep the dispatcher alive: that has the shards'
/// mailboxes, and a shard ends when nobody has its mailbox any more.
#[derive(Default)]
pub(crate) struct Desk(OnceLock<Weak<Dispatcher>>);

impl Desk {
    pub(crate) fn open(&self, dispatcher: &Arc<Dispatcher>) {
        // Opened once, by whoever starts the gateway.
        let _ = self.0.set(Arc::downgrade(dispatcher));
    }

    /// None while the gateway starts, and when it has ended.
    pub(crate) fn dispatcher(&self) -> Option<Arc<Dispatcher>> {
        self.0.get()?.upgrade()
    }
}
