//! Clients that speak the Pusher protocol: their frames are decided about in `broadgate_pusher::talk`, and
//! acted on here. A channel is a group of the app.
//!
//! | file | what |
//! |---|---|
//! | `channels.rs` | subscribing, and the events of subscriptions |
//! | `users.rs` | signing in, and who of a watchlist is online |
//! | `offers.rs` | what clients do, for observers |
//! | `tenants.rs` | the apps of a shard's clients |

mod channels;
pub(super) mod client;
pub(super) mod offers;
pub(super) mod tenants;
mod users;
mod watchlist;

use std::rc::Rc;

use broadgate_proto::{
    id::ClientId,
    v1::{self, Cause, TapKind, answer::Answer, pusher_event},
};
use broadgate_pusher::{
    close, incoming,
    member::ChannelMember,
    outgoing, socket_id,
    talk::{self, Act, CLIENT_EVENT_LIMIT, Speaker},
};
use metrics::counter;

use crate::{
    apps::{AppEnd, AppTable},
    codec::encode::{close_frame, text_frame},
    command::{ChannelEvent, EventFlags},
    refusals::RefusalContext,
    shard::{clients::ShardClients, counters::Drop, slots::Slot, state::Shard, taps::TapDetails},
};

pub(crate) use self::client::PusherTenant;

pub(crate) use self::watchlist::signed_in_group;

impl Shard {
    /// The apps were replaced: clients go on by their present settings, or are closed.
    pub(crate) fn apps_changed(&mut self) {
        let table = self.config.apps.load();
        self.tenants.retain(&table);
        for slot in self.clients.taken() {
            self.follow_app(slot, &table);
        }
    }

    /// Closes a client, Pusher or raw, whose app was disabled or removed.
    pub(crate) fn follow_app(&mut self, slot: Slot, table: &AppTable) {
        let Some(client) = self.clients.get(slot) else { return };
        let gone = match &client.pusher {
            None => self.config.apps.closed_to_raw(&client.app, client.protocol.is_websocket()).map(|gone| {
                match gone {
                    AppEnd::Disabled => close::DISABLED,
                    AppEnd::Removed => close::REMOVED,
                }
            }),
            Some(_) => match table.by_id(&client.app).filter(|app| !app.keys.is_empty()) {
                Some(app) if app.enabled => {
                    let tenant = self.tenants.of(app);
                    let places = self.deps.places.clone().filter(|_| app.connections_max > 0);
                    if let Some(pusher) = self.clients.pusher(slot) {
                        pusher.tenant = tenant;
                        if let Some(places) = places.filter(|_| pusher.place.is_none()) {
                            // It came while there was no limit, so it is never too many; but it counts.
                            pusher.place = Some(places.claim(&app.id, u32::MAX));
                        }
                    }
                    None
                }
                Some(_) => Some(close::DISABLED),
                None => Some(close::NO_APP),
            },
        };
        let Some(close) = gone else { return };
        let frame = close_frame(close.code, close.reason);
        self.close_gracefully(slot, Cause::Command, close.code, close.reason, Some(frame));
    }

    /// The first frame to a new client.
    pub(crate) fn greet_pusher(&mut self, slot: Slot) {
        let socket_id = socket_id::text(self.clients.id_of(slot));
        let Some(pusher) = self.clients.pusher(slot) else { return };
        let seconds = pusher.tenant.app.activity_timeout.as_secs().max(1);
        self.say(slot, &outgoing::connection_established(&socket_id, seconds));
    }

    pub(crate) fn say(&mut self, slot: Slot, json: &str) {
        self.push_own(slot, text_frame(json));
    }

    pub(crate) fn on_pusher_text(&mut self, slot: Slot, text: &str) {
        let socket_id = socket_id::text(self.clients.id_of(slot));
        let Some(pusher) = self.clients.get(slot).and_then(|client| client.pusher.as_deref()) else { return };
        // It does not leave the server's own groups by their names: it could not be terminated any more.
        let is_in = |channel: &str| watchlist::is_channel(channel) && self.directory.is_member(slot, channel);
        let speaker = Speaker { socket_id: &socket_id, user: pusher.user.as_deref(), is_in: &is_in };
        let act = talk::decide(incoming::parse(text), &pusher.tenant.rules(), &speaker);
        self.act(slot, act);
    }

    pub(crate) fn on_pusher_binary(&mut self, slot: Slot) {
        let Some(pusher) = self.clients.pusher(slot) else { return };
        let compat = pusher.tenant.app.compat;
        self.say(slot, &outgoing::error(Some(4200), "binary messages are not supported: send text", compat));
    }

    fn act(&mut self, slot: Slot, act: Act) {
        match act {
            Act::Nothing => {}
            Act::Say(frame) => self.say(slot, &frame),
            Act::Refuse { frame, reason, why } => {
                if self.taps.is_open() {
                    self.tap(slot, TapKind::Dropped, &TapDetails { reason: &why, ..TapDetails::default() });
                }
                if let Some(client) = self.clients.get(slot) {
                    let (app, address) = (&*client.app, Some(client.address));
                    let refused =
                        RefusalContext { reason, why: &why, address, app, ..RefusalContext::default() };
                    self.deps.refuse(&refused);
                }
                self.say(slot, &frame);
            }
            Act::Subscribe(subscription) => self.subscribe(slot, subscription),
            Act::Unsubscribe(channel) => self.unsubscribe(slot, &channel),
            Act::SignIn { user, user_data } => self.sign_in(slot, user, &user_data),
            Act::Publish { channel, event, data } => self.publish(slot, channel, event, data),
        }
    }

    pub(crate) fn unsubscribe(&mut self, slot: Slot, channel: &str) {
        let seat = self.directory.seat(slot, channel);
        if self.part_group(slot, channel) {
            if self.taps.is_open() {
                self.tap_in_group(slot, TapKind::Left, channel);
            }
            if let Some(seat) = seat {
                self.forget_identity(slot, &seat.user);
            }
            self.offers.unsubscribed(&self.clients, slot, channel, &mut self.turn);
        }
        self.turn.request();
    }

    /// Tells a client that its event was refused. Socket.IO clients hear nothing of it, as from the server that
    /// they were made for.
    fn reject_event(&mut self, slot: Slot, why: &str) {
        let Some(pusher) = self.clients.pusher(slot).filter(|pusher| pusher.socketio.is_none()) else {
            return;
        };
        let compat = pusher.tenant.app.compat;
        let sentence = format!("Client event rejected - {why}");
        self.say(slot, &outgoing::error(Some(CLIENT_EVENT_LIMIT), &sentence, compat));
    }

    /// May a client subscribe to so many groups now? If its app's clients have made too many
    /// subscriptions, it may, and has to wait then.
    fn may_subscribe(&mut self, slot: Slot, groups: u32) -> bool {
        let (second, shards) = (self.second, u32::from(self.shards));
        let limits = &self.config.settings.limits;
        let burst = u32::try_from(limits.groups_per_client_max).unwrap_or(u32::MAX);
        let Some(pusher) = self.clients.pusher(slot) else { return false };
        let tenant = Rc::clone(&pusher.tenant);
        let limits = &tenant.app.limits;
        let burst = burst.saturating_add(u32::try_from(limits.watchlist_max).unwrap_or(u32::MAX));
        let fits = pusher.subscriptions.take(second, groups, limits.subscriptions_per_second_max, burst);
        if !fits {
            self.tally.drop(Drop::Rate, 1);
            return false;
        }
        let share = limits.app_subscriptions_per_second_max.div_ceil(shards.max(1));
        let mut rate = tenant.subscriptions.borrow_mut();
        if (0..groups).fold(true, |_, _| rate.take(second, share)) {
            return true;
        }
        if let Some(pusher) = self.clients.pusher(slot) {
            pusher.not_before = second + 1;
        }
        self.reads.delayed.push(slot);
        counter!("broadgate_gateway_pusher_delayed_total").increment(1);
        true
    }

    /// A client event goes the way of every command to one group. Nothing more is read from the client
    /// until it was placed.
    pub(crate) fn publish(&mut self, slot: Slot, channel: String, event: String, data: String) {
        let second = self.second;
        let id = self.clients.id_of(slot);
        let Some(client) = self.clients.get_mut(slot) else { return };
        let app = Rc::clone(&client.app);
        let Some(pusher) = client.pusher.as_deref_mut() else { return };
        let compat = pusher.tenant.app.compat;
        if let Some(max) = pusher.tenant.app.limits.client_events_max(compat)
            && !pusher.events.take(second, max)
        {
            self.tally.drop(Drop::Rate, 1);
            return self.reject_event(slot, &format!("more than {max} in a second"));
        }
        let seat = self.directory.seat(slot, &channel);
        let user_id_json = match &seat {
            Some(seat) => ChannelMember::of_seat(&seat.user, &seat.info).id_json(),
            None => String::new(),
        };
        let offer = self.offers.is_observed(&self.clients, slot).then(|| v1::PusherClientEvent {
            channel: channel.clone(),
            event: event.clone(),
            data_json: data.clone(),
            user_id: seat.map(|seat| seat.user.to_string()).unwrap_or_default(),
        });
        let event = ChannelEvent {
            app: (&*app).into(),
            channel,
            except: Some(id),
            name: event.into(),
            data: data.into(),
            user_id_json,
            flags: EventFlags::CLIENT,
            by: format!("client:{id}").into(),
            traceparent: None,
        };
        if self.deps.upcalls.as_ref().is_none_or(|upcalls| upcalls.events.try_send((id, event)).is_err()) {
            self.tally.drop(Drop::Busy, 1);
            return self.reject_event(slot, "the server is busy");
        }
        if let Some(pusher) = self.clients.pusher(slot) {
            pusher.is_placing = true;
        }
        if let Some(offer) = offer {
            self.offers.put(&self.clients, slot, &mut self.turn, pusher_event::Event::ClientEvent(offer));
        }
    }

    /// Clients hear of their events only if they were refused: their clients learn it as they learn of every other
    /// refusal.
    pub(crate) fn events_refused(&mut self, clients: &[ClientId], answers: Vec<v1::Answer>) {
        for v1::Answer { id, answer } in answers {
            let client = usize::try_from(id).ok().and_then(|place| clients.get(place));
            if let (Some(&client), Some(Answer::Error(error))) = (client, answer) {
                self.event_refused(client, &error.message);
            }
        }
    }

    pub(crate) fn event_refused(&mut self, client: ClientId, why: &str) {
        self.tally.drop(Drop::Refused, 1);
        let Some(slot) = self.clients.find(client) else { return };
        if self.taps.is_open() {
            self.tap_dropped(slot, Drop::Refused, None);
        }
        self.reject_event(slot, why);
    }
}

impl ShardClients {
    /// These clients' events have their places in the queues: their next frames may be read.
    pub(crate) fn events_placed(&mut self, clients: &[ClientId]) {
        for &client in clients {
            let Some(client) = self.find(client).and_then(|slot| self.get_mut(slot)) else {
                continue;
            };
            if let Some(pusher) = &mut client.pusher {
                pusher.is_placing = false;
                client.wake();
            }
        }
    }
}
