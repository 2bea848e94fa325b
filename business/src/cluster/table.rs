//! Which gateway a command goes to.

use std::{collections::HashMap, sync::Arc};

use broadgate_proto::{
    id::Incarnation,
    secret::Secret,
    v1::{Member, MemberState, View},
};
use broadgate_register::member::view;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::link::Link;

/// The links to the gateways of one view.
#[derive(Default)]
pub(crate) struct Table {
    links: HashMap<Incarnation, Arc<Link>>,
    /// In this caller's order of preference.
    order: Vec<Arc<Link>>,
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

impl Table {
    /// One gateway without a view.
    pub(crate) fn fixed(link: Link) -> Self {
        Self { links: HashMap::new(), order: vec![Arc::new(link)] }
    }

    /// The table of a new view; links of gateways that are still in it live on, others are retired.
    pub(crate) fn follow(&self, view: &View, caller: u64, secret: &Secret) -> Self {
        let mut next = Self::default();
        for gateway in preference(view, caller) {
            let Ok(incarnation) = gateway.incarnation.parse::<Incarnation>() else { continue };
            let link = match self.links.get(&incarnation) {
                Some(link) => link.clone(),
                None => match Link::new(&gateway.name, &gateway.address, secret) {
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

    /// The holder of the client that the command is about, if its link works; else the preferred
    /// gateway whose link is not down; else, since something must be tried, the preferred one.
    pub(crate) fn choose(&self, holder: Option<Incarnation>) -> Option<Arc<Link>> {
        let holder = holder.and_then(|incarnation| self.links.get(&incarnation));
        holder
            .filter(|link| !link.is_down())
            .or_else(|| self.order.iter().find(|link| !link.is_down()))
            .or_else(|| self.order.first())
            .cloned()
    }

    /// All of them, the preferred one first.
    pub(crate) fn in_order(&self) -> Vec<Arc<Link>> {
        self.order.clone()
    }

    pub(crate) fn link(&self, incarnation: Incarnation) -> Option<&Arc<Link>> {
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
        let secret = Secret::default();
        let members = vec![gateway(1, MemberState::Draining), gateway(2, MemberState::Ready)];
        let table = Table::default().follow(&view(members), 7, &secret);
        let chosen = |table: &Table, bits: Option<u64>| {
            table.choose(bits.map(Incarnation::from_bits)).map(|link| link.name.clone()).unwrap_or_default()
        };
        assert_eq!(chosen(&table, Some(1)), "g1");
        assert_eq!(chosen(&table, None), "g2");
        assert_eq!(chosen(&table, Some(9)), "g2");
        let next = table.follow(&view(vec![gateway(1, MemberState::Ready)]), 7, &secret);
        table.retire(&next);
        assert_eq!(chosen(&next, Some(2)), "g1");
        let same = Incarnation::from_bits(1);
        assert!(Arc::ptr_eq(table.link(same).unwrap(), next.link(same).unwrap()));
        assert!(Table::default().choose(None).is_none() && Table::default().is_empty());
    }
}
