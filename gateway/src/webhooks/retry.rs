//! How long a failed post waits for its next attempt. Pure.

use std::time::Duration;

use broadgate_proto::limits::{WEBHOOK_RETRY_WAIT_MAX, WEBHOOK_RETRY_WAIT_MIN};

/// The wait after so many failures in a row: twice as long each time, and by chance up to a half
/// shorter, so that what failed together does not come back together.
pub(super) fn wait(failures: u32, chance: &mut Chance) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let longest = WEBHOOK_RETRY_WAIT_MIN.saturating_mul(doubled).min(WEBHOOK_RETRY_WAIT_MAX);
    let half = longest / 2;
    half + half.mul_f64(chance.fraction())
}

/// Numbers by chance from a seed (splitmix64), so that a seed replays a test.
#[derive(Debug)]
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_differ() {
        let mut chance = Chance(7);
        for (failures, longest) in
            [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (31, 60), (32, 60), (u32::MAX, 60)]
        {
            let longest = Duration::from_secs(longest);
            let waits: Vec<_> = (0..100).map(|_| wait(failures, &mut chance)).collect();
            assert!(
                waits.iter().all(|wait| *wait >= longest / 2 && *wait <= longest),
                "{failures}: {waits:?}"
            );
            assert!(waits.iter().any(|wait| *wait != waits[0]));
        }
    }
}
