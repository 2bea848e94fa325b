//! A client's input, or how it broke its protocol.

use broadgate_proto::close::{self, CloseCode};
use bytes::Bytes;

/// Decoded client input. Payloads own their bytes: a slice would pin the buffer it came from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClientInput {
    Text(String),
    Binary(Bytes),
    /// A close frame, with its code and reason.
    Close(u16, String),
}

/// How many frames may be decoded of a client in this turn, and which kinds were.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// Frames that may still be started. The rest stays in the input.
    pub(crate) left: u32,
    /// Started WebSocket frames that are not messages by themselves: control frames and fragments.
    pub(crate) no_messages: u32,
}

impl Allowance {
    pub(crate) fn of(frames: u32) -> Self {
        Self { left: frames, no_messages: 0 }
    }

    /// Counts a message of one frame; false if the allowance is spent.
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

/// A text message if the bytes are UTF-8, else a binary one: for protocols that do not distinguish.
pub(super) fn text_or_binary(payload: &[u8]) -> ClientInput {
    match std::str::from_utf8(payload) {
        Ok(text) => ClientInput::Text(text.to_owned()),
        Err(_) => ClientInput::Binary(Bytes::copy_from_slice(payload)),
    }
}
