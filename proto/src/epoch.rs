//! How epochs compare: the term first, then the count.

use std::{cmp::Ordering, fmt};

use crate::v1::Epoch;

impl Epoch {
    /// The epoch of a term's count.
    #[must_use]
    pub const fn new(term: u64, count: u64) -> Self {
        Self { term, count }
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
    fn a_term_outweighs_every_count() {
        assert!(Epoch::new(2, 0) > Epoch::new(1, u64::MAX));
        assert!(Epoch::new(2, 1) > Epoch::new(2, 0));
        assert_eq!(Epoch::new(3, 7).to_string(), "3.7");
        assert_eq!("3.7".parse(), Ok(Epoch::new(3, 7)));
        assert!(["", "3", "3.", "x.7", "-1.2"].iter().all(|text| text.parse::<Epoch>().is_err()));
    }
}
