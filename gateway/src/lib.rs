//! The gateway: it holds client sockets, executes commands among them, and forwards what concerns the clients
//! of other gateways.
//!
//! The way of a message, from both ends:
//!
//! | room, from the top | what happens there |
//! |---|---|
//! | `server` | bind, run, drain; it owns every task and thread |
//! | `ingress` | a connection is accepted, may have a PROXY header, and asks for an upgrade; `ingress/pusher_api` is the HTTP API of Pusher apps |
//! | `api` | the internal port: gRPC, the same commands as JSON over HTTP, and what peers call |
//! | `channel_events` | events of channels for webhooks and subscription counts |
//! | `dispatch` | whom a command concerns, in which order it is placed, and what came back |
//! | `cluster` | the task around the topics' core, and the links to the other gateways |
//! | `workers` | the streams over which events go to business workers and answers come back |
//! | `shard` | a thread that owns clients; `shard/drive.rs` is a client's whole life |
//! | `command` | a command, parsed and checked; answers, merged |
//! | `webhooks` | what happens in channels is posted to the apps' backends |
//! | `authorization` | apps' backends say whether a client may subscribe |
//! | `callers` | who calls the internal port, and what each may do |
//! | `observers` | what Pusher clients do, offered to workers and programs that want to know |
//! | `codec` | bytes from a client become messages; a message becomes a frame, once per protocol |
//! | `backend` | requests to apps' backends |
//! | `inbox` | a queue of facts about channels that drops fairly when it is full |
//! | `refusals`, `admission`, `bodies` | why clients were refused; places and bytes that strangers take |
//! | `audit`, `events` | what callers did, written down; what happened lately, remembered |
//! | `recorder` | the last ends, refusals and sends, for operators who ask why |
//! | `config`, `apps` | what a gateway can be told; the tenants, who can be replaced while it runs |
//! | `identity`, `health` | which incarnation this is; whether it is ready |
//!
//! Topics (order, counts, presence, retention), the Pusher protocol and Socket.IO are crates of their own, without
//! sockets and clocks: `gateway/topics`, `gateway/pusher` and `gateway/socketio`.

mod admission;
mod api;
pub mod apps;
mod audit;
mod authorization;
mod backend;
pub mod callers;
mod channel_events;
mod cluster;
mod codec;
mod command;
pub mod config;
mod dispatch;
pub mod events;
mod fair_queue;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod health;
mod identity;
mod ingress;
mod observers;
mod recorder;
mod redis;
mod refusals;
mod request_bodies;
mod server;
mod shard;
mod webhooks;
mod workers;

pub use health::Health;
pub use recorder::REFUSAL_REASONS;
pub use server::{Bound, bind, check_certificates, check_spool};
#[cfg(feature = "bench")]
#[doc(hidden)]
pub use shard::bench;
