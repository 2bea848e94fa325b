//! What waits in an inbox.

use broadgate_proto::limits::WEBHOOK_EVENT_OVERHEAD_BYTES;

/// What waits in an inbox.
pub(crate) trait QueueItem {
    /// The app and the channel that it is about. None for what is the server's own and is never dropped.
    fn about(&self) -> Option<(&str, &str)>;
    /// Bytes of its texts.
    fn bytes(&self) -> usize;
    fn says(&self) -> Says<'_>;
}

/// What an item changes, which decides whether a later one makes it superfluous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says<'a> {
    /// The channel, or a user in it, is there.
    Begins(Option<&'a str>),
    /// The channel, or a user in it, is gone.
    Ends(Option<&'a str>),
    /// Only the newest of this kind matters.
    Newest(&'static str),
    /// It stands for itself.
    Once,
}

/// What an item costs.
pub(super) fn cost<T: QueueItem>(item: &T) -> usize {
    item.about().map_or(0, |_| WEBHOOK_EVENT_OVERHEAD_BYTES + item.bytes())
}
