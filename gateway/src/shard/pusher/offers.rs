//! What clients do, offered to the observers of their app. Nothing is made, and nobody waits, where
//! nobody does.

use broadgate_proto::{
    limits::BATCH_COMMANDS_MAX,
    v1::{self, pusher_event::Event},
};
use broadgate_pusher::{member::ChannelMember, socket_id};

use crate::{
    command::PresenceSeat,
    observers::Observers,
    shard::{
        client::Client,
        clients::ShardClients,
        pusher::{client::Pending, watchlist},
        slots::Slot,
        turn::Turn,
    },
};

/// What Pusher clients did in this turn, and those who observe them.
#[derive(Default)]
pub(crate) struct Offers {
    pub(crate) observers: Observers,
    events: Vec<v1::PusherEvent>,
    /// Events for which an observer had no room.
    dropped: usize,
}

impl Offers {
    /// Does anybody want to know what this client does? To be asked before anything is made of it.
    pub(crate) fn is_observed(&self, clients: &ShardClients, slot: Slot) -> bool {
        let client = clients.get(slot).filter(|client| client.pusher.is_some());
        client.is_some_and(|client| self.observers.has(&client.app))
    }

    /// Records what a client has done; observers receive it at the end of the turn.
    pub(super) fn put(&mut self, clients: &ShardClients, slot: Slot, turn: &mut Turn, event: Event) {
        let client_id = clients.id_of(slot);
        let Some(client) = clients.get(slot) else { return };
        let user = client.pusher.as_ref().and_then(|pusher| pusher.user.as_ref());
        self.events.push(v1::PusherEvent {
            client_id: client_id.to_string(),
            socket_id: socket_id::text(client_id),
            app: client.app.to_string(),
            user_id: user.map(|user| user.id.clone()).unwrap_or_default(),
            event: Some(event),
        });
        // What one turn may gather is bounded, too.
        if self.events.len() >= BATCH_COMMANDS_MAX {
            self.dropped += self.observers.offer(self.events.drain(..));
        } else {
            turn.request();
        }
    }

    /// Hands what has happened to the observers; returns how many events were dropped in this turn.
    pub(crate) fn hand(&mut self) -> usize {
        if !self.events.is_empty() {
            self.dropped += self.observers.offer(self.events.drain(..));
        }
        std::mem::take(&mut self.dropped)
    }

    pub(crate) fn opened(&mut self, clients: &ShardClients, slot: Slot, turn: &mut Turn) {
        if self.is_observed(clients, slot) {
            let address = clients.get(slot).map(|client| client.address.to_string());
            let opened = v1::PusherOpened { address: address.unwrap_or_default() };
            self.put(clients, slot, turn, Event::Opened(opened));
        }
    }

    /// Also for one that a command has put into a channel.
    pub(crate) fn subscribed(
        &mut self,
        clients: &ShardClients,
        slot: Slot,
        channel: &str,
        seat: Option<&PresenceSeat>,
        turn: &mut Turn,
    ) {
        if !self.is_observed(clients, slot) || !watchlist::is_channel(channel) {
            return;
        }
        let member = seat.map(|seat| ChannelMember::of_seat(&seat.user, &seat.info));
        let (user_id, info) = member.map(|member| (member.id, member.info)).unwrap_or_default();
        let subscribed = v1::PusherSubscribed {
            channel: channel.to_owned(),
            user_id: user_id.into_owned(),
            user_info_json: info.unwrap_or_default().into_owned(),
        };
        self.put(clients, slot, turn, Event::Subscribed(subscribed));
    }

    /// It was in the channel a moment ago. Of a subscription that was never confirmed nobody has heard.
    pub(crate) fn unsubscribed(
        &mut self,
        clients: &ShardClients,
        slot: Slot,
        channel: &str,
        turn: &mut Turn,
    ) {
        if self.is_observed(clients, slot)
            && watchlist::is_channel(channel)
            && !clients.get(slot).is_some_and(|client| client.is_unconfirmed(channel))
        {
            let unsubscribed = v1::PusherUnsubscribed { channel: channel.to_owned() };
            self.put(clients, slot, turn, Event::Unsubscribed(unsubscribed));
        }
    }

    /// `closed` names the groups that it was in.
    pub(crate) fn closed(
        &mut self,
        clients: &ShardClients,
        slot: Slot,
        closed: &v1::Closed,
        turn: &mut Turn,
    ) {
        if !self.is_observed(clients, slot) {
            return;
        }
        let Some(client) = clients.get(slot) else { return };
        let was_in = |group: &&String| watchlist::is_channel(group) && !client.is_unconfirmed(group);
        let channels = closed.groups.iter().filter(was_in).cloned().collect();
        let (cause, code, reason) = (closed.cause, closed.code, closed.reason.clone());
        let closed = v1::PusherClosed { cause, code, reason, channels };
        self.put(clients, slot, turn, Event::Closed(closed));
    }
}

impl Client {
    fn is_unconfirmed(&self, channel: &str) -> bool {
        self.pending.as_deref().is_some_and(|pending| pending.is_new_to(channel))
    }
}

impl Pending {
    /// Is it the first subscription to this channel?
    fn is_new_to(&self, channel: &str) -> bool {
        !self.is_again && self.subscription.channel == channel
    }
}
