//! The content of topics in a running gateway: commands as received, parsed once.

use std::sync::Arc;

use broadgate_proto::{
    id::Incarnation,
    v1::{answer::Answer, command::Command, send_request::Payload},
};
use broadgate_topics::Content;
use xxhash_rust::xxh3::xxh3_128;

use crate::command::{
    merge::merge,
    parse::Parser,
    parsed::{CommandRefusal, ParsedCommand},
    source::{ClientEvent, CommandSource},
};

/// The content of a running gateway.
#[derive(Debug, Clone)]
pub(crate) enum GatewayContent {}

/// One command: as it was given, and in the form that is executed here.
#[derive(Debug)]
pub(crate) struct TopicCommand {
    pub(crate) source: CommandSource,
    pub(crate) parsed: Arc<ParsedCommand>,
    bytes: usize,
}

impl TopicCommand {
    pub(crate) fn new(source: CommandSource, parsed: Arc<ParsedCommand>) -> Arc<Self> {
        let bytes = source.encoded_len(parsed.command_id());
        Arc::new(Self { source, parsed, bytes })
    }

    pub(crate) fn parse(parser: &Parser, command: Command) -> Result<Arc<Self>, CommandRefusal> {
        let parsed = parser.parse(&command)?;
        Ok(Self::new(CommandSource::Message(command), parsed))
    }

    /// The message for a peer.
    pub(crate) fn message(&self) -> Command {
        self.source.message(self.id())
    }

    /// "" if it has none.
    pub(crate) fn id(&self) -> &str {
        self.parsed.command_id()
    }

    pub(crate) fn payload(&self) -> Option<Payload> {
        self.source.payload()
    }

    /// The event's name; "" if it has none.
    pub(crate) fn event_name(&self) -> &str {
        self.source.event_name()
    }

    /// What it says, if it is an event that a client has sent.
    pub(crate) fn client_event(&self) -> Option<ClientEvent<'_>> {
        self.source.client_event()
    }

    /// The command's size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Content for GatewayContent {
    type Command = Arc<TopicCommand>;
    type Answer = Answer;

    fn bytes(job: &Arc<TopicCommand>) -> usize {
        job.bytes()
    }

    /// Size of the command and of its frames.
    fn heap_bytes(job: &Arc<TopicCommand>) -> usize {
        job.bytes + job.parsed.heap_bytes() + size_of::<TopicCommand>() + size_of::<ParsedCommand>()
    }

    fn also(job: &Arc<TopicCommand>) -> Option<Incarnation> {
        match job.parsed.inner() {
            ParsedCommand::Bind { client, .. } => Some(client.incarnation),
            _ => None,
        }
    }

    fn retained_as(job: &Arc<TopicCommand>) -> Option<u128> {
        job.source.is_retained().then(|| xxh3_128(job.id().as_bytes()))
    }

    fn is_dry(job: &Arc<TopicCommand>) -> bool {
        job.parsed.is_dry()
    }

    fn is_traced(job: &Arc<TopicCommand>) -> bool {
        job.parsed.is_traced()
    }

    fn merge(all: &mut Option<Answer>, part: Answer) {
        merge(all, part);
    }
}
