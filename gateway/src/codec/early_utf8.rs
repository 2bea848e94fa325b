//! Counts the frames of a client, so that it cannot have many in a row, and finds invalid UTF-8 in a text
//! message before its whole frame has arrived (RFC 6455 section 8.1). Pure.
//!
//! tungstenite validates the text of whole frames. This parses frame heads ahead of it, and validates the text
//! of partial frames and of fragments. Of a message in a single frame that arrives whole, as nearly all do,
//! it reads only the head.

use crate::codec::input::Allowance;

/// The longest head of a frame: two bytes, eight of length, four of mask (RFC 6455 section 5.2).
const HEAD_BYTES_MAX: usize = 14;
/// Bytes of text that are unmasked and validated at once.
const CHUNK_BYTES: usize = 512;
/// Bytes of a truncated character: one less than the longest has.
const CARRY_BYTES_MAX: usize = 3;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
/// Opcodes from here on are control frames, which may come between the fragments of a message.
const CONTROL: u8 = 0x8;

#[derive(Default)]
pub(super) struct EarlyUtf8 {
    head: [u8; HEAD_BYTES_MAX],
    head_len: usize,
    /// Payload bytes of the current frame that have not arrived.
    payload_left: u64,
    mask: [u8; 4],
    /// The payload of the current frame is text that must be validated.
    looks: bool,
    /// The current frame is the last of its message.
    ends: bool,
    /// A fragmented text message is in progress.
    in_text: bool,
    /// The first bytes of a character whose rest has not arrived.
    carry: [u8; CARRY_BYTES_MAX],
    carry_len: usize,
    invalid: bool,
}

impl EarlyUtf8 {
    /// Was there a byte that is not valid UTF-8 at its place?
    pub(super) fn is_invalid(&self) -> bool {
        self.invalid
    }

    /// Scans the input while the allowance permits another frame; returns how many bytes it scanned.
    pub(super) fn follow(&mut self, mut bytes: &[u8], allowance: &mut Allowance) -> usize {
        let read = bytes.len();
        while !bytes.is_empty() && !self.invalid {
            if self.payload_left == 0 {
                if self.head_len == 0 && !allowance.take() {
                    break;
                }
                bytes = self.follow_head(bytes, allowance);
                continue;
            }
            let len = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(bytes.len());
            let (payload, rest) = bytes.split_at(len);
            bytes = rest;
            self.payload_left -= len as u64;
            if self.looks {
                self.look(payload);
            }
            if self.payload_left == 0 {
                self.end_frame();
            }
        }
        read - bytes.len()
    }

    /// Consumes bytes of a frame's head; returns the rest of the input.
    fn follow_head<'a>(&mut self, bytes: &'a [u8], allowance: &mut Allowance) -> &'a [u8] {
        let before = self.head_len;
        let len = bytes.len().min(HEAD_BYTES_MAX - before);
        self.head[before..before + len].copy_from_slice(&bytes[..len]);
        let Some((head_len, payload_len)) = sizes(&self.head[..before + len]) else {
            self.head_len += len;
            return &bytes[len..];
        };
        let rest = &bytes[head_len - before..];
        self.head_len = 0;
        let is_message = matches!(self.head[0] & 0x0f, TEXT | BINARY) && self.head[0] & FIN != 0;
        allowance.no_messages += u32::from(!is_message);
        self.begin_frame(head_len, payload_len, payload_len <= rest.len() as u64);
        rest
    }

    fn begin_frame(&mut self, head_len: usize, payload_len: u64, is_whole: bool) {
        let [first, second, ..] = self.head;
        let opcode = first & 0x0f;
        self.ends = first & FIN != 0;
        self.payload_left = payload_len;
        self.mask = [0; 4];
        if second & MASKED != 0 {
            self.mask.copy_from_slice(&self.head[head_len - 4..head_len]);
        }
        if opcode >= CONTROL {
            (self.looks, self.ends) = (false, false);
        } else {
            if opcode != CONTINUATION {
                self.in_text = opcode == TEXT;
                self.carry_len = 0;
            }
            self.looks = self.in_text && !(opcode == TEXT && self.ends && is_whole);
        }
        if payload_len == 0 {
            self.end_frame();
        }
    }

    fn end_frame(&mut self) {
        if self.ends {
            self.in_text = false;
        }
    }

    fn look(&mut self, payload: &[u8]) {
        let mut text = [0; CARRY_BYTES_MAX + CHUNK_BYTES];
        for chunk in payload.chunks(CHUNK_BYTES) {
            let begin = self.carry_len;
            text[..begin].copy_from_slice(&self.carry[..begin]);
            let masked = chunk.iter().zip(self.mask.iter().cycle());
            for (unmasked, (byte, mask)) in text[begin..].iter_mut().zip(masked) {
                *unmasked = byte ^ mask;
            }
            self.mask.rotate_left(chunk.len() % 4);
            let text = &text[..begin + chunk.len()];
            let unfinished = match std::str::from_utf8(text) {
                Ok(_) => &[],
                Err(error) if error.error_len().is_none() => &text[error.valid_up_to()..],
                Err(_) => {
                    self.invalid = true;
                    return;
                }
            };
            self.carry[..unfinished.len()].copy_from_slice(unfinished);
            self.carry_len = unfinished.len();
        }
    }
}

/// The lengths of a frame's head and of its payload; none if the head is incomplete.
fn sizes(head: &[u8]) -> Option<(usize, u64)> {
    let second = *head.get(1)?;
    let (len_bytes, payload_len) = match second & 0x7f {
        126 => (2, u64::from(u16::from_be_bytes(head.get(2..4)?.try_into().ok()?))),
        127 => (8, u64::from_be_bytes(head.get(2..10)?.try_into().ok()?)),
        len => (0, u64::from(len)),
    };
    let head_len = 2 + len_bytes + if second & MASKED == 0 { 0 } else { 4 };
    (head.len() >= head_len).then_some((head_len, payload_len))
}
