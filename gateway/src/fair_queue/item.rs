//! What waits in an inbox.

use broadgate_proto::limits::WEBHOOK_EVENT_OVERHEAD_BYTES;

/// What waits in an inbox.
pub(crate) trait QueueItem {
    /// The app and channel that it concerns. None for the server's own items, which are never dropped.
    fn about(&self) -> Option<(&str, &str)>;
    /// Bytes of its strings.
    fn bytes(&self) -> usize;
    fn says(&self) -> Says<'_>;
}

/// What an item changes; a later one may supersede it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says<'a> {
    /// The channel is occupied, or a user is in it.
    Begins(Option<&'a str>),
    /// The channel is vacated, or a user has left it.
    Ends(Option<&'a str>),
    /// Only the newest of this kind matters.
    Newest(&'static str),
    /// Never superseded.
    Once,
}

/// What an item costs, in bytes.
pub(super) fn cost<T: QueueItem>(item: &T) -> usize {
    item.about().map_or(0, |_| WEBHOOK_EVENT_OVERHEAD_BYTES + item.bytes())
}
