//! The calls that commands are: the closed set of a label.

use crate::command::parsed::ParsedCommand;

/// By [`call`].
pub(crate) const CALLS: [&str; 23] = [
    "send",
    "close",
    "bind",
    "unbind",
    "join",
    "leave",
    "dissolve",
    "session",
    "online",
    "count",
    "get_client",
    "roster",
    "history",
    "last_value",
    "list_clients",
    "list_uids",
    "list_groups",
    "status",
    "ended",
    "top",
    "inspect",
    "events",
    "sends",
];

/// Which of [`CALLS`] it is.
pub(crate) fn call(parsed: &ParsedCommand) -> usize {
    match parsed {
        ParsedCommand::Once { order, .. } => call(order),
        ParsedCommand::Send { .. } => 0,
        ParsedCommand::Close { .. } => 1,
        ParsedCommand::Bind { .. } => 2,
        ParsedCommand::Unbind { .. } => 3,
        ParsedCommand::Join { .. } => 4,
        ParsedCommand::Leave { .. } => 5,
        ParsedCommand::Dissolve { .. } => 6,
        ParsedCommand::Session { .. } => 7,
        ParsedCommand::Online { .. } => 8,
        ParsedCommand::Count { .. } => 9,
        ParsedCommand::GetClient { .. } => 10,
        ParsedCommand::Roster { .. } => 11,
        ParsedCommand::History { .. } => 12,
        ParsedCommand::LastValue { .. } => 13,
        ParsedCommand::ListClients { .. } => 14,
        ParsedCommand::ListUids { .. } => 15,
        ParsedCommand::ListGroups { .. } => 16,
        ParsedCommand::Status { .. } => 17,
        ParsedCommand::Ended(_) => 18,
        ParsedCommand::Sends(_) => 22,
        ParsedCommand::Top(_) => 19,
        ParsedCommand::Inspect(_) => 20,
        ParsedCommand::Events(_) => 21,
    }
}
