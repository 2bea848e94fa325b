//! WebSocket through tungstenite's decoder, fed from the shard's scratch buffer (RFC 6455).
//!
//! tungstenite owns no socket here: what it wants to send (pongs, close replies) goes into the
//! client's outbox, so that it keeps its place among the shared frames.

use std::io::{self, Read, Write};

use bytes::Bytes;
use tokio_tungstenite::tungstenite::{
    Error, Message,
    error::{CapacityError, ProtocolError},
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

use crate::codec::{
    early_utf8::EarlyUtf8,
    input::{Allowance, ClientInput, Violation},
};

/// tungstenite's own read buffer: small, because it is allocated at once and kept.
const READ_BUFFER_BYTES: usize = 256;
/// The code that stands for a close frame without one (RFC 6455 section 7.1.5).
const NO_CODE: u16 = 1005;

pub(crate) struct WebSocketDecoder(Box<DecoderState>);

struct DecoderState {
    context: WebSocketContext,
    early: EarlyUtf8,
    /// Bytes at the start of the input that `early` has scanned and `context` has not consumed.
    followed: usize,
}

impl WebSocketDecoder {
    pub(super) fn new(message_bytes_max: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(64 * 1024)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        let context = WebSocketContext::new(Role::Server, Some(config));
        Self(Box::new(DecoderState { context, early: EarlyUtf8::default(), followed: 0 }))
    }

    pub(super) fn next(
        &mut self,
        input: &mut &[u8],
        answer: &mut Vec<u8>,
        allowance: &mut Allowance,
    ) -> Result<Option<ClientInput>, Violation> {
        let state = &mut *self.0;
        if let Some(new) = input.get(state.followed..) {
            state.followed += state.early.follow(new, allowance);
        }
        // tungstenite consumes all frames in its input before it returns, unless one ends a message: it gets no
        // more frames than the allowance permits.
        let (mut fed, _) = input.split_at(state.followed.min(input.len()));
        let result = Self::read(&mut state.context, &mut Feed { input: &mut fed, answer });
        *input = &input[state.followed - fed.len()..];
        state.followed = fed.len();
        if state.followed > 0 && matches!(result, Ok(None)) {
            // Nothing is read after a close.
            (*input, state.followed) = (&[], 0);
        }
        match result {
            // Everything before it has been delivered.
            Ok(None) if state.early.is_invalid() => Err(Violation::Utf8),
            result => result,
        }
    }

    fn read(
        context: &mut WebSocketContext,
        feed: &mut Feed<'_, '_>,
    ) -> Result<Option<ClientInput>, Violation> {
        loop {
            return match context.read(feed) {
                Ok(Message::Text(text)) => Ok(Some(ClientInput::Text(text.as_str().to_owned()))),
                Ok(Message::Binary(bytes)) => Ok(Some(ClientInput::Binary(Bytes::copy_from_slice(&bytes)))),
                Ok(Message::Close(frame)) => {
                    // The reply was only queued; this puts it into `answer`.
                    let _ = context.flush(feed);
                    let (code, reason) = frame.map_or((NO_CODE, String::new()), |frame| {
                        (frame.code.into(), frame.reason.as_str().to_owned())
                    });
                    Ok(Some(ClientInput::Close(code, reason)))
                }
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {
                    let _ = context.flush(feed);
                    continue;
                }
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => Ok(None),
                Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => Ok(None),
                Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => Err(Violation::TooLarge),
                Err(Error::Utf8(_)) => Err(Violation::Utf8),
                Err(_) => Err(Violation::Protocol),
            };
        }
    }
}

/// A socket made of a slice to read, which would block at its end, and a buffer to write to.
struct Feed<'a, 'b> {
    input: &'a mut &'b [u8],
    answer: &'a mut Vec<u8>,
}

impl Read for Feed<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buffer)
    }
}

impl Write for Feed<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.answer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
