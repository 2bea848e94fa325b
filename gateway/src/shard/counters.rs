//! A shard's counters: plain numbers on the hot path, added to the process's metrics once a second.

use std::time::Duration;

use broadgate_proto::v1::Cause;
use broadgate_topics::remember::{Forgotten, HeapSize, Remembered};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// Why something was dropped: the closed set of labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drop {
    /// A message: its client's outbox limit was met.
    Slow,
    /// A message: all outboxes together had too much, and its client's was among the fullest.
    OutboxesFull,
    /// A message: its client is already being closed.
    Closing,
    /// A framed payload for another protocol.
    Protocol,
    /// What was unsent when a connection ended.
    Unsent,
    /// An event that no worker took in time.
    NoWorker,
    /// An event at which workers died, one after the other.
    WorkerKiller,
    /// What a client sent after its close.
    AfterClose,
    /// What a client sent that was unread when it hung up.
    UnreadAtHangUp,
    /// What a client asked for: too much waits to be passed on.
    Busy,
    /// What a client asked for, beyond what its app allows in a second.
    Rate,
    /// A client event that could not be placed: its client gets an error.
    Refused,
    /// What a Pusher client did, for somebody who watches and does not take it fast enough.
    WatcherSlow,
}

const DROPS: [(Drop, &str); 13] = [
    (Drop::Slow, "slow"),
    (Drop::OutboxesFull, "outboxes_bytes_max"),
    (Drop::Closing, "closing"),
    (Drop::Protocol, "protocol"),
    (Drop::Unsent, "unsent"),
    (Drop::NoWorker, "no_worker"),
    (Drop::WorkerKiller, "worker_killer"),
    (Drop::AfterClose, "after_close"),
    (Drop::UnreadAtHangUp, "unread_at_hang_up"),
    (Drop::Busy, "busy"),
    (Drop::Rate, "rate"),
    (Drop::Refused, "refused"),
    (Drop::WatcherSlow, "watcher_slow"),
];

impl Drop {
    /// Its label.
    pub(crate) fn name(self) -> &'static str {
        DROPS.iter().find(|(known, _)| *known == self).map_or("", |(_, name)| name)
    }
}

const CAUSES: [(Cause, &str); 9] = [
    (Cause::Client, "client"),
    (Cause::Lost, "lost"),
    (Cause::Silent, "silent"),
    (Cause::Command, "command"),
    (Cause::Slow, "slow"),
    (Cause::Protocol, "protocol"),
    (Cause::NoWorker, "no_worker"),
    (Cause::Drain, "drain"),
    (Cause::Event, "event"),
];

/// How long turns took since the last publication, by powers of four of a microsecond: one addition a turn,
/// where a histogram of the process would have to be written to.
#[derive(Default)]
struct TurnTimes([(u32, Duration); TURN_CLASSES]);

/// The last class holds every turn of more than a second.
const TURN_CLASSES: usize = 12;
/// So many values of each class are enough to show how turns are spread.
const VALUES_PER_CLASS: u32 = 64;

impl TurnTimes {
    fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let class = (micros.ilog2() / 2) as usize;
        let (count, sum) = &mut self.0[class.min(TURN_CLASSES - 1)];
        *count += 1;
        *sum += time;
    }

    /// Each class by its mean. At most 64 of each are recorded, and the classes keep their shares.
    fn publish(&mut self, histogram: &Histogram) {
        let most = self.0.iter().map(|(count, _)| *count).max().unwrap_or_default();
        let one_in = most.div_ceil(VALUES_PER_CLASS).max(1);
        for (count, sum) in std::mem::take(&mut self.0) {
            if count > 0 {
                histogram.record_many(sum / count, count.div_ceil(one_in) as usize);
            }
        }
    }
}

/// Counts since the last publication, or since the start.
#[derive(Debug, Default, Clone)]
pub(crate) struct ShardCounts {
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) opened: u64,
    pub(crate) events: u64,
    pub(crate) redelivered: u64,
    pub(crate) writes: u64,
    drops: [u64; DROPS.len()],
    closes: [u64; CAUSES.len()],
}

impl ShardCounts {
    pub(crate) fn add(&mut self, other: &Self) {
        *self = self.plus(other);
    }

    fn plus(&self, other: &Self) -> Self {
        Self {
            messages_in: self.messages_in + other.messages_in,
            messages_out: self.messages_out + other.messages_out,
            bytes_in: self.bytes_in + other.bytes_in,
            bytes_out: self.bytes_out + other.bytes_out,
            opened: self.opened + other.opened,
            events: self.events + other.events,
            redelivered: self.redelivered + other.redelivered,
            writes: self.writes + other.writes,
            drops: std::array::from_fn(|reason| self.drops[reason] + other.drops[reason]),
            closes: std::array::from_fn(|cause| self.closes[cause] + other.closes[cause]),
        }
    }

    /// What was dropped, by reason.
    pub(crate) fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> {
        named(DROPS.map(|(_, reason)| reason), self.drops)
    }

    /// Clients that were closed, by cause.
    pub(crate) fn closes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        named(CAUSES.map(|(_, cause)| cause), self.closes)
    }
}

/// Counts that are not zero, by their names.
fn named<const N: usize>(
    names: [&'static str; N],
    counts: [u64; N],
) -> impl Iterator<Item = (&'static str, u64)> {
    names.into_iter().zip(counts).filter(|(_, count)| *count > 0)
}

/// Counters with their handles in the process's metrics.
pub(crate) struct ShardCounters {
    pub(crate) now: ShardCounts,
    /// Since the start, up to the last publication.
    published: ShardCounts,
    /// Messages in and out in the last full second.
    pub(crate) last_second: (u64, u64),
    /// The second in which the shard was last not running, and for how long.
    pub(crate) pause: Option<(u32, Duration)>,
    recent: RecentDrops,
    turns: TurnTimes,
    handles: Handles,
}

/// What was dropped in this minute and the one before.
#[derive(Default)]
struct RecentDrops {
    minute: u32,
    now: [u64; DROPS.len()],
    before: [u64; DROPS.len()],
}

impl RecentDrops {
    fn add(&mut self, second: u32, drops: &[u64; DROPS.len()]) {
        let minute = second / 60;
        if minute != self.minute {
            let former = std::mem::take(&mut self.now);
            self.before = if minute == self.minute + 1 { former } else { Default::default() };
            self.minute = minute;
        }
        for (sum, drops) in self.now.iter_mut().zip(drops) {
            *sum += drops;
        }
    }
}

struct Handles {
    totals: [Counter; 8],
    drops: [Counter; DROPS.len()],
    closes: [Counter; CAUSES.len()],
    clients: Gauge,
    outboxes_bytes: Gauge,
    ids_bytes: Gauge,
    ids_forgotten: [Counter; 2],
    turn: Histogram,
    lag: Histogram,
    worker_answer: Histogram,
}

impl ShardCounters {
    pub(crate) fn new(shard: u8) -> Self {
        let handles = Handles {
            totals: [
                counter!("broadgate_gateway_messages_in_total"),
                counter!("broadgate_gateway_messages_out_total"),
                counter!("broadgate_gateway_bytes_in_total"),
                counter!("broadgate_gateway_bytes_out_total"),
                counter!("broadgate_gateway_clients_opened_total"),
                counter!("broadgate_gateway_events_sent_total"),
                counter!("broadgate_gateway_events_redelivered_total"),
                counter!("broadgate_gateway_socket_writes_total"),
            ],
            drops: DROPS.map(|(_, reason)| counter!("broadgate_gateway_drops_total", "reason" => reason)),
            closes: CAUSES
                .map(|(_, cause)| counter!("broadgate_gateway_clients_closed_total", "cause" => cause)),
            clients: gauge!("broadgate_gateway_clients", "shard" => shard.to_string()),
            outboxes_bytes: gauge!("broadgate_gateway_outboxes_bytes", "shard" => shard.to_string()),
            ids_bytes: gauge!("broadgate_gateway_command_ids_bytes", "shard" => shard.to_string()),
            ids_forgotten: ["chosen", "made"]
                .map(|by| counter!("broadgate_gateway_command_ids_forgotten_total", "ids" => by)),
            turn: histogram!("broadgate_gateway_shard_turn_seconds"),
            lag: histogram!("broadgate_gateway_shard_lag_seconds"),
            worker_answer: histogram!("broadgate_gateway_worker_answer_seconds"),
        };
        Self {
            now: ShardCounts::default(),
            published: ShardCounts::default(),
            last_second: (0, 0),
            pause: None,
            recent: RecentDrops::default(),
            turns: TurnTimes::default(),
            handles,
        }
    }

    /// Since the start.
    pub(crate) fn totals(&self) -> ShardCounts {
        self.published.plus(&self.now)
    }

    /// A worker has answered an event after so long. Sampled.
    pub(crate) fn worker_answer(&self, time: Duration) {
        self.handles.worker_answer.record(time);
    }

    /// What was dropped in this minute and the one before, by reason.
    pub(crate) fn recent_drops(&self) -> Vec<(&'static str, u64)> {
        let RecentDrops { now, before, .. } = &self.recent;
        let sums =
            now.iter().zip(before).zip(self.now.drops).map(|((now, before), fresh)| now + before + fresh);
        DROPS.iter().zip(sums).filter(|(_, sum)| *sum > 0).map(|((_, reason), sum)| (*reason, sum)).collect()
    }

    /// One turn of the shard's loop took so long.
    pub(crate) fn turn(&mut self, time: Duration) {
        self.turns.add(time);
    }

    /// The shard came to its second by so much late.
    pub(crate) fn lag(&mut self, late: Duration) {
        self.handles.lag.record(late);
    }

    pub(crate) fn drop(&mut self, reason: Drop, count: usize) {
        if let Some(index) = DROPS.iter().position(|(known, _)| *known == reason) {
            self.now.drops[index] += count as u64;
        }
    }

    pub(crate) fn close(&mut self, cause: Cause) {
        if let Some(index) = CAUSES.iter().position(|(known, _)| *known == cause) {
            self.now.closes[index] += 1;
        }
    }

    /// Once a second: what waits in all outboxes.
    pub(crate) fn outboxes(&self, bytes: usize) {
        self.handles.outboxes_bytes.set(bytes as f64);
    }

    /// Once a second: what is remembered of commands.
    pub(crate) fn remembered<A: HeapSize>(&mut self, remembered: &mut Remembered<A>) {
        let handles = &self.handles;
        handles.ids_bytes.set(remembered.bytes() as f64);
        let Forgotten { chosen, made } = remembered.take_forgotten();
        for (handle, count) in handles.ids_forgotten.iter().zip([chosen, made]) {
            if count > 0 {
                handle.increment(count);
            }
        }
    }

    /// Once a second.
    pub(crate) fn publish(&mut self, second: u32, clients: usize) {
        let now = std::mem::take(&mut self.now);
        self.recent.add(second, &now.drops);
        self.published.add(&now);
        self.last_second = (now.messages_in, now.messages_out);
        let totals = [
            now.messages_in,
            now.messages_out,
            now.bytes_in,
            now.bytes_out,
            now.opened,
            now.events,
            now.redelivered,
            now.writes,
        ];
        let handles = &self.handles;
        let all = handles.totals.iter().zip(totals);
        let all = all.chain(handles.drops.iter().zip(now.drops));
        for (handle, count) in all.chain(handles.closes.iter().zip(now.closes)) {
            if count > 0 {
                handle.increment(count);
            }
        }
        handles.clients.set(clients as f64);
        self.turns.publish(&self.handles.turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_remembered_for_a_minute() {
        let mut recent = RecentDrops::default();
        let drops = |count| std::array::from_fn(|index| if index == 0 { count } else { 0 });
        for (second, count, expected) in [
            (10, 1, (1, 0)),
            (59, 1, (2, 0)),
            (60, 1, (1, 2)),
            (119, 0, (1, 2)),
            (120, 0, (0, 1)),
            (300, 0, (0, 0)),
        ] {
            recent.add(second, &drops(count));
            assert_eq!((recent.now[0], recent.before[0]), expected, "{second}");
        }
    }

    #[test]
    fn totals_are_never_lost_at_a_publication() {
        let mut counters = ShardCounters::new(0);
        for second in 0..3 {
            counters.now.messages_out += 2;
            counters.drop(Drop::Slow, 3);
            counters.close(Cause::Lost);
            let before = counters.totals();
            counters.publish(second, 0);
            let after = counters.totals();
            assert_eq!(
                (before.messages_out, after.messages_out),
                (after.messages_out, 2 * (u64::from(second) + 1))
            );
        }
        let totals = counters.totals();
        assert_eq!(totals.drops().collect::<Vec<_>>(), [("slow", 9)]);
        assert_eq!(totals.closes().collect::<Vec<_>>(), [("lost", 3)]);
    }

    #[test]
    fn turns_are_counted_by_their_length() {
        let mut times = TurnTimes::default();
        for micros in [0, 1, 3, 4, 15, 16, 1_000_000, 3_600_000_000] {
            times.add(Duration::from_micros(micros));
        }
        let counts = times.0.map(|(count, _)| count);
        assert_eq!(counts, [3, 2, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1]);
        times.publish(&Histogram::noop());
        assert!(times.0.iter().all(|(count, _)| *count == 0));
    }
}
