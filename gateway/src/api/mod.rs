//! The internal port: gRPC for callers, workers and peers, and the commands as JSON over HTTP.

mod admin;
mod grpc;
mod headers;
mod json;
mod lenient;
mod observe;
mod once;
mod peer;
mod port;
mod tap;

#[cfg(feature = "fuzz")]
pub(crate) use self::json::fuzz;
pub(crate) use self::port::{InternalServices, serve};
