//! By what messages are sent.

use clap::ValueEnum;

/// By what a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// The Rust SDK's `Cluster::post`
    Sdk,
    /// The Rust SDK's `Cluster::send`, repeated until its receipt is complete
    Receipt,
    /// The Pusher HTTP API's `batch_events`, over one connection that is kept
    Api,
    /// The ceiling program's publish connection
    Ceiling,
}
