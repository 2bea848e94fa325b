//! The internal port: gRPC for callers, workers and peers, and the commands as JSON over HTTP.

mod grpc;
mod json;
mod port;

pub(crate) use self::port::{Internal, serve};
