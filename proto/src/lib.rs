//! The contract of a Broadgate cluster: the messages between its processes, and the types that they share.
//! Nothing here runs, waits, or touches a socket.
//!
//! | module | what |
//! |---|---|
//! | [`v1`] | the gRPC messages and services, generated from `proto/broadgate/v1/*.proto` |
//! | [`id`] | incarnations and client ids |
//! | [`name`] | which app, uid and group names are valid |
//! | [`close`] | close codes, and whether a client may come back |
//! | [`limits`] | every limit that decisions rest on, with unit and reason |
//! | [`epoch`] | how epochs compare |
//! | [`events`] | the message by which events travel, written from pieces |
//! | [`fields`] | which fields of a client come with what is asked for |
//! | [`view`] | reads of a view: its gateways, workers, epoch |
//! | [`view_change`] | what differs between two views |
//! | [`parse_error`] | errors of parsers without the values that they quote |
//! | [`said`] | what callers say of themselves in headers, and notes on orders |
//! | [`ring`] | which gateway is the home of a topic |
//! | [`time_setting`] | times in settings, bounded |
//! | [`secret`] | the shared secret of the internal ports |

pub mod close;
pub mod epoch;
pub mod events;
pub mod fields;
pub mod id;
pub mod limits;
pub mod name;
pub mod parse_error;
pub mod ring;
pub mod said;
pub mod secret;
pub mod time_setting;
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::too_many_lines)]
pub mod v1;
pub mod view;
pub mod view_change;

/// The encoded `FileDescriptorSet` of package `broadgate.v1`, for reflection and JSON.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/broadgate.v1.bin");

/// In the answer to a stream of commands: the bytes that one command may have at this gateway. Without it, 3
/// MiB.
pub const COMMAND_BYTES_HEADER: &str = "broadgate-command-bytes-max";

/// With UNAVAILABLE from a register that stands by: the host:port of the register that leads.
pub const LEADER_HEADER: &str = "broadgate-leader";

/// The version of this program, announced to other members.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
