//! Limits of a gateway, and what they allow together.

use std::time::Duration;

use broadgate_proto::limits;
use serde::Deserialize;

/// The bounds of a gateway; every default is a constant of [`broadgate_proto::limits`].
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayLimits {
    /// Connections.
    pub clients_max: usize,
    /// Connections from one address; 0 is no limit.
    pub clients_per_ip_max: usize,
    /// A message from a client.
    pub message_bytes_max: usize,
    /// Messages per second from one client; 0 is no limit.
    pub messages_per_second_max: u32,
    /// Frames per second from one client that are no message: pings, pongs and fragments; 0 is no limit.
    pub frames_per_second_max: u32,
    /// Groups one client may be in.
    pub groups_per_client_max: usize,
    /// A session's JSON.
    pub session_bytes_max: usize,
    /// Bytes waiting for one client. As it is by default, it grows with `message_bytes_max`.
    pub outbox_bytes_max: usize,
    /// Bytes of memory that all outboxes may take; beyond, those who have most are closed.
    pub outboxes_bytes_max: usize,
    /// Messages waiting for one client.
    pub outbox_messages_max: usize,
    /// Time above the outbox's low-water mark.
    #[serde(deserialize_with = "broadgate_proto::time_setting::deserialize")]
    pub outbox_time_max: Duration,
    /// From accept to the first byte.
    #[serde(deserialize_with = "broadgate_proto::time_setting::deserialize")]
    pub first_byte_time_max: Duration,
    /// From accept to the end of the handshake.
    #[serde(deserialize_with = "broadgate_proto::time_setting::deserialize")]
    pub handshake_time_max: Duration,
    /// Between two requests of one HTTP connection.
    #[serde(deserialize_with = "broadgate_proto::time_setting::deserialize")]
    pub keep_alive_time_max: Duration,
    /// Bytes of all bodies that are held for the HTTP API of Pusher apps.
    pub api_bodies_bytes_max: usize,
    /// How long a closing client may take.
    #[serde(deserialize_with = "broadgate_proto::time_setting::deserialize")]
    pub close_time_max: Duration,
    /// How long an event may wait for any worker.
    #[serde(deserialize_with = "broadgate_proto::time_setting::deserialize")]
    pub hold_time_max: Duration,
    /// Events of one client that its worker has not answered.
    pub events_per_client_max: usize,
    /// And the bytes of their messages; one message always goes.
    pub events_per_client_bytes_max: usize,
    /// How long a peer may take to answer.
    #[serde(deserialize_with = "broadgate_proto::time_setting::deserialize")]
    pub link_timeout: Duration,
    /// What groups keep, in bytes of memory.
    pub retained_bytes_max: usize,
    /// What the groups of one app keep.
    pub retained_app_bytes_max: usize,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            clients_max: limits::CLIENTS_MAX,
            clients_per_ip_max: limits::CLIENTS_PER_IP_MAX,
            message_bytes_max: limits::MESSAGE_BYTES_MAX,
            messages_per_second_max: limits::MESSAGES_PER_SECOND_MAX,
            frames_per_second_max: limits::FRAMES_PER_SECOND_MAX,
            groups_per_client_max: limits::GROUPS_PER_CLIENT_MAX,
            session_bytes_max: limits::SESSION_BYTES_MAX,
            outbox_bytes_max: limits::OUTBOX_BYTES_MAX,
            outboxes_bytes_max: limits::OUTBOXES_BYTES_MAX,
            outbox_messages_max: limits::OUTBOX_MESSAGES_MAX,
            outbox_time_max: limits::OUTBOX_TIME_MAX,
            first_byte_time_max: limits::FIRST_BYTE_TIME_MAX,
            handshake_time_max: limits::HANDSHAKE_TIME_MAX,
            keep_alive_time_max: limits::KEEP_ALIVE_TIME_MAX,
            api_bodies_bytes_max: limits::API_BODIES_BYTES_MAX,
            close_time_max: limits::CLOSE_TIME_MAX,
            hold_time_max: limits::HOLD_TIME_MAX,
            events_per_client_max: limits::EVENTS_PER_CLIENT_MAX,
            events_per_client_bytes_max: limits::EVENTS_PER_CLIENT_BYTES_MAX,
            link_timeout: limits::LINK_TIMEOUT,
            retained_bytes_max: limits::RETAINED_BYTES_MAX,
            retained_app_bytes_max: limits::RETAINED_APP_BYTES_MAX,
        }
    }
}

impl GatewayLimits {
    /// The largest payload of a command: an answer may be as large as what it answers.
    #[must_use]
    pub fn payload_bytes_max(&self) -> usize {
        self.message_bytes_max.max(limits::PAYLOAD_BYTES_MAX)
    }

    /// The largest command as JSON, which makes a byte of a payload six at most.
    #[must_use]
    pub fn json_bytes_max(&self) -> usize {
        limits::JSON_GROWTH_MAX * self.payload_bytes_max() + limits::COMMAND_REST_BYTES
    }

    /// The largest frame, as clients get it. An outbox that is empty takes it.
    #[must_use]
    pub fn frame_bytes_max(&self) -> usize {
        self.payload_bytes_max().max(self.outbox_bytes_max) + limits::FRAME_OVERHEAD_BYTES
    }

    /// Those of the homes. Several of the largest payloads may wait.
    pub(crate) fn of_homes(&self) -> broadgate_topics::TopicLimits {
        let several = 4 * self.payload_bytes_max();
        broadgate_topics::TopicLimits {
            link_timeout: self.link_timeout,
            parking_bytes_max: several.max(limits::PARKING_BYTES_MAX),
            untaken_bytes_max: several.max(limits::LINK_UNTAKEN_BYTES_MAX),
            asked_bytes_max: (2 * several).max(limits::ASKED_BYTES_MAX),
            retained_bytes_max: self.retained_bytes_max,
            retained_app_bytes_max: self.retained_app_bytes_max,
            ..broadgate_topics::TopicLimits::default()
        }
    }

    /// Limits that nobody has set follow those that somebody has.
    pub(crate) fn follow(&mut self) {
        if self.outbox_bytes_max == limits::OUTBOX_BYTES_MAX {
            self.outbox_bytes_max = self.payload_bytes_max().max(self.outbox_bytes_max);
        }
        if self.outboxes_bytes_max == limits::OUTBOXES_BYTES_MAX {
            self.outboxes_bytes_max = self.frame_bytes_max().max(self.outboxes_bytes_max);
        }
    }
}
