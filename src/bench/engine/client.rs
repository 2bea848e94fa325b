//! One client: a few dozen bytes, and a buffer only while a frame is not whole.

use std::{io, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt},
};

use super::{super::target::Target, tls::Tls};

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not connected, and waits for its turn or its time.
    Idle,
    Connecting,
    Handshaking,
    /// A client that subscribes to its channel.
    Subscribing,
    Live,
    /// It does not read any more, on purpose.
    Deaf,
    /// Closed, and does not come back.
    Gone,
}

pub(super) struct Client {
    pub(super) fd: Option<OwnedFd>,
    pub(super) stage: Stage,
    /// It has sent what has not come back.
    pub(super) waits: bool,
    pub(super) target: u16,
    pub(super) group: u32,
    /// The number of its next message, or echo.
    pub(super) expected: u64,
    /// The part of a frame, or of a head, that has come.
    pub(super) rest: Vec<u8>,
    pub(super) tls: Option<Box<Tls>>,
}

/// Begins to connect; true if it is done at once, as on loopback.
pub(super) fn dial(target: &Target, run: u32, index: usize) -> io::Result<(OwnedFd, bool)> {
    let family = if target.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    if let Some(source) = target.source(run, index) {
        bind(&socket, &source)?;
    }
    match connect(&socket, &target.address) {
        Ok(()) => Ok((socket, true)),
        Err(Errno::INPROGRESS) => Ok((socket, false)),
        Err(error) => Err(error.into()),
    }
}

/// What a refusal says about coming back: the seconds of its `Retry-After`.
pub(super) fn retry_after(head: &[u8]) -> Option<u64> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(name, _)| name.eq_ignore_ascii_case("retry-after"))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_to_come_back() {
        assert_eq!(retry_after(b"HTTP/1.1 503 No\r\nretry-after: 3\r\n\r\n"), Some(3));
        assert_eq!(retry_after(b"HTTP/1.1 503 No\r\n\r\n"), None);
    }
}
