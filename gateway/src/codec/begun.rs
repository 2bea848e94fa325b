//! A partially read message, of the protocols without a handshake.

/// The buffer that a decoder of lines or length-prefixed frames keeps between reads.
pub(crate) struct Begun {
    pub(super) bytes: Vec<u8>,
    /// Limit of one message.
    pub(super) message_bytes_max: usize,
}

impl Begun {
    pub(super) fn new(message_bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), message_bytes_max }
    }
}
