//! What clients do, offered to the observers of their app. Nothing is made, and nobody waits, where
//! nobody does.

use broadgate_proto::{
    limits::BATCH_COMMANDS_MAX,
    v1::{self, pusher_event::Event},
};
use broadgate_pusher::{member::ChannelMember, socket_id};

use crate::{
    command::PresenceSeat,
    shard::{counters::Drop, pusher::client::Pending, slots::Slot, state::Shard},
};

impl Shard {
    /// Does anybody want to know what this client does? To be asked before anything is made of it.
    pub(crate) fn is_observed(&self, slot: Slot) -> bool {
        let client = self.clients.get(slot).filter(|client| client.pusher.is_some());
        client.is_some_and(|client| self.deps.observers.has(&client.app))
    }

    /// Records what a client has done; observers receive it at the end of the turn.
    pub(crate) fn offer(&mut self, slot: Slot, event: Event) {
        let client_id = self.id_of(slot);
        let Some(client) = self.clients.get(slot) else { return };
        let user = client.pusher.as_ref().and_then(|pusher| pusher.user.as_ref());
        self.offers.push(v1::PusherEvent {
            client_id: client_id.to_string(),
            socket_id: socket_id::text(client_id),
            app: client.app.to_string(),
            user_id: user.map(|user| user.id.clone()).unwrap_or_default(),
            event: Some(event),
        });
        // What one turn may gather is bounded, too.
        if self.offers.len() >= BATCH_COMMANDS_MAX {
            self.hand_offers();
        } else {
            self.ask_turn();
        }
    }

    /// Hands what has happened to the observers.
    pub(crate) fn hand_offers(&mut self) {
        if self.offers.is_empty() {
            return;
        }
        let dropped = self.deps.observers.offer(self.offers.drain(..));
        self.tally.drop(Drop::WatcherSlow, dropped);
    }

    pub(crate) fn offer_opened(&mut self, slot: Slot) {
        if self.is_observed(slot) {
            let address = self.clients.get(slot).map(|client| client.address.to_string());
            self.offer(slot, Event::Opened(v1::PusherOpened { address: address.unwrap_or_default() }));
        }
    }

    /// Also for one that a command has put into a channel.
    pub(crate) fn offer_subscribed(&mut self, slot: Slot, channel: &str, seat: Option<&PresenceSeat>) {
        if !self.is_observed(slot) || !super::watchlist::is_channel(channel) {
            return;
        }
        let member = seat.map(|seat| ChannelMember::of_seat(&seat.user, &seat.info));
        let (user_id, info) = member.map(|member| (member.id, member.info)).unwrap_or_default();
        self.offer(
            slot,
            Event::Subscribed(v1::PusherSubscribed {
                channel: channel.to_owned(),
                user_id: user_id.into_owned(),
                user_info_json: info.unwrap_or_default().into_owned(),
            }),
        );
    }

    /// It was in the channel a moment ago. Of a subscription that was never confirmed nobody has heard.
    pub(crate) fn offer_unsubscribed(&mut self, slot: Slot, channel: &str) {
        if self.is_observed(slot)
            && super::watchlist::is_channel(channel)
            && !self.is_unconfirmed(slot, channel)
        {
            self.offer(slot, Event::Unsubscribed(v1::PusherUnsubscribed { channel: channel.to_owned() }));
        }
    }

    /// `groups` are those that it was in.
    pub(crate) fn offer_closed(&mut self, slot: Slot, closed: &v1::Closed) {
        if !self.is_observed(slot) {
            return;
        }
        let was_in =
            |group: &&String| super::watchlist::is_channel(group) && !self.is_unconfirmed(slot, group);
        let channels = closed.groups.iter().filter(was_in).cloned().collect();
        let (cause, code, reason) = (closed.cause, closed.code, closed.reason.clone());
        self.offer(slot, Event::Closed(v1::PusherClosed { cause, code, reason, channels }));
    }

    fn is_unconfirmed(&self, slot: Slot, channel: &str) -> bool {
        let pending = self.clients.get(slot).and_then(|client| client.pending.as_deref());
        pending.is_some_and(|pending| pending.is_new_to(channel))
    }
}

impl Pending {
    /// Is it the first subscription to this channel?
    fn is_new_to(&self, channel: &str) -> bool {
        !self.is_again && self.subscription.channel == channel
    }
}
