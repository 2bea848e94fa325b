//! Shared by the encodings of links and parcels.

use broadgate_proto::v1::{self};
use broadgate_topics::TopicPosition;

use crate::command::{CommandRefusal, TopicCommand};

/// Why a peer's frame could not be decoded.
#[derive(Debug)]
pub(crate) enum DecodeError {
    /// A question that this gateway does not understand: it is refused.
    Ask(u64, CommandRefusal),
    /// A frame that this gateway does not understand: it is ignored.
    Other(&'static str),
}

pub(super) type Readable<T> = Result<T, DecodeError>;

pub(super) fn encode_at(at: TopicPosition) -> v1::Place {
    v1::Place { tenure: Some(at.tenure), number: at.number }
}

pub(super) fn encode_job(job: &TopicCommand) -> v1::Command {
    v1::Command { command: Some(job.message()), ..v1::Command::default() }
}

pub(super) fn decode_at(at: Option<v1::Place>) -> TopicPosition {
    let at = at.unwrap_or_default();
    TopicPosition { tenure: at.tenure.unwrap_or_default(), number: at.number }
}
