//! What commands share that print until they are stopped.

use std::time::Duration;

use broadgate_business::{CommandError, cluster::Refusal};

use crate::failure::Failure;

/// Runs a command that prints until it ends, or is interrupted: then it has done what it was asked.
pub(super) async fn until_interrupted(
    printing: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    tokio::select! {
        ended = printing => ended,
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

/// Whether asking again would not help.
pub(super) fn is_final(error: &CommandError) -> bool {
    use Refusal::{Denied, Invalid, Unauthenticated, Unknown};
    matches!(error.refusal(), Some(Invalid | Unknown | Unauthenticated | Denied))
}

/// "12:04:07.113", by UTC.
pub(super) fn time_of_day(at_ms: u64) -> String {
    let (seconds, ms) = (at_ms / 1000 % 86_400, at_ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// "18 ms", "0.2 ms", "1.4 s".
pub(super) fn short_time(micros: u64) -> String {
    let time = Duration::from_micros(micros);
    match micros {
        0..10_000 => format!("{:.1} ms", time.as_secs_f64() * 1000.0),
        10_000..1_000_000 => format!("{} ms", time.as_millis()),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// The end of an id, by which a person tells it from others.
pub(super) fn short_id(id: &str) -> String {
    match id.char_indices().rev().nth(3) {
        Some((start, _)) if start > 0 => format!("..{}", &id[start..]),
        _ => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_ids_are_short() {
        assert_eq!(time_of_day(86_400_000 + 43_447_113), "12:04:07.113");
        assert_eq!([180, 18_000, 1_400_000].map(short_time), ["0.2 ms", "18 ms", "1.4 s"]);
        assert_eq!([short_id("4uaa-x-k0im"), short_id("k0im"), short_id("")], ["..k0im", "k0im", ""]);
    }
}
