//! Events as they travel to workers.
//!
//! A gateway has an event in pieces, and a worker needs it whole. So the sender writes the message's fields
//! at once, without first making an [`Event`](v1::Event) of half a dozen strings; the receiver finds events
//! in the message. On the wire there is no difference.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, encode_key, encode_varint, encoded_len_varint, message, skip_field},
};

use crate::v1;

/// The field of the message `Events` that contains its events.
const EVENTS: u32 = 1;

/// The message `Events` of the contract.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Events {
    /// The events read from a message, or to be written.
    pub events: Vec<v1::Event>,
    /// Events that are already encoded; they go first.
    pub written: Bytes,
}

impl Message for Events {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.written);
        message::encode_repeated(EVENTS, &self.events, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            EVENTS => message::merge_repeated(wire_type, &mut self.events, buf, context),
            _ => skip_field(wire_type, tag, buf, context),
        }
    }

    fn encoded_len(&self) -> usize {
        self.written.len() + message::encoded_len_repeated(EVENTS, &self.events)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// An event's fields besides its content: the fields of the message `Event`, borrowed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Envelope<'a> {
    /// As in [`v1::Event::seq`].
    pub seq: u64,
    /// As in [`v1::Event::client_id`].
    pub client_id: &'a str,
    /// As in [`v1::Event::app`].
    pub app: &'a str,
    /// As in [`v1::Event::listener`].
    pub listener: &'a str,
    /// As in [`v1::Event::service`].
    pub service: &'a str,
    /// As in [`v1::Event::uid`].
    pub uid: &'a str,
    /// The JSON text and the version of [`v1::Event::session`].
    pub session: Option<(&'a str, u64)>,
    /// As in [`v1::Event::redelivered`].
    pub redelivered: bool,
}

/// Writes events, one after the other.
#[derive(Debug, Default)]
pub struct EventsWriter {
    written: BytesMut,
    /// The event that is being written: its length goes before it.
    event: Vec<u8>,
}

impl EventsWriter {
    /// Writes one event.
    pub fn write(&mut self, envelope: &Envelope<'_>, event: &v1::event::Event) {
        let buf = &mut self.event;
        buf.clear();
        number(1, envelope.seq, buf);
        text(2, envelope.client_id, buf);
        text(3, envelope.app, buf);
        text(4, envelope.listener, buf);
        text(5, envelope.service, buf);
        text(6, envelope.uid, buf);
        if let Some((json, version)) = envelope.session {
            encode_key(7, WireType::LengthDelimited, buf);
            encode_varint((text_len(json) + number_len(version)) as u64, buf);
            text(1, json, buf);
            number(2, version, buf);
        }
        number(8, envelope.redelivered.into(), buf);
        event.encode(buf);
        encode_key(EVENTS, WireType::LengthDelimited, &mut self.written);
        encode_varint(buf.len() as u64, &mut self.written);
        self.written.put_slice(buf);
    }

    /// Bytes written and not yet taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.written.len()
    }

    /// Whether nothing is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// Takes what was written, in the form of [`Events::written`].
    #[must_use]
    pub fn take(&mut self) -> Bytes {
        self.written.split().freeze()
    }
}

/// proto3 leaves out what has its default value.
fn text(tag: u32, text: &str, buf: &mut Vec<u8>) {
    if !text.is_empty() {
        encode_key(tag, WireType::LengthDelimited, buf);
        encode_varint(text.len() as u64, buf);
        buf.put_slice(text.as_bytes());
    }
}

fn number(tag: u32, number: u64, buf: &mut Vec<u8>) {
    if number != 0 {
        encode_key(tag, WireType::Varint, buf);
        encode_varint(number, buf);
    }
}

/// Keys of fields up to 15 are one byte.
fn text_len(text: &str) -> usize {
    if text.is_empty() { 0 } else { 1 + encoded_len_varint(text.len() as u64) + text.len() }
}

fn number_len(number: u64) -> usize {
    if number == 0 { 0 } else { 1 + encoded_len_varint(number) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payload(text: String) -> v1::event::Event {
        v1::event::Event::Message(v1::Message { payload: Some(v1::message::Payload::Text(text)) })
    }

    proptest! {
        /// A writer writes the same bytes as prost.
        #[test]
        fn what_is_written_is_the_message(
            made in prop::collection::vec(
                (any::<u64>(), prop::collection::vec(".{0,200}", 6), prop::option::of((".{0,200}", any::<u64>())), any::<bool>()),
                0..5,
            ),
        ) {
            let mut writer = EventsWriter::default();
            let mut events = Vec::new();
            for (seq, texts, session, redelivered) in &made {
                let [client_id, app, listener, service, uid, text] = &texts[..] else { unreachable!() };
                let session_ref = session.as_ref().map(|(json, version)| (&**json, *version));
                let envelope = Envelope { seq: *seq, client_id, app, listener, service, uid, session: session_ref, redelivered: *redelivered };
                writer.write(&envelope, &payload(text.clone()));
                events.push(v1::Event {
                    seq: *seq,
                    client_id: client_id.clone(),
                    app: app.clone(),
                    listener: listener.clone(),
                    service: service.clone(),
                    uid: uid.clone(),
                    session: session.clone().map(|(json, version)| v1::Session { json, version }),
                    redelivered: *redelivered,
                    event: Some(payload(text.clone())),
                });
            }
            let plain = Events { events, written: Bytes::new() };
            prop_assert_eq!(writer.is_empty(), made.is_empty());
            let written = Events { events: Vec::new(), written: writer.take() };
            prop_assert!(writer.is_empty());
            prop_assert_eq!(written.encode_to_vec(), plain.encode_to_vec());
            prop_assert_eq!(Events::decode(&written.encode_to_vec()[..]).unwrap(), plain);
        }
    }
}
