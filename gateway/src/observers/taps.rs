//! Taps: operators look at what some clients do and are sent. A tap never holds anybody up: what its reader does not
//! take is dropped and counted, and what is too much in a second is not even made.
//!
//! A change among the taps makes a new table, which shards take when a message tells them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use broadgate_proto::{
    id::ClientId,
    limits::{TAP_BYTES_MAX, TAP_EVENTS_MAX, TAP_MESSAGE_BYTES_MAX, TAPS_MAX},
    v1::{TapEvent, TapKind, tap_event::Payload},
};
use metrics::{Counter, counter, gauge};
use prost::Message as _;

use super::queue::{ObserverQueue, QueueBounds, Taken, Taker, queue};

const BOUNDS: QueueBounds =
    QueueBounds { events: TAP_EVENTS_MAX, bytes: TAP_BYTES_MAX, message_bytes: TAP_MESSAGE_BYTES_MAX };

/// Whose events a tap shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TapWhose {
    Client(ClientId),
    Uid(Box<str>),
    Group(Box<str>),
    /// What the commands of a caller do, to whichever clients.
    Caller(Box<str>),
    App,
}

/// What a tap shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TapQuestion {
    pub(crate) app: Box<str>,
    pub(crate) whose: TapWhose,
    /// A bit for each kind.
    pub(crate) kinds: u32,
    /// Bytes of a payload that are shown; none for no payload.
    pub(crate) payload_max: Option<usize>,
    pub(crate) per_second_max: u32,
    pub(crate) seconds: u32,
}

/// What a message says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SaidPayload<'a> {
    pub(crate) is_text: bool,
    pub(crate) bytes: &'a [u8],
}

impl SaidPayload<'_> {
    /// Its first bytes. A character that does not fit as a whole is left out.
    fn cut(self, max: usize) -> Payload {
        let bytes = &self.bytes[..self.bytes.len().min(max)];
        if !self.is_text {
            return Payload::Binary(bytes.to_vec().into());
        }
        let valid = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
        };
        Payload::Text(valid.to_owned())
    }
}

/// An open tap.
pub(crate) struct Tap {
    pub(crate) question: TapQuestion,
    /// Who has opened it.
    by: Box<str>,
    queue: Arc<ObserverQueue<TapEvent>>,
    /// A second of the clock, and in the low half how many events were in it.
    second: AtomicU64,
    too_many: Counter,
    too_slow: Counter,
}

impl Tap {
    fn new(question: TapQuestion, by: &str, queue: Arc<ObserverQueue<TapEvent>>) -> Self {
        let missed = |reason| counter!("broadgate_gateway_tap_events_missed_total", "reason" => reason);
        let (too_many, too_slow) = (missed("rate"), missed("slow_reader"));
        Self { question, by: by.into(), queue, second: AtomicU64::new(0), too_many, too_slow }
    }

    /// Has it room for one more event of this kind at this time? To be asked before the event is made. One that has
    /// none is missed, and counted.
    pub(crate) fn admits(&self, kind: TapKind, at_ms: u64) -> bool {
        if self.question.kinds & (1 << kind as i32) == 0 {
            return false;
        }
        let second = (at_ms / 1000) << 32;
        let counted = self.second.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
            Some(if before & !u64::from(u32::MAX) == second { before + 1 } else { second | 1 })
        });
        let before = counted.unwrap_or_default();
        let in_second = if before & !u64::from(u32::MAX) == second { before as u32 } else { 0 };
        if in_second < self.question.per_second_max {
            return true;
        }
        self.too_many.increment(1);
        self.queue.miss();
        false
    }

    /// Hands an event to the reader, without waiting.
    pub(crate) fn offer(&self, mut event: TapEvent, payload: Option<SaidPayload<'_>>) {
        event.payload = payload.zip(self.question.payload_max).map(|(payload, max)| payload.cut(max));
        let bytes = event.encoded_len();
        if !self.queue.offer(&Arc::new(event), bytes) {
            self.too_slow.increment(1);
        }
    }

    /// Does it show single clients, and what is sent to each of them?
    pub(crate) fn is_of_clients(&self) -> bool {
        matches!(self.question.whose, TapWhose::Client(_) | TapWhose::Uid(_))
    }
}

/// The taps, each at its bit in the marks of clients.
pub(crate) type TapTable = [Option<Arc<Tap>>; TAPS_MAX];

/// Whose these taps are, as far as somebody may know it who sees these apps: "5 of token:ann, 2 of secret, 1 of
/// another app".
pub(crate) fn whose(table: &TapTable, sees: impl Fn(&str) -> bool) -> String {
    let (mut callers, mut hidden) = (BTreeMap::new(), 0);
    for tap in table.iter().flatten() {
        if sees(&tap.question.app) {
            *callers.entry(&*tap.by).or_insert(0) += 1;
        } else {
            hidden += 1;
        }
    }
    let named = |(by, count): (&str, u32)| match by {
        "" => format!("{count} of an unknown caller"),
        by => format!("{count} of {by}"),
    };
    let of_others = (hidden > 0).then(|| format!("{hidden} of other apps"));
    callers.into_iter().map(named).chain(of_others).collect::<Vec<_>>().join(", ")
}

/// The taps of one gateway. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Taps(Arc<TapsShared>);

#[derive(Default)]
struct TapsShared {
    /// The table that shards take.
    table: ArcSwap<TapTable>,
    /// Locked while it changes.
    changing: Mutex<()>,
}

/// The reader's end of a tap, which ends when this is dropped.
pub(crate) struct TapReader {
    /// Its bit.
    pub(crate) place: usize,
    taker: Taker<TapEvent>,
    tap: Arc<Tap>,
    taps: Taps,
}

impl TapReader {
    /// What was missed, and the events that follow. Cancel safe.
    pub(crate) async fn next(&mut self) -> (u64, Vec<TapEvent>) {
        match self.taker.next().await {
            Some(Taken { missed, events }) => (missed, events),
            // The tap is alive, so its queue is.
            None => std::future::pending().await,
        }
    }
}

impl Drop for TapReader {
    fn drop(&mut self) {
        self.taps.change(|table| {
            let own = |tap: &Arc<Tap>| Arc::ptr_eq(tap, &self.tap);
            if table[self.place].as_ref().is_some_and(own) {
                table[self.place] = None;
            }
        });
    }
}

impl Taps {
    /// Opens a tap. Shards show nothing until they have taken the table.
    ///
    /// # Errors
    /// If there are as many as there may be: those.
    pub(crate) fn open(&self, question: TapQuestion, by: &str) -> Result<TapReader, Arc<TapTable>> {
        let (queue, taker) = queue(BOUNDS);
        let tap = Arc::new(Tap::new(question, by, queue));
        let place = self.change(|table| {
            let place = table.iter().position(Option::is_none)?;
            table[place] = Some(Arc::clone(&tap));
            Some(place)
        });
        let place = place.ok_or_else(|| self.table())?;
        Ok(TapReader { place, taker, tap, taps: self.clone() })
    }

    pub(crate) fn table(&self) -> Arc<TapTable> {
        self.0.table.load_full()
    }

    fn change<T>(&self, change: impl FnOnce(&mut TapTable) -> T) -> T {
        let _changing = self.0.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = TapTable::clone(&self.0.table.load());
        let changed = change(&mut table);
        gauge!("broadgate_gateway_taps").set(table.iter().flatten().count() as f64);
        self.0.table.store(Arc::new(table));
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(per_second_max: u32) -> TapQuestion {
        TapQuestion {
            app: "shop".into(),
            whose: TapWhose::App,
            kinds: 1 << TapKind::In as i32,
            payload_max: Some(4),
            per_second_max,
            seconds: 1,
        }
    }

    fn offer(taps: &Taps, at_ms: u64) -> bool {
        let table = taps.table();
        let tap = table[0].as_ref().unwrap();
        let admitted = tap.admits(TapKind::In, at_ms);
        if admitted {
            let payload = SaidPayload { is_text: true, bytes: "abc\u{e9}d".as_bytes() };
            tap.offer(TapEvent { at_ms, ..TapEvent::default() }, Some(payload));
        }
        admitted
    }

    #[tokio::test]
    async fn what_is_too_much_in_a_second_is_missed_at_its_place() {
        let taps = Taps::default();
        let mut stream = taps.open(question(2), "secret").ok().unwrap();
        let admitted: Vec<bool> = [1000, 1400, 1500, 1999, 2000, 2001].map(|at| offer(&taps, at)).into();
        assert_eq!(admitted, [true, true, false, false, true, true]);
        let (missed, events) = stream.next().await;
        assert_eq!((missed, events.len()), (0, 2));
        // A character is not cut in two.
        assert_eq!(events[0].payload, Some(Payload::Text("abc".to_owned())));
        let (missed, events) = stream.next().await;
        assert_eq!((missed, events.iter().map(|event| event.at_ms).collect()), (2, vec![2000, 2001]));
        assert!(!taps.table()[0].as_ref().unwrap().admits(TapKind::Ping, 3000), "not asked for");
    }

    #[test]
    fn a_tap_that_ends_makes_room_and_a_late_end_ends_no_other() {
        let taps = Taps::default();
        let mut callers = ["token:ann", "token:bob", ""].into_iter().cycle();
        let mut open = || taps.open(question(1), callers.next().unwrap()).ok();
        let mut streams: Vec<TapReader> = std::iter::from_fn(&mut open).collect();
        assert_eq!(streams.len(), TAPS_MAX);
        let full = taps.open(question(1), "token:cid").err().unwrap();
        let all = "2 of an unknown caller, 3 of token:ann, 3 of token:bob";
        assert_eq!(whose(&full, |app| app == "shop"), all);
        assert_eq!(whose(&full, |_| false), "8 of other apps");
        drop(streams.remove(3));
        let again = taps.open(question(1), "").ok().unwrap();
        assert_eq!(again.place, 3);
        drop(streams);
        assert_eq!(taps.table().iter().flatten().count(), 1);
        drop(again);
        assert!(taps.table().iter().all(Option::is_none));
    }
}
