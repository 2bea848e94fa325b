//! One client, from its handshake to its last answered event.

use std::{mem::offset_of, net::SocketAddr, num::NonZeroU32, rc::Rc, sync::Arc, task::Waker};

use broadgate_proto::{limits::OUTBOX_LOW_WATER_BYTES, v1};
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{
    admission::ConnectionTicket,
    codec::{Codec, Protocol},
    config::Listener,
    shard::{
        outbox::Outbox,
        pusher::client::{Pending, PusherClient},
        rate::Rate,
        socket::Stream,
        window::{Window, WindowMax},
        worker_links::WorkerKey,
    },
};

/// Where a client is in its life. Set by [`Client::enter`] alone.
pub(crate) enum ClientStage {
    /// A worker decides whether it comes in; the answer goes to the handshake that waits for it.
    Handshake(Option<oneshot::Sender<v1::decision::Decision>>),
    /// In the directory: it is reached by commands.
    Open,
    /// Being closed: pending output is written, and input is discarded.
    Closing(ClosePhase),
    /// The socket is gone; only events wait to be answered.
    Gone,
}

/// Whether a client may take the shard's time for what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadTurn {
    /// When its socket has something.
    Freely,
    /// It has more input than one turn takes, and is queued.
    InLine,
    /// It was the first in the line.
    Next,
}

/// How far a close has come.
pub(crate) struct ClosePhase {
    /// Second after which it is cut.
    pub(crate) until: u32,
    /// Close frames have gone both ways, or the protocol has none: end the stream once the outbox
    /// is empty.
    pub(crate) answered: bool,
    /// The end of our stream was sent.
    pub(crate) ended: bool,
}

/// Everything that a shard knows about one client. The directory knows its groups and uid.
///
/// What a delivery touches comes first, in two cache lines: with thousands of clients every further one is
/// a miss, and there are as many deliveries as the machine can write.
#[repr(C, align(64))]
pub(crate) struct Client {
    pub(crate) outbox: Outbox,
    pub(crate) stream: Option<Stream>,
    pub(crate) stage: ClientStage,
    pub(crate) sent: Traffic,
    /// The subscription that is under way. Nothing else is read from the client meanwhile: its frames
    /// take effect in their order.
    pub(crate) pending: Option<Box<Pending>>,
    /// Since which second the outbox has been above its low-water mark.
    pub(crate) backlog_since: Option<NonZeroU32>,
    /// Bytes of answers to itself that were placed since the outbox was last below its low-water mark.
    pub(crate) answers: u32,
    /// In the line of those that are to be written to.
    pub(crate) dirty: bool,
    pub(crate) protocol: Protocol,
    /// The taps of single clients that show this one, a bit for each.
    pub(crate) taps: u8,

    /// Tells it from an earlier client in the same slot.
    pub(crate) key: u64,
    pub(crate) codec: Option<Codec>,
    /// Of the task that drives the socket.
    pub(crate) waker: Option<Waker>,
    /// Read but not decoded: the window was full, or others have their turn.
    pub(crate) undecoded: Bytes,
    /// It broke its protocol: nothing after that can be decoded, and what still comes is thrown away.
    pub(crate) broken: bool,
    /// Decoding stopped early, so the codec may hold whole messages.
    pub(crate) stopped_early: bool,
    pub(crate) reading: ReadTurn,

    pub(crate) events: Window,
    pub(crate) worker: Option<WorkerKey>,
    /// A worker has had this client: the next one adopts it.
    pub(crate) had_worker: bool,
    /// It stands in its worker's line for credit.
    pub(crate) in_line: bool,
    /// Another worker should have it, once nothing is unanswered.
    pub(crate) moving: bool,
    /// Since which second its events have been waiting for any worker.
    pub(crate) unassigned_since: Option<u32>,
    /// The service that takes its events; "" for none.
    pub(crate) service: Rc<str>,
    /// The uid that it had when it went.
    pub(crate) last_uid: Box<str>,
    /// The header or query value that chooses its worker, if that is how it is chosen.
    pub(crate) affinity: Option<Box<str>>,

    pub(crate) app: Rc<str>,
    pub(crate) listener: Arc<Listener>,
    pub(crate) address: SocketAddr,
    pub(crate) opened_at_ms: u64,
    /// Second in which it last sent anything.
    pub(crate) last_in: u32,
    /// Second in which it was last pinged.
    pub(crate) last_ping: u32,
    pub(crate) rate: Rate,
    /// Of frames that are no message.
    pub(crate) no_messages: Rate,
    pub(crate) received: Traffic,
    pub(crate) session: Option<Box<ClientSession>>,
    /// What it has besides if it speaks the Pusher protocol.
    pub(crate) pusher: Option<Box<PusherClient>>,
    /// Given back when the client is gone.
    pub(crate) admitted: Option<ConnectionTicket>,
}

// The marks of taps are in what was padding.
const _: () = assert!(offset_of!(Client, key) <= 128);

/// Counters of one client, in one direction.
#[derive(Default)]
pub(crate) struct Traffic {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// A session that was set.
pub(crate) struct ClientSession {
    pub(crate) json: Box<str>,
    pub(crate) version: u64,
}

impl ClientStage {
    /// The transitions that there are.
    fn may_become(&self, next: &Self) -> bool {
        matches!(
            (self, next),
            // A worker is asked.
            (Self::Handshake(None), Self::Handshake(Some(_)))
                | (Self::Handshake(_), Self::Open | Self::Gone)
                | (Self::Open, Self::Closing(_) | Self::Gone)
                | (Self::Closing(_) | Self::Gone, Self::Gone)
        )
    }
}

impl Client {
    /// Moves on to another stage.
    pub(crate) fn enter(&mut self, next: ClientStage) {
        debug_assert!(self.stage.may_become(&next), "a client made an illegal transition");
        self.stage = next;
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, ClientStage::Open)
    }

    /// Nothing is left to say, and the end of our stream waits for the socket.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.stage, ClientStage::Closing(ClosePhase { answered: true, ended: false, .. }))
    }

    /// May its socket be read? Not while its worker has more than a window to answer, nor while an
    /// event waits for any worker, nor while a Pusher client's frame has not taken effect, nor while it does
    /// not take the answers to what it said: TCP then tells the client to wait.
    pub(crate) fn may_read(&self, max: WindowMax) -> bool {
        match &self.stage {
            ClientStage::Open => {
                let unassigned = self.worker.is_none() && !self.service.is_empty() && !self.events.is_empty();
                let idle = self.pusher.as_deref().is_none_or(PusherClient::is_idle);
                let takes = self.answers as usize <= OUTBOX_LOW_WATER_BYTES;
                self.events.has_room(max) && !unassigned && self.pending.is_none() && idle && takes
            }
            ClientStage::Closing(_) => true,
            ClientStage::Handshake(_) | ClientStage::Gone => false,
        }
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn session(&self) -> Option<v1::Session> {
        let session = self.session.as_ref()?;
        Some(v1::Session { json: session.json.to_string(), version: session.version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_comes_back() {
        let farewell = || ClosePhase { until: 1, answered: false, ended: false };
        let stages = || {
            [
                ClientStage::Handshake(None),
                ClientStage::Open,
                ClientStage::Closing(farewell()),
                ClientStage::Gone,
            ]
        };
        let allowed = stages().map(|from| stages().map(|to| u8::from(from.may_become(&to))));
        assert_eq!(allowed, [[0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1]]);
    }
}
