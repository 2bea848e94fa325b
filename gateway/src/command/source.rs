//! Where a command comes from: a caller's message, or an event that this gateway issues itself. A peer gets
//! the contract's message either way; of an event it is made when a peer needs it, and only then.

use std::sync::Arc;

use broadgate_proto::{
    id::{CLIENT_ID_LEN, ClientId},
    v1::{self, command::Command, send_request::Payload},
};
use broadgate_pusher::{api::publish::Publish, incoming::CLIENT_EVENT_PREFIX};
use prost::{Message as _, encoding::encoded_len_varint};

/// An event for one channel: from an app's backend, a Pusher client, or this gateway.
#[derive(Debug, Clone)]
pub(crate) struct ChannelEvent {
    pub(crate) app: Box<str>,
    pub(crate) channel: String,
    /// A client that does not get it.
    pub(crate) except: Option<ClientId>,
    pub(crate) name: Arc<str>,
    pub(crate) data: Arc<str>,
    /// The user in whose name a client has sent it, as JSON; "" if none.
    pub(crate) user_id_json: String,
    pub(crate) flags: EventFlags,
    /// Who has sent it, as SendRequest.by has it.
    pub(crate) by: Arc<str>,
    /// The trace of a backend's own that it belongs to.
    pub(crate) traceparent: Option<Arc<str>>,
}

/// What is special about an event; nothing is special about those of backends.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EventFlags {
    /// The data is any JSON value, and stays what it is.
    pub(crate) data_json: bool,
    /// The channel's last value and history do not retain it.
    pub(crate) not_kept: bool,
    pub(crate) no_receipt: bool,
    /// Its receipt says which way it took.
    pub(crate) traced: bool,
}

impl EventFlags {
    /// Of what a Pusher client sends to its channel.
    pub(crate) const CLIENT: Self = Self { data_json: true, not_kept: true, no_receipt: true, traced: false };
    /// Of what the gateway tells a channel about itself.
    pub(crate) const NOTICE: Self =
        Self { data_json: false, not_kept: true, no_receipt: true, traced: false };
}

/// What an event that a client has sent says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientEvent<'a> {
    pub(crate) name: &'a str,
    pub(crate) data: &'a str,
    pub(crate) sender: ClientId,
    /// "" if none.
    pub(crate) user_id_json: &'a str,
}

/// A command as it was given.
#[derive(Debug)]
pub(crate) enum CommandSource {
    /// With its id, if it has one.
    Message(Command),
    /// Its id is in the parsed command.
    Event(ChannelEvent),
}

impl CommandSource {
    /// The message for a peer.
    pub(crate) fn message(&self, id: &str) -> Command {
        match self {
            Self::Message(command) => command.clone(),
            Self::Event(event) => Command::Send(event.request(id)),
        }
    }

    /// The length of the message's fields.
    pub(super) fn encoded_len(&self, id: &str) -> usize {
        match self {
            Self::Message(Command::Send(request)) => request.encoded_len(),
            Self::Message(Command::Close(request)) => request.encoded_len(),
            Self::Message(Command::Bind(request)) => request.encoded_len(),
            Self::Message(Command::Dissolve(request)) => request.encoded_len(),
            Self::Message(_) => 0,
            Self::Event(event) => event.encoded_len(id),
        }
    }

    pub(super) fn is_retained(&self) -> bool {
        match self {
            Self::Message(Command::Send(request)) => !request.not_kept && !request.dry,
            Self::Message(_) => false,
            Self::Event(event) => !event.flags.not_kept,
        }
    }

    pub(super) fn payload(&self) -> Option<Payload> {
        match self {
            Self::Message(Command::Send(request)) => request.payload.clone(),
            Self::Message(_) => None,
            Self::Event(event) => Some(Payload::Text(event.data.to_string())),
        }
    }

    /// The event's name; "" if it has none.
    pub(super) fn event_name(&self) -> &str {
        match self {
            Self::Message(Command::Send(request)) => &request.event,
            Self::Message(_) => "",
            Self::Event(event) => &event.name,
        }
    }

    pub(super) fn client_event(&self) -> Option<ClientEvent<'_>> {
        let event = match self {
            Self::Message(Command::Send(request)) if request.data_json => {
                let Some(Payload::Text(data)) = &request.payload else { return None };
                let sender = request.to.as_ref()?.except.as_ref()?.clients.first()?.parse().ok()?;
                ClientEvent { name: &request.event, data, sender, user_id_json: &request.user_id_json }
            }
            Self::Event(event) if event.flags.data_json => ClientEvent {
                name: &event.name,
                data: &event.data,
                sender: event.except?,
                user_id_json: &event.user_id_json,
            },
            _ => return None,
        };
        event.name.starts_with(CLIENT_EVENT_PREFIX).then_some(event)
    }
}

impl ChannelEvent {
    /// An event for each channel, and its id if the backend has given its publish a key.
    pub(crate) fn of_publishes(
        app: &str,
        by: &str,
        key: Option<&str>,
        publishes: &[Publish],
    ) -> Vec<(Self, Option<String>)> {
        let by: Arc<str> = by.into();
        let mut events = Vec::with_capacity(publishes.iter().map(|publish| publish.channels.len()).sum());
        for publish in publishes {
            let (name, data): (Arc<str>, Arc<str>) =
                (publish.name.as_str().into(), publish.data.as_str().into());
            for channel in &publish.channels {
                let id = key.map(|key| format!("key:{key}:{}", events.len()));
                let event = Self {
                    app: app.into(),
                    channel: channel.clone(),
                    except: publish.except,
                    name: Arc::clone(&name),
                    data: Arc::clone(&data),
                    user_id_json: String::new(),
                    flags: EventFlags::default(),
                    by: Arc::clone(&by),
                    traceparent: None,
                };
                events.push((event, id));
            }
        }
        events
    }

    fn request(&self, id: &str) -> v1::SendRequest {
        let except = self
            .except
            .map(|client| v1::Except { clients: vec![client.to_string()], ..v1::Except::default() });
        v1::SendRequest {
            command_id: id.to_owned(),
            to: Some(v1::Audience {
                app: self.app.to_string(),
                groups: vec![self.channel.clone()],
                except,
                ..v1::Audience::default()
            }),
            payload: Some(Payload::Text(self.data.to_string())),
            event: self.name.to_string(),
            user_id_json: self.user_id_json.clone(),
            data_json: self.flags.data_json,
            not_kept: self.flags.not_kept,
            no_receipt: self.flags.no_receipt,
            by: self.by.to_string(),
            trace: self.flags.traced,
            traceparent: self.traceparent.as_deref().unwrap_or_default().to_owned(),
            ..v1::SendRequest::default()
        }
    }

    /// The length of that request, which need not be made for it: budgets count it for every event.
    fn encoded_len(&self, id: &str) -> usize {
        // A key of one byte, a length, and so many bytes.
        let field = |len: usize| 1 + encoded_len_varint(len as u64) + len;
        let text = |text: &str| if text.is_empty() { 0 } else { field(text.len()) };
        let flag = |set: bool| if set { 2 } else { 0 };
        let except = self.except.map_or(0, |_| field(field(CLIENT_ID_LEN)));
        let to = text(&self.app) + field(self.channel.len()) + except;
        let EventFlags { data_json, not_kept, no_receipt, traced } = self.flags;
        let flags = [data_json, not_kept, no_receipt, traced].map(flag).iter().sum::<usize>();
        text(id)
            + field(to)
            + field(self.data.len())
            + text(&self.name)
            + text(&self.user_id_json)
            + text(&self.by)
            + text(self.traceparent.as_deref().unwrap_or_default())
            + flags
    }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::id::Incarnation;

    use super::*;
    use crate::{codec::encode::Encoder, command::parse::Parser};

    #[test]
    fn event_is_parsed_as_its_message_would_be() {
        let encoder = Encoder { websocket: true, text: true, frame: true, pusher: true };
        let apps = crate::apps::Apps::new(Vec::new()).unwrap();
        let parser =
            Parser { encoder, session_bytes_max: 9, payload_bytes_max: 1000, frame_bytes_max: 1100, apps };
        let json = ChannelEvent { data: "{\"x\":1}".into(), ..event(true, 0, EventFlags::CLIENT) };
        let mut events =
            vec![event(true, 4, EventFlags::default()), event(false, 9, EventFlags::NOTICE), json];
        let traceparent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into());
        let traced = EventFlags { traced: true, ..EventFlags::default() };
        events.push(ChannelEvent { traceparent, ..event(false, 4, traced) });
        let last = events.len();
        events.push(ChannelEvent { channel: String::new(), ..events[0].clone() });
        events.push(ChannelEvent { channel: "a\nb".to_owned(), ..events[0].clone() });
        events.push(ChannelEvent { app: "a".repeat(300).into(), ..events[0].clone() });
        events.push(ChannelEvent { name: "n".repeat(201).into(), ..events[0].clone() });
        events.push(ChannelEvent { data: "d".repeat(1001).into(), ..events[0].clone() });
        events.push(ChannelEvent { data: "\"".repeat(900).into(), ..events[0].clone() });
        events.push(event(true, 4, EventFlags::CLIENT));
        for (place, event) in events.iter().enumerate() {
            for id in ["id", &"i".repeat(65)] {
                let direct = parser.event(event, id);
                let received = parser.parse(&Command::Send(event.request(id)));
                assert_eq!(format!("{direct:?}"), format!("{received:?}"));
                assert_eq!(direct.is_ok(), place < last && id == "id", "{event:?}");
            }
        }
    }

    fn event(except: bool, data: usize, flags: EventFlags) -> ChannelEvent {
        let client = ClientId { incarnation: Incarnation::from_bits(5), shard: 1, slot: 2, key: 3 };
        ChannelEvent {
            app: "shop".into(),
            channel: "private-room".to_owned(),
            except: except.then_some(client),
            name: "client-x".into(),
            data: "d".repeat(data).into(),
            user_id_json: if except { "\"ann\"".to_owned() } else { String::new() },
            flags,
            by: if except { "client:x" } else { "" }.into(),
            traceparent: None,
        }
    }

    #[test]
    fn each_channel_of_a_publish_has_an_event_and_an_id_of_its_own() {
        let publish = Publish {
            name: "e".to_owned(),
            data: "d".to_owned(),
            channels: vec!["a".to_owned(), "b".to_owned()],
            except: None,
            info: Default::default(),
        };
        let publishes = [publish.clone(), publish];
        let events = ChannelEvent::of_publishes("shop", "app:shop", Some("k"), &publishes);
        let seen: Vec<_> =
            events.iter().map(|(event, id)| (&*event.channel, id.as_deref().unwrap())).collect();
        assert_eq!(seen, [("a", "key:k:0"), ("b", "key:k:1"), ("a", "key:k:2"), ("b", "key:k:3")]);
        assert!(
            ChannelEvent::of_publishes("shop", "app:shop", None, &publishes)
                .iter()
                .all(|(_, id)| id.is_none())
        );
    }

    #[test]
    fn length_is_that_of_the_message_that_peers_get() {
        for flags in [EventFlags::default(), EventFlags::CLIENT, EventFlags::NOTICE] {
            for (except, data, id) in
                [(true, 0, ""), (false, 127, "id"), (true, 128, "x"), (true, 70_000, "y")]
            {
                let event = event(except, data, flags);
                assert_eq!(event.encoded_len(id), event.request(id).encoded_len(), "{event:?}");
            }
        }
    }

    #[test]
    fn client_events_are_read_alike_from_both_forms() {
        let made = CommandSource::Event(event(true, 4, EventFlags::CLIENT));
        let received = CommandSource::Message(made.message("id"));
        for source in [&made, &received] {
            let seen = source.client_event().unwrap();
            assert_eq!((seen.name, seen.data, seen.user_id_json), ("client-x", "dddd", "\"ann\""));
            assert_eq!((seen.sender.slot, source.is_retained(), source.event_name()), (2, false, "client-x"));
            assert_eq!(source.payload(), Some(Payload::Text("dddd".to_owned())));
        }
        for other in [event(true, 4, EventFlags::NOTICE), event(false, 4, EventFlags::CLIENT)] {
            assert!(CommandSource::Event(other.clone()).client_event().is_none());
            let received = CommandSource::Message(Command::Send(other.request("")));
            assert!(received.client_event().is_none());
        }
    }
}
