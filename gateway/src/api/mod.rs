//! The internal port: gRPC for callers, workers and peers, and the commands as JSON over HTTP. The port's check has
//! found out who calls (`callers/`); each call and command is checked against
//! the table of rights by way of `denials.rs`.

mod admin;
mod calls;
mod denials;
mod grpc;
mod headers;
mod json;
mod lenient;
mod observe;
mod once;
mod peer;
mod port;
mod tap;
mod unknown_names;

#[cfg(feature = "fuzz")]
pub(crate) use self::json::fuzz;
pub(crate) use self::{
    calls::{is_logged, log_trace, note_caller},
    port::{InternalServices, serve},
};
