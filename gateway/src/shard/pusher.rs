//! Clients that speak the Pusher protocol: their frames are decided about in `crate::pusher::talk`, and
//! acted on here. A channel is a group of the app.

use std::{rc::Rc, sync::Arc};

use broadgate_proto::v1::{self, Cause, command::Command, send_request::Payload};
use bytes::Bytes;

use super::{
    client::Rate,
    directory::Slot,
    presence::Seat,
    state::Shard,
};
use crate::{
    actor::{self, Live},
    apps::App,
    codec::encode::{Frames, close_frame, text_frame},
    homes::{Entered, MemberChange, Topic},
    orders::{Audience, Order},
    pusher::{
        auth::Key,
        channel::Kind,
        close,
        incoming,
        member::{Member, User},
        outgoing, socket_id,
        talk::{self, Act, Rules, Speaker, Subscription},
    },
    tally::Drop,
};

/// Connections signed in as a user are in this group, to be closed together.
pub(crate) fn signed_in_group(user: &str) -> String {
    format!("#signed-in-{user}")
}

/// An app as clients need it.
pub(crate) struct Tenant {
    pub(crate) app: Arc<App>,
    pub(crate) keys: Vec<Key>,
}

impl Tenant {
    pub(crate) fn new(app: &Arc<App>) -> Self {
        let keys = app.keys.iter().map(|key| Key::new(&key.key, key.secret.reveal())).collect();
        Self { app: Arc::clone(app), keys }
    }

    fn rules(&self) -> Rules<'_> {
        Rules {
            keys: &self.keys,
            limits: &self.app.limits,
            compat: self.app.compat,
            client_events: self.app.client_events,
        }
    }
}

/// What a Pusher client has besides what every client has.
pub(crate) struct PusherClient {
    pub(crate) tenant: Rc<Tenant>,
    pub(crate) user: Option<Box<User>>,
    /// The subscription that is under way. Nothing else is read from the client meanwhile: its frames
    /// take effect in their order.
    pub(crate) pending: Option<Box<Pending>>,
    events: Rate,
    /// It has shown a signature of its app.
    pub(crate) is_authorized: bool,
}

/// A subscription that the channel's home has not confirmed.
pub(crate) struct Pending {
    subscription: Subscription,
    /// What came to the channel meanwhile: the confirmation goes first.
    held: Vec<Bytes>,
    held_bytes: usize,
}

impl PusherClient {
    pub(crate) fn new(tenant: Rc<Tenant>) -> Self {
        Self { tenant, user: None, pending: None, events: Rate::default(), is_authorized: false }
    }

    /// How long a message it may send: an event as large as it may be, written with escapes.
    pub(crate) fn message_bytes_max(&self) -> usize {
        2 * self.tenant.app.limits.event_data_bytes_max + 4096
    }
}

impl Shard {
    /// An app as its clients here share it.
    pub(crate) fn tenant(&mut self, app: &Arc<App>) -> Rc<Tenant> {
        if let Some(known) = self.tenants.get(&*app.id).filter(|known| Arc::ptr_eq(&known.app, app)) {
            return Rc::clone(known);
        }
        let tenant = Rc::new(Tenant::new(app));
        self.tenants.insert(app.id.as_str().into(), Rc::clone(&tenant));
        tenant
    }

    /// The apps were read anew: clients go on by what they say now.
    pub(crate) fn apps_changed(&mut self) {
        let table = self.config.apps.load();
        self.tenants.retain(|id, _| table.by_id(id).is_some());
        for slot in self.clients.taken() {
            let Some(pusher) = self.pusher(slot) else { continue };
            let former = Rc::clone(&pusher.tenant);
            let gone = match table.by_id(&former.app.id).filter(|app| !app.keys.is_empty()) {
                Some(app) if app.enabled => {
                    let tenant = self.tenant(app);
                    if let Some(pusher) = self.pusher(slot) {
                        pusher.tenant = tenant;
                    }
                    continue;
                }
                Some(_) => close::DISABLED,
                None => close::NO_APP,
            };
            let frame = close_frame(gone.code, gone.reason);
            self.let_go(slot, Cause::Command, gone.code, gone.reason, Some(frame));
        }
    }

    /// The first frame to a new client.
    pub(crate) fn greet_pusher(&mut self, slot: Slot) {
        let socket_id = socket_id::text(self.id_of(slot));
        let Some(pusher) = self.pusher(slot) else { return };
        let seconds = pusher.tenant.app.activity_timeout.as_secs().max(1);
        self.say(slot, &outgoing::connection_established(&socket_id, seconds));
    }

    fn pusher(&mut self, slot: Slot) -> Option<&mut PusherClient> {
        self.clients.get_mut(slot)?.pusher.as_deref_mut()
    }

    fn say(&mut self, slot: Slot, json: &str) {
        self.push_own(slot, text_frame(json));
    }

    pub(crate) fn on_pusher_text(&mut self, slot: Slot, text: &str) {
        let socket_id = socket_id::text(self.id_of(slot));
        let Some(pusher) = self.clients.get(slot).and_then(|client| client.pusher.as_deref()) else { return };
        let is_in = |channel: &str| self.directory.is_member(slot, channel);
        let speaker = Speaker { socket_id: &socket_id, user: pusher.user.as_deref(), is_in: &is_in };
        let act = talk::decide(incoming::parse(text), &pusher.tenant.rules(), &speaker);
        self.act(slot, act);
    }

    pub(crate) fn on_pusher_binary(&mut self, slot: Slot) {
        let Some(pusher) = self.pusher(slot) else { return };
        let compat = pusher.tenant.app.compat;
        self.say(slot, &outgoing::error(Some(4200), "binary messages are not supported: send text", compat));
    }

    fn act(&mut self, slot: Slot, act: Act) {
        match act {
            Act::Nothing => {}
            Act::Say(frame) => self.say(slot, &frame),
            Act::Subscribe(subscription) => self.subscribe(slot, subscription),
            Act::Unsubscribe(channel) => {
                self.directory.part(slot, &channel);
                self.ask_turn();
            }
            Act::SignIn { user, user_data } => self.sign_in(slot, user, &user_data),
            Act::Publish { channel, event, data } => self.publish(slot, channel, event, data),
        }
    }

    /// Joins the group at once, so that nothing is missed, and asks its home for what the client needs
    /// to follow it.
    fn subscribe(&mut self, slot: Slot, subscription: Subscription) {
        let max = self.config.settings.limits.groups_per_client_max;
        let channel = subscription.channel.as_str();
        let Some(client) = self.clients.get(slot) else { return };
        let app = Rc::clone(&client.app);
        if !self.directory.join(slot, channel, max) {
            let sentence = format!("the connection is in {max} channels already, as many as it may be in");
            return self.refuse(slot, channel, "LimitReached", &sentence, 403);
        }
        let user: Option<Arc<str>> = subscription.member.as_ref().map(|(user, info)| {
            let seat = Seat { user: user.as_str().into(), info: info.as_str().into() };
            self.directory.sit(slot, channel, &seat);
            seat.user
        });
        let topic = Topic::group(&app, channel);
        let signed = !matches!(subscription.kind.access, crate::pusher::channel::Access::Public);
        if let Some(pusher) = self.pusher(slot) {
            pusher.is_authorized |= signed;
            pusher.pending =
                Some(Box::new(Pending { subscription, held: Vec::new(), held_bytes: 0 }));
        }
        // Before the question: the home must have heard of the client.
        self.tell_standings();
        let client = self.id_of(slot);
        let Some(dispatcher) = self.desk.dispatcher() else { return };
        tokio::task::spawn_local(async move {
            dispatcher.homes.tell(actor::Event::Enter { client, topic, user }).await;
        });
    }

    fn refuse(&mut self, slot: Slot, channel: &str, kind: &str, sentence: &str, status: u16) {
        let Some(pusher) = self.pusher(slot) else { return };
        let frame = talk::refusal(channel, kind, sentence, status, pusher.tenant.app.compat);
        self.say(slot, &frame);
    }

    /// The client follows the channel from here.
    pub(crate) fn entered(&mut self, slot: Slot, topic: &Topic, entered: &Entered<Live>) {
        let Some(client) = self.clients.get_mut(slot).filter(|client| client.is_open()) else { return };
        let Some(pusher) = client.pusher.as_deref_mut() else { return };
        let is_it = |pending: &mut Box<Pending>| pending.subscription.channel == topic.name();
        let Some(pending) = pusher.pending.take_if(is_it) else { return };
        let members_max = pusher.tenant.app.limits.presence_members_max;
        client.wake();
        let Pending { subscription, held, .. } = *pending;
        let Subscription { channel, kind, member } = subscription;
        let frame = match &member {
            None => outgoing::subscription_succeeded(&channel),
            Some((user, info)) => {
                let members = members(&entered.members, user, info);
                if members.len() > members_max {
                    let sentence = format!("the channel has {members_max} members, as many as it may have");
                    self.directory.part(slot, &channel);
                    self.ask_turn();
                    return self.refuse(slot, &channel, "LimitReached", &sentence, 403);
                }
                outgoing::presence_subscription_succeeded(&channel, &members)
            }
        };
        self.say(slot, &frame);
        if kind.cache {
            self.say_cached(slot, &channel, entered, &held);
        }
        for frame in held {
            self.push_own(slot, frame);
        }
    }

    /// The event that a cache channel keeps, unless it is among those that come next.
    fn say_cached(&mut self, slot: Slot, channel: &str, entered: &Entered<Live>, held: &[Bytes]) {
        let cached = entered.value.as_ref().and_then(|job| match job.order.inner() {
            Order::Send { frames, .. } => frames.pusher.clone(),
            _ => None,
        });
        match cached {
            None => self.say(slot, &outgoing::cache_miss(channel)),
            Some(frame) if held.contains(&frame) => {}
            Some(frame) => self.push_own(slot, frame),
        }
    }

    fn sign_in(&mut self, slot: Slot, user: User, user_data: &str) {
        let group = signed_in_group(&user.id);
        let max = self.config.settings.limits.groups_per_client_max;
        let watchlist_cut = user.watchlist_cut;
        let Some(pusher) = self.pusher(slot) else { return };
        let (compat, watched_max) = (pusher.tenant.app.compat, pusher.tenant.app.limits.watchlist_max);
        pusher.user = Some(Box::new(user));
        pusher.is_authorized = true;
        if !self.directory.join(slot, &group, max) {
            let sentence = format!("the connection is in {max} channels already, as many as it may be in");
            return self.say(slot, &outgoing::error(Some(4009), &sentence, compat));
        }
        self.ask_turn();
        self.say(slot, &outgoing::signin_success(user_data));
        if watchlist_cut {
            let sentence = format!("Watchlist limit exceeded: the first {watched_max} users are watched");
            self.say(slot, &outgoing::error(Some(4302), &sentence, compat));
        }
    }

    /// A client event goes the way of every command to one group.
    fn publish(&mut self, slot: Slot, channel: String, event: String, data: String) {
        let second = self.second;
        let client_id = self.id_of(slot).to_string();
        let Some(client) = self.clients.get_mut(slot) else { return };
        let app = client.app.to_string();
        let Some(pusher) = client.pusher.as_deref_mut() else { return };
        let (compat, max) = (pusher.tenant.app.compat, pusher.tenant.app.limits.client_events_per_second_max);
        if !pusher.events.take(second, max) {
            let sentence = format!("Client event rejected - more than {max} in a second");
            return self.say(slot, &outgoing::error(Some(4301), &sentence, compat));
        }
        let user_id_json = match self.directory.seat(slot, &channel) {
            Some(seat) => Member::of_seat(&seat.user, &seat.info).id_json(),
            None => String::new(),
        };
        let except = v1::Except { clients: vec![client_id], ..v1::Except::default() };
        let to = v1::Audience { app, groups: vec![channel], except: Some(except), ..v1::Audience::default() };
        let send = v1::SendRequest {
            to: Some(to),
            payload: Some(Payload::Text(data)),
            event,
            user_id_json,
            data_json: true,
            not_kept: true,
            no_receipt: true,
            ..v1::SendRequest::default()
        };
        let command = v1::Command { command: Some(Command::Send(send)), ..v1::Command::default() };
        if self.commands.as_ref().is_none_or(|commands| commands.try_send(command).is_err()) {
            self.tally.drop(Drop::Busy, 1);
            self.say(slot, &outgoing::error(Some(4301), "Client event rejected - the server is busy", compat));
        }
    }

    /// Presence members of a channel have come and gone: everybody else in it is told.
    pub(crate) fn tell_present(&mut self, topic: &Topic, members: &[MemberChange]) {
        let (app, channel) = (topic.app(), topic.name());
        if !Kind::of(channel).is_presence() {
            return;
        }
        let slots = self.directory.group_members(app, channel).to_vec();
        let frames: Vec<(&str, Bytes)> = members.iter().map(|change| (&*change.user, told(channel, change))).collect();
        for slot in slots {
            let Some(pusher) = self.clients.get(slot).and_then(|client| client.pusher.as_deref()) else { continue };
            // Who is not subscribed yet is told of everybody at once.
            if pusher.pending.as_ref().is_some_and(|pending| pending.subscription.channel == channel) {
                continue;
            }
            let own = self.directory.seat(slot, channel).map(|seat| seat.user);
            for (user, frame) in &frames {
                if own.as_deref() != Some(*user) {
                    self.push_own(slot, frame.clone());
                }
            }
        }
    }

    /// The form of a message that a client gets, by the group in which it is reached.
    pub(crate) fn frames_for<'a>(
        &self,
        slot: Slot,
        to: &Audience,
        frames: &'a Frames,
        by_group: &'a [Frames],
    ) -> &'a Frames {
        let reached = to.groups.iter().zip(by_group).find(|(group, _)| self.directory.is_member(slot, group));
        reached.map_or(frames, |(_, frames)| frames)
    }

    /// Places a message, behind the confirmation of the channel's subscription if that is under way.
    pub(crate) fn place_for(&mut self, slot: Slot, to: &Audience, frames: &Frames) -> Result<(), Drop> {
        let bytes_max = self.config.settings.limits.outbox_bytes_max;
        let pending = self.pusher(slot).and_then(|pusher| pusher.pending.as_mut());
        let Some(pending) =
            pending.filter(|pending| to.groups.iter().any(|group| **group == pending.subscription.channel))
        else {
            return self.place(slot, frames);
        };
        let frame = frames.pusher.clone().ok_or(Drop::Protocol)?;
        pending.held_bytes += frame.len();
        if pending.held_bytes > bytes_max {
            self.close_slow(slot);
            return Err(Drop::Slow);
        }
        pending.held.push(frame);
        Ok(())
    }
}

/// Everybody who is present, the client's own user among them.
fn members<'a>(present: &'a [(Arc<str>, Arc<str>)], user: &'a str, info: &'a str) -> Vec<Member<'a>> {
    let mut members: Vec<_> = present.iter().map(|(user, info)| Member::of_seat(user, info)).collect();
    // The home did not answer in time.
    if present.iter().all(|(other, _)| **other != *user) {
        members.push(Member::of_seat(user, info));
    }
    members
}

fn told(channel: &str, change: &MemberChange) -> Bytes {
    text_frame(&match &change.info {
        Some(info) => outgoing::member_added(channel, &Member::of_seat(&change.user, info)),
        // The id's form is not known any more: SDKs and browsers compare ids as texts.
        None => outgoing::member_removed(channel, &Member::of_seat(&change.user, "")),
    })
}
