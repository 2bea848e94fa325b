//! The spool's records as bytes. Pure.
//!
//! A file begins with [`MAGIC`]. Then come records: the length of what follows the checksum (4 bytes,
//! little-endian), the checksum (XXH3, 8 bytes), a kind and its fields. Reading ends at the first record
//! that is not whole.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::{core::EndpointId, event::EndpointEvent};

pub(super) const MAGIC: &[u8] = b"broadgate webhooks 1\n";

const HEAD_BYTES: usize = 12;
const ADDED: u8 = 1;
const DONE: u8 = 2;

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// An event waits for an endpoint.
    Added(EndpointId, Arc<EndpointEvent>),
    /// The event of this number waits no more.
    Done(u64),
}

/// What the record of an event takes in the file.
pub(super) fn bytes(event: &EndpointEvent) -> usize {
    HEAD_BYTES + 1 + 8 + 16 + 8 + 4 + event.channel.len() + event.json.len()
}

pub(super) fn write_added(out: &mut Vec<u8>, id: EndpointId, event: &EndpointEvent) {
    framed(out, |out| {
        out.push(ADDED);
        out.extend(event.seq.to_le_bytes());
        out.extend(id.0.to_le_bytes());
        out.extend(event.at_ms.to_le_bytes());
        // Names of channels are short.
        out.extend(u32::try_from(event.channel.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend(event.channel.as_bytes());
        out.extend(event.json.as_bytes());
    });
}

pub(super) fn write_done(out: &mut Vec<u8>, seq: u64) {
    framed(out, |out| {
        out.push(DONE);
        out.extend(seq.to_le_bytes());
    });
}

fn framed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; HEAD_BYTES]);
    write(out);
    let content = start + HEAD_BYTES;
    // Below the spool's own limit.
    let length = u32::try_from(out.len() - content).unwrap_or(u32::MAX).to_le_bytes();
    let checksum = xxh3_64(&out[content..]).to_le_bytes();
    out[start..start + 4].copy_from_slice(&length);
    out[start + 4..content].copy_from_slice(&checksum);
}

/// Reads the next record, if it is whole, and takes it off.
pub(super) fn read(bytes: &mut &[u8]) -> Option<Record> {
    let mut rest = *bytes;
    let length = u32::from_le_bytes(take(&mut rest)?);
    let checksum = u64::from_le_bytes(take(&mut rest)?);
    let (content, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    if xxh3_64(content) != checksum {
        return None;
    }
    let record = parse(content)?;
    *bytes = rest;
    Some(record)
}

fn parse(mut content: &[u8]) -> Option<Record> {
    let [kind] = take(&mut content)?;
    let seq = u64::from_le_bytes(take(&mut content)?);
    match kind {
        ADDED => {
            let id = EndpointId(u128::from_le_bytes(take(&mut content)?));
            let at_ms = u64::from_le_bytes(take(&mut content)?);
            let length = u32::from_le_bytes(take(&mut content)?);
            let (channel, json) = content.split_at_checked(usize::try_from(length).ok()?)?;
            let (channel, json) = (std::str::from_utf8(channel).ok()?, std::str::from_utf8(json).ok()?);
            Some(Record::Added(
                id,
                Arc::new(EndpointEvent {
                    seq,
                    channel: channel.into(),
                    at_ms,
                    json: json.into(),
                    arrival: None,
                }),
            ))
        }
        DONE => content.is_empty().then_some(Record::Done(seq)),
        _ => None,
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(seq: u64, channel: &str, json: &str) -> Arc<EndpointEvent> {
        Arc::new(EndpointEvent {
            seq,
            channel: channel.into(),
            at_ms: seq + 5,
            json: json.into(),
            arrival: None,
        })
    }

    fn read_all(mut bytes: &[u8]) -> (Vec<Record>, usize) {
        let records = std::iter::from_fn(|| read(&mut bytes)).collect();
        (records, bytes.len())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_up_to_the_first_wound(
            texts in prop::collection::vec((".{0,9}", ".{0,30}", any::<bool>()), 1..8),
            cut: prop::sample::Index,
            bit in 0_u8..8,
        ) {
            let mut bytes = Vec::new();
            let mut ends = Vec::new();
            for (seq, (channel, json, done)) in (0..).zip(&texts) {
                if *done {
                    write_done(&mut bytes, seq);
                } else {
                    let before = bytes.len();
                    write_added(&mut bytes, EndpointId(u128::MAX - 1), &event(seq, channel, json));
                    prop_assert_eq!(bytes.len() - before, super::bytes(&event(seq, channel, json)));
                }
                ends.push(bytes.len());
            }
            let expected = |count: usize| (0..).zip(&texts).take(count).map(|(seq, (channel, json, done))| {
                if *done { Record::Done(seq) } else { Record::Added(EndpointId(u128::MAX - 1), event(seq, channel, json)) }
            }).collect::<Vec<_>>();
            prop_assert_eq!(read_all(&bytes), (expected(texts.len()), 0));
            let at = cut.index(bytes.len());
            let whole = ends.iter().filter(|end| **end <= at).count();
            let start = if whole == 0 { 0 } else { ends[whole - 1] };
            prop_assert_eq!(read_all(&bytes[..at]), (expected(whole), at - start));
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(read_all(&bytes).0, expected(whole));
        }
    }
}
