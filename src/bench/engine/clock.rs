//! One clock for all: what one process stamps, another may read.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since the machine's start.
pub(crate) fn now_ns() -> u64 {
    ns(ClockId::Monotonic)
}

/// This process's own CPU time, user and system.
pub(crate) fn cpu_ns() -> u64 {
    ns(ClockId::ProcessCPUTime)
}

fn ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
