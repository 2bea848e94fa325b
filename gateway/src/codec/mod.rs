//! What clients speak: bytes in, messages out. Pure; the shard owns the sockets.

pub(crate) mod encode;
mod frame;
mod text;
mod websocket;

use broadgate_proto::close::{self, CloseCode};
use bytes::Bytes;

use self::encode::Frames;
use crate::config::ListenerKind;

/// One client's decoder.
pub(crate) enum Codec {
    WebSocket(websocket::Decoder),
    /// WebSocket, in which the Pusher protocol is spoken.
    Pusher(websocket::Decoder),
    Text(text::Decoder),
    Frame(frame::Decoder),
}

/// What a client said. Payloads own their bytes: a slice would pin the buffer that it came from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Text(String),
    Binary(Bytes),
    /// A close frame, with the code and reason that it gave.
    Close(u16, String),
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

    /// For the counter of closes.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::Utf8 => "utf8",
            Self::TooLarge => "too_large",
        }
    }
}

impl Codec {
    pub(crate) fn new(kind: ListenerKind, message_bytes_max: usize) -> Self {
        match kind {
            ListenerKind::Web => Self::WebSocket(websocket::Decoder::new(message_bytes_max)),
            ListenerKind::Text => Self::Text(text::Decoder::new(message_bytes_max)),
            ListenerKind::Frame => Self::Frame(frame::Decoder::new(message_bytes_max)),
        }
    }

    pub(crate) fn pusher(message_bytes_max: usize) -> Self {
        Self::Pusher(websocket::Decoder::new(message_bytes_max))
    }

    /// The next message in what was read, or none if more must be read. `input` moves on past what
    /// was taken. What must be answered at once (a pong, a close reply) is added to `answer`.
    pub(crate) fn next(
        &mut self,
        input: &mut &[u8],
        answer: &mut Vec<u8>,
    ) -> Result<Option<Input>, Violation> {
        match self {
            Self::WebSocket(decoder) | Self::Pusher(decoder) => decoder.next(input, answer),
            Self::Text(decoder) => decoder.next(input),
            Self::Frame(decoder) => decoder.next(input),
        }
    }

    /// This client's form of a message; none if it has none.
    pub(crate) fn pick<'a, F>(&self, frames: &'a Frames<F>) -> Option<&'a F> {
        match self {
            Self::WebSocket(_) => frames.websocket.as_ref(),
            Self::Pusher(_) => frames.pusher.as_ref(),
            Self::Text(_) => frames.text.as_ref(),
            Self::Frame(_) => frames.frame.as_ref(),
        }
    }

    pub(crate) fn is_websocket(&self) -> bool {
        matches!(self, Self::WebSocket(_) | Self::Pusher(_))
    }

    /// The protocol's name in answers.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::WebSocket(_) => "websocket",
            Self::Pusher(_) => "pusher",
            Self::Text(_) => "text",
            Self::Frame(_) => "frame",
        }
    }
}

/// A message as text if it is UTF-8, for protocols that do not tell.
fn text_or_binary(payload: &[u8]) -> Input {
    match std::str::from_utf8(payload) {
        Ok(text) => Input::Text(text.to_owned()),
        Err(_) => Input::Binary(Bytes::copy_from_slice(payload)),
    }
}

#[cfg(test)]
mod tests;
