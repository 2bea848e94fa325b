//! The table of rights: every call of the contract, and who may make it. A call that is not here is refused.

use crate::callers::tokens::TokenRole;

/// Who may make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Least {
    /// Callers with this role, or a higher one.
    Role(TokenRole),
    /// The cluster's own processes, which have the shared secret: no token.
    Process,
}

/// Which apps a call concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Concerned {
    /// None: it is about the caller.
    None,
    /// The one that its request names.
    Named,
    /// All: it is about the cluster, and needs a token for `*`.
    All,
    /// Each command of the stream is checked for itself.
    ByCommand,
}

/// What a caller gets that has no right to see payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payloads {
    /// All of it: there are none in it.
    None,
    /// The answer without them.
    Hidden,
    /// Nothing: the answer is one.
    Needed,
}

/// One call, and what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallRights {
    pub(crate) service: &'static str,
    pub(crate) call: &'static str,
    pub(crate) least: Least,
    pub(crate) concerned: Concerned,
    pub(crate) payloads: Payloads,
}

const READER: Least = Least::Role(TokenRole::Reader);
const OPERATOR: Least = Least::Role(TokenRole::Operator);

const fn gateway(call: &'static str, least: Least, concerned: Concerned, payloads: Payloads) -> CallRights {
    CallRights { service: "Gateway", call, least, concerned, payloads }
}

const fn observe(call: &'static str, concerned: Concerned, payloads: Payloads) -> CallRights {
    CallRights { service: "Observe", call, least: READER, concerned, payloads }
}

const fn process(service: &'static str, call: &'static str) -> CallRights {
    let (least, concerned, payloads) = (Least::Process, Concerned::None, Payloads::None);
    CallRights { service, call, least, concerned, payloads }
}

/// Everything that an internal port offers, and the register's, which takes no tokens at all.
///
/// A dry run of a send needs what the send does: one field is too little to keep a reader from sending. Counts and
/// lists tell readers whom it would reach.
///
/// A close of a whole app, or at once, needs an admin: see `command_rights.rs`.
pub(crate) const CALLS: &[CallRights] = &[
    gateway("Send", OPERATOR, Concerned::Named, Payloads::None),
    gateway("Close", OPERATOR, Concerned::Named, Payloads::None),
    gateway("Bind", OPERATOR, Concerned::Named, Payloads::None),
    gateway("Unbind", OPERATOR, Concerned::Named, Payloads::None),
    gateway("Join", OPERATOR, Concerned::Named, Payloads::None),
    gateway("Leave", OPERATOR, Concerned::Named, Payloads::None),
    gateway("Dissolve", OPERATOR, Concerned::Named, Payloads::None),
    gateway("SetSession", OPERATOR, Concerned::Named, Payloads::Hidden),
    gateway("MergeSession", OPERATOR, Concerned::Named, Payloads::Hidden),
    gateway("GetSession", READER, Concerned::Named, Payloads::Needed),
    gateway("Roster", READER, Concerned::Named, Payloads::Hidden),
    gateway("History", READER, Concerned::Named, Payloads::Hidden),
    gateway("LastValue", READER, Concerned::Named, Payloads::Hidden),
    gateway("Online", READER, Concerned::Named, Payloads::None),
    gateway("Count", READER, Concerned::Named, Payloads::None),
    gateway("GetClient", READER, Concerned::Named, Payloads::Hidden),
    gateway("ListClients", READER, Concerned::Named, Payloads::Hidden),
    gateway("ListUids", READER, Concerned::Named, Payloads::None),
    gateway("ListGroups", READER, Concerned::Named, Payloads::None),
    gateway("Status", READER, Concerned::All, Payloads::None),
    gateway("GetApp", READER, Concerned::Named, Payloads::None),
    gateway("WatchGroups", READER, Concerned::Named, Payloads::Hidden),
    gateway("WatchPusher", READER, Concerned::Named, Payloads::Hidden),
    gateway("Commands", READER, Concerned::ByCommand, Payloads::Hidden),
    observe("Ended", Concerned::Named, Payloads::None),
    observe("Sends", Concerned::Named, Payloads::None),
    observe("Top", Concerned::Named, Payloads::None),
    observe("Inspect", Concerned::Named, Payloads::None),
    observe("Tap", Concerned::Named, Payloads::Hidden),
    observe("Events", Concerned::All, Payloads::None),
    observe("WhoAmI", Concerned::None, Payloads::None),
    observe("Gateways", Concerned::Named, Payloads::None),
    CallRights {
        service: "Admin",
        call: "Drain",
        least: OPERATOR,
        concerned: Concerned::All,
        payloads: Payloads::None,
    },
    process("Peer", "Link"),
    process("Worker", "Attach"),
    process("Register", "Join"),
    process("Register", "Watch"),
    process("Register", "Leave"),
    process("Register", "Drain"),
    process("Register", "StepDown"),
];

/// The services for callers.
const SERVICES: [&str; 3] = ["Gateway", "Observe", "Admin"];
/// Those whose calls are also `POST /v1/{Call}`.
const JSON_SERVICES: [&str; 2] = ["Gateway", "Observe"];

/// The rights of a call of one of the services for callers.
pub(crate) fn of_call(call: &str) -> Option<&'static CallRights> {
    CALLS.iter().find(|row| row.call == call && SERVICES.contains(&row.service))
}

/// The rights of the call at a path, of gRPC or JSON.
pub(super) fn of_path(path: &str) -> Option<&'static CallRights> {
    if let Some(call) = path.strip_prefix("/v1/") {
        return of_call(call).filter(|row| JSON_SERVICES.contains(&row.service));
    }
    let (service, call) = path.strip_prefix("/broadgate.v1.")?.split_once('/')?;
    CALLS.iter().find(|row| row.service == service && row.call == call)
}
