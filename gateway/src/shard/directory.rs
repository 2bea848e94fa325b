//! Who is in what: the topics of one shard and their members. Pure.
//!
//! `all`, every uid and every group are topics of an app. A membership knows its place in the
//! topic's list and the list's owner knows the client, so joining and leaving cost the same in a
//! group of ten and of ten thousand.

mod audience;
mod changes;
mod entries;
mod marks;
mod names;
mod seats;
mod traffic;

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap},
    rc::Rc,
};

use broadgate_pusher::channel::is_own;

use crate::shard::{
    directory::{
        entries::{AppEntry, AppId, ClientEntry, EntryKind, MemberSlot, TopicChange, TopicEntry, len_u32},
        marks::Marks,
    },
    group_traffic::GroupMeter,
    slots::Slot,
};

/// A shard's memberships. Sets are keyed by names that clients and callers choose, so they keep
/// std's collision-proof hasher.
#[derive(Default)]
pub(crate) struct Directory {
    apps: Vec<AppEntry>,
    app_ids: HashMap<Rc<str>, AppId>,
    /// That of the app which was named last.
    last_app: Cell<AppId>,
    topics: slab::Slab<TopicEntry>,
    places: Vec<Option<ClientEntry>>,
    /// How many clients there are in all apps.
    clients: usize,
    marks: Marks,
    /// Topics whose members have changed since the homes were last told.
    changes: Vec<TopicChange>,
}

impl Directory {
    /// Puts a client into its app. It must not be in one.
    pub(crate) fn enter(&mut self, slot: Slot, app: &str) {
        let app = self.app_id_or_new(app);
        let index = slot as usize;
        if self.places.len() <= index {
            self.places.resize_with(index + 1, || None);
        }
        let all = &mut self.apps[app as usize].all;
        let in_all = len_u32(all);
        all.push(slot);
        self.clients += 1;
        self.places[index] = Some(ClientEntry { app, in_all, uid: None, groups: Vec::new(), own: 0 });
    }

    /// Takes a client out of everything; returns the groups it was in.
    pub(crate) fn exit(&mut self, slot: Slot) -> Vec<Rc<str>> {
        let Some(places) = self.places.get_mut(slot as usize).and_then(Option::take) else {
            return Vec::new();
        };
        self.clients -= 1;
        let all = &mut self.apps[places.app as usize].all;
        all.swap_remove(places.in_all as usize);
        if let Some(&moved) = all.get(places.in_all as usize)
            && let Some(other) = &mut self.places[moved as usize]
        {
            other.in_all = places.in_all;
        }
        if let Some(place) = places.uid {
            self.unlink(places.app, place, EntryKind::Uid);
        }
        places
            .groups
            .into_iter()
            .map(|place| {
                let name = Rc::clone(&self.topics[place.topic as usize].name);
                self.unlink(places.app, place, EntryKind::Group);
                name
            })
            .collect()
    }

    /// Gives a client its uid, in place of the one it has.
    pub(crate) fn bind(&mut self, slot: Slot, uid: &str) {
        if self.uid(slot).is_some_and(|bound| &**bound == uid) {
            return;
        }
        self.unbind(slot);
        let Some(app) = self.app_of(slot) else { return };
        let place = self.link(app, slot, EntryKind::Uid, uid);
        if let Some(places) = &mut self.places[slot as usize] {
            places.uid = Some(place);
        }
    }

    /// Takes a client's uid away.
    pub(crate) fn unbind(&mut self, slot: Slot) -> bool {
        let Some(places) = self.places.get_mut(slot as usize).and_then(Option::as_mut) else { return false };
        let app = places.app;
        let Some(place) = places.uid.take() else { return false };
        self.unlink(app, place, EntryKind::Uid);
        true
    }

    /// Puts a client into a group, unless it is in it or in `max` groups. Groups of the server's own
    /// always take it, so that no client evades what they are for by being in many.
    pub(crate) fn join(&mut self, slot: Slot, group: &str, max: usize) -> bool {
        let Some(app) = self.app_of(slot) else { return false };
        if self.is_member(slot, group) {
            return true;
        }
        let own = is_own(group);
        let count = self.places[slot as usize].as_ref().map_or(0, ClientEntry::limited);
        if count >= max && !own {
            return false;
        }
        let place = self.link(app, slot, EntryKind::Group, group);
        if let Some(places) = &mut self.places[slot as usize] {
            places.groups.push(place);
            places.own += u32::from(own);
        }
        true
    }

    /// Takes a client out of a group.
    pub(crate) fn part(&mut self, slot: Slot, group: &str) -> bool {
        let Some(app) = self.app_of(slot) else { return false };
        let Some(&topic) = self.apps[app as usize].groups.get(group) else { return false };
        let Some(places) = &mut self.places[slot as usize] else { return false };
        let Some(index) = places.groups.iter().position(|place| place.topic == topic) else { return false };
        let place = places.groups.swap_remove(index);
        places.own -= u32::from(is_own(group));
        if places.groups.is_empty() {
            places.groups = Vec::new();
        }
        self.unlink(app, place, EntryKind::Group);
        true
    }

    /// Takes every member out of a group; returns how many there were.
    pub(crate) fn dissolve(&mut self, app: &str, group: &str) -> usize {
        let Some(app) = self.app_id(app) else { return 0 };
        let Some(topic) = self.apps[app as usize].groups.remove(group) else { return 0 };
        let TopicEntry { name, members, presence, .. } = self.topics.remove(topic as usize);
        let own = u32::from(is_own(&name));
        self.apps[app as usize].group_names.remove(&name);
        self.note(app, EntryKind::Group, &name, None);
        for user in presence.iter().flat_map(|presence| presence.users()) {
            self.note(app, EntryKind::Group, &name, Some(user));
        }
        for &slot in &members {
            if let Some(places) = &mut self.places[slot as usize] {
                places.groups.retain(|place| place.topic != topic);
                places.own -= own;
            }
        }
        members.len()
    }

    pub(crate) fn is_in_app(&self, slot: Slot, app: &str) -> bool {
        self.app_of(slot).is_some_and(|id| &*self.apps[id as usize].name == app)
    }

    /// A client's uid.
    pub(crate) fn uid(&self, slot: Slot) -> Option<&Rc<str>> {
        let place = self.places.get(slot as usize)?.as_ref()?.uid?;
        Some(&self.topics[place.topic as usize].name)
    }

    /// The groups of a client.
    pub(crate) fn groups(&self, slot: Slot) -> impl Iterator<Item = &Rc<str>> {
        self.places
            .get(slot as usize)
            .and_then(Option::as_ref)
            .into_iter()
            .flat_map(|places| &places.groups)
            .map(|place| &self.topics[place.topic as usize].name)
    }

    pub(crate) fn all_of(&self, app: &str) -> &[Slot] {
        self.app_id(app).map_or(&[], |id| &self.apps[id as usize].all)
    }

    pub(crate) fn uid_members(&self, app: &str, uid: &str) -> &[Slot] {
        self.members(app, EntryKind::Uid, uid)
    }

    pub(crate) fn group_members(&self, app: &str, group: &str) -> &[Slot] {
        self.members(app, EntryKind::Group, group)
    }

    /// Clients of all apps: a count, since it is asked for all the time, and apps may be many.
    pub(crate) fn clients(&self) -> usize {
        self.clients
    }

    /// How many groups and uids there are in all apps.
    #[cfg(test)]
    pub(crate) fn totals(&self) -> (usize, usize) {
        self.apps
            .iter()
            .fold((0, 0), |(groups, uids), app| (groups + app.groups.len(), uids + app.uids.len()))
    }

    pub(crate) fn is_member(&self, slot: Slot, group: &str) -> bool {
        let Some(places) = self.places.get(slot as usize).and_then(Option::as_ref) else { return false };
        self.apps[places.app as usize]
            .groups
            .get(group)
            .is_some_and(|&topic| places.groups.iter().any(|place| place.topic == topic))
    }

    fn app_of(&self, slot: Slot) -> Option<AppId> {
        self.places.get(slot as usize)?.as_ref().map(|places| places.app)
    }

    /// The number of an app that has had clients here. What comes after each other mostly concerns one app, and to
    /// compare its name takes a tenth of what it takes to hash it.
    fn app_id(&self, name: &str) -> Option<AppId> {
        let last = self.last_app.get();
        if self.apps.get(last as usize).is_some_and(|app| *app.name == *name) {
            return Some(last);
        }
        let &id = self.app_ids.get(name)?;
        self.last_app.set(id);
        Some(id)
    }

    /// Apps are few and configured; their entries stay.
    fn app_id_or_new(&mut self, name: &str) -> AppId {
        if let Some(id) = self.app_id(name) {
            return id;
        }
        let id = len_u32(&self.apps);
        let name: Rc<str> = name.into();
        self.apps.push(AppEntry {
            name: Rc::clone(&name),
            all: Vec::new(),
            groups: HashMap::new(),
            uids: HashMap::new(),
            group_names: BTreeSet::new(),
            uid_names: BTreeSet::new(),
        });
        self.app_ids.insert(name, id);
        id
    }

    fn members(&self, app: &str, kind: EntryKind, name: &str) -> &[Slot] {
        self.app_id(app)
            .and_then(|id| kind.index(&self.apps[id as usize]).get(name))
            .map_or(&[], |&topic| &self.topics[topic as usize].members)
    }

    fn link(&mut self, app: AppId, slot: Slot, kind: EntryKind, name: &str) -> MemberSlot {
        let index = kind.index_mut(&mut self.apps[app as usize]);
        let topic = if let Some(&topic) = index.get(name) {
            topic
        } else {
            let name: Rc<str> = name.into();
            let topic = TopicEntry {
                name: Rc::clone(&name),
                kind,
                members: Vec::new(),
                presence: None,
                sent: GroupMeter::default(),
            };
            let topic = u32::try_from(self.topics.insert(topic)).unwrap_or(u32::MAX);
            index.insert(Rc::clone(&name), topic);
            kind.names_mut(&mut self.apps[app as usize]).insert(name);
            topic
        };
        let TopicEntry { name, members, sent, .. } = &mut self.topics[topic as usize];
        let (name, at) = (Rc::clone(name), len_u32(members));
        sent.settle(members.len());
        members.push(slot);
        self.note(app, kind, &name, None);
        MemberSlot { topic, at }
    }

    /// Removes a member; the last one of the list takes its place, and a topic without members goes.
    fn unlink(&mut self, app: AppId, place: MemberSlot, kind: EntryKind) {
        let topic = &mut self.topics[place.topic as usize];
        topic.sent.settle(topic.members.len());
        let slot = topic.members.swap_remove(place.at as usize);
        let name = Rc::clone(&topic.name);
        let left = topic.presence.as_mut().and_then(|presence| presence.leave(slot));
        if let Some(&moved) = topic.members.get(place.at as usize) {
            if let Some(other) = &mut self.places[moved as usize] {
                let mut others = other.uid.iter_mut().chain(&mut other.groups);
                if let Some(theirs) = others.find(|theirs| theirs.topic == place.topic) {
                    theirs.at = place.at;
                }
            }
        } else if topic.members.is_empty() {
            self.topics.remove(place.topic as usize);
            let app = &mut self.apps[app as usize];
            kind.index_mut(app).remove(&name);
            kind.names_mut(app).remove(&name);
        }
        self.note(app, kind, &name, left);
    }
}

#[cfg(test)]
mod tests;
