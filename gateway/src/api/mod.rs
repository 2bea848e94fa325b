//! The internal port: gRPC for callers, workers and peers, and the commands as JSON over HTTP.

mod grpc;
mod json;
mod lenient;
mod port;

/// Where a single call carries the highest epoch that its caller has seen, as TERM.COUNT.
const EPOCH_HEADER: &str = "broadgate-epoch";

pub(crate) use self::port::{Internal, serve};
