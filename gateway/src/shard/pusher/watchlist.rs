//! The groups of users, and the events for a client's watchlist.

use broadgate_pusher::{
    channel::{ONLINE, SIGNED_IN, is_own},
    outgoing,
};

/// Connections signed in as a user are in this group, to be closed together.
pub(crate) fn signed_in_group(user: &str) -> String {
    format!("{SIGNED_IN}{user}")
}

pub(super) fn online_group(user: &str) -> String {
    format!("{ONLINE}{user}")
}

/// Is it a channel, and no group of the server's own?
pub(super) fn is_channel(group: &str) -> bool {
    !is_own(group)
}

/// Whose group it is, if a user's.
pub(super) fn online_user(group: &str) -> Option<&str> {
    group.strip_prefix(ONLINE)
}

/// A client's watchlist. Its first event has the state of all users.
#[derive(Default)]
pub(crate) struct Watchlist {
    pub(super) users: Vec<(Box<str>, Option<bool>)>,
    pub(super) is_sent: bool,
}

impl Watchlist {
    pub(super) fn of(users: &[String]) -> Self {
        Self { users: users.iter().map(|user| (user.as_str().into(), None)).collect(), is_sent: false }
    }

    /// Records whether a user is online; returns the frame that the client gets for it.
    pub(super) fn update(&mut self, user: &str, online: bool) -> Option<String> {
        let (_, known) = self.users.iter_mut().find(|(watched, _)| **watched == *user)?;
        if known.replace(online) == Some(online) {
            return None;
        }
        if self.is_sent {
            let (come, gone): (&[&str], &[&str]) = if online { (&[user], &[]) } else { (&[], &[user]) };
            return outgoing::watchlist_events(come, gone);
        }
        self.is_sent = self.users.iter().all(|(_, known)| known.is_some());
        let those = |wanted: bool| -> Vec<&str> {
            self.users.iter().filter(|(_, known)| *known == Some(wanted)).map(|(user, _)| &**user).collect()
        };
        if self.is_sent { outgoing::watchlist_events(&those(true), &those(false)) } else { None }
    }
}
