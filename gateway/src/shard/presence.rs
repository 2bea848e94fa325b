//! Who is present in one group, as far as one shard's clients go. Pure.

use std::{collections::HashMap, sync::Arc};

use super::directory::Slot;

/// Whom a client stands for in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) user: Arc<str>,
    /// What others see of the user.
    pub(crate) info: Arc<str>,
}

/// The presence members of a group.
#[derive(Default)]
pub(crate) struct Presence {
    seats: HashMap<Slot, Arc<str>>,
    users: HashMap<Arc<str>, (Arc<str>, u32)>,
}

impl Presence {
    /// Returns the users for whom something has changed.
    pub(crate) fn sit(&mut self, slot: Slot, seat: &Seat) -> Vec<Arc<str>> {
        let mut changed = Vec::new();
        if self.seats.get(&slot).is_none_or(|user| *user != seat.user) {
            changed.extend(self.leave(slot));
            self.seats.insert(slot, Arc::clone(&seat.user));
            self.users.entry(Arc::clone(&seat.user)).or_default().1 += 1;
        }
        if let Some((info, _)) = self.users.get_mut(&seat.user) {
            *info = Arc::clone(&seat.info);
        }
        changed.push(Arc::clone(&seat.user));
        changed
    }

    /// Returns whom the client stood for.
    pub(crate) fn leave(&mut self, slot: Slot) -> Option<Arc<str>> {
        let user = self.seats.remove(&slot)?;
        if let Some((_, clients)) = self.users.get_mut(&user) {
            *clients -= 1;
            if *clients == 0 {
                self.users.remove(&user);
            }
        }
        Some(user)
    }

    pub(crate) fn seat(&self, slot: Slot) -> Option<Seat> {
        let user = self.seats.get(&slot)?;
        Some(Seat { user: Arc::clone(user), info: self.of(user).0 })
    }

    pub(crate) fn users(&self) -> Vec<Arc<str>> {
        self.users.keys().cloned().collect()
    }

    /// What others see of a user, and how many clients stand for it.
    pub(crate) fn of(&self, user: &str) -> (Arc<str>, u32) {
        self.users.get(user).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(user: &str, info: &str) -> Seat {
        Seat { user: user.into(), info: info.into() }
    }

    #[test]
    fn a_user_is_present_while_a_client_stands_for_it() {
        let mut presence = Presence::default();
        assert_eq!(presence.sit(1, &seat("ann", "A")), ["ann".into()]);
        assert_eq!(presence.sit(2, &seat("ann", "B")), ["ann".into()]);
        assert_eq!(presence.of("ann"), ("B".into(), 2));
        assert_eq!(presence.sit(1, &seat("bob", "")), ["ann".into(), "bob".into()]);
        assert_eq!(presence.leave(2).as_deref(), Some("ann"));
        assert_eq!((presence.of("ann").1, presence.leave(2)), (0, None));
        assert_eq!(presence.users(), ["bob".into()]);
    }
}
