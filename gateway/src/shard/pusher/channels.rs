//! Subscribing to channels, and the events of subscriptions.

use std::{rc::Rc, sync::Arc};

use broadgate_proto::v1::TapKind;
use broadgate_pusher::{
    channel::{Access, ChannelKind},
    member::ChannelMember,
    outgoing,
    talk::{self, Subscription},
};
use broadgate_topics::{Entered, NotPresent, PresenceChange, Topic};
use bytes::Bytes;
use metrics::counter;

use crate::{
    codec::{
        Protocol,
        encode::{Frames, SharedFrame, text_frame},
    },
    command::{GatewayContent, ParsedCommand, PresenceSeat},
    refusals,
    shard::{
        client::Client,
        counters::{Drop, ShardCounters},
        ending::SlowBy,
        pusher::client::Pending,
        slots::Slot,
        socketio,
        state::{Shard, ShardDeps},
        upcalls::EnterUpcall,
    },
};

impl Shard {
    pub(super) fn subscribe(&mut self, slot: Slot, subscription: Subscription) {
        if self.may_request_subscription(slot, &subscription.channel) {
            self.join_channel(slot, subscription);
        }
    }

    /// May a client ask for a subscription now? If not, it gets a refusal.
    pub(crate) fn may_request_subscription(&mut self, slot: Slot, channel: &str) -> bool {
        let may = self.may_subscribe(slot, 1);
        if !may {
            let sentence = "too many subscriptions in a short time: subscribe again later";
            self.refuse(slot, channel, "RateLimited", sentence, 429);
        }
        may
    }

    /// Joins the group at once, so that nothing is missed, and asks its home for what the client needs
    /// to follow it, and whether its user may be present.
    pub(crate) fn join_channel(&mut self, slot: Slot, subscription: Subscription) {
        let max = self.config.settings.limits.groups_per_client_max;
        let channel = subscription.channel.as_str();
        if !self.deps.can_ask(1, &mut self.tally) {
            let sentence = "the server is busy: subscribe again later";
            return self.refuse(slot, channel, "Busy", sentence, 503);
        }
        let is_again = self.directory.is_member(slot, channel);
        if !self.join_group(slot, channel, max) {
            let sentence = format!("the connection is in {max} channels already, as many as it may be in");
            return self.refuse(slot, channel, "LimitReached", &sentence, 403);
        }
        let name = channel.to_owned();
        if self.taps.is_open() {
            self.tap_in_group(slot, TapKind::Subscribing, channel);
        }
        if let Some(client) = self.clients.get_mut(slot)
            && let Some(pusher) = &mut client.pusher
        {
            pusher.is_authorized |= subscription.kind.access != Access::Public;
            let max = pusher.tenant.app.limits.members_max(pusher.tenant.app.compat);
            let seat = subscription
                .member
                .as_ref()
                .map(|(user, info)| PresenceSeat { user: user.as_str().into(), info: info.as_str().into() });
            let user = seat.as_ref().map(|seat| Arc::clone(&seat.user));
            let pending = Pending { subscription, is_again, deferred: Vec::new(), deferred_bytes: 0 };
            client.pending = Some(Box::new(pending));
            if let Some(seat) = seat {
                // The limit goes with it: the channel's home decides, in its order.
                self.directory.sit(slot, &name, &seat, max);
            }
            self.enter(slot, &name, user);
        }
    }

    /// The channel's home has refused the client's user: the client is not in the channel after all.
    fn not_present(&mut self, slot: Slot, refused: NotPresent) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let Some(pending) = client.pending.take() else { return };
        client.wake();
        let app = client.pusher.as_ref().map(|pusher| Arc::clone(&pusher.tenant.app));
        let max = app.and_then(|app| app.limits.members_max(app.compat)).unwrap_or(u32::MAX);
        let channel = pending.subscription.channel;
        self.tally.drop(Drop::Unsent, pending.deferred.len());
        let was_in = self.part_group(slot, &channel);
        if was_in && self.taps.is_open() {
            self.tap_in_group(slot, TapKind::Left, &channel);
        }
        if was_in && pending.is_again {
            self.offers.unsubscribed(&self.clients, slot, &channel, &mut self.turn);
        }
        self.turn.request();
        match refused {
            NotPresent::Full => {
                if let (Some(refusals), Some(client)) = (&self.deps.refusals, self.clients.get(slot)) {
                    refusals.limit_met("limits.presence_members_max", &client.app, &channel);
                }
                let sentence = format!("the channel has {max} members, as many as it may have");
                self.refuse(slot, &channel, "LimitReached", &sentence, 403);
            }
            NotPresent::Undecided => {
                let sentence = "the channel's members did not arrive in time: subscribe again";
                self.refuse(slot, &channel, "Unavailable", sentence, 503);
            }
        }
    }

    /// Asks for what the client needs to follow a group that it has joined. [`ShardDeps::can_ask`] has said
    /// that there is room.
    pub(super) fn enter(&mut self, slot: Slot, group: &str, user: Option<Arc<str>>) {
        let Some(app) = self.clients.get(slot).map(|client| Rc::clone(&client.app)) else { return };
        let topic = Topic::group(&app, group);
        // Before the question: the home must have heard of the client.
        self.send_counts();
        let client = self.clients.id_of(slot);
        if let Some(upcalls) = &self.deps.upcalls {
            let _ = upcalls.entries.try_send(EnterUpcall { client, topic, user });
        }
    }

    fn refuse(&mut self, slot: Slot, channel: &str, kind: &str, sentence: &str, status: u16) {
        self.note_refused(slot, "subscription", &format!("{channel}: {sentence}"));
        let Some(pusher) = self.clients.pusher(slot) else { return };
        let frame = match pusher.socketio {
            Some(_) => broadgate_socketio::outgoing::subscription_error(channel, status),
            None => talk::refusal(channel, kind, sentence, status, pusher.tenant.app.compat),
        };
        self.say(slot, &frame);
    }

    /// The client follows the channel from here.
    pub(crate) fn entered(&mut self, slot: Slot, topic: &Topic, entered: &Entered<GatewayContent>) {
        if let Some(user) = super::watchlist::online_user(topic.name()) {
            return self.watch_answered(slot, user, !entered.members.is_empty());
        }
        let Some(client) = self.clients.get(slot).filter(|client| client.is_open()) else { return };
        if client.pending.as_ref().is_none_or(|pending| pending.subscription.channel != topic.name()) {
            return;
        }
        // A command may have taken it out of the channel, and its user with it: then nothing was refused.
        let unknown = !entered.missing.is_empty() && ChannelKind::of(topic.name()).is_presence();
        // Nobody knows who is in it: better no list of members than a wrong one.
        let refused = entered.refused.or(unknown.then_some(NotPresent::Undecided));
        if !entered.missing.is_empty() {
            client.log_without_home(topic.name(), refused.is_some());
        }
        if let Some(refused) = refused.filter(|_| self.directory.is_member(slot, topic.name())) {
            return self.not_present(slot, refused);
        }
        let Some(client) = self.clients.get_mut(slot) else { return };
        let Some(pending) = client.pending.take() else { return };
        client.wake();
        let Pending { subscription, deferred, is_again, .. } = *pending;
        let Subscription { channel, kind, member } = subscription;
        if let Some((user, _)) = &member
            && self.directory.is_member(slot, &channel)
        {
            self.identify(slot, user);
        }
        if !is_again && self.taps.is_open() && self.directory.is_member(slot, &channel) {
            self.tap_in_group(slot, TapKind::Joined, &channel);
        }
        // Before the roster, which may be too large for its outbox. A command may have taken it
        // out of the channel meanwhile.
        if !is_again
            && self.offers.is_observed(&self.clients, slot)
            && self.directory.is_member(slot, &channel)
        {
            let seat = self.directory.seat(slot, &channel);
            self.offers.subscribed(&self.clients, slot, &channel, seat.as_ref(), &mut self.turn);
        }
        match &member {
            // Socket.IO clients hear nothing of a subscription that succeeds.
            None if self.is_socketio(slot) => {}
            None => self.say(slot, &outgoing::subscription_succeeded(&channel)),
            Some((user, info)) => {
                let members = members(&entered.members, user, info);
                if self.is_socketio(slot) {
                    self.say_present(slot, &channel, members, user);
                } else {
                    self.say(slot, &outgoing::presence_subscription_succeeded(&channel, &members));
                }
            }
        }
        if kind.cache {
            self.say_cached(slot, &channel, entered, &deferred);
        }
        for frame in deferred {
            self.push(slot, frame);
        }
    }

    /// The event that a cache channel keeps, unless it is among those that come next.
    fn say_cached(
        &mut self,
        slot: Slot,
        channel: &str,
        entered: &Entered<GatewayContent>,
        deferred: &[SharedFrame],
    ) {
        let protocol = self.clients.get(slot).map_or(Protocol::Pusher, |client| client.protocol);
        let cached = entered.value.as_ref().and_then(|job| match job.parsed.inner() {
            ParsedCommand::Send { frames, .. } => protocol.pick(frames).cloned(),
            _ => None,
        });
        match cached {
            // Nobody knows what the home would have said.
            None if !entered.missing.is_empty() => {}
            None => {
                if protocol == Protocol::Pusher {
                    self.say(slot, &outgoing::cache_miss(channel));
                }
                // Its home tells webhooks of it, once for all gateways.
                let topic = self.clients.get(slot).map(|client| Topic::group(&client.app, channel));
                if let Some((topic, upcalls)) = topic.zip(self.deps.upcalls.as_ref())
                    && upcalls.missed.try_send(topic).is_err()
                {
                    self.tally.drop(Drop::Busy, 1);
                }
            }
            Some(frame) if deferred.iter().any(|deferred| deferred[..] == frame[..]) => {}
            Some(frame) => self.push_own(slot, frame),
        }
    }

    /// Presence members of a channel have come and gone: all other members receive the change.
    pub(crate) fn send_presence(&mut self, topic: &Topic, members: &[PresenceChange]) {
        let (app, channel) = (topic.app(), topic.name());
        if !ChannelKind::of(channel).is_presence() {
            return self.send_online(topic, members);
        }
        let slots = self.directory.group_members(app, channel).to_vec();
        let has = |protocol| {
            let mut clients = slots.iter().filter_map(|&slot| self.clients.get(slot));
            clients.any(|client| client.protocol == protocol)
        };
        let (has_pusher, has_socketio) = (has(Protocol::Pusher), has(Protocol::SocketIo));
        let frame = |bytes| self.outboxes.live.frame(bytes);
        let presence_frames = |change: &PresenceChange| Frames {
            websocket: None,
            text: None,
            frame: None,
            pusher: has_pusher.then(|| frame(pusher_frame(channel, change))),
            socketio: has_socketio.then(|| frame(socketio_frame(channel, change))),
            payload: 0,
        };
        let frames: Vec<(&str, Frames<SharedFrame>)> =
            members.iter().map(|change| (&*change.user, presence_frames(change))).collect();
        for slot in slots {
            let Some(client) = self.clients.get(slot).filter(|client| client.pusher.is_some()) else {
                continue;
            };
            // A client whose subscription is pending gets the whole roster later.
            if client.pending.as_ref().is_some_and(|pending| pending.subscription.channel == channel) {
                continue;
            }
            let protocol = client.protocol;
            let own = self.directory.seat(slot, channel).map(|seat| seat.user);
            for (user, frames) in &frames {
                if own.as_deref() != Some(*user)
                    && let Some(frame) = protocol.pick(frames)
                {
                    self.push(slot, Rc::clone(frame));
                }
            }
        }
    }

    /// Keeps a message until the subscription that is under way is confirmed.
    pub(crate) fn defer(&mut self, slot: Slot, frames: &Frames<SharedFrame>) -> Result<(), Drop> {
        let bytes_max = self.config.settings.limits.outbox_bytes_max;
        let Some(client) = self.clients.get_mut(slot) else { return Err(Drop::Closing) };
        let frame = client.protocol.pick(frames).cloned().ok_or(Drop::Protocol)?;
        let Some(pending) = client.pending.as_mut() else { return Err(Drop::Closing) };
        pending.deferred_bytes += frame.len();
        if pending.deferred_bytes > bytes_max && !pending.deferred.is_empty() {
            let bytes = frame.len();
            self.close_slow(slot, SlowBy::Bytes, Some(bytes));
            return Err(Drop::Slow);
        }
        pending.deferred.push(frame);
        Ok(())
    }
}

impl ShardDeps {
    /// Is there room for questions about so many groups? If not, it counts as dropped.
    pub(super) fn can_ask(&self, groups: usize, tally: &mut ShardCounters) -> bool {
        let room = self.upcalls.as_ref().map_or(0, |upcalls| upcalls.entries.capacity());
        if room < groups {
            tally.drop(Drop::Busy, 1);
        }
        room >= groups
    }
}

impl Client {
    /// A channel's home has not answered in time: a subscription is refused, or is confirmed without the event
    /// that the channel keeps and perhaps without being counted yet.
    fn log_without_home(&self, channel: &str, refused: bool) {
        let outcome = if refused { "refused" } else { "confirmed" };
        counter!("broadgate_gateway_subscriptions_without_home_total", "outcome" => outcome).increment(1);
        if refusals::may_log("subscription_without_home") {
            let (app, address) = (&*self.app, self.address);
            tracing::warn!(
                %app, channel, %address, outcome,
                "a channel's home did not answer a subscription in time: check the links between gateways"
            );
        }
    }

    /// Does the client follow one of the groups only when its subscription is confirmed?
    pub(crate) fn is_subscribing(&self, groups: &[Box<str>]) -> bool {
        let pending = self.pending.as_ref();
        pending.is_some_and(|pending| groups.iter().any(|group| **group == pending.subscription.channel))
    }
}

/// Everybody who is present, the client's own user among them.
fn members<'a>(present: &'a [(Arc<str>, Arc<str>)], user: &'a str, info: &'a str) -> Vec<ChannelMember<'a>> {
    let mut members: Vec<_> = present.iter().map(|(user, info)| ChannelMember::of_seat(user, info)).collect();
    // A command has taken its user out of the channel meanwhile.
    if present.iter().all(|(other, _)| **other != *user) {
        members.push(ChannelMember::of_seat(user, info));
    }
    members
}

fn socketio_frame(channel: &str, change: &PresenceChange) -> Bytes {
    let member = ChannelMember::of_seat(&change.user, &change.info);
    text_frame(&socketio::presence_change(channel, member, change.here))
}

fn pusher_frame(channel: &str, change: &PresenceChange) -> Bytes {
    let member = ChannelMember::of_seat(&change.user, &change.info);
    text_frame(&match change.here {
        true => outgoing::member_added(channel, &member),
        false => outgoing::member_removed(channel, &member),
    })
}
