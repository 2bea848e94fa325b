//! Commands to the whole cluster, for workers and for any other program.
//!
//! A [`Cluster`] follows the register's views and keeps one pipelined stream to each gateway that
//! it uses. A command about one client goes to the gateway that holds it, one about one topic (a uid,
//! a group, or all) to the topic's home, everything else to one preferred gateway. Any gateway can answer
//! any command, so a lost gateway is replaced by the next.
//!
//! Every command that changes something has an id. The SDK repeats a command that a gateway did not answer
//! or could not execute, until its timeout; it still happens once. What one `Cluster` and its clones send
//! to one topic keeps its order, also when the topic moves to another home or a stream breaks. Later
//! commands see the effect of every command that was answered.
//!
//! Order needs every `send` to be polled to its end: one that is kept without being polled may delay later
//! ones to its topic.
//!
//! | file | what |
//! |---|---|
//! | `handle.rs` | the handle, its configuration, and the views that it follows |
//! | `audience.rs` | targets and payloads |
//! | `commands.rs`, `queries.rs`, `sessions.rs` | the calls |
//! | `attempts.rs` | retries |
//! | `routes.rs`, `turns.rs` | the order of commands to one topic |
//! | `table.rs`, `topic.rs` | routing |
//! | `marks.rs` | the id and the epoch that commands carry |
//! | `link.rs`, `flight.rs` | the stream to one gateway |
//! | `watch.rs`, `watch_state.rs` | changes in groups |
//! | `tap.rs` | what clients do |
//! | `pusher.rs` | events of Pusher clients |
//! | `streams.rs` | the streams that watches read |
//! | `error.rs` | errors |

pub use self::handle::{Cluster, ClusterConfig, DEFAULT_REGISTER, DEFAULT_TIMEOUT};

mod attempts;
mod audience;
mod commands;
mod error;
mod flight;
mod handle;
mod link;
mod marks;
mod pusher;
mod queries;
mod routes;
mod sessions;
mod streams;
mod table;
mod tap;
mod topic;
mod turns;
mod watch;
mod watch_state;
mod who;

pub use audience::{Audience, Close, Payload, SendOptions, Who};
pub use error::{CommandError, Refusal};
pub use pusher::{PusherEvent, PusherEventKind, PusherNews, PusherWatch};
pub use queries::Page;
pub use sessions::SessionAt;
pub(crate) use sessions::parse as parse_session;
pub use tap::TapStream;
pub use watch::GroupWatch;
pub use watch_state::{ChangeKind, GroupChange};
