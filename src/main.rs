//! broadgate
fn main() {}
