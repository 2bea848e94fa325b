//! One connection: what it is, and its handshake.

use std::os::fd::OwnedFd;

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// A head of more bytes is none.
pub(super) const HEAD_BYTES_MAX: usize = 8 * 1024;

pub(super) struct Client {
    pub(super) fd: OwnedFd,
    pub(super) role: Role,
    /// What came and is not whole; empty, and so free, for nearly all at nearly all times.
    pub(super) rest: Vec<u8>,
}

pub(super) enum Role {
    /// Its head has not come yet.
    New,
    Member(Member),
    Publisher,
}

pub(super) struct Member {
    pub(super) group: u32,
    /// Where in the group's list.
    pub(super) place: usize,
    /// Up to where of the group's log it has been written to.
    pub(super) cursor: u64,
    /// As many of the group's messages.
    pub(super) seen: u64,
    /// It takes no more for now.
    pub(super) blocked: bool,
}

/// What a head asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked<'a> {
    /// To be a member of this group, and the answer.
    Group(&'a [u8], Vec<u8>),
    Publish,
    Stats,
    Nonsense,
}

/// What is asked, and how many bytes the head takes; none while it is not whole.
pub(super) fn asked(bytes: &[u8]) -> Option<(Asked<'_>, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = &bytes[..end];
    let path = head.strip_prefix(b"GET ").and_then(|rest| rest.split(|byte| *byte == b' ').next());
    let asked = match path {
        Some(b"/publish") => Asked::Publish,
        Some(b"/stats") => Asked::Stats,
        Some(path) => match (path.strip_prefix(b"/g/"), key(head)) {
            (Some(group), Some(key)) => Asked::Group(group, answer(key)),
            _ => Asked::Nonsense,
        },
        None => Asked::Nonsense,
    };
    Some((asked, end))
}

fn key(head: &[u8]) -> Option<&[u8]> {
    let named =
        |line: &&[u8]| line.get(..18).is_some_and(|name| name.eq_ignore_ascii_case(b"sec-websocket-key:"));
    head.split(|byte| *byte == b'\n').find(named).map(|line| line[18..].trim_ascii())
}

fn answer(key: &[u8]) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key)
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_answered_when_it_is_whole() {
        let head = b"GET /g/x HTTP/1.1\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nmore";
        assert_eq!(asked(&head[..40]), None);
        let Some((Asked::Group(b"x", answer), end)) = asked(head) else { panic!("no group") };
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains("Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        assert_eq!(&head[end..], b"more");
        assert_eq!(asked(b"GET /publish HTTP/1.1\r\n\r\n").unwrap().0, Asked::Publish);
        assert_eq!(asked(b"GET /g/x HTTP/1.1\r\n\r\n").unwrap().0, Asked::Nonsense);
        assert_eq!(asked(b"POST / HTTP/1.1\r\n\r\n").unwrap().0, Asked::Nonsense);
    }
}
