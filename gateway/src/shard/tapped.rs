//! What the taps of operators see of this shard's clients.
//!
//! A tap of a client or a uid marks the clients that fit, with its bit in their byte of marks: a delivery tests that
//! byte, and nothing else. Everything else asks whether there is any tap at all.

use std::{collections::HashMap, sync::Arc, time::Instant};

use broadgate_proto::{
    limits::TAP_TIMES_MAX,
    v1::{Cause, TapKind},
};

use crate::{
    codec::encode::{Frames, SharedFrame},
    command::ClientFilter,
    observers::{SaidPayload, Tap, TapWhose},
    shard::{
        client::Client,
        counters::Drop,
        execute::ExecutedClients,
        pusher::signed_in_group,
        slots::Slot,
        state::Shard,
        taps::{TapDetails, TapMask, TapTaken},
    },
};

impl Shard {
    /// The taps have changed: clients are marked for new ones. Answers how many of them fit one.
    pub(crate) fn taps_changed(&mut self, asked: Option<TapTaken>) {
        let former = std::mem::replace(&mut self.taps.table, self.taps.taps.table());
        self.taps.open = self.taps.table.iter().any(Option::is_some);
        if !self.taps.open {
            self.taps.sent = HashMap::new();
        }
        let is_same = |place: usize| match (&former[place], &self.taps.table[place]) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (before, now) => before.is_none() && now.is_none(),
        };
        let changed: Vec<usize> = (0..former.len()).filter(|&place| !is_same(place)).collect();
        let now = Arc::clone(&self.taps.table);
        for tap in changed.iter().flat_map(|&place| [&former[place], &now[place]]).flatten() {
            for slot in self.tapped(tap).into_iter().filter(|_| tap.is_of_clients()) {
                self.mark_taps(slot);
            }
        }
        if let Some((place, answer)) = asked {
            let tap = self.taps.table.get(place).cloned().flatten();
            let count = tap.map_or(0, |tap| self.tapped(&tap).len() as u64);
            // The reader may have gone.
            let _ = answer.send(count);
        }
    }

    /// The clients here that a tap shows.
    fn tapped(&self, tap: &Tap) -> Vec<Slot> {
        let app = &*tap.question.app;
        match &tap.question.whose {
            TapWhose::Client(id) => self.find_in(*id, app).into_iter().collect(),
            TapWhose::Uid(uid) => {
                let mut slots = self.directory.uid_members(app, uid).to_vec();
                slots.extend_from_slice(self.directory.group_members(app, &signed_in_group(uid)));
                slots.sort_unstable();
                slots.dedup();
                slots
            }
            TapWhose::Group(group) => self.directory.group_members(app, group).to_vec(),
            // Whom its commands will concern is not known.
            TapWhose::Caller(_) => Vec::new(),
            TapWhose::App => self.directory.all_of(app).to_vec(),
        }
    }

    /// The taps of single clients that show this one.
    fn marks_of(&self, slot: Slot) -> TapMask {
        let Some(client) = self.clients.get(slot) else { return 0 };
        let shows = |tap: &Tap| {
            *tap.question.app == *client.app
                && match &tap.question.whose {
                    TapWhose::Client(id) => self.clients.id_of(slot) == *id,
                    TapWhose::Uid(uid) => {
                        self.directory.uid(slot).is_some_and(|own| **own == **uid)
                            || client.pusher.is_some()
                                && self.directory.is_member(slot, &signed_in_group(uid))
                    }
                    TapWhose::Group(_) | TapWhose::Caller(_) | TapWhose::App => false,
                }
        };
        self.taps.entries().filter(|(_, tap)| shows(tap)).fold(0, |mask, (bit, _)| mask | bit)
    }

    /// Marks a client whose uid may have changed. Returns the marks that it had or has.
    #[cold]
    pub(crate) fn mark_taps(&mut self, slot: Slot) -> TapMask {
        let marks = self.marks_of(slot);
        let Some(client) = self.clients.get_mut(slot) else { return 0 };
        std::mem::replace(&mut client.taps, marks) | marks
    }

    /// The taps that show what a client does, one that is in this group or was, if one is given.
    pub(crate) fn taps_of(&self, slot: Slot, group: Option<&str>) -> TapMask {
        let Some(client) = self.clients.get(slot) else { return 0 };
        let shows = |tap: &Tap| {
            *tap.question.app == *client.app
                && match &tap.question.whose {
                    TapWhose::App => true,
                    TapWhose::Group(tapped) => {
                        group == Some(&**tapped) || self.directory.is_member(slot, tapped)
                    }
                    TapWhose::Caller(caller) => self.taps.caller() == &**caller,
                    TapWhose::Client(_) | TapWhose::Uid(_) => false,
                }
        };
        self.taps.entries().filter(|(_, tap)| shows(tap)).fold(client.taps, |mask, (bit, _)| mask | bit)
    }

    /// Tells the taps of a client that something has happened. Only if there is a tap.
    #[cold]
    pub(crate) fn tap(&self, slot: Slot, kind: TapKind, details: &TapDetails<'_>) {
        self.tap_for(self.taps_of(slot, None), slot, kind, details);
    }

    /// The same of something in a group.
    #[cold]
    pub(crate) fn tap_in_group(&self, slot: Slot, kind: TapKind, group: &str) {
        let details = TapDetails { place: group, ..TapDetails::default() };
        self.tap_for(self.taps_of(slot, Some(group)), slot, kind, &details);
    }

    pub(crate) fn tap_for(&self, taps: TapMask, slot: Slot, kind: TapKind, details: &TapDetails<'_>) {
        let Some(client) = self.clients.get(slot).filter(|_| taps != 0) else { return };
        let id = self.clients.id_of(slot).to_string();
        let waits = client.outbox.bytes() as u64;
        self.taps.offer(taps, Some((&id, self.user_of(slot), waits)), kind, details);
    }

    /// A client's uid; of a Pusher client the user as which it has signed in; "" if it has none.
    fn user_of(&self, slot: Slot) -> &str {
        let Some(client) = self.clients.get(slot) else { return "" };
        let user = client.pusher.as_ref().and_then(|pusher| pusher.user.as_ref());
        let bound = self.directory.uid(slot).map(|uid| &**uid);
        bound.or(user.map(|user| &*user.id)).unwrap_or(&client.last_uid)
    }

    /// A message is in the outbox of a client that is marked.
    #[cold]
    pub(crate) fn tap_placed(&self, slot: Slot, frames: &Frames<SharedFrame>) {
        let Some(client) = self.clients.get(slot) else { return };
        let message = self.taps.placed(frames);
        let details = TapDetails {
            place: message.map_or("", |message| &message.to),
            position: message.map_or("", |message| &message.position),
            traceparent: message.map_or("", |message| &message.traceparent),
            command: message.map_or("", |message| &message.command),
            caller: message.map_or("", |message| &message.caller),
            bytes: frames.payload,
            count: client.outbox.frames() as u64,
            payload: frames.said().map(|(is_text, bytes)| SaidPayload { is_text, bytes }),
            ..TapDetails::default()
        };
        self.tap_for(client.taps, slot, TapKind::Placed, &details);
    }

    /// Messages were placed here: taps of groups and of whole apps see each once.
    #[cold]
    pub(crate) fn tap_sent(
        &self,
        to: &ClientFilter,
        messages: &[Frames<SharedFrame>],
        outcomes: &[ExecutedClients],
    ) {
        for (frames, outcome) in messages.iter().zip(outcomes).filter(|(_, outcome)| outcome.clients > 0) {
            let message = self.taps.placed(frames);
            let shows = |tap: &Tap| {
                *tap.question.app == *to.app
                    && match &tap.question.whose {
                        TapWhose::App => true,
                        TapWhose::Group(group) => to.groups.contains(group),
                        TapWhose::Caller(caller) => message.is_some_and(|message| message.caller == *caller),
                        TapWhose::Client(_) | TapWhose::Uid(_) => false,
                    }
            };
            let taps = self.taps.entries().filter(|(_, tap)| shows(tap)).fold(0, |mask, (bit, _)| mask | bit);
            let details = TapDetails {
                place: message.map_or("", |message| &message.to),
                position: message.map_or("", |message| &message.position),
                traceparent: message.map_or("", |message| &message.traceparent),
                command: message.map_or("", |message| &message.command),
                caller: message.map_or("", |message| &message.caller),
                bytes: frames.payload,
                count: outcome.clients,
                payload: frames.said().map(|(is_text, bytes)| SaidPayload { is_text, bytes }),
                ..TapDetails::default()
            };
            self.taps.offer(taps, None, TapKind::Placed, &details);
        }
    }

    /// Something to a client, or of it, was dropped.
    #[cold]
    pub(crate) fn tap_dropped(&self, slot: Slot, reason: Drop, frames: Option<&Frames<SharedFrame>>) {
        let message = frames.and_then(|frames| self.taps.placed(frames));
        let details = TapDetails {
            place: message.map_or("", |message| &message.to),
            command: message.map_or("", |message| &message.command),
            caller: message.map_or("", |message| &message.caller),
            reason: reason.name(),
            bytes: frames.map_or(0, |frames| frames.payload),
            ..TapDetails::default()
        };
        self.tap(slot, TapKind::Dropped, &details);
    }

    /// The same as `flush`, and what of it taps see.
    #[cold]
    pub(crate) fn flush_tapped(&mut self, slot: Slot) -> bool {
        let state =
            |client: &Client| (client.outbox.frames(), client.outbox.bytes(), client.backlog_since.is_some());
        let Some(client) = self.clients.get_mut(slot) else { return true };
        let (frames, bytes, was_held) = state(client);
        let went = self.outboxes.write(slot, client, self.second, &mut self.tally.now.writes);
        let (frames_left, bytes_left, is_held) = state(client);
        let marks = client.taps;
        if bytes_left < bytes {
            let count = frames.saturating_sub(frames_left) as u64;
            let details = TapDetails { bytes: bytes - bytes_left, count, ..TapDetails::default() };
            self.tap_for(marks, slot, TapKind::Written, &details);
        }
        if is_held && !was_held {
            self.tap(slot, TapKind::Held, &TapDetails::default());
        }
        went
    }

    /// A client is open; it has its uid and its groups.
    #[cold]
    pub(crate) fn tap_opened(&mut self, slot: Slot) {
        self.mark_taps(slot);
        let Some(client) = self.clients.get(slot) else { return };
        let (listener, address) = (&client.listener.name, client.address.to_string());
        let details = TapDetails { place: listener, reason: &address, ..TapDetails::default() };
        self.tap(slot, TapKind::Opened, &details);
        for group in self.directory.groups(slot) {
            self.tap_in_group(slot, TapKind::Joined, group);
        }
    }

    /// A client has another uid, or none.
    #[cold]
    pub(crate) fn tap_bound(&mut self, slot: Slot) {
        let marks = self.mark_taps(slot);
        let details = TapDetails { place: self.user_of(slot), ..TapDetails::default() };
        self.tap_for(marks | self.taps_of(slot, None), slot, TapKind::Bound, &details);
    }

    /// A client has said something.
    #[cold]
    pub(crate) fn tap_in(&self, slot: Slot, payload: SaidPayload<'_>) {
        let Some(client) = self.clients.get(slot) else { return };
        let details = TapDetails {
            bytes: payload.bytes.len(),
            count: client.events.len() as u64,
            max: self.config.settings.limits.events_per_client_max,
            payload: Some(payload),
            ..TapDetails::default()
        };
        self.tap(slot, TapKind::In, &details);
    }

    /// An event of a client went to a worker, under this number.
    #[cold]
    pub(crate) fn tap_event(&mut self, slot: Slot, seq: u64, worker: &str, event: &'static str) {
        let taps = self.taps_of(slot, None);
        let Some(key) = self.clients.get(slot).filter(|_| taps != 0).map(|client| client.key) else { return };
        if self.taps.sent.len() < TAP_TIMES_MAX {
            self.taps.sent.insert((key, seq), Instant::now());
        }
        let details = TapDetails { place: worker, reason: event, count: seq, ..TapDetails::default() };
        self.tap_for(taps, slot, TapKind::Event, &details);
    }

    /// The worker has answered it.
    #[cold]
    pub(crate) fn tap_answered(&mut self, slot: Slot, key: u64, seq: u64) {
        let sent = self.taps.sent.remove(&(key, seq));
        let Some(client) = self.clients.get(slot).filter(|client| client.key == key) else { return };
        let worker = client.worker.and_then(|key| self.workers.get(key));
        let took = sent.map_or(0, |sent| u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX));
        let details = TapDetails {
            place: worker.map_or("", |link| &link.name),
            count: seq,
            took_us: took,
            ..TapDetails::default()
        };
        self.tap(slot, TapKind::Answered, &details);
    }

    /// A client ends, which these taps show.
    #[cold]
    pub(crate) fn tap_closed(&self, taps: TapMask, slot: Slot, (cause, code, reason): (Cause, u16, &str)) {
        let cause = cause.as_str_name().trim_start_matches("CAUSE_").to_ascii_lowercase();
        let reason = if reason.is_empty() { cause } else { format!("{cause}: {reason}") };
        let commanded = self.executed.commanded.as_ref();
        let details = TapDetails {
            command: commanded.map_or("", |command| &command.id),
            caller: commanded.map_or("", |command| &command.by),
            reason: &reason,
            code,
            count: self.ending.unsent.0,
            ..TapDetails::default()
        };
        self.tap_for(taps, slot, TapKind::Closed, &details);
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        observers::{TapQuestion, TapReader},
        shard::fixture::{limits, shard, to_group},
    };

    use super::*;

    fn question(whose: TapWhose) -> TapQuestion {
        let (kinds, per_second_max) = (u32::MAX, 1000);
        TapQuestion { app: "default".into(), whose, kinds, payload_max: None, per_second_max, seconds: 1 }
    }

    fn open(shard: &mut Shard, whose: TapWhose) -> TapReader {
        let stream = shard.taps.taps.open(question(whose), "").ok().unwrap();
        shard.taps_changed(None);
        stream
    }

    fn marks(shard: &Shard) -> Vec<u8> {
        shard.clients.iter().map(|(_, client)| client.taps).collect()
    }

    #[tokio::test]
    async fn clients_are_marked_while_a_tap_shows_them_and_as_their_uid_changes() {
        let (shard, _others) = shard(&["g", "g"], limits()).await;
        let shard = &mut *shard.borrow_mut();
        let first = shard.clients.id_of(0);
        let by_id = open(shard, TapWhose::Client(first));
        assert_eq!(marks(shard), [1, 0]);
        shard.directory.bind(1, "42");
        let by_uid = open(shard, TapWhose::Uid("42".into()));
        assert_eq!(marks(shard), [1, 2]);
        shard.directory.bind(0, "42");
        shard.tap_bound(0);
        assert_eq!(marks(shard), [3, 2]);
        // A group's clients are not marked: its messages are shown once.
        let group = open(shard, TapWhose::Group("g".into()));
        assert_eq!(marks(shard), [3, 2]);
        drop(by_id);
        // Its place is another tap's before the shard has heard of either.
        let app = open(shard, TapWhose::App);
        assert_eq!((app.place, marks(shard)), (0, vec![2, 2]));
        drop((by_uid, group, app));
        shard.taps_changed(None);
        assert_eq!((marks(shard), shard.taps.is_open()), (vec![0, 0], false));
    }

    /// Merged messages keep their ids, and a tap of the group sees each once.
    #[tokio::test]
    async fn messages_that_are_placed_together_are_shown_one_by_one() {
        let (shard, _others) = shard(&["g", "g"], limits()).await;
        let mut group = open(&mut shard.borrow_mut(), TapWhose::Group("g".into()));
        let second = shard.borrow().clients.id_of(1);
        let mut client = open(&mut shard.borrow_mut(), TapWhose::Client(second));
        let execute = |orders: &[_]| drop(shard.borrow_mut().execute_all(orders));
        execute(&[to_group("g", "1", "a"), to_group("g", "2", "b"), to_group("g", "3", "c")]);
        execute(&[to_group("h", "4", "d"), to_group("g", "5", "e")]);
        for (stream, count) in [(&mut group, 2), (&mut client, 0)] {
            let (missed, events) = stream.next().await;
            let shown: Vec<_> = events.iter().map(|event| (&*event.command_id, event.kind())).collect();
            let placed = ["1", "2", "3", "5"].map(|id| (id, TapKind::Placed));
            assert_eq!((missed, &shown[..]), (0, &placed[..]));
            assert!(events.iter().all(|event| &*event.place == "g"), "{events:?}");
            assert!(count == 0 || events.iter().all(|event| event.count == count), "{events:?}");
        }
    }
}
