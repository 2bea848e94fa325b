//! What the statuses of a register mean.

use std::net::SocketAddr;

use broadgate_proto::LEADER_HEADER;
use tonic::{Code, Status};

use super::address::{is_loopback, is_register};

/// The address of the register that leads, if the one at `peer` stands by and names one that may be reached from
/// here.
pub(super) fn leader(status: &Status, peer: SocketAddr) -> Option<String> {
    let leader = status.metadata().get(LEADER_HEADER)?.to_str().ok()?;
    let reached = is_register(leader) && (!is_loopback(leader) || peer.ip().to_canonical().is_loopback());
    (status.code() == Code::Unavailable && reached).then(|| leader.to_owned())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leader_is_followed_only_where_it_may_be_reached() {
        let of = |code: Code, leader: &str, peer: &str| {
            let mut status = Status::new(code, "this register stands by");
            status.metadata_mut().insert(LEADER_HEADER, leader.parse().unwrap());
            super::leader(&status, peer.parse().unwrap())
        };
        assert_eq!(of(Code::Unavailable, "r1:7100", "10.0.0.2:7100").as_deref(), Some("r1:7100"));
        assert_eq!(
            of(Code::Unavailable, "127.0.0.1:7101", "127.0.0.1:7100").as_deref(),
            Some("127.0.0.1:7101")
        );
        assert_eq!(of(Code::Unavailable, "127.0.0.1:7101", "10.0.0.2:7100"), None);
        assert_eq!(of(Code::Unavailable, "nowhere", "10.0.0.2:7100"), None);
        assert_eq!(of(Code::Internal, "r1:7100", "10.0.0.2:7100"), None);
        assert_eq!(super::leader(&Status::unavailable("stopping"), "10.0.0.2:7100".parse().unwrap()), None);
    }
}
