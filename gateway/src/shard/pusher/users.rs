//! Signing in, and who of a user's watchlist is online. Every user has a group in which its signed-in
//! connections are present, and in which those who watch it listen.

use broadgate_proto::v1::{self, pusher_event::Event};

use crate::{
    homes::{ComeOrGone, Topic},
    pusher::{Compat, member::User, outgoing},
    shard::{directory::Slot, presence::Seat, state::Shard},
};

/// Names of the server's own groups: clients cannot subscribe to what begins with `#`, but to their own
/// user's channel.
const ONLINE: &str = "#online-";
const SIGNED_IN: &str = "#signed-in-";

/// Connections signed in as a user are in this group, to be closed together.
pub(crate) fn signed_in_group(user: &str) -> String {
    format!("{SIGNED_IN}{user}")
}

fn online_group(user: &str) -> String {
    format!("{ONLINE}{user}")
}

/// Is it a channel, and no group of the server's own?
pub(super) fn is_channel(group: &str) -> bool {
    !group.starts_with(ONLINE) && !group.starts_with(SIGNED_IN)
}

/// Whose group it is, if a user's.
pub(super) fn online_user(group: &str) -> Option<&str> {
    group.strip_prefix(ONLINE)
}

/// Whom a client watches. The first it is told is how all of them stand.
#[derive(Default)]
pub(crate) struct Watch {
    users: Vec<(Box<str>, Option<bool>)>,
    told: bool,
}

impl Watch {
    fn of(users: &[String]) -> Self {
        Self { users: users.iter().map(|user| (user.as_str().into(), None)).collect(), told: false }
    }

    /// Takes how a user stands; returns the frame that the client gets for it.
    fn heard(&mut self, user: &str, online: bool) -> Option<String> {
        let (_, known) = self.users.iter_mut().find(|(watched, _)| **watched == *user)?;
        if known.replace(online) == Some(online) {
            return None;
        }
        if self.told {
            let (come, gone): (&[&str], &[&str]) = if online { (&[user], &[]) } else { (&[], &[user]) };
            return outgoing::watchlist_events(come, gone);
        }
        self.told = self.users.iter().all(|(_, known)| known.is_some());
        let those = |wanted: bool| -> Vec<&str> {
            self.users.iter().filter(|(_, known)| *known == Some(wanted)).map(|(user, _)| &**user).collect()
        };
        if self.told { outgoing::watchlist_events(&those(true), &those(false)) } else { None }
    }
}

impl Shard {
    pub(super) fn sign_in(&mut self, slot: Slot, user: User, user_data: &str) {
        let max = self.config.settings.limits.groups_per_client_max;
        let (id, watchlist, watchlist_cut) = (user.id.clone(), user.watchlist.clone(), user.watchlist_cut);
        let Some(pusher) = self.pusher(slot) else { return };
        let app = &pusher.tenant.app;
        let (compat, watched_max, watches) = (app.compat, app.limits.watchlist_max, app.watchlist);
        let former = std::mem::take(&mut pusher.watch);
        pusher.user = Some(Box::new(user));
        pusher.is_authorized = true;
        if !self.directory.join(slot, &signed_in_group(&id), max) {
            let sentence = format!("the connection is in {max} channels already, as many as it may be in");
            return self.say(slot, &outgoing::error(Some(4009), &sentence, compat));
        }
        self.say(slot, &outgoing::signin_success(user_data));
        if self.is_observed(slot) {
            let signed_in = v1::PusherSignedIn { user_data: user_data.to_owned() };
            self.offer(slot, Event::SignedIn(signed_in));
        }
        self.ask_turn();
        if !watches {
            return;
        }
        for (watched, _) in former.iter().flat_map(|watch| &watch.users) {
            self.directory.part(slot, &online_group(watched));
        }
        let seat = Seat { user: id.as_str().into(), info: "".into() };
        let own = online_group(&id);
        self.directory.join(slot, &own, max);
        self.directory.sit(slot, &own, &seat);
        self.watch(slot, &watchlist);
        if watchlist_cut {
            let sentence = format!("Watchlist limit exceeded: the first {watched_max} users are watched");
            self.say(slot, &outgoing::error(Some(4302), &sentence, compat));
        }
    }

    /// Reverb knows no signing in: there, whoever is present under an id is terminated by it.
    pub(super) fn identify(&mut self, slot: Slot, user: &str) {
        let max = self.config.settings.limits.groups_per_client_max;
        if self.pusher(slot).is_some_and(|pusher| pusher.tenant.app.compat == Compat::Reverb) {
            self.directory.join(slot, &signed_in_group(user), max);
        }
    }

    /// The client is present under this id no more, in one channel.
    pub(super) fn forget_identity(&mut self, slot: Slot, user: &str) {
        let Some(pusher) = self.pusher(slot) else { return };
        let signed_in = pusher.user.as_ref().is_some_and(|known| known.id == user);
        let stands = |group| self.directory.seat(slot, group).is_some_and(|seat| *seat.user == *user);
        let is_present = self.directory.groups(slot).any(|group| stands(group));
        if !signed_in && !is_present {
            self.directory.part(slot, &signed_in_group(user));
        }
    }

    fn watch(&mut self, slot: Slot, users: &[String]) {
        if users.is_empty() {
            return;
        }
        let max = self.config.settings.limits.groups_per_client_max;
        let Some(pusher) = self.pusher(slot) else { return };
        pusher.watch = Some(Box::new(Watch::of(users)));
        for user in users {
            self.directory.join(slot, &online_group(user), max);
        }
        for user in users {
            self.enter(slot, &online_group(user), None);
        }
    }

    /// How a user stood when the client began to watch, or stands now.
    pub(super) fn heard_of(&mut self, slot: Slot, user: &str, online: bool) {
        let Some(watch) = self.pusher(slot).and_then(|pusher| pusher.watch.as_mut()) else { return };
        if let Some(frame) = watch.heard(user, online) {
            self.say(slot, &frame);
        }
    }

    pub(super) fn tell_online(&mut self, topic: &Topic, members: &[ComeOrGone]) {
        let Some(user) = online_user(topic.name()) else { return };
        let Some(change) = members.iter().find(|change| *change.user == *user) else { return };
        for slot in self.directory.group_members(topic.app(), topic.name()).to_vec() {
            self.heard_of(slot, user, change.here);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_told_at_once_and_then_each_change() {
        let mut watch = Watch::of(&["ann".to_owned(), "bob".to_owned()]);
        assert_eq!(watch.heard("ann", true), None);
        assert_eq!(watch.heard("eve", true), None);
        let all = watch.heard("bob", false).unwrap();
        assert!(all.contains(r#"\"online\",\"user_ids\":[\"ann\"]"#), "{all}");
        assert!(all.contains(r#"\"offline\",\"user_ids\":[\"bob\"]"#), "{all}");
        assert_eq!(watch.heard("ann", true), None);
        let change = watch.heard("ann", false).unwrap();
        assert!(change.contains("offline") && !change.contains("bob"), "{change}");
    }
}
