//! What a Socket.IO client has besides what every client of an app's channels has.

use std::convert::Infallible;

use broadgate_proto::limits::{
    SOCKETIO_CONNECT_TIME_MAX, SOCKETIO_HANDSHAKE_BYTES_MAX, SOCKETIO_PING_INTERVAL, SOCKETIO_PING_TIMEOUT,
};
use broadgate_pusher::channel::ChannelKind;
use broadgate_socketio::{engine::EngineVersion, talk::SocketStage};
use tokio::sync::oneshot;

/// What a Socket.IO client has besides what every client of an app's channels has.
#[derive(Debug)]
pub(crate) struct SocketIoClient {
    pub(crate) version: EngineVersion,
    pub(crate) stage: SocketStage,
    /// The id that it has from polling, which a client of version 3 takes for its socket's.
    pub(super) issued: Option<u64>,
    /// Of its handshake; "" if it had none.
    pub(super) cookie: Box<str>,
    /// Of its handshake; "" if it had none.
    pub(super) origin: Box<str>,
    /// The second at which it must be connected.
    pub(crate) connect_by: u32,
    /// Its app's backend is being asked. Nothing is read from the client meanwhile.
    pub(super) asking: Option<Asking>,
}

/// A question to a client's backend.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) channel: String,
    pub(super) kind: ChannelKind,
    /// While it is there, somebody waits for the answer.
    pub(super) _waits: oneshot::Receiver<Infallible>,
}

impl SocketIoClient {
    /// A client with the id that it has from polling, if it has come over from there. A cookie or an origin that is
    /// too long to be kept counts as none.
    pub(crate) fn new(version: EngineVersion, issued: Option<u64>, cookie: &str, origin: &str) -> Self {
        let kept = |text: &str| if text.len() <= SOCKETIO_HANDSHAKE_BYTES_MAX { text } else { "" }.into();
        let stage = if issued.is_some() { SocketStage::Probing } else { SocketStage::Opened };
        Self {
            version,
            stage,
            issued,
            cookie: kept(cookie),
            origin: kept(origin),
            connect_by: u32::MAX,
            asking: None,
        }
    }

    /// It comes in at this second.
    pub(crate) fn start(mut self, second: u32) -> Self {
        self.connect_by = second + SOCKETIO_CONNECT_TIME_MAX.as_secs() as u32;
        self
    }

    pub(crate) fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    /// The id that others may name it by, if it is not its own.
    pub(crate) fn alias(&self) -> Option<u64> {
        self.issued.filter(|_| self.version == EngineVersion::V3)
    }

    /// After how many seconds it is pinged and after how much silence it is closed. Clients of version 3 ping.
    pub(crate) fn liveness(&self) -> (Option<u32>, Option<u32>) {
        let silence = (SOCKETIO_PING_INTERVAL + SOCKETIO_PING_TIMEOUT).as_secs() as u32;
        let pings = self.version == EngineVersion::V4;
        (pings.then_some(SOCKETIO_PING_INTERVAL.as_secs() as u32), Some(silence))
    }

    /// Was it to be connected, and is not?
    pub(crate) fn is_late(&self, second: u32) -> bool {
        self.stage != SocketStage::Connected && second >= self.connect_by
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_client_of_version_3_takes_an_issued_id_for_its_own() {
        let client = |version, issued| SocketIoClient::new(version, issued, "", "");
        assert_eq!(client(EngineVersion::V3, Some(7)).alias(), Some(7));
        assert_eq!(client(EngineVersion::V4, Some(7)).alias(), None);
        assert_eq!(client(EngineVersion::V3, None).alias(), None);
        assert_eq!(client(EngineVersion::V3, Some(7)).stage, SocketStage::Probing);
        assert_eq!(client(EngineVersion::V4, None).stage, SocketStage::Opened);
    }

    #[test]
    fn what_is_kept_of_a_handshake_is_bounded() {
        let cookie =
            |bytes| SocketIoClient::new(EngineVersion::V4, None, &"x".repeat(bytes), "").cookie.len();
        let max = SOCKETIO_HANDSHAKE_BYTES_MAX;
        assert_eq!((cookie(max), cookie(max + 1)), (max, 0));
    }

    #[test]
    fn a_client_has_to_connect_in_time() {
        let mut client = SocketIoClient::new(EngineVersion::V4, None, "", "").start(100);
        assert!(!client.is_late(144) && client.is_late(145));
        client.stage = SocketStage::Connected;
        assert!(!client.is_late(145));
        assert_eq!(client.liveness(), (Some(25), Some(45)));
        client.version = EngineVersion::V3;
        assert_eq!(client.liveness(), (None, Some(45)));
    }
}
