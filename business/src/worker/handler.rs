//! The application's side of a worker.

use std::future::Future;

use broadgate_proto::v1::{self, Accept, Refuse, accept, decision, message};
pub use broadgate_proto::v1::{Cause, Handshake};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{client::Client, context::Context};
use crate::cluster::{Payload, PusherEvent};

/// An application. Write each method as `async fn`; only `message` is required.
///
/// The events of one client are handled one after the other, in order; those of different clients
/// concurrently. An event is acknowledged when its method has returned, whatever it returned, so delivery is
/// at least once: if the worker is lost before that, another worker gets the event, and
/// [`Client::redelivered`] says so there. An error is logged and counted; so is a panic, which ends only that
/// call.
///
/// ```
/// use broadgate_business::{Audience, Client, Context, Decision, Handler, Message};
/// use broadgate_business::worker::{Closed, Handshake};
///
/// struct Rooms;
///
/// impl Handler for Rooms {
///     // Asked by listeners with `authorize = "worker"`.
///     async fn authorize(&self, _: &Context, handshake: Handshake) -> Decision {
///         match handshake.query.strip_prefix("user=") {
///             Some(user) => Decision::accept().uid(user).group("lobby"),
///             None => Decision::refuse(401, "add ?user=NAME"),
///         }
///     }
///
///     async fn message(&self, client: &Client, message: Message) -> anyhow::Result<()> {
///         client.cluster().send(Audience::group("lobby"), message).await?;
///         Ok(())
///     }
///
///     async fn closed(&self, client: &Client, closed: Closed) -> anyhow::Result<()> {
///         let name = closed.uid.unwrap_or_default();
///         client.cluster().send(Audience::group("lobby"), format!("{name} left")).await?;
///         Ok(())
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// Called before the worker takes events.
    fn started(&self, context: &Context) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = context;
        async { Ok(()) }
    }

    /// Decides whether a client may connect. Only for listeners with `authorize = "worker"`.
    fn authorize(&self, context: &Context, handshake: Handshake) -> impl Future<Output = Decision> + Send {
        let _ = (context, handshake);
        async { Decision::accept() }
    }

    /// A client has connected.
    fn opened(
        &self,
        client: &Client,
        handshake: Handshake,
    ) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = (client, handshake);
        async { Ok(()) }
    }

    /// A client has sent a message.
    fn message(&self, client: &Client, message: Message) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// A client has disconnected; no event of it follows.
    fn closed(&self, client: &Client, closed: Closed) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = (client, closed);
        async { Ok(()) }
    }

    /// A client of another worker is now this one's.
    fn adopted(
        &self,
        client: &Client,
        groups: Vec<String>,
    ) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = (client, groups);
        async { Ok(()) }
    }

    /// A client is now another worker's.
    fn moved(&self, client: &Client) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = client;
        async { Ok(()) }
    }

    /// An event of a Pusher client of one of [`WorkerConfig::pusher_apps`](crate::WorkerConfig::pusher_apps).
    /// Such clients need no worker: delivery is at most once, and no client waits for it. Of the workers with
    /// the same first service, one gets the events of a client, in order; those of different clients are
    /// handled concurrently. A worker that is too slow misses events, which is logged and counted
    /// (`broadgate_worker_pusher_events_missed_total`). Command the event's app:
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

    /// The worker has released all its clients and is about to leave the cluster.
    fn stopping(&self, context: &Context) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = context;
        async { Ok(()) }
    }
}

/// A message of a client.
///
/// ```
/// use broadgate_business::Message;
///
/// let message = Message::Text(r#"{"say": "hi"}"#.to_owned());
/// let parsed: serde_json::Value = message.json()?;
/// assert_eq!(parsed["say"], "hi");
/// # Ok::<(), serde_json::Error>(())
/// ```
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

/// How a client disconnected, and its last state.
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

/// The answer of [`Handler::authorize`].
///
/// ```
/// use broadgate_business::Decision;
///
/// let accepted = Decision::accept().uid("ann").group("lobby").greeting("welcome");
/// let refused = Decision::refuse(403, "banned");
/// # let _ = (accepted, refused);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Decision(pub(crate) decision::Decision);

impl Decision {
    /// The client may connect.
    pub fn accept() -> Self {
        Self(decision::Decision::Accept(Accept::default()))
    }

    /// The client may not connect: an HTTP status from 400 to 599, and the answer's body.
    pub fn refuse(status: u16, body: impl Into<String>) -> Self {
        Self(decision::Decision::Refuse(Refuse { status: status.into(), body: body.into() }))
    }

    /// With this uid. No effect on a refusal, as for the methods below.
    pub fn uid(self, uid: impl Into<String>) -> Self {
        self.with(|accept| accept.uid = uid.into())
    }

    /// As a member of this group.
    pub fn group(self, group: impl Into<String>) -> Self {
        self.with(|accept| accept.groups.push(group.into()))
    }

    /// With these session values, a JSON object; anything else is ignored.
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
