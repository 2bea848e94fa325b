//! What the statuses of a register mean.

use tonic::{Code, Status};

/// Is this status, in place of a welcome, a refusal? Of these, true: for good.
pub(super) fn is_refusal(status: &Status) -> Option<bool> {
    match status.code() {
        Code::InvalidArgument | Code::FailedPrecondition => Some(true),
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::AlreadyExists
        | Code::Unimplemented => Some(false),
        _ => None,
    }
}
