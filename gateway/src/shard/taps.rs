//! The taps of operators, as a shard knows them. What they see of its clients is in `tapped.rs`.

use std::{collections::HashMap, sync::Arc, time::Instant};

use broadgate_proto::v1::{TapEvent, TapKind, event::Event};
use tokio::sync::oneshot;

use crate::{
    codec::encode::{Frames, SharedFrame},
    command::{ClientFilter, ParsedCommand},
    observers::{SaidPayload, Tap, TapTable, Taps},
    refusals::now_ms,
};

/// The taps that this shard knows.
#[derive(Default)]
pub(crate) struct ShardTaps {
    pub(crate) taps: Taps,
    pub(super) table: Arc<TapTable>,
    pub(super) open: bool,
    /// Messages that are being placed; none without a tap.
    placing: Vec<PlacedMessage>,
    /// When events of tapped clients went to workers, by the clients' keys and the events' numbers.
    pub(super) sent: HashMap<(u64, u64), Instant>,
}

/// A message that is being placed.
pub(super) struct PlacedMessage {
    /// The address of its frames, by which a delivery finds it.
    frames: usize,
    pub(super) command: Box<str>,
    /// Who gave the command; "" if that is not known.
    pub(super) caller: Box<str>,
    pub(super) to: Box<str>,
    /// In the order of its topic; "" if it has none.
    pub(super) position: Box<str>,
    /// The trace of the caller's own; "" if there is none.
    pub(super) traceparent: Box<str>,
}

/// What an event says besides its kind and its client; "" and 0 for nothing.
#[derive(Default)]
pub(crate) struct TapDetails<'a> {
    pub(crate) place: &'a str,
    pub(crate) position: &'a str,
    pub(crate) traceparent: &'a str,
    pub(crate) command: &'a str,
    /// Of a message, or of a close.
    pub(crate) caller: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) bytes: usize,
    pub(crate) code: u16,
    pub(crate) count: u64,
    pub(crate) max: usize,
    pub(crate) took_us: u64,
    pub(crate) payload: Option<SaidPayload<'a>>,
}

/// Those of a tap's table whose bits are in a mark.
pub(crate) type TapMask = u8;

/// A shard's answer to a new tap: how many of its clients fit.
pub(crate) type TapTaken = (usize, oneshot::Sender<u64>);

impl ShardTaps {
    /// Is there any? Without one nothing is made.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (TapMask, &Tap)> {
        let entries = self.table.iter().enumerate();
        entries.filter_map(|(place, tap)| Some((1 << place, tap.as_deref()?)))
    }

    /// These messages are placed next.
    pub(crate) fn begin<'a>(
        &mut self,
        messages: impl Iterator<Item = (&'a ParsedCommand, Option<&'a Frames<SharedFrame>>)>,
    ) {
        self.placing.clear();
        self.placing.extend(messages.map(|(order, frames)| PlacedMessage {
            frames: frames.map_or(0, address),
            command: order.command_id().into(),
            caller: order.given_by().into(),
            traceparent: order.traceparent().into(),
            position:
                order.position().map(|at| format!("{}/{}", at.tenure, at.number)).unwrap_or_default().into(),
            to: match order.inner() {
                ParsedCommand::Send { to, .. } | ParsedCommand::Close { to, .. } => audience(to),
                _ => "".into(),
            },
        }));
    }

    pub(crate) fn end(&mut self) {
        self.placing = Vec::new();
    }

    /// Who gave the command that is carried out now; "" if there is none, or several are carried out together.
    pub(super) fn caller(&self) -> &str {
        if let [only] = &self.placing[..] { &only.caller } else { "" }
    }

    pub(super) fn placed(&self, frames: &Frames<SharedFrame>) -> Option<&PlacedMessage> {
        match &self.placing[..] {
            [only] => Some(only),
            several => several.iter().find(|message| message.frames == address(frames)),
        }
    }

    /// Offers an event to these taps; of a client its id, its uid, and what waits in its outbox.
    pub(super) fn offer(
        &self,
        taps: TapMask,
        client: Option<(&str, &str, u64)>,
        kind: TapKind,
        details: &TapDetails<'_>,
    ) {
        let at_ms = now_ms();
        let is_done_by_it = matches!(kind, TapKind::Joined | TapKind::Left | TapKind::Bound);
        let caller = if is_done_by_it { self.caller() } else { details.caller };
        for (bit, tap) in self.entries() {
            if taps & bit == 0 || !tap.admits(kind, at_ms) {
                continue;
            }
            let (client_id, uid, outbox_bytes) = client.unwrap_or_default();
            let event = TapEvent {
                at_ms,
                kind: kind.into(),
                client_id: client_id.to_owned(),
                uid: uid.to_owned(),
                place: details.place.to_owned(),
                position: details.position.to_owned(),
                traceparent: details.traceparent.to_owned(),
                command_id: details.command.to_owned(),
                caller: caller.to_owned(),
                bytes: details.bytes as u64,
                outbox_bytes,
                code: details.code.into(),
                reason: details.reason.to_owned(),
                count: details.count,
                max: details.max as u64,
                took_us: details.took_us,
                payload: None,
            };
            tap.offer(event, details.payload);
        }
    }
}

fn address(frames: &Frames<SharedFrame>) -> usize {
    std::ptr::from_ref(frames).addr()
}

/// An audience in a word.
fn audience(to: &ClientFilter) -> Box<str> {
    match (to.all, &to.uids[..], &to.groups[..]) {
        (true, ..) => "everybody".into(),
        (false, [], [group]) => group.clone(),
        (false, [uid], []) => format!("uid {uid}").into(),
        (false, [], []) => "this client".into(),
        (false, uids, groups) => format!("{} groups and {} uids", groups.len(), uids.len()).into(),
    }
}

/// The name of an event, as in the contract.
pub(crate) fn event_name(event: &Event) -> &'static str {
    match event {
        Event::Handshake(_) => "handshake",
        Event::Opened(_) => "opened",
        Event::Message(_) => "message",
        Event::Closed(_) => "closed",
        Event::Adopted(_) => "adopted",
        Event::Moved(_) => "moved",
    }
}
