//! Codecs of clients' protocols: bytes in, messages out. Pure; the shard owns the sockets.

mod begun;
mod early_utf8;
pub(crate) mod encode;
mod frame;
mod input;
mod text;
mod websocket;

use crate::{codec::encode::Frames, config::ListenerKind};

pub(crate) use self::input::{Allowance, ClientInput, Violation};

/// A client's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    WebSocket,
    /// The Pusher protocol over WebSocket.
    Pusher,
    /// WebSocket, in which Socket.IO is spoken.
    SocketIo,
    Text,
    Frame,
}

/// One client's decoder.
pub(crate) enum Codec {
    WebSocket(websocket::WebSocketDecoder),
    Text(text::TextDecoder),
    Frame(frame::FrameDecoder),
}

impl Protocol {
    /// The protocol of a raw client of a listener of this kind.
    pub(crate) fn raw(kind: ListenerKind) -> Self {
        match kind {
            ListenerKind::Web => Self::WebSocket,
            ListenerKind::Text => Self::Text,
            ListenerKind::Frame => Self::Frame,
        }
    }

    /// The message as framed for this protocol; none if it was not framed for it.
    pub(crate) fn pick<F>(self, frames: &Frames<F>) -> Option<&F> {
        match self {
            Self::WebSocket => frames.websocket.as_ref(),
            Self::Pusher => frames.pusher.as_ref(),
            Self::SocketIo => frames.socketio.as_ref(),
            Self::Text => frames.text.as_ref(),
            Self::Frame => frames.frame.as_ref(),
        }
    }

    pub(crate) fn is_websocket(self) -> bool {
        matches!(self, Self::WebSocket | Self::Pusher | Self::SocketIo)
    }

    /// Its name in the API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Pusher => "pusher",
            Self::SocketIo => "socketio",
            Self::Text => "text",
            Self::Frame => "frame",
        }
    }
}

impl Codec {
    pub(crate) fn new(protocol: Protocol, message_bytes_max: usize) -> Self {
        match protocol {
            Protocol::WebSocket | Protocol::Pusher | Protocol::SocketIo => {
                Self::WebSocket(websocket::WebSocketDecoder::new(message_bytes_max))
            }
            Protocol::Text => Self::Text(text::TextDecoder::new(message_bytes_max)),
            Protocol::Frame => Self::Frame(frame::FrameDecoder::new(message_bytes_max)),
        }
    }

    /// Decodes the next message, or none if more must be read or the allowance is spent: then
    /// some of `input`, which is advanced past what was decoded, is left. What must be answered at once (a
    /// pong, a close reply) is added to `answer`.
    pub(crate) fn next(
        &mut self,
        input: &mut &[u8],
        answer: &mut Vec<u8>,
        allowance: &mut Allowance,
    ) -> Result<Option<ClientInput>, Violation> {
        match self {
            Self::WebSocket(decoder) => decoder.next(input, answer, allowance),
            Self::Text(decoder) => decoder.next(input, allowance),
            Self::Frame(decoder) => decoder.next(input, allowance),
        }
    }
}

#[cfg(test)]
mod tests;
