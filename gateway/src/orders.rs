//! Commands as a gateway carries them out: parsed, checked, and with their payload framed once.

use std::{collections::BTreeMap, sync::Arc};

use broadgate_proto::{
    close,
    id::{ClientId, IdError, Incarnation},
    limits,
    name::{self, NameError},
    v1,
};
use bytes::Bytes;
use tonic::Code;

use crate::{
    codec::encode::{Encoder, Frames},
    homes::{At, Pattern, Position, Topic},
    shard::Seat,
};

/// A refusal: what a unary call answers as its status.
pub(crate) type Refusal = v1::Error;

/// Whom a command reaches.
#[derive(Debug, Default)]
pub(crate) struct Audience {
    pub(crate) app: Box<str>,
    pub(crate) clients: Vec<ClientId>,
    pub(crate) uids: Vec<Box<str>>,
    pub(crate) groups: Vec<Box<str>>,
    pub(crate) all: bool,
    pub(crate) except_clients: Vec<ClientId>,
    pub(crate) except_uids: Vec<Box<str>>,
    pub(crate) except_groups: Vec<Box<str>>,
}

impl Audience {
    /// Nothing to deduplicate and nobody to leave out.
    pub(crate) fn is_one_topic(&self) -> bool {
        let topics = self.uids.len() + self.groups.len() + usize::from(self.all);
        topics <= 1
            && self.clients.is_empty()
            && self.except_clients.is_empty()
            && self.except_uids.is_empty()
            && self.except_groups.is_empty()
    }

    /// The one topic that is addressed, and nobody besides.
    fn topic(&self) -> Option<Topic> {
        match (self.all, &self.uids[..], &self.groups[..]) {
            _ if !self.clients.is_empty() => None,
            (true, [], []) => Some(Topic::all(&self.app)),
            (false, [uid], []) => Some(Topic::uid(&self.app, uid)),
            (false, [], [group]) => Some(Topic::group(&self.app, group)),
            _ => None,
        }
    }

    /// Only clients are named, so only their gateways need to know.
    fn clients_only(&self) -> bool {
        self.uids.is_empty() && self.groups.is_empty() && !self.all
    }
}

/// How to close.
#[derive(Debug)]
pub(crate) struct Closing {
    pub(crate) code: u16,
    pub(crate) reason: Box<str>,
    pub(crate) last: Option<Frames>,
    pub(crate) at_once: bool,
}

/// What is done to a session.
#[derive(Debug)]
pub(crate) enum SessionOrder {
    Set(Box<str>),
    Merge(serde_json::Value),
    Get,
}

/// One command, ready to be carried out by every shard that it concerns.
#[derive(Debug)]
pub(crate) enum Order {
    Send {
        to: Audience,
        frames: Frames,
    },
    Close {
        to: Audience,
        closing: Closing,
    },
    /// An exclusive bind closes the uid's other clients, wherever they are.
    Bind {
        app: Box<str>,
        client: ClientId,
        uid: Box<str>,
        exclusive: bool,
    },
    Unbind {
        app: Box<str>,
        client: ClientId,
        uid: Option<Box<str>>,
    },
    Join {
        app: Box<str>,
        who: Who,
        groups: Vec<Box<str>>,
        seat: Option<Seat>,
    },
    Leave {
        app: Box<str>,
        who: Who,
        groups: Vec<Box<str>>,
    },
    Dissolve {
        app: Box<str>,
        groups: Vec<Box<str>>,
    },
    Session {
        app: Box<str>,
        client: ClientId,
        order: SessionOrder,
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
    },
    LastValue {
        app: Box<str>,
        group: Box<str>,
    },
    ListClients {
        of: Audience,
        fields: Vec<v1::ClientField>,
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
    Status,
    /// Carried out once, however often its caller repeats it.
    Once {
        app: Box<str>,
        id: Box<str>,
        order: Box<Self>,
    },
}

/// Clients, and all clients of uids.
#[derive(Debug)]
pub(crate) struct Who {
    pub(crate) clients: Vec<ClientId>,
    pub(crate) uids: Vec<Box<str>>,
}

/// Which gateways a command concerns.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Concerns {
    /// Every gateway of the view.
    All,
    /// The gateways of these incarnations; the clients that are named there.
    Some(BTreeMap<Incarnation, Vec<ClientId>>),
}

impl Order {
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

impl Order {
    /// The order itself, whether or not its caller may repeat it.
    pub(crate) fn inner(&self) -> &Self {
        if let Self::Once { order, .. } = self { order } else { self }
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
            _ => None,
        }
    }

    /// The topics whose members it names; their homes must know of it before it is answered.
    pub(crate) fn touches(&self) -> Vec<Topic> {
        match self.inner() {
            Self::Bind { app, uid, .. } => vec![Topic::uid(app, uid)],
            Self::Join { app, groups, .. }
            | Self::Leave { app, groups, .. }
            | Self::Dissolve { app, groups } => groups.iter().map(|group| Topic::group(app, group)).collect(),
            _ => Vec::new(),
        }
    }

    /// Does it change who is in what, so that homes must hear of it?
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

fn homes_of(clients: &[ClientId]) -> Concerns {
    let mut homes: BTreeMap<Incarnation, Vec<ClientId>> = BTreeMap::new();
    for &client in clients {
        homes.entry(client.incarnation).or_default().push(client);
    }
    Concerns::Some(homes)
}

/// Parses commands; framing needs to know which protocols the gateway's listeners speak.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parser {
    pub(crate) encoder: Encoder,
    pub(crate) session_bytes_max: usize,
}

impl Parser {
    /// The order that a command means; with an id from its caller, carried out once.
    pub(crate) fn parse(&self, command: &v1::command::Command) -> Result<Arc<Order>, Refusal> {
        let order = self.order(command)?;
        let Some((id, app_field)) = once(command) else { return Ok(Arc::new(order)) };
        if id.len() > limits::COMMAND_ID_BYTES_MAX {
            let (len, max) = (id.len(), limits::COMMAND_ID_BYTES_MAX);
            return Err(invalid(format!("command_id has {len} bytes: at most {max} are allowed")));
        }
        let (app, id) = (app(app_field)?, id.into());
        Ok(Arc::new(Order::Once { app, id, order: Box::new(order) }))
    }

    fn order(&self, command: &v1::command::Command) -> Result<Order, Refusal> {
        use v1::command::Command as C;
        let order = match command {
            C::Send(request) => self.send(request)?,
            C::Close(request) => self.close(request)?,
            C::Bind(request) => {
                understood(&request.requires)?;
                Order::Bind {
                    app: app(&request.app)?,
                    client: client(&request.client_id)?,
                    uid: checked("uid", &request.uid)?,
                    exclusive: request.exclusive,
                }
            }
            C::Unbind(request) => {
                understood(&request.requires)?;
                let uid = if request.uid.is_empty() { None } else { Some(checked("uid", &request.uid)?) };
                Order::Unbind { app: app(&request.app)?, client: client(&request.client_id)?, uid }
            }
            C::Join(request) => {
                understood(&request.requires)?;
                let groups = some_groups(&request.groups)?;
                let seat = request.member.as_ref().map(seat).transpose()?;
                Order::Join {
                    app: app(&request.app)?,
                    who: who(&request.clients, &request.uids)?,
                    groups,
                    seat,
                }
            }
            C::Leave(request) => {
                understood(&request.requires)?;
                let groups = some_groups(&request.groups)?;
                Order::Leave { app: app(&request.app)?, who: who(&request.clients, &request.uids)?, groups }
            }
            C::Dissolve(request) => {
                understood(&request.requires)?;
                Order::Dissolve { app: app(&request.app)?, groups: some_groups(&request.groups)? }
            }
            C::SetSession(request) => {
                understood(&request.requires)?;
                let json = self.session_object(&request.json)?.to_string().into();
                Order::Session {
                    app: app(&request.app)?,
                    client: client(&request.client_id)?,
                    order: SessionOrder::Set(json),
                    if_version: request.if_version,
                }
            }
            C::MergeSession(request) => {
                understood(&request.requires)?;
                Order::Session {
                    app: app(&request.app)?,
                    client: client(&request.client_id)?,
                    order: SessionOrder::Merge(self.session_object(&request.json)?),
                    if_version: request.if_version,
                }
            }
            C::GetSession(request) => Order::Session {
                app: app(&request.app)?,
                client: client(&request.client_id)?,
                order: SessionOrder::Get,
                if_version: None,
            },
            other => parse_query(other)?,
        };
        Ok(order)
    }

    fn send(&self, request: &v1::SendRequest) -> Result<Order, Refusal> {
        use v1::send_request::Payload;
        understood(&request.requires)?;
        let to = audience(request.to.as_ref(), "to")?;
        let frames = match &request.payload {
            Some(Payload::Text(text)) => self.encoder.text(small(text.as_bytes())?),
            Some(Payload::Binary(bytes)) => self.encoder.binary(small(bytes)?),
            Some(Payload::Framed(bytes)) => {
                Encoder::framed(Bytes::copy_from_slice(small(bytes)?)).map_err(invalid)?
            }
            None => return Err(invalid("payload is missing: set text, binary or framed")),
        };
        Ok(Order::Send { to, frames })
    }

    fn close(&self, request: &v1::CloseRequest) -> Result<Order, Refusal> {
        use v1::close_request::Last;
        understood(&request.requires)?;
        let to = audience(request.to.as_ref(), "to")?;
        let code = if request.code == 0 { u32::from(close::NORMAL.code) } else { request.code };
        let code = u16::try_from(code).ok().filter(|&code| close::is_sendable(code)).ok_or_else(|| {
            invalid(format!("code {code} cannot be sent: use 1000, 1001, 1008, 1011 to 1013 or 3000 to 4999"))
        })?;
        if request.reason.len() > limits::CLOSE_REASON_BYTES_MAX {
            return Err(invalid(format!(
                "reason has {} bytes: at most {} fit a close frame",
                request.reason.len(),
                limits::CLOSE_REASON_BYTES_MAX
            )));
        }
        let last = match &request.last {
            Some(Last::Text(text)) => Some(self.encoder.text(small(text.as_bytes())?)),
            Some(Last::Binary(bytes)) => Some(self.encoder.binary(small(bytes)?)),
            None => None,
        };
        let closing =
            Closing { code, reason: request.reason.as_str().into(), last, at_once: request.at_once };
        Ok(Order::Close { to, closing })
    }

    fn session_object(&self, json: &str) -> Result<serde_json::Value, Refusal> {
        session_object(json, self.session_bytes_max).map_err(invalid)
    }
}

/// The id that a command has, and its app.
fn once(command: &v1::command::Command) -> Option<(&str, &str)> {
    use v1::command::Command as C;
    fn app_of(audience: Option<&v1::Audience>) -> Option<&str> {
        audience.map(|audience| &*audience.app)
    }
    let (id, app): (&str, &str) = match command {
        C::Send(request) => (&request.command_id, app_of(request.to.as_ref())?),
        C::Close(request) => (&request.command_id, app_of(request.to.as_ref())?),
        C::Bind(request) => (&request.command_id, &request.app),
        C::Unbind(request) => (&request.command_id, &request.app),
        C::Join(request) => (&request.command_id, &request.app),
        C::Leave(request) => (&request.command_id, &request.app),
        C::Dissolve(request) => (&request.command_id, &request.app),
        C::SetSession(request) => (&request.command_id, &request.app),
        C::MergeSession(request) => (&request.command_id, &request.app),
        _ => return None,
    };
    (!id.is_empty()).then_some((id, app))
}

fn seat(member: &v1::PresenceMember) -> Result<Seat, Refusal> {
    let (len, max) = (member.info.len(), limits::MEMBER_INFO_BYTES_MAX);
    if len > max {
        return Err(invalid(format!("member.info has {len} bytes: at most {max} are allowed")));
    }
    Ok(Seat { user: checked("member.user_id", &member.user_id)?.into(), info: member.info.as_str().into() })
}

/// A session's JSON text, which must be an object.
pub(crate) fn session_object(json: &str, bytes_max: usize) -> Result<serde_json::Value, String> {
    if json.len() > bytes_max {
        return Err(format!("json has {} bytes: at most {bytes_max} are allowed", json.len()));
    }
    let text = if json.is_empty() { "{}" } else { json };
    match serde_json::from_str(text) {
        Ok(value @ serde_json::Value::Object(_)) => Ok(value),
        Ok(_) => {
            Err("json is not an object: a session is a JSON object such as {\"nick\":\"Ann\"}".to_owned())
        }
        Err(error) => Err(format!("json does not parse: {error}")),
    }
}

fn parse_query(command: &v1::command::Command) -> Result<Order, Refusal> {
    use v1::command::Command as C;
    Ok(match command {
        C::Online(request) => {
            understood(&request.requires)?;
            Order::Online {
                app: app(&request.app)?,
                clients: clients(&request.clients)?,
                uids: names("uids", &request.uids)?,
            }
        }
        C::Count(request) => {
            understood(&request.requires)?;
            let groups = names("groups", &request.groups)?;
            Order::Count { app: app(&request.app)?, groups, uids: request.uids }
        }
        C::GetClient(request) => {
            Order::GetClient { app: app(&request.app)?, client: client(&request.client_id)? }
        }
        C::ListClients(request) => {
            understood(&request.requires)?;
            let after = Cursor::parse(&request.cursor)?.map(|cursor| (cursor.shard, cursor.slot));
            Order::ListClients {
                of: audience(request.of.as_ref(), "of")?,
                fields: request.fields().collect(),
                limit: page(request.limit)?,
                after,
            }
        }
        C::ListUids(request) => {
            understood(&request.requires)?;
            Order::ListUids {
                app: app(&request.app)?,
                groups: names("groups", &request.groups)?,
                limit: page(request.limit)?,
                after: request.cursor.as_str().into(),
            }
        }
        C::ListGroups(request) => {
            understood(&request.requires)?;
            Order::ListGroups {
                app: app(&request.app)?,
                prefix: request.prefix.as_str().into(),
                limit: page(request.limit)?,
                after: request.cursor.as_str().into(),
            }
        }
        C::Roster(request) => {
            understood(&request.requires)?;
            Order::Roster {
                app: app(&request.app)?,
                group: checked("group", &request.group)?,
                limit: page(request.limit)?,
                after: request.cursor.as_str().into(),
            }
        }
        C::History(request) => {
            understood(&request.requires)?;
            Order::History {
                app: app(&request.app)?,
                group: checked("group", &request.group)?,
                since: request.since.as_ref().map(position).transpose()?,
                limit: page(request.limit)?,
            }
        }
        C::LastValue(request) => {
            understood(&request.requires)?;
            Order::LastValue { app: app(&request.app)?, group: checked("group", &request.group)? }
        }
        C::Status(_) => Order::Status,
        _ => return Err(refusal(Code::Unimplemented, "this gateway does not know the command")),
    })
}

/// Which groups somebody wants to watch.
pub(crate) fn patterns(request: &v1::WatchGroupsRequest) -> Result<Vec<Pattern>, Refusal> {
    understood(&request.requires)?;
    if request.patterns.is_empty() {
        return Err(invalid("patterns is empty: give names of groups, or how they begin and a *"));
    }
    few("patterns", request.patterns.len())?;
    let app = app(&request.app)?;
    let pattern = |text: &String| {
        if text != "*" {
            checked("patterns", text.strip_suffix('*').unwrap_or(text))?;
        }
        Ok(Pattern { app: app.to_string(), pattern: text.clone() })
    };
    request.patterns.iter().map(pattern).collect()
}

/// A position as its readers see it: TERM.COUNT.NUMBER of the first message's place, and an offset.
fn position(given: &v1::HistoryPosition) -> Result<Position, Refusal> {
    let parse = || {
        let (tenure, number) = given.epoch.rsplit_once('.')?;
        Some(At { tenure: tenure.parse().ok()?, number: number.parse().ok()? })
    };
    let epoch = parse().ok_or_else(|| {
        invalid("since.epoch is not one that a receipt or a history gave: read it without since")
    })?;
    Ok(Position { epoch, offset: given.offset })
}

pub(crate) fn position_text(position: Position) -> v1::HistoryPosition {
    let At { tenure, number } = position.epoch;
    v1::HistoryPosition { epoch: format!("{tenure}.{number}"), offset: position.offset }
}

/// Where a page of clients ended: the last client that was listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) incarnation: Incarnation,
    pub(crate) shard: u8,
    pub(crate) slot: u32,
}

impl Cursor {
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, Refusal> {
        if text.is_empty() {
            return Ok(None);
        }
        let ClientId { incarnation, shard, slot, .. } = text
            .parse()
            .map_err(|_| invalid("cursor is not one that this list gave: start again without a cursor"))?;
        Ok(Some(Self { incarnation, shard, slot }))
    }
}

pub(crate) fn refusal(code: Code, message: impl Into<String>) -> Refusal {
    Refusal { code: code as i32, message: message.into() }
}

pub(crate) fn invalid(message: impl Into<String>) -> Refusal {
    refusal(Code::InvalidArgument, message)
}

pub(crate) fn not_found(client: ClientId) -> Refusal {
    refusal(Code::NotFound, format!("client {client} is not connected"))
}

impl From<NameError> for Refused {
    fn from(error: NameError) -> Self {
        Self(invalid(error.to_string()))
    }
}

impl From<IdError> for Refused {
    fn from(error: IdError) -> Self {
        Self(invalid(error.to_string()))
    }
}

/// Lets `?` turn the contract's errors into refusals.
pub(crate) struct Refused(Refusal);

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        refused.0
    }
}

/// No version of this gateway knows a word yet.
fn understood(requires: &[String]) -> Result<(), Refusal> {
    match requires.first() {
        None => Ok(()),
        Some(word) => Err(refusal(
            Code::Unimplemented,
            format!("this gateway does not know {word:?}, which the command requires: update it first"),
        )),
    }
}

fn app(field: &str) -> Result<Box<str>, Refusal> {
    Ok(name::app(field).map_err(Refused::from)?.into())
}

fn checked(what: &'static str, text: &str) -> Result<Box<str>, Refusal> {
    name::check(what, text).map_err(Refused::from)?;
    Ok(text.into())
}

fn client(text: &str) -> Result<ClientId, Refusal> {
    Ok(text.parse().map_err(Refused::from)?)
}

fn clients(texts: &[String]) -> Result<Vec<ClientId>, Refusal> {
    few("clients", texts.len())?;
    texts.iter().map(|text| client(text)).collect()
}

fn names(what: &'static str, texts: &[String]) -> Result<Vec<Box<str>>, Refusal> {
    few(what, texts.len())?;
    texts.iter().map(|text| checked(what, text)).collect()
}

fn some_groups(texts: &[String]) -> Result<Vec<Box<str>>, Refusal> {
    if texts.is_empty() {
        return Err(invalid("groups is empty: name at least one group"));
    }
    names("groups", texts)
}

fn who(client_texts: &[String], uids: &[String]) -> Result<Who, Refusal> {
    if client_texts.is_empty() && uids.is_empty() {
        return Err(invalid("clients and uids are both empty: name at least one"));
    }
    Ok(Who { clients: clients(client_texts)?, uids: names("uids", uids)? })
}

fn few(what: &str, count: usize) -> Result<(), Refusal> {
    if count <= limits::NAMES_PER_COMMAND_MAX {
        return Ok(());
    }
    let max = limits::NAMES_PER_COMMAND_MAX;
    Err(refusal(
        Code::ResourceExhausted,
        format!("{what} has {count} entries: at most {max} fit one command"),
    ))
}

fn small(payload: &[u8]) -> Result<&[u8], Refusal> {
    if payload.len() <= limits::PAYLOAD_BYTES_MAX {
        return Ok(payload);
    }
    let (len, max) = (payload.len(), limits::PAYLOAD_BYTES_MAX);
    Err(refusal(Code::ResourceExhausted, format!("the payload has {len} bytes: at most {max} are allowed")))
}

fn page(limit: u32) -> Result<usize, Refusal> {
    match limit {
        0 => Ok(limits::PAGE_DEFAULT as usize),
        limit if limit <= limits::PAGE_MAX => Ok(limit as usize),
        _ => Err(invalid(format!("limit is {limit}: at most {} fit a page", limits::PAGE_MAX))),
    }
}

fn audience(audience: Option<&v1::Audience>, field: &str) -> Result<Audience, Refusal> {
    let Some(given) = audience else {
        return Err(invalid(format!("{field} is missing: name clients, uids or groups, or say all")));
    };
    let none = v1::Except::default();
    let except = given.except.as_ref().unwrap_or(&none);
    Ok(Audience {
        app: app(&given.app)?,
        clients: clients(&given.clients)?,
        uids: names("uids", &given.uids)?,
        groups: names("groups", &given.groups)?,
        all: given.all,
        except_clients: clients(&except.clients)?,
        except_uids: names("except.uids", &except.uids)?,
        except_groups: names("except.groups", &except.groups)?,
    })
}
