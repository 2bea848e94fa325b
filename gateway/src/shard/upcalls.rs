//! What a shard asks of the rest of the gateway: to place events of its clients, and to enter groups. The channels
//! are made before the shard's thread; `dispatch` serves the other ends.

use std::{convert::Infallible, sync::Arc};

use broadgate_proto::{
    id::ClientId,
    limits::{AUTHORIZATIONS_WAITING_MAX, PUSHER_ENTRIES_MAX},
};
use broadgate_topics::Topic;
use tokio::sync::{mpsc, oneshot};

use crate::{authorization::AuthQuestion, command::ChannelEvent};

/// Events of clients that wait to be placed; those beyond are dropped, and their clients get an error.
const EVENTS_MAX: usize = 1024;
/// Reports that a last value was missing; those beyond are dropped, and counted.
const MISSED_MAX: usize = 1024;

/// A client of ours is in a group, and its shard waits to be told what it needs to follow it.
#[derive(Debug)]
pub(crate) struct EnterUpcall {
    pub(crate) client: ClientId,
    pub(crate) topic: Topic,
    /// The presence member for whom it stands.
    pub(crate) user: Option<Arc<str>>,
}

/// A client waits for its app's backend to say whether it may subscribe.
#[derive(Debug)]
pub(crate) struct AuthorizeUpcall {
    pub(crate) client: ClientId,
    pub(crate) question: AuthQuestion,
    /// Closed when the client is gone.
    pub(crate) asker: oneshot::Sender<Infallible>,
}

/// A shard's ends.
#[derive(Clone)]
pub(crate) struct Upcalls {
    /// Events that clients send: they are placed in their order.
    pub(crate) events: mpsc::Sender<(ClientId, ChannelEvent)>,
    /// Clients of which the homes must know, in their order.
    pub(crate) entries: mpsc::Sender<EnterUpcall>,
    /// Cache channels in which a subscriber has found nothing.
    pub(crate) missed: mpsc::Sender<Topic>,
    /// Questions to apps' backends, one of a client at a time.
    pub(crate) authorizations: mpsc::Sender<AuthorizeUpcall>,
}

/// The ends of those who serve a shard.
pub(crate) struct UpcallQueues {
    pub(crate) events: mpsc::Receiver<(ClientId, ChannelEvent)>,
    pub(crate) entries: mpsc::Receiver<EnterUpcall>,
    pub(crate) missed: mpsc::Receiver<Topic>,
    pub(crate) authorizations: mpsc::Receiver<AuthorizeUpcall>,
}

impl Upcalls {
    pub(crate) fn new() -> (Self, UpcallQueues) {
        let (events, events_queue) = mpsc::channel(EVENTS_MAX);
        let (entries, entries_queue) = mpsc::channel(PUSHER_ENTRIES_MAX);
        let (missed, missed_queue) = mpsc::channel(MISSED_MAX);
        let (authorizations, authorizations_queue) = mpsc::channel(AUTHORIZATIONS_WAITING_MAX);
        (
            Self { events, entries, missed, authorizations },
            UpcallQueues {
                events: events_queue,
                entries: entries_queue,
                missed: missed_queue,
                authorizations: authorizations_queue,
            },
        )
    }
}
