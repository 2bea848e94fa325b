//! Ids that are issued over polling, before it is known which gateway will hold the client.
//!
//! A client of Engine.IO 3 takes the id of its handshake for its socket's, and its backend names it in "all
//! but this one". Such an id is a socket id of an incarnation that no gateway has, so it means no client
//! anywhere, is valid wherever a socket id is, and can only be compared with those that clients hold.

use std::time::Duration;

use broadgate_proto::id::{ClientId, Incarnation};
use broadgate_pusher::socket_id;

const RESERVED: Incarnation = Incarnation::from_bits(0);

/// Ids that are issued within this time have the same moment; moments repeat after two years.
const MOMENT: Duration = Duration::from_secs(4);
const RANDOM_BITS: u32 = 40;
const MOMENTS: u64 = 1 << (u64::BITS - RANDOM_BITS);

/// The id that a handshake over polling issues, from random bits. It holds when that was, since nothing is kept
/// of the client until it comes over to a WebSocket. `now` is the time since the Unix epoch.
pub fn fresh(random: u64, now: Duration) -> String {
    issue((moment(now) << RANDOM_BITS) | (random >> (u64::BITS - RANDOM_BITS)))
}

/// The id with this key.
pub fn issue(key: u64) -> String {
    socket_id::text(of(key))
}

/// How long ago the id was issued, by the clock of the gateway that did; zero if its clock is ahead of ours.
pub fn age(client: &ClientId, now: Duration) -> Duration {
    let since = moment(now).wrapping_sub(client.key >> RANDOM_BITS) % MOMENTS;
    let since = if since < MOMENTS / 2 { since } else { 0 };
    MOMENT * u32::try_from(since).unwrap_or(u32::MAX)
}

fn moment(now: Duration) -> u64 {
    now.as_secs() / MOMENT.as_secs() % MOMENTS
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
    fn an_id_says_when_it_was_issued() {
        let at = |seconds: u64| Duration::from_secs(1_800_000_000 + seconds);
        let issued = parse(&fresh(u64::MAX, at(0))).unwrap();
        assert_eq!(issued.key & ((1 << RANDOM_BITS) - 1), (1 << RANDOM_BITS) - 1);
        assert_ne!(fresh(1 << 40, at(0)), fresh(2 << 40, at(0)), "the rest is random");
        for (now, age_s) in [(at(0), 0), (at(3), 0), (at(40), 40), (at(86_400), 86_400)] {
            assert_eq!(age(&issued, now).as_secs(), age_s);
        }
        assert_eq!(
            age(&issued, Duration::from_secs(1_799_999_900)),
            Duration::ZERO,
            "a clock that is behind"
        );
        // The moments repeat.
        let last = Duration::from_secs((MOMENTS - 1) * 4);
        assert_eq!(age(&parse(&fresh(5, last)).unwrap(), Duration::from_secs(MOMENTS * 4 + 8)).as_secs(), 12);
    }

    #[test]
    fn other_servers_ids_are_not_issued() {
        for sid in ["", "u_keU0KSjojHml-vAAAB", "123.456", "0.99999999999999999999999", "00.1", "0.01"] {
            assert_eq!(parse(sid), None, "{sid}");
        }
        assert_eq!(issue(7), "0.7");
    }
}
