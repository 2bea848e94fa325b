//! Commands in flight: awaits partial answers, merges them, and lists the gateways that did not answer.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use broadgate_proto::{
    id::Incarnation,
    v1::{self, Epoch, answer::Answer, command::Command},
    view,
};
use futures_util::future::join_all;
use metrics::counter;
use tonic::Code;

use crate::{
    cluster::links::SentCommands,
    command::{Cursor, ParsedCommand, finish, merge, not_found, refusal, sign_hops, tidy},
    dispatch::{
        dispatcher::Dispatcher,
        in_flight::{HomeQuestion, Placing},
        latencies::Calls,
    },
    shard::Executing,
};

/// The sources of the answers to one batch.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) local: Vec<Executing>,
    pub(super) remote: Vec<RemotePart>,
    pub(super) homed: Vec<HomeQuestion>,
}

/// Commands sent to a peer; its name is kept for answers, since it may have left the view by then.
pub(super) struct RemotePart {
    pub(super) peer: Incarnation,
    pub(super) name: String,
    pub(super) asked: SentCommands,
}

/// A batch whose commands are in all the queues they have to be in.
pub(crate) struct PlacedBatch {
    dispatcher: Arc<Dispatcher>,
    epoch: Epoch,
    placings: Vec<Placing>,
    parts: Parts,
    placed: Instant,
    /// How long its caller lets gateways be waited for, if it says so.
    pub(super) patience: Option<Duration>,
}

/// The partial answers to one command, merged so far.
#[derive(Default)]
struct Gathered {
    answer: Option<Answer>,
    missing: BTreeSet<String>,
    /// The newest view in which a part of it was answered.
    epoch: Epoch,
}

impl PlacedBatch {
    pub(super) fn new(
        dispatcher: Arc<Dispatcher>,
        epoch: Epoch,
        placings: Vec<Placing>,
        parts: Parts,
    ) -> Self {
        Self { dispatcher, epoch, placings, parts, placed: Instant::now(), patience: None }
    }

    /// True if no answer is wanted and none is outstanding.
    pub(crate) fn is_done(&self) -> bool {
        let Parts { local, remote, homed } = &self.parts;
        let unanswered = |placing: &Placing| placing.no_receipt && placing.parsed.is_ok();
        local.is_empty() && remote.is_empty() && homed.is_empty() && self.placings.iter().all(unanswered)
    }

    /// Awaits all partial answers, then answers each command whose caller wants an answer.
    pub(crate) async fn answers(self) -> Vec<v1::Answer> {
        let Self { dispatcher, epoch, placings, parts, placed, patience } = self;
        let calls = Calls::of(&placings);
        let gathered = placings.iter().map(|_| Gathered { epoch, ..Gathered::default() });
        let mut gathered: Vec<Gathered> = gathered.collect();
        dispatcher.gather_local(parts.local, &placings, &mut gathered).await;
        let members = placings.iter().any(|placing| placing.changes_members());
        // A peer awaits homes before it answers.
        let within = if members { 2 * dispatcher.link_timeout } else { dispatcher.link_timeout };
        let within = patience.map_or(within, |patience| patience.min(within));
        let until = tokio::time::Instant::now() + within;
        for RemotePart { peer, name, asked } in parts.remote {
            for (index, answer) in asked.answers(until).await {
                let Some((gathered, placing)) = gathered.get_mut(index).zip(placings.get(index)) else {
                    continue;
                };
                match answer {
                    None if dispatcher.peers.has_left(peer) => {}
                    // If one gateway of several refuses, its part is missing.
                    Some(Answer::Error(_)) | None if placing.asked > 1 => {
                        gathered.missing.insert(name.clone());
                    }
                    Some(mut answer) => {
                        sign_hops(&mut answer, || name.clone());
                        gathered.add(answer);
                    }
                    None => drop(gathered.missing.insert(name.clone())),
                }
            }
        }
        for asked in parts.homed {
            let Some(placing) = placings.get(asked.index) else { continue };
            let gathered = &mut gathered[asked.index];
            let answered = dispatcher.answered(asked, placing).await;
            // A home of the version before does not know what leaving is.
            let missing = answered.missing.iter().filter(|one| !dispatcher.peers.has_left(**one));
            gathered.missing.extend(missing.map(|one| dispatcher.peers.name(*one)));
            gathered.missing.extend(answered.names);
            gathered.epoch = gathered.epoch.max(answered.epoch);
            merge(&mut gathered.answer, answered.answer);
        }
        let mut answers = Vec::with_capacity(placings.len());
        for (placing, gathered) in placings.into_iter().zip(gathered) {
            if placing.no_receipt && placing.parsed.is_ok() {
                continue;
            }
            let id = placing.id;
            let answer = dispatcher.conclude(placing, gathered, patience).await;
            answers.push(v1::Answer { id, answer: Some(answer) });
        }
        // Once for a batch: its commands are answered together.
        dispatcher.latencies.record(calls, placed.elapsed());
        answers
    }
}

impl Gathered {
    /// Merges a peer's answer; its receipt lists homes that did not answer the peer.
    fn add(&mut self, mut answer: Answer) {
        if let Answer::Receipt(receipt) = &mut answer
            && let Some(coverage) = receipt.coverage.take()
        {
            self.missing.extend(coverage.missing);
            self.epoch = self.epoch.max(coverage.epoch.unwrap_or_default());
        }
        merge(&mut self.answer, answer);
    }
}

impl Placing {
    fn changes_members(&self) -> bool {
        self.parsed.as_ref().is_ok_and(|parsed| parsed.changes_members())
    }
}

impl Dispatcher {
    /// Merges our shards' answers; a change of members is answered once the homes have acknowledged it.
    async fn gather_local(&self, local: Vec<Executing>, placings: &[Placing], gathered: &mut [Gathered]) {
        for executing in local {
            let carried = executing.answers(|stats| self.own_status(stats)).await;
            let settling = carried.iter().map(|carried| {
                let changes = placings.get(carried.index).is_some_and(Placing::changes_members);
                self.homes.settle(if changes { carried.touched.clone() } else { Vec::new() })
            });
            let settled = join_all(settling).await;
            for (mut carried, missing) in carried.into_iter().zip(settled) {
                sign_hops(&mut carried.answer, || self.me.load().name.clone());
                let gathered = &mut gathered[carried.index];
                gathered.missing.extend(missing.iter().map(|home| self.peers.name(*home)));
                if placings.get(carried.index).is_some_and(Placing::changes_members) {
                    // The homes had the change in this view at the latest.
                    gathered.epoch = gathered.epoch.max(view::epoch(&self.installed.borrow().view));
                }
                merge(&mut gathered.answer, carried.answer);
            }
        }
    }

    async fn conclude(
        self: &Arc<Self>,
        placing: Placing,
        gathered: Gathered,
        patience: Option<Duration>,
    ) -> Answer {
        let parsed = match &placing.parsed {
            Ok(parsed) => Arc::clone(parsed),
            Err(refused) => return Answer::Error(refused.clone()),
        };
        let Gathered { mut answer, mut missing, epoch } = gathered;
        if parsed.one_client().is_none() {
            missing.extend(self.outside.load().iter().cloned());
        }
        if let ParsedCommand::ListClients { .. } = *parsed {
            return self.walk(epoch, &parsed, &placing.message(), patience).await;
        }
        if !missing.is_empty() {
            counter!("broadgate_gateway_answers_incomplete_total").increment(1);
        }
        if let Some(client) = parsed.one_client() {
            match (&answer, missing.first()) {
                (None, Some(name)) => {
                    let message = format!("gateway {name}, which holds the client, did not answer in time");
                    return Answer::Error(refusal(Code::Unavailable, message));
                }
                (None, None) => return Answer::Error(not_found(client)),
                _ => {}
            }
        }
        add_unknown(&mut answer, &parsed, &placing);
        let mut answer = answer.unwrap_or_else(|| nothing(&parsed));
        tidy(&parsed, &mut answer);
        if let (Answer::Receipt(receipt), ParsedCommand::Bind { client, exclusive: true, .. }) =
            (&answer, parsed.inner())
            && receipt.clients == 0
            && missing.is_empty()
        {
            return Answer::Error(not_found(*client));
        }
        if let Answer::Receipt(receipt) = &mut answer {
            receipt.command_id = parsed.command_id().to_owned();
            if let Some(tracing) = &placing.tracing {
                receipt.trace = Some(self.whole_trace(tracing, receipt.trace.take(), &missing));
            }
        }
        match &mut answer {
            Answer::Status(status) => self.add_membership(status),
            Answer::Top(top) => self.add_homes(top),
            _ => {}
        }
        let missing: Vec<String> = missing.into_iter().collect();
        let coverage = self.coverage(epoch, missing);
        finish(&parsed, &mut answer, coverage);
        answer
    }

    /// A gateway outside the view sees only its own clients: its sums are never complete.
    fn coverage(&self, epoch: Epoch, missing: Vec<String>) -> v1::Coverage {
        let complete = missing.is_empty() && self.is_inside(self.me.load().incarnation);
        v1::Coverage { epoch: Some(epoch), complete, missing }
    }

    /// A page of clients: gateway after gateway in the order of their incarnations, until it is full.
    async fn walk(
        self: &Arc<Self>,
        epoch: Epoch,
        parsed: &Arc<ParsedCommand>,
        command: &Command,
        patience: Option<Duration>,
    ) -> Answer {
        let last = patience.map(|patience| tokio::time::Instant::now() + patience);
        let ParsedCommand::ListClients { limit, .. } = **parsed else { return nothing(parsed) };
        let Command::ListClients(request) = command else { return nothing(parsed) };
        let after = Cursor::parse(&request.cursor).ok().flatten();
        let me = self.me.load().incarnation;
        let mut gateways: Vec<Incarnation> = self.peers.all();
        gateways.push(me);
        gateways.sort_unstable();
        let mut all = Some(Answer::Clients(v1::ListClientsReply::default()));
        let mut missing = Vec::clone(&self.outside.load());
        for gateway in
            gateways.into_iter().filter(|gateway| after.is_none_or(|after| *gateway >= after.incarnation))
        {
            let mut request = request.clone();
            if after.is_some_and(|after| after.incarnation != gateway) {
                request.cursor.clear();
            }
            let command = Command::ListClients(request);
            let until = tokio::time::Instant::now() + self.link_timeout;
            let until = last.map_or(until, |last| last.min(until));
            match self.ask_one(gateway, command, until).await {
                Some(answer @ Answer::Clients(_)) => merge(&mut all, answer),
                Some(refused @ Answer::Error(_)) if gateway == me => return refused,
                None if self.peers.has_left(gateway) => {}
                _ => missing.push(self.peers.name(gateway)),
            }
            if matches!(&all, Some(Answer::Clients(reply)) if reply.clients.len() > limit) {
                break;
            }
        }
        let mut answer = all.unwrap_or_else(|| nothing(parsed));
        let coverage = self.coverage(epoch, missing);
        finish(parsed, &mut answer, coverage);
        answer
    }

    async fn ask_one(
        self: &Arc<Self>,
        gateway: Incarnation,
        command: Command,
        until: tokio::time::Instant,
    ) -> Option<Answer> {
        if gateway == self.me.load().incarnation {
            let parsed = match self.parser.parse(&command) {
                Ok(parsed) => parsed,
                Err(refused) => return Some(Answer::Error(refused)),
            };
            let executing = self.local.execute(vec![(0, parsed)]).await;
            return executing
                .answers(|stats| self.own_status(stats))
                .await
                .pop()
                .map(|carried| carried.answer);
        }
        let asked =
            self.peers.send(gateway, vec![v1::Command { id: 0, command: Some(command), after: None }]);
        asked.answers(until).await.pop().and_then(|(_, answer)| answer)
    }

    /// Executes a peer's commands, among this gateway's own clients only.
    pub(crate) async fn place_for_peer(&self, commands: Vec<v1::Command>) -> PeerPlaced {
        let mut orders = Vec::new();
        let mut refused = HashMap::new();
        let mut ids = Vec::with_capacity(commands.len());
        let mut members = BTreeSet::new();
        for (index, v1::Command { id, command, .. }) in commands.into_iter().enumerate() {
            ids.push(id);
            let parsed = command.as_ref().map(|command| self.parser.parse(command));
            match parsed {
                Some(Ok(parsed)) => {
                    if parsed.changes_members() {
                        members.insert(index);
                    }
                    orders.push((index, parsed));
                }
                Some(Err(error)) => {
                    refused.insert(index, error);
                }
                None => {
                    refused.insert(
                        index,
                        refusal(Code::Unimplemented, "this gateway does not know the command"),
                    );
                }
            }
        }
        PeerPlaced { ids, members, refused, local: self.local.execute(orders).await }
    }

    /// Waits until the homes have acknowledged a change of members; lists those that have not.
    pub(crate) async fn answer_peer(&self, placed: PeerPlaced) -> Vec<v1::Answer> {
        let mut answers: Vec<Option<Answer>> = (0..placed.ids.len())
            .map(|index| placed.refused.get(&index).cloned().map(Answer::Error))
            .collect();
        let carried = placed.local.answers(|stats| self.own_status(stats)).await;
        let settling = carried.iter().map(|carried| {
            let changes = placed.members.contains(&carried.index);
            self.homes.settle(if changes { carried.touched.clone() } else { Vec::new() })
        });
        let settled = join_all(settling).await;
        for (mut carried, missing) in carried.into_iter().zip(settled) {
            if let (true, Answer::Receipt(receipt)) =
                (placed.members.contains(&carried.index), &mut carried.answer)
            {
                receipt.coverage = Some(v1::Coverage {
                    epoch: Some(view::epoch(&self.installed.borrow().view)),
                    complete: missing.is_empty(),
                    missing: missing.iter().map(|home| self.peers.name(*home)).collect(),
                });
            }
            answers[carried.index] = Some(carried.answer);
        }
        placed.ids.into_iter().zip(answers).map(|(id, answer)| v1::Answer { id, answer }).collect()
    }
}

/// A peer's commands in this gateway's mailboxes.
pub(crate) struct PeerPlaced {
    ids: Vec<u64>,
    /// The commands that change membership.
    members: BTreeSet<usize>,
    refused: HashMap<usize, v1::Error>,
    local: Executing,
}

/// Counts clients whose gateway is in no view as gone, and malformed ids as never connected.
fn add_unknown(answer: &mut Option<Answer>, parsed: &ParsedCommand, placing: &Placing) {
    let gone = placing.unknown.iter().flat_map(|(_, clients)| clients).map(ToString::to_string);
    let unknown: Vec<String> = gone.chain(placing.malformed.iter().cloned()).collect();
    if unknown.is_empty() {
        return;
    }
    let part = if matches!(parsed, ParsedCommand::Online { .. }) {
        let clients = unknown.into_iter().map(|client| (client, false)).collect();
        Answer::Online(v1::OnlineReply { clients, ..v1::OnlineReply::default() })
    } else {
        Answer::Receipt(v1::Receipt {
            drops: HashMap::from([("unknown_client".to_owned(), unknown.len() as u64)]),
            unknown_clients: unknown,
            ..v1::Receipt::default()
        })
    };
    merge(answer, part);
}

/// The answer if no gateway or shard was asked, or none answered.
fn nothing(parsed: &ParsedCommand) -> Answer {
    match parsed.inner() {
        ParsedCommand::Roster { .. } => Answer::Roster(v1::RosterReply::default()),
        ParsedCommand::History { .. } => Answer::History(v1::HistoryReply::default()),
        ParsedCommand::Inspect(_) => Answer::Inspected(v1::InspectReply::default()),
        ParsedCommand::LastValue { .. } => Answer::LastValue(v1::LastValueReply::default()),
        ParsedCommand::Online { .. } => Answer::Online(v1::OnlineReply::default()),
        ParsedCommand::Count { .. } => Answer::Count(v1::CountReply::default()),
        ParsedCommand::ListClients { .. } => Answer::Clients(v1::ListClientsReply::default()),
        ParsedCommand::ListUids { .. } | ParsedCommand::ListGroups { .. } => {
            Answer::Names(v1::ListNamesReply::default())
        }
        ParsedCommand::Status { .. } => Answer::Status(v1::StatusReply::default()),
        ParsedCommand::Ended(_) => Answer::Ended(v1::EndedReply::default()),
        ParsedCommand::Sends(_) => Answer::Sends(v1::SendsReply::default()),
        ParsedCommand::Events(_) => Answer::Events(v1::EventsReply::default()),
        ParsedCommand::Top(_) => Answer::Top(v1::TopReply::default()),
        _ => Answer::Receipt(v1::Receipt::default()),
    }
}
