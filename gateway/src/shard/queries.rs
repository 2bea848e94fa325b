//! Questions about the clients of one shard.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use broadgate_proto::{
    limits::WORKER_SILENT_S,
    v1::{self, ClientField, answer::Answer},
};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    command::{ClientFilter, EvidenceQuestion, ParsedCommand, first_names},
    recorder::EndQuestion,
    shard::{
        counters::ShardCounters,
        directory::Directory,
        outcome::{PartialAnswer, ShardEvidence, Stats},
        slots::Slot,
        state::Shard,
        worker_links::Workers,
    },
};

impl Shard {
    pub(crate) fn query(&mut self, order: &ParsedCommand) -> PartialAnswer {
        PartialAnswer::Answer(match order {
            ParsedCommand::Online { app, clients, uids } => {
                let clients = clients
                    .iter()
                    .filter(|client| self.clients.is_mine(client))
                    .map(|&client| (client.to_string(), self.find_in(client, app).is_some()))
                    .collect();
                let uids = uids
                    .iter()
                    .map(|uid| (uid.to_string(), self.directory.uid_members(app, uid).len() as u64))
                    .collect();
                Answer::Online(v1::OnlineReply { coverage: None, clients, uids })
            }
            ParsedCommand::Count { app, groups, uids: false } => {
                Answer::Count(count(&self.directory, app, groups))
            }
            ParsedCommand::GetClient { app, client } => {
                let Some(slot) = self.find_in(*client, app) else {
                    return crate::shard::outcome::error(crate::command::not_found(*client));
                };
                let every = [
                    ClientField::Uid,
                    ClientField::Groups,
                    ClientField::Session,
                    ClientField::Connection,
                    ClientField::Traffic,
                ];
                Answer::Client(v1::ClientReply { coverage: None, client: Some(self.info(slot, &every)) })
            }
            ParsedCommand::ListUids { app, groups, limit, after } if groups.is_empty() => {
                Answer::Names(first_names(self.directory.uids_after(app, after).take(limit + 1), *limit))
            }
            ParsedCommand::ListGroups { app, prefix, limit, after } => {
                let names = self.directory.groups_after(app, prefix, after);
                Answer::Names(first_names(names.take(limit + 1), *limit))
            }
            ParsedCommand::ListClients { of: ClientFilter { app, .. }, .. }
            | ParsedCommand::ListUids { app, .. }
            | ParsedCommand::Count { app, .. } => {
                let lists = self.lists(order, app);
                return self.look_now(order, lists);
            }
            ParsedCommand::Status { evidence } => {
                return PartialAnswer::Stats(Stats {
                    shard: self.clients.shard,
                    cpu: thread_cpu(),
                    outboxes_bytes: self.outboxes.bytes(&self.tls) as u64,
                    slow: self.outboxes.backlogged.len() as u64,
                    held: self.unsent.unassigned.len() as u64,
                    paused: self.reads.paused.len() as u64,
                    evidence: evidence.as_ref().map(|asked| self.evidence(asked)),
                    ..stats(&self.directory, &self.workers, &self.tally)
                });
            }
            ParsedCommand::Ended(question) => Answer::Ended(self.ended(question)),
            ParsedCommand::Sends(question) => Answer::Sends(self.sends(question)),
            // The first shard answers for the whole gateway.
            ParsedCommand::Events(question) if self.clients.shard == 0 => {
                Answer::Events(self.config.events.find(question, &self.name))
            }
            ParsedCommand::Events(_) => Answer::Events(v1::EventsReply::default()),
            ParsedCommand::Top(question) => return self.top(question),
            // Everything that changes something was handled before.
            _ => return PartialAnswer::Elsewhere,
        })
    }

    /// Costs the same however many clients there are.
    fn evidence(&self, asked: &Arc<EvidenceQuestion>) -> ShardEvidence {
        let silent = self.workers.iter().filter(|(_, link)| link.silent_s >= WORKER_SILENT_S);
        ShardEvidence {
            asked: Arc::clone(asked),
            slow: self.outboxes.backlogged.len() as u64,
            held: self.unsent.unassigned.len() as u64,
            paused: self.reads.paused.len() as u64,
            outboxes_bytes: self.outboxes.bytes(&self.tls) as u64,
            drops: self.tally.recent_drops(),
            pause: self.tally.pause.map(|(at, pause)| (self.second.saturating_sub(at), pause)),
            silent_workers: silent
                .map(|(_, link)| v1::SilentWorker {
                    name: link.name.to_string(),
                    seconds: link.silent_s,
                    events_unanswered: link.unanswered.len() as u64,
                })
                .collect(),
        }
    }

    /// How clients of this shard ended. The first shard answers for the whole gateway about refusals.
    fn ended(&self, question: &EndQuestion) -> v1::EndedReply {
        let found = self.ends.find(question);
        let (caused_since_ms, own_since_ms) = self.ends.since_ms();
        let refusals = self.deps.refusals.as_ref().filter(|_| self.clients.shard == 0);
        let refused = refusals.map(|refusals| refusals.find(question, &self.name)).unwrap_or_default();
        let memory = v1::EndedMemory {
            gateway: self.name.to_string(),
            caused_since_ms,
            own_since_ms,
            refused_since_ms: refused.since_ms,
            refused_left_out: refused.left_out,
        };
        v1::EndedReply {
            coverage: None,
            ended: found.newest.iter().map(|end| end.message(&self.name)).collect(),
            ended_total: found.total,
            refused: refused.newest,
            refused_total: refused.total,
            memories: vec![memory],
        }
    }

    pub(super) fn info(&self, slot: Slot, fields: &[ClientField]) -> v1::ClientInfo {
        let Some(client) = self.clients.get(slot) else { return v1::ClientInfo::default() };
        let mut info = v1::ClientInfo {
            client_id: self.clients.id_of(slot).to_string(),
            app: client.app.to_string(),
            ..v1::ClientInfo::default()
        };
        for field in fields {
            match field {
                ClientField::Unspecified => {}
                ClientField::Uid => {
                    info.uid = self.directory.uid(slot).map(ToString::to_string).unwrap_or_default();
                }
                ClientField::Groups => {
                    info.groups = self.directory.groups(slot).map(ToString::to_string).collect();
                    info.groups.sort_unstable();
                }
                ClientField::Session => info.session = Some(client.session().unwrap_or_default()),
                ClientField::Connection => {
                    info.gateway = self.name.to_string();
                    info.listener.clone_from(&client.listener.name);
                    info.protocol = client.protocol.name().to_owned();
                    info.address = client.address.to_string();
                    info.opened_at_ms = client.opened_at_ms;
                }
                ClientField::Traffic => {
                    info.messages_in = client.received.messages;
                    info.messages_out = client.sent.messages;
                    info.bytes_in = client.received.bytes;
                    info.bytes_out = client.sent.bytes;
                    info.outbox_bytes = client.outbox.bytes() as u64;
                    info.outbox_messages = client.outbox.frames() as u64;
                    let worker = client.worker.and_then(|key| self.workers.get(key));
                    info.worker = worker.map(|link| link.name.to_string()).unwrap_or_default();
                    info.events_unanswered = u32::try_from(client.events.len()).unwrap_or(u32::MAX);
                }
            }
        }
        info
    }
}

fn count(directory: &Directory, app: &str, groups: &[Box<str>]) -> v1::CountReply {
    let counts = |slots: &[Slot]| v1::Counts { clients: slots.len() as u64, ..v1::Counts::default() };
    v1::CountReply {
        coverage: None,
        app: Some(counts(directory.all_of(app))),
        groups: groups
            .iter()
            .map(|group| (group.to_string(), counts(directory.group_members(app, group))))
            .collect(),
    }
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Costs the same however many clients and groups there are: it is polled.
pub(super) fn stats(directory: &Directory, workers: &Workers, tally: &ShardCounters) -> Stats {
    let mut stats = Stats {
        clients: directory.clients() as u64,
        totals: tally.totals(),
        messages_in_per_s: tally.last_second.0,
        messages_out_per_s: tally.last_second.1,
        workers: BTreeMap::new(),
        // What the directory and the workers do not know. Written out: a default is made as a whole, and dropped.
        shard: 0,
        cpu: Duration::ZERO,
        outboxes_bytes: 0,
        slow: 0,
        held: 0,
        paused: 0,
        evidence: None,
    };
    for (_, link) in workers.iter() {
        let status = stats.workers.entry(link.incarnation).or_insert_with(|| v1::WorkerStatus {
            incarnation: link.incarnation.to_string(),
            name: link.name.to_string(),
            services: link.services.iter().map(ToString::to_string).collect(),
            gateways: 1,
            ..v1::WorkerStatus::default()
        });
        status.clients += link.clients as u64;
        status.events_unanswered += link.unanswered.len() as u64;
        status.oldest_unanswered_s = status.oldest_unanswered_s.max(link.oldest_s);
        status.events_sent += link.sent();
        status.answers_timed += link.times.timed;
        status.answers_us += micros(link.times.sum);
    }
    stats
}
