//! Scripts that failed once.

pub fn all() -> bool {
    true
}
