//! What an error of etcd means.

use tonic::{Code, Status};

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// etcd refuses it, and will refuse it again.
    #[error("{0}")]
    Refused(String),
    /// No endpoint answered in time. A write may have been applied, or may be later.
    #[error("{0}")]
    Unknown(String),
}

/// What a status asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The token is not known any more.
    TokenStale,
    /// Nothing changes by repeating it.
    Refused(String),
    /// Another endpoint may answer.
    Elsewhere(String),
}

impl Meaning {
    pub fn of(status: &Status) -> Self {
        let said = status.message();
        let stale = ["invalid auth token", "revision of auth store is old"];
        if stale.iter().any(|text| said.contains(text)) {
            return Self::TokenStale;
        }
        let way_out = match status.code() {
            Code::Unauthenticated | Code::InvalidArgument if said.contains("user name is empty") => {
                "it requires a user: set register.etcd.user and register.etcd.password_file"
            }
            Code::InvalidArgument if said.contains("authentication failed") => {
                "correct register.etcd.user or the password in register.etcd.password_file"
            }
            Code::FailedPrecondition if said.contains("authentication is not enabled") => {
                "it knows no users: remove register.etcd.user, or enable authentication in etcd"
            }
            Code::PermissionDenied => {
                "grant the user of register.etcd.user a role that may read and write all keys below \
                 register.etcd.prefix"
            }
            Code::Unimplemented => "this is not etcd 3.4 or later: correct register.etcd.endpoints",
            _ if speaks_otherwise(status) => {
                let why = "it answers, but not in gRPC: it is no etcd, or it requires TLS (https://); correct \
                           register.etcd.endpoints";
                return Self::Elsewhere(why.to_owned());
            }
            _ => return Self::Elsewhere(said.to_owned()),
        };
        Self::Refused(format!("{said}; {way_out}"))
    }
}

/// Whether the answer is in another protocol: read as a frame of HTTP/2, any text or TLS is far too long.
fn speaks_otherwise(status: &Status) -> bool {
    let mut error = std::error::Error::source(status);
    while let Some(cause) = error {
        if cause.to_string().contains("frame with invalid size") {
            return true;
        }
        error = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_refusal_only_if_repeating_does_not_help() {
        let of = |code, said: &str| Meaning::of(&Status::new(code, said));
        let refused = |code, said, word: &str| match of(code, said) {
            Meaning::Refused(sentence) => assert!(sentence.contains(word), "{sentence}"),
            other => panic!("{other:?}"),
        };
        refused(Code::InvalidArgument, "etcdserver: user name is empty", "register.etcd.user");
        let wrong = "etcdserver: authentication failed, invalid user ID or password";
        refused(Code::InvalidArgument, wrong, "password_file");
        refused(Code::PermissionDenied, "etcdserver: permission denied", "prefix");
        assert_eq!(of(Code::Unauthenticated, "etcdserver: invalid auth token"), Meaning::TokenStale);
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::ResourceExhausted, Code::Unknown] {
            assert!(matches!(of(code, "etcdserver: request timed out"), Meaning::Elsewhere(_)));
        }
    }
}
