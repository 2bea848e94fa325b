//! Does an endpoint take what it is sent? Pure.
//!
//! One that has refused several posts in a row is *down*: then one post at a time asks whether it is
//! back, so that nobody hammers on a receiver that struggles. Whatever it refuses on its own, while it
//! takes other events, does not count as that.

use std::time::Duration;

use broadgate_proto::limits::WEBHOOK_DOWN_FAILURES;

use super::retry::{self, Chance};

/// What an operator should hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HealthChange {
    /// It took everything until now.
    Fails,
    /// It takes everything again; so many events were given up in between.
    Works { given_up: u64 },
}

/// How an endpoint does.
#[derive(Debug, Default)]
pub(super) struct EndpointHealth {
    /// News have been told, and not yet that it is well again.
    failing: bool,
    given_up: u64,
    /// Posts that failed since the last one that did not.
    failures: u32,
    /// It is down, and is asked again at this moment.
    asked_at: Option<Duration>,
}

impl EndpointHealth {
    pub(super) fn asked_at(&self) -> Option<Duration> {
        self.asked_at
    }

    pub(super) fn is_down(&self) -> bool {
        self.asked_at.is_some()
    }

    /// A post has failed.
    pub(super) fn failed(&mut self, now: Duration, chance: &mut Chance) -> Option<HealthChange> {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= WEBHOOK_DOWN_FAILURES {
            let asked = self.failures - WEBHOOK_DOWN_FAILURES + 1;
            self.asked_at = Some(now + retry::wait(asked, chance));
        }
        (!std::mem::replace(&mut self.failing, true)).then_some(HealthChange::Fails)
    }

    /// A post has succeeded.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.asked_at = None;
    }

    /// Nothing waits for another attempt.
    pub(super) fn untroubled(&mut self) -> Option<HealthChange> {
        let given_up = std::mem::take(&mut self.given_up);
        std::mem::take(&mut self.failing).then_some(HealthChange::Works { given_up })
    }

    pub(super) fn gave_up(&mut self) {
        self.given_up += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_down_after_several_failures_in_a_row_and_said_to_fail_once() {
        let (mut health, mut chance) = (EndpointHealth::default(), Chance(1));
        let now = Duration::from_secs(100);
        assert_eq!(health.failed(now, &mut chance), Some(HealthChange::Fails));
        for _ in 2..WEBHOOK_DOWN_FAILURES {
            assert_eq!(health.failed(now, &mut chance), None);
        }
        health.succeeded();
        for _ in 1..WEBHOOK_DOWN_FAILURES {
            assert_eq!(health.failed(now, &mut chance), None);
            assert!(!health.is_down(), "the success has begun another row");
        }
        health.failed(now, &mut chance);
        let first = health.asked_at().unwrap();
        assert!(first > now && first <= now + Duration::from_secs(1));
        (0..9).for_each(|_| assert_eq!(health.failed(now, &mut chance), None));
        assert!(health.asked_at().unwrap() >= now + Duration::from_secs(30));
        health.gave_up();
        health.succeeded();
        assert!(!health.is_down());
        assert_eq!(
            (health.untroubled(), health.untroubled()),
            (Some(HealthChange::Works { given_up: 1 }), None)
        );
    }
}
