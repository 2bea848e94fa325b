//! What is sent: a number and a time, as bytes, or as text that stands in JSON as it is. Pure.

pub(crate) const HEAD_BYTES: usize = 16;
const TEXT_HEAD_BYTES: usize = 1 + 2 * HEAD_BYTES;
const TEXT_MARK: u8 = b'!';

pub(crate) fn bytes(size: usize, number: u64, at: u64) -> Vec<u8> {
    let mut payload = vec![0; size.max(HEAD_BYTES)];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    payload[8..HEAD_BYTES].copy_from_slice(&at.to_be_bytes());
    payload
}

pub(crate) fn text(size: usize, number: u64, at: u64) -> String {
    let head = format!("{}{number:016x}{at:016x}", char::from(TEXT_MARK));
    format!("{head:x<size$}")
}

/// The number and the time of a message, if it is one of a run's.
pub(super) fn head(payload: &[u8]) -> Option<(u64, u64)> {
    let number = payload.first_chunk::<8>()?;
    let at = payload.get(8..HEAD_BYTES)?.try_into().ok()?;
    Some((u64::from_be_bytes(*number), u64::from_be_bytes(at)))
}

/// The same in text. `place` is where the mark stood in the message before, so where it most likely
/// stands again.
pub(super) fn text_head(payload: &[u8], place: &mut usize) -> Option<(u64, u64)> {
    if payload.get(*place) != Some(&TEXT_MARK) {
        *place = payload.iter().position(|byte| *byte == TEXT_MARK)?;
    }
    let head = payload.get(*place + 1..*place + TEXT_HEAD_BYTES)?;
    let (number, at) = head.split_at(HEAD_BYTES);
    Some((hex(number)?, hex(at)?))
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_tells_its_number_and_its_time() {
        let message =
            br#"{"event":"bench","channel":"bench-7","data":"!00000000000000070000000000000102xxxx"}"#;
        let mut place = 0;
        assert_eq!(text_head(message, &mut place), Some((7, 258)));
        assert_eq!(text_head(message, &mut place), Some((7, 258)));
        assert_eq!(text_head(b"!0000", &mut place), None);
        assert_eq!(text_head(text(128, 3, 4).as_bytes(), &mut place), Some((3, 4)));
        assert_eq!((head(&bytes(128, 7, 258)), text(128, 3, 4).len()), (Some((7, 258)), 128));
        assert_eq!(head(b"short"), None);
    }
}
