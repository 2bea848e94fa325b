//! What it has done, and what that has cost.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

/// One thread's; written by it alone.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) deliveries: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) echoes: AtomicU64,
    pub(super) accepted: AtomicU64,
}

pub(super) fn json(counts: &[Counts]) -> String {
    let sum = |count: fn(&Counts) -> &AtomicU64| -> u64 {
        counts.iter().map(|counts| count(counts).load(Ordering::Relaxed)).sum()
    };
    // User and system time of the process: getrusage's sum, with the scheduler's resolution.
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu_s = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    let deliveries = sum(|counts| &counts.deliveries);
    json!({
        "cpu_s": cpu_s, "deliveries": deliveries, "writes": sum(|counts| &counts.writes),
        "echoes": sum(|counts| &counts.echoes), "accepted": sum(|counts| &counts.accepted),
        "cpu_us_per_delivery": cpu_s * 1e6 / (deliveries.max(1)) as f64,
    })
    .to_string()
}
