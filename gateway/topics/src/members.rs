//! A view as the homes read it: the gateways, and which of them own topics.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use broadgate_proto::{
    id::Incarnation,
    v1::{Epoch, View},
};
use broadgate_proto::{ring::Ring, view};

use super::topic::Topic;

/// How many rings are remembered: what was sent in an older view is stale.
const RINGS_MAX: usize = 16;

/// The gateways of one view.
#[derive(Debug, Clone, Default)]
pub struct Members {
    /// As received, to be forwarded.
    pub view: Arc<View>,
    /// Its number.
    pub epoch: Epoch,
    /// Every gateway in whatever state, with its place on the ring.
    pub gateways: BTreeMap<Incarnation, RingPlace>,
    /// Those that have announced that they have no clients any more. They left the ring when they began to drain, so
    /// announcing this moves no topic, and nobody has to sync for it.
    pub leaving: BTreeSet<Incarnation>,
}

/// What the ring depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingPlace {
    ready: bool,
    ring_version: u32,
}

impl Members {
    /// Reads a view.
    #[must_use]
    pub fn of(view: Arc<View>) -> Self {
        let gateways = view::gateways(&view)
            .filter_map(|gateway| {
                let ready = gateway.state() == broadgate_proto::v1::MemberState::Ready;
                let place = RingPlace { ready, ring_version: gateway.ring_version };
                Some((gateway.incarnation.parse().ok()?, place))
            })
            .collect();
        let leaving = view::gateways(&view).filter(|gateway| view::is_leaving(gateway));
        let leaving = leaving.filter_map(|gateway| gateway.incarnation.parse().ok()).collect();
        Self { epoch: view::epoch(&view), gateways, leaving, view }
    }

    /// Whether this gateway is in the view, and on the ring.
    #[must_use]
    pub fn has_ready(&self, gateway: Incarnation) -> bool {
        self.gateways.get(&gateway).is_some_and(|place| place.ready)
    }

    /// Whether no view was missed between that one and this.
    #[must_use]
    pub fn follows(&self, former: &Self) -> bool {
        self.view.before.unwrap_or_default() == former.epoch
    }
}

/// The current ring, and its predecessors back to the oldest that is remembered.
#[derive(Debug)]
pub struct Rings {
    known: VecDeque<(Epoch, Ring)>,
    /// The current one without this gateway.
    without_us: Ring,
}

impl Default for Rings {
    fn default() -> Self {
        Self { known: VecDeque::new(), without_us: Ring::new([]) }
    }
}

impl Rings {
    /// Changes the ring with this view. After a gap, earlier rings are unknown.
    pub fn change(&mut self, us: Incarnation, members: &Members, gap: bool) {
        if gap {
            self.known.clear();
        }
        self.known.push_back((members.epoch, Ring::of_view(&members.view)));
        self.without_us = Ring::of_view_without(&members.view, us);
        if self.known.len() > RINGS_MAX {
            self.known.pop_front();
        }
    }

    /// The gateway that will be a topic's home when this one is gone; none if no other is left.
    #[must_use]
    pub fn heir(&self, topic: &Topic) -> Option<Incarnation> {
        self.without_us.pick(topic.key())
    }

    /// A topic's home now; none if no gateway is ready.
    #[must_use]
    pub fn home(&self, topic: &Topic) -> Option<Incarnation> {
        self.known.back()?.1.pick(topic.key())
    }

    /// Whether that gateway has been the topic's home in every view since that one. Only then may what it
    /// sent in that view still be accepted: no other gateway can have ordered the topic meanwhile.
    #[must_use]
    pub fn home_since(&self, gateway: Incarnation, topic: &Topic, since: Epoch) -> bool {
        for (epoch, ring) in self.known.iter().rev() {
            if ring.pick(topic.key()) != Some(gateway) {
                return false;
            }
            if *epoch <= since {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::v1::{Member, MemberState, Role};

    use super::*;

    fn members(count: u64, ready: &[u64]) -> Members {
        let members = ready
            .iter()
            .map(|&bits| Member {
                incarnation: Incarnation::from_bits(bits).to_string(),
                role: Role::Gateway.into(),
                state: MemberState::Ready.into(),
                ring_version: 1,
                ..Member::default()
            })
            .collect();
        let before = Some(Epoch::new(1, count - 1));
        Members::of(Arc::new(View { epoch: Some(Epoch::new(1, count)), before, members }))
    }

    #[test]
    fn what_an_earlier_home_says_is_stale_even_when_it_is_home_again() {
        let mut rings = Rings::default();
        rings.change(Incarnation::from_bits(1), &members(1, &[1]), true);
        rings.change(Incarnation::from_bits(1), &members(3, &[1, 2]), false);
        let here = |name: u32| Topic::group("a", &name.to_string());
        let moved =
            (0..).map(here).find(|topic| rings.home(topic) == Some(Incarnation::from_bits(2))).unwrap();
        let kept =
            (0..).map(here).find(|topic| rings.home(topic) == Some(Incarnation::from_bits(1))).unwrap();
        let one = Incarnation::from_bits(1);
        assert_eq!(rings.heir(&kept), Some(Incarnation::from_bits(2)));
        assert!(rings.home_since(one, &kept, Epoch::new(1, 2)));
        assert!(!rings.home_since(one, &moved, Epoch::new(1, 2)));
        rings.change(Incarnation::from_bits(1), &members(4, &[1]), false);
        assert!(!rings.home_since(one, &moved, Epoch::new(1, 2)), "two was the home in between");
        assert!(rings.home_since(one, &moved, Epoch::new(1, 4)));
        assert!(rings.home_since(one, &moved, Epoch::new(1, 9)), "a view that did not change the ring");
        rings.change(Incarnation::from_bits(1), &members(6, &[1]), true);
        assert!(!rings.home_since(one, &kept, Epoch::new(1, 4)), "nobody knows what was in between");
        assert!(members(4, &[]).follows(&members(3, &[])) && !members(5, &[]).follows(&members(3, &[])));
    }
}
