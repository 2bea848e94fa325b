//! Commands, as far as they concern the clients of one shard.

use std::{collections::HashMap, rc::Rc};

use broadgate_proto::{
    close,
    id::ClientId,
    limits::DROPS_PER_SEND_MAX,
    v1::{self, Cause, TapKind, answer::Answer},
};
use broadgate_topics::Topic;
use tonic::Code;

use crate::{
    codec::encode::{Frames, SharedFrame, close_frame},
    command::{
        ClientFilter, CloseWith, CommandRefusal, ParsedCommand, PresenceSeat, Recipients, SessionCommand,
        not_found, refusal, session_object,
    },
    recorder::ClosingCommand,
    shard::{
        client::{Client, ClientSession},
        clients::ShardClients,
        counters::Drop,
        directory::Directory,
        group_traffic::SentNow,
        outcome::{PartialAnswer, Remembrance, ShardOutcome, error, one},
        slots::Slot,
        state::{Executed, Shard},
    },
};

impl Executed {
    /// What a repeat of a command is answered with, if it was carried out here.
    fn repeated(
        &mut self,
        clients: &ShardClients,
        app: &str,
        id: &str,
        order: &ParsedCommand,
    ) -> Option<PartialAnswer> {
        let mut answer = match self.remembered.get(app, id)? {
            Remembrance::Clients(count) => {
                Answer::Receipt(v1::Receipt { clients: *count, ..v1::Receipt::default() })
            }
            Remembrance::Session => {
                let ParsedCommand::Session { app, client, .. } = order else { return None };
                return Some(
                    match clients.find_also_going(*client, app).and_then(|slot| clients.get(slot)) {
                        Some(client) => PartialAnswer::Answer(Answer::Session(v1::SessionReply {
                            coverage: None,
                            session: Some(client.session().unwrap_or_default()),
                        })),
                        None => error(not_found(*client)),
                    },
                );
            }
            Remembrance::Answer(answer) => Answer::clone(answer),
        };
        if let Answer::Receipt(receipt) = &mut answer {
            receipt.repeated = true;
        }
        Some(PartialAnswer::Answer(answer))
    }
}

impl Shard {
    /// Carries an order out, unless it was before: then it is answered with what was done.
    pub(crate) fn execute_once(&mut self, once: &ParsedCommand) -> ShardOutcome {
        let mut touched = once.touches();
        let ParsedCommand::Once { app, id, order, .. } = once else {
            let order = once;
            let part = self.execute_placing(order);
            add_touched(&self.directory, order, &mut touched);
            return ShardOutcome { part, touched };
        };
        if let Some(part) = self.executed.repeated(&self.clients, app, id, order) {
            return ShardOutcome { part, touched };
        }
        if let Some(by) = order.closes_by() {
            self.executed.commanded = Some(Rc::new(ClosingCommand { id: id.clone(), by: by.into() }));
        }
        let part = self.execute_placing(once);
        self.executed.commanded = None;
        if let PartialAnswer::Answer(Answer::Receipt(receipt)) = &part {
            self.note_sent(once, 0, (receipt.clients, &receipt.drops));
        }
        add_touched(&self.directory, order, &mut touched);
        if let PartialAnswer::Answer(answer) = &part {
            self.executed.remember(once, Remembrance::of(answer), self.second);
        }
        ShardOutcome { part, touched }
    }

    /// Executes a command; taps know which, with its id.
    fn execute_placing(&mut self, once: &ParsedCommand) -> PartialAnswer {
        if !self.taps.is_open() {
            return self.execute(once.inner());
        }
        self.taps.begin(std::iter::once((once, None)));
        let part = self.execute(once.inner());
        self.taps.end();
        part
    }

    fn execute(&mut self, order: &ParsedCommand) -> PartialAnswer {
        if order.one_client().is_some_and(|client| !self.clients.is_mine(&client)) {
            return PartialAnswer::Elsewhere;
        }
        let receipt = match order {
            ParsedCommand::Send { to, frames, by_group, dry: true, .. } => self.dry_run(to, frames, by_group),
            ParsedCommand::Send { to, frames, by_group, .. } => self.send(to, frames, by_group),
            ParsedCommand::Close { to, closing } => self.close(to, closing),
            ParsedCommand::Bind { app, client, uid, exclusive: true, .. } => {
                self.bind_alone(app, *client, uid)
            }
            ParsedCommand::Bind { app, client, uid, .. } => {
                let Some(slot) = self.find_in(*client, app) else { return error(not_found(*client)) };
                self.bind_uid(slot, uid);
                self.uid_changed(slot);
                one()
            }
            ParsedCommand::Unbind { app, client, uid } => {
                let Some(slot) = self.find_in(*client, app) else { return error(not_found(*client)) };
                let bound = self.directory.uid(slot);
                if uid.is_none() || bound.map(|bound| &**bound) == uid.as_deref() {
                    self.unbind_uid(slot);
                    self.uid_changed(slot);
                }
                one()
            }
            ParsedCommand::Join { app, who, groups, seat } => self.join(app, who, groups, seat.as_ref()),
            ParsedCommand::Leave { app, who, groups } => self.leave(app, who, groups),
            ParsedCommand::Dissolve { app, groups } => {
                let clients = groups.iter().map(|group| self.dissolve(app, group) as u64).sum();
                v1::Receipt { clients, ..v1::Receipt::default() }
            }
            ParsedCommand::Session { app, client, order, if_version } => {
                let Some(slot) = self.clients.find_also_going(*client, app) else {
                    return error(not_found(*client));
                };
                let bytes_max = self.config.settings.limits.session_bytes_max;
                let Some(client) = self.clients.get_mut(slot) else { return error(not_found(*client)) };
                return match client.change_session(order, *if_version, bytes_max) {
                    Ok(session) => PartialAnswer::Answer(Answer::Session(v1::SessionReply {
                        coverage: None,
                        session: Some(session),
                    })),
                    Err(refused) => error(refused),
                };
            }
            query => return self.query(query),
        };
        PartialAnswer::Answer(Answer::Receipt(receipt))
    }

    fn send(&mut self, to: &ClientFilter, frames: &Frames, by_group: &[Frames]) -> v1::Receipt {
        let frames = frames.share(&self.outboxes.live);
        if by_group.is_empty() {
            return self.send_all(to, &[frames]).pop().unwrap_or_default().receipt();
        }
        self.sent.begin();
        let mut tally = ExecutedClients::default();
        let by_group: Vec<Frames<SharedFrame>> =
            by_group.iter().map(|frames| frames.share(&self.outboxes.live)).collect();
        let slots = self.select(to, (1, frames.payload), &mut tally);
        for &slot in &slots {
            let frames = form_for(&self.directory, slot, to, &frames, &by_group);
            let waits = self.clients.get(slot).is_some_and(|client| client.is_subscribing(&to.groups));
            tally.count(slot, if waits { self.defer(slot, frames) } else { self.place(slot, frames) });
        }
        self.selected = slots;
        if self.taps.is_open() {
            self.tap_sent(to, std::slice::from_ref(&frames), std::slice::from_ref(&tally));
        }
        self.note_drops(to, 0, &tally);
        tally.receipt()
    }

    /// Counts what could not be placed of the message at this place among those that were placed together.
    pub(super) fn note_drops(&mut self, to: &ClientFilter, place: usize, outcome: &ExecutedClients) {
        for &(slot, reason) in &outcome.unplaced {
            if let Some(client) = self.clients.get(slot) {
                self.sent.unplaced(place, client.key, reason);
            }
        }
        self.tally.drop(Drop::Protocol, outcome.of("protocol"));
        let slow = outcome.of("slow");
        if slow > 0 {
            self.directory.dropped(&to.app, &to.groups, slow);
        }
    }

    fn close(&mut self, to: &ClientFilter, closing: &CloseWith) -> v1::Receipt {
        let mut tally = ExecutedClients::default();
        let slots = self.select(to, (0, 0), &mut tally);
        let last = closing.last.as_ref().map(|frames| frames.share(&self.outboxes.live));
        for &slot in &slots {
            tally.clients += 1;
            if closing.at_once {
                // No close frame is sent, so its worker sees code 1006.
                self.abort(slot, Cause::Command, 1006, &closing.reason);
                continue;
            }
            if let Some(last) = &last {
                // A client that cannot take the last message is closed all the same.
                let _ = self.place(slot, last);
            }
            let frame = close_frame(closing.code, &closing.reason);
            self.close_gracefully(slot, Cause::Command, closing.code, &closing.reason, Some(frame));
        }
        self.selected = slots;
        tally.receipt()
    }

    /// The newest client of a uid alone stays; the others are closed, wherever they are.
    fn bind_alone(&mut self, app: &str, client: ClientId, uid: &str) -> v1::Receipt {
        let bound = self.find_in(client, app);
        let others: Vec<Slot> = self.directory.uid_members(app, uid).to_vec();
        for slot in others.into_iter().filter(|slot| Some(*slot) != bound) {
            let frame = close_frame(close::REPLACED.code, close::REPLACED.reason);
            let (code, reason) = (close::REPLACED.code, close::REPLACED.reason);
            self.close_gracefully(slot, Cause::Command, code, reason, Some(frame));
        }
        let Some(slot) = bound else { return v1::Receipt::default() };
        self.bind_uid(slot, uid);
        self.uid_changed(slot);
        one()
    }

    fn uid_changed(&mut self, slot: Slot) {
        if self.taps.is_open() {
            self.tap_bound(slot);
        }
        self.reconsider(slot);
    }

    fn join(
        &mut self,
        app: &str,
        who: &Recipients,
        groups: &[Box<str>],
        seat: Option<&PresenceSeat>,
    ) -> v1::Receipt {
        let max = self.config.settings.limits.groups_per_client_max;
        let mut tally = ExecutedClients::default();
        for slot in self.select_who(app, who, &mut tally) {
            let is_observed = self.taps.is_open() || self.offers.is_observed(&self.clients, slot);
            let names = groups.iter().map(|group| &**group).filter(|_| is_observed);
            let new: Vec<&str> = names.filter(|group| !self.directory.is_member(slot, group)).collect();
            // Every group is tried, also after one that does not fit.
            let joined = groups.iter().filter(|group| self.join_group(slot, group, max)).count();
            // A group that did not fit has no seat for it either.
            if let Some(seat) = seat {
                groups.iter().for_each(|group| self.directory.sit(slot, group, seat, None));
            }
            for group in new {
                if self.directory.is_member(slot, group) {
                    if self.taps.is_open() {
                        self.tap_in_group(slot, TapKind::Joined, group);
                    }
                    self.offers.subscribed(&self.clients, slot, group, seat, &mut self.turn);
                }
            }
            if joined == groups.len() {
                tally.clients += 1;
            } else {
                tally.drop("too_many_groups");
            }
        }
        tally.receipt()
    }

    fn leave(&mut self, app: &str, who: &Recipients, groups: &[Box<str>]) -> v1::Receipt {
        let mut tally = ExecutedClients::default();
        for slot in self.select_who(app, who, &mut tally) {
            for group in groups {
                if self.part_group(slot, group) {
                    if self.taps.is_open() {
                        self.tap_in_group(slot, TapKind::Left, group);
                    }
                    self.offers.unsubscribed(&self.clients, slot, group, &mut self.turn);
                }
            }
            tally.clients += 1;
        }
        tally.receipt()
    }

    /// Returns how many clients were in the group.
    fn dissolve(&mut self, app: &str, group: &str) -> usize {
        let is_observed = self.taps.is_open() || self.offers.observers.has(app);
        let members = self.dissolve_group(app, group);
        let clients = members.len();
        for slot in members.into_iter().filter(|_| is_observed) {
            if self.taps.is_open() {
                self.tap_in_group(slot, TapKind::Left, group);
            }
            self.offers.unsubscribed(&self.clients, slot, group, &mut self.turn);
        }
        clients
    }

    /// Whom an audience reaches here, each of whom is sent so many messages with so many bytes. The list is the
    /// shard's own, lent; give it back.
    pub(crate) fn select(
        &mut self,
        to: &ClientFilter,
        (messages, bytes): (usize, usize),
        outcome: &mut ExecutedClients,
    ) -> Vec<Slot> {
        let mut here = Vec::new();
        for &client in to.clients.iter().filter(|client| self.clients.is_mine(client)) {
            match self.find_in(client, &to.app) {
                Some(slot) => here.push(slot),
                None => outcome.unknown(client),
            }
        }
        let except: Vec<Slot> = to.except_clients.iter().filter_map(|&id| self.find_excepted(id)).collect();
        let mut selected = std::mem::take(&mut self.selected);
        let sent = SentNow {
            second: self.second,
            messages: u32::try_from(messages).unwrap_or(u32::MAX),
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        };
        self.directory.select(to, (&here, &except), sent, &mut selected);
        selected
    }

    fn select_who(&mut self, app: &str, who: &Recipients, outcome: &mut ExecutedClients) -> Vec<Slot> {
        let mut slots = Vec::new();
        for &client in who.clients.iter().filter(|client| self.clients.is_mine(client)) {
            match self.find_in(client, app) {
                Some(slot) => slots.push(slot),
                None => outcome.unknown(client),
            }
        }
        for uid in &who.uids {
            slots.extend_from_slice(self.directory.uid_members(app, uid));
        }
        slots.sort_unstable();
        slots.dedup();
        slots
    }
}

/// A bind also takes the client out of the uid that it had.
fn add_touched(directory: &Directory, order: &ParsedCommand, touched: &mut Vec<Topic>) {
    if matches!(order, ParsedCommand::Bind { .. } | ParsedCommand::Unbind { .. }) {
        touched.extend(directory.changed_uids());
    }
}

/// The form of a message that a client gets, by the group in which it is reached.
pub(super) fn form_for<'a>(
    directory: &Directory,
    slot: Slot,
    to: &ClientFilter,
    frames: &'a Frames<SharedFrame>,
    by_group: &'a [Frames<SharedFrame>],
) -> &'a Frames<SharedFrame> {
    let reached = to.groups.iter().zip(by_group).find(|(group, _)| directory.is_member(slot, group));
    reached.map_or(frames, |(_, frames)| frames)
}

impl Client {
    fn change_session(
        &mut self,
        order: &SessionCommand,
        if_version: Option<u64>,
        bytes_max: usize,
    ) -> Result<v1::Session, CommandRefusal> {
        let version = self.session.as_ref().map_or(0, |session| session.version);
        if let Some(wanted) = if_version.filter(|&wanted| wanted != version) {
            let message = format!("the session is at version {version}, not {wanted}: get it and try again");
            return Err(refusal(Code::Aborted, message));
        }
        let json = match order {
            SessionCommand::Get => return Ok(self.session().unwrap_or_default()),
            SessionCommand::Set(json) => json.clone(),
            SessionCommand::Merge(patch) => {
                let now = self.session.as_ref().map_or("", |session| &session.json);
                let mut value = session_object(now, usize::MAX).unwrap_or_default();
                json_patch::merge(&mut value, patch);
                value.to_string().into()
            }
        };
        if json.len() > bytes_max {
            let message =
                format!("the session would have {} bytes: at most {bytes_max} are allowed", json.len());
            return Err(refusal(Code::ResourceExhausted, message));
        }
        self.session = Some(Box::new(ClientSession { json, version: version + 1 }));
        Ok(self.session().unwrap_or_default())
    }
}

/// What a receipt is made of.
#[derive(Default, Clone)]
pub(crate) struct ExecutedClients {
    pub(crate) clients: u64,
    drops: HashMap<String, u64>,
    unknown: Vec<String>,
    /// The first clients for whom it was not placed, and why.
    unplaced: Vec<(Slot, &'static str)>,
}

impl ExecutedClients {
    pub(crate) fn count(&mut self, slot: Slot, placed: Result<(), Drop>) {
        let reason = match placed {
            Ok(()) => return self.clients += 1,
            Err(Drop::Slow) => "slow",
            Err(Drop::Protocol) => "protocol",
            Err(_) => "closing",
        };
        self.drop(reason);
        if self.unplaced.len() < DROPS_PER_SEND_MAX {
            self.unplaced.push((slot, reason));
        }
    }

    fn drop(&mut self, reason: &str) {
        *self.drops.entry(reason.to_owned()).or_default() += 1;
    }

    fn unknown(&mut self, client: broadgate_proto::id::ClientId) {
        self.drop("unknown_client");
        self.unknown.push(client.to_string());
    }

    pub(super) fn drops(&self) -> &HashMap<String, u64> {
        &self.drops
    }

    pub(crate) fn of(&self, reason: &str) -> usize {
        self.drops.get(reason).map_or(0, |&count| usize::try_from(count).unwrap_or(usize::MAX))
    }

    pub(crate) fn receipt(self) -> v1::Receipt {
        v1::Receipt {
            clients: self.clients,
            drops: self.drops,
            unknown_clients: self.unknown,
            ..v1::Receipt::default()
        }
    }
}
