//! What the threads of the ceiling share.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

use crate::ceiling::{groups::Names, inbox::Inbox, stats::Counts};

#[derive(Debug, Args)]
pub(crate) struct CeilingArgs {
    /// Where clients (/g/GROUP) and publishers (/publish) connect; /stats tells what it has cost
    #[arg(long, default_value = "127.0.0.1:7999", value_name = "ADDRESS")]
    pub(crate) bind: SocketAddr,
    /// Threads; as many as the gateway that it is compared with has shards
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,
    /// How deliveries are written
    #[arg(long, value_enum, default_value = "merged")]
    pub(crate) mode: Mode,
    /// The TCP congestion control of its connections, such as reno [default: the system's, as the gateway's]
    #[arg(long, value_name = "NAME")]
    pub(crate) congestion: Option<String>,
    /// Stop when standard input ends: a supervisor holds its other end
    #[arg(long)]
    pub(crate) supervised: bool,
}

/// How deliveries are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// What has gathered for a client, in one write
    Merged,
    /// Each delivery in a write of its own
    Single,
}

/// What all threads know of each other.
pub(crate) struct Shared {
    pub(crate) mode: Mode,
    pub(crate) names: Names,
    pub(crate) inboxes: Vec<Inbox>,
    pub(crate) counts: Vec<Counts>,
}
