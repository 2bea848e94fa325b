//! Whether others can read a file of secrets.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

/// A warning about a file with a secret, if others than its owner can read it.
pub(crate) fn exposed(what: &str, path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o077 != 0).then(|| {
        let path = path.display();
        format!("{what}: others can read the secret in {path} (mode {:o}): chmod 600 {path}", mode & 0o777)
    })
}
