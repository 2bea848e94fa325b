//! Where shards, which are started first, find the part of the gateway that commands the cluster.

use std::sync::{Arc, OnceLock, Weak};

use crate::{commands::Dispatcher, observers::Observers, webhooks::Webhooks};

/// Known to all shards of a gateway. It does not keep the dispatcher alive: that has the shards'
/// mailboxes, and a shard ends when nobody has its mailbox any more.
#[derive(Default)]
pub(crate) struct Desk {
    dispatcher: OnceLock<Weak<Dispatcher>>,
    webhooks: OnceLock<Webhooks>,
    /// Who wants to know what Pusher clients do.
    pub(crate) observers: Observers,
}

impl Desk {
    pub(crate) fn open(&self, dispatcher: &Arc<Dispatcher>) {
        // Opened once, by whoever starts the gateway.
        let _ = self.dispatcher.set(Arc::downgrade(dispatcher));
    }

    pub(crate) fn set_webhooks(&self, webhooks: Webhooks) {
        let _ = self.webhooks.set(webhooks);
    }

    pub(crate) fn webhooks(&self) -> Option<&Webhooks> {
        self.webhooks.get()
    }

    /// None while the gateway starts, and when it has ended.
    pub(crate) fn dispatcher(&self) -> Option<Arc<Dispatcher>> {
        self.dispatcher.get()?.upgrade()
    }
}
