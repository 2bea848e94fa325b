//! The instructions of the hottest paths of a gateway, counted by valgrind. Unlike a time, a count is the
//! same however busy the machine is, so a few per cent more are a few per cent more work.
//!
//! ```text
//! gateway/benches/check-instructions           # fails if a count is above its figure
//! gateway/benches/check-instructions --renew   # the present counts become the figures
//! ```
//!
//! The figures and the tolerance are in `gateway/benches/instructions.json`; a commit that renews them says
//! why they have changed. What is counted is one call of a function whose name begins with `counted_`, with
//! everything that it calls. Its input was made and used once before, so that nothing grows while it is
//! counted, and is dropped afterwards.
//!
//! Run with the name of a benchmark it runs that one; without a name it prints the names.

use std::{hint::black_box, process::ExitCode};

use broadgate_gateway::bench::{Connected, Counted, Fanout, Framing, Group, Message, Orders, Polled};

const PAYLOAD_BYTES: usize = 128;
const CLIENTS: u32 = 1000;
/// Clients with sockets.
const SOCKETS: usize = 100;
/// Commands that are carried out, or counted.
const COMMANDS: usize = 8;
const COUNTED: usize = 1000;
/// Sends that a shard remembers: few, so that each displaces another.
const REMEMBERED: usize = 16;
/// Groups of a shard that is asked how it is.
const FEW_GROUPS: u32 = 10;
const MANY_GROUPS: u32 = 100_000;

/// Each benchmark, by its name.
const BENCHMARKS: [(&str, fn()); 15] = [
    ("append_and_flush_1000 frames_8", append_and_flush),
    ("place_and_write_100 frames_8", || place_and_write(false)),
    ("place_and_write_100 others_tapped", || place_and_write(true)),
    ("execute_8 clients_100 forgotten", || execute(0)),
    ("execute_8 clients_100 remembered", || execute(REMEMBERED)),
    ("count_1000 one_by_one", || count(1)),
    ("count_1000 batches_of_100", || count(100)),
    ("select_1000 uncounted", select_uncounted),
    ("select_1000 all", || select(&[])),
    ("select_1000 all_but_one", || select(&[7])),
    ("frame_1000 bytes_128", frame),
    ("stats groups_10", || stats(FEW_GROUPS)),
    ("stats groups_100000", || stats(MANY_GROUPS)),
    ("page_10 groups_10", || page(FEW_GROUPS)),
    ("page_10 groups_100000", || page(MANY_GROUPS)),
];

fn main() -> ExitCode {
    // `cargo bench` passes --bench.
    let names: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if names.is_empty() {
        BENCHMARKS.iter().for_each(|(name, _)| println!("{name}"));
    }
    for name in names {
        let Some((_, run)) = BENCHMARKS.iter().find(|(known, _)| *known == name) else {
            eprintln!("there is no benchmark {name:?}: run without arguments for their names");
            return ExitCode::from(2);
        };
        run();
    }
    ExitCode::SUCCESS
}

fn payload() -> String {
    "x".repeat(PAYLOAD_BYTES)
}

fn append_and_flush() {
    let messages = (0..8).map(|_| Framing::websocket().text(&payload())).collect::<Vec<_>>();
    let mut fanout = Fanout::new(CLIENTS as usize);
    fanout.push(&messages);
    fanout.flush();
    black_box(counted_append_and_flush(&mut fanout, &messages));
}

/// Frames are appended to each of a thousand outboxes, then every outbox is emptied.
#[inline(never)]
fn counted_append_and_flush(fanout: &mut Fanout, messages: &[Message]) -> usize {
    fanout.push(black_box(messages));
    fanout.flush()
}

fn place_and_write(tapped: bool) {
    let messages = (0..COMMANDS).map(|_| Framing::websocket().text(&payload())).collect::<Vec<_>>();
    let mut connected = Connected::new(SOCKETS, REMEMBERED, tapped);
    connected.place(&messages);
    connected.flush();
    assert_eq!(counted_place_and_write(&mut connected, &messages), COMMANDS * SOCKETS);
}

/// Frames are placed for each of a hundred clients that nobody taps, then each socket is written to: with all that a
/// shard asks and counts about it, such as whether the client is tapped.
#[inline(never)]
fn counted_place_and_write(connected: &mut Connected, messages: &[Message]) -> usize {
    let placed = connected.place(black_box(messages));
    connected.flush();
    placed
}

fn execute(remembered: usize) {
    let mut connected = Connected::new(SOCKETS, remembered, false);
    for _ in 0..4 {
        let before = connected.orders(COMMANDS);
        connected.execute(&before);
        connected.flush();
    }
    let orders = connected.orders(COMMANDS);
    assert_eq!(counted_execute(&mut connected, &orders), (COMMANDS * SOCKETS) as u64);
}

/// Commands to a group of a hundred clients are carried out, and remembered.
#[inline(never)]
fn counted_execute(connected: &mut Connected, orders: &Orders) -> u64 {
    connected.execute(black_box(orders))
}

fn count(batch: usize) {
    let counted = Counted::new();
    counted.count(COUNTED, batch);
    counted_count(&counted, batch);
}

/// Commands are counted for their caller, as they come in.
#[inline(never)]
fn counted_count(counted: &Counted, batch: usize) {
    black_box(counted).count(COUNTED, batch);
}

fn select_uncounted() {
    let mut group = Group::new(CLIENTS, CLIENTS);
    group.select_uncounted();
    black_box(counted_select_uncounted(&mut group));
}

/// The same clients as one uid's, for which nothing is counted.
#[inline(never)]
fn counted_select_uncounted(group: &mut Group) -> usize {
    black_box(group.select_uncounted()).len()
}

fn select(except: &[u32]) {
    let mut group = Group::new(CLIENTS, CLIENTS);
    group.select(&[]);
    group.select(&[0]);
    black_box(counted_select(&mut group, except));
}

/// The clients that a message to a group reaches: all as a rule, and all but those excepted.
#[inline(never)]
fn counted_select(group: &mut Group, except: &[u32]) -> usize {
    black_box(group.select(black_box(except))).len()
}

fn frame() {
    counted_frame(&Framing::websocket(), &payload());
}

/// A thousand times a message becomes a frame, which is dropped again.
#[inline(never)]
fn counted_frame(framing: &Framing, payload: &str) {
    for _ in 0..1000 {
        drop(black_box(framing.text(black_box(payload))));
    }
}

fn stats(groups: u32) {
    let polled = Polled::new(groups);
    polled.stats();
    black_box(counted_stats(&polled));
}

/// What is polled by screens: it costs the same however much there is.
#[inline(never)]
fn counted_stats(polled: &Polled) -> u64 {
    black_box(polled).stats()
}

fn page(groups: u32) {
    let polled = Polled::new(groups);
    polled.page(10);
    black_box(counted_page(&polled));
}

/// The first ten groups: it costs what is on the page, and finding where that begins.
#[inline(never)]
fn counted_page(polled: &Polled) -> usize {
    black_box(polled).page(10)
}
