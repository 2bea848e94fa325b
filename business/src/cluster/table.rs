//! Which gateway a command goes to.
//!
//! To the one that holds its client, to the home of its topic, or else to one preferred gateway. Any
//! gateway answers any command, so when the best one is down another is taken.

use std::{collections::HashMap, sync::Arc};

use broadgate_proto::{
    id::Incarnation,
    v1::{Member, MemberState, View},
};
use broadgate_proto::{ring::Ring, view};
use broadgate_tls::Credentials;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{link::CallerLink, marks::EpochMark, topic::RingTopic};

/// By which gateway a command goes best.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GatewayChoice {
    Any,
    /// By this one: it holds all that the command is about.
    Gateway(Incarnation),
    /// By the home of this topic, in the order of the caller's commands to it.
    Ordered(RingTopic),
}

impl From<Option<Incarnation>> for GatewayChoice {
    fn from(holder: Option<Incarnation>) -> Self {
        holder.map_or(Self::Any, Self::Gateway)
    }
}

/// The links to the gateways of one view.
pub(crate) struct LinkTable {
    ring: Ring,
    links: HashMap<Incarnation, Arc<CallerLink>>,
    /// In this caller's order of preference.
    order: Vec<Arc<CallerLink>>,
}

impl Default for LinkTable {
    fn default() -> Self {
        Self { ring: Ring::new([]), links: HashMap::new(), order: Vec::new() }
    }
}

/// The gateways that can be dialled: the ready ones first, each caller in an order of its own that
/// stays as it is when others come or go. So one caller's commands share a stream and keep their
/// order, while many callers spread over all gateways.
fn preference(view: &View, caller: u64) -> Vec<&Member> {
    let mut gateways: Vec<_> = view::gateways(view).filter(|gateway| !gateway.address.is_empty()).collect();
    gateways.sort_by_key(|gateway| {
        let hash = xxh3_64_with_seed(gateway.incarnation.as_bytes(), caller);
        (gateway.state() != MemberState::Ready, hash)
    });
    gateways
}

impl LinkTable {
    /// One gateway without a view.
    pub(crate) fn fixed(link: CallerLink) -> Self {
        Self { order: vec![Arc::new(link)], ..Self::default() }
    }

    /// The table of a new view; links of gateways that are still in it live on, others are retired.
    pub(crate) fn follow(
        &self,
        view: &View,
        caller: u64,
        credentials: &Credentials,
        seen: &Arc<EpochMark>,
    ) -> Self {
        let mut next = Self { ring: Ring::of_view(view), ..Self::default() };
        for gateway in preference(view, caller) {
            let Ok(incarnation) = gateway.incarnation.parse::<Incarnation>() else { continue };
            let link = match self.links.get(&incarnation) {
                Some(link) => link.clone(),
                None => match CallerLink::new(&gateway.name, &gateway.address, credentials, seen) {
                    Ok(link) => Arc::new(link),
                    Err(why) => {
                        tracing::warn!(gateway = gateway.name, why, "a gateway cannot be dialled");
                        continue;
                    }
                },
            };
            next.order.push(link.clone());
            next.links.insert(incarnation, link);
        }
        next
    }

    /// Retires the links that the next table does not have.
    pub(crate) fn retire(&self, next: &Self) {
        for (incarnation, link) in &self.links {
            if !next.links.contains_key(incarnation) {
                link.retire();
            }
        }
    }

    /// Has it a gateway of the next table?
    pub(crate) fn lives_on_in(&self, next: &Self) -> bool {
        next.links.keys().any(|incarnation| self.links.contains_key(incarnation))
    }

    /// The way to the home that all of these topics have; any if they have several, or there are none.
    pub(crate) fn home(&self, mut topics: impl Iterator<Item = RingTopic>) -> GatewayChoice {
        let mut pick = || topics.next().map(|topic| self.ring.pick(topic.key()));
        let Some(Some(first)) = pick() else { return GatewayChoice::Any };
        while let Some(home) = pick() {
            if home != Some(first) {
                return GatewayChoice::Any;
            }
        }
        GatewayChoice::Gateway(first)
    }

    /// The best gateway for the way, if its link works; else the preferred one whose link is not down;
    /// else, since something must be tried, the preferred one. One that has just refused is tried again
    /// only if there is no other.
    pub(crate) fn choose(
        &self,
        way: &GatewayChoice,
        refused: Option<&Arc<CallerLink>>,
    ) -> Option<Arc<CallerLink>> {
        let best = match way {
            GatewayChoice::Any => None,
            GatewayChoice::Gateway(incarnation) => Some(*incarnation),
            GatewayChoice::Ordered(topic) => self.ring.pick(topic.key()),
        };
        let best = best.and_then(|incarnation| self.links.get(&incarnation));
        let works = |link: &&Arc<CallerLink>| !link.is_down();
        let other = |link: &&Arc<CallerLink>| refused.is_none_or(|refused| !Arc::ptr_eq(refused, link));
        let mut all = best.into_iter().chain(&self.order).filter(works);
        all.clone().find(other).or_else(|| all.next()).or_else(|| self.order.first()).cloned()
    }

    /// All of them, the preferred one first.
    pub(crate) fn in_order(&self) -> Vec<Arc<CallerLink>> {
        self.order.clone()
    }

    pub(crate) fn link(&self, incarnation: Incarnation) -> Option<&Arc<CallerLink>> {
        self.links.get(&incarnation)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::v1::Role;

    use super::*;

    fn gateway(bits: u64, state: MemberState) -> Member {
        Member {
            incarnation: Incarnation::from_bits(bits).to_string(),
            role: Role::Gateway.into(),
            name: format!("g{bits}"),
            address: format!("127.0.0.1:{bits}"),
            state: state.into(),
            ..Member::default()
        }
    }

    fn view(members: Vec<Member>) -> View {
        View { members, ..View::default() }
    }

    #[test]
    fn the_preferred_gateway_stays_when_others_come_and_go() {
        let ready = |bits| gateway(bits, MemberState::Ready);
        for caller in 0..50 {
            let three = view(vec![ready(1), ready(2), ready(3)]);
            let order: Vec<_> = preference(&three, caller).iter().map(|g| g.name.clone()).collect();
            let without: Vec<_> = three.members.iter().filter(|g| g.name != order[2]).cloned().collect();
            assert_eq!(preference(&view(without), caller)[0].name, order[0]);
            let next: Vec<_> = three.members.iter().filter(|g| g.name != order[0]).cloned().collect();
            assert_eq!(preference(&view(next), caller)[0].name, order[1]);
        }
        let two = view(vec![ready(1), ready(2)]);
        let firsts = (0..100).filter(|caller| preference(&two, *caller)[0].name == "g1").count();
        assert!((20..80).contains(&firsts), "callers spread: {firsts}");
    }

    #[tokio::test]
    async fn commands_about_a_client_go_to_its_gateway_and_others_to_a_ready_one() {
        let credentials = Credentials::default();
        let members = vec![gateway(1, MemberState::Draining), gateway(2, MemberState::Ready)];
        let seen = Arc::default();
        let table = LinkTable::default().follow(&view(members), 7, &credentials, &seen);
        let chosen = |table: &LinkTable, bits: Option<u64>| {
            let way = bits.map(Incarnation::from_bits).into();
            table.choose(&way, None).map(|link| link.name.clone()).unwrap_or_default()
        };
        assert_eq!(chosen(&table, Some(1)), "g1");
        assert_eq!(chosen(&table, None), "g2");
        assert_eq!(chosen(&table, Some(9)), "g2");
        let next = table.follow(&view(vec![gateway(1, MemberState::Ready)]), 7, &credentials, &seen);
        table.retire(&next);
        assert_eq!(chosen(&next, Some(2)), "g1");
        let same = Incarnation::from_bits(1);
        assert!(Arc::ptr_eq(table.link(same).unwrap(), next.link(same).unwrap()));
        assert!(
            LinkTable::default().choose(&GatewayChoice::Any, None).is_none()
                && LinkTable::default().is_empty()
        );
        assert!(table.lives_on_in(&next) && !LinkTable::default().lives_on_in(&next));
    }

    #[tokio::test]
    async fn topics_go_to_their_homes_and_elsewhere_after_a_refusal() {
        let members = view((1..=3).map(|bits| gateway(bits, MemberState::Ready)).collect());
        let table = LinkTable::default().follow(&members, 7, &Credentials::default(), &Arc::default());
        let ring = Ring::of_view(&members);
        let groups: Vec<_> = (0..100).map(|group| RingTopic::group("", &group.to_string())).collect();
        for topic in &groups {
            let home = ring.pick(topic.key()).unwrap();
            let way = GatewayChoice::Ordered(topic.clone());
            let link = table.choose(&way, None).unwrap();
            assert!(Arc::ptr_eq(&link, table.link(home).unwrap()));
            assert!(!Arc::ptr_eq(&link, &table.choose(&way, Some(&link)).unwrap()));
            assert_eq!(table.home(std::iter::repeat_n(topic.clone(), 2)), GatewayChoice::Gateway(home));
        }
        assert_eq!(table.home(groups.into_iter()), GatewayChoice::Any);
        assert_eq!(table.home(std::iter::empty()), GatewayChoice::Any);
        assert_eq!(LinkTable::default().home(std::iter::once(RingTopic::all(""))), GatewayChoice::Any);
    }
}
