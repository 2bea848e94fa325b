//! Places commands: picks the shards and peers that each concerns, and queues it there in order.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use broadgate_proto::{
    id::{ClientId, Incarnation},
    limits::STARTING_TIME,
    name::MADE_ID_MARK,
    v1::{self, Epoch, command::Command},
    view,
};
use tonic::Code;

use crate::{
    callers::Caller,
    command::{
        ChannelEvent, CommandRefusal, CommandSource, Concerns, DRY, ParsedCommand, TRACE, refusal,
        take_malformed,
    },
    dispatch::{
        command_ids::{command_id, needs_id, set_command_id},
        dispatcher::Dispatcher,
        in_flight::{Direct, Placing, PlacingRight, Tracing},
        installed::Installed,
        pending::{Parts, PlacedBatch, RemotePart},
        via_home::Homed,
    },
};

impl Dispatcher {
    /// Queues the commands of one caller at every shard and peer that they concern, in order.
    pub(crate) async fn place(self: &Arc<Self>, commands: Vec<v1::Command>) -> PlacedBatch {
        self.place_by(commands, PlacingRight::Home).await
    }

    /// The same for events that this gateway issues itself, with their ids; an answer's number is its event's
    /// place.
    pub(crate) async fn place_events(
        self: &Arc<Self>,
        events: impl ExactSizeIterator<Item = (ChannelEvent, Option<String>)>,
    ) -> PlacedBatch {
        let parsed = (0..).zip(events).map(|(place, (event, id))| (self.parse_event(place, event, id), None));
        self.place_parsed(parsed, PlacingRight::Home).await
    }

    async fn place_by(self: &Arc<Self>, commands: Vec<v1::Command>, way: PlacingRight) -> PlacedBatch {
        let parsed =
            commands.into_iter().map(|v1::Command { id, command, after }| (self.parse(id, command), after));
        self.place_parsed(parsed, way).await
    }

    /// Each is parsed when those before it are placed as far as they must be.
    async fn place_parsed(
        self: &Arc<Self>,
        parsed: impl Iterator<Item = (Placing, Option<Epoch>)>,
        way: PlacingRight,
    ) -> PlacedBatch {
        let me = self.me.load().incarnation;
        let mut placings: Vec<Placing> = Vec::with_capacity(parsed.size_hint().0);
        let mut parts = Parts::default();
        let mut direct = Direct::default();
        for (index, (mut placing, after)) in parsed.enumerate() {
            if !self.is_inside(me) {
                self.come_inside(me, &mut placing).await;
            }
            if let (Ok(_), Some(after)) = (&placing.parsed, after)
                && let Err(refused) = self.catch_up(after).await
            {
                placing.parsed = Err(refused);
            }
            placings.push(placing);
            let homed =
                if way == PlacingRight::Home { Homed::of(self, &mut placings[index]) } else { Homed::No };
            if !matches!(homed, Homed::No) {
                // Keeps the caller's order among this gateway's own clients.
                self.put(std::mem::take(&mut direct), &placings, &mut parts).await;
            }
            homed.ask(self, index, &placings[index], &mut parts).await;
            if !homed.is_whole() {
                self.add(me, index, &mut placings[index], &mut direct);
            }
        }
        self.put(direct, &placings, &mut parts).await;
        let epoch = view::epoch(&self.installed.borrow().view);
        PlacedBatch::new(Arc::clone(self), epoch, placings, parts)
    }

    /// Collects the shards and peers of a command that goes to no home.
    fn add(&self, me: Incarnation, index: usize, placing: &mut Placing, direct: &mut Direct) {
        let Ok(parsed) = placing.parsed.clone() else { return };
        // A page of clients goes from gateway to gateway; see `pending`.
        if matches!(*parsed, ParsedCommand::ListClients { .. }) {
            return;
        }
        if parsed.only_client().is_some_and(|client| client.incarnation == me) {
            placing.asked = 1;
            return direct.here.push((index, parsed));
        }
        self.route(me, placing, &parsed, |target| {
            if target == me {
                direct.here.push((index, Arc::clone(&parsed)));
            } else {
                direct.there.entry(target).or_default().push(index);
            }
        });
    }

    /// Queues the collected commands.
    async fn put(&self, direct: Direct, placings: &[Placing], parts: &mut Parts) {
        if direct.here.iter().any(|(index, _)| !placings[*index].no_receipt) {
            parts.local.push(self.local.execute(direct.here).await);
        } else if !direct.here.is_empty() {
            self.local.carry_out(direct.here).await;
        }
        for (target, indexes) in direct.there {
            let batch = indexes.into_iter().map(|index| v1::Command {
                id: index as u64,
                command: Some(placings[index].message()),
                after: None,
            });
            let (name, asked) = (self.peers.name(target), self.peers.send(target, batch.collect()));
            parts.remote.push(RemotePart { peer: target, name, asked });
        }
    }

    pub(super) fn is_inside(&self, me: Incarnation) -> bool {
        self.installed.borrow().inside == Some(me)
    }

    /// A gateway outside every view sees only its own clients, and would call incomplete answers complete. One that has
    /// just started joins a view within moments, and proxies already forward requests to it: these wait.
    async fn come_inside(&self, me: Incarnation, placing: &mut Placing) {
        if placing.parsed.as_ref().is_ok_and(|parsed| matches!(**parsed, ParsedCommand::Status { .. })) {
            return;
        }
        if self.started.elapsed() < STARTING_TIME {
            let mut installed = self.installed.clone();
            let inside = installed.wait_for(|installed| installed.inside == Some(me));
            if tokio::time::timeout(self.link_timeout, inside).await.is_ok() {
                return;
            }
        }
        if placing.parsed.is_ok() {
            let sentence =
                "this gateway is not in the cluster's view: try another one, or repeat in a moment";
            placing.parsed = Err(refusal(Code::Unavailable, sentence));
        }
    }

    /// Waits until this gateway has installed a view as new as the caller's.
    async fn catch_up(&self, after: Epoch) -> Result<(), CommandRefusal> {
        if view::epoch(&self.installed.borrow().view) >= after {
            return Ok(());
        }
        let mut installed = self.installed.clone();
        let known = |installed: &Installed| view::epoch(&installed.view) >= after;
        let waiting = installed.wait_for(known);
        if tokio::time::timeout(self.link_timeout, waiting).await.is_ok() {
            return Ok(());
        }
        let mine = view::epoch(&self.installed.borrow().view);
        let sentence = format!(
            "this gateway knows the cluster as of epoch {mine}, and the caller as of {after}: repeat"
        );
        Err(refusal(Code::Unavailable, sentence))
    }

    fn parse(&self, id: u64, command: Option<Command>) -> Placing {
        let Some(mut command) = command else {
            // From a newer caller: prost drops fields that it does not know.
            let parsed = Err(refusal(Code::Unimplemented, "this gateway does not know the command"));
            return Placing::new(
                id,
                CommandSource::Message(Command::Status(v1::StatusRequest::default())),
                parsed,
            );
        };
        let mut tracing = None;
        let mut no_receipt = false;
        if let Command::Send(request) = &mut command {
            no_receipt = request.no_receipt;
            if request.dry || request.trace {
                require_of_peers(request);
                tracing = Tracing::of(request);
            }
        }
        if command_id(&mut command).is_some_and(|id| id.is_empty()) && needs_id(&command) {
            // A command that a home orders may have to be repeated at the next home.
            set_command_id(&mut command, self.make_id());
        }
        let mut parsed = self.parser.parse(&command);
        let mut malformed = Vec::new();
        if parsed.is_err()
            && let Some(taken) = take_malformed(&mut command)
        {
            malformed = taken;
            parsed = self.parser.parse(&command);
        }
        let placing = Placing::new(id, CommandSource::Message(command), parsed);
        Placing { malformed, no_receipt, tracing, ..placing }
    }

    fn parse_event(&self, id: u64, event: ChannelEvent, command_id: Option<String>) -> Placing {
        let command_id = command_id.unwrap_or_else(|| self.make_id());
        let parsed = self.parser.event(&event, &command_id);
        let no_receipt = event.flags.no_receipt;
        let tracing = event.flags.traced.then(|| Tracing::of_bytes(event.data.len()));
        Placing { no_receipt, tracing, ..Placing::new(id, CommandSource::Event(event), parsed) }
    }

    /// Notes in a command that sends something, closes clients or dissolves groups who gave it, whatever its caller
    /// says: the recorder names it. Closes and dissolves are logged, too: the ends of clients name them by their id.
    pub(crate) fn sign(&self, command: &mut Command, caller: &Caller) {
        let who = || caller.who().into_owned();
        // Without an id it is not remembered.
        let is_named = needs_id(command) || command_id(command).is_some_and(|id| !id.is_empty());
        let by = match command {
            Command::Send(request) => {
                request.by = if is_named { who() } else { String::new() };
                request.traceparent = caller.traceparent.map(|parent| parent.to_string()).unwrap_or_default();
                return;
            }
            Command::Close(request) => &mut request.by,
            Command::Bind(request) if request.exclusive => &mut request.by,
            Command::Dissolve(request) => &mut request.by,
            _ => return,
        };
        *by = who();
        if command_id(command).is_some_and(|id| id.is_empty()) {
            set_command_id(command, self.make_id());
        }
        if tracing::enabled!(tracing::Level::DEBUG) {
            log_signed(command, caller.from);
        }
    }

    fn make_id(&self) -> String {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        format!("{MADE_ID_MARK}{}-{number}", self.me.load().incarnation)
    }

    /// Calls `to` for every gateway that a command concerns.
    fn route(
        &self,
        me: Incarnation,
        placing: &mut Placing,
        parsed: &ParsedCommand,
        mut to: impl FnMut(Incarnation),
    ) {
        match parsed.concerns() {
            Concerns::All => {
                to(me);
                placing.asked += 1;
                for peer in self.peers.all() {
                    to(peer);
                    placing.asked += 1;
                }
                placing.unknown = self.unknown_of(me, parsed);
            }
            Concerns::Some(holders) => {
                for (holder, clients) in holders {
                    if holder == me || self.peers.has(holder) {
                        to(holder);
                        placing.asked += 1;
                    } else {
                        placing.unknown.push((holder, clients));
                    }
                }
            }
        }
    }

    /// Clients listed next to groups or uids whose gateway is in no view.
    fn unknown_of(&self, me: Incarnation, parsed: &ParsedCommand) -> Vec<(Incarnation, Vec<ClientId>)> {
        let listed: &[_] = match parsed.inner() {
            ParsedCommand::Send { to, .. } | ParsedCommand::Close { to, .. } => &to.clients,
            ParsedCommand::Join { who, .. } | ParsedCommand::Leave { who, .. } => &who.clients,
            ParsedCommand::Online { clients, .. } => clients,
            _ => &[],
        };
        let mut unknown: BTreeMap<Incarnation, Vec<_>> = BTreeMap::new();
        for &client in listed {
            let holder = client.incarnation;
            if holder != me && !self.peers.has(holder) {
                unknown.entry(holder).or_default().push(client);
            }
        }
        unknown.into_iter().collect()
    }

    /// Places one command and awaits its answer. Of a caller who waits for this long, gateways that have not answered by
    /// then are missing.
    pub(crate) async fn run_within(
        self: &Arc<Self>,
        command: Command,
        after: Option<Epoch>,
        patience: Option<Duration>,
    ) -> v1::answer::Answer {
        self.run_by(command, after, PlacingRight::Home, patience).await
    }

    pub(super) async fn run_by(
        self: &Arc<Self>,
        command: Command,
        after: Option<Epoch>,
        way: PlacingRight,
        patience: Option<Duration>,
    ) -> v1::answer::Answer {
        let command = v1::Command { id: 0, command: Some(command), after };
        let mut placed = self.place_by(vec![command], way).await;
        placed.patience = patience;
        // It is empty if the caller asked for no receipt.
        let nothing = v1::Answer { id: 0, answer: Some(v1::answer::Answer::Receipt(v1::Receipt::default())) };
        let answer = placed.answers().await.pop().unwrap_or(nothing).answer;
        answer.unwrap_or_else(|| {
            v1::answer::Answer::Error(refusal(Code::Internal, "the command was not answered"))
        })
    }
}

/// What the gateways that get this send must know: of an earlier version, one would send a dry run in earnest. A
/// message of which one cannot say what it did is delivered all the same.
fn require_of_peers(request: &mut v1::SendRequest) {
    request.requires.retain(|word| word != TRACE);
    if request.dry && !request.requires.iter().any(|word| word == DRY) {
        request.requires.push(DRY.to_owned());
    }
}

/// The log's line of a command that closes clients or dissolves groups.
fn log_signed(command: &mut Command, caller: Option<SocketAddr>) {
    let id = command_id(command).cloned().unwrap_or_default();
    let caller = caller.map(tracing::field::display);
    match command {
        Command::Close(v1::CloseRequest { to, code, reason, by, .. }) => {
            let app = to.as_ref().map_or("", |to| &*to.app);
            tracing::debug!(command = id, by, caller, app, code, reason, "command closes clients");
        }
        Command::Bind(v1::BindRequest { app, uid, by, .. }) => {
            tracing::debug!(
                command = id,
                by,
                caller,
                app,
                uid,
                "an exclusive bind closes the uid's other clients"
            );
        }
        Command::Dissolve(v1::DissolveRequest { app, groups, by, .. }) => {
            tracing::debug!(command = id, by, caller, app, ?groups, "command dissolves groups");
        }
        _ => {}
    }
}
