//! Which sends are meant.

use broadgate_proto::id::ClientId;

/// What somebody asks about sends.
#[derive(Debug, Clone, Default)]
pub(crate) struct SendQuestion {
    /// None means every app.
    pub(crate) app: Option<Box<str>>,
    pub(crate) what: SentWhat,
    pub(crate) whose: Option<SentWhose>,
    /// Of these it is said whether the clients are in them.
    pub(crate) groups: Vec<Box<str>>,
    pub(crate) uids: Vec<Box<str>>,
    pub(crate) since_ms: u64,
    pub(crate) limit: usize,
}

/// Which commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SentWhat {
    Command(Box<str>),
    Group(Box<str>),
    Uid(Box<str>),
}

/// Which clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SentWhose {
    Client(ClientId),
    Uid(Box<str>),
}

impl Default for SentWhat {
    fn default() -> Self {
        Self::Command("".into())
    }
}
