//! What the directory keeps of apps, topics and clients. Pure.

use std::{
    collections::{BTreeSet, HashMap},
    rc::Rc,
    sync::Arc,
};

use crate::shard::{group_traffic::GroupMeter, presence::Presence, slots::Slot};

pub(super) type TopicId = u32;
pub(super) type AppId = u32;

pub(super) struct AppEntry {
    pub(super) name: Rc<str>,
    pub(super) all: Vec<Slot>,
    pub(super) groups: HashMap<Rc<str>, TopicId>,
    pub(super) uids: HashMap<Rc<str>, TopicId>,
    /// The same in order, so that a page of a list costs what is on it.
    pub(super) group_names: BTreeSet<Rc<str>>,
    pub(super) uid_names: BTreeSet<Rc<str>>,
}

/// A group or a uid with at least one member.
pub(super) struct TopicEntry {
    pub(super) name: Rc<str>,
    pub(super) kind: EntryKind,
    pub(super) members: Vec<Slot>,
    pub(super) presence: Option<Box<Presence>>,
    pub(super) sent: GroupMeter,
}

/// Where one client stands.
pub(super) struct ClientEntry {
    pub(super) app: AppId,
    pub(super) in_all: u32,
    pub(super) uid: Option<MemberSlot>,
    pub(super) groups: Vec<MemberSlot>,
    /// How many of the groups are the server's own, which no limit of a client's counts.
    pub(super) own: u32,
}

impl ClientEntry {
    /// Groups that count among those a client may be in.
    pub(super) fn limited(&self) -> usize {
        self.groups.len() - self.own as usize
    }
}

#[derive(Clone, Copy)]
pub(super) struct MemberSlot {
    pub(super) topic: TopicId,
    pub(super) at: u32,
}

/// A topic, and a presence member of it, for whom something has changed.
pub(super) struct TopicChange {
    pub(super) app: AppId,
    pub(super) kind: EntryKind,
    pub(super) name: Rc<str>,
    pub(super) user: Option<Arc<str>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    Uid,
    Group,
}

impl EntryKind {
    pub(super) fn index(self, app: &AppEntry) -> &HashMap<Rc<str>, TopicId> {
        match self {
            Self::Uid => &app.uids,
            Self::Group => &app.groups,
        }
    }

    pub(super) fn names(self, app: &AppEntry) -> &BTreeSet<Rc<str>> {
        match self {
            Self::Uid => &app.uid_names,
            Self::Group => &app.group_names,
        }
    }

    pub(super) fn names_mut(self, app: &mut AppEntry) -> &mut BTreeSet<Rc<str>> {
        match self {
            Self::Uid => &mut app.uid_names,
            Self::Group => &mut app.group_names,
        }
    }

    pub(super) fn index_mut(self, app: &mut AppEntry) -> &mut HashMap<Rc<str>, TopicId> {
        match self {
            Self::Uid => &mut app.uids,
            Self::Group => &mut app.groups,
        }
    }
}

/// Slots are 24 bits, so no list of them is longer than a `u32`.
pub(super) fn len_u32<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}
