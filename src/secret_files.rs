//! Whether others can use a file of secrets.

use std::{os::unix::fs::MetadataExt as _, path::Path};

/// A warning if others could write tokens of their own into the file.
pub(crate) fn writable_by_others(path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.mode() & 0o777;
    let path = path.display();
    (mode & 0o022 != 0).then(|| {
        format!("gateway.tokens_file: others can write tokens into {path} (mode {mode:o}): chmod go-w {path}")
    })
}

/// A warning about a file with a secret, if others can read it.
pub(crate) fn exposed(what: &str, path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    let us = rustix::process::geteuid().as_raw();
    is_exposed(metadata.mode(), metadata.uid(), us).then(|| {
        let (path, mode) = (path.display(), metadata.mode() & 0o777);
        format!("{what}: others can read the secret in {path} (mode {mode:o}): chmod 600 {path}")
    })
}

/// The group may read a file that belongs to somebody else: that is how a pod's process, which is not root, gets
/// its Secrets.
const fn is_exposed(mode: u32, owner: u32, us: u32) -> bool {
    let others = if owner == us { 0o077 } else { 0o007 };
    mode & others != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_may_read_only_what_belongs_to_somebody_else() {
        for (mode, owner, exposed) in [
            (0o100_600, 10001, false),
            (0o100_640, 10001, true),
            (0o100_644, 10001, true),
            (0o100_440, 0, false),
            (0o100_444, 0, true),
            (0o100_600, 0, false),
        ] {
            assert_eq!(is_exposed(mode, owner, 10001), exposed, "{mode:o} of {owner}");
        }
    }
}
