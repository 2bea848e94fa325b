//! A connected client.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use broadgate_proto::{
    id::ClientId,
    v1::{Event, Receipt, Session},
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    cluster::{Audience, Close, Cluster, CommandError, Payload, SessionAt, Who, parse_session},
    worker::{job::HandlerJob, queue::EventQueue},
};

/// A client whose events this worker handles. Cheap to clone; may be kept.
///
/// ```no_run
/// # async fn example(client: broadgate_business::Client) -> anyhow::Result<()> {
/// use serde_json::json;
///
/// client.bind("ann").await?;
/// client.join("lobby").await?;
/// client.merge_session(&json!({"lang": "en"})).await?;
/// client.send(format!("welcome to {}", client.gateway())).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<ClientShared>,
    pub(crate) redelivered: bool,
}

pub(crate) struct ClientShared {
    pub(crate) key: ClientId,
    id: String,
    listener: Arc<str>,
    service: Arc<str>,
    gateway: Arc<str>,
    cluster: Cluster,
    state: Mutex<MutableClient>,
}

/// What changes while the client lives.
#[derive(Default)]
pub(crate) struct MutableClient {
    pub(crate) queue: EventQueue<HandlerJob>,
    /// The stream on which the gateway last said that the client is this worker's.
    pub(crate) stream: u64,
    /// Its last event is in the queue or has been handled.
    pub(crate) goes: bool,
    known: KnownClient,
}

/// What is known of the client: by its events, and by this worker's own commands.
#[derive(Debug, Default, PartialEq, Eq)]
struct KnownClient {
    uid: Arc<str>,
    /// As the last event told it: an event on its way while a bind was answered tells the uid from
    /// before, and must not undo what the handler has been promised.
    uid_told: Arc<str>,
    session: Session,
}

impl KnownClient {
    fn uid_told(&mut self, uid: &str) {
        if *uid != *self.uid_told {
            self.uid_told = uid.into();
            self.uid = self.uid_told.clone();
        }
    }

    fn session_told(&mut self, session: Session) {
        if session.version > self.session.version {
            self.session = session;
        }
    }
}

impl ClientShared {
    pub(crate) fn new(key: ClientId, event: &Event, gateway: &Arc<str>, cluster: &Cluster) -> Self {
        let cluster = if event.app == cluster.app() { cluster.clone() } else { cluster.in_app(&event.app) };
        Self {
            key,
            id: event.client_id.clone(),
            listener: event.listener.as_str().into(),
            service: event.service.as_str().into(),
            gateway: gateway.clone(),
            cluster,
            state: Mutex::default(),
        }
    }

    pub(crate) fn session_json(&self) -> String {
        self.lock().known.session.json.clone()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, MutableClient> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MutableClient {
    /// What an event tells of its client.
    pub(crate) fn learn(&mut self, uid: &str, session: Option<Session>) {
        self.known.uid_told(uid);
        if let Some(session) = session {
            self.known.session_told(session);
        }
    }
}

impl Client {
    /// Its id: opaque, and never reused.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// Its app.
    #[must_use]
    pub fn app(&self) -> &str {
        self.shared.cluster.app()
    }

    /// The listener that it connected to.
    #[must_use]
    pub fn listener(&self) -> &str {
        &self.shared.listener
    }

    /// The service that handles its events.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.shared.service
    }

    /// The name of the gateway that holds it.
    #[must_use]
    pub fn gateway(&self) -> &str {
        &self.shared.gateway
    }

    /// Whether another worker may have handled this event before: it got it and did not acknowledge it.
    #[must_use]
    pub const fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// Its uid, as of this event or of this worker's later changes.
    #[must_use]
    pub fn uid(&self) -> Option<String> {
        let state = self.shared.lock();
        if state.known.uid.is_empty() { None } else { Some(state.known.uid.to_string()) }
    }

    /// Its session, as of this event or of this worker's later changes.
    #[must_use]
    pub fn session(&self) -> Value {
        parse_session(&self.shared.lock().known.session.json)
    }

    /// The session's version.
    #[must_use]
    pub fn session_version(&self) -> u64 {
        self.shared.lock().known.session.version
    }

    /// The cluster, for the clients of this one's app.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.shared.cluster
    }

    /// Sends it a message.
    ///
    /// # Errors
    /// As [`Cluster::send`].
    pub async fn send(&self, payload: impl Into<Payload>) -> Result<Receipt, CommandError> {
        self.cluster().send(Audience::client(self.id()), payload).await
    }

    /// Sends it a message without a receipt, in order with this worker's other commands about it.
    ///
    /// # Errors
    /// As [`Cluster::post`].
    pub async fn post(&self, payload: impl Into<Payload>) -> Result<(), CommandError> {
        self.cluster().post(Audience::client(self.id()), payload).await
    }

    /// Closes it.
    ///
    /// # Errors
    /// As [`Cluster::close`].
    pub async fn close(&self, close: Close) -> Result<Receipt, CommandError> {
        self.cluster().close(Audience::client(self.id()), close).await
    }

    /// Sets its uid.
    ///
    /// # Errors
    /// As [`Cluster::bind`].
    pub async fn bind(&self, uid: &str) -> Result<Receipt, CommandError> {
        let receipt = self.cluster().bind(self.id(), uid).await?;
        self.shared.lock().known.uid = uid.into();
        Ok(receipt)
    }

    /// Sets its uid and closes every other client of that uid.
    ///
    /// # Errors
    /// As [`Cluster::bind`].
    pub async fn bind_exclusive(&self, uid: &str) -> Result<Receipt, CommandError> {
        let receipt = self.cluster().bind_exclusive(self.id(), uid).await?;
        self.shared.lock().known.uid = uid.into();
        Ok(receipt)
    }

    /// Removes its uid.
    ///
    /// # Errors
    /// As [`Cluster::bind`].
    pub async fn unbind(&self) -> Result<Receipt, CommandError> {
        let receipt = self.cluster().unbind(self.id()).await?;
        self.shared.lock().known.uid = "".into();
        Ok(receipt)
    }

    /// Adds it to a group.
    ///
    /// # Errors
    /// As [`Cluster::join`].
    pub async fn join(&self, group: &str) -> Result<Receipt, CommandError> {
        self.cluster().join(Who::client(self.id()), [group]).await
    }

    /// Removes it from a group.
    ///
    /// # Errors
    /// As [`Cluster::leave`].
    pub async fn leave(&self, group: &str) -> Result<Receipt, CommandError> {
        self.cluster().leave(Who::client(self.id()), [group]).await
    }

    /// Replaces its session.
    ///
    /// # Errors
    /// As [`Cluster::set_session`].
    pub async fn set_session(&self, session: &impl Serialize) -> Result<SessionAt, CommandError> {
        let at = self.cluster().set_session(self.id(), session).await?;
        Ok(self.now_at(at))
    }

    /// Merges a JSON object into its session; a null deletes its key.
    ///
    /// # Errors
    /// As [`Cluster::merge_session`].
    pub async fn merge_session(&self, patch: &impl Serialize) -> Result<SessionAt, CommandError> {
        let at = self.cluster().merge_session(self.id(), patch).await?;
        Ok(self.now_at(at))
    }

    fn now_at(&self, at: SessionAt) -> SessionAt {
        let told = Session { json: at.text.clone(), version: at.version };
        self.shared.lock().known.session_told(told);
        at
    }
}

impl From<&Client> for Audience {
    fn from(client: &Client) -> Self {
        Self::client(client.id())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("id", &self.shared.id)
            .field("app", &self.app())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_from_before_a_bind_does_not_undo_it() {
        let mut known = KnownClient { uid: "ada".into(), ..KnownClient::default() };
        known.uid_told("");
        assert_eq!(&*known.uid, "ada");
        known.uid_told("ada");
        known.uid_told("bob");
        assert_eq!(&*known.uid, "bob");
        known.uid_told("");
        assert_eq!(&*known.uid, "");
    }

    #[test]
    fn an_older_session_does_not_replace_a_newer_one() {
        let mut known = KnownClient::default();
        known.session_told(Session { json: "{\"a\":1}".into(), version: 2 });
        known.session_told(Session { json: String::new(), version: 1 });
        assert_eq!(known.session.version, 2);
    }
}
