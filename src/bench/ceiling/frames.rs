//! WebSocket frames as the ceiling needs them. Pure.

pub(super) const BINARY: u8 = 2;

/// Appends a server's frame.
pub(super) fn encode(to: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    head(to, opcode, payload.len());
    to.extend_from_slice(payload);
}

fn head(to: &mut Vec<u8>, opcode: u8, len: usize) {
    to.push(0x80 | opcode);
    match len {
        0..=125 => to.push(len as u8),
        126..=0xffff => {
            to.push(126);
            to.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            to.push(127);
            to.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// How many bytes the first of our own frames takes.
pub(super) fn first_len(bytes: &[u8]) -> usize {
    let len = match bytes {
        [_, 126, a, b, ..] => 4 + usize::from(u16::from_be_bytes([*a, *b])),
        [_, 127, rest @ ..] => rest
            .first_chunk()
            .and_then(|len| usize::try_from(u64::from_be_bytes(*len)).ok())
            .map_or(usize::MAX, |len| len.saturating_add(10)),
        [_, len, ..] => 2 + usize::from(*len),
        _ => bytes.len(),
    };
    len.min(bytes.len())
}

/// What became of a client's bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// So many were used.
    Used(usize),
    /// The client wants to go, or speaks nonsense.
    Gone,
}

/// Appends the echo of every whole data frame among a client's bytes.
pub(super) fn echo(bytes: &[u8], to: &mut Vec<u8>) -> Heard {
    let mut used = 0;
    loop {
        let [first, second, rest @ ..] = &bytes[used..] else { return Heard::Used(used) };
        let (skip, len) = match second & 0x7f {
            126 => match rest.first_chunk() {
                Some(len) => (2, usize::from(u16::from_be_bytes(*len))),
                None => return Heard::Used(used),
            },
            127 => match rest.first_chunk() {
                Some(len) => (8, usize::try_from(u64::from_be_bytes(*len)).unwrap_or(usize::MAX)),
                None => return Heard::Used(used),
            },
            len => (0, usize::from(len)),
        };
        if second & 0x80 == 0 || len > 16 * 1024 * 1024 {
            return Heard::Gone;
        }
        let Some(masked) = rest.get(skip..skip + 4 + len) else { return Heard::Used(used) };
        let Some((mask, payload)) = masked.split_first_chunk::<4>() else { return Heard::Used(used) };
        match first & 0x0f {
            8 => return Heard::Gone,
            opcode @ (1 | 2) => {
                head(to, opcode, len);
                let start = to.len();
                to.extend_from_slice(payload);
                // A mask of zeros changes nothing.
                if *mask != [0; 4] {
                    to[start..].iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
                }
            }
            _ => {}
        }
        used += 2 + skip + 4 + len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_comes_back_unmasked_and_only_whole() {
        let sent = b"\x82\x83\x01\x02\x03\x04\x60\x60\x60\x8a\x80\0\0\0\0\x81\x81\0\0\0\0x";
        for split in 0..=sent.len() {
            let mut out = Vec::new();
            let Heard::Used(used) = echo(&sent[..split], &mut out) else { panic!("gone") };
            assert_eq!(echo(&sent[used..], &mut out), Heard::Used(sent.len() - used));
            assert_eq!(out, b"\x82\x03abc\x81\x01x", "{split}");
        }
    }

    #[test]
    fn who_closes_or_does_not_mask_is_gone() {
        assert_eq!(echo(b"\x88\x80\0\0\0\0", &mut Vec::new()), Heard::Gone);
        assert_eq!(echo(b"\x82\x01a", &mut Vec::new()), Heard::Gone);
    }

    #[test]
    fn a_frame_knows_its_length() {
        for len in [0, 125, 126, 65_535, 65_536] {
            let mut bytes = Vec::new();
            encode(&mut bytes, BINARY, &vec![1; len]);
            let all = bytes.len();
            bytes.extend_from_slice(b"\x82\x00");
            assert_eq!(first_len(&bytes), all);
        }
    }
}
