//! Parses commands that send something or change state.

use std::sync::{Arc, OnceLock};

use broadgate_proto::{close, limits, parse_error::without_value, v1};
use broadgate_pusher::outgoing;
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::{
    apps::Apps,
    callers::TraceParent,
    codec::encode::{Encoder, Frames, text_frame},
    command::{
        fields::{
            app, audience, checked, client, known_caller, some_groups, too_large, understood,
            understood_by_sends, who,
        },
        parsed::{
            ClientFilter, CloseWith, CommandRefusal, ParsedCommand, PresenceSeat, SessionCommand, invalid,
        },
        query::parse_query,
        source::ChannelEvent,
    },
};

/// The prefix of the Pusher protocol's own events, which other clients do not get.
const PROTOCOL_PREFIX: &str = "pusher_internal:";

/// The event name under which Pusher clients get a text whose sender named none.
const UNNAMED: &str = "message";

/// Parses commands; framing needs to know which protocols the gateway's listeners speak.
#[derive(Debug, Clone)]
pub(crate) struct Parser {
    pub(crate) encoder: Encoder,
    pub(crate) session_bytes_max: usize,
    pub(crate) payload_bytes_max: usize,
    /// The largest message that an empty outbox accepts, in bytes.
    pub(crate) frame_bytes_max: usize,
    /// Says whose events need a form for Socket.IO clients.
    pub(crate) apps: Apps,
}

impl Parser {
    /// Parses a command; one with an id from its caller is executed once.
    pub(crate) fn parse(&self, command: &v1::command::Command) -> Result<Arc<ParsedCommand>, CommandRefusal> {
        let parsed = self.parse_inner(command)?;
        let Some((id, app_field)) = once(command) else { return Ok(Arc::new(parsed)) };
        let said = match command {
            v1::command::Command::Send(request) => (&*request.by, &*request.traceparent),
            _ => ("", ""),
        };
        with_id(id, app(app_field)?, said, parsed)
    }

    /// The command that an event is, under this id. What a caller's message must comply with, it must, too.
    pub(crate) fn event(&self, event: &ChannelEvent, id: &str) -> Result<Arc<ParsedCommand>, CommandRefusal> {
        let to = ClientFilter {
            app: app(&event.app)?,
            groups: vec![checked("groups", &event.channel)?],
            except_clients: event.except.into_iter().collect(),
            ..ClientFilter::default()
        };
        let text = EventText {
            name: &event.name,
            text: self.small_text(&event.data)?,
            data_json: event.flags.data_json,
            user_id_json: &event.user_id_json,
        };
        let (frames, by_group) = self.frame_event(&text, &to)?;
        let app = to.app.clone();
        let said = (&*event.by, event.traceparent.as_deref().unwrap_or_default());
        let traced = event.flags.traced;
        with_id(id, app, said, ParsedCommand::Send { to, frames, by_group, dry: false, traced })
    }

    fn parse_inner(&self, command: &v1::command::Command) -> Result<ParsedCommand, CommandRefusal> {
        use v1::command::Command as C;
        let parsed = match command {
            C::Send(request) => self.send(request)?,
            C::Close(request) => self.close(request)?,
            C::Bind(request) => {
                understood(&request.requires)?;
                ParsedCommand::Bind {
                    app: app(&request.app)?,
                    client: client(&request.client_id)?,
                    uid: checked("uid", &request.uid)?,
                    exclusive: request.exclusive,
                    by: known_caller(&request.by),
                }
            }
            C::Unbind(request) => {
                understood(&request.requires)?;
                let uid = if request.uid.is_empty() { None } else { Some(checked("uid", &request.uid)?) };
                ParsedCommand::Unbind { app: app(&request.app)?, client: client(&request.client_id)?, uid }
            }
            C::Join(request) => {
                understood(&request.requires)?;
                let groups = some_groups(&request.groups)?;
                let seat = request.member.as_ref().map(seat).transpose()?;
                ParsedCommand::Join {
                    app: app(&request.app)?,
                    who: who(&request.clients, &request.uids)?,
                    groups,
                    seat,
                }
            }
            C::Leave(request) => {
                understood(&request.requires)?;
                let groups = some_groups(&request.groups)?;
                ParsedCommand::Leave {
                    app: app(&request.app)?,
                    who: who(&request.clients, &request.uids)?,
                    groups,
                }
            }
            C::Dissolve(request) => {
                understood(&request.requires)?;
                ParsedCommand::Dissolve { app: app(&request.app)?, groups: some_groups(&request.groups)? }
            }
            C::SetSession(request) => {
                understood(&request.requires)?;
                let json = self.session_object(&request.json)?.to_string().into();
                ParsedCommand::Session {
                    app: app(&request.app)?,
                    client: client(&request.client_id)?,
                    order: SessionCommand::Set(json),
                    if_version: request.if_version,
                }
            }
            C::MergeSession(request) => {
                understood(&request.requires)?;
                ParsedCommand::Session {
                    app: app(&request.app)?,
                    client: client(&request.client_id)?,
                    order: SessionCommand::Merge(self.session_object(&request.json)?),
                    if_version: request.if_version,
                }
            }
            C::GetSession(request) => ParsedCommand::Session {
                app: app(&request.app)?,
                client: client(&request.client_id)?,
                order: SessionCommand::Get,
                if_version: None,
            },
            other => parse_query(other)?,
        };
        Ok(parsed)
    }

    fn send(&self, request: &v1::SendRequest) -> Result<ParsedCommand, CommandRefusal> {
        use v1::send_request::Payload;
        understood_by_sends(&request.requires)?;
        if request.no_receipt && (request.dry || request.trace) {
            let what = if request.dry { "dry" } else { "trace" };
            return Err(invalid(format!(
                "{what} and no_receipt are both set: what it finds is in the receipt"
            )));
        }
        let to = audience(request.to.as_ref(), "to")?;
        let (frames, by_group) = match &request.payload {
            Some(Payload::Text(text)) => {
                let text = EventText {
                    name: &request.event,
                    text: self.small_text(text)?,
                    data_json: request.data_json,
                    user_id_json: &request.user_id_json,
                };
                self.frame_event(&text, &to)?
            }
            _ if !request.event.is_empty() => {
                return Err(invalid("event is set, but its payload is not text: an event's data is text"));
            }
            Some(Payload::Binary(bytes)) => (self.encoder.binary(self.small(bytes)?), Vec::new()),
            Some(Payload::Framed(bytes)) => {
                let frames = Encoder::framed(Bytes::copy_from_slice(self.small(bytes)?)).map_err(invalid)?;
                (frames, Vec::new())
            }
            None => return Err(invalid("payload is missing: set text, binary or framed")),
        };
        Ok(ParsedCommand::Send { to, frames, by_group, dry: request.dry, traced: request.trace })
    }

    /// A text, as an event where it is one. A client that is addressed by one of several groups gets the
    /// event with that group as its channel.
    fn frame_event(
        &self,
        event: &EventText<'_>,
        to: &ClientFilter,
    ) -> Result<(Frames, Vec<Frames>), CommandRefusal> {
        let EventText { name, text, data_json, user_id_json } = *event;
        let named = !name.is_empty();
        if !named && !self.encoder.pusher {
            return Ok((self.encoder.text(text.as_bytes()), Vec::new()));
        }
        if (data_json || !user_id_json.is_empty()) && to.groups.len() != 1 {
            return Err(invalid("data_json and user_id_json are for events to one group"));
        }
        let (len, max) = (name.len(), limits::EVENT_NAME_BYTES_MAX);
        if len > max {
            return Err(invalid(format!("event has {len} bytes: at most {max} are allowed")));
        }
        let json = |field, text| raw(field, text);
        let user_id = match user_id_json {
            "" => None,
            text => Some(json("user_id_json", text)?.get()),
        };
        let data = if data_json { Some(json("text", text)?) } else { None };
        let has_socketio = self.apps.has_socketio(&to.app);
        let frames = |channel: Option<&str>| {
            let name = if named { name } else { UNNAMED };
            let object = match (data, channel) {
                (Some(data), Some(channel)) => outgoing::client_event(name, channel, data, user_id),
                _ => outgoing::event(name, channel, text),
            };
            let event = self.encoder.event(object.as_bytes());
            if name.starts_with(PROTOCOL_PREFIX) {
                return Frames { pusher: event.pusher, payload: event.payload, ..Frames::default() };
            }
            let socketio = || text_frame(&broadgate_socketio::outgoing::event(name, channel, text));
            let socketio = has_socketio.then(socketio);
            if named {
                return Frames { socketio, ..event };
            }
            // Raw clients get the text itself, which is small enough.
            let pusher = event.pusher.filter(|pusher| pusher.len() <= self.frame_bytes_max);
            let socketio = socketio.filter(|socketio| socketio.len() <= self.frame_bytes_max);
            Frames { pusher, socketio, ..self.encoder.text(text.as_bytes()) }
        };
        // JSON escapes make quotes and control characters longer: the size that clients would get counts.
        let frames = |channel: Option<&str>| {
            let frames = frames(channel);
            let all = [&frames.websocket, &frames.text, &frames.frame, &frames.pusher, &frames.socketio];
            let longest = all.into_iter().flatten().map(Bytes::len).max().unwrap_or_default();
            let max = self.frame_bytes_max;
            if longest > max {
                return Err(too_large("the event, as clients get it,", longest, max));
            }
            Ok(frames)
        };
        match &to.groups[..] {
            [group] => Ok((frames(Some(group))?, Vec::new())),
            several => {
                let by_group = several.iter().map(|group| frames(Some(group)));
                Ok((frames(None)?, by_group.collect::<Result<_, _>>()?))
            }
        }
    }

    fn close(&self, request: &v1::CloseRequest) -> Result<ParsedCommand, CommandRefusal> {
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
            Some(Last::Text(text)) => Some(self.encoder.text(self.small(text.as_bytes())?)),
            Some(Last::Binary(bytes)) => Some(self.encoder.binary(self.small(bytes)?)),
            None => None,
        };
        let (reason, by) = (request.reason.as_str().into(), known_caller(&request.by));
        let closing = CloseWith { code, reason, last, at_once: request.at_once, by };
        Ok(ParsedCommand::Close { to, closing })
    }

    fn small<'a>(&self, payload: &'a [u8]) -> Result<&'a [u8], CommandRefusal> {
        let (len, max) = (payload.len(), self.payload_bytes_max);
        if len <= max { Ok(payload) } else { Err(too_large("the payload", len, max)) }
    }

    fn small_text<'a>(&self, text: &'a str) -> Result<&'a str, CommandRefusal> {
        self.small(text.as_bytes()).map(|_| text)
    }

    fn session_object(&self, json: &str) -> Result<serde_json::Value, CommandRefusal> {
        session_object(json, self.session_bytes_max).map_err(invalid)
    }
}

/// A text that is sent, and what makes an event of it.
struct EventText<'a> {
    /// "" if it is none.
    name: &'a str,
    text: &'a str,
    data_json: bool,
    user_id_json: &'a str,
}

/// A command that is carried out once, by its id.
fn with_id(
    id: &str,
    app: Box<str>,
    (by, traceparent): (&str, &str),
    parsed: ParsedCommand,
) -> Result<Arc<ParsedCommand>, CommandRefusal> {
    let (len, max) = (id.len(), limits::COMMAND_ID_BYTES_MAX);
    if len > max {
        return Err(invalid(format!("command_id has {len} bytes: at most {max} are allowed")));
    }
    let (by, order) = (known_caller(by), Box::new(parsed));
    // What is not well-formed is none.
    let known = Some(traceparent).filter(|text| TraceParent::parse(text.as_bytes()).is_some());
    let traceparent = known.unwrap_or_default().into();
    Ok(Arc::new(ParsedCommand::Once {
        app,
        id: id.into(),
        by,
        order,
        traceparent,
        placed_at: OnceLock::new(),
    }))
}

/// The id that a command has, and its app.
fn once(command: &v1::command::Command) -> Option<(&str, &str)> {
    use v1::command::Command as C;
    fn app_of(audience: Option<&v1::Audience>) -> Option<&str> {
        audience.map(|audience| &*audience.app)
    }
    let (id, app): (&str, &str) = match command {
        // It does nothing, so in earnest it is no repeat.
        C::Send(request) if request.dry => return None,
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

fn raw<'a>(field: &str, json: &'a str) -> Result<&'a RawValue, CommandRefusal> {
    serde_json::from_str(json)
        .map_err(|error| invalid(format!("{field} is not JSON: {}", without_value(&error.to_string()))))
}

fn seat(member: &v1::PresenceMember) -> Result<PresenceSeat, CommandRefusal> {
    let (len, max) = (member.info.len(), limits::MEMBER_INFO_BYTES_MAX);
    if len > max {
        return Err(invalid(format!("member.info has {len} bytes: at most {max} are allowed")));
    }
    Ok(PresenceSeat {
        user: checked("member.user_id", &member.user_id)?.into(),
        info: member.info.as_str().into(),
    })
}

/// A session's JSON text, which must be an object.
pub(crate) fn session_object(json: &str, bytes_max: usize) -> Result<serde_json::Value, String> {
    if json.len() > bytes_max {
        return Err(format!("json has {} bytes: at most {bytes_max} are allowed", json.len()));
    }
    let text = if json.is_empty() { "{}" } else { json };
    match serde_json::from_str(text) {
        Ok(value @ serde_json::Value::Object(_)) => Ok(value),
        // PHP writes an empty object like this.
        Ok(serde_json::Value::Array(items)) if items.is_empty() => {
            Ok(serde_json::Value::Object(serde_json::Map::new()))
        }
        Ok(_) => {
            Err("json is not an object: a session is a JSON object such as {\"nick\":\"Ann\"}".to_owned())
        }
        Err(error) => Err(format!("json does not parse: {}", without_value(&error.to_string()))),
    }
}
