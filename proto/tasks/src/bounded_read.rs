//! Reading files that settings name, without waiting for ever: a pipe that nobody writes to, or a network mount that
//! hangs, would block its reader for ever.

use std::{
    collections::HashSet,
    io::{self, ErrorKind, Read as _},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

/// How long reading one file may take.
const READ_TIME_MAX: Duration = Duration::from_secs(5);

/// Files whose reading has not ended: a file is read by one thread at a time, so that looking again every few
/// seconds at a mount that hangs does not leave a thread behind each time.
static UNDER_WAY: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);

/// What may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadableKind {
    /// Files, and pipes that are read once, when a process starts.
    Any,
    /// Only files, which can be read again.
    Regular,
}

/// Reads a file.
///
/// # Errors
/// If it cannot be read, is not of this kind, or is not read in time.
pub fn read(path: &Path, kind: ReadableKind) -> io::Result<Vec<u8>> {
    read_within(path, kind, READ_TIME_MAX)
}

/// Reads a file as text.
///
/// # Errors
/// The same, and if it is not UTF-8.
pub fn read_text(path: &Path, kind: ReadableKind) -> io::Result<String> {
    let not_text = |_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8");
    String::from_utf8(read(path, kind)?).map_err(not_text)
}

fn read_within(path: &Path, kind: ReadableKind, time_max: Duration) -> io::Result<Vec<u8>> {
    let late = || {
        io::Error::new(
            ErrorKind::TimedOut,
            "it could not be read in time: it is on a mount that hangs, or a pipe that nobody writes to",
        )
    };
    if !under_way().get_or_insert_default().insert(path.to_owned()) {
        return Err(late());
    }
    let (done, read) = mpsc::sync_channel(1);
    let own = path.to_owned();
    let thread = std::thread::Builder::new().name("file".to_owned()).spawn(move || {
        // Also after a panic, so that the file can be read again.
        let ended = UnderWay(own);
        let read = read_now(&ended.0, kind);
        drop(ended);
        // Nobody waits any more if it came too late.
        let _ = done.send(read);
    });
    if let Err(error) = thread {
        under_way().get_or_insert_default().remove(path);
        return Err(error);
    }
    read.recv_timeout(time_max).unwrap_or_else(|error| match error {
        RecvTimeoutError::Timeout => Err(late()),
        RecvTimeoutError::Disconnected => Err(io::Error::other("its reader panicked: see the log")),
    })
}

/// A file that is being read, until this is dropped.
struct UnderWay(PathBuf);

impl Drop for UnderWay {
    fn drop(&mut self) {
        under_way().get_or_insert_default().remove(&self.0);
    }
}

fn read_now(path: &Path, kind: ReadableKind) -> io::Result<Vec<u8>> {
    if kind == ReadableKind::Regular && !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn under_way() -> MutexGuard<'static, Option<HashSet<PathBuf>>> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe in the place of a file.
    fn make_pipe(path: &Path) {
        let _ = std::fs::remove_file(path);
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    #[test]
    fn pipe_without_writer_is_given_up_and_read_by_one_thread() {
        let path = std::env::temp_dir().join(format!("broadgate-pipe-{}", std::process::id()));
        make_pipe(&path);
        let regular = read(&path, ReadableKind::Regular).unwrap_err();
        assert!(regular.to_string().contains("not a regular file"), "{regular}");
        for _ in 0..3 {
            let late = read_within(&path, ReadableKind::Any, Duration::from_millis(50)).unwrap_err();
            assert_eq!(late.kind(), ErrorKind::TimedOut);
        }
        // A waiting reader gets what comes; then it can be read again.
        std::fs::write(&path, "secret").unwrap();
        while under_way().as_ref().is_some_and(|paths| paths.contains(&path)) {
            std::thread::yield_now();
        }
        let writer = path.clone();
        let writer = std::thread::spawn(move || std::fs::write(writer, "secret").unwrap());
        assert_eq!(read_text(&path, ReadableKind::Any).unwrap(), "secret");
        writer.join().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read(&path, ReadableKind::Any).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
