//! The state of commands in flight.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use broadgate_proto::{
    id::{ClientId, Incarnation},
    v1::{self, command::Command, send_request::Payload},
};
use broadgate_topics::Topic;
use tokio::sync::oneshot;

use crate::{
    cluster::Routed,
    command::{CommandRefusal, CommandSource, ParsedCommand, TopicCommand},
};

/// Which gateway may place a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlacingRight {
    /// The home of its topic, if it has one topic.
    Home,
    /// Every gateway that it concerns, among its own clients; unordered.
    Everywhere,
}

/// One command in flight.
pub(crate) struct Placing {
    /// The caller's number.
    pub(crate) id: u64,
    pub(super) given: Given,
    pub(crate) parsed: Result<Arc<ParsedCommand>, CommandRefusal>,
    /// Incarnations that the command names and that are in no view, with the clients named there.
    pub(crate) unknown: Vec<(Incarnation, Vec<ClientId>)>,
    /// Malformed entries of its lists of client ids.
    pub(crate) malformed: Vec<String>,
    /// How many gateways were asked.
    pub(crate) asked: usize,
    /// The caller wants no answer.
    pub(crate) no_receipt: bool,
    /// If its caller wants to know which way it took.
    pub(super) tracing: Option<Box<Tracing>>,
}

/// A command as it was given.
#[allow(clippy::large_enum_variant, reason = "most are alone, and a box would be an allocation for each")]
pub(super) enum Given {
    Alone(CommandSource),
    /// The home of its topic gets it.
    Shared(Arc<TopicCommand>),
}

impl Placing {
    pub(super) fn new(
        id: u64,
        source: CommandSource,
        parsed: Result<Arc<ParsedCommand>, CommandRefusal>,
    ) -> Self {
        let given = Given::Alone(source);
        Self {
            id,
            given,
            parsed,
            unknown: Vec::new(),
            malformed: Vec::new(),
            asked: 0,
            no_receipt: false,
            tracing: None,
        }
    }

    /// The message for a peer.
    pub(super) fn message(&self) -> Command {
        let id = self.parsed.as_ref().map_or("", |parsed| parsed.command_id());
        match &self.given {
            Given::Alone(source) => source.message(id),
            Given::Shared(command) => command.message(),
        }
    }

    /// The same, to change it.
    pub(super) fn message_mut(&mut self) -> Option<&mut Command> {
        if let Given::Alone(CommandSource::Message(command)) = &mut self.given { Some(command) } else { None }
    }

    /// For the home of its topic, which shares it with this placing.
    pub(super) fn share(&mut self, parsed: &Arc<ParsedCommand>) -> Arc<TopicCommand> {
        let nothing = Given::Alone(CommandSource::Message(Command::Status(v1::StatusRequest::default())));
        let shared = match std::mem::replace(&mut self.given, nothing) {
            Given::Alone(source) => TopicCommand::new(source, Arc::clone(parsed)),
            Given::Shared(command) => command,
        };
        self.given = Given::Shared(Arc::clone(&shared));
        shared
    }
}

/// Commands that need no home and are not in the queues yet.
#[derive(Default)]
pub(super) struct Direct {
    pub(super) here: Vec<(usize, Arc<ParsedCommand>)>,
    pub(super) there: BTreeMap<Incarnation, Vec<usize>>,
}

/// A question to a home, and where its answer will arrive.
pub(super) struct HomeQuestion {
    pub(super) index: usize,
    pub(super) routed: oneshot::Receiver<Routed>,
    /// The topics that are counted, if that is the question.
    pub(super) counted: Option<(ClientScope, Vec<Topic>)>,
    /// If the command is traced.
    pub(super) traced: Option<AskedHome>,
}

/// What clients are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientScope {
    Groups,
    Uids,
}

/// A traced send that is not answered yet.
#[derive(Debug)]
pub(super) struct Tracing {
    pub(super) since: Instant,
    /// Of the payload.
    pub(super) bytes: usize,
}

/// When a home was asked, and which.
#[derive(Debug)]
pub(super) struct AskedHome {
    pub(super) at: Instant,
    /// Its name; "" while there is no ring. It may be in no view any more when it is given up.
    pub(super) home: String,
}

impl Tracing {
    /// Of a send that is taken now, if it asks for a trace.
    pub(super) fn of(request: &v1::SendRequest) -> Option<Box<Self>> {
        let bytes = match &request.payload {
            Some(Payload::Text(text)) => text.len(),
            Some(Payload::Binary(bytes) | Payload::Framed(bytes)) => bytes.len(),
            None => 0,
        };
        request.trace.then(|| Self::of_bytes(bytes))
    }

    /// Of a traced send with so many bytes of payload.
    pub(super) fn of_bytes(bytes: usize) -> Box<Self> {
        Box::new(Self { since: Instant::now(), bytes })
    }
}
