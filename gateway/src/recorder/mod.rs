//! What a gateway remembers for operators: why connections have ended, and whom it has refused. Pure.
//!
//! Many ends or refusals of one address displace its own first (`fair.rs`).
//!
//! A shard keeps the ends of its own clients in two lists: those that the gateway caused, and the clients'
//! own, so that health checks and page reloads do not displace the former. Refusals are kept once for the
//! gateway, equal ones as one row. Of a handshake only path, address and app are kept: no query, no cookie
//! and no other header.

mod ends;
mod fair;
mod question;
mod reasons;
mod refusals;

pub use self::reasons::REFUSAL_REASONS;
pub(crate) use self::{
    ends::{ClientEnd, ClosingCommand, EndPlace, EndRecorder, LoudestGroup},
    question::{EndQuestion, EndedWhose},
    refusals::{Kept, RefusalRow, RefusalRows},
};
