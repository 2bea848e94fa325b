//! Detects that more than half of the gateways vanished at once. Pure.
//!
//! One gateway may fail; losing most of them within one lease means that a switch, a host or the register is
//! at fault, and that an operator should look before the cluster's load falls on the rest.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use broadgate_proto::{v1::View, view};

/// What has vanished within the last lease.
#[derive(Debug)]
pub(super) struct Alarm {
    lease: Duration,
    /// Gateways of the last view that had not announced leaving.
    staying: BTreeSet<String>,
    /// When how many vanished, of how many.
    vanished: VecDeque<(Duration, usize, usize)>,
}

impl Alarm {
    pub(super) const fn new(lease: Duration) -> Self {
        Self { lease, staying: BTreeSet::new(), vanished: VecDeque::new() }
    }

    /// A view was installed. True if by now more than half have vanished.
    pub(super) fn view(&mut self, view: &View, now: Duration) -> bool {
        let present: BTreeSet<&str> = view::gateways(view).map(|gateway| &*gateway.incarnation).collect();
        let vanished = self.staying.iter().filter(|known| !present.contains(known.as_str())).count();
        if vanished > 0 {
            self.vanished.push_back((now, vanished, self.staying.len()));
        }
        let staying = view::gateways(view).filter(|gateway| !view::goes(gateway));
        self.staying = staying.map(|gateway| gateway.incarnation.clone()).collect();
        self.is_on(now)
    }

    /// More than half of the gateways at the beginning of the last lease have vanished in it.
    pub(super) fn is_on(&mut self, now: Duration) -> bool {
        while self.vanished.front().is_some_and(|(since, ..)| now >= *since + self.lease) {
            self.vanished.pop_front();
        }
        let all: usize = self.vanished.iter().map(|(_, count, _)| count).sum();
        self.vanished.front().is_some_and(|(_, _, there_were)| 2 * all > *there_were)
    }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::{
        id::Incarnation,
        v1::{Member, MemberState, Role},
    };

    use super::*;

    fn of(ready: &[u64], draining: &[u64]) -> View {
        with(ready, draining, MemberState::Draining as i32)
    }

    fn with(ready: &[u64], going: &[u64], state: i32) -> View {
        let member = |bits: &u64, state: i32| Member {
            incarnation: Incarnation::from_bits(*bits).to_string(),
            role: Role::Gateway.into(),
            state,
            ..Member::default()
        };
        let members = ready.iter().map(|bits| member(bits, MemberState::Ready as i32));
        let going = going.iter().map(|bits| member(bits, state));
        View { members: members.chain(going).collect(), ..View::default() }
    }

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn most_of_them_at_once_is_an_alarm_and_a_rolling_restart_is_none() {
        let mut alarm = Alarm::new(secs(5));
        assert!(!alarm.view(&of(&[1, 2, 3, 4], &[]), secs(0)));
        assert!(!alarm.view(&of(&[2, 3, 4], &[]), secs(1)));
        assert!(!alarm.view(&of(&[3, 4], &[]), secs(2)), "half is not more than half");
        assert!(alarm.view(&of(&[4], &[]), secs(3)));
        assert!(alarm.is_on(secs(5)) && !alarm.is_on(secs(8)));
        alarm.view(&of(&[4], &[5, 6]), secs(20));
        assert!(!alarm.view(&of(&[4], &[]), secs(21)), "they had said that they would leave");
        alarm.view(&of(&[4, 7], &[]), secs(22));
        assert!(!alarm.view(&of(&[7], &[]), secs(23)));
        // They leave, or are in a state that a later version has.
        for (state, now) in [(MemberState::Leaving as i32, 40), (77, 50)] {
            alarm.view(&with(&[7], &[5, 6], state), secs(now));
            assert!(!alarm.view(&of(&[7], &[]), secs(now + 1)), "state {state}");
        }
    }
}
