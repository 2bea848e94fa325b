//! A message whose end was not read yet, of the protocols without a handshake.

/// What a decoder of lines or of length-prefixed frames keeps between two reads.
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
