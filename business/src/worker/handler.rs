//! What an application does with the events of its clients.

use std::future::Future;

use broadgate_proto::v1::{self, Accept, Refuse, accept, decision, message};
pub use broadgate_proto::v1::{Cause, Handshake};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{client::Client, context::Context};
use crate::cluster::{Payload, PusherEvent};

/// An application. Write each method as `async fn`; only `message` must be there.
///
/// The events of one client come one after the other, in the order in which they happened; those
/// of different clients at the same time. An event is acknowledged when its method has returned,
/// whatever it returned, so it comes at least once: when a worker is lost before that, another
/// worker gets the event, and [`Client::redelivered`] says so there. An error is logged and
/// counted; so is a panic, which ends nothing but that one call.
pub trait Handler: Send + Sync + 'static {
    /// The worker is about to take events.
    fn started(&self, context: &Context) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = context;
        async { Ok(()) }
    }

    /// May this client come in? Asked only by listeners with `authorize = "worker"`.
    fn authorize(&self, context: &Context, handshake: Handshake) -> impl Future<Output = Decision> + Send {
        let _ = (context, handshake);
        async { Decision::accept() }
    }

    /// A client has come.
    fn opened(
        &self,
        client: &Client,
        handshake: Handshake,
    ) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = (client, handshake);
        async { Ok(()) }
    }

    /// A client has sent something.
    fn message(&self, client: &Client, message: Message) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// A client has gone; it is the last that is heard of it.
    fn closed(&self, client: &Client, closed: Closed) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = (client, closed);
        async { Ok(()) }
    }

    /// A client that another worker had is this one's now.
    fn adopted(
        &self,
        client: &Client,
        groups: Vec<String>,
    ) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = (client, groups);
        async { Ok(()) }
    }

    /// A client has gone over to another worker.
    fn moved(&self, client: &Client) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = client;
        async { Ok(()) }
    }

    /// A Pusher client of one of [`WorkerConfig::pusher_apps`](crate::worker::config::WorkerConfig::pusher_apps) has done
    /// something. Such a client needs no worker: this is offered, at most once, and nobody waits for it. Of
    /// the workers with the same first service one gets the events of a client, in their order; those of
    /// different clients come at the same time. What this worker does not take fast enough it misses, which
    /// is logged and counted (`broadgate_worker_pusher_events_missed_total`). Give commands in the event's app:
    /// `context.cluster().in_app(&event.app)`.
    fn pusher(
        &self,
        context: &Context,
        event: PusherEvent,
    ) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = (context, event);
        async { Ok(()) }
    }

    /// A gateway was lost; `closed` follows for each of its clients that this worker had.
    fn gateway_lost(
        &self,
        context: &Context,
        name: &str,
        incarnation: &str,
    ) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = (context, name, incarnation);
        async { Ok(()) }
    }

    /// The worker has let go of all its clients and is about to leave the cluster.
    fn stopping(&self, context: &Context) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = context;
        async { Ok(()) }
    }
}

/// What a client has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A text message, a line, or a frame.
    Text(String),
    /// A binary message.
    Binary(Bytes),
}

impl Message {
    pub(crate) fn from_wire(message: v1::Message) -> Self {
        match message.payload {
            Some(message::Payload::Text(text)) => Self::Text(text),
            Some(message::Payload::Binary(bytes)) => Self::Binary(bytes),
            None => Self::Binary(Bytes::new()),
        }
    }

    /// The text, also if it came as binary.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(bytes) => std::str::from_utf8(bytes).ok(),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The message read as JSON.
    ///
    /// # Errors
    /// If it is none, or none of this type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.as_bytes())
    }
}

impl From<Message> for Payload {
    fn from(message: Message) -> Self {
        match message {
            Message::Text(text) => text.into(),
            Message::Binary(bytes) => bytes.into(),
        }
    }
}

/// How a client went, and what was last known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Closed {
    /// Why.
    pub cause: Cause,
    /// The close code that the client sent, or that was sent to it; 1006 if none.
    pub code: u16,
    /// The close reason.
    pub reason: String,
    /// The groups it was in; empty if its gateway was lost.
    pub groups: Vec<String>,
    /// Its uid.
    pub uid: Option<String>,
    /// Its session.
    pub session: Value,
}

/// Whether a client may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Decision(pub(crate) decision::Decision);

impl Decision {
    /// It may.
    pub fn accept() -> Self {
        Self(decision::Decision::Accept(Accept::default()))
    }

    /// It may not: an HTTP status from 400 to 599, and a sentence.
    pub fn refuse(status: u16, body: impl Into<String>) -> Self {
        Self(decision::Decision::Refuse(Refuse { status: status.into(), body: body.into() }))
    }

    /// With this uid. Changes nothing about a refusal, as all that follow.
    pub fn uid(self, uid: impl Into<String>) -> Self {
        self.with(|accept| accept.uid = uid.into())
    }

    /// In this group.
    pub fn group(self, group: impl Into<String>) -> Self {
        self.with(|accept| accept.groups.push(group.into()))
    }

    /// The client begins with these session values, a JSON object; what is no JSON is left out.
    pub fn session(self, session: &impl Serialize) -> Self {
        self.with(|accept| accept.session_json = serde_json::to_string(session).unwrap_or_default())
    }

    /// With this first message.
    pub fn greeting(self, text: impl Into<String>) -> Self {
        self.with(|accept| accept.greeting = Some(accept::Greeting::Text(text.into())))
    }

    /// With this one of the client's subprotocols.
    pub fn subprotocol(self, name: impl Into<String>) -> Self {
        self.with(|accept| accept.subprotocol = name.into())
    }

    fn with(mut self, change: impl FnOnce(&mut Accept)) -> Self {
        if let decision::Decision::Accept(accept) = &mut self.0 {
            change(accept);
        }
        self
    }
}
