//! Whom clients stand for in presence groups. Pure.

use std::rc::Rc;

use super::Directory;
use crate::{
    command::PresenceSeat,
    shard::{directory::entries::EntryKind, slots::Slot},
};

impl Directory {
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
}
