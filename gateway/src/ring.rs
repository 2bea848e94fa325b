//! Consistent hashing that is the same in every process: explicit bytes, XXH3-64 with seed 0, and
//! 160 points per node (`hashring` alone has neither several points nor a stable hash of a type).

use std::hash::{Hash, Hasher};

use broadgate_proto::id::Incarnation;
use hashring::HashRing;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

const POINTS_PER_NODE: u32 = 160;

/// Places keys on nodes; few of them move when a node comes or goes.
#[derive(Clone)]
pub(crate) struct Ring(HashRing<Point, Xxh3DefaultBuilder>);

#[derive(Clone, Copy)]
struct Point {
    node: Incarnation,
    number: u32,
}

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.node.bits().to_le_bytes());
        bytes[8..].copy_from_slice(&self.number.to_le_bytes());
        state.write(&bytes);
    }
}

struct Key<'a>(&'a [u8]);

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0);
    }
}

impl Ring {
    /// The ring of these nodes, in whatever order they are given.
    pub(crate) fn new(nodes: impl IntoIterator<Item = Incarnation>) -> Self {
        let mut nodes: Vec<_> = nodes.into_iter().collect();
        nodes.sort_unstable();
        nodes.dedup();
        let mut ring = HashRing::with_hasher(Xxh3DefaultBuilder::new());
        let points = nodes
            .into_iter()
            .flat_map(|node| (0..POINTS_PER_NODE).map(move |number| Point { node, number }))
            .collect();
        ring.batch_add(points);
        Self(ring)
    }

    /// The node of a key; none if there is no node.
    pub(crate) fn pick(&self, key: &[u8]) -> Option<Incarnation> {
        self.0.get(&Key(key)).map(|point| point.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(bits: u64) -> Incarnation {
        Incarnation::from_bits(bits)
    }

    #[test]
    fn golden_places() {
        let ring = Ring::new([1, 2, 3].map(node));
        let places: Vec<u64> = ["", "a", "b", "room-1", "room-2", "uid:7", "☕"]
            .iter()
            .map(|key| ring.pick(key.as_bytes()).unwrap().bits())
            .collect();
        assert_eq!(places, GOLDEN, "a changed place moves clients in a running cluster");
    }

    const GOLDEN: [u64; 7] = [1, 2, 3, 2, 2, 1, 3];

    #[test]
    fn only_the_leavers_keys_move_and_all_share() {
        let before = Ring::new((1..=5).map(node));
        let after = Ring::new((1..=4).rev().map(node));
        let mut counts = [0; 6];
        for key in 0..10_000u32 {
            let key = key.to_le_bytes();
            let was = before.pick(&key).unwrap();
            counts[was.bits() as usize] += 1;
            if was != node(5) {
                assert_eq!(after.pick(&key), Some(was));
            }
        }
        assert!(counts[1..].iter().all(|&count| (1000..3500).contains(&count)), "{counts:?}");
        assert_eq!(Ring::new([]).pick(b"x"), None);
    }
}
