//! Consistent hashing that is the same in every process: explicit bytes, XXH3-64 with seed 0, and
//! 160 points per node (`hashring` alone has neither several points nor a stable hash of a type).
//!
//! Points with equal hashes are ordered by insertion: nodes are added by rising incarnation, so every process
//! breaks the tie the same way.

use std::hash::{Hash, Hasher};

use crate::{
    id::Incarnation,
    v1::{Member, View},
};
use hashring::HashRing;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

/// The placement rule that this program knows. A view uses the lowest one among its gateways, so a newer rule
/// takes effect when the last older gateway has left.
pub const RING_VERSION: u32 = 1;

const POINTS_PER_NODE: u32 = 160;

/// Assigns keys to nodes; few of them move when a node is added or removed.
#[derive(Clone)]
pub struct Ring(HashRing<Point, Xxh3DefaultBuilder>);

#[derive(Clone, Copy)]
struct Point {
    version: u32,
    node: Incarnation,
    number: u32,
}

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.node.bits().to_le_bytes());
        bytes[8..].copy_from_slice(&self.number.to_le_bytes());
        state.write(&bytes);
        // Version 1 is the bytes alone.
        if self.version > 1 {
            state.write(&self.version.to_le_bytes());
        }
    }
}

struct RingKey<'a>(&'a [u8]);

impl Hash for RingKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0);
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("points", &self.0.len()).finish()
    }
}

impl Ring {
    /// The ring of these nodes by version 1, in whatever order they are given.
    pub fn new(nodes: impl IntoIterator<Item = Incarnation>) -> Self {
        Self::of_version(RING_VERSION, nodes)
    }

    /// The ring of a view: its ready gateways, by the lowest version among its gateways.
    #[must_use]
    pub fn of_view(view: &View) -> Self {
        Self::of_view_but(view, None)
    }

    /// The ring of a view without one of its gateways: where its keys go then.
    #[must_use]
    pub fn of_view_without(view: &View, gone: Incarnation) -> Self {
        Self::of_view_but(view, Some(gone))
    }

    fn of_view_but(view: &View, gone: Option<Incarnation>) -> Self {
        let gone = gone.map(|gone| gone.to_string());
        let stays = |gateway: &&Member| Some(&gateway.incarnation) != gone.as_ref();
        let versions = crate::view::gateways(view).filter(stays).map(|gateway| gateway.ring_version);
        let version = versions.min().unwrap_or(RING_VERSION).max(1);
        let ready = crate::view::ready_gateways(view).filter(stays);
        Self::of_version(version, ready.filter_map(|gateway| gateway.incarnation.parse().ok()))
    }

    /// The ring of these nodes by a version of the rule.
    pub fn of_version(version: u32, nodes: impl IntoIterator<Item = Incarnation>) -> Self {
        let mut nodes: Vec<_> = nodes.into_iter().collect();
        nodes.sort_unstable();
        nodes.dedup();
        let mut ring = HashRing::with_hasher(Xxh3DefaultBuilder::new());
        let points = nodes
            .into_iter()
            .flat_map(|node| (0..POINTS_PER_NODE).map(move |number| Point { version, node, number }))
            .collect();
        ring.batch_add(points);
        Self(ring)
    }

    /// The node of a key; none if there is no node.
    #[must_use]
    pub fn pick(&self, key: &[u8]) -> Option<Incarnation> {
        self.0.get(&RingKey(key)).map(|point| point.node)
    }
}

#[cfg(test)]
mod tests {
    use crate::v1::{MemberState, Role};

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

    /// Version 2 does not exist yet; that a version changes places is what lets one be made.
    #[test]
    fn a_view_uses_the_lowest_version_in_it() {
        let member = |bits: u64, state: MemberState, ring_version| Member {
            incarnation: node(bits).to_string(),
            role: Role::Gateway.into(),
            state: state.into(),
            ring_version,
            ..Member::default()
        };
        let places = |ring: &Ring| (0..64u32).map(|key| ring.pick(&key.to_le_bytes())).collect::<Vec<_>>();
        let mut view = View::default();
        view.members.push(member(1, MemberState::Ready, 2));
        view.members.push(member(2, MemberState::Ready, 2));
        view.members.push(member(3, MemberState::Draining, 1));
        assert_eq!(places(&Ring::of_view(&view)), places(&Ring::new([1, 2].map(node))));
        assert_eq!(
            places(&Ring::of_view_without(&view, node(3))),
            places(&Ring::of_version(2, [1, 2].map(node))),
            "the oldest has gone"
        );
        view.members.pop();
        assert_ne!(places(&Ring::of_view(&view)), places(&Ring::new([1, 2].map(node))));
        assert_eq!(places(&Ring::of_view(&view)), places(&Ring::of_version(2, [2, 1].map(node))));
    }

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
