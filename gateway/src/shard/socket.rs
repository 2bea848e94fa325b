//! A client's connection: TCP on the hot path without indirection, TLS behind a box.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use rustix::{
    io::Errno,
    net::{SendFlags, send},
};
use tokio::{
    io::{AsyncRead, AsyncWrite as _, Interest, ReadBuf},
    net::TcpStream,
};

use crate::shard::{nonblocking::write, tls::TlsStream};

pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream>),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<Box<TlsStream>> for Stream {
    fn from(stream: Box<TlsStream>) -> Self {
        Self::Tls(stream)
    }
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
    /// Reads; nothing is the end of the stream. `buffer` is a shard's scratch.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => {
                stream.read_in_place(cx, buffer.initialize_unfilled()).map_ok(|read| buffer.advance(read))
            }
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
            Self::Tls(stream) => stream.write_outbox(cx, bytes),
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
            Self::Tls(stream) => stream.write_outbox_vectored(cx, slices),
        }
    }

    /// Bytes at the begin of the outbox that are sealed, and must go although they do not count as written.
    pub(crate) fn begun(&self) -> usize {
        match self {
            Self::Tcp(_) => 0,
            Self::Tls(stream) => stream.begun(),
        }
    }

    /// Ends our side of the stream; false if `waker` is woken when that can go on.
    pub(crate) fn end(&mut self, waker: Option<&Waker>) -> bool {
        let cx = &mut context(waker);
        // A connection that cannot be ended is broken, which reading will find.
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => stream.poll_end(cx),
        }
        .is_ready()
    }

    /// Has the peer hung up? For clients that are not being read.
    pub(crate) fn hang_up(&self) -> HangUp {
        let stream = match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.tcp(),
        };
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
