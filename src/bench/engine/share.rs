//! Which part of the load a process is.

use std::str::FromStr;

/// Which part this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) index: usize,
    pub(crate) count: usize,
    /// What the groups of all parts are named by.
    pub(crate) run: u32,
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<u32>, _> = text.split('/').map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[index, count, run]) if index < count => {
                Ok(Self { index: index as usize, count: count as usize, run })
            }
            _ => Err("INDEX/COUNT/RUN is meant".to_owned()),
        }
    }
}
