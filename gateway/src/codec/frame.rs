//! Length-prefixed frames: four big-endian bytes give the length of the whole frame, themselves included.

use bytes::Bytes;

use super::begun::Begun;
use crate::codec::input::{Allowance, ClientInput, Violation};

const HEADER: usize = 4;

pub(crate) struct FrameDecoder(Begun);

impl FrameDecoder {
    pub(super) fn new(message_bytes_max: usize) -> Self {
        Self(Begun::new(message_bytes_max))
    }

    pub(super) fn next(
        &mut self,
        input: &mut &[u8],
        allowance: &mut Allowance,
    ) -> Result<Option<ClientInput>, Violation> {
        // A frame in progress has already been counted.
        if self.0.bytes.is_empty() && !input.is_empty() && !allowance.take() {
            return Ok(None);
        }
        if self.0.bytes.len() < HEADER && !self.take(input, HEADER) {
            return Ok(None);
        }
        let Some(header) = self.0.bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let len = u32::from_be_bytes(*header) as usize;
        if len < HEADER {
            return Err(Violation::Protocol);
        }
        if len - HEADER > self.0.message_bytes_max {
            return Err(Violation::TooLarge);
        }
        if !self.take(input, len) {
            return Ok(None);
        }
        let whole = Bytes::from(std::mem::take(&mut self.0.bytes));
        Ok(Some(ClientInput::Binary(whole.slice(HEADER..))))
    }

    /// Fills `begun` up to `len` bytes; false if the input ends before.
    fn take(&mut self, input: &mut &[u8], len: usize) -> bool {
        let want = len - self.0.bytes.len();
        let (taken, rest) = input.split_at(want.min(input.len()));
        self.0.bytes.extend_from_slice(taken);
        *input = rest;
        taken.len() == want
    }
}
