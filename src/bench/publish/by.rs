//! By what messages are sent.

use clap::ValueEnum;

/// How a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// The Rust SDK's `Cluster::post`
    Sdk,
    /// The Rust SDK's `Cluster::send`, repeated until its receipt is complete
    Receipt,
    /// The Pusher HTTP API's `batch_events`, over one persistent connection
    Api,
    /// The Pusher HTTP API's `events`, one request for each message, over one persistent connection
    Events,
    /// The ceiling program's publish connection
    Ceiling,
}
