//! What an application is written with: workers that take the events of clients, and the cluster
//! client that commands all gateways as one.
//!
//! | module | what |
//! |---|---|
//! | [`cluster`] | commands to the whole cluster, from workers and from any other program |
//! | [`worker`] | events of clients: a [`Handler`], run by a [`Worker`] |
//! | [`chat`] | the demo's handler |
//! | [`environment`] | variables of the environment |
//!
//! The programs in `business/examples` are the manual.

pub mod chat;
pub mod cluster;
mod dial;
pub mod environment;
pub mod worker;

pub use broadgate_proto::{secret::Secret, v1};
pub use cluster::{
    Audience, Close, Cluster, ClusterConfig, CommandError, Payload, PusherEvent, PusherEventKind, Who,
};
pub use worker::{Client, Context, Decision, Handler, Message, Once, Worker, WorkerConfig, shutdown_signal};
