//! What a thread's clients have seen. Pure.

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What a number says to one who expects another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Next,
    /// So many before it are missing.
    Gap(u64),
    /// The one before, again.
    Doubled,
    Disordered,
}

/// A group's messages have every `step`th number.
pub(super) fn judge(expected: u64, number: u64, step: u64) -> Verdict {
    match number.cmp(&expected) {
        std::cmp::Ordering::Equal => Verdict::Next,
        std::cmp::Ordering::Greater => Verdict::Gap((number - expected) / step),
        std::cmp::Ordering::Less if number + step == expected => Verdict::Doubled,
        std::cmp::Ordering::Less => Verdict::Disordered,
    }
}

/// Counts of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) disordered: u64,
    /// Echoes that were not what was sent.
    pub(crate) wrong: u64,
    /// Closed by the server.
    pub(crate) closed: u64,
    /// Dials that failed and were retried.
    pub(crate) refused: u64,
    /// Those of them that were answered, but without a time to come back.
    pub(crate) refused_without_time: u64,
    #[serde(serialize_with = "write", deserialize_with = "read")]
    pub(crate) latency: Histogram<u64>,
}

fn histogram() -> Result<Histogram<u64>, hdrhistogram::errors::CreationError> {
    // Nanoseconds up to a minute, three digits.
    Histogram::new_with_bounds(1, 60_000_000_000, 3)
}

/// As values and how often each was.
fn write<S: Serializer>(histogram: &Histogram<u64>, to: S) -> Result<S::Ok, S::Error> {
    let values = histogram.iter_recorded();
    to.collect_seq(values.map(|value| (value.value_iterated_to(), value.count_at_value())))
}

fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Histogram<u64>, D::Error> {
    let mut histogram = histogram().map_err(D::Error::custom)?;
    for (value, count) in Vec::<(u64, u64)>::deserialize(from)? {
        histogram.saturating_record_n(value, count);
    }
    Ok(histogram)
}

impl Tally {
    pub(crate) fn new() -> Result<Self, hdrhistogram::errors::CreationError> {
        let latency = histogram()?;
        let (delivered, lost, doubled, disordered, wrong) = (0, 0, 0, 0, 0);
        let (closed, refused, refused_without_time) = (0, 0, 0);
        Ok(Self {
            delivered,
            lost,
            doubled,
            disordered,
            wrong,
            closed,
            refused,
            refused_without_time,
            latency,
        })
    }

    pub(super) fn count(&mut self, verdict: Verdict) {
        self.delivered += 1;
        match verdict {
            Verdict::Next => {}
            Verdict::Gap(missing) => self.lost += missing,
            Verdict::Doubled => self.doubled += 1,
            Verdict::Disordered => self.disordered += 1,
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.disordered += other.disordered;
        self.wrong += other.wrong;
        self.closed += other.closed;
        self.refused += other.refused;
        self.refused_without_time += other.refused_without_time;
        // Both have the same bounds.
        let _ = self.latency.add(&other.latency);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_tell_what_happened() {
        assert_eq!(judge(7, 7, 1), Verdict::Next);
        assert_eq!(judge(7, 9, 1), Verdict::Gap(2));
        assert_eq!(judge(7, 6, 1), Verdict::Doubled);
        assert_eq!(judge(7, 2, 1), Verdict::Disordered);
        assert_eq!(judge(30, 50, 10), Verdict::Gap(2));
        assert_eq!(judge(30, 20, 10), Verdict::Doubled);
    }
}
