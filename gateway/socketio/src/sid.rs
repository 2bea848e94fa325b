//! Ids that are issued over polling, before it is known which gateway will hold the client.
//!
//! A client of Engine.IO 3 takes the id of its handshake for its socket's, and its backend names it in "all
//! but this one". Such an id is a socket id of an incarnation that no gateway has, so it means no client
//! anywhere, is valid wherever a socket id is, and can only be compared with those that clients hold.

use broadgate_proto::id::{ClientId, Incarnation};
use broadgate_pusher::socket_id;

const RESERVED: Incarnation = Incarnation::from_bits(0);

/// The id that a handshake over polling issues, from random bits.
pub fn issue(random: u64) -> String {
    socket_id::text(of(random))
}

/// The client that such an id stands for; none for every other text.
pub fn parse(sid: &str) -> Option<ClientId> {
    socket_id::parse(sid).ok().flatten().filter(is_issued)
}

/// Does the id stand for a client that holds it, wherever that is?
pub fn is_issued(client: &ClientId) -> bool {
    *client == of(client.key)
}

fn of(key: u64) -> ClientId {
    ClientId { incarnation: RESERVED, shard: 0, slot: 0, key }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_issued_id_is_a_socket_id_and_no_other_is_issued(random: u64, incarnation in 1_u64..1 << 48) {
            let sid = issue(random);
            prop_assert_eq!(parse(&sid), Some(of(random)));
            prop_assert!(socket_id::parse(&sid).unwrap().is_some(), "Laravel's pattern fits it");
            let client = ClientId { incarnation: Incarnation::from_bits(incarnation), shard: 0, slot: 0, key: random };
            prop_assert_eq!(parse(&socket_id::text(client)), None);
        }
    }

    #[test]
    fn other_servers_ids_are_not_issued() {
        for sid in ["", "u_keU0KSjojHml-vAAAB", "123.456", "0.99999999999999999999999", "00.1", "0.01"] {
            assert_eq!(parse(sid), None, "{sid}");
        }
        assert_eq!(issue(7), "0.7");
    }
}
