//! Large messages between gateways: split into parts that fit into gRPC messages, and reassembled. Pure.

use broadgate_proto::{
    limits::{PEER_JOINED_BYTES_MAX, PEER_PART_BYTES, PEER_WHOLE_BYTES_MAX},
    v1::PeerPart,
};
use bytes::{Bytes, BytesMut};
use prost::Message;

/// Why parts do not form a message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadParts {
    #[error("a message of more than {PEER_JOINED_BYTES_MAX} bytes")]
    TooLarge,
    #[error("parts do not form a message: {0}")]
    Unreadable(#[from] prost::DecodeError),
}

/// The parts of a message that is too large to be sent whole; none for a smaller one.
pub(crate) fn cut<M: Message>(
    message: &M,
) -> Result<Option<impl Iterator<Item = PeerPart> + use<M>>, BadParts> {
    let len = message.encoded_len();
    if len <= PEER_WHOLE_BYTES_MAX {
        return Ok(None);
    }
    if len > PEER_JOINED_BYTES_MAX {
        return Err(BadParts::TooLarge);
    }
    let mut rest = Bytes::from(message.encode_to_vec());
    Ok(Some(std::iter::from_fn(move || {
        let bytes = rest.split_to(rest.len().min(PEER_PART_BYTES));
        (!bytes.is_empty()).then(|| PeerPart { bytes, last: rest.is_empty() })
    })))
}

/// Parts received, until the last one.
#[derive(Debug, Default)]
pub(crate) struct JoinedParts(BytesMut);

impl JoinedParts {
    /// Adds a part; returns the message when it is whole.
    pub(crate) fn add<M: Message + Default>(&mut self, part: &PeerPart) -> Result<Option<M>, BadParts> {
        if self.0.len() + part.bytes.len() > PEER_JOINED_BYTES_MAX {
            return Err(BadParts::TooLarge);
        }
        self.0.extend_from_slice(&part.bytes);
        if !part.last {
            return Ok(None);
        }
        Ok(Some(M::decode(std::mem::take(&mut self.0).freeze())?))
    }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::v1::{
        InterestUpdate, MemberUpdate, PeerBatch, PeerFrame, PeerMessage, PresenceMember, peer_frame,
        peer_message,
    };

    use super::*;

    fn roster(members: usize) -> PeerFrame {
        let member = |number| MemberUpdate {
            member: Some(PresenceMember { user_id: format!("user-{number}"), info: "i".repeat(4000) }),
            gone: false,
        };
        let update =
            InterestUpdate { members: (0..members).map(member).collect(), ..InterestUpdate::default() };
        let messages = vec![PeerMessage { message: Some(peer_message::Message::Interest(update)) }];
        PeerFrame { frame: Some(peer_frame::Frame::Batch(PeerBatch { messages })) }
    }

    #[test]
    fn large_roster_travels_in_parts_that_every_gateway_takes() {
        assert!(cut(&roster(100)).unwrap().is_none());
        let large = roster(3000);
        let parts: Vec<_> = cut(&large).unwrap().unwrap().collect();
        assert_eq!(parts.len(), large.encoded_len().div_ceil(PEER_PART_BYTES));
        let mut joined = JoinedParts::default();
        let (last, before) = parts.split_last().unwrap();
        for part in before {
            assert!(part.bytes.len() <= PEER_PART_BYTES && !part.last);
            assert!(joined.add::<PeerFrame>(part).unwrap().is_none());
        }
        assert_eq!(joined.add::<PeerFrame>(last).unwrap(), Some(large));
        assert!(joined.0.is_empty(), "the next one begins at the beginning");
    }

    #[test]
    fn parts_without_an_end_are_bounded() {
        let part = PeerPart { bytes: vec![0; PEER_PART_BYTES].into(), last: false };
        let mut joined = JoinedParts::default();
        let mut count = 0;
        while joined.add::<PeerFrame>(&part).is_ok() {
            count += 1;
        }
        assert_eq!(count, PEER_JOINED_BYTES_MAX / PEER_PART_BYTES);
        let broken = PeerPart { bytes: vec![0xff; 3].into(), last: true };
        assert!(JoinedParts::default().add::<PeerFrame>(&broken).is_err());
    }
}
