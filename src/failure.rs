//! How a command can fail, and the exit code that says so.

use std::{fmt, process::ExitCode};

use broadgate_business::{CommandError, cluster::Refusal};

use crate::terminal_text::one_line;

/// Why a command did not do all that it was asked.
#[derive(Debug)]
pub enum Failure {
    /// 1: it failed.
    Failed(String),
    /// 2: a flag, the configuration or a port cannot be used; nothing was started.
    Usage(String),
    /// 3: the answer is right as far as it goes, and somebody did not answer.
    Incomplete(String),
    /// 4: what was named does not exist.
    NotFound(String),
    /// 5: nobody answers at the address.
    Unreachable(String),
    /// 6: the token does not allow it, or not any more.
    NotAllowed(String),
    /// 0: the reader of the output has closed it.
    BrokenPipe,
}

impl Failure {
    /// What was typed or configured cannot be used.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self::Usage(sentence.into())
    }

    /// The same, where it happened.
    #[must_use]
    pub fn at(self, place: &str) -> Self {
        let said = |sentence: String| format!("{place}: {sentence}");
        match self {
            Self::Failed(sentence) => Self::Failed(said(sentence)),
            Self::Usage(sentence) => Self::Usage(said(sentence)),
            Self::Incomplete(sentence) => Self::Incomplete(said(sentence)),
            Self::NotFound(sentence) => Self::NotFound(said(sentence)),
            Self::Unreachable(sentence) => Self::Unreachable(said(sentence)),
            Self::NotAllowed(sentence) => Self::NotAllowed(said(sentence)),
            Self::BrokenPipe => Self::BrokenPipe,
        }
    }

    /// Prints the sentence, and says the exit code.
    pub fn report(self) -> ExitCode {
        let code = match self {
            Self::BrokenPipe => return ExitCode::SUCCESS,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Incomplete(_) => 3,
            Self::NotFound(_) => 4,
            Self::Unreachable(_) => 5,
            Self::NotAllowed(_) => 6,
        };
        say!("broadgate: {self}");
        ExitCode::from(code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(sentence)
            | Self::Usage(sentence)
            | Self::Incomplete(sentence)
            | Self::NotFound(sentence)
            | Self::Unreachable(sentence)
            | Self::NotAllowed(sentence) => f.write_str(sentence),
            Self::BrokenPipe => f.write_str("nobody reads the output"),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        Self::Failed(error.to_string())
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        // It repeats what a gateway says.
        let sentence = one_line(&error.to_string());
        match error {
            error if error.is_not_found() => Self::NotFound(sentence),
            CommandError::Refused { kind: Refusal::Invalid, .. } => Self::Usage(sentence),
            // A command that is refused at its start has ended by then: the token was taken away since.
            CommandError::Refused { kind: Refusal::Denied | Refusal::Unauthenticated, .. } => {
                Self::NotAllowed(sentence)
            }
            CommandError::NotReachable { .. } => Self::Unreachable(sentence),
            // A question; a command that may have been carried out has its id.
            CommandError::Unanswered { command_id, .. } if command_id.is_empty() => {
                Self::Unreachable(sentence)
            }
            _ => Self::Failed(sentence),
        }
    }
}
