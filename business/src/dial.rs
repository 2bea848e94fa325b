//! From `host:port` to a gRPC channel, and how long to wait before the next try.

use std::{error::Error as _, io, time::Duration};

use broadgate_proto::limits::{TCP_KEEP_ALIVE, TCP_KEEP_ALIVE_INTERVAL, TCP_KEEP_ALIVE_PROBES};
use broadgate_tls::{ClusterTls, Side, explain, rustls};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

/// A gateway that takes no TCP connection for this long is tried again.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// A cut link is noticed after these two.
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// The first wait between two tries, and the longest.
const WAIT_MIN: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(2);

/// A channel that connects when it is first used. Needs a tokio runtime.
pub(crate) fn channel(address: &str, tls: Option<&ClusterTls>) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| format!("{address:?} is not host:port: {error}"))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIME_MAX)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(TCP_KEEP_ALIVE))
        .tcp_keepalive_interval(Some(TCP_KEEP_ALIVE_INTERVAL))
        .tcp_keepalive_retries(Some(TCP_KEEP_ALIVE_PROBES))
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    Ok(broadgate_port::connect_lazy(&endpoint, tls))
}

/// Why a call failed: the cause of a broken connection, which the library hides behind "transport error".
pub(crate) fn reason(status: &Status) -> String {
    let mut reason = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        reason = error.to_string();
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
        {
            // A server refuses a certificate when the client has ended its part of the handshake.
            return explain(error, Side::Client).sentence;
        }
        cause = error.source();
    }
    reason
}

/// Waits that grow from try to try, with jitter so that a cluster does not redial as one.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next wait, with 64 random bits.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let full = WAIT_MIN.saturating_mul(1 << self.tries.min(6)).min(WAIT_MAX);
        self.tries = self.tries.saturating_add(1);
        let half = full / 2;
        let spread = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_micros(random % spread)
    }

    /// Has it gone well since the last wait?
    pub(crate) fn is_reset(&self) -> bool {
        self.tries == 0
    }

    /// It went well: begin again with short waits.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

/// 64 random bits; jitter and preferences only, so 0 will do if there are none.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_begin_again() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|n| backoff.next(n * 7919)).collect();
        assert!(waits[0] >= WAIT_MIN / 2 && waits[0] <= WAIT_MIN);
        assert!(waits.iter().all(|wait| *wait <= WAIT_MAX));
        assert!(waits[11] >= WAIT_MAX / 2);
        backoff.reset();
        assert!(backoff.next(u64::MAX) <= WAIT_MIN);
    }
}
