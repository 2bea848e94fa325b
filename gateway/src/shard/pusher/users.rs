//! Signing in, and who of a user's watchlist is online. Every user has a group in which its signed-in
//! connections are present, and in which those who watch it listen.

use broadgate_proto::v1::{self, pusher_event::Event};
use broadgate_pusher::{
    Compat,
    member::SignedInUser,
    outgoing,
    talk::{BUSY, CLIENT_EVENT_LIMIT},
};
use broadgate_topics::{PresenceChange, Topic};

use crate::{
    command::PresenceSeat,
    shard::{
        pusher::watchlist::{Watchlist, online_group, online_user, signed_in_group},
        slots::Slot,
        state::Shard,
    },
};

impl Shard {
    /// A repeated sign-in is answered without work. Any other joins the user's groups first: only a
    /// connection that is in them is the user, so that it can be terminated. Until the client has received
    /// the state of its watchlist, nothing more is read from it.
    pub(super) fn sign_in(&mut self, slot: Slot, user: SignedInUser, user_data: &str) {
        let Some(pusher) = self.clients.pusher(slot) else { return };
        let app = &pusher.tenant.app;
        let (compat, watched_max, watches) = (app.compat, app.limits.watchlist_max, app.watchlist);
        let is_repeated = pusher.user.as_deref() == Some(&user);
        let watchlist_cut = user.watchlist_cut && watches;
        let asks = if watches { user.watchlist.len() } else { 0 };
        if !is_repeated && !self.may_subscribe(slot, u32::try_from(asks + 1).unwrap_or(u32::MAX)) {
            let sentence = "Sign-in rejected - too many in a short time";
            self.note_refused(slot, "signin", sentence);
            return self.say(slot, &outgoing::error(Some(CLIENT_EVENT_LIMIT), sentence, compat));
        }
        if !is_repeated && !self.become_user(slot, user, watches) {
            let sentence = "the sign-in failed because the server is busy: sign in again";
            self.note_refused(slot, "signin", sentence);
            return self.say(slot, &outgoing::error(Some(BUSY), sentence, compat));
        }
        self.say(slot, &outgoing::signin_success(user_data));
        if !is_repeated && self.offers.is_observed(&self.clients, slot) {
            let signed_in = v1::PusherSignedIn { user_data: user_data.to_owned() };
            self.offers.put(&self.clients, slot, &mut self.turn, Event::SignedIn(signed_in));
        }
        if watchlist_cut {
            let sentence = format!("Watchlist limit exceeded: the first {watched_max} users are watched");
            self.say(slot, &outgoing::error(Some(4302), &sentence, compat));
        }
    }

    /// Joins the groups of a user, and of those it watches, and asks who of these is online. False, and nothing
    /// has changed, if that cannot be done now.
    fn become_user(&mut self, slot: Slot, user: SignedInUser, watches: bool) -> bool {
        let watched: &[String] = if watches { &user.watchlist } else { &[] };
        if !self.deps.can_ask(watched.len(), &mut self.tally) {
            return false;
        }
        let own = [Some(signed_in_group(&user.id)), watches.then(|| online_group(&user.id))];
        // The server's own groups are outside a client's limit.
        if !own.iter().flatten().all(|group| self.join_group(slot, group, 0)) {
            return false;
        }
        let watch = (!watched.is_empty()).then(|| Box::new(Watchlist::of(watched)));
        let Some(pusher) = self.clients.pusher(slot) else { return false };
        let former = std::mem::replace(&mut pusher.watch, watch);
        for (former, _) in former.iter().flat_map(|watch| &watch.users) {
            if !watched.iter().any(|user| **user == **former) && **former != *user.id {
                self.directory.part(slot, &online_group(former));
            }
        }
        if watches {
            let seat = PresenceSeat { user: user.id.as_str().into(), info: "".into() };
            self.directory.sit(slot, &online_group(&user.id), &seat, None);
        }
        for user in watched {
            self.directory.join(slot, &online_group(user), 0);
        }
        for user in watched {
            self.enter(slot, &online_group(user), None);
        }
        let watched_count = u32::try_from(watched.len()).unwrap_or(u32::MAX);
        if let Some(pusher) = self.clients.pusher(slot) {
            pusher.unanswered_watches += watched_count;
            pusher.user = Some(Box::new(user));
            pusher.is_authorized = true;
        }
        if self.taps.is_open() {
            self.tap_bound(slot);
        }
        self.turn.request();
        true
    }

    /// Reverb has no sign-in: there, presence under an id is what terminates a connection by it.
    pub(super) fn identify(&mut self, slot: Slot, user: &str) {
        if self.clients.pusher(slot).is_some_and(|pusher| pusher.tenant.app.compat == Compat::Reverb) {
            self.join_group(slot, &signed_in_group(user), 0);
            if self.taps.is_open() {
                self.mark_taps(slot);
            }
        }
    }

    /// The client is present under this id no more, in one channel.
    pub(super) fn forget_identity(&mut self, slot: Slot, user: &str) {
        let Some(pusher) = self.clients.pusher(slot) else { return };
        let signed_in = pusher.user.as_ref().is_some_and(|known| known.id == user);
        let is_seated = |group| self.directory.seat(slot, group).is_some_and(|seat| *seat.user == *user);
        let is_present = self.directory.groups(slot).any(|group| is_seated(group));
        if !signed_in && !is_present {
            self.part_group(slot, &signed_in_group(user));
        }
    }

    /// The home of a watched user's group has answered, or did not in time.
    pub(super) fn watch_answered(&mut self, slot: Slot, user: &str, online: bool) {
        self.update_watch(slot, user, online);
        let Some(client) = self.clients.get_mut(slot) else { return };
        let Some(pusher) = &mut client.pusher else { return };
        pusher.unanswered_watches = pusher.unanswered_watches.saturating_sub(1);
        if pusher.unanswered_watches == 0 {
            client.wake();
        }
    }

    /// A watched user is online or not: the state when the client began to watch, or a change.
    fn update_watch(&mut self, slot: Slot, user: &str, online: bool) {
        let Some(watch) = self.clients.pusher(slot).and_then(|pusher| pusher.watch.as_mut()) else { return };
        if let Some(frame) = watch.update(user, online) {
            self.say(slot, &frame);
        }
    }

    pub(super) fn send_online(&mut self, topic: &Topic, members: &[PresenceChange]) {
        let Some(user) = online_user(topic.name()) else { return };
        let Some(change) = members.iter().find(|change| *change.user == *user) else { return };
        for slot in self.directory.group_members(topic.app(), topic.name()).to_vec() {
            self.update_watch(slot, user, change.here);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchlist_is_sent_whole_and_then_each_change() {
        let mut watch = Watchlist::of(&["ann".to_owned(), "bob".to_owned()]);
        assert_eq!(watch.update("ann", true), None);
        assert_eq!(watch.update("eve", true), None);
        let all = watch.update("bob", false).unwrap();
        assert!(all.contains(r#"\"online\",\"user_ids\":[\"ann\"]"#), "{all}");
        assert!(all.contains(r#"\"offline\",\"user_ids\":[\"bob\"]"#), "{all}");
        assert_eq!(watch.update("ann", true), None);
        let change = watch.update("ann", false).unwrap();
        assert!(change.contains("offline") && !change.contains("bob"), "{change}");
    }
}
