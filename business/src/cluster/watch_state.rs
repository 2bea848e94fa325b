//! What a watcher knows of groups: one picture made of what every gateway tells. Pure.
//!
//! Each group has one home at a time, and what gateways tell comes by streams of their own: the new home
//! may be heard before the old one's last words. So whatever a gateway tells is dated by the epoch up to
//! which it has told everything (`told`). A home tells nothing between a change of the ring and the next
//! `told`, and two homes of a group never tell of it under the same epoch: the later date is the later
//! home. Of a group that its home has not told of by then, there is nothing to tell.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use broadgate_proto::{
    id::Incarnation,
    ring::{RING_VERSION, Ring},
    v1::{Epoch, GroupEvents, PresenceMember, View, group_event::Event},
    view,
};

use super::topic::RingTopic;

/// A change in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupChange {
    /// The group's name.
    pub group: String,
    /// The change.
    pub kind: ChangeKind,
}

/// The kinds of changes in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// The group has its first client.
    Occupied,
    /// The first client of this user has joined.
    Joined {
        /// The user that clients have joined as, by [`Cluster::join_as`](crate::Cluster::join_as).
        user_id: String,
        /// What others see of the user.
        info: String,
    },
    /// The last client of this user has left.
    Left {
        /// The user.
        user_id: String,
    },
    /// The last client has left. All users have left before.
    Vacated,
}

/// What happens to a watcher.
#[derive(Debug, Clone)]
pub(super) enum Input {
    View(Arc<View>),
    /// A new stream to a gateway is open: everything that comes from it from now on is of this one.
    Opened(Incarnation),
    Received(Incarnation, GroupEvents),
}

/// What is to be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    Report(GroupChange),
    /// The gateway's events are not sufficient: reopen its stream after a while.
    Reopen(Incarnation),
}

/// What a ring depends on.
#[derive(Debug, Default, PartialEq, Eq)]
struct RingInputs {
    version: u32,
    ready: Vec<Incarnation>,
}

impl RingInputs {
    fn of(view: &View) -> Self {
        let version = view::gateways(view).map(|gateway| gateway.ring_version).min();
        let ready = view::ready_gateways(view);
        let mut ready: Vec<_> = ready.filter_map(|gateway| gateway.incarnation.parse().ok()).collect();
        ready.sort_unstable();
        Self { version: version.unwrap_or(RING_VERSION).max(1), ready }
    }
}

/// The stream to a gateway of the view.
#[derive(Debug, Default)]
struct GatewayStream {
    /// By this view it has told everything; the date of what it tells.
    complete_as_of: Option<Epoch>,
    /// And what it has not told of by then is gone.
    settled: bool,
    /// It is to be reopened.
    again: bool,
}

/// Where a group is at home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HomeState {
    /// There: it told of the group last, and tells what happens in it.
    At(Incarnation),
    /// Not there any more, says that gateway, which had told everything by this view before.
    Not(Incarnation, Epoch),
    /// Likewise, but it may be that it has told so after that.
    NotOrAgain(Incarnation, Epoch),
    /// Its state must be sent again, wherever its home is.
    Unknown,
}

/// A group that has clients.
#[derive(Debug)]
struct WatchedClients {
    home: HomeState,
    /// Whatever is dated before says nothing about it any more.
    date: Epoch,
    users: BTreeSet<Box<str>>,
}

/// The picture.
pub(super) struct WatchState {
    app: String,
    ring: Ring,
    places: RingInputs,
    epoch: Epoch,
    /// The ring is this one since that epoch, or longer.
    since: Epoch,
    /// It changed then, so every gateway says by an epoch not before that what it has told. Otherwise
    /// nobody may have a reason to.
    changed: bool,
    streams: BTreeMap<Incarnation, GatewayStream>,
    groups: BTreeMap<Arc<str>, WatchedClients>,
    out: Vec<Effect>,
}

/// The first epoch after this one.
const fn after(epoch: Epoch) -> Epoch {
    Epoch::new(epoch.term, epoch.count.saturating_add(1))
}

impl WatchState {
    pub(super) fn new(app: &str) -> Self {
        Self {
            app: app.to_owned(),
            ring: Ring::new([]),
            places: RingInputs::default(),
            epoch: Epoch::default(),
            since: Epoch::default(),
            changed: false,
            streams: BTreeMap::new(),
            groups: BTreeMap::new(),
            out: Vec::new(),
        }
    }

    /// One step. Changes are in the order in which they are to be told.
    pub(super) fn apply(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::View(view) => self.follow(&view),
            Input::Opened(gateway) => self.opened(gateway),
            Input::Received(gateway, events) => self.received(gateway, events),
        }
        std::mem::take(&mut self.out)
    }

    fn follow(&mut self, view: &View) {
        let epoch = view::epoch(view);
        // The cluster was restarted as a whole: earlier epochs are no measure of new ones.
        if epoch < self.epoch {
            let incomplete =
                || GatewayStream { complete_as_of: Some(Epoch::default()), ..GatewayStream::default() };
            self.streams.values_mut().for_each(|stream| *stream = incomplete());
            self.groups.values_mut().for_each(|group| group.date = Epoch::default());
        }
        let places = RingInputs::of(view);
        let next = view.before.unwrap_or_default() == self.epoch && epoch > Epoch::default();
        if epoch != self.epoch && (!next || places != self.places) {
            (self.since, self.changed) = (epoch, next);
        }
        if places != self.places {
            self.ring = Ring::of_view(view);
            self.places = places;
        }
        self.epoch = epoch;
        let there: BTreeSet<Incarnation> =
            view::gateways(view).filter_map(|gateway| gateway.incarnation.parse().ok()).collect();
        self.streams.retain(|gateway, _| there.contains(gateway));
        for gateway in there {
            self.streams.entry(gateway).or_default();
        }
        for group in self.groups.values_mut() {
            if matches!(group.home, HomeState::At(gateway) if !self.streams.contains_key(&gateway)) {
                group.home = HomeState::Unknown;
            }
        }
        for gateway in self.streams.keys().copied().collect::<Vec<_>>() {
            self.settle(gateway);
        }
    }

    fn opened(&mut self, gateway: Incarnation) {
        let Some(stream) = self.streams.get_mut(&gateway) else { return };
        *stream = GatewayStream::default();
        for group in self.groups.values_mut() {
            match group.home {
                HomeState::At(home) | HomeState::Not(home, _) | HomeState::NotOrAgain(home, _)
                    if home == gateway =>
                {
                    group.home = HomeState::Unknown;
                }
                _ => {}
            }
        }
    }

    fn received(&mut self, gateway: Incarnation, batch: GroupEvents) {
        let Some(stream) = self.streams.get_mut(&gateway) else { return };
        // What was under way in the gateway when the stream was opened: it comes again.
        let Some(now) = batch.complete_as_of.or(stream.complete_as_of) else { return };
        let before = stream.complete_as_of.unwrap_or_default();
        if batch.complete_as_of.is_some() {
            (stream.complete_as_of, stream.settled) = (batch.complete_as_of, false);
        }
        // One batch may tell what was before a change of the ring and what was after it.
        let mut moved: HashMap<String, usize> = HashMap::new();
        for event in batch.events.iter().filter(|event| matches!(event.event, Some(Event::Moved(_)))) {
            *moved.entry(event.group.clone()).or_default() += 1;
        }
        for event in batch.events {
            let name = event.group;
            let date = if moved.contains_key(&name) { before } else { now };
            match event.event {
                Some(Event::Is(state)) => self.is(gateway, &name, state.members, date),
                Some(Event::Moved(_)) => {
                    if let Some(later) = moved.get_mut(&name).filter(|later| **later > 1) {
                        *later -= 1;
                    } else {
                        moved.remove(&name);
                    }
                    let to = match batch.complete_as_of {
                        None => HomeState::Not(gateway, now),
                        Some(complete_as_of) => HomeState::NotOrAgain(gateway, complete_as_of),
                    };
                    self.moved(gateway, &name, to, after(before));
                }
                Some(event) => self.happened(gateway, &name, event),
                // A kind that this program does not know.
                None => {}
            }
        }
        self.settle(gateway);
    }

    /// A gateway tells all of a group.
    fn is(&mut self, gateway: Incarnation, name: &str, members: Vec<PresenceMember>, date: Epoch) {
        let known = self.groups.get(name);
        if known.is_some_and(|group| group.home != HomeState::At(gateway) && group.date > date)
            || (known.is_none() && self.is_past(gateway, name, date))
        {
            return;
        }
        let name = match self.groups.get_key_value(name) {
            Some((name, _)) => name.clone(),
            None => Arc::from(name),
        };
        let group = self.groups.entry(name.clone()).or_insert_with(|| {
            self.out.push(report_of(&name, ChangeKind::Occupied));
            WatchedClients { home: HomeState::Unknown, date, users: BTreeSet::new() }
        });
        (group.home, group.date) = (HomeState::At(gateway), group.date.max(date));
        let there: HashMap<&str, &str> =
            members.iter().map(|member| (&*member.user_id, &*member.info)).collect();
        group.users.retain(|user| {
            let stays = there.contains_key(&**user);
            if !stays {
                self.out.push(report_of(&name, ChangeKind::Left { user_id: user.to_string() }));
            }
            stays
        });
        for member in members {
            join(&mut self.out, group, &name, member);
        }
    }

    /// Has a later home of the group told, by what is known of it, that there is nothing to tell?
    fn is_past(&self, gateway: Incarnation, name: &str, date: Epoch) -> bool {
        let home = self.home(name).filter(|home| *home != gateway);
        let stream = home.and_then(|home| self.streams.get(&home));
        let complete_as_of = stream.filter(|stream| stream.settled).and_then(|stream| stream.complete_as_of);
        complete_as_of.is_some_and(|complete_as_of| complete_as_of >= self.since && complete_as_of > date)
    }

    /// Another gateway is the home, by a view not before this date.
    fn moved(&mut self, gateway: Incarnation, name: &str, to: HomeState, date: Epoch) {
        if let Some(group) = self.groups.get_mut(name).filter(|group| group.home == HomeState::At(gateway)) {
            (group.home, group.date) = (to, date);
        }
    }

    fn happened(&mut self, gateway: Incarnation, name: &str, event: Event) {
        let Some((name, _)) = self.groups.get_key_value(name) else { return };
        let name = name.clone();
        let Some(group) = self.groups.get_mut(&name).filter(|group| group.home == HomeState::At(gateway))
        else {
            return;
        };
        match event {
            Event::Joined(member) => join(&mut self.out, group, &name, member),
            Event::Left(user_id) => {
                if group.users.remove(&*user_id) {
                    self.out.push(report_of(&name, ChangeKind::Left { user_id }));
                }
            }
            Event::Vacated(_) => self.forget(&name),
            Event::Is(_) | Event::Moved(_) => {}
        }
    }

    /// What the gateway has not told of, though it is the home and has told everything, is gone: as soon
    /// as our view knows the ring by which it is the home.
    fn settle(&mut self, gateway: Incarnation) {
        let Some(stream) = self.streams.get_mut(&gateway) else { return };
        let Some(complete_as_of) = stream.complete_as_of.filter(|_| !stream.settled) else { return };
        if complete_as_of < self.since {
            if !self.changed {
                self.reopen(gateway);
            }
            return;
        }
        if complete_as_of > self.epoch {
            return;
        }
        stream.settled = true;
        let (mut gone, mut unclear) = (Vec::new(), false);
        for (name, group) in &self.groups {
            let reported = group.home == HomeState::At(gateway) || group.date > complete_as_of;
            if reported || self.home(name) != Some(gateway) {
                continue;
            }
            match group.home {
                HomeState::Not(former, then) if former == gateway && then >= complete_as_of => {}
                HomeState::NotOrAgain(former, then) if former == gateway && then >= complete_as_of => {
                    unclear = true
                }
                _ => gone.push(name.clone()),
            }
        }
        for name in gone {
            self.forget(&name);
        }
        if unclear {
            self.reopen(gateway);
        }
    }

    fn reopen(&mut self, gateway: Incarnation) {
        if let Some(stream) = self.streams.get_mut(&gateway).filter(|stream| !stream.again) {
            stream.again = true;
            self.out.push(Effect::Reopen(gateway));
        }
    }

    fn home(&self, group: &str) -> Option<Incarnation> {
        self.ring.pick(RingTopic::group(&self.app, group).key())
    }

    fn forget(&mut self, name: &Arc<str>) {
        let Some(group) = self.groups.remove(name) else { return };
        for user_id in group.users {
            self.out.push(report_of(name, ChangeKind::Left { user_id: user_id.into() }));
        }
        self.out.push(report_of(name, ChangeKind::Vacated));
    }
}

fn report_of(group: &Arc<str>, kind: ChangeKind) -> Effect {
    Effect::Report(GroupChange { group: group.to_string(), kind })
}

fn join(out: &mut Vec<Effect>, group: &mut WatchedClients, name: &Arc<str>, member: PresenceMember) {
    if group.users.insert(member.user_id.clone().into_boxed_str()) {
        let PresenceMember { user_id, info } = member;
        out.push(report_of(name, ChangeKind::Joined { user_id, info }));
    }
}

#[cfg(test)]
mod rules;
#[cfg(test)]
mod world;
