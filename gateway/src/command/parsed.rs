//! Parsed commands, ready to execute, and refusals.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use broadgate_proto::{
    id::{ClientId, IdError, Incarnation},
    name::NameError,
    v1,
};
use broadgate_topics::{Position, Topic, TopicPosition};
use ipnet::IpNet;
use tonic::Code;

use crate::{
    codec::encode::Frames,
    events::EventQuestion,
    recorder::{EndQuestion, SENT_DROPS, SendQuestion, SentNote, SentTo},
};

/// A refusal: what a unary call answers as its status.
pub(crate) type CommandRefusal = v1::Error;

/// The recipients of a command.
#[derive(Debug, Default)]
pub(crate) struct ClientFilter {
    pub(crate) app: Box<str>,
    pub(crate) clients: Vec<ClientId>,
    pub(crate) uids: Vec<Box<str>>,
    pub(crate) groups: Vec<Box<str>>,
    pub(crate) all: bool,
    pub(crate) except_clients: Vec<ClientId>,
    pub(crate) except_uids: Vec<Box<str>>,
    pub(crate) except_groups: Vec<Box<str>>,
}

impl ClientFilter {
    /// True if there is nothing to deduplicate and no client to leave out.
    pub(crate) fn is_one_topic(&self) -> bool {
        let topics = self.uids.len() + self.groups.len() + usize::from(self.all);
        topics <= 1
            && self.clients.is_empty()
            && self.except_clients.is_empty()
            && self.except_uids.is_empty()
            && self.except_groups.is_empty()
    }

    /// The topic, if exactly one topic and nothing else is addressed.
    pub(super) fn topic(&self) -> Option<Topic> {
        match (self.all, &self.uids[..], &self.groups[..]) {
            _ if !self.clients.is_empty() => None,
            (true, [], []) => Some(Topic::all(&self.app)),
            (false, [uid], []) => Some(Topic::uid(&self.app, uid)),
            (false, [], [group]) => Some(Topic::group(&self.app, group)),
            _ => None,
        }
    }

    /// True if only client ids are named, so that only their gateways are concerned.
    pub(super) fn clients_only(&self) -> bool {
        self.uids.is_empty() && self.groups.is_empty() && !self.all
    }
}

/// The user that a client represents in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PresenceSeat {
    pub(crate) user: Arc<str>,
    /// The user's info, visible to the other members.
    pub(crate) info: Arc<str>,
}

/// Close code and reason.
#[derive(Debug)]
pub(crate) struct CloseWith {
    pub(crate) code: u16,
    pub(crate) reason: Box<str>,
    pub(crate) last: Option<Frames>,
    pub(crate) at_once: bool,
    /// Who gave the command; "" if an earlier version took it.
    pub(crate) by: Box<str>,
}

/// An operation on a session.
#[derive(Debug)]
pub(crate) enum SessionCommand {
    Set(Box<str>),
    Merge(serde_json::Value),
    Get,
}

/// What a gateway's evidence must have.
#[derive(Debug, Default)]
pub(crate) struct EvidenceQuestion {
    /// For its hashes.
    pub(crate) salt: u64,
    /// Apps whose settings are hashed one by one.
    pub(crate) apps: Vec<Box<str>>,
}

/// What is asked about what is busy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopQuestion {
    pub(crate) by: v1::TopBy,
    pub(crate) sort: v1::TopSort,
    /// None means every app.
    pub(crate) app: Option<Box<str>>,
    pub(crate) limit: usize,
}

/// One command, ready to be executed by every shard that it concerns.
#[derive(Debug)]
pub(crate) enum ParsedCommand {
    Send {
        to: ClientFilter,
        frames: Frames,
        /// If several groups are named: the event as it is framed for each of them.
        by_group: Vec<Frames>,
        /// Finds out whom it would reach, and places nothing.
        dry: bool,
        /// Its receipt says which way it took.
        traced: bool,
    },
    Close {
        to: ClientFilter,
        closing: CloseWith,
    },
    /// An exclusive bind closes the uid's other clients, wherever they are.
    Bind {
        app: Box<str>,
        client: ClientId,
        uid: Box<str>,
        exclusive: bool,
        /// Who gave the command, if it is exclusive.
        by: Box<str>,
    },
    Unbind {
        app: Box<str>,
        client: ClientId,
        uid: Option<Box<str>>,
    },
    Join {
        app: Box<str>,
        who: Recipients,
        groups: Vec<Box<str>>,
        seat: Option<PresenceSeat>,
    },
    Leave {
        app: Box<str>,
        who: Recipients,
        groups: Vec<Box<str>>,
    },
    Dissolve {
        app: Box<str>,
        groups: Vec<Box<str>>,
    },
    Session {
        app: Box<str>,
        client: ClientId,
        order: SessionCommand,
        if_version: Option<u64>,
    },
    Online {
        app: Box<str>,
        clients: Vec<ClientId>,
        uids: Vec<Box<str>>,
    },
    Count {
        app: Box<str>,
        groups: Vec<Box<str>>,
        uids: bool,
    },
    GetClient {
        app: Box<str>,
        client: ClientId,
    },
    Roster {
        app: Box<str>,
        group: Box<str>,
        limit: usize,
        after: Box<str>,
    },
    History {
        app: Box<str>,
        group: Box<str>,
        since: Option<Position>,
        limit: usize,
        /// With what the messages say.
        payload: bool,
    },
    LastValue {
        app: Box<str>,
        group: Box<str>,
    },
    /// How this topic stands at its home.
    Inspect(Topic),
    ListClients {
        of: ClientFilter,
        fields: Vec<v1::ClientField>,
        /// Only those that this holds up.
        state: Option<v1::ClientState>,
        /// Only those that connected from there.
        address: Option<IpNet>,
        limit: usize,
        after: Option<(u8, u32)>,
    },
    ListUids {
        app: Box<str>,
        groups: Vec<Box<str>>,
        limit: usize,
        after: Box<str>,
    },
    ListGroups {
        app: Box<str>,
        prefix: Box<str>,
        limit: usize,
        after: Box<str>,
    },
    Status {
        evidence: Option<Arc<EvidenceQuestion>>,
    },
    Ended(EndQuestion),
    Sends(SendQuestion),
    Events(EventQuestion),
    Top(TopQuestion),
    /// Executed once, however often its caller repeats it.
    Once {
        app: Box<str>,
        id: Box<str>,
        /// Who gave it, if it sends something; "" if that is not known.
        by: Box<str>,
        order: Box<Self>,
        /// The trace of its caller's own that it belongs to; "" if it sends nothing, or there is none.
        traceparent: Box<str>,
        /// Its place in the order of its topic, once the home has given it one.
        placed_at: OnceLock<TopicPosition>,
    },
}

/// Clients, and all clients of uids.
#[derive(Debug)]
pub(crate) struct Recipients {
    pub(crate) clients: Vec<ClientId>,
    pub(crate) uids: Vec<Box<str>>,
}

/// Which gateways a command concerns.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Concerns {
    /// Every gateway of the view.
    All,
    /// The gateways of these incarnations, each with the clients that the command names there.
    Some(BTreeMap<Incarnation, Vec<ClientId>>),
}

impl ParsedCommand {
    pub(crate) fn concerns(&self) -> Concerns {
        match self {
            Self::Once { order, .. } => order.concerns(),
            Self::Bind { exclusive: true, .. } => Concerns::All,
            Self::Send { to, .. } | Self::Close { to, .. } if to.clients_only() => homes_of(&to.clients),
            Self::Bind { client, .. }
            | Self::Unbind { client, .. }
            | Self::Session { client, .. }
            | Self::GetClient { client, .. } => homes_of(&[*client]),
            Self::Join { who, .. } | Self::Leave { who, .. } if who.uids.is_empty() => homes_of(&who.clients),
            Self::Online { clients, uids, .. } if uids.is_empty() => homes_of(clients),
            _ => Concerns::All,
        }
    }

    /// The client, if the command concerns exactly one. Cheap, since most commands of workers do.
    pub(crate) fn only_client(&self) -> Option<ClientId> {
        match self {
            Self::Once { order, .. } => order.only_client(),
            Self::Send { to, .. } | Self::Close { to, .. } if to.clients_only() => match to.clients[..] {
                [only] => Some(only),
                _ => None,
            },
            other => other.one_client(),
        }
    }

    /// Does this command name exactly one client, so that its absence is an error?
    pub(crate) fn one_client(&self) -> Option<ClientId> {
        match self {
            Self::Once { order, .. } => order.one_client(),
            // It also concerns the uid's other clients.
            Self::Bind { exclusive: true, .. } => None,
            Self::Bind { client, .. }
            | Self::Unbind { client, .. }
            | Self::Session { client, .. }
            | Self::GetClient { client, .. } => Some(*client),
            _ => None,
        }
    }
}

impl ParsedCommand {
    /// The command itself, without the id under which its caller may repeat it.
    pub(crate) fn inner(&self) -> &Self {
        if let Self::Once { order, .. } = self { order } else { self }
    }

    /// Who gave the command, if it closes clients.
    pub(crate) fn closes_by(&self) -> Option<&str> {
        match self.inner() {
            Self::Close { closing, .. } => Some(&closing.by),
            Self::Bind { exclusive: true, by, .. } => Some(by),
            _ => None,
        }
    }

    /// What is remembered of it, if it sends something and has an id: it reaches nobody yet.
    pub(crate) fn sent_note(&self, at_ms: u64) -> Option<SentNote<'_>> {
        let Self::Once { app, id, by, order, .. } = self else { return None };
        let Self::Send { to, .. } = &**order else { return None };
        let to = SentTo {
            all: to.all,
            clients: &to.clients,
            uids: &to.uids,
            groups: &to.groups,
            except_clients: &to.except_clients,
            except_uids: &to.except_uids,
            except_groups: &to.except_groups,
        };
        let at = self.position().map(|at| (at.tenure, at.number));
        Some(SentNote { at_ms, app, id, by, to, at, clients: 0, drops: [0; SENT_DROPS.len()] })
    }

    /// The trace of its caller's own; "" if there is none.
    pub(crate) fn traceparent(&self) -> &str {
        if let Self::Once { traceparent, .. } = self { traceparent } else { "" }
    }

    /// Its place in the order of its topic, if it has one.
    pub(crate) fn position(&self) -> Option<TopicPosition> {
        if let Self::Once { placed_at, .. } = self { placed_at.get().copied() } else { None }
    }

    /// The home has given it this place, or a later home another one: the first counts, as it does for its clients.
    pub(crate) fn place_at(&self, at: TopicPosition) {
        if let Self::Once { placed_at, order, .. } = self
            && !matches!(**order, Self::Send { dry: true, .. })
        {
            let _ = placed_at.set(at);
        }
    }

    /// Who gave the command, as far as that is known.
    pub(crate) fn given_by(&self) -> &str {
        let sender = if let Self::Once { by, .. } = self { &**by } else { "" };
        self.closes_by().unwrap_or(sender)
    }

    /// The id under which it is executed once; "" if it has none.
    pub(crate) fn command_id(&self) -> &str {
        if let Self::Once { id, .. } = self { id } else { "" }
    }

    /// Is it a dry run, which places nothing?
    pub(crate) fn is_dry(&self) -> bool {
        matches!(self.inner(), Self::Send { dry: true, .. })
    }

    /// Must its receipt say which way it took?
    pub(crate) fn is_traced(&self) -> bool {
        matches!(self.inner(), Self::Send { traced: true, .. })
    }

    /// Are both messages to the same single topic, with the same frame for every client? A dry run is like nothing.
    pub(crate) fn is_sent_like(&self, other: &Self) -> bool {
        let (Self::Send { to, by_group, dry: false, .. }, Self::Send { to: theirs, dry: false, .. }) =
            (self.inner(), other.inner())
        else {
            return false;
        };
        by_group.is_empty()
            && to.is_one_topic()
            && theirs.is_one_topic()
            && (&to.app, to.all, &to.uids, &to.groups)
                == (&theirs.app, theirs.all, &theirs.uids, &theirs.groups)
    }

    /// Bytes of the message's frames on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        let Self::Send { frames, by_group, .. } = self.inner() else { return 0 };
        std::iter::once(frames).chain(by_group).map(Frames::heap_bytes).sum()
    }

    /// The frames of a message; none for other commands.
    pub(crate) fn frames(&self) -> Frames {
        if let Self::Send { frames, .. } = self.inner() { frames.clone() } else { Frames::default() }
    }

    /// The one topic whose home must order this.
    pub(crate) fn topic(&self) -> Option<Topic> {
        match self.inner() {
            Self::Send { to, .. } | Self::Close { to, .. } => to.topic(),
            Self::Bind { app, uid, exclusive: true, .. } => Some(Topic::uid(app, uid)),
            Self::Dissolve { app, groups } if groups.len() == 1 => Some(Topic::group(app, &groups[0])),
            Self::Roster { app, group, .. }
            | Self::History { app, group, .. }
            | Self::LastValue { app, group } => Some(Topic::group(app, group)),
            Self::Inspect(topic) => Some(topic.clone()),
            _ => None,
        }
    }

    /// The topics whose membership it changes; their homes must acknowledge it before it is answered.
    pub(crate) fn touches(&self) -> Vec<Topic> {
        match self.inner() {
            Self::Bind { app, uid, .. } => vec![Topic::uid(app, uid)],
            Self::Join { app, groups, .. }
            | Self::Leave { app, groups, .. }
            | Self::Dissolve { app, groups } => groups.iter().map(|group| Topic::group(app, group)).collect(),
            _ => Vec::new(),
        }
    }

    /// Does it change membership, so that homes must acknowledge it?
    pub(crate) fn changes_members(&self) -> bool {
        matches!(
            self.inner(),
            Self::Bind { .. }
                | Self::Unbind { .. }
                | Self::Join { .. }
                | Self::Leave { .. }
                | Self::Dissolve { .. }
        )
    }
}

pub(super) fn homes_of(clients: &[ClientId]) -> Concerns {
    let mut homes: BTreeMap<Incarnation, Vec<ClientId>> = BTreeMap::new();
    for &client in clients {
        homes.entry(client.incarnation).or_default().push(client);
    }
    Concerns::Some(homes)
}

pub(crate) fn refusal(code: Code, message: impl Into<String>) -> CommandRefusal {
    CommandRefusal { code: code as i32, message: message.into() }
}

pub(crate) fn invalid(message: impl Into<String>) -> CommandRefusal {
    refusal(Code::InvalidArgument, message)
}

pub(crate) fn not_found(client: ClientId) -> CommandRefusal {
    refusal(Code::NotFound, format!("client {client} is not connected"))
}

impl From<NameError> for RefusedField {
    fn from(error: NameError) -> Self {
        Self(invalid(error.to_string()))
    }
}

impl From<IdError> for RefusedField {
    fn from(error: IdError) -> Self {
        Self(invalid(error.to_string()))
    }
}

/// Lets `?` turn the contract's errors into refusals.
pub(crate) struct RefusedField(pub(super) CommandRefusal);

impl From<RefusedField> for CommandRefusal {
    fn from(refused: RefusedField) -> Self {
        refused.0
    }
}
