//! Who is in what: the topics of one shard and their members. Pure.
//!
//! `all`, every uid and every group are topics of an app. A membership knows its place in the
//! topic's list and the list's owner knows the client, so joining and leaving cost the same in a
//! group of ten and of ten thousand.

mod traffic;

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
    rc::Rc,
    sync::Arc,
};

use broadgate_pusher::channel::is_own;
use broadgate_topics::{MembershipCount, PresenceCount, Topic as TopicKey};

use crate::{
    command::{ClientFilter, PresenceSeat},
    recorder::LoudestGroup,
    shard::{
        group_traffic::GroupTraffic,
        presence::{Presence, UserPresence},
        recent_bytes::{RecentBytes, SentNow},
        slots::Slot,
    },
};

type TopicId = u32;
type AppId = u32;

/// A shard's memberships. Sets are keyed by names that clients and callers choose, so they keep
/// std's collision-proof hasher.
#[derive(Default)]
pub(crate) struct Directory {
    apps: Vec<AppEntry>,
    app_ids: HashMap<Rc<str>, AppId>,
    topics: slab::Slab<TopicEntry>,
    places: Vec<Option<ClientEntry>>,
    /// How many clients there are in all apps.
    clients: usize,
    marks: Marks,
    /// Topics whose members have changed since the homes were last told.
    changes: Vec<TopicChange>,
}

/// A topic, and a presence member of it, for whom something has changed.
struct TopicChange {
    app: AppId,
    kind: EntryKind,
    name: Rc<str>,
    user: Option<Arc<str>>,
}

struct AppEntry {
    name: Rc<str>,
    all: Vec<Slot>,
    groups: HashMap<Rc<str>, TopicId>,
    uids: HashMap<Rc<str>, TopicId>,
    /// The same in order, so that a page of a list costs what is on it.
    group_names: BTreeSet<Rc<str>>,
    uid_names: BTreeSet<Rc<str>>,
}

/// A group or a uid with at least one member.
struct TopicEntry {
    name: Rc<str>,
    kind: EntryKind,
    members: Vec<Slot>,
    presence: Option<Box<Presence>>,
    recent: RecentBytes,
    traffic: GroupTraffic,
}

/// Where one client stands.
struct ClientEntry {
    app: AppId,
    in_all: u32,
    uid: Option<MemberSlot>,
    groups: Vec<MemberSlot>,
    /// How many of the groups are the server's own, which no limit of a client's counts.
    own: u32,
}

impl ClientEntry {
    /// Groups that count among those a client may be in.
    fn limited(&self) -> usize {
        self.groups.len() - self.own as usize
    }
}

#[derive(Clone, Copy)]
struct MemberSlot {
    topic: TopicId,
    at: u32,
}

/// Marks clients that were already met while one audience is evaluated.
#[derive(Default)]
struct Marks {
    of: Vec<u32>,
    now: u32,
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

    /// A client in a group stands for a presence member of it, in place of whom it stood for. With a
    /// limit, the group's home decides whether the member is present.
    pub(crate) fn sit(&mut self, slot: Slot, group: &str, seat: &PresenceSeat, max: Option<u32>) {
        let Some(app) = self.app_of(slot).filter(|_| self.is_member(slot, group)) else { return };
        let Some(&topic) = self.apps[app as usize].groups.get(group) else { return };
        let topic = &mut self.topics[topic as usize];
        let name = Rc::clone(&topic.name);
        let changed = topic.presence.get_or_insert_default().sit(slot, seat, max);
        for user in changed {
            self.note(app, EntryKind::Group, &name, Some(user));
        }
    }

    /// Whom a client in a group stands for.
    pub(crate) fn seat(&self, slot: Slot, group: &str) -> Option<PresenceSeat> {
        let app = self.app_of(slot)?;
        let &topic = self.apps[app as usize].groups.get(group)?;
        self.topics[topic as usize].presence.as_ref()?.seat(slot)
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
        let Some(&app) = self.app_ids.get(app) else { return 0 };
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
        self.app_ids.get(app).map_or(&[], |&id| &self.apps[id as usize].all)
    }

    pub(crate) fn uid_members(&self, app: &str, uid: &str) -> &[Slot] {
        self.members(app, EntryKind::Uid, uid)
    }

    pub(crate) fn group_members(&self, app: &str, group: &str) -> &[Slot] {
        self.members(app, EntryKind::Group, group)
    }

    /// The uids of an app in order, from behind this one, with how many clients each has.
    pub(crate) fn uids_after<'a>(
        &'a self,
        app: &'a str,
        after: &'a str,
    ) -> impl Iterator<Item = (&'a str, u64)> {
        self.names(app, EntryKind::Uid, Bound::Excluded(after))
    }

    /// The groups of an app that begin with this, in order, from behind that one, with how many clients each
    /// has.
    pub(crate) fn groups_after<'a>(
        &'a self,
        app: &'a str,
        prefix: &'a str,
        after: &'a str,
    ) -> impl Iterator<Item = (&'a str, u64)> {
        let from = if prefix > after { Bound::Included(prefix) } else { Bound::Excluded(after) };
        self.names(app, EntryKind::Group, from).take_while(move |(name, _)| name.starts_with(prefix))
    }

    /// Clients of all apps: a count, since it is asked for all the time, and apps may be many.
    pub(crate) fn clients(&self) -> usize {
        self.clients
    }

    /// The group of a client to which most was sent lately; none if nothing was.
    pub(crate) fn loudest(&self, slot: Slot, second: u32) -> Option<LoudestGroup> {
        let places = self.places.get(slot as usize)?.as_ref()?;
        let topics = places.groups.iter().map(|place| &self.topics[place.topic as usize]);
        let loud = topics.map(|topic| (topic.recent.lately(second), &topic.name));
        let ((bytes, seconds), name) = loud.max_by_key(|((bytes, _), _)| *bytes)?;
        (bytes > 0).then(|| LoudestGroup { name: Rc::clone(name), bytes, seconds })
    }

    /// How many groups and uids there are in all apps.
    #[cfg(test)]
    pub(crate) fn totals(&self) -> (usize, usize) {
        self.apps
            .iter()
            .fold((0, 0), |(groups, uids), app| (groups + app.groups.len(), uids + app.uids.len()))
    }

    /// Whom an audience reaches here, each once. `clients` are its listed clients that live here; `sent` is
    /// what they are sent.
    pub(crate) fn select(
        &mut self,
        audience: &ClientFilter,
        (clients, except): (&[Slot], &[Slot]),
        sent: SentNow,
        out: &mut Vec<Slot>,
    ) {
        out.clear();
        let app = &*audience.app;
        if audience.is_one_topic() && clients.is_empty() && except.is_empty() {
            if audience.all {
                out.extend_from_slice(self.all_of(app));
            }
            for uid in &audience.uids {
                out.extend_from_slice(self.uid_members(app, uid));
            }
            for group in &audience.groups {
                out.extend_from_slice(self.sent_to_group(app, group, sent));
            }
            return;
        }
        let mut marks = std::mem::take(&mut self.marks);
        marks.start(self.places.len());
        for &slot in except {
            marks.first(slot);
        }
        for uid in &audience.except_uids {
            marks.all(self.uid_members(app, uid));
        }
        for group in &audience.except_groups {
            marks.all(self.group_members(app, group));
        }
        out.extend(clients.iter().copied().filter(|&slot| marks.first(slot)));
        for uid in &audience.uids {
            out.extend(self.uid_members(app, uid).iter().copied().filter(|&slot| marks.first(slot)));
        }
        for group in &audience.groups {
            out.extend(
                self.sent_to_group(app, group, sent).iter().copied().filter(|&slot| marks.first(slot)),
            );
        }
        if audience.all {
            out.extend(self.all_of(app).iter().copied().filter(|&slot| marks.first(slot)));
        }
        self.marks = marks;
    }

    /// The members of a group that is sent to.
    fn sent_to_group(&mut self, app: &str, group: &str, sent: SentNow) -> &[Slot] {
        let Some(&app) = self.app_ids.get(app) else { return &[] };
        let Some(&topic) = self.apps[app as usize].groups.get(group) else { return &[] };
        let topic = &mut self.topics[topic as usize];
        topic.recent.add(sent);
        topic.traffic.add(sent, topic.members.len());
        &topic.members
    }

    fn note(&mut self, app: AppId, kind: EntryKind, name: &Rc<str>, user: Option<Arc<str>>) {
        self.changes.push(TopicChange { app, kind, name: Rc::clone(name), user });
    }

    /// The uids whose clients have changed since the homes were last told.
    pub(crate) fn changed_uids(&self) -> impl Iterator<Item = TopicKey> {
        let uids = self.changes.iter().filter(|change| change.kind == EntryKind::Uid);
        uids.map(|change| TopicKey::uid(&self.apps[change.app as usize].name, &change.name))
    }

    /// Rises with every client that comes into a topic or leaves it, until the changes are taken.
    pub(crate) fn changes(&self) -> usize {
        self.changes.len()
    }

    pub(crate) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// How the topics that have changed stand now, each once.
    pub(crate) fn take_changes(&mut self, shard: u8) -> Vec<MembershipCount> {
        let mut users: HashMap<(AppId, bool, Rc<str>), Vec<Arc<str>>> = HashMap::new();
        for TopicChange { app, kind, name, user } in self.changes.drain(..) {
            let named = users.entry((app, kind == EntryKind::Uid, name)).or_default();
            named.extend(user);
        }
        // A burst is given back.
        self.changes.shrink_to(64);
        let pending_counts = users.into_iter().map(|((app, is_uid, name), mut users)| {
            users.sort_unstable();
            users.dedup();
            let kind = if is_uid { EntryKind::Uid } else { EntryKind::Group };
            let app = &self.apps[app as usize];
            let topic = kind.index(app).get(&name).map(|&topic| &self.topics[topic as usize]);
            let presence = topic.and_then(|topic| topic.presence.as_ref());
            let members = users
                .into_iter()
                .map(|user| {
                    let UserPresence { info, clients, max } =
                        presence.map_or_else(UserPresence::default, |all| all.of(&user));
                    PresenceCount { user, info, clients, max }
                })
                .collect();
            let clients = topic.map_or(0, |topic| len_u32(&topic.members));
            let topic = match kind {
                EntryKind::Uid => TopicKey::uid(&app.name, &name),
                EntryKind::Group => TopicKey::group(&app.name, &name),
            };
            MembershipCount { topic, shard, clients, members }
        });
        pending_counts.collect()
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

    /// Apps are few and configured; their entries stay.
    fn app_id_or_new(&mut self, name: &str) -> AppId {
        if let Some(&id) = self.app_ids.get(name) {
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
        self.app_ids
            .get(app)
            .and_then(|&id| kind.index(&self.apps[id as usize]).get(name))
            .map_or(&[], |&topic| &self.topics[topic as usize].members)
    }

    fn names<'a>(
        &'a self,
        app: &'a str,
        kind: EntryKind,
        from: Bound<&'a str>,
    ) -> impl Iterator<Item = (&'a str, u64)> {
        self.app_ids.get(app).into_iter().flat_map(move |&id| {
            let app = &self.apps[id as usize];
            let names = kind.names(app).range::<str, _>((from, Bound::Unbounded));
            names.filter_map(move |name| {
                let &topic = kind.index(app).get(name)?;
                Some((&**name, self.topics[topic as usize].members.len() as u64))
            })
        })
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
                recent: RecentBytes::default(),
                traffic: GroupTraffic::default(),
            };
            let topic = u32::try_from(self.topics.insert(topic)).unwrap_or(u32::MAX);
            index.insert(Rc::clone(&name), topic);
            kind.names_mut(&mut self.apps[app as usize]).insert(name);
            topic
        };
        let TopicEntry { name, members, .. } = &mut self.topics[topic as usize];
        let (name, at) = (Rc::clone(name), len_u32(members));
        members.push(slot);
        self.note(app, kind, &name, None);
        MemberSlot { topic, at }
    }

    /// Removes a member; the last one of the list takes its place, and a topic without members goes.
    fn unlink(&mut self, app: AppId, place: MemberSlot, kind: EntryKind) {
        let topic = &mut self.topics[place.topic as usize];
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum EntryKind {
    Uid,
    Group,
}

impl EntryKind {
    fn index(self, app: &AppEntry) -> &HashMap<Rc<str>, TopicId> {
        match self {
            Self::Uid => &app.uids,
            Self::Group => &app.groups,
        }
    }

    fn names(self, app: &AppEntry) -> &BTreeSet<Rc<str>> {
        match self {
            Self::Uid => &app.uid_names,
            Self::Group => &app.group_names,
        }
    }

    fn names_mut(self, app: &mut AppEntry) -> &mut BTreeSet<Rc<str>> {
        match self {
            Self::Uid => &mut app.uid_names,
            Self::Group => &mut app.group_names,
        }
    }

    fn index_mut(self, app: &mut AppEntry) -> &mut HashMap<Rc<str>, TopicId> {
        match self {
            Self::Uid => &mut app.uids,
            Self::Group => &mut app.groups,
        }
    }
}

impl Marks {
    fn start(&mut self, slots: usize) {
        if self.of.len() < slots {
            self.of.resize(slots, 0);
        }
        self.now = self.now.wrapping_add(1);
        if self.now == 0 {
            self.of.fill(0);
            self.now = 1;
        }
    }

    /// Is this the first time that this client is met?
    fn first(&mut self, slot: Slot) -> bool {
        let Some(mark) = self.of.get_mut(slot as usize) else { return false };
        std::mem::replace(mark, self.now) != self.now
    }

    fn all(&mut self, slots: &[Slot]) {
        for &slot in slots {
            self.first(slot);
        }
    }
}

/// Slots are 24 bits, so no list of them is longer than a `u32`.
fn len_u32<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
