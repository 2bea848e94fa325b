//! The content of topics in a running gateway: commands as received, parsed once.

use std::sync::Arc;

use broadgate_proto::{
    id::Incarnation,
    v1::{answer::Answer, command::Command},
};
use broadgate_topics::Content;
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_128;

use crate::command::{
    merge::merge,
    order::{CommandRefusal, ParsedCommand},
    parse::Parser,
};

/// The content of a running gateway.
#[derive(Debug, Clone)]
pub(crate) enum GatewayContent {}

/// One command: in the form that is forwarded, and in the form that is executed here.
#[derive(Debug)]
pub(crate) struct TopicCommand {
    pub(crate) command: Command,
    pub(crate) order: Arc<ParsedCommand>,
    bytes: usize,
}

impl TopicCommand {
    pub(crate) fn new(command: Command, order: Arc<ParsedCommand>) -> Arc<Self> {
        let bytes = match &command {
            Command::Send(request) => request.encoded_len(),
            Command::Close(request) => request.encoded_len(),
            Command::Bind(request) => request.encoded_len(),
            Command::Dissolve(request) => request.encoded_len(),
            _ => 0,
        };
        Arc::new(Self { command, order, bytes })
    }

    pub(crate) fn parse(parser: &Parser, command: Command) -> Result<Arc<Self>, CommandRefusal> {
        let order = parser.parse(&command)?;
        Ok(Self::new(command, order))
    }
}

impl TopicCommand {
    /// Of its command, in bytes.
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

    /// The command, and the frames that were made of it.
    fn heap_bytes(job: &Arc<TopicCommand>) -> usize {
        job.bytes + job.order.heap_bytes() + size_of::<TopicCommand>() + size_of::<ParsedCommand>()
    }

    fn also(job: &Arc<TopicCommand>) -> Option<Incarnation> {
        match job.order.inner() {
            ParsedCommand::Bind { client, .. } => Some(client.incarnation),
            _ => None,
        }
    }

    fn retained_as(job: &Arc<TopicCommand>) -> Option<u128> {
        match &job.command {
            Command::Send(request) if !request.not_kept => Some(xxh3_128(request.command_id.as_bytes())),
            _ => None,
        }
    }

    fn merge(all: &mut Option<Answer>, part: Answer) {
        merge(all, part);
    }
}
