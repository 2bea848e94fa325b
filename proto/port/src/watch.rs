//! The phase of an HTTP connection, and its deadline.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use broadgate_proto::limits;
use tokio::time::{Instant, Sleep};

/// How long each phase of an HTTP connection may last.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// From accept to the first byte.
    pub first_byte: Duration,
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// From the head to the end of the answer.
    pub exchange: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// How long the peer may read nothing of what is written.
    pub write: Duration,
    /// From the end of our write side to the end of the peer's.
    pub linger: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            first_byte: limits::FIRST_BYTE_TIME_MAX,
            head: limits::HANDSHAKE_TIME_MAX,
            exchange: limits::HANDSHAKE_TIME_MAX + limits::HOLD_TIME_MAX + limits::ANSWER_TIME_MAX,
            idle: limits::KEEP_ALIVE_TIME_MAX,
            write: limits::WRITE_TIME_MAX,
            linger: limits::LINGER_TIME_MAX,
        }
    }
}

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ConnectionPhase {
    /// Nothing has been read.
    First,
    /// A request's head is being read.
    Head,
    /// A request is being executed; its body may still be read.
    Serving,
    /// An answer is being written.
    Answering,
    /// Between two requests.
    Idle,
    /// The write side is closed.
    Closing,
    /// HTTP/2, whose own pings detect a dead peer.
    Multiplexed,
}

const PHASES: [ConnectionPhase; 7] = [
    ConnectionPhase::First,
    ConnectionPhase::Head,
    ConnectionPhase::Serving,
    ConnectionPhase::Answering,
    ConnectionPhase::Idle,
    ConnectionPhase::Closing,
    ConnectionPhase::Multiplexed,
];

/// Never, in milliseconds.
const NEVER: u64 = u64::MAX;

/// The phase and the deadlines of one connection. Shared by its stream, which sees what is read and
/// written, and by its service, which sees requests and answers.
#[derive(Debug)]
pub struct ConnectionWatch {
    times: Times,
    started: Instant,
    phase: AtomicU8,
    /// The first byte that was read.
    first: AtomicU8,
    /// The phase's deadline. Like the others in milliseconds since `started`.
    until: AtomicU64,
    /// Set while the peer reads nothing of what is written.
    write_until: AtomicU64,
    /// For the whole connection.
    life_until: AtomicU64,
}

impl ConnectionWatch {
    /// A connection that has just been accepted.
    #[must_use]
    pub fn new(times: Times) -> Arc<Self> {
        let watch = Self {
            times,
            started: Instant::now(),
            phase: AtomicU8::new(ConnectionPhase::First as u8),
            first: AtomicU8::new(0),
            until: AtomicU64::new(0),
            write_until: AtomicU64::new(NEVER),
            life_until: AtomicU64::new(NEVER),
        };
        watch.enter(ConnectionPhase::First, times.first_byte);
        Arc::new(watch)
    }

    /// Sets the phase.
    #[must_use]
    pub fn phase(&self) -> ConnectionPhase {
        PHASES
            .get(usize::from(self.phase.load(Ordering::Relaxed)))
            .copied()
            .unwrap_or(ConnectionPhase::Closing)
    }

    fn enter(&self, phase: ConnectionPhase, time: Duration) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.until.store(self.at(time), Ordering::Relaxed);
    }

    fn at(&self, time: Duration) -> u64 {
        let at = self.started.elapsed().saturating_add(time);
        u64::try_from(at.as_millis()).unwrap_or(NEVER)
    }

    /// Ends the connection after this time, whatever its phase.
    pub fn end_within(&self, time: Duration) {
        self.life_until.fetch_min(self.at(time), Ordering::Relaxed);
    }

    /// The limit of [`Self::end_within`] is lifted.
    pub fn may_live(&self) {
        self.life_until.store(NEVER, Ordering::Relaxed);
    }

    /// A request's head has been read.
    pub fn serving(&self) {
        self.enter(ConnectionPhase::Serving, self.times.exchange);
    }

    /// The answer to a request is known; the rest of the exchange's time is for writing it.
    pub fn answering(&self) {
        self.phase.store(ConnectionPhase::Answering as u8, Ordering::Relaxed);
    }

    /// The connection speaks HTTP/2.
    pub fn multiplexed(&self) {
        self.phase.store(ConnectionPhase::Multiplexed as u8, Ordering::Relaxed);
        self.until.store(NEVER, Ordering::Relaxed);
        self.write_until.store(NEVER, Ordering::Relaxed);
    }

    /// Bytes were read, of which this is the first.
    pub(crate) fn has_read_from(&self, first: u8) {
        if self.phase() == ConnectionPhase::First {
            self.first.store(first, Ordering::Relaxed);
        }
        self.has_read();
    }

    /// Something was read.
    pub fn has_read(&self) {
        if matches!(self.phase(), ConnectionPhase::First | ConnectionPhase::Idle) {
            self.enter(ConnectionPhase::Head, self.times.head);
        }
    }

    /// Whether this is the first byte that was read.
    pub(crate) fn began_with(&self, byte: u8) -> bool {
        self.phase() != ConnectionPhase::First && self.first.load(Ordering::Relaxed) == byte
    }

    pub(crate) fn has_flushed(&self) {
        if self.phase() == ConnectionPhase::Answering {
            self.enter(ConnectionPhase::Idle, self.times.idle);
        }
    }

    /// Records whether the peer accepted what was written.
    pub(crate) fn has_written(&self, taken: bool) {
        if taken {
            self.write_until.store(NEVER, Ordering::Relaxed);
        } else if self.write_until.load(Ordering::Relaxed) == NEVER
            && self.phase() != ConnectionPhase::Multiplexed
        {
            self.write_until.store(self.at(self.times.write), Ordering::Relaxed);
        }
    }

    pub(crate) fn closing(&self) {
        self.enter(ConnectionPhase::Closing, self.times.linger);
    }

    fn until_ms(&self) -> u64 {
        let own = self.until.load(Ordering::Relaxed).min(self.write_until.load(Ordering::Relaxed));
        own.min(self.life_until.load(Ordering::Relaxed))
    }

    /// The limit that was exceeded, as a label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        let now = self.at(Duration::ZERO);
        if self.write_until.load(Ordering::Relaxed) <= now {
            return "write_time_max";
        }
        match self.phase() {
            ConnectionPhase::First => "first_byte_time_max",
            ConnectionPhase::Head => "handshake_time_max",
            ConnectionPhase::Serving | ConnectionPhase::Answering | ConnectionPhase::Multiplexed => {
                "exchange_time_max"
            }
            ConnectionPhase::Idle => "keep_alive_time_max",
            ConnectionPhase::Closing => "linger_time_max",
        }
    }

    /// Ready when a deadline has passed. To be polled by the task that polls the connection, after it:
    /// deadlines change when the connection is polled.
    #[must_use]
    pub fn overdue(self: &Arc<Self>) -> Overdue {
        Overdue { watch: Arc::clone(self), sleep: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }
}

/// Waits for a deadline that moves.
#[derive(Debug)]
pub struct Overdue {
    watch: Arc<ConnectionWatch>,
    sleep: Pin<Box<Sleep>>,
}

/// Deadlines further away are looked at again then; a sleep cannot be longer than some years.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

impl Future for Overdue {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let until = self.watch.until_ms();
            let now = Instant::now();
            let at = self.watch.started.checked_add(Duration::from_millis(until));
            let at = at.unwrap_or(now + LOOK_AGAIN).min(now + LOOK_AGAIN);
            if until != NEVER && at <= now {
                return Poll::Ready(());
            }
            // A deadline that has moved away is found when the earlier one passes.
            if self.sleep.deadline() > at || self.sleep.deadline() <= now {
                self.sleep.as_mut().reset(at);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_deadline_and_the_connection_one_for_all() {
        let times = Times::default();
        let watch = ConnectionWatch::new(times);
        let overdue_after = async || {
            let before = Instant::now();
            watch.overdue().await;
            before.elapsed().as_secs()
        };
        assert_eq!((overdue_after().await, watch.reason()), (5, "first_byte_time_max"));
        watch.has_read();
        assert_eq!((overdue_after().await, watch.reason()), (10, "handshake_time_max"));
        watch.serving();
        watch.has_written(false);
        assert_eq!((overdue_after().await, watch.reason()), (10, "write_time_max"));
        watch.has_written(true);
        watch.answering();
        assert_eq!((overdue_after().await, watch.reason()), (40, "exchange_time_max"));
        watch.has_flushed();
        assert_eq!((overdue_after().await, watch.reason()), (75, "keep_alive_time_max"));
        watch.has_read();
        watch.end_within(Duration::from_secs(3));
        assert_eq!(overdue_after().await, 3);
        watch.may_live();
        watch.closing();
        assert_eq!(overdue_after().await, 2);
        watch.multiplexed();
        let never = tokio::time::timeout(Duration::from_secs(86_400), watch.overdue()).await;
        assert!(never.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_drip_do_not_move_the_deadline() {
        let watch = ConnectionWatch::new(Times::default());
        let started = Instant::now();
        let mut overdue = watch.overdue();
        while tokio::time::timeout(Duration::from_secs(1), &mut overdue).await.is_err() {
            watch.has_read();
        }
        assert_eq!(started.elapsed().as_secs(), 11);
    }
}
