//! How many messages a client may send in a second.

/// Messages in the present second.
#[derive(Default)]
pub(crate) struct Rate {
    pub(super) second: u32,
    pub(super) count: u32,
}

/// What one may do at once, and how fast it comes back. Starts full.
#[derive(Default)]
pub(crate) struct Bucket {
    /// The second up to which it was filled; 0 before its first use.
    pub(super) second: u32,
    pub(super) left: u32,
}

impl Bucket {
    /// Takes so much, if it is there.
    pub(crate) fn take(&mut self, second: u32, cost: u32, per_second: u32, burst: u32) -> bool {
        let burst = burst.max(per_second);
        let passed = if self.second == 0 { u32::MAX } else { second.saturating_sub(self.second) };
        self.left = self.left.saturating_add(passed.saturating_mul(per_second)).min(burst);
        self.second = second.max(1);
        let fits = cost <= self.left;
        self.left -= if fits { cost } else { 0 };
        fits
    }
}

impl Rate {
    /// Counts a message; false if there were more than `max` in this second (0 is no limit).
    pub(crate) fn take(&mut self, second: u32, max: u32) -> bool {
        self.take_some(second, 1, max)
    }

    /// The same for several.
    pub(crate) fn take_some(&mut self, second: u32, count: u32, max: u32) -> bool {
        if max == 0 {
            return true;
        }
        if self.second != second {
            *self = Self { second, count: 0 };
        }
        self.count = self.count.saturating_add(count);
        self.count <= max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_starts_full_and_fills_by_the_second() {
        let mut bucket = Bucket::default();
        assert!(bucket.take(5, 30, 2, 30) && !bucket.take(5, 1, 2, 30));
        assert!(!bucket.take(6, 3, 2, 30) && bucket.take(6, 2, 2, 30));
        assert!(bucket.take(1000, 30, 2, 30) && !bucket.take(1000, 1, 2, 30), "no more than the burst");
    }
}
