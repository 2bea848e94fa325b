//! When to look at each client again, to the second. Pure.

/// Entries that are due within this many seconds; later ones are looked at early and put back.
const SECONDS: u32 = 128;

/// One list per second. An entry may be of a client that has gone: who takes it out checks.
pub(crate) struct Wheel<T> {
    lists: Vec<Vec<T>>,
    /// Everything before this second was taken out.
    now: u32,
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        Self { lists: (0..SECONDS).map(|_| Vec::new()).collect(), now: 0 }
    }
}

impl<T> Wheel<T> {
    /// Look at this again at second `at`, or earlier if that is far off.
    pub(crate) fn put(&mut self, at: u32, entry: T) {
        let at = at.clamp(self.now + 1, self.now + SECONDS - 1);
        self.lists[(at % SECONDS) as usize].push(entry);
    }

    /// All that is due by second `now`.
    pub(crate) fn due(&mut self, now: u32) -> Vec<T> {
        let mut due = Vec::new();
        let behind = now.saturating_sub(self.now).min(SECONDS);
        for second in now + 1 - behind..=now {
            due.append(&mut std::mem::take(&mut self.lists[(second % SECONDS) as usize]));
        }
        self.now = self.now.max(now);
        due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_is_late_and_nothing_is_lost(
            puts in prop::collection::vec((0..60u32, 0..300u32), 0..50),
            strides in prop::collection::vec(1..200u32, 1..20),
        ) {
            let mut wheel = Wheel::default();
            for &(_, at) in &puts {
                wheel.put(at, at);
            }
            let mut now = 0;
            let mut seen = 0;
            for stride in strides {
                now += stride;
                for at in wheel.due(now) {
                    if at > now {
                        wheel.put(at, at);
                    } else {
                        seen += 1;
                    }
                }
                let due = puts.iter().filter(|&&(_, at)| at <= now).count();
                prop_assert_eq!(seen, due);
            }
        }
    }
}
