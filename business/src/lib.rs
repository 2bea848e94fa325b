//! The Rust SDK of Broadgate: [`Worker`]s, which handle what clients do, and [`Cluster`], which commands all
//! gateways as one.
//!
//! # A worker
//!
//! A worker joins the cluster, attaches to every gateway and handles the events of its share of the clients.
//! This one sends what a client says to everybody in the lobby:
//!
//! ```no_run
//! use broadgate_business::{Audience, Client, Handler, Message, Worker, shutdown_signal, worker::Handshake};
//!
//! struct Shout;
//!
//! impl Handler for Shout {
//!     async fn opened(&self, client: &Client, _: Handshake) -> anyhow::Result<()> {
//!         client.join("lobby").await?;
//!         Ok(())
//!     }
//!
//!     async fn message(&self, client: &Client, message: Message) -> anyhow::Result<()> {
//!         client.cluster().send(Audience::group("lobby"), message).await?;
//!         Ok(())
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> anyhow::Result<()> {
//!     // BROADGATE_REGISTER names the register, BROADGATE_SECRET the shared secret.
//!     Worker::from_env()?.run(Shout, shutdown_signal()).await
//! }
//! ```
//!
//! `broadgate up --workers 0` starts a cluster for it.
//!
//! # A program that commands the cluster
//!
//! ```no_run
//! use broadgate_business::{Audience, Cluster, ClusterConfig};
//!
//! #[tokio::main]
//! async fn main() -> anyhow::Result<()> {
//!     let cluster = Cluster::connect(ClusterConfig::from_env()?).await?;
//!     let receipt = cluster.send(Audience::uid("ann"), "your order has shipped").await?;
//!     println!("{} of ann's windows got it", receipt.clients);
//!     Ok(())
//! }
//! ```
//!
//! # Where to look
//!
//! | you want to | see |
//! |---|---|
//! | handle connects, messages, disconnects | [`Handler`], [`Client`] |
//! | decide who may connect | [`Handler::authorize`], [`Decision`] |
//! | send, close, bind users, join groups | [`Cluster`], [`Audience`], [`Payload`], [`Close`] |
//! | count, list, read rosters and histories | [`Cluster`], [`cluster::Page`] |
//! | follow what happens in groups | [`Cluster::watch_groups`] |
//! | follow Pusher clients (Laravel Echo, pusher-js) | [`Handler::pusher`], [`Cluster::watch_pusher`] |
//! | do something every so often | [`Worker::every`], [`Once`] |
//! | know why a command failed | [`CommandError`] |
//!
//! `business/WORKERS.md` says what you can count on; `business/examples` has complete programs.

pub mod chat;
pub mod cluster;
mod dial;
pub mod environment;
pub mod worker;

/// The messages of the contract that commands answer with, and those inside them.
///
/// The prose of `proto/broadgate/v1` describes each field.
pub mod v1 {
    pub use broadgate_proto::v1::{
        Cause, ClientField, ClientInfo, ClientReply, ClientState, CountReply, Counts, Coverage, EndedClient,
        EndedMemory, EndedReply, EndedRequest, Epoch, EventsReply, EventsRequest, FollowedRegister,
        GatewayCounters, GatewayEvidence, GatewayStatus, Handshake, Header, HistoryMessage, HistoryPosition,
        HistoryReply, Hop, HopShard, HopTrouble, InspectReply, InspectRequest, LastValueReply,
        ListClientsReply, ListNamesReply, Member, MemberState, NamedCount, OnlineReply, OperatorEvent,
        PresenceMember, Receipt, RedisReader, RefusedClient, Role, RosterReply, SendTrace, SendsMemory,
        SendsReply, SendsRequest, SentClient, SentCommand, SentMove, Session, ShardStatus, StatusReply,
        TapEvent, TapEvents, TapKind, TapRequest, TapStart, TopApp, TopBy, TopCaller, TopClient, TopGroup,
        TopReply, TopRequest, TopSort, TopicClients, TopicHistory, TopicValue, View, WorkerStatus,
        ended_request, history_message, hop, inspect_request, last_value_reply, sends_request, tap_event,
        tap_request,
    };
}

pub use broadgate_proto::secret::Secret;
pub use broadgate_tls::{ClusterFiles, ClusterTls, Credentials, PairFiles};
pub use cluster::{
    Audience, Close, Cluster, ClusterConfig, CommandError, Payload, PusherEvent, PusherEventKind,
    SendOptions, Who,
};
pub use worker::{Client, Context, Decision, Handler, Message, Once, Worker, WorkerConfig, shutdown_signal};
