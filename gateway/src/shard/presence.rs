//! Who is present in one group, as far as one shard's clients go. Pure.

use std::{collections::HashMap, sync::Arc};

use crate::{command::PresenceSeat, shard::slots::Slot};

/// The presence members of a group.
#[derive(Default)]
pub(crate) struct Presence {
    seats: HashMap<Slot, Arc<str>>,
    users: HashMap<Arc<str>, UserPresence>,
}

/// How the shard's clients stand for one user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UserPresence {
    /// What others see.
    pub(crate) info: Arc<str>,
    pub(crate) clients: u32,
    /// The user is present only if that makes no more than so many.
    pub(crate) max: Option<u32>,
}

impl Presence {
    /// Returns the users for whom something has changed. The seat of a first client has this limit;
    /// one without any lifts it.
    pub(crate) fn sit(&mut self, slot: Slot, seat: &PresenceSeat, max: Option<u32>) -> Vec<Arc<str>> {
        let mut changed = Vec::new();
        if self.seats.get(&slot).is_none_or(|user| *user != seat.user) {
            changed.extend(self.leave(slot));
            self.seats.insert(slot, Arc::clone(&seat.user));
            let user = self.users.entry(Arc::clone(&seat.user)).or_default();
            user.clients += 1;
            if user.clients == 1 {
                user.max = max;
            }
        }
        if let Some(user) = self.users.get_mut(&seat.user) {
            user.info = Arc::clone(&seat.info);
            user.max = user.max.filter(|_| max.is_some());
        }
        changed.push(Arc::clone(&seat.user));
        changed
    }

    /// Returns whom the client stood for.
    pub(crate) fn leave(&mut self, slot: Slot) -> Option<Arc<str>> {
        let user = self.seats.remove(&slot)?;
        if let Some(user_count) = self.users.get_mut(&user) {
            user_count.clients -= 1;
            if user_count.clients == 0 {
                self.users.remove(&user);
            }
        }
        Some(user)
    }

    pub(crate) fn seat(&self, slot: Slot) -> Option<PresenceSeat> {
        let user = self.seats.get(&slot)?;
        Some(PresenceSeat { user: Arc::clone(user), info: self.of(user).info })
    }

    pub(crate) fn users(&self) -> Vec<Arc<str>> {
        self.users.keys().cloned().collect()
    }

    /// How the clients stand for a user.
    pub(crate) fn of(&self, user: &str) -> UserPresence {
        self.users.get(user).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(user: &str, info: &str) -> PresenceSeat {
        PresenceSeat { user: user.into(), info: info.into() }
    }

    #[test]
    fn a_user_is_present_while_a_client_stands_for_it() {
        let mut presence = Presence::default();
        assert_eq!(presence.sit(1, &seat("ann", "A"), Some(9)), ["ann".into()]);
        assert_eq!(presence.sit(2, &seat("ann", "B"), Some(8)), ["ann".into()]);
        assert_eq!(presence.of("ann"), UserPresence { info: "B".into(), clients: 2, max: Some(9) });
        presence.sit(2, &seat("ann", "B"), None);
        assert_eq!(presence.of("ann").max, None, "a seat without a limit lifts it");
        assert_eq!(presence.sit(1, &seat("bob", ""), None), ["ann".into(), "bob".into()]);
        assert_eq!(presence.leave(2).as_deref(), Some("ann"));
        assert_eq!((presence.of("ann").clients, presence.leave(2)), (0, None));
        assert_eq!(presence.users(), ["bob".into()]);
    }
}
