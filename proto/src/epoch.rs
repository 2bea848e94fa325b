//! The order of epochs: the term first, then the count.

use std::{cmp::Ordering, fmt};

use crate::{
    limits::{TERM_FIRST_MAX, TERM_LEAP_MAX, TERM_MAX, TERM_STEP},
    v1::Epoch,
};

impl Epoch {
    /// The epoch of a term's count.
    #[must_use]
    pub const fn new(term: u64, count: u64) -> Self {
        Self { term, count }
    }

    /// Whether a process that knows this term may believe a report of this epoch. Registers make terms in
    /// small steps, so a term far above the known one is a false report, and following it would use up the
    /// terms. Terms below [`TERM_STEP`] are those of registers that have not heard from a cluster.
    #[must_use]
    pub fn is_credible(self, known_term: u64) -> bool {
        let highest =
            if known_term < TERM_STEP { TERM_FIRST_MAX } else { known_term.saturating_add(TERM_LEAP_MAX) };
        self.is_possible() && self.term <= highest
    }

    /// Whether its term is one that registers make.
    #[must_use]
    pub fn is_possible(self) -> bool {
        (1..=TERM_MAX).contains(&self.term)
    }
}

impl PartialOrd for Epoch {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Epoch {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.term, self.count).cmp(&(other.term, other.count))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.count)
    }
}

impl std::str::FromStr for Epoch {
    type Err = ();

    /// From `TERM.COUNT`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (term, count) = text.split_once('.').ok_or(())?;
        Ok(Self::new(term.parse().map_err(drop)?, count.parse().map_err(drop)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn term_far_above_the_known_one_is_not_credible() {
        let believed = |known: u64, term: u64| Epoch::new(term, 1).is_credible(known);
        let living = 3 * TERM_STEP + 7;
        assert!(believed(living, 2 * TERM_STEP) && believed(living, 900 * TERM_STEP));
        assert!(!believed(living, (1 << 48) - 1) && !believed(living, living + TERM_LEAP_MAX + 1));
        assert!(believed(0, living) && believed(TERM_STEP - 1, TERM_FIRST_MAX));
        for known in [0, 7, living, TERM_MAX] {
            assert!(!believed(known, 0) && !believed(known, u64::MAX) && !believed(known, TERM_MAX + 1));
        }
    }

    #[test]
    fn a_term_outweighs_every_count() {
        assert!(Epoch::new(2, 0) > Epoch::new(1, u64::MAX));
        assert!(Epoch::new(2, 1) > Epoch::new(2, 0));
        assert_eq!(Epoch::new(3, 7).to_string(), "3.7");
        assert_eq!("3.7".parse(), Ok(Epoch::new(3, 7)));
        assert!(["", "3", "3.", "x.7", "-1.2"].iter().all(|text| text.parse::<Epoch>().is_err()));
    }
}
