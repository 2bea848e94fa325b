//! A TLS connection over a socket.
//!
//! Until the upgrade, hyper reads and writes it as any stream. Then the shard does: reading opens records in
//! the shard's scratch; writing seals what the outbox gives, at most one record at a time. A record has its
//! number when it is sealed, so what the socket does not take is kept (`rest`) and goes first. Its plaintext
//! counts as unwritten until then: the outbox keeps it, and all limits and deadlines of outboxes hold.

use std::{
    cell::RefCell,
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use rustls::{Error, ProtocolVersion, ServerConfig};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use super::{
    records::{OPEN_BYTES, Opened, PLAIN_MAX, Records, Sealed},
    shared::TlsShared,
};
use crate::shard::nonblocking::write;

/// A read that brought more records than this ends the client's turn: some 20 µs.
const RECORDS_PER_TURN: usize = 64;
/// Reads in a row that bring no plaintext.
const READS_WITHOUT_PLAINTEXT: usize = 4;

/// Buffers of a thread, empty between two calls.
#[derive(Default)]
struct Scratch {
    opened: Vec<u8>,
    sealed: Sealed,
    gathered: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A TLS connection.
pub(crate) struct TlsStream {
    tcp: TcpStream,
    records: Records,
    /// Sealed, and not taken by the socket; without capacity when there is nothing.
    rest: Vec<u8>,
    /// How much of it was sent.
    sent: usize,
    /// Bytes of plaintext in `rest` that the outbox still has.
    begun: usize,
    /// Plaintext that has not been read.
    plain: Vec<u8>,
    /// The last read brought many records: others have their turn first.
    is_tired: bool,
    /// close_notify was sealed.
    is_closed: bool,
    shared: Arc<TlsShared>,
}

impl TlsStream {
    pub(crate) fn new(
        tcp: TcpStream,
        config: Arc<ServerConfig>,
        shared: Arc<TlsShared>,
    ) -> Result<Self, Error> {
        Ok(Self {
            tcp,
            records: Records::new(config)?,
            rest: Vec::new(),
            sent: 0,
            begun: 0,
            plain: Vec::new(),
            is_tired: false,
            is_closed: false,
            shared,
        })
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.records.is_handshaking()
    }

    /// Which version was agreed on.
    pub(crate) fn version(&self) -> Option<ProtocolVersion> {
        self.records.connection().protocol_version()
    }

    /// Sends what waits, as far as the socket takes it. An error shows when it is read.
    pub(crate) fn send_rest(&mut self) {
        let _ = self.poll_rest(&mut Context::from_waker(Waker::noop()));
    }

    pub(crate) fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Bytes at the begin of the outbox that are sealed already, and must go.
    pub(crate) fn begun(&self) -> usize {
        self.begun
    }

    /// What was read behind the handshake and nobody has taken.
    pub(crate) fn take_plain(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.plain)
    }

    /// One step of the handshake: opens what has arrived, and sends the answer. `Ok(false)` if nothing has.
    pub(crate) fn step(&mut self) -> Result<bool, StepError> {
        SCRATCH.with_borrow_mut(|scratch| {
            let Scratch { opened: buffer, sealed, .. } = scratch;
            buffer.resize(OPEN_BYTES, 0);
            let read = match self.tcp.try_read(self.records.room(buffer)) {
                Ok(0) => return Err(StepError::Ended),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            let opened = self.open(buffer, read, sealed)?;
            self.plain.extend_from_slice(&buffer[..opened.plain]);
            Ok(true)
        })
    }

    /// Opens what was read into the room of `buffer`, and sends what must go at once.
    fn open(&mut self, buffer: &mut [u8], read: usize, sealed: &mut Sealed) -> Result<Opened, StepError> {
        sealed.clear();
        let opened = self.records.open(buffer, read, sealed);
        self.send_now(sealed.bytes());
        Ok(opened?)
    }

    /// Sends what belongs to no plaintext, and keeps what the socket does not take. An error shows when the
    /// socket is read.
    fn send_now(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let sent = if self.rest.is_empty() { self.tcp.try_write(bytes).unwrap_or(0) } else { 0 };
        self.keep(&bytes[sent..]);
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.shared.add(bytes.len());
        self.rest.extend_from_slice(bytes);
    }

    /// Sends what was kept.
    pub(crate) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            let left = &self.rest[self.sent..];
            let sent = ready!(write(&self.tcp, cx, |tcp| tcp.try_write(left)))?;
            if sent == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.shared.subtract(sent);
            self.sent += sent;
            if self.sent == self.rest.len() {
                (self.rest, self.sent) = (Vec::new(), 0);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Seals one record and sends it; true if the socket took all of it.
    fn seal(&mut self, cx: &mut Context<'_>, plain: &[u8], sealed: &mut Sealed) -> io::Result<bool> {
        sealed.clear();
        self.records.seal(plain, sealed).map_err(broken)?;
        let mut left = sealed.bytes();
        while !left.is_empty() {
            match write(&self.tcp, cx, |tcp| tcp.try_write(left)) {
                Poll::Ready(Ok(sent)) if sent > 0 => left = &left[sent..],
                Poll::Ready(Ok(_)) => return Err(ErrorKind::WriteZero.into()),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        self.keep(left);
        Ok(left.is_empty())
    }

    /// Writes for the outbox: what it gives must begin with what it gave before, until that counts as written.
    pub(crate) fn write_outbox(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_rest(cx))?;
        if self.begun > 0 {
            return Poll::Ready(Ok(std::mem::take(&mut self.begun)));
        }
        let piece = &bytes[..bytes.len().min(PLAIN_MAX)];
        let taken = SCRATCH.with_borrow_mut(|scratch| self.seal(cx, piece, &mut scratch.sealed))?;
        if taken {
            return Poll::Ready(Ok(piece.len()));
        }
        self.begun = piece.len();
        Poll::Pending
    }

    /// The same for several pieces: what fits goes into one record.
    pub(crate) fn write_outbox_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match slices.first() {
            Some(first) if first.len() < PLAIN_MAX && slices.len() > 1 => {}
            first => return self.write_outbox(cx, first.map_or(&[], |first| first)),
        }
        ready!(self.poll_rest(cx))?;
        if self.begun > 0 {
            return Poll::Ready(Ok(std::mem::take(&mut self.begun)));
        }
        let mut gathered = SCRATCH.with_borrow_mut(|scratch| std::mem::take(&mut scratch.gathered));
        gathered.clear();
        for slice in slices {
            let room = PLAIN_MAX - gathered.len();
            gathered.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let written = self.write_outbox(cx, &gathered);
        SCRATCH.with_borrow_mut(|scratch| scratch.gathered = gathered);
        written
    }

    /// Reads plaintext; nothing is the end of the stream, which the peer has announced. `buffer` must have
    /// [`OPEN_BYTES`].
    pub(crate) fn read_in_place(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.has_rest() && self.begun == 0 {
            // Nobody else sends it while the outbox is empty.
            let _ = self.poll_rest(cx)?;
        }
        if std::mem::take(&mut self.is_tired) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        for _ in 0..READS_WITHOUT_PLAINTEXT {
            if self.records.is_ended() {
                return Poll::Ready(Ok(0));
            }
            let mut room = ReadBuf::new(self.records.room(buffer));
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut room))?;
            let read = room.filled().len();
            if read == 0 {
                // Without a close_notify anybody on the way may have ended it.
                return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
            }
            let opened = SCRATCH.with_borrow_mut(|scratch| self.open(buffer, read, &mut scratch.sealed));
            let opened = opened.map_err(StepError::into_io)?;
            self.is_tired = opened.records > RECORDS_PER_TURN;
            if opened.plain > 0 {
                return Poll::Ready(Ok(opened.plain));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Says that nothing more comes, and ends our side; pending while the socket does not take it.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_closed {
            self.is_closed = true;
            SCRATCH.with_borrow_mut(|scratch| {
                scratch.sealed.clear();
                // During a handshake there is nothing to end.
                if self.records.close(&mut scratch.sealed).is_ok() {
                    self.send_now(scratch.sealed.bytes());
                }
            });
        }
        ready!(self.poll_rest(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    /// Waits until there is something to read, or to write if something waits.
    pub(crate) async fn ready(&self) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        self.tcp.ready(if self.has_rest() { both } else { Interest::READABLE }).await.map(drop)
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        self.shared.subtract(self.rest.len() - self.sent);
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error("the connection ended before its TLS handshake was whole")]
    Ended,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Tls(#[from] Error),
}

impl StepError {
    fn into_io(self) -> io::Error {
        match self {
            Self::Ended => ErrorKind::UnexpectedEof.into(),
            Self::Io(error) => error,
            Self::Tls(error) => broken(error),
        }
    }
}

fn broken(error: Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

/// For hyper, whose buffers are small: what does not fit is kept.
impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.plain.is_empty() {
            let mut opened = SCRATCH.with_borrow_mut(|scratch| std::mem::take(&mut scratch.opened));
            opened.resize(OPEN_BYTES, 0);
            let read = self.read_in_place(cx, &mut opened);
            if let Poll::Ready(Ok(read)) = &read {
                self.plain.extend_from_slice(&opened[..*read]);
            }
            SCRATCH.with_borrow_mut(|scratch| scratch.opened = opened);
            ready!(read)?;
        }
        let fits = self.plain.len().min(buffer.remaining());
        buffer.put_slice(&self.plain[..fits]);
        if fits == self.plain.len() {
            self.plain = Vec::new();
        } else {
            self.plain.drain(..fits);
        }
        Poll::Ready(Ok(()))
    }
}

/// For hyper: a record is written once it is sealed, and the next one waits until the socket has it.
impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_rest(cx))?;
        let piece = &bytes[..bytes.len().min(PLAIN_MAX)];
        SCRATCH.with_borrow_mut(|scratch| self.seal(cx, piece, &mut scratch.sealed))?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_rest(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end(cx)
    }
}
