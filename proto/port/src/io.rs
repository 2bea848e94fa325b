//! A stream that reports its progress to a [`ConnectionWatch`].

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use broadgate_proto::limits::{LINGER_BYTES_MAX, LINGER_TIME_MAX};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::watch::ConnectionWatch;

/// A stream under a [`ConnectionWatch`]. Shutdown closes the write side, then reads and discards what the peer still
/// sends: closing a socket with unread data resets it, and the peer may lose the answer.
#[derive(Debug)]
pub struct Guarded<S> {
    stream: S,
    watch: Arc<ConnectionWatch>,
    /// The write side is closed; the bytes discarded since.
    lingering: Option<usize>,
}

impl<S> Guarded<S> {
    /// Puts a stream under a watch.
    pub fn new(stream: S, watch: Arc<ConnectionWatch>) -> Self {
        Self { stream, watch, lingering: None }
    }

    /// The stream without its watch.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(first) = buffer.filled().get(before) {
            self.watch.has_read_from(*first);
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch.has_written(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch.has_written(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.watch.has_flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.lingering = Some(0);
            self.watch.closing();
        }
        let mut scratch = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            // The peer's errors do not matter now: the answer is sent.
            let ended = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)).is_err();
            let dropped = self.lingering.unwrap_or_default() + buffer.filled().len();
            self.lingering = Some(dropped);
            if ended || buffer.filled().is_empty() || dropped > LINGER_BYTES_MAX {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// Closes the write side of a stream, then reads and discards until the peer closes its side, or for
/// [`LINGER_TIME_MAX`] or [`LINGER_BYTES_MAX`].
pub async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let lingering = async {
        stream.shutdown().await?;
        let mut scratch = [0; 4096];
        let mut dropped = 0;
        while dropped <= LINGER_BYTES_MAX {
            match stream.read(&mut scratch).await? {
                0 => break,
                count => dropped += count,
            }
        }
        io::Result::Ok(())
    };
    // Errors do not matter here: the peer is gone.
    let _ = tokio::time::timeout(LINGER_TIME_MAX, lingering).await;
}
