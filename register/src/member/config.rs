//! A member's settings.

use std::collections::HashMap;

use broadgate_proto::v1::{Role, View};
use broadgate_tls::Credentials;

/// Who joins which cluster.
#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port` of each register; IPv6 addresses in brackets. DNS names are resolved again
    /// at every redial, and all addresses of a name are tried in turn.
    pub registers: Vec<String>,
    /// What it shows to the cluster.
    pub credentials: Credentials,
    /// Gateway or worker.
    pub role: Role,
    /// Chosen by the operator; not empty.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// What a worker takes events for.
    pub services: Vec<String>,
    /// Where clients reach a gateway, by listener name.
    pub listeners: HashMap<String, String>,
    /// Where others reach this member.
    pub advertise: Advertise,
    /// The view known from an earlier incarnation of this process.
    pub known: Option<View>,
}

/// Where other members reach this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advertise {
    /// Nowhere: workers dial, nobody dials them.
    None,
    /// At this `host:port`.
    Address(String),
    /// At this port of the local address of the connection to the register.
    LocalPort(u16),
}
