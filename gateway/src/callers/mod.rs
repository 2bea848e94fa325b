//! Who calls the internal port, and what each caller may do. One check for gRPC, JSON and the commands of a stream.
//!
//! | file | what |
//! |---|---|
//! | `tokens.rs` | the tokens of operators, a table that is replaced as a whole |
//! | `rights.rs` | the table of rights: every call of the contract, and who may make it |
//! | `command_rights.rs` | a command against that table: its role, its apps |
//! | `caller.rs` | who called, and whether that caller may |
//! | `counts.rs` | how much each caller commands |
//! | `hide.rs` | answers without what their readers have no right to see |
//! | `traceparent.rs` | which trace of its caller a command belongs to |
//! | `admit.rs` | the check of a request's head |

mod admit;
mod caller;
mod command_rights;
mod counts;
mod hide;
mod rights;
#[cfg(test)]
mod tests;
mod tokens;
mod traceparent;

#[cfg(any(test, feature = "bench"))]
pub(crate) use self::caller::CallerKind;
pub use self::tokens::{AccessToken, TokenRole, Tokens, TokensChange};
pub(crate) use self::{
    admit::{RefusedToken, TokenCheck},
    caller::Caller,
    command_rights::call_and_app,
    counts::CallerCounts,
    hide::{hide, hide_in_events, hide_in_pusher_events},
    traceparent::TraceParent,
};
