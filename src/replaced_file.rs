//! Files that commands write: replaced as a whole, so that a full disk or an interrupted command leaves the former
//! one, and by one command at a time.

use std::{
    fs::{DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError},
    io::{Error, ErrorKind, Result, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A command holds the lock for as long as it reads and writes a small file.
const LOCK_TIME_MAX: Duration = Duration::from_secs(10);
const LOCK_AGAIN: Duration = Duration::from_millis(10);

/// Replaces a file with what only its owner may read. A link is followed: what it leads to is replaced.
pub(crate) fn replace(path: &Path, text: &str) -> Result<()> {
    replace_as(&followed(path)?, text, None)
}

/// The same for a file that another user's process reads: one that was there keeps its owner, its group and its mode.
pub(crate) fn replace_alike(path: &Path, text: &str) -> Result<()> {
    let path = followed(path)?;
    replace_as(&path, text, std::fs::metadata(&path).ok())
}

fn replace_as(path: &Path, text: &str, former: Option<Metadata>) -> Result<()> {
    make_folder(path)?;
    let beside = beside(path, &std::process::id().to_string());
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        if let Some(former) = &former {
            // Before the mode, which a change of the owner may reset.
            fchown(&file, Some(former.uid()), Some(former.gid()))?;
            file.set_permissions(Permissions::from_mode(former.mode() & 0o777))?;
        }
        file.sync_all()?;
        std::fs::rename(&beside, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

/// Waits until no other command changes this file. The lock ends with the value, or with the process.
pub(crate) fn lock(path: &Path) -> Result<File> {
    let path = followed(path)?;
    make_folder(&path)?;
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(beside(&path, "lock"))?;
    let until = Instant::now() + LOCK_TIME_MAX;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                return Err(Error::new(
                    ErrorKind::TimedOut,
                    "another command has been changing it for 10 s: end it",
                ));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_AGAIN),
        }
    }
}

/// Where the file itself is, or will be.
fn followed(path: &Path) -> Result<PathBuf> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => std::fs::canonicalize(path),
        Ok(found) if !found.is_file() => Err(Error::new(ErrorKind::InvalidInput, "it is no regular file")),
        _ => Ok(path.to_owned()),
    }
}

fn make_folder(path: &Path) -> Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => DirBuilder::new().recursive(true).mode(0o700).create(folder),
        None => Ok(()),
    }
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{what}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn file_is_replaced_as_a_whole_and_links_stay() {
        let dir = std::env::temp_dir().join(format!("broadgate-replaced-{}", std::process::id()));
        let (real, link) = (dir.join("real/clusters.toml"), dir.join("link.toml"));
        replace(&real, "one").unwrap();
        symlink(&real, &link).unwrap();
        replace(&link, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&real).unwrap(), "two");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600);
        // Of a file that others read, who may is kept.
        std::fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
        replace_alike(&real, "two and a half").unwrap();
        assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
        // Nowhere to write: the former file is as it was, and nothing is left beside it.
        let dangling = dir.join("dangling.toml");
        symlink(dir.join("none/x.toml"), &dangling).unwrap();
        assert!(replace(&dangling, "three").is_err() && replace(&dir.join("real"), "four").is_err());
        assert_eq!(std::fs::read_dir(dir.join("real")).unwrap().count(), 1);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn changes_wait_for_each_other() {
        let dir = std::env::temp_dir().join(format!("broadgate-lock-{}", std::process::id()));
        let path = dir.join("count");
        replace(&path, "0").unwrap();
        std::thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| {
                    for _ in 0..5 {
                        let _lock = lock(&path).unwrap();
                        let count: u32 = std::fs::read_to_string(&path).unwrap().parse().unwrap();
                        replace(&path, &(count + 1).to_string()).unwrap();
                    }
                });
            }
        });
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "40");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
