//! Randomness of a member.

/// 64 bits that nobody can guess.
pub(super) fn random() -> Result<u64, getrandom::Error> {
    getrandom::u64()
}
