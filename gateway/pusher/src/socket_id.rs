//! A client's id in the form of the Pusher protocol: two decimal numbers and a dot.
//!
//! `A.B`: A is the incarnation of the client's gateway, B its shard, slot and key, concatenated. So every
//! gateway can derive from a socket id where the client is connected.

use broadgate_proto::id::{ClientId, Incarnation};

const KEY_BITS: u32 = 64;
const SLOT_BITS: u32 = 24;

/// A text that no server issues as a socket id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid socket id {0:?}: it is two decimal numbers and a dot")]
pub struct MalformedSocketId(String);

/// The socket id of a client.
pub fn text(client: ClientId) -> String {
    let place = u128::from(client.shard) << (KEY_BITS + SLOT_BITS)
        | u128::from(client.slot) << KEY_BITS
        | u128::from(client.key);
    format!("{}.{place}", client.incarnation.bits())
}

/// The client of a socket id; none if it has the right form, `\A\d+\.\d+\z`, but cannot belong to a client of
/// this cluster, such as an id from another server.
pub fn parse(text: &str) -> Result<Option<ClientId>, MalformedSocketId> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('.') {
        Some((head, tail)) if digits(head) && digits(tail) => Ok(client(head, tail)),
        _ => Err(MalformedSocketId(text.chars().take(80).collect())),
    }
}

fn client(head: &str, tail: &str) -> Option<ClientId> {
    // One client has one text: leading zeros cannot evade a comparison of texts.
    let canonical = |digits: &str| digits == "0" || !digits.starts_with('0');
    if !canonical(head) || !canonical(tail) {
        return None;
    }
    let bits: u64 = head.parse().ok()?;
    let incarnation = Incarnation::from_bits(bits);
    let place: u128 = tail.parse().ok()?;
    let shard = u8::try_from(place >> (KEY_BITS + SLOT_BITS)).ok()?;
    let slot = u32::try_from((place >> KEY_BITS) % u128::from(ClientId::SLOTS_MAX)).ok()?;
    let key = u64::try_from(place % (1 << KEY_BITS)).ok()?;
    (incarnation.bits() == bits).then_some(ClientId { incarnation, shard, slot, key })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_socket_id_is_one_client_and_back(inc: u64, shard: u8, slot in 0..ClientId::SLOTS_MAX, key: u64) {
            let client = ClientId { incarnation: Incarnation::from_bits(inc), shard, slot, key };
            prop_assert_eq!(parse(&text(client)), Ok(Some(client)));
        }

        #[test]
        fn what_means_a_client_is_its_only_text(head in "[0-9]{1,16}", tail in "[0-9]{1,31}") {
            let id = format!("{head}.{tail}");
            if let Some(client) = parse(&id).unwrap() {
                prop_assert_eq!(text(client), id);
            }
        }

        #[test]
        fn no_text_panics(id in ".{0,60}") {
            let _ = parse(&id);
        }
    }

    #[test]
    fn the_ends_of_the_range() {
        let incarnation = Incarnation::from_bits(u64::MAX);
        let last = ClientId { incarnation, shard: u8::MAX, slot: ClientId::SLOTS_MAX - 1, key: u64::MAX };
        assert_eq!(text(last), "281474976710655.79228162514264337593543950335");
        assert_eq!(parse(&text(last)), Ok(Some(last)));
        assert_eq!(parse("281474976710656.1"), Ok(None));
        assert_eq!(parse("1.79228162514264337593543950336"), Ok(None));
        let first = ClientId { incarnation: Incarnation::from_bits(0), shard: 0, slot: 0, key: 0 };
        assert_eq!((text(first), parse("0.0")), ("0.0".to_owned(), Ok(Some(first))));
    }

    #[test]
    fn another_servers_id_is_no_error_and_junk_is_one() {
        assert_eq!(parse("007.1"), Ok(None));
        assert_eq!(parse(&format!("1.{}", "9".repeat(500))), Ok(None));
        for junk in
            ["", ".", "1", "1.", ".1", " 1.2", "1.2\n", "1.2.3", "+1.2", "-1.2", "1,2", "a.b", "１.２"]
        {
            assert!(parse(junk).is_err(), "{junk}");
        }
        let error = parse("1.2:private-x").unwrap_err().to_string();
        assert_eq!(error, "Invalid socket id \"1.2:private-x\": it is two decimal numbers and a dot");
    }
}
