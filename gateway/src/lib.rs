//! The gateway: it holds client sockets, carries out commands among them, and passes on what
//! concerns the clients of other gateways.
//!
//! The way of a message, from both ends:
//!
//! | room | what happens there |
//! |---|---|
//! | `client_port` | a connection is accepted, may have a PROXY header, and asks for an upgrade |
//! | `shard` | a thread that owns clients; `shard/drive.rs` is a client's whole life |
//! | `codec` | bytes from a client become messages; a message becomes a frame, once per protocol |
//! | `workers` | the streams over which events go to business workers and answers come back |
//! | `api` | the internal port: gRPC, and the same commands as JSON over HTTP |
//! | `orders` | a command, parsed and checked |
//! | `commands` | whom a command concerns, in which order it is placed, and what came back |
//! | `actor` | the task that feeds the homes and acts on what they decide |
//! | `homes` | pure: one order for each topic, counts, who is present |
//! | `peers` | the links to the other gateways |
//! | `pusher` | pure: the Pusher protocol's names, signatures, frames and HTTP requests |
//! | `channels` | what happens in the channels of apps with Pusher clients, told by their homes |
//! | `observers` | what Pusher clients do, offered to workers and programs that want to know |
//! | `webhooks` | what happens in channels is posted to the apps' backends |
//! | `server` | bind, run, drain |
//! | `refusals` | why clients and requests were refused, in the log |
//! | `config` | what a gateway can be told |
//! | `apps` | the tenants, who can be replaced while it runs |

mod actor;
mod admission;
mod api;
pub mod apps;
mod bodies;
mod channels;
mod client_port;
mod codec;
mod commands;
pub mod config;
mod connections;
mod desk;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod health;
mod listen;
mod me;
mod observers;
mod orders;
mod peers;
mod refusals;
mod server;
mod shard;
mod tally;
mod webhooks;
mod workers;

pub use health::Health;
pub use server::{Bound, bind};
#[cfg(feature = "bench")]
#[doc(hidden)]
pub use shard::bench;
