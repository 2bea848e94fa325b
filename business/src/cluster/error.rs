//! How a command fails.

use std::fmt;

use broadgate_proto::v1;
use tonic::{Code, Status};

/// Why a command has no answer.
///
/// ```no_run
/// # async fn example(cluster: broadgate_business::Cluster) {
/// use broadgate_business::{Audience, CommandError};
///
/// match cluster.send(Audience::client("an id"), "hi").await {
///     Ok(receipt) => println!("reached {}", receipt.clients),
///     Err(error) if error.is_not_found() => println!("not connected"),
///     Err(CommandError::Unanswered { command_id, .. }) => println!("repeat it as {command_id}"),
///     Err(error) => println!("{error}"),
/// }
/// # }
/// ```
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommandError {
    /// A gateway refused the command; nothing happened.
    #[error("refused ({kind}): {message}")]
    Refused {
        /// The kind of refusal.
        kind: Refusal,
        /// The gateway's sentence.
        message: String,
    },
    /// It was sent, but no gateway answered in time, nor did a retry: it may have happened.
    #[error("{}", unanswered(.gateway, .command_id, .said))]
    Unanswered {
        /// The gateway's name; "" if several were asked.
        gateway: String,
        /// The command's id, to repeat it by [`Cluster::with_id`](crate::cluster::handle::Cluster::with_id) within two
        /// minutes; "" if it changes nothing.
        command_id: String,
        /// What a gateway that could not carry it out said before, such as which other one does not answer; "" if none
        /// did.
        said: String,
    },
    /// It was not sent to any gateway: it has not happened.
    #[error("the command was not sent, because {why}")]
    NotReachable {
        /// The reason.
        why: String,
    },
}

fn unanswered(gateway: &str, command_id: &str, said: &str) -> String {
    let before =
        if said.is_empty() { String::new() } else { format!("; before that it was refused: {said}") };
    let sentence = match (gateway, command_id) {
        ("", "") => "no gateway answered in time: ask again".to_owned(),
        (gateway, "") => format!("gateway {gateway} did not answer in time: ask again"),
        (gateway, id) => format!(
            "gateway {gateway} did not answer: the command may or may not have been executed; repeat it with its id {id}"
        ),
    };
    sentence + &before
}

/// The kinds of refusals, by their gRPC codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The one client that was named is not connected.
    NotFound,
    /// The session is at another version.
    Conflict,
    /// A name, id or payload is malformed: do not repeat.
    Invalid,
    /// A limit was met; the message names it.
    Limit,
    /// The gateway cannot answer now.
    Unavailable,
    /// The gateway does not know the command, or a word that it requires.
    Unknown,
    /// The shared secret is missing or wrong, or the token is unknown or has expired.
    Unauthenticated,
    /// The token does not allow it.
    Denied,
    /// Anything else.
    Other(i32),
}

impl Refusal {
    /// The kind of a gRPC code.
    #[must_use]
    pub fn from_code(code: i32) -> Self {
        match Code::from(code) {
            Code::NotFound => Self::NotFound,
            Code::Aborted => Self::Conflict,
            Code::InvalidArgument => Self::Invalid,
            Code::ResourceExhausted => Self::Limit,
            Code::Unavailable => Self::Unavailable,
            Code::Unimplemented => Self::Unknown,
            Code::Unauthenticated => Self::Unauthenticated,
            Code::PermissionDenied => Self::Denied,
            _ => Self::Other(code),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Limit => "limit met",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown command",
            Self::Unauthenticated => "not authenticated",
            Self::Denied => "not allowed",
            Self::Other(code) => return write!(f, "gRPC code {code}"),
        })
    }
}

impl CommandError {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Refused { kind: Refusal::Invalid, message: message.into() }
    }

    pub(crate) fn unexpected() -> Self {
        Self::Refused {
            kind: Refusal::Unknown,
            message: "the gateway's answer does not fit the command: does it run another version?".to_owned(),
        }
    }

    pub(crate) fn refused(error: v1::Error) -> Self {
        Self::Refused { kind: Refusal::from_code(error.code), message: error.message }
    }

    /// Of a question, or of a stream that could not be opened.
    pub(crate) fn from_status(status: &Status) -> Self {
        // The time that the call was given is over: no gateway has said so.
        if matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded) {
            return Self::Unanswered {
                gateway: String::new(),
                command_id: String::new(),
                said: String::new(),
            };
        }
        Self::Refused { kind: Refusal::from_code(status.code().into()), message: status.message().to_owned() }
    }

    /// The refusal's kind, if it is one.
    #[must_use]
    pub const fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { kind, .. } => Some(*kind),
            _ => None,
        }
    }

    /// Was the client, the only one that was named, not connected?
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.refusal() == Some(Refusal::NotFound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_typed_and_errors_are_sentences() {
        let error = CommandError::from_status(&Status::not_found("client x is not connected"));
        assert!(error.is_not_found());
        assert_eq!(error.to_string(), "refused (not found): client x is not connected");
        assert_eq!(Refusal::from_code(10), Refusal::Conflict);
        assert_eq!(Refusal::from_code(13), Refusal::Other(13));
        let unanswered =
            CommandError::Unanswered { gateway: "g1".into(), command_id: "7-1".into(), said: String::new() };
        assert!(unanswered.refusal().is_none() && unanswered.to_string().contains("g1"));
        assert!(unanswered.to_string().ends_with("repeat it with its id 7-1"));
        for late in [Status::cancelled("Timeout expired"), Status::deadline_exceeded("")] {
            let sentence = CommandError::from_status(&late).to_string();
            assert_eq!(sentence, "no gateway answered in time: ask again");
        }
    }
}
