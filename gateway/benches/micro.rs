//! What the parts of a shard cost that every message goes through, in nanoseconds and in messages,
//! frames, clients or bytes per second. Sockets, clusters and whole messages are the business of
//! `broadgate bench`; whether a change made one of these slower shows in `instructions.rs`, also on a
//! machine that does other things.
//!
//! ```text
//! cargo bench -p broadgate-benches --features broadgate-benches/bench --bench micro             # all
//! cargo bench -p broadgate-benches --features broadgate-benches/bench --bench micro -- outbox   # some
//! cargo bench -p broadgate-benches --features broadgate-benches/bench --bench micro -- --test   # does each run at all?
//! ```

use std::time::Duration;

use broadgate_gateway::bench::{Fanout, Framing, Group, Message, RememberedSends};
use divan::{
    Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};

/// How long each is measured, if `--min-time` does not say otherwise.
const MIN_TIME: Duration = Duration::from_millis(500);
/// How often what takes less than a microsecond runs between two looks at the clock.
const SHORT: u32 = 100;

fn main() {
    divan::Divan::default().min_time(MIN_TIME).config_with_args().main();
}

/// A message becomes the frame that its clients share.
mod encoding {
    use super::*;

    #[divan::bench(args = [128, 10 * 1024], sample_size = SHORT)]
    fn text(bencher: Bencher<'_, '_>, bytes: usize) {
        let (framing, payload) = (Framing::websocket(), "x".repeat(bytes));
        bencher.counter(BytesCount::new(bytes)).bench_local(|| framing.text(black_box(&payload)));
    }

    /// Its data is JSON, as most is: its quotes are escaped again.
    #[divan::bench(sample_size = SHORT)]
    fn pusher_event(bencher: Bencher<'_, '_>) {
        let (framing, data) = (Framing::pusher(), r#"{"user":"7","text":"hello"}"#.repeat(4));
        bencher
            .counter(BytesCount::of_str(&data))
            .bench_local(|| framing.event("message", "presence-room-1", black_box(&data)));
    }
}

/// Eight frames for a thousand clients that share them. An item is one frame of one client.
mod outbox {
    use super::*;

    const CLIENTS: usize = 1000;
    const FRAMES: usize = 8;

    #[divan::bench]
    fn append_and_flush(bencher: Bencher<'_, '_>) {
        let messages: Vec<Message> = messages().collect();
        let mut fanout = Fanout::new(CLIENTS);
        bencher.counter(ItemsCount::new(CLIENTS * FRAMES)).bench_local(|| {
            fanout.push(black_box(&messages));
            fanout.flush()
        });
    }

    fn messages() -> impl Iterator<Item = Message> {
        let framing = Framing::websocket();
        (0..FRAMES).map(move |_| framing.text(&"x".repeat(128)))
    }
}

/// Whom a message to a group reaches, and what a group's changes cost. An item is one client.
mod group {
    use super::*;

    #[divan::bench(args = [1000, 10_000], sample_size = SHORT)]
    fn select(bencher: Bencher<'_, '_>, members: u32) {
        let mut group = Group::new(members, members);
        bencher.counter(ItemsCount::new(members)).bench_local(|| select_len(&mut group, &[]));
    }

    #[divan::bench(args = [1000, 10_000])]
    fn select_but_one(bencher: Bencher<'_, '_>, members: u32) {
        let mut group = Group::new(members, members);
        bencher.counter(ItemsCount::new(members)).bench_local(|| select_len(&mut group, black_box(&[7])));
    }

    fn select_len(group: &mut Group, except: &[u32]) -> usize {
        black_box(black_box(group).select(except)).len()
    }

    /// A turn in which a hundred clients join a group of ten thousand, one in which they leave it again,
    /// and the membership changes after each.
    #[divan::bench]
    fn join_and_part(bencher: Bencher<'_, '_>) {
        const MEMBERS: u32 = 10_000;
        const COMERS: u32 = 100;
        let mut group = Group::new(MEMBERS + COMERS, MEMBERS);
        let comers = MEMBERS..MEMBERS + COMERS;
        bencher.counter(ItemsCount::new(COMERS)).bench_local(|| {
            comers.clone().for_each(|client| assert!(group.join(client)));
            let joined = group.take_changes();
            comers.clone().for_each(|client| assert!(group.part(client)));
            joined + group.take_changes()
        });
    }
}

/// What operators may ask about later.
mod recorder {
    use super::*;

    /// Once for each command and shard, however many clients get it.
    #[divan::bench(sample_size = SHORT)]
    fn remember_send(bencher: Bencher<'_, '_>) {
        let mut sends = RememberedSends::new();
        bencher.counter(ItemsCount::new(1_usize)).bench_local(|| sends.send());
    }
}
