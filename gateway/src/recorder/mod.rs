//! What a gateway remembers for operators: why connections have ended, whom it has refused, and what it has sent to
//! whom. Pure.
//!
//! Many ends or refusals of one address displace its own first (`fair.rs`).
//!
//! A shard keeps the ends of its own clients in two lists: those that the gateway caused, and the clients'
//! own, so that health checks and page reloads do not displace the former. Refusals are kept once for the
//! gateway, equal ones as one row. Of a handshake only path, address and app are kept, and an Origin that
//! was refused: no query, no cookie and no other header.
//!
//! Limits that several clients share and that have refused somebody lately are counted apart (`limits_met.rs`), for the
//! doctor.
//!
//! A shard keeps its sends once for each command (`sends.rs`), who joined and left (`moves.rs`), and what was not
//! placed for whom. Whether a client got a message follows from these: nothing is kept for each delivery.

mod ends;
mod fair;
mod limits_met;
mod moves;
mod question;
mod reasons;
mod refusals;
mod sends;
mod sent;
mod sent_question;
mod unheard;

pub use self::reasons::REFUSAL_REASONS;
pub(crate) use self::{
    ends::{ClientEnd, ClosingCommand, EndPlace, EndRecorder, LoudestGroup},
    limits_met::{LimitsMet, shared_limit},
    moves::FoundMove,
    question::{EndQuestion, EndedWhose},
    refusals::{Kept, RefusalRow, RefusalRows},
    sends::{FoundSend, SENT_DROPS, SentNote, SentTo, TopicHash},
    sent::SentRecorder,
    sent_question::{SendQuestion, SentWhat, SentWhose},
    unheard::UnheardSends,
};
