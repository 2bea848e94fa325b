//! What a shard remembers of its sends, for operators who ask why a client did not get a message: the commands, and
//! who joined and left. Nothing is done for each delivery.

use std::{collections::HashMap, rc::Rc};

use broadgate_proto::{id::ClientId, limits::SENT_ASKED_MAX, v1};

use crate::{
    command::{ParsedCommand, cut_page},
    recorder::{
        ClientEnd, EndQuestion, EndedWhose, FoundMove, FoundSend, SENT_DROPS, SendQuestion, SentNote,
        SentWhat, SentWhose, TopicHash,
    },
    refusals::now_ms,
    shard::{pusher::signed_in_group, slots::Slot, state::Shard},
};

impl Shard {
    /// Notes what became of a command with an id, if it sends something: the one at this place among those that were
    /// placed together.
    pub(super) fn note_sent(
        &mut self,
        once: &ParsedCommand,
        place: usize,
        (clients, drops): (u64, &HashMap<String, u64>),
    ) {
        if !self.sent.keeps_sends() {
            return;
        }
        let Some(note) = once.sent_note(now_ms()) else { return };
        let drops = match drops.is_empty() {
            true => note.drops,
            false => SENT_DROPS.map(|reason| drops.get(reason).copied().unwrap_or_default()),
        };
        self.sent.sent(place, &SentNote { clients, drops, ..note });
    }

    /// Puts a client into a group as the directory does, and remembers that.
    pub(crate) fn join_group(&mut self, slot: Slot, group: &str, max: usize) -> bool {
        let before = self.directory.changes();
        let is_in = self.directory.join(slot, group, max);
        if self.directory.changes() > before {
            self.note_moved(slot, TopicHash::group, group, true);
        }
        is_in
    }

    /// Takes a client out of a group, and remembers that.
    pub(crate) fn part_group(&mut self, slot: Slot, group: &str) -> bool {
        let was_in = self.directory.part(slot, group);
        if was_in {
            self.note_moved(slot, TopicHash::group, group, false);
        }
        was_in
    }

    /// Takes every member out of a group, and remembers that. Returns who was in it.
    pub(super) fn dissolve_group(&mut self, app: &str, group: &str) -> Vec<Slot> {
        let members = self.directory.group_members(app, group).to_vec();
        self.directory.dissolve(app, group);
        for &slot in &members {
            self.note_moved(slot, TopicHash::group, group, false);
        }
        members
    }

    /// Gives a client its uid, and remembers that.
    pub(super) fn bind_uid(&mut self, slot: Slot, uid: &str) {
        let before = self.directory.changes();
        let former = self.directory.uid(slot).map(Rc::clone);
        self.directory.bind(slot, uid);
        if self.directory.changes() > before {
            if let Some(former) = former {
                self.note_moved(slot, TopicHash::uid, &former, false);
            }
            self.note_moved(slot, TopicHash::uid, uid, true);
        }
    }

    /// Takes a client's uid away, and remembers that.
    pub(super) fn unbind_uid(&mut self, slot: Slot) {
        let former = self.directory.uid(slot).map(Rc::clone);
        if self.directory.unbind(slot)
            && let Some(former) = former
        {
            self.note_moved(slot, TopicHash::uid, &former, false);
        }
    }

    fn note_moved(&mut self, slot: Slot, topic: impl Fn(&str) -> TopicHash, name: &str, joined: bool) {
        if self.sent.keeps_moves()
            && let Some(client) = self.clients.get(slot)
        {
            self.sent.moved(client.key, topic(name), joined, now_ms());
        }
    }

    /// What is remembered of sends, and of clients that may have been meant.
    pub(super) fn sends(&self, question: &SendQuestion) -> v1::SendsReply {
        let (found, mut sends_total) = self.sent.find(question);
        let mut sends: Vec<v1::SentCommand> = found.into_iter().map(|send| self.sent_command(send)).collect();
        let mut since = self.sent.since();
        // The first shard answers for the whole gateway.
        if let Some(unheard) = self.deps.unheard.as_ref().filter(|_| self.clients.shard == 0) {
            let (found, total, since_ms) = unheard.find(question);
            sends.extend(
                found.into_iter().map(|send| v1::SentCommand { unheard: true, ..self.sent_command(send) }),
            );
            sends_total += total;
            since.sends_ms = since.sends_ms.max(since_ms);
        }
        cut_page(&mut sends, question.limit);
        let mut clients: Vec<v1::SentClient> = Vec::new();
        let mut clients_total = 0;
        if let Some(whose) = &question.whose {
            let open = self.open_of(question, whose);
            let whose = match whose {
                SentWhose::Client(id) => EndedWhose::Client(*id),
                SentWhose::Uid(uid) => EndedWhose::Uid(uid.clone()),
            };
            let ended = self.ends.find(&EndQuestion {
                app: question.app.clone(),
                whose,
                since_ms: 0,
                until_ms: u64::MAX,
                cause: None,
                limit: question.limit,
            });
            clients_total = open.len() as u64 + ended.total;
            clients.extend(open.into_iter().filter_map(|slot| self.sent_client(question, slot)));
            clients.extend(ended.newest.into_iter().map(|end| self.sent_end(question, end)));
            cut_page(&mut clients, question.limit);
        }
        v1::SendsReply {
            coverage: None,
            sends,
            sends_total,
            clients,
            clients_total,
            memories: vec![v1::SendsMemory {
                gateway: self.name.to_string(),
                sends_since_ms: since.sends_ms,
                joins_since_ms: since.joins_ms,
                drops_since_ms: since.drops_ms,
            }],
        }
    }

    /// Whose connections are open.
    fn open_of(&self, question: &SendQuestion, whose: &SentWhose) -> Vec<Slot> {
        let is_app = |app: &str| question.app.as_deref().is_none_or(|asked| *asked == *app);
        match whose {
            SentWhose::Client(id) => {
                let slot = self.clients.is_mine(id).then(|| self.clients.find(*id)).flatten();
                let is_meant =
                    |slot: &Slot| self.clients.get(*slot).is_some_and(|client| is_app(&client.app));
                slot.filter(is_meant).into_iter().collect()
            }
            SentWhose::Uid(uid) => {
                let signed_in = signed_in_group(uid);
                let mut slots = Vec::new();
                for (app, _) in self.directory.apps().filter(|(app, _)| is_app(app)) {
                    slots.extend_from_slice(self.directory.uid_members(app, uid));
                    slots.extend_from_slice(self.directory.group_members(app, &signed_in));
                }
                slots.sort_unstable();
                slots.dedup();
                slots
            }
        }
    }

    fn sent_client(&self, question: &SendQuestion, slot: Slot) -> Option<v1::SentClient> {
        let client = self.clients.get(slot)?;
        let waiting = client.pending.as_ref().map(|pending| pending.waiting()).unwrap_or_default();
        let groups = question.groups.iter().filter(|group| self.directory.is_member(slot, group));
        Some(v1::SentClient {
            client_id: self.clients.id_of(slot).to_string(),
            app: client.app.to_string(),
            uid: self.directory.uid(slot).map(ToString::to_string).unwrap_or_default(),
            opened_at_ms: client.opened_at_ms,
            outbox_messages: client.outbox.frames() as u64 + waiting.0,
            outbox_bytes: client.outbox.bytes() as u64 + waiting.1,
            groups: groups.map(ToString::to_string).collect(),
            ..self.sent_any(question, client.key)
        })
    }

    fn sent_end(&self, question: &SendQuestion, end: &ClientEnd) -> v1::SentClient {
        let groups = question.groups.iter().filter(|group| end.groups.iter().any(|own| **own == ***group));
        v1::SentClient {
            client_id: end.client.to_string(),
            app: end.app.to_string(),
            uid: end.uid.as_deref().unwrap_or_default().to_owned(),
            opened_at_ms: end.opened_at_ms,
            ended: Some(end.message(&self.name)),
            groups: groups.map(ToString::to_string).collect(),
            ..self.sent_any(question, end.client.key)
        }
    }

    /// What is known of a client whether its connection is open or has ended.
    fn sent_any(&self, question: &SendQuestion, key: u64) -> v1::SentClient {
        let moves_of = |topic: TopicHash, group: &str, uid: &str| {
            let message = |found: FoundMove| v1::SentMove {
                number: found.number,
                at_ms: found.at_ms,
                joined: found.joined,
                group: group.to_owned(),
                uid: uid.to_owned(),
            };
            self.sent.moves_of(key, topic).into_iter().map(message).collect::<Vec<_>>()
        };
        let groups = question.groups.iter().flat_map(|group| moves_of(TopicHash::group(group), group, ""));
        let uids = question.uids.iter().flat_map(|uid| moves_of(TopicHash::uid(uid), "", uid));
        let mut moves: Vec<v1::SentMove> = groups.chain(uids).collect();
        moves.sort_by_key(|found| found.number);
        moves.drain(..moves.len().saturating_sub(SENT_ASKED_MAX));
        let dropped = match &question.what {
            SentWhat::Command(id) => self.sent.dropped(key, id).unwrap_or_default(),
            SentWhat::Group(_) | SentWhat::Uid(_) => "",
        };
        v1::SentClient {
            gateway: self.name.to_string(),
            shard: self.clients.shard.into(),
            moves,
            dropped: dropped.to_owned(),
            ..v1::SentClient::default()
        }
    }

    fn sent_command(&self, send: FoundSend) -> v1::SentCommand {
        let ids = |clients: Vec<ClientId>| clients.iter().map(ToString::to_string).collect();
        let excepted =
            !(send.except_clients.is_empty() && send.except_uids.is_empty() && send.except_groups.is_empty());
        let except = v1::Except {
            clients: ids(send.except_clients),
            uids: send.except_uids,
            groups: send.except_groups,
        };
        let drops = SENT_DROPS.iter().zip(send.drops).filter(|(_, count)| *count > 0);
        v1::SentCommand {
            gateway: self.name.to_string(),
            shard: self.clients.shard.into(),
            number: send.number,
            position: send.at.map(|(tenure, number)| format!("{tenure}/{number}")).unwrap_or_default(),
            at_ms: send.at_ms,
            app: send.app.clone(),
            command_id: send.id,
            by: send.by,
            to: Some(v1::Audience {
                app: send.app,
                clients: ids(send.clients),
                uids: send.uids,
                groups: send.groups,
                all: send.all,
                except: excepted.then_some(except),
            }),
            names_left_out: send.names_left_out,
            clients: send.placed,
            drops: drops.map(|(reason, count)| ((*reason).to_owned(), count.into())).collect(),
            unheard: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        command::Recipients,
        shard::fixture::{limits, shard, to_group},
    };

    fn asked(what: SentWhat, client: ClientId) -> SendQuestion {
        SendQuestion {
            what,
            whose: Some(SentWhose::Client(client)),
            groups: vec!["g".into(), "h".into()],
            uids: vec!["42".into()],
            limit: 10,
            ..SendQuestion::default()
        }
    }

    #[tokio::test]
    async fn each_send_is_remembered_once_in_one_order_with_joins_and_uids() {
        let (shard, _others) = shard(&["g", "g", "h"], limits()).await;
        let shard = &mut *shard.borrow_mut();
        let third = shard.clients.id_of(2);
        let join = |group: &str| ParsedCommand::Join {
            app: "default".into(),
            who: Recipients { clients: vec![third], uids: Vec::new() },
            groups: vec![group.into()],
            seat: None,
        };
        let bind = ParsedCommand::Bind {
            app: "default".into(),
            client: third,
            uid: "42".into(),
            exclusive: false,
            by: "".into(),
        };
        // Together, with a repeat; then one after it has joined, which again changes nothing.
        let all = [to_group("g", "1", "a"), to_group("g", "2", "b"), to_group("g", "1", "a")];
        shard.execute_all(&all);
        shard.execute_all(&[Arc::new(join("g")), Arc::new(join("g")), Arc::new(bind)]);
        shard.execute_all(&[to_group("g", "3", "c")]);
        let dissolve = ParsedCommand::Dissolve { app: "default".into(), groups: vec!["g".into()] };
        shard.execute_all(&[Arc::new(dissolve)]);

        let reply = shard.sends(&asked(SentWhat::Group("g".into()), third));
        let sends: Vec<_> =
            reply.sends.iter().map(|sent| (&*sent.command_id, sent.clients, &*sent.by)).collect();
        assert_eq!(sends, [("3", 3, "local"), ("2", 2, "local"), ("1", 2, "local")]);
        assert_eq!(reply.sends_total, 3);
        let client = &reply.clients[0];
        let moves: Vec<_> = client.moves.iter().map(|one| (&*one.group, &*one.uid, one.joined)).collect();
        assert_eq!(moves, [("g", "", true), ("", "42", true), ("g", "", false)]);
        assert_eq!((&client.groups, &*client.uid), (&vec!["h".to_owned()], "42"));
        let numbers = |at: usize| reply.sends[at].number;
        let (joined, left) = (client.moves[0].number, client.moves[2].number);
        assert!(numbers(1) < joined && joined < numbers(0) && numbers(0) < left, "{reply:?}");
        let memory = &reply.memories[0];
        assert!(memory.sends_since_ms > 0 && memory.joins_since_ms > 0 && memory.drops_since_ms > 0);
    }
}
