//! What one load has read.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hasher as _},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use broadgate_tasks::bounded_read::{self, ReadableKind};

use crate::validity::Validity;

/// Records which files a load reads, what was in them, and when the certificates in them expire. Files are
/// compared by content: one of the same length may be written within one tick of the clock.
#[derive(Debug, Clone, Default)]
pub struct FileReads {
    /// A hash of each file's content; none if it could not be read.
    files: BTreeMap<PathBuf, Option<u64>>,
    expiries: BTreeMap<PathBuf, SystemTime>,
}

impl FileReads {
    /// Reads a file and remembers what was in it.
    ///
    /// # Errors
    /// If it cannot be read, is not a regular file, or is not read in time.
    pub fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let read = bounded_read::read(path, ReadableKind::Regular);
        self.files.insert(path.to_owned(), read.as_ref().ok().map(|bytes| hash(bytes)));
        read
    }

    /// Records that a certificate of this file is valid for this time; the one that expires first counts.
    pub(crate) fn is_valid(&mut self, path: &Path, validity: Validity) {
        let until = self.expiries.entry(path.to_owned()).or_insert(validity.until);
        *until = validity.until.min(*until);
    }

    /// When the first certificate of each file expires.
    pub fn expiries(&self) -> impl Iterator<Item = (&Path, SystemTime)> {
        self.expiries.iter().map(|(path, until)| (path.as_path(), *until))
    }

    /// How the same files look now.
    pub(crate) fn again(&self) -> Self {
        let mut now = Self::default();
        for path in self.files.keys() {
            // What cannot be read is remembered as such.
            let _ = now.read(path);
        }
        now
    }

    /// Whether the same files have the same content.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.files == other.files
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
