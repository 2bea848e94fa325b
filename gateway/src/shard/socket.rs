//! A client's connection: TCP on the hot path without indirection, anything else behind a box.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use rustix::{
    io::Errno,
    net::{SendFlags, send},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// Anything that a client can be connected by.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Socket for T {}

pub(crate) enum Stream {
    Tcp(TcpStream),
    #[allow(dead_code, reason = "TLS and simulated networks come in here")]
    Other(Box<dyn Socket>),
}

/// What can be seen of the peer without reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HangUp {
    No,
    /// It will send nothing more.
    Ended,
    /// The connection is broken both ways.
    Broken,
}

impl Stream {
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Other(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }

    /// Writes; if that would block, `waker` is woken when it would not.
    pub(crate) fn poll_write(&mut self, waker: Option<&Waker>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let cx = &mut context(waker);
        match self {
            Self::Tcp(stream) => match send(&*stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(written) => Poll::Ready(Ok(written)),
                // Once more through tokio, which takes note that the socket would block.
                Err(Errno::AGAIN | Errno::INTR) => write(stream, cx, |stream| stream.try_write(bytes)),
                Err(error) => Poll::Ready(Err(error.into())),
            },
            Self::Other(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    /// The same for several pieces.
    pub(crate) fn poll_write_vectored(
        &mut self,
        waker: Option<&Waker>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let cx = &mut context(waker);
        match self {
            Self::Tcp(stream) => write(stream, cx, |stream| stream.try_write_vectored(slices)),
            Self::Other(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    /// Ends our side of the stream.
    pub(crate) fn end(&mut self, waker: Option<&Waker>) {
        let cx = &mut context(waker);
        // A connection that cannot be ended is broken, which reading will find.
        let _ = match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Other(stream) => Pin::new(stream).poll_shutdown(cx),
        };
    }

    /// Has the peer hung up? For clients that are not being read.
    pub(crate) fn hang_up(&self) -> HangUp {
        let Self::Tcp(stream) = self else { return HangUp::No };
        let ready = std::pin::pin!(stream.ready(Interest::READABLE | Interest::WRITABLE | Interest::ERROR));
        match ready.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(ready)) if ready.is_error() || ready.is_write_closed() => HangUp::Broken,
            Poll::Ready(Ok(ready)) if ready.is_read_closed() => HangUp::Ended,
            Poll::Ready(Err(_)) => HangUp::Broken,
            _ => HangUp::No,
        }
    }
}

fn context(waker: Option<&Waker>) -> Context<'_> {
    Context::from_waker(waker.unwrap_or(Waker::noop()))
}

/// Not by `AsyncWrite`: a task may do some hundred operations only before tokio lets it wait, and the
/// task that writes to a group would then wake the tasks of most of its clients to write themselves.
fn write(
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
