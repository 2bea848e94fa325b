//! WebSocket frames as a load generator needs them: the server's, unmasked, by hand. Pure.

/// A data frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Data(&'a [u8]),
    Ping(&'a [u8]),
    Close,
    Other,
}

/// The next whole frame and how many bytes it takes; none if more must be read.
pub(super) fn next(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let [head, len, rest @ ..] = bytes else { return None };
    let (skip, len): (usize, usize) = match len & 0x7f {
        126 => (2, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (8, usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?),
        len => (0, usize::from(len)),
    };
    let payload = rest.get(skip..skip.checked_add(len)?)?;
    let frame = match head & 0x0f {
        1 | 2 => Frame::Data(payload),
        8 => Frame::Close,
        9 => Frame::Ping(payload),
        _ => Frame::Other,
    };
    Some((frame, 2 + skip + len))
}

/// A client's frame. The mask is zero, so that the payload stands as it is (RFC 6455 asks for an
/// unpredictable one, against proxies that a load generator does not have).
pub(super) fn client(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_frames_only() {
        let bytes = b"\x82\x03abc\x89\x00\x88\x02\x03\xe8";
        assert_eq!(next(bytes), Some((Frame::Data(b"abc"), 5)));
        assert_eq!(next(&bytes[5..]), Some((Frame::Ping(b""), 2)));
        assert_eq!(next(&bytes[7..]), Some((Frame::Close, 4)));
        assert_eq!(next(&bytes[..4]), None);
        let long = [&b"\x81\x7e\x01\x00"[..], &[b'x'; 256]].concat();
        assert_eq!(next(&long), Some((Frame::Data(&[b'x'; 256]), 260)));
        assert_eq!(next(&long[..100]), None);
    }
}
