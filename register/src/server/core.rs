//! The register's state machine: no clock, no socket; `apply(input, now) -> effects`.
//!
//! Every change of the list is in a new epoch: the first at once, those within [`VIEW_INTERVAL`] together in
//! the next. A member is removed by its own goodbye, once a view has shown that it goes,
//! by an operator, by a newer gateway at its address, or when its lease ends; never because its
//! stream broke. Inputs of a connection that its member has replaced touch nothing.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use broadgate_proto::{
    id::Incarnation,
    limits::{VIEW_BYTES_MAX, VIEW_INTERVAL},
    v1::{BeatAnswer, Epoch, Hello, Member, MemberState, Removed, Role, View, Welcome, join_reply::Reply},
    view,
};

use super::{
    check::{self, PeerOrigin},
    history::{Base, Graveyard, RecentViews, SteppedDown, Terms},
    step::{ConnectionId, Effect, Happened, Input, Now, OperatorAnswer, RegisterRefusal, RemovalReason},
};

mod operator;
mod pending;
mod take_over;

use pending::PendingView;

#[derive(Debug)]
struct MemberEntry {
    member: Member,
    /// When it was last heard, or when a view that names it was taken over.
    last_seen: Duration,
    connection: Option<ConnectionId>,
    /// It has said goodbye, and the next view shows that it goes: the view after that is without it.
    left: bool,
}

impl MemberEntry {
    /// One that is heard now.
    const fn heard(member: Member, now: Now, connection: Option<ConnectionId>) -> Self {
        Self { member, last_seen: now.up, connection, left: false }
    }
}

/// A register without clock and sockets.
#[derive(Debug)]
pub struct Core {
    beat: Duration,
    lease: Duration,
    members_max: usize,
    salt: Option<u16>,
    epoch: Epoch,
    /// Views of a new term are counted from here: a register that has stepped down begins with its first
    /// term again, and no two views may have one name.
    count_from: u64,
    /// The highest count of all its views.
    count_max: u64,
    /// Its views are made from nothing: nobody has reported one, and its first lease is not over.
    fresh: bool,
    /// A report was taken over since it started or stepped down.
    took_one_over: bool,
    /// In its first lease a member reported a term that was not believed.
    doubted: bool,
    members: BTreeMap<Incarnation, MemberEntry>,
    /// What they take in a view.
    members_bytes: usize,
    view_bytes_max: usize,
    connections: HashMap<ConnectionId, Incarnation>,
    view: Arc<View>,
    /// The last views, for members that missed some while they redialled.
    recent: RecentViews,
    /// The next view is made from this one of another register.
    took_over: Option<Epoch>,
    removed: Graveyard,
    terms: Terms,
    base: Base,
    /// A ledger had views: whatever members report is among them, or was made from one of them.
    one_history: bool,
    last_tick: Duration,
    /// Until then nobody is removed for silence.
    patient_until: Duration,
    stepped_down: Option<SteppedDown>,
    pending: PendingView,
}

impl Core {
    /// A fresh register: epoch 0.0, no members.
    #[must_use]
    pub fn new(beat: Duration, lease: Duration, members_max: usize) -> Self {
        Self {
            beat,
            lease,
            members_max,
            salt: None,
            epoch: Epoch::new(0, 0),
            count_from: 0,
            count_max: 0,
            fresh: true,
            took_one_over: false,
            doubted: false,
            members: BTreeMap::new(),
            members_bytes: 0,
            view_bytes_max: VIEW_BYTES_MAX,
            connections: HashMap::new(),
            view: Arc::new(View { epoch: Some(Epoch::new(0, 0)), ..View::default() }),
            recent: RecentViews::default(),
            took_over: None,
            removed: Graveyard::default(),
            terms: Terms::default(),
            base: Base::default(),
            one_history: false,
            last_tick: Duration::ZERO,
            // A fresh register cannot know who still finds the way to it.
            patient_until: lease,
            stepped_down: None,
            pending: PendingView::new(VIEW_INTERVAL),
        }
    }

    /// Ends its terms in these random bits. Two registers may take over the same view one after the
    /// other, of which the second hears nothing of the first: their views must not have the same names,
    /// or who knows the one would take the other for it.
    #[must_use]
    pub const fn with_salt(mut self, salt: u16) -> Self {
        self.salt = Some(salt);
        self
    }

    /// Takes views of at most so many bytes, where the ledger takes less than members do.
    #[must_use]
    pub const fn with_view_bytes_max(mut self, bytes: usize) -> Self {
        self.view_bytes_max = bytes;
        self
    }

    /// Makes no more than one view in this time. The default is [`VIEW_INTERVAL`].
    #[must_use]
    pub fn with_view_interval(mut self, interval: Duration) -> Self {
        self.pending = PendingView::new(interval);
        self
    }

    /// Begins now, not when the process started.
    #[must_use]
    pub fn beginning_at(mut self, now: Now) -> Self {
        self.last_tick = now.up;
        self.patient_until = now.up + self.lease;
        self
    }

    /// Who was removed last, at most so many, oldest first.
    pub fn last_removed(&self, max: usize) -> impl Iterator<Item = Incarnation> {
        self.removed.last(max)
    }

    /// The oldest view that is kept for members that have missed some.
    #[must_use]
    pub fn oldest_kept(&self) -> Epoch {
        self.recent.oldest().unwrap_or(self.epoch)
    }

    /// The current view.
    #[must_use]
    pub const fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// When [`Input::Tick`] has to come at the latest, since a change waits for its view.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Duration> {
        self.pending.due_at()
    }

    /// One step.
    pub fn apply(&mut self, input: Input, now: Now) -> Vec<Effect> {
        let mut out = Vec::new();
        // Of the list that a register forgets when it steps down nothing is left to be shown.
        let shows_all = matches!(input, Input::StepDown { .. });
        while self.pending.is_due(now) || self.pending.waits() && shows_all {
            self.publish(now, &mut out);
        }
        let term = self.epoch.term;
        let effects = self.step(input, now);
        self.pending.take(effects, &mut out);
        // A term begins at once: whatever was reported is not reported again.
        let mut began = self.pending.waits() && self.epoch.term != term;
        while std::mem::take(&mut began) || self.pending.is_due(now) {
            self.publish(now, &mut out);
        }
        out
    }

    fn step(&mut self, input: Input, now: Now) -> Vec<Effect> {
        let mut out = Vec::new();
        match input {
            Input::Hello { connection, origin, hello } => {
                self.hello(connection, origin, *hello, now, &mut out);
            }
            Input::Beat { connection, number } => {
                if let Some((_, entry)) = self.of(connection) {
                    entry.last_seen = now.up;
                    out.push(Effect::Reply(connection, Reply::Beat(BeatAnswer { number, ledger_lag_ms: 0 })));
                }
            }
            Input::SetState { connection, state } => self.set_state(connection, state, now),
            Input::Goodbye { connection } => {
                if let Some((incarnation, _)) = self.of(connection) {
                    self.goodbye(incarnation, &mut out);
                    self.pending.change();
                }
            }
            Input::Lost { connection } => {
                if let Some((_, entry)) = self.of(connection) {
                    entry.connection = None;
                }
                self.connections.remove(&connection);
            }
            Input::Leave { incarnation } => {
                let answer = self.leave(&incarnation, &mut out);
                out.push(Effect::Answer(answer));
            }
            Input::Drain { gateway, by } => {
                let answer = self.drain(&gateway, by.map(|by| *by), &mut out);
                out.push(Effect::Answer(answer));
            }
            Input::StepDown { epoch, register } => {
                self.step_down(epoch, register, now, &mut out);
                let incarnation = Incarnation::from_bits(0);
                out.push(Effect::Answer(Ok(OperatorAnswer { epoch: self.epoch, incarnation })));
            }
            Input::Tick => self.tick(now, &mut out),
        }
        out
    }

    fn of(&mut self, connection: ConnectionId) -> Option<(Incarnation, &mut MemberEntry)> {
        let incarnation = *self.connections.get(&connection)?;
        let entry = self.members.get_mut(&incarnation)?;
        (entry.connection == Some(connection)).then_some((incarnation, entry))
    }

    fn hello(
        &mut self,
        connection: ConnectionId,
        origin: PeerOrigin,
        hello: Hello,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Hello { member, view: reported, .. } = hello;
        let checked = if self.connections.contains_key(&connection) {
            Err("a second Hello on one stream: a member says Hello once, then beats".to_owned())
        } else {
            check::hello(origin, member)
        };
        let (incarnation, member) = match checked {
            Ok(checked) => checked,
            Err(sentence) => return out.push(Effect::Refuse(connection, RegisterRefusal::Invalid(sentence))),
        };
        let has_left = self.members.get(&incarnation).is_some_and(|entry| entry.left);
        if has_left || self.removed.contains(incarnation) {
            return dismiss(connection, "this incarnation was removed: join as a new one", out);
        }
        let knows = reported.as_ref().and_then(|view| view.epoch);
        if self.refers(knows, now) {
            return self.refer(connection, out);
        }
        if let Some(epoch) = knows.filter(|epoch| epoch.term > 0 && !self.believes(*epoch, now)) {
            let sentence = format!(
                "this member reports a view of term {}, far above the register's {}: it is not believed now",
                epoch.term, self.epoch.term
            );
            return out.push(Effect::Refuse(connection, RegisterRefusal::Unavailable(sentence)));
        }
        let names_itself = reported.as_ref().is_some_and(|view| Base::of(view).names(incarnation));
        let mut changed = reported.is_some_and(|view| self.take_over(&view, now, out));
        let known = self.members.contains_key(&incarnation);
        if !known && (names_itself || self.removed.contains(incarnation)) {
            // It was in a view once and is not in the newest: some register has removed it, so it is dead.
            self.removed.add(incarnation);
            dismiss(connection, "removed by an earlier register: join as a new incarnation", out);
        } else if !known && self.members.len() >= self.members_max {
            let sentence = format!("the cluster has {} members, as many as it may have", self.members_max);
            out.push(Effect::Refuse(connection, RegisterRefusal::Full(sentence)));
        } else if !self.has_room(&member, Some(incarnation)) {
            let sentence = format!(
                "the members of the cluster announce {} bytes, and with this one more than the {} that a view \
                 may have: give the members fewer or shorter services, listeners and addresses",
                self.members_bytes, self.view_bytes_max
            );
            out.push(Effect::Refuse(connection, RegisterRefusal::Full(sentence)));
        } else if let Some(sentence) = self.taken(incarnation, &member, now) {
            out.push(Effect::Refuse(connection, RegisterRefusal::Taken(sentence)));
        } else {
            changed |= self.admit(connection, incarnation, member, now, out);
            out.push(Effect::Reply(connection, self.welcome(origin)));
            for view in self.missed_since(knows, changed || self.pending.waits()) {
                out.push(Effect::Show(connection, view));
            }
        }
        if changed {
            self.pending.change();
        }
    }

    /// What a member that knows this view has missed, one by one; else the present view, unless the
    /// next is about to be made: the present one may be without those that were only now reported.
    fn missed_since(&self, knows: Option<Epoch>, next_follows: bool) -> Vec<Arc<View>> {
        self.recent.after(knows, !next_follows)
    }

    /// Does a view hold this member too, in place of what it announced before?
    fn has_room(&self, member: &Member, known: Option<Incarnation>) -> bool {
        let before = known.and_then(|known| self.members.get(&known));
        let before = before.map_or(0, |entry| check::bytes_in_view(&entry.member));
        self.members_bytes - before + check::bytes_in_view(member) <= self.view_bytes_max
    }

    /// Puts a member on the list.
    fn insert(&mut self, incarnation: Incarnation, entry: MemberEntry) {
        self.members_bytes += check::bytes_in_view(&entry.member);
        if let Some(former) = self.members.insert(incarnation, entry) {
            self.members_bytes -= check::bytes_in_view(&former.member);
        }
    }

    /// Puts a member on the list, or continues it. True if that changed the list.
    fn admit(
        &mut self,
        connection: ConnectionId,
        incarnation: Incarnation,
        mut member: Member,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> bool {
        self.remove_at_address(incarnation, &member, out);
        if self.epoch.term == 0 {
            self.epoch = Epoch::new(self.first_term(), self.count_from);
        }
        self.connections.insert(connection, incarnation);
        let Some(entry) = self.members.get_mut(&incarnation) else {
            member.since_ms = now.unix_ms;
            out.push(Effect::Happened(Happened::Joined(member.clone())));
            self.insert(incarnation, MemberEntry::heard(member, now, Some(connection)));
            return true;
        };
        entry.last_seen = now.up;
        if let Some(old) = entry.connection.replace(connection) {
            self.connections.remove(&old);
            out.push(Effect::Close(old));
        }
        member.since_ms = entry.member.since_ms;
        let changed = entry.member != member;
        out.push(Effect::Happened(Happened::Redialled(member.clone())));
        self.members_bytes += check::bytes_in_view(&member);
        self.members_bytes -= check::bytes_in_view(&entry.member);
        entry.member = member;
        changed
    }

    /// Why a new gateway may not come under this name or address: another one has it and beats. One that
    /// has crashed has lost its connection, so its successor need not wait.
    fn taken(&self, newer: Incarnation, member: &Member, now: Now) -> Option<String> {
        if member.role() != Role::Gateway || self.members.contains_key(&newer) {
            return None;
        }
        let beats =
            |entry: &MemberEntry| entry.connection.is_some() && now.up < entry.last_seen + self.lease / 2;
        let others = self.members.iter().filter(|(_, entry)| entry.member.role() == Role::Gateway);
        let mut others = others.filter(|(_, entry)| beats(entry));
        let (incarnation, other) = others
            .find(|(_, entry)| entry.member.address == member.address || entry.member.name == member.name)?;
        let Member { name, address, .. } = &other.member;
        Some(if *address == member.address {
            format!(
                "gateway {name} ({incarnation}) has the address {address} and is alive: set `advertise` to an \
                 address at which others reach this gateway alone, not to a name that several share"
            )
        } else {
            format!(
                "a gateway with the name {name} ({incarnation}, at {address}) is alive: give this one another \
                 `name`, or stop that one first"
            )
        })
    }

    /// A gateway's address is taken by a newer one: the older one's process is gone.
    fn remove_at_address(&mut self, newer: Incarnation, member: &Member, out: &mut Vec<Effect>) {
        if member.role() != Role::Gateway || self.members.contains_key(&newer) {
            return;
        }
        let older: Vec<_> = self
            .members
            .iter()
            .filter(|(_, entry)| entry.member.role() == Role::Gateway)
            .filter(|(_, entry)| entry.member.address == member.address)
            .map(|(incarnation, _)| *incarnation)
            .collect();
        for incarnation in older {
            self.remove(incarnation, RemovalReason::Replaced, out);
        }
    }

    fn welcome(&self, origin: PeerOrigin) -> Reply {
        Reply::Welcome(Welcome {
            term: self.epoch.term,
            beat_ms: u32::try_from(self.beat.as_millis()).unwrap_or(u32::MAX),
            lease_ms: u32::try_from(self.lease.as_millis()).unwrap_or(u32::MAX),
            observed_address: origin.address.as_ref().map(IpAddr::to_string).unwrap_or_default(),
            ledger: String::new(),
        })
    }

    fn set_state(&mut self, connection: ConnectionId, state: MemberState, now: Now) {
        let Some((_, entry)) = self.of(connection) else { return };
        entry.last_seen = now.up;
        if state != MemberState::Unspecified && entry.member.state() != state {
            entry.member.set_state(state);
            self.pending.change();
        }
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        // Without ticks the register itself was asleep, and has not read what members said.
        if now.up.saturating_sub(self.last_tick) > self.lease / 2 {
            self.patient_until = self.patient_until.max(now.up + self.lease);
        }
        self.last_tick = now.up;
        if now.up < self.patient_until {
            return;
        }
        let silent: Vec<_> = self
            .members
            .iter()
            .filter(|(_, entry)| now.up >= entry.last_seen + self.lease)
            .map(|(incarnation, _)| *incarnation)
            .collect();
        for incarnation in &silent {
            self.remove(*incarnation, RemovalReason::Lease, out);
        }
        let grown_up = self.grow_up();
        if grown_up || !silent.is_empty() {
            self.pending.change();
        }
    }

    /// A member leaves; the caller notes the change. Those who follow views tell a member that has left from one that
    /// was removed by its last state, so a view has to show that this one goes before it is gone: it may have said both
    /// since the last view.
    fn goodbye(&mut self, incarnation: Incarnation, out: &mut Vec<Effect>) {
        let is_shown_to_stay = view::find(&self.view, incarnation).is_some_and(|member| !view::goes(member));
        let Some(entry) = self.members.get_mut(&incarnation).filter(|_| is_shown_to_stay) else {
            return self.remove(incarnation, RemovalReason::Leave, out);
        };
        // That it has no clients any more, only it can say.
        if !view::goes(&entry.member) {
            entry.member.set_state(MemberState::Draining);
        }
        entry.left = true;
        if let Some(connection) = entry.connection.take() {
            self.connections.remove(&connection);
            out.push(Effect::Close(connection));
        }
    }

    /// Those who have left, and are shown to, are gone in the next view.
    fn remove_left(&mut self, out: &mut Vec<Effect>) {
        let left: Vec<_> = self.members.iter().filter(|(_, entry)| entry.left).map(|(one, _)| *one).collect();
        if left.is_empty() {
            return;
        }
        self.pending.change();
        let mut effects = Vec::new();
        for incarnation in left {
            self.remove(incarnation, RemovalReason::Leave, &mut effects);
        }
        self.pending.take(effects, out);
    }

    /// Takes a member off the list; the caller notes the change.
    fn remove(&mut self, incarnation: Incarnation, reason: RemovalReason, out: &mut Vec<Effect>) {
        let Some(entry) = self.members.remove(&incarnation) else { return };
        self.members_bytes -= check::bytes_in_view(&entry.member);
        self.removed.add(incarnation);
        if let Some(connection) = entry.connection {
            self.connections.remove(&connection);
            match reason {
                RemovalReason::Leave => out.push(Effect::Close(connection)),
                _ => dismiss(connection, reason.sentence(), out),
            }
        }
        out.push(Effect::Happened(Happened::Removed(entry.member, reason)));
    }

    /// Makes the next epoch of all that has changed.
    fn publish(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.epoch.count += 1;
        self.count_max = self.count_max.max(self.epoch.count);
        self.terms.note(self.epoch);
        let members = self.members.values().map(|entry| entry.member.clone()).collect();
        let before = self.took_over.take().or(self.view.epoch);
        self.view = Arc::new(View { epoch: Some(self.epoch), members, before });
        self.recent.push(self.view.clone(), self.members_bytes);
        self.pending.made(self.epoch, now, out);
        out.push(Effect::View(self.view.clone()));
        self.remove_left(out);
    }
}

fn dismiss(connection: ConnectionId, reason: &str, out: &mut Vec<Effect>) {
    out.push(Effect::Reply(connection, Reply::Removed(Removed { reason: reason.to_owned() })));
    out.push(Effect::Close(connection));
}

#[cfg(test)]
mod tests;
