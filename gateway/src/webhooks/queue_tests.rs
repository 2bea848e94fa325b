use proptest::prelude::*;

use super::*;
use crate::webhooks::{batch::Room, health::HealthChange};

const SECOND: Duration = Duration::from_secs(1);

fn event(seq: u64, channel: &str) -> Arc<EndpointEvent> {
    Arc::new(EndpointEvent {
        seq,
        channel: channel.into(),
        at_ms: 0,
        json: format!("{seq}").into(),
        arrival: None,
    })
}

/// A queue with its clock, and what it wants.
struct Bench {
    queue: EndpointQueue,
    now: Duration,
    flights: Vec<(u64, Vec<u64>)>,
    delivered: Vec<u64>,
    dropped: Vec<(u64, DropReason)>,
    news: Vec<HealthChange>,
}

impl Bench {
    fn new(batch: bool) -> Self {
        Self {
            queue: EndpointQueue::new(batch, 1),
            now: SECOND,
            flights: Vec::new(),
            delivered: Vec::new(),
            dropped: Vec::new(),
            news: Vec::new(),
        }
    }

    fn act(&mut self, step: impl FnOnce(&mut EndpointQueue, Duration, &mut Vec<WebhookEffect>)) {
        let mut out = Vec::new();
        step(&mut self.queue, self.now, &mut out);
        self.queue.poll(self.now, &mut out);
        for effect in out {
            match effect {
                WebhookEffect::Queued(_) => {}
                WebhookEffect::Post { flight, events } => {
                    self.flights.push((flight, events.iter().map(|event| event.seq).collect()));
                }
                WebhookEffect::Delivered { event, .. } => self.delivered.push(event.seq),
                WebhookEffect::Dropped { event, reason } => self.dropped.push((event.seq, reason)),
                WebhookEffect::News(news) => self.news.push(news),
            }
        }
        assert!(self.queue.next().is_none_or(|next| next > self.now), "it would be woken for ever");
    }

    fn push(&mut self, seq: u64, channel: &str) {
        self.act(|queue, now, out| queue.push(now, event(seq, channel), out));
    }

    /// What is under way, in the order in which it was posted.
    fn under_way(&self) -> Vec<&[u64]> {
        self.flights.iter().map(|(_, events)| events.as_slice()).collect()
    }

    fn finish(&mut self, at: usize, arrived: bool) {
        let (flight, _) = self.flights.remove(at);
        self.act(|queue, now, out| queue.done(now, flight, arrived, out));
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.queue.next().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            self.act(|_, _, _| {});
        }
        self.now = end;
    }
}

#[test]
fn channels_go_side_by_side_and_each_in_its_order() {
    let mut bench = Bench::new(false);
    for (seq, channel) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
        bench.push(seq, channel);
    }
    assert_eq!(bench.under_way(), [&[1], &[3]]);
    bench.finish(0, true);
    assert_eq!(bench.under_way(), [&[3], &[2]]);
    (5..30).for_each(|seq| bench.push(seq, &seq.to_string()));
    assert_eq!(bench.flights.len(), WEBHOOK_POSTS_MAX);
    bench.finish(1, true);
    assert_eq!(bench.under_way().last().unwrap(), &[4], "the oldest goes first");
    assert_eq!(bench.delivered, [1, 2]);
}

#[test]
fn what_fails_is_tried_again_with_growing_waits_and_holds_its_channel_up_alone() {
    let mut bench = Bench::new(false);
    bench.push(1, "bad");
    bench.push(2, "bad");
    let mut waits = Vec::new();
    for seq in 10..13 {
        // Others get through, so the endpoint is not down.
        bench.finish(0, false);
        assert!(bench.flights.is_empty());
        waits.push(bench.queue.next().unwrap() - bench.now);
        bench.push(seq, "good");
        bench.finish(0, true);
        bench.pass(*waits.last().unwrap());
        assert_eq!(bench.under_way(), [&[1]]);
    }
    for (wait, longest) in waits.iter().zip([1, 2, 4]) {
        assert!(*wait >= SECOND * longest / 2 && *wait <= SECOND * longest, "{waits:?}");
    }
    assert_eq!(bench.news, [HealthChange::Fails], "it is not well while something waits");
    bench.finish(0, true);
    assert_eq!(
        (bench.under_way(), &bench.news[1..]),
        (vec![&[2][..]], &[HealthChange::Works { given_up: 0 }][..])
    );
}

#[test]
fn an_event_that_is_not_taken_is_given_up_after_five_minutes_and_the_next_one_is_tried() {
    let mut bench = Bench::new(false);
    bench.push(1, "bad");
    bench.push(2, "bad");
    let begin = bench.now;
    let mut seq = 100;
    while bench.dropped.is_empty() {
        if let Some(at) = bench.flights.iter().position(|(_, events)| events == &[1]) {
            bench.finish(at, false);
        }
        bench.push(seq, "good");
        let at = bench.flights.iter().position(|(_, events)| events == &[seq]).unwrap();
        bench.finish(at, true);
        seq += 1;
        bench.pass(Duration::from_millis(250));
    }
    assert_eq!(bench.dropped, [(1, DropReason::GivenUp)]);
    assert!(
        bench.now >= begin + WEBHOOK_RETRY_TIME_MAX && bench.now <= begin + WEBHOOK_RETRY_TIME_MAX + SECOND
    );
    assert_eq!(bench.under_way(), [&[2]], "it never failed itself");
    bench.finish(0, true);
    assert_eq!(bench.news, [HealthChange::Fails, HealthChange::Works { given_up: 1 }]);
}

#[test]
fn an_endpoint_that_is_down_is_asked_by_one_post_at_a_time() {
    let mut bench = Bench::new(false);
    (0..100).for_each(|seq| bench.push(seq, &seq.to_string()));
    let (begin, mut posts) = (bench.now, 0);
    while bench.now < begin + SECOND * 290 {
        while !bench.flights.is_empty() {
            posts += 1;
            bench.finish(0, false);
        }
        bench.pass(SECOND);
    }
    assert!((12..40).contains(&posts), "{posts}");
    assert!(bench.dropped.is_empty());
    // The endpoint is back: everything goes, also what has waited long.
    while bench.flights.is_empty() {
        bench.pass(SECOND);
    }
    while !bench.flights.is_empty() {
        bench.finish(0, true);
        assert!(bench.flights.len() <= WEBHOOK_POSTS_MAX);
    }
    let total = bench.delivered.len() + bench.dropped.len();
    assert_eq!((total, bench.queue.len(), bench.queue.bytes()), (100, 0, 0));
    assert!(bench.dropped.len() < 20, "{:?}", bench.dropped);
    assert!(matches!(bench.news[..], [HealthChange::Fails, HealthChange::Works { .. }]));
}

#[test]
fn an_outage_costs_what_is_older_than_five_minutes_and_no_more() {
    let mut bench = Bench::new(true);
    for seq in 0..1000 {
        bench.push(seq, &(seq % 100).to_string());
        bench.pass(SECOND);
        while !bench.flights.is_empty() {
            bench.finish(0, false);
        }
    }
    let oldest = *bench.queue.events.first_key_value().unwrap().0;
    assert!((690..705).contains(&oldest), "{oldest}");
    assert_eq!(bench.dropped.len() as u64, oldest);
    assert!(bench.dropped.iter().all(|(_, reason)| *reason == DropReason::GivenUp));
}

#[test]
fn what_was_never_tried_has_all_its_time_when_the_endpoint_is_back() {
    let mut bench = Bench::new(false);
    (0..200).for_each(|seq| bench.push(seq, "one"));
    let begin = bench.now;
    while bench.now < begin + SECOND * 200 {
        if !bench.flights.is_empty() {
            bench.finish(0, false);
        }
        bench.pass(SECOND);
    }
    // It takes them again, but slowly: when the last one's turn comes, the outage is long past.
    while bench.queue.len() > 0 {
        bench.pass(SECOND);
        if !bench.flights.is_empty() {
            bench.finish(0, true);
        }
    }
    assert_eq!(bench.delivered, (0..200).collect::<Vec<_>>());
    assert!(bench.now > begin + WEBHOOK_RETRY_TIME_MAX);
}

#[test]
fn too_much_costs_the_oldest_that_is_not_under_way() {
    let mut bench = Bench::new(false);
    let most = WEBHOOK_QUEUE_EVENTS_MAX as u64;
    (0..most).for_each(|seq| bench.push(seq, "one"));
    assert!(bench.dropped.is_empty() && bench.under_way() == [&[0]]);
    (most..most + 3).for_each(|seq| bench.push(seq, "one"));
    assert_eq!(bench.dropped, [1, 2, 3].map(|seq| (seq, DropReason::QueueFull)));
    bench.finish(0, true);
    assert_eq!(bench.under_way(), [&[4]]);

    let mut bench = Bench::new(false);
    let big = |seq| {
        let json = "x".repeat(WEBHOOK_QUEUE_BYTES_MAX / 3);
        Arc::new(EndpointEvent { seq, channel: "c".into(), at_ms: 0, json: json.into(), arrival: None })
    };
    (0..4).for_each(|seq| bench.act(|queue, now, out| queue.push(now, big(seq), out)));
    assert_eq!(bench.dropped, [(1, DropReason::QueueFull), (2, DropReason::QueueFull)]);
    assert!(bench.queue.bytes() <= WEBHOOK_QUEUE_BYTES_MAX);
}

/// An event of a channel that has come (or gone).
fn state(seq: u64, channel: &str, kind: &str) -> Arc<EndpointEvent> {
    let json = format!("{kind}\"channel\":\"{channel}\"}}");
    Arc::new(EndpointEvent { seq, channel: channel.into(), at_ms: 0, json: json.into(), arrival: None })
}

/// Pushes a flood around forty events of other channels, to an endpoint that takes nothing; says how many
/// of the forty are left.
fn left_of_forty(flood: impl Fn(u64) -> Arc<EndpointEvent>) -> usize {
    left_of_forty_named("genuine-", flood)
}

fn left_of_forty_named(name: &str, flood: impl Fn(u64) -> Arc<EndpointEvent>) -> usize {
    let mut bench = Bench::new(false);
    let most = 2 * WEBHOOK_QUEUE_EVENTS_MAX as u64;
    for seq in 0..most {
        let event = match seq % (most / 40) {
            17 => state(seq, &format!("{name}{seq}"), OCCUPIED),
            _ => flood(seq),
        };
        bench.act(|queue, now, out| queue.push(now, event, out));
    }
    assert!(bench.queue.len() <= WEBHOOK_QUEUE_EVENTS_MAX && bench.queue.bytes() <= WEBHOOK_QUEUE_BYTES_MAX);
    let (events, bytes) = (bench.queue.len(), bench.queue.bytes());
    let is_full = events >= WEBHOOK_QUEUE_EVENTS_MAX / 2 || bytes >= WEBHOOK_QUEUE_BYTES_MAX / 2;
    assert!(is_full, "no more is lost than must be");
    let lost = |(seq, _): &&(u64, DropReason)| seq % (most / 40) == 17;
    40 - bench.dropped.iter().filter(lost).count()
}

#[test]
fn a_flood_loses_its_own_events() {
    // One channel's.
    assert_eq!(left_of_forty(|seq| event(seq, "loud")), 40);
    // A few channels', with large events.
    let large = |seq: u64| {
        let (channel, json) = (format!("loud-{}", seq % 7), "x".repeat(20_000));
        Arc::new(EndpointEvent { seq, channel: channel.into(), at_ms: 0, json: json.into(), arrival: None })
    };
    assert_eq!(left_of_forty(large), 40);
    // Many channels that are occupied and vacated, a thousand at a time.
    let come_and_go = |seq: u64| {
        let (round, place) = (seq / 2000, seq % 1000);
        let kind = if seq % 2000 < 1000 { OCCUPIED } else { VACATED };
        state(seq, &format!("random-{round}-{place}"), kind)
    };
    assert_eq!(left_of_forty(come_and_go), 40);
}

/// With an app's public key alone, from as many connections as one likes.
#[test]
fn channels_that_anybody_holds_open_drop_nothing_of_signed_ones() {
    let open = |seq: u64| state(seq, &format!("open-{seq}"), OCCUPIED);
    for name in ["private-", "presence-", "private-encrypted-", "private-cache-"] {
        assert_eq!(left_of_forty_named(name, open), 40, "{name}");
    }
    let come_and_go = |seq: u64| {
        let kind = if seq % 2000 < 1000 { OCCUPIED } else { VACATED };
        state(seq, &format!("open-{}-{}", seq / 2000, seq % 1000), kind)
    };
    assert_eq!(left_of_forty_named("private-", come_and_go), 40);
    let heavy = |seq: u64| {
        let (channel, json) = (format!("open-{seq}"), "x".repeat(5_000));
        Arc::new(EndpointEvent { seq, channel: channel.into(), at_ms: 0, json: json.into(), arrival: None })
    };
    assert_eq!(left_of_forty_named("private-", heavy), 40);
    // Nor does who may open one signed channel drop what is public.
    assert_eq!(left_of_forty(|seq| event(seq, &format!("private-{seq}"))), 40);
}

#[test]
fn a_channel_that_came_and_went_unheard_is_lost_as_a_whole() {
    let mut bench = Bench::new(false);
    // Under way: the receiver may hear of it.
    for (seq, kind) in [(0, OCCUPIED), (1, VACATED)] {
        bench.act(|queue, now, out| queue.push(now, state(seq, "heard", kind), out));
    }
    for channel in 0..WEBHOOK_POSTS_MAX as u64 {
        bench.push(10 + channel, &format!("busy-{channel}"));
    }
    for (seq, channel, kind) in [
        (30, "back", OCCUPIED),
        (31, "gone", OCCUPIED),
        (32, "back", VACATED),
        (33, "gone", VACATED),
        (34, "back", OCCUPIED),
    ] {
        bench.act(|queue, now, out| queue.push(now, state(seq, channel, kind), out));
    }
    bench.push(35, "gone");
    let mut seq = 100;
    while bench.dropped.is_empty() {
        bench.push(seq, "other");
        seq += 1;
    }
    assert_eq!(bench.dropped, [31, 33, 35].map(|seq| (seq, DropReason::QueueFull)));
}

#[test]
fn a_batch_waits_a_moment_and_holds_events_in_their_order() {
    let mut bench = Bench::new(true);
    for (seq, channel) in [(1, "a"), (2, "b"), (3, "a")] {
        bench.push(seq, channel);
        assert!(bench.flights.is_empty());
    }
    bench.pass(Duration::from_millis(99));
    assert!(bench.flights.is_empty());
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.under_way(), [&[1, 2, 3]]);
    bench.push(4, "b");
    bench.push(5, "c");
    bench.pass(SECOND);
    assert_eq!(bench.under_way(), [&[1, 2, 3][..], &[5]]);
    // Both lanes wait by themselves then, since one of them may be to blame.
    bench.finish(0, false);
    bench.finish(0, true);
    bench.now += SECOND * 2;
    bench.push(6, "d");
    assert_eq!(bench.under_way(), [&[1, 3][..], &[2, 4], &[6]]);
    // A full one does not wait.
    let mut bench = Bench::new(true);
    (1..=250).for_each(|seq| bench.push(seq, &seq.to_string()));
    assert_eq!(bench.under_way().iter().map(|post| post.len()).collect::<Vec<_>>(), [100, 100]);
    bench.pass(SECOND);
    assert_eq!(bench.under_way().iter().map(|post| post.len()).sum::<usize>(), 250);
    assert!(Room::default().takes(1));
}

proptest! {
    /// Whatever the receiver does: every event is delivered or dropped once, those of a channel in their
    /// order, one post of a channel at a time, and a few posts in all.
    #[test]
    fn nothing_is_lost_doubled_or_out_of_order(
        batch: bool,
        steps in prop::collection::vec((0_u8..6, 0_u64..5, any::<prop::sample::Index>()), 1..300),
    ) {
        let mut bench = Bench::new(batch);
        let (mut pushed, mut channel_of) = (0, BTreeMap::new());
        let mut posted = BTreeMap::new();
        for (kind, channel, which) in steps {
            match kind {
                0 | 1 => {
                    channel_of.insert(pushed, channel);
                    bench.push(pushed, &channel.to_string());
                    pushed += 1;
                }
                2 => bench.pass(Duration::from_millis(channel * 50)),
                3 => bench.pass(SECOND * (channel * channel * 8) as u32),
                _ if !bench.flights.is_empty() => {
                    let at = which.index(bench.flights.len());
                    bench.finish(at, kind == 4);
                }
                _ => {}
            }
            prop_assert!(bench.flights.len() <= WEBHOOK_POSTS_MAX);
            let mut channels = BTreeSet::new();
            for (flight, events) in &bench.flights {
                prop_assert!(batch || events.len() == 1);
                let own: BTreeSet<u64> = events.iter().map(|seq| channel_of[seq]).collect();
                prop_assert!(own.iter().all(|channel| channels.insert(*channel)), "two posts of a channel");
                posted.insert(*flight, events.clone());
            }
        }
        // The receiver is well again.
        for _ in 0..2000 {
            while !bench.flights.is_empty() {
                bench.finish(0, true);
            }
            bench.pass(SECOND);
        }
        prop_assert_eq!((bench.queue.len(), bench.queue.bytes(), bench.queue.lanes.len()), (0, 0, 0));
        prop_assert!(bench.queue.deadlines.is_empty() && bench.queue.next().is_none());
        prop_assert_eq!((bench.queue.troubled, bench.queue.waiting.len(), bench.queue.ready.len()), (0, 0, 0));
        let mut all: Vec<u64> = bench.delivered.clone();
        all.extend(bench.dropped.iter().map(|(seq, _)| *seq));
        all.sort_unstable();
        prop_assert_eq!(all, (0..pushed).collect::<Vec<_>>());
        for channel in 0..5 {
            let own = bench.delivered.iter().filter(|seq| channel_of[seq] == channel);
            prop_assert!(own.clone().is_sorted());
        }
        prop_assert!(posted.values().all(|events| events.is_sorted()));
        // If the last one was given up, it fails until it has taken another one.
        let news = bench.news.iter().map(|news| matches!(news, HealthChange::Fails));
        prop_assert!(news.enumerate().all(|(at, fails)| fails == at.is_multiple_of(2)));
    }
}
