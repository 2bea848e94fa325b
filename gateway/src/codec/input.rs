//! A client's input, or how it broke its protocol.

use broadgate_proto::close::{self, CloseCode};
use bytes::Bytes;

/// What a client said. Payloads own their bytes: a slice would pin the buffer that it came from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClientInput {
    Text(String),
    Binary(Bytes),
    /// A close frame, with the code and reason that it gave.
    Close(u16, String),
}

/// How many frames may be taken from a client before others have their turn, and what they were.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// Frames that may still be begun. What was read beyond is left in the input.
    pub(crate) left: u32,
    /// WebSocket frames that were begun and are no message by themselves: control frames and fragments.
    pub(crate) no_messages: u32,
}

impl Allowance {
    pub(crate) fn of(frames: u32) -> Self {
        Self { left: frames, no_messages: 0 }
    }

    /// Takes a message that is one frame; false if none is left.
    pub(super) fn take(&mut self) -> bool {
        let is_left = self.left > 0;
        self.left -= u32::from(is_left);
        is_left
    }
}

/// How a client broke its protocol.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    Protocol,
    Utf8,
    TooLarge,
}

impl Violation {
    pub(crate) fn close_code(&self) -> CloseCode {
        match self {
            Self::Protocol => close::PROTOCOL_ERROR,
            Self::Utf8 => close::INVALID_UTF8,
            Self::TooLarge => close::TOO_LARGE,
        }
    }
}

/// A message as text if it is UTF-8, for protocols that do not tell.
pub(super) fn text_or_binary(payload: &[u8]) -> ClientInput {
    match std::str::from_utf8(payload) {
        Ok(text) => ClientInput::Text(text.to_owned()),
        Err(_) => ClientInput::Binary(Bytes::copy_from_slice(payload)),
    }
}
