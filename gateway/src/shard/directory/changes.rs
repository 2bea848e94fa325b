//! Topics whose members have changed, for their homes. Pure.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use broadgate_topics::{MembershipCount, PresenceCount, Topic as TopicKey};

use super::Directory;
use crate::shard::{
    directory::entries::{AppId, EntryKind, TopicChange, len_u32},
    presence::UserPresence,
};

impl Directory {
    pub(super) fn note(&mut self, app: AppId, kind: EntryKind, name: &Rc<str>, user: Option<Arc<str>>) {
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
}
