//! How long commands take, by call.

use std::time::Duration;

use metrics::{Histogram, histogram};

use crate::{
    command::{CALLS, call},
    dispatch::in_flight::Placing,
};

/// A histogram for each call.
pub(crate) struct Latencies([Histogram; CALLS.len()]);

impl Latencies {
    pub(crate) fn new() -> Self {
        Self(CALLS.map(|call| histogram!("broadgate_gateway_commands_seconds", "call" => call)))
    }

    /// A batch is answered after so long. Its commands are answered together, so each call that is in it counts
    /// once.
    pub(super) fn record(&self, calls: Calls, time: Duration) {
        for (index, histogram) in self.0.iter().enumerate() {
            if calls.0 & 1 << index != 0 {
                histogram.record(time);
            }
        }
    }
}

/// The calls in a batch: a bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Calls(u32);

const _: () = assert!(CALLS.len() <= u32::BITS as usize);

impl Calls {
    pub(super) fn of(placings: &[Placing]) -> Self {
        Self(placings.iter().fold(0, |calls, placing| {
            calls | placing.parsed.as_ref().map_or(0, |parsed| 1 << call(parsed.inner()))
        }))
    }
}
