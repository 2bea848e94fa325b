//! TLS of clients, inside the shard.
//!
//! rustls is used by its unbuffered API: a connection has no buffers of its own, the shard's are used. What
//! an idle TLS client costs is in `gateway/benches/FINDINGS.md`.
//!
//! | file | what |
//! |---|---|
//! | `records.rs` | bytes to records and back, over rustls; no socket |
//! | `stream.rs` | a TLS connection over a socket |
//! | `shared.rs` | what a shard's TLS connections share: places for handshakes, counted bytes |

mod records;
#[cfg(test)]
mod records_tests;
mod shared;
mod stream;
#[cfg(test)]
mod stream_tests;

pub(crate) use self::{
    shared::TlsShared,
    stream::{StepError, TlsStream},
};
