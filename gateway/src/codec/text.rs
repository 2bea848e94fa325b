//! Lines: a message ends with a newline; a carriage return before it is not part of it.

use super::begun::Begun;
use crate::codec::input::{Allowance, ClientInput, Violation, text_or_binary};

pub(crate) struct TextDecoder(Begun);

impl TextDecoder {
    pub(super) fn new(message_bytes_max: usize) -> Self {
        Self(Begun::new(message_bytes_max))
    }

    pub(super) fn next(
        &mut self,
        input: &mut &[u8],
        allowance: &mut Allowance,
    ) -> Result<Option<ClientInput>, Violation> {
        let Some(end) = input.iter().position(|&byte| byte == b'\n') else {
            if self.0.bytes.len() + input.len() > self.0.message_bytes_max + 1 {
                return Err(Violation::TooLarge);
            }
            self.0.bytes.extend_from_slice(input);
            *input = &[];
            return Ok(None);
        };
        if !allowance.take() {
            return Ok(None);
        }
        let (line, rest) = (&input[..end], &input[end + 1..]);
        *input = rest;
        let begun = std::mem::take(&mut self.0.bytes);
        let whole = if begun.is_empty() { line } else { &[&begun, line].concat() };
        let whole = whole.strip_suffix(b"\r").unwrap_or(whole);
        if whole.len() > self.0.message_bytes_max {
            return Err(Violation::TooLarge);
        }
        Ok(Some(text_or_binary(whole)))
    }
}
