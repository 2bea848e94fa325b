//! Which register next, and after how long. Pure: randomness is passed in.

use std::time::Duration;

use broadgate_proto::limits::LEASE;

/// The longest wait within a round, and after one failed round.
const WAIT_FIRST: Duration = Duration::from_millis(100);
/// The longest wait ever: a register that is back is found within this.
const WAIT_MAX: Duration = Duration::from_secs(2);
// A register that has just begun to lead removes nobody for one lease. Until then a member that waits has found it,
// also when it tries a dead one and one that stands by before.
const _: () = assert!(WAIT_MAX.as_millis() + 3 * WAIT_FIRST.as_millis() < LEASE.as_millis() / 2);

/// A member's way through the registers it was given, and the one that it was referred to.
#[derive(Debug, Clone)]
pub struct Redial {
    registers: Vec<String>,
    /// So many were given; one more was learned.
    given: usize,
    at: usize,
    /// Rounds through all registers since one was last heard.
    rounds: u32,
    /// Dials since the last long wait.
    tried: usize,
    dialed: bool,
}

impl Redial {
    /// Begins with the first one.
    #[must_use]
    pub const fn new(registers: Vec<String>) -> Self {
        let given = registers.len();
        Self { registers, given, at: 0, rounds: 0, tried: 0, dialed: false }
    }

    /// Those given, and the one learned.
    #[must_use]
    pub fn all(&self) -> &[String] {
        &self.registers
    }

    /// Was it among those given?
    #[must_use]
    pub fn is_given(&self, register: &str) -> bool {
        self.registers[..self.given].iter().any(|one| one == register)
    }

    /// The register whose turn it is.
    #[must_use]
    pub fn target(&self) -> &str {
        self.registers.get(self.at).map_or("", String::as_str)
    }

    /// How long to wait before dialing it: a random part of a growing bound, so that the members
    /// of a register that is back do not all arrive at once. The wait is short while not all of them were tried
    /// since the last long one. The first dial of all is immediate.
    pub fn wait(&mut self, random: u64) -> Duration {
        self.tried += 1;
        if !std::mem::replace(&mut self.dialed, true) {
            return Duration::ZERO;
        }
        let rounds = if self.tried > self.registers.len() { self.rounds } else { 0 };
        if self.tried > self.registers.len() {
            self.tried = 1;
        }
        let bound = WAIT_FIRST.saturating_mul(1 << rounds.min(10)).min(WAIT_MAX);
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(random % (micros + 1))
    }

    /// A register took the member in: if the stream breaks, the same one is tried first, since a
    /// broken connection is more likely than a dead register, and members should stay together.
    pub const fn heard(&mut self) {
        self.rounds = 0;
        self.tried = 0;
    }

    /// This one is to be tried next.
    pub fn aim(&mut self, register: &str) {
        self.at = self.registers.iter().position(|one| one == register).unwrap_or(self.at);
        self.rounds = 0;
    }

    /// A register that has stepped down names this one, which takes the place of one named before.
    pub fn refer(&mut self, register: &str) {
        // Several registers behind one address: waits grow until the right one answers.
        if self.target() == register {
            return self.next();
        }
        if !self.registers.iter().any(|one| one == register) {
            self.registers.truncate(self.given);
            self.registers.push(register.to_owned());
        }
        self.at = self.registers.iter().position(|one| one == register).unwrap_or(0);
    }

    /// Has every register been tried since one was heard?
    #[must_use]
    pub const fn all_failed(&self) -> bool {
        self.rounds > 0
    }

    /// The register did not take the member in, or should not be followed: the next one's turn.
    pub const fn next(&mut self) {
        self.at += 1;
        if self.at >= self.registers.len() {
            self.at = 0;
            self.rounds = self.rounds.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn two() -> Redial {
        Redial::new(vec!["a:1".into(), "b:1".into()])
    }

    #[test]
    fn registers_take_turns_and_a_heard_one_is_tried_again_first() {
        let mut redial = two();
        assert_eq!(redial.wait(u64::MAX), Duration::ZERO);
        assert_eq!(redial.target(), "a:1");
        redial.next();
        assert_eq!(redial.target(), "b:1");
        redial.heard();
        assert_eq!(redial.target(), "b:1");
        redial.next();
        assert_eq!(redial.target(), "a:1");
        assert_eq!(Redial::new(Vec::new()).target(), "");
    }

    #[test]
    fn referred_register_is_tried_next_and_only_one_is_kept() {
        let mut redial = Redial::new(vec!["a:1".into()]);
        redial.refer("b:1");
        assert_eq!((redial.target(), redial.is_given("b:1")), ("b:1", false));
        redial.next();
        assert_eq!(redial.target(), "a:1");
        redial.refer("c:1");
        assert_eq!((redial.target(), redial.all().len()), ("c:1", 2));
        // It refers to itself: another register may be behind its address.
        redial.refer("c:1");
        assert!(redial.all_failed() && redial.target() == "a:1");
        redial.refer("a:1");
        assert_eq!(redial.target(), "c:1");
    }

    #[test]
    fn leader_is_found_with_one_long_wait_whatever_is_tried_before() {
        // The third leads, the second stands by and names it, the first is dead.
        for begun in 0..20 {
            let mut redial = Redial::new(vec!["a:1".into(), "b:1".into(), "c:1".into()]);
            for _ in 0..begun {
                redial.wait(0);
                redial.next();
            }
            let mut waited = Duration::ZERO;
            loop {
                // The longest wait that there is.
                let mut longest = redial.clone();
                waited += (0..100).map(|part| longest.clone().wait(part * 20_001)).max().unwrap();
                longest.wait(0);
                redial = longest;
                match redial.target() {
                    "a:1" => redial.next(),
                    "b:1" => redial.refer("c:1"),
                    _ => break,
                }
            }
            assert!(waited <= WAIT_MAX + 3 * WAIT_FIRST, "{begun}: {waited:?}");
        }
    }

    proptest! {
        #[test]
        fn waits_grow_to_their_bound_and_start_over(fails in 0..10_000_u32, random: u64) {
            let mut redial = two();
            redial.wait(0);
            for _ in 0..fails {
                redial.next();
            }
            prop_assert!(redial.wait(random) <= WAIT_MAX);
            redial.heard();
            prop_assert!(redial.wait(random) <= WAIT_FIRST);
        }
    }
}
