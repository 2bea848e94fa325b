//! Which ends and refusals are meant.

use std::net::IpAddr;

use broadgate_proto::{id::ClientId, v1::Cause};
use ipnet::IpNet;

/// What somebody asks about ends and refusals.
#[derive(Debug, Clone)]
pub(crate) struct EndQuestion {
    /// None means every app.
    pub(crate) app: Option<Box<str>>,
    pub(crate) whose: EndedWhose,
    pub(crate) since_ms: u64,
    pub(crate) until_ms: u64,
    pub(crate) cause: Option<Cause>,
    pub(crate) limit: usize,
}

/// Of whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EndedWhose {
    All,
    Uid(Box<str>),
    Client(ClientId),
    Address(IpNet),
}

impl EndQuestion {
    pub(super) fn is_time(&self, at_ms: u64) -> bool {
        (self.since_ms..=self.until_ms).contains(&at_ms)
    }

    pub(super) fn is_app(&self, app: &str) -> bool {
        self.app.as_deref().is_none_or(|asked| asked == app)
    }
}

impl EndedWhose {
    pub(super) fn is_address(&self, address: Option<IpAddr>) -> bool {
        match self {
            Self::All => true,
            Self::Address(net) => address.is_some_and(|address| net.contains(&address)),
            Self::Uid(_) | Self::Client(_) => false,
        }
    }
}
