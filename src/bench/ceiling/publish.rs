//! What a publisher sends: records of a length, a group and a payload; and the frames that become of
//! them, encoded once for all threads. Pure.

use super::{frames, groups::Names};

/// A record of more bytes is no record.
const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Frames for groups, in the order in which they came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// The group of each frame, and where the frame ends.
    pub(super) ends: Vec<(u32, usize)>,
}

/// Appends a record to what will be sent to the ceiling.
pub(crate) fn record(to: &mut Vec<u8>, group: &str, payload: &[u8]) {
    let len = 2 + group.len() + payload.len();
    to.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    to.extend_from_slice(&u16::try_from(group.len()).unwrap_or(u16::MAX).to_be_bytes());
    to.extend_from_slice(group.as_bytes());
    to.extend_from_slice(payload);
}

/// The whole records among the bytes, and how many bytes they take; none if they are none.
pub(super) fn parse(bytes: &[u8], names: &Names) -> Option<(Batch, usize)> {
    let (mut batch, mut used) = (Batch::default(), 0);
    let mut last: Option<(&[u8], u32)> = None;
    while let Some(head) = bytes[used..].first_chunk::<4>() {
        let len = usize::try_from(u32::from_be_bytes(*head)).ok()?;
        if !(2..=RECORD_BYTES_MAX).contains(&len) {
            return None;
        }
        let Some(record) = bytes.get(used + 4..used + 4 + len) else { break };
        let (head, rest) = record.split_first_chunk::<2>()?;
        let (name, payload) = rest.split_at_checked(usize::from(u16::from_be_bytes(*head)))?;
        let group = match last {
            Some((same, group)) if same == name => group,
            _ => names.number(name),
        };
        last = Some((name, group));
        frames::encode(&mut batch.bytes, frames::BINARY, payload);
        batch.ends.push((group, batch.bytes.len()));
        used += 4 + len;
    }
    Some((batch, used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_as_frames_however_they_are_split() {
        let mut sent = Vec::new();
        record(&mut sent, "a", b"one");
        record(&mut sent, "b", b"");
        record(&mut sent, "a", &[7; 200]);
        let names = Names::default();
        for split in 0..sent.len() {
            let (first, used) = parse(&sent[..split], &names).unwrap();
            let (second, rest) = parse(&sent[used..], &names).unwrap();
            assert_eq!(used + rest, sent.len());
            let bytes = [first.bytes, second.bytes].concat();
            assert!(bytes.starts_with(b"\x82\x03one\x82\x00\x82\x7e\x00\xc8\x07"), "{split}");
            assert_eq!(bytes.len(), 5 + 2 + 204);
            assert_eq!(first.ends.len() + second.ends.len(), 3);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in [&[0, 0, 0, 1, 0][..], &[255; 8], &[0, 0, 0, 2, 0, 9]] {
            assert_eq!(parse(wrong, &Names::default()), None);
        }
    }
}
