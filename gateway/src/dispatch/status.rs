//! The status of this gateway and of the cluster.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use broadgate_proto::{
    id::Incarnation,
    name,
    v1::{self, answer::Answer},
    view,
};
use broadgate_register::member::RegisterStatus;
use broadgate_topics::Topic;
use tonic::Code;

use crate::{
    command::{CommandRefusal, ParsedCommand, add_worker, refusal},
    dispatch::{dispatcher::Dispatcher, evidence::ClusterPlace},
    shard::{Mailbox, ShardCounts, Stats},
};

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Dispatcher {
    /// Adds up the shards' counts. A group with members in two shards is one group, as the homes count.
    pub(crate) fn own_status(&self, mut parts: Vec<Stats>) -> v1::StatusReply {
        let evidence: Vec<_> = parts.iter_mut().filter_map(|part| part.evidence.take()).collect();
        let me = self.me.load();
        let interest = self.homes.interest();
        let mut workers: BTreeMap<Incarnation, v1::WorkerStatus> = BTreeMap::new();
        let mut status = v1::GatewayStatus {
            incarnation: me.incarnation.to_string(),
            name: me.name.clone(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            peers: self.peers.up(),
            silent_peers: self.peers.silent(),
            listener_services: self.listener_services.clone(),
            register: Some(self.followed_register()),
            evidence: self.evidence.of(&evidence, self.cluster_place()),
            redis_readers: (self.redis)(),
            counters: Some(self.counters(&parts)),
            ..v1::GatewayStatus::default()
        };
        for part in parts {
            status.clients += part.clients;
            status.messages_in_per_s += part.messages_in_per_s;
            status.messages_out_per_s += part.messages_out_per_s;
            for (incarnation, worker) in part.workers {
                let all = workers.entry(incarnation).or_insert_with(|| v1::WorkerStatus {
                    clients: 0,
                    events_unanswered: 0,
                    oldest_unanswered_s: 0,
                    events_sent: 0,
                    answers_timed: 0,
                    answers_us: 0,
                    ..worker.clone()
                });
                add_worker(all, &worker);
            }
        }
        status.groups = interest.groups;
        status.uids = interest.uids;
        v1::StatusReply {
            gateways: vec![status],
            workers: workers.into_values().collect(),
            ..v1::StatusReply::default()
        }
    }

    /// What the shards and the homes have counted.
    fn counters(&self, parts: &[Stats]) -> v1::GatewayCounters {
        let mut totals = ShardCounts::default();
        parts.iter().for_each(|part| totals.add(&part.totals));
        let mailbox = |shard: u8| self.local.shards.get(usize::from(shard)).map_or(0, Mailbox::waiting);
        let shard = |part: &Stats| v1::ShardStatus {
            clients: part.clients,
            cpu_us: micros(part.cpu),
            mailbox: u32::try_from(mailbox(part.shard)).unwrap_or(u32::MAX),
        };
        let named = |(name, count): (&str, u64)| (name.to_owned(), count);
        v1::GatewayCounters {
            at_us: micros(self.started.elapsed()),
            messages_in: totals.messages_in,
            messages_out: totals.messages_out,
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
            clients_opened: totals.opened,
            drops: totals.drops().map(named).collect(),
            closes: totals.closes().map(named).collect(),
            outboxes_bytes: parts.iter().map(|part| part.outboxes_bytes).sum(),
            slow: parts.iter().map(|part| part.slow).sum(),
            held: parts.iter().map(|part| part.held).sum(),
            paused: parts.iter().map(|part| part.paused).sum(),
            // They answer in the order of their numbers.
            shards: parts.iter().map(shard).collect(),
            homes_busy_us: micros(self.homes.busy()),
        }
    }

    fn cluster_place(&self) -> ClusterPlace {
        let (unsynced, parked) = self.homes.waiting();
        let epoch = view::epoch(&self.installed.borrow().view);
        let removed = self.installed.borrow().removed.messages(Instant::now());
        let (inside, refused_by) = (self.is_inside(self.me.load().incarnation), self.peers.refused_by());
        ClusterPlace { epoch, inside, unsynced, parked, removed, refused_by }
    }

    /// This gateway's current counts of an app.
    pub(crate) fn app(&self, id: &str) -> Result<v1::AppReply, CommandRefusal> {
        let id = name::app(id).map_err(|error| refusal(Code::InvalidArgument, error.to_string()))?;
        let table = self.apps.load();
        let app = table.by_id(id).ok_or_else(|| {
            let sentence =
                format!("no app {id:?} is configured at this gateway: `broadgate apps` lists them");
            refusal(Code::NotFound, sentence)
        })?;
        let keyed = !app.keys.is_empty();
        Ok(v1::AppReply { id: app.id.clone(), enabled: app.enabled, raw: app.raw, keyed })
    }

    /// How many clients this gateway holds.
    pub(crate) async fn own_clients(&self) -> usize {
        let executing =
            self.local.execute(vec![(0, Arc::new(ParsedCommand::Status { evidence: None }))]).await;
        let answers = executing.answers(|stats| self.own_status(stats)).await;
        let clients = answers.into_iter().find_map(|carried| match carried.answer {
            Answer::Status(status) => status.gateways.first().map(|gateway| gateway.clients),
            _ => None,
        });
        usize::try_from(clients.unwrap_or(0)).unwrap_or(usize::MAX)
    }

    fn followed_register(&self) -> v1::FollowedRegister {
        let RegisterStatus { address, heard, trouble, outside, ledger, ledger_lag_ms, refuses, .. } =
            (self.register)();
        v1::FollowedRegister { address, heard, trouble, outside, ledger, ledger_lag_ms, refuses }
    }

    /// The names of the groups' homes, as this gateway's view has them.
    pub(super) fn add_homes(&self, top: &mut v1::TopReply) {
        let Some(ring) = self.installed.borrow().ring.clone() else { return };
        for group in &mut top.groups {
            let home = ring.pick(Topic::group(&group.app, &group.group).key());
            group.home = home.map_or_else(String::new, |home| self.peers.name(home));
        }
    }

    pub(super) fn add_membership(&self, status: &mut v1::StatusReply) {
        let register = (self.register)();
        status.register = register.address;
        status.register_heard = register.heard;
        status.refused = register.refused.to_vec();
        let installed = self.installed.borrow().clone();
        // While the others were waited for, one of them may have been removed.
        let own = self.me.load().incarnation.to_string();
        let own = status.gateways.iter_mut().find(|gateway| gateway.incarnation == own);
        if let Some(evidence) = own.and_then(|own| own.evidence.as_mut()) {
            evidence.removed = installed.removed.messages(Instant::now());
        }
        status.view = Some(v1::View::clone(&installed.view));
    }
}
