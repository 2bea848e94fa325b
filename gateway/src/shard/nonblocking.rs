//! Writing to a socket that may block, outside of its own task.

use std::{
    io::{self, ErrorKind},
    task::{Context, Poll, ready},
};

use tokio::net::TcpStream;

/// Not by `AsyncWrite`: a task may do some hundred operations only before tokio lets it wait, and the
/// task that writes to a group would then wake the tasks of most of its clients to write themselves.
pub(crate) fn write(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    mut attempt: impl FnMut(&TcpStream) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        match attempt(stream) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            done => return Poll::Ready(done),
        }
        ready!(stream.poll_write_ready(cx))?;
    }
}
