//! The instructions of the three hottest paths of a gateway, counted by valgrind. Unlike a time, a count
//! is the same however much else the machine does, so a few per cent more are a few per cent more work.
//!
//! ```text
//! gateway/benches/check-instructions           # fails if a count is above its figure
//! gateway/benches/check-instructions --renew   # the present counts become the figures
//! ```
//!
//! The figures and the tolerance are in `gateway/benches/instructions.json`; whoever renews them says in
//! the commit why they have changed. What is counted is the body of each function below, everything that
//! it calls included. What it works on was made before and has been used once, so that nothing grows
//! while it is counted; it is dropped afterwards.

#![allow(missing_docs, reason = "of what gungraun's macros make")]

use std::hint::black_box;

use broadgate_gateway::bench::{Fanout, Framing, Group, Message};
use gungraun::{Callgrind, prelude::*};

const PAYLOAD_BYTES: usize = 128;
const CLIENTS: usize = 1000;

fn payload() -> String {
    "x".repeat(PAYLOAD_BYTES)
}

fn fanout(frames: usize) -> (Fanout, Vec<Message>) {
    let messages = (0..frames).map(|_| Framing::websocket().text(&payload())).collect::<Vec<_>>();
    let mut fanout = Fanout::new(CLIENTS);
    fanout.push(&messages);
    fanout.flush();
    (fanout, messages)
}

// Frames are appended to each of a thousand outboxes, then every outbox is emptied.
#[library_benchmark]
#[bench::frames_8(fanout(8))]
fn append_and_flush_1000((mut fanout, messages): (Fanout, Vec<Message>)) -> (usize, Fanout, Vec<Message>) {
    fanout.push(black_box(&messages));
    (fanout.flush(), fanout, messages)
}

fn group(members: u32) -> Group {
    let mut group = Group::new(members, members);
    group.select(&[]);
    group.select(&[0]);
    group
}

// Whom a message to a group reaches: as it comes mostly, and when somebody is left out.
#[library_benchmark]
#[bench::all(group(1000), &[])]
#[bench::all_but_one(group(1000), &[7])]
fn select_1000(mut group: Group, except: &[u32]) -> (usize, Group) {
    (black_box(group.select(black_box(except))).len(), group)
}

// A thousand times a message becomes a frame, which is dropped again.
#[library_benchmark]
#[bench::bytes_128(Framing::websocket(), payload())]
fn frame_1000(framing: Framing, payload: String) -> (Framing, String) {
    for _ in 0..1000 {
        drop(black_box(framing.text(black_box(&payload))));
    }
    (framing, payload)
}

library_benchmark_group!(name = hottest, benchmarks = [append_and_flush_1000, select_1000, frame_1000]);

main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"])),
    library_benchmark_groups = hottest
);
