//! The record layer: what came from a socket to plaintext, and plaintext to what goes to a socket. No socket
//! and no clock.
//!
//! Bytes are opened in place: ciphertext lies behind a gap of [`PLAIN_MAX`] bytes, plaintext is collected in
//! front of it. So one buffer of a shard serves all its clients. rustls itself needs one allocation per record.

use std::sync::Arc;

use rustls::{
    Error, ServerConfig,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus},
};

/// The plaintext of one record (RFC 8446 section 5.1).
pub(crate) const PLAIN_MAX: usize = 16 * 1024;
/// A record as it is sent: header, plaintext, and what protection may add (RFC 5246 section 6.2.3).
pub(crate) const WIRE_MAX: usize = 5 + PLAIN_MAX + 2048;
/// A buffer of this size opens what one read brings, behind an unfinished record.
pub(crate) const OPEN_BYTES: usize = PLAIN_MAX + 2 * WIRE_MAX;
/// Sealing [`PLAIN_MAX`] takes no more in nearly all cases; the buffer grows where it does.
const SEAL_BYTES: usize = PLAIN_MAX + 512;

/// One connection's keys and state, and the record that has not arrived whole.
pub(crate) struct Records {
    connection: UnbufferedServerConnection,
    /// Without capacity when there is none. rustls may have decrypted a part of it in place: it must not be
    /// replaced by what was received.
    partial: Vec<u8>,
    /// The peer has sent its close_notify.
    ended: bool,
}

/// What was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Opened {
    /// Bytes of plaintext at the begin of the buffer.
    pub(crate) plain: usize,
    /// Records that had plaintext.
    pub(crate) records: usize,
}

/// Sealed bytes on their way to a socket.
#[derive(Default)]
pub(crate) struct Sealed {
    buffer: Vec<u8>,
    len: usize,
}

impl Sealed {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends what `write` writes; it says how much room it needs if there is too little.
    fn append<E>(
        &mut self,
        mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
        required: impl Fn(&E) -> Option<usize>,
    ) -> Result<(), E> {
        if self.buffer.is_empty() {
            self.buffer.resize(SEAL_BYTES, 0);
        }
        let written = match write(&mut self.buffer[self.len..]) {
            Err(error) => match required(&error) {
                Some(required) => {
                    self.buffer.resize(self.len + required, 0);
                    write(&mut self.buffer[self.len..])?
                }
                None => return Err(error),
            },
            Ok(written) => written,
        };
        self.len += written;
        Ok(())
    }

    fn encode(&mut self, write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) -> Result<(), Error> {
        let required = |error: &EncodeError| match error {
            EncodeError::InsufficientSize(size) => Some(size.required_size),
            EncodeError::AlreadyEncoded => None,
        };
        self.append(write, required).map_err(|error| Error::General(error.to_string()))
    }

    fn encrypt(&mut self, write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>) -> Result<(), Error> {
        let required = |error: &EncryptError| match error {
            EncryptError::InsufficientSize(size) => Some(size.required_size),
            EncryptError::EncryptExhausted => None,
        };
        self.append(write, required).map_err(|error| Error::General(error.to_string()))
    }
}

impl Records {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self { connection: UnbufferedServerConnection::new(config)?, partial: Vec::new(), ended: false })
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The peer has said that it sends nothing more.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn connection(&self) -> &UnbufferedServerConnection {
        &self.connection
    }

    /// Prepares `buffer` for a read: the part where it should go, at most [`WIRE_MAX`] bytes.
    ///
    /// `buffer` must have [`OPEN_BYTES`].
    pub(crate) fn room<'b>(&self, buffer: &'b mut [u8]) -> &'b mut [u8] {
        let start = PLAIN_MAX + self.partial.len();
        buffer[PLAIN_MAX..start].copy_from_slice(&self.partial);
        &mut buffer[start..start + WIRE_MAX]
    }

    /// Opens what was read into the room of `buffer`. Plaintext lies at its begin afterwards; what must be
    /// sent at once (handshake, alerts) is appended to `out`, also if it fails.
    pub(crate) fn open(&mut self, buffer: &mut [u8], read: usize, out: &mut Sealed) -> Result<Opened, Error> {
        let end = PLAIN_MAX + self.partial.len() + read;
        self.partial = Vec::new();
        let mut from = PLAIN_MAX;
        let mut opened = Opened::default();
        let result = loop {
            let (front, rest) = buffer.split_at_mut(from);
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut rest[..end - from]);
            let step = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                    match traffic.next_record() {
                        Some(Ok(record)) => {
                            discard += record.discard;
                            // There is room: all plaintext so far was longer as ciphertext.
                            let to = opened.plain + record.payload.len();
                            front[opened.plain..to].copy_from_slice(record.payload);
                            opened = Opened { plain: to, records: opened.records + 1 };
                        }
                        Some(Err(error)) => break Err(error),
                        None => break Ok(true),
                    }
                },
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    out.encode(|bytes| data.encode(bytes)).map(|()| true)
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    Ok(true)
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.ended = true;
                    Ok(true)
                }
                // Nothing more can be done with what is here.
                Ok(
                    ConnectionState::WriteTraffic(_)
                    | ConnectionState::BlockedHandshake
                    | ConnectionState::Closed,
                ) => Ok(false),
                // Early data is off.
                Ok(state) => Err(Error::General(format!("unexpected state {state:?}"))),
                Err(error) => Err(error),
            };
            from += discard;
            match step {
                Ok(true) => {}
                Ok(false) => break Ok(opened),
                Err(error) => break Err(error),
            }
        };
        if result.is_err() {
            self.alert(out);
        } else if !self.ended {
            self.keep(&buffer[from..end])?;
        }
        result
    }

    /// Appends the alert that says what is wrong.
    fn alert(&mut self, out: &mut Sealed) {
        while self.connection.wants_write() {
            // Without input: what failed must not be read again.
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut []);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = state else { return };
            if out.encode(|bytes| data.encode(bytes)).is_err() {
                return;
            }
        }
    }

    fn keep(&mut self, partial: &[u8]) -> Result<(), Error> {
        if partial.len() > WIRE_MAX {
            return Err(Error::General("a handshake message of more than 18 KB".to_owned()));
        }
        // As large as it is and no larger: thousands of slow connections may have one.
        self.partial = partial.to_vec();
        Ok(())
    }

    /// Appends plaintext as records.
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut Sealed) -> Result<(), Error> {
        self.traffic(out, |traffic, out| out.encrypt(|bytes| traffic.encrypt(plain, bytes)))
    }

    /// Appends a close_notify. Nothing can be sealed after it.
    pub(crate) fn close(&mut self, out: &mut Sealed) -> Result<(), Error> {
        self.traffic(out, |traffic, out| out.encrypt(|bytes| traffic.queue_close_notify(bytes)))
    }

    fn traffic(
        &mut self,
        out: &mut Sealed,
        mut act: impl FnMut(&mut WriteTraffic<'_>, &mut Sealed) -> Result<(), Error>,
    ) -> Result<(), Error> {
        loop {
            // What has not arrived whole must be shown: rustls knows how much of it it has seen.
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut self.partial);
            debug_assert_eq!(discard, 0, "a whole record was left");
            match state? {
                ConnectionState::EncodeTlsData(mut data) => out.encode(|bytes| data.encode(bytes))?,
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(mut traffic) => return act(&mut traffic, out),
                ConnectionState::PeerClosed => self.ended = true,
                state => return Err(Error::General(format!("cannot write in state {state:?}"))),
            }
        }
    }
}

type WriteTraffic<'c> = rustls::unbuffered::WriteTraffic<'c, rustls::server::ServerConnectionData>;
