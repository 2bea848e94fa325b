//! Commands to the whole cluster, for workers and for any other program.
//!
//! A [`Cluster`] follows the register's views and keeps one pipelined stream to each gateway that
//! it uses. A command about one client goes to the gateway that holds it, one about one topic (a uid,
//! a group, or all) to the topic's home, everything else to one preferred gateway. Any gateway answers
//! any command, so when one is gone the next is taken.
//!
//! Every command that changes something has an id, so a command that a gateway did not answer, or
//! could not carry out, is repeated until its time is over and still happens once. What one `Cluster`
//! and its clones send to one topic stays in the order in which it was made, also when the topic gets
//! another home or a stream breaks. What a command was answered is seen by all that come later.
//!
//! The order is kept by waiting, so poll what you have begun: a `send` that is kept but not polled may
//! hold up later ones to its topic.
//!
//! | file | what |
//! |---|---|
//! | `audience.rs` | whom a command reaches, and what is sent |
//! | `commands.rs`, `queries.rs`, `sessions.rs` | the calls |
//! | `attempts.rs` | how a command is given to a gateway, and repeated |
//! | `routes.rs`, `turns.rs` | in which order the commands to one topic go |
//! | `table.rs`, `topic.rs` | which gateway a command goes to |
//! | `marks.rs` | the id and the epoch that commands carry |
//! | `link.rs`, `flight.rs` | the stream to one gateway |
//! | `watch.rs`, `watch_state.rs` | what happens in groups |
//! | `pusher.rs` | what Pusher clients do |
//! | `streams.rs` | the streams that watches read |
//! | `error.rs` | what can go wrong |

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
mod topic;
mod turns;
mod watch;
mod watch_state;

pub use audience::{Audience, Close, Payload, Who};
pub use error::{CommandError, Refusal};
pub use pusher::{PusherEvent, PusherEventKind, PusherNews, PusherWatch};
pub use queries::Page;
pub use sessions::SessionAt;
pub(crate) use sessions::parse as parse_session;
pub use watch::GroupWatch;
pub use watch_state::{ChangeKind, GroupChange};
