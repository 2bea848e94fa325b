//! What homes must acknowledge until they know of a change.

use std::collections::BTreeMap;

use broadgate_proto::id::Incarnation;

use crate::{interest::Interest, peer::PeerTable, topic::Topic};

/// The serials that homes must acknowledge until they know all changes in these topics.
pub(super) fn needs(interest: &Interest, peers: &PeerTable, topics: &[Topic]) -> BTreeMap<Incarnation, u64> {
    let mut needs = BTreeMap::new();
    for entry in topics.iter().filter_map(|topic| interest.get(topic)) {
        if let Some(home) = entry.home
            && peers.get(home).is_some_and(|peer| peer.taken < entry.serial)
        {
            let need = needs.entry(home).or_insert(0);
            *need = entry.serial.max(*need);
        }
    }
    needs
}
