use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{command::ClientFilter, shard::group_traffic::SentNow};

#[derive(Debug, Clone)]
enum Step {
    Enter(Slot, bool),
    Exit(Slot),
    Bind(Slot, u8),
    Unbind(Slot),
    Join(Slot, u8),
    Part(Slot, u8),
    Dissolve(bool, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0..12u32;
    let name = 0..4u8;
    prop_oneof![
        (slot.clone(), any::<bool>()).prop_map(|(slot, app)| Step::Enter(slot, app)),
        slot.clone().prop_map(Step::Exit),
        (slot.clone(), name.clone()).prop_map(|(slot, uid)| Step::Bind(slot, uid)),
        slot.clone().prop_map(Step::Unbind),
        (slot.clone(), name.clone()).prop_map(|(slot, group)| Step::Join(slot, group)),
        (slot, name.clone()).prop_map(|(slot, group)| Step::Part(slot, group)),
        (any::<bool>(), name).prop_map(|(app, group)| Step::Dissolve(app, group)),
    ]
}

/// In the second app? Its uid, and its groups.
type Entry = (bool, Option<String>, BTreeSet<String>);

#[derive(Default)]
struct Model(BTreeMap<Slot, Entry>);

fn app(second: bool) -> &'static str {
    if second { "b" } else { "a" }
}

fn apply(directory: &mut Directory, model: &mut Model, step: &Step) {
    match *step {
        Step::Enter(slot, second) => {
            if let std::collections::btree_map::Entry::Vacant(entry) = model.0.entry(slot) {
                entry.insert((second, None, BTreeSet::new()));
                directory.enter(slot, app(second));
            }
        }
        Step::Exit(slot) => {
            let left: BTreeSet<_> = directory.exit(slot).iter().map(ToString::to_string).collect();
            assert_eq!(left, model.0.remove(&slot).map(|entry| entry.2).unwrap_or_default());
        }
        Step::Bind(slot, uid) => {
            directory.bind(slot, &uid.to_string());
            if let Some(entry) = model.0.get_mut(&slot) {
                entry.1 = Some(uid.to_string());
            }
        }
        Step::Unbind(slot) => {
            let was = model.0.get_mut(&slot).and_then(|entry| entry.1.take()).is_some();
            assert_eq!(directory.unbind(slot), was);
        }
        Step::Join(slot, group) => {
            let known = directory.join(slot, &group.to_string(), 3);
            let Some(entry) = model.0.get_mut(&slot) else {
                assert!(!known);
                return;
            };
            let fits = entry.2.contains(&group.to_string()) || entry.2.len() < 3;
            assert_eq!(known, fits);
            if fits {
                entry.2.insert(group.to_string());
            }
        }
        Step::Part(slot, group) => {
            let was = model.0.get_mut(&slot).is_some_and(|entry| entry.2.remove(&group.to_string()));
            assert_eq!(directory.part(slot, &group.to_string()), was);
        }
        Step::Dissolve(second, group) => {
            let mut count = 0;
            for entry in model.0.values_mut().filter(|entry| entry.0 == second) {
                count += usize::from(entry.2.remove(&group.to_string()));
            }
            assert_eq!(directory.dissolve(app(second), &group.to_string()), count);
        }
    }
}

fn sorted(slots: &[Slot]) -> Vec<Slot> {
    let mut slots = slots.to_vec();
    slots.sort_unstable();
    slots
}

fn agree(directory: &Directory, model: &Model) {
    for second in [false, true] {
        let of = |wanted: &dyn Fn(&Entry) -> bool| -> Vec<Slot> {
            model.0.iter().filter(|(_, e)| e.0 == second && wanted(e)).map(|(&slot, _)| slot).collect()
        };
        assert_eq!(sorted(directory.all_of(app(second))), of(&|_| true));
        for name in 0..4u8 {
            let name = name.to_string();
            let group = of(&|entry| entry.2.contains(&name));
            assert_eq!(sorted(directory.group_members(app(second), &name)), group);
            let listed = directory.groups_after(app(second), &name, "").next();
            assert_eq!(listed.map_or(0, |(_, count)| count), group.len() as u64);
            let uid = of(&|entry| entry.1.as_ref() == Some(&name));
            assert_eq!(sorted(directory.uid_members(app(second), &name)), uid);
        }
        let model = |name: &dyn Fn(&Entry) -> BTreeSet<String>| -> BTreeSet<String> {
            model
                .0
                .values()
                .filter(|entry| entry.0 == second)
                .flat_map(name)
                .filter(|name| **name > *"0")
                .collect()
        };
        let groups: Vec<_> =
            directory.groups_after(app(second), "", "0").map(|(name, _)| name.to_owned()).collect();
        assert_eq!(groups, Vec::from_iter(model(&|entry| entry.2.clone())), "in order");
        let uids: Vec<_> = directory.uids_after(app(second), "0").map(|(name, _)| name.to_owned()).collect();
        assert_eq!(uids, Vec::from_iter(model(&|entry| entry.1.iter().cloned().collect())));
    }
    assert_eq!(directory.clients(), model.0.len());
}

proptest! {
    #[test]
    fn memberships_match_a_plain_model(steps in prop::collection::vec(step(), 0..120)) {
        let mut directory = Directory::default();
        let mut model = Model::default();
        for step in &steps {
            apply(&mut directory, &mut model, step);
            agree(&directory, &model);
        }
        for slot in 0..12 {
            apply(&mut directory, &mut model, &Step::Exit(slot));
        }
        prop_assert_eq!(directory.totals(), (0, 0));
        prop_assert!(directory.topics.is_empty());
    }

    #[test]
    fn an_audience_reaches_each_client_once(
        steps in prop::collection::vec(step(), 0..80),
        clients in prop::collection::btree_set(0..12u32, 0..4),
        groups in prop::collection::btree_set(0..4u8, 0..3),
        uids in prop::collection::btree_set(0..4u8, 0..3),
        all: bool,
        out_groups in prop::collection::btree_set(0..4u8, 0..2),
        out_clients in prop::collection::btree_set(0..12u32, 0..3),
    ) {
        let mut directory = Directory::default();
        let mut model = Model::default();
        for step in &steps {
            apply(&mut directory, &mut model, step);
        }
        let names = |set: &BTreeSet<u8>| set.iter().map(|n| n.to_string().into_boxed_str()).collect::<Vec<_>>();
        let audience = ClientFilter {
            app: "a".into(),
            groups: names(&groups),
            uids: names(&uids),
            all,
            except_groups: names(&out_groups),
            ..ClientFilter::default()
        };
        let here: Vec<Slot> = clients.iter().copied().filter(|&s| directory.is_in_app(s, "a")).collect();
        let out: Vec<Slot> = out_clients.iter().copied().collect();
        let mut got = Vec::new();
        directory.select(&audience, (&here, &out), SentNow::default(), &mut got);
        let has = |set: &BTreeSet<u8>, name: &str| set.iter().any(|n| n.to_string() == name);
        let expected: Vec<Slot> = model.0.iter().filter(|(slot, entry)| {
            let inside = all || clients.contains(slot)
                || entry.1.as_ref().is_some_and(|uid| has(&uids, uid))
                || entry.2.iter().any(|group| has(&groups, group));
            let outside = out_clients.contains(slot) || entry.2.iter().any(|group| has(&out_groups, group));
            !entry.0 && inside && !outside
        }).map(|(&slot, _)| slot).collect();
        prop_assert_eq!(sorted(&got), expected);
    }
}
