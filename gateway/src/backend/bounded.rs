//! Connections that read no more than an answer may have. A backend is a tenant's, and may send anything: also
//! informational heads (`100 Continue`) without end, which the HTTP client reads and forgets.

use std::{
    error::Error,
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use broadgate_proto::limits::BACKEND_ANSWER_BYTES_MAX;
use http::Uri;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tower::Service;

/// Heads and body of an answer; of the body alone less is read.
const READ_BYTES_MAX: usize = 2 * BACKEND_ANSWER_BYTES_MAX;
/// Bytes of one read: the client's buffer may be larger, and what is too much should not be read first.
const CHUNK_BYTES: usize = 8 * 1024;

/// Makes connections that are bounded.
#[derive(Clone)]
pub(crate) struct Bounded<C>(pub(super) C);

/// A connection, and how much was read since the last write: since the present request began.
pub(crate) struct BoundedStream<S> {
    stream: S,
    read: usize,
}

/// The answer has more bytes than are read.
#[derive(Debug)]
pub(crate) struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its answer has more than {READ_BYTES_MAX} bytes")
    }
}

impl Error for TooLong {}

/// Was it this, somewhere in the chain of an error's causes?
pub(super) fn is_too_long(error: &(dyn Error + 'static)) -> bool {
    let io = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    io.is_some_and(|inner| inner.is::<TooLong>()) || error.source().is_some_and(is_too_long)
}

impl<C> Service<Uri> for Bounded<C>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
{
    type Response = BoundedStream<C::Response>;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, C::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move { Ok(BoundedStream { stream: connecting.await?, read: 0 }) })
    }
}

impl<S: Connection> Connection for BoundedStream<S> {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

impl<S: Read + Unpin> Read for BoundedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read >= READ_BYTES_MAX {
            return Poll::Ready(Err(io::Error::other(TooLong)));
        }
        let mut chunk = [0; CHUNK_BYTES];
        let len = buffer.remaining().min(CHUNK_BYTES);
        let mut chunk = ReadBuf::new(&mut chunk[..len]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, chunk.unfilled()))?;
        self.read += chunk.filled().len();
        buffer.put_slice(chunk.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: Write + Unpin> Write for BoundedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.read = 0;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.read = 0;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
