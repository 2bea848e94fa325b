//! What a Pusher client has besides what every client has.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use broadgate_pusher::{
    auth::AppKey,
    member::SignedInUser,
    talk::{Rules, Subscription},
};

use crate::{
    admission::AppPlace,
    apps::App,
    codec::encode::SharedFrame,
    shard::{
        app_connections::ConnectionPlace,
        pusher::watchlist::Watchlist,
        rate::{Bucket, Rate},
        socketio::client::SocketIoClient,
    },
};

/// An app as clients need it.
pub(crate) struct PusherTenant {
    pub(crate) app: Arc<App>,
    pub(crate) keys: Vec<AppKey>,
    /// Subscriptions of its clients in this shard, in this second.
    pub(super) subscriptions: RefCell<Rate>,
}

impl PusherTenant {
    pub(crate) fn new(app: &Arc<App>) -> Self {
        let keys = app.keys.iter().map(|key| AppKey::new(&key.key, key.secret.reveal())).collect();
        Self { app: Arc::clone(app), keys, subscriptions: RefCell::default() }
    }

    pub(super) fn rules(&self) -> Rules<'_> {
        Rules {
            keys: &self.keys,
            limits: &self.app.limits,
            compat: self.app.compat,
            client_events: self.app.client_events,
        }
    }
}

/// What a Pusher client has besides what every client has.
pub(crate) struct PusherClient {
    pub(crate) tenant: Rc<PusherTenant>,
    pub(crate) user: Option<Box<SignedInUser>>,
    pub(crate) watch: Option<Box<Watchlist>>,
    pub(super) events: Rate,
    pub(super) subscriptions: Bucket,
    /// Its app's clients have subscribed to so much that it is not read before this second.
    pub(crate) not_before: u32,
    /// Users of its watchlist whose groups' homes have not answered.
    pub(super) unanswered_watches: u32,
    /// A client event of its waits to be placed.
    pub(super) is_placing: bool,
    /// The second at which it must have shown a signature.
    pub(crate) authorize_by: Option<u32>,
    /// It has shown a signature of its app.
    pub(crate) is_authorized: bool,
    /// Its place among the app's connections at this gateway.
    pub(super) _seat: AppPlace,
    /// And in the cluster, where that is limited.
    pub(crate) place: Option<ConnectionPlace>,
    /// What it has besides if it speaks Socket.IO, not the Pusher protocol.
    pub(crate) socketio: Option<Box<SocketIoClient>>,
}

/// A subscription that the channel's home has not confirmed.
pub(crate) struct Pending {
    pub(super) subscription: Subscription,
    /// It was in the channel before: Reverb's clients may subscribe twice.
    pub(super) is_again: bool,
    /// What came to the channel meanwhile: the confirmation goes first.
    pub(super) deferred: Vec<SharedFrame>,
    pub(super) deferred_bytes: usize,
}

impl Pending {
    /// Messages that wait for the confirmation, and their bytes.
    pub(crate) fn waiting(&self) -> (u64, u64) {
        let bytes = self.deferred.iter().map(|frame| frame.len() as u64).sum();
        (self.deferred.len() as u64, bytes)
    }
}

impl PusherClient {
    pub(crate) fn new(
        tenant: Rc<PusherTenant>,
        seat: AppPlace,
        second: u32,
        socketio: Option<Box<SocketIoClient>>,
    ) -> Self {
        let within = tenant.app.authorized_within.as_secs_f64().ceil() as u32;
        Self {
            tenant,
            user: None,
            watch: None,
            events: Rate::default(),
            subscriptions: Bucket::default(),
            not_before: 0,
            unanswered_watches: 0,
            is_placing: false,
            authorize_by: (within > 0).then_some(second + within),
            is_authorized: false,
            _seat: seat,
            place: None,
            socketio,
        }
    }

    /// Has everything that it asked for been done, but for a subscription? Nothing is read from it before.
    pub(crate) fn is_idle(&self) -> bool {
        let is_asking = self.socketio.as_ref().is_some_and(|client| client.is_asking());
        self.unanswered_watches == 0 && !self.is_placing && self.not_before == 0 && !is_asking
    }

    /// Was it to show a signature, and has not?
    pub(crate) fn is_late(&self, second: u32) -> bool {
        !self.is_authorized && self.authorize_by.is_some_and(|by| second >= by)
    }

    /// Was it to be connected as a Socket.IO client, and is not?
    pub(crate) fn is_unconnected(&self, second: u32) -> bool {
        self.socketio.as_ref().is_some_and(|client| client.is_late(second))
    }

    /// The second at which it is late with either.
    pub(crate) fn late_at(&self) -> Option<u32> {
        let unauthorized = self.authorize_by.filter(|_| !self.is_authorized);
        let socketio = self.socketio.as_ref().filter(|client| client.is_late(u32::MAX));
        unauthorized.into_iter().chain(socketio.map(|client| client.connect_by)).min()
    }

    /// How long a message it may send: an event as large as it may be, written with escapes.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.tenant.app.limits.message_bytes_max()
    }
}
