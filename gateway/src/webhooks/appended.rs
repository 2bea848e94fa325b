//! A file to which a thread of its own appends what changes, so that a slow disk delays nobody.
//!
//! It is written within milliseconds, and synced at most once in `WEBHOOK_SPOOL_SYNC`: a crash of the gateway
//! loses next to nothing, one of the machine a second. When most of the file is outdated, and after a failure, it
//! is rewritten. While it cannot be written, everything goes on without it, and it is tried again.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use broadgate_proto::limits::WEBHOOK_SPOOL_SYNC;
use broadgate_tasks::Spawner;
use metrics::counter;

/// Records that were not written yet; beyond, the file is rewritten, which needs no more memory.
const UNWRITTEN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A file below this is not rewritten for its size.
const FILE_BYTES_SMALL: usize = 1024 * 1024;
/// After a failure, the file is tried again.
const REPAIR_INTERVAL: Duration = Duration::from_secs(10);

/// What a file says, in memory.
pub(super) trait Contents: Send + 'static {
    /// All of it, to be encoded without the lock.
    type Whole;
    /// The thread, whose panic ends the gateway.
    const THREAD: &'static str;
    /// The file's, for logs.
    const NAME: &'static str;
    /// What is lost while it cannot be written.
    const LOSS: &'static str;

    fn whole(&self) -> Self::Whole;
    /// A file that says this.
    fn encode(whole: Self::Whole) -> Vec<u8>;
    /// The size of such a file, at most.
    fn bytes(&self) -> usize;
    /// The size of the file has changed.
    fn measure(bytes: usize);
}

/// The file. Dropping it writes what is left.
pub(super) struct AppendedFile<C: Contents> {
    shared: Arc<FileShared<C>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct FileShared<C> {
    state: Mutex<FileState<C>>,
    changed: Condvar,
}

struct FileState<C> {
    contents: C,
    unwritten: Vec<u8>,
    /// The file must be rewritten.
    rewrite: bool,
    stop: bool,
}

impl<C: Contents> AppendedFile<C> {
    /// Writes a file that says this, and starts its thread.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn create(path: PathBuf, contents: C, spawner: &Spawner) -> io::Result<Self> {
        let mut disk = FileOnDisk { path, file: None, bytes: 0, unsynced: None };
        disk.rewrite(&C::encode(contents.whole()))?;
        let state = FileState { contents, unwritten: Vec::new(), rewrite: false, stop: false };
        let shared = Arc::new(FileShared { state: Mutex::new(state), changed: Condvar::new() });
        let writing = Arc::clone(&shared);
        let writer = spawner.thread(C::THREAD, move || write(&writing, disk))?;
        Ok(Self { shared, writer: Mutex::new(Some(writer)) })
    }

    /// Changes the contents, and appends the records that say so.
    pub(super) fn change(&self, change: impl FnOnce(&mut C, &mut Vec<u8>)) {
        let mut state = self.shared.lock();
        let FileState { contents, unwritten, .. } = &mut *state;
        change(contents, unwritten);
        if state.unwritten.len() > UNWRITTEN_BYTES_MAX {
            state.unwritten = Vec::new();
            state.rewrite = true;
        }
        drop(state);
        self.shared.changed.notify_one();
    }

    pub(super) fn read<R>(&self, read: impl FnOnce(&C) -> R) -> R {
        read(&self.shared.lock().contents)
    }

    /// Writes what is left; what comes later is not written.
    pub(super) fn close(&self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_one();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = writer.map(JoinHandle::join);
    }
}

impl<C: Contents> Drop for AppendedFile<C> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<C> FileShared<C> {
    /// Nothing that can panic is done under the lock.
    fn lock(&self) -> MutexGuard<'_, FileState<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Client events, and who is present, are nobody else's business.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Where a file is rewritten before it replaces this one.
pub(super) fn rewritten(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-new");
    PathBuf::from(name)
}

/// The file, as the writer's thread sees it.
struct FileOnDisk {
    path: PathBuf,
    /// None after a failure.
    file: Option<File>,
    bytes: usize,
    /// Since when something is written and not synced.
    unsynced: Option<Instant>,
}

impl FileOnDisk {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        file.write_all(bytes)?;
        self.bytes += bytes.len();
        self.unsynced.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Rewrites the file beside the old one, then replaces it.
    fn rewrite(&mut self, whole: &[u8]) -> io::Result<()> {
        self.file = None;
        let new = rewritten(&self.path);
        let mut file = options().truncate(true).open(&new)?;
        file.write_all(whole)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        if let Some(folder) = self.path.parent() {
            // So that the new name survives as well; not every system can do this.
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        (self.file, self.bytes, self.unsynced) = (Some(file), whole.len(), None);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.unsynced = None;
        self.file.as_mut().map_or(Ok(()), |file| file.sync_data())
    }

    /// How long there is nothing to do, if nothing comes.
    fn rest(&self) -> Duration {
        let synced = self.unsynced.map(|since| WEBHOOK_SPOOL_SYNC.saturating_sub(since.elapsed()));
        if self.file.is_none() { REPAIR_INTERVAL } else { synced.unwrap_or(Duration::MAX) }
    }

    /// Writes what is due.
    fn turn<C: Contents>(&mut self, shared: &FileShared<C>, stop: bool) -> io::Result<()> {
        let mut state = shared.lock();
        let unwritten = std::mem::take(&mut state.unwritten);
        let size = self.bytes + unwritten.len();
        let outdated = size > FILE_BYTES_SMALL && size > 2 * state.contents.bytes();
        let whole = (state.rewrite || outdated || self.file.is_none()).then(|| state.contents.whole());
        state.rewrite = false;
        drop(state);
        match whole {
            Some(whole) => self.rewrite(&C::encode(whole))?,
            None if unwritten.is_empty() => {}
            None => self.append(&unwritten)?,
        }
        if self.unsynced.is_some_and(|since| stop || since.elapsed() >= WEBHOOK_SPOOL_SYNC) {
            self.sync()?;
        }
        C::measure(self.bytes);
        Ok(())
    }
}

/// The writer's thread.
fn write<C: Contents>(shared: &FileShared<C>, mut disk: FileOnDisk) {
    loop {
        let is_broken = disk.file.is_none();
        let idle = |state: &mut FileState<C>| {
            !state.stop && (is_broken || state.unwritten.is_empty() && !state.rewrite)
        };
        let waited = shared.changed.wait_timeout_while(shared.lock(), disk.rest(), idle);
        let stop = waited.unwrap_or_else(PoisonError::into_inner).0.stop;
        broadgate_tasks::strike_now(C::THREAD);
        match disk.turn(shared, stop) {
            Ok(()) if is_broken => {
                tracing::info!(file = %disk.path.display(), "the {} is writable again", C::NAME);
            }
            Ok(()) => {}
            Err(error) => {
                disk.file = None;
                counter!("broadgate_gateway_webhook_spool_errors_total").increment(1);
                if !is_broken {
                    tracing::error!(
                        file = %disk.path.display(), %error,
                        "the {} is not writable: until it is, {}", C::NAME, C::LOSS
                    );
                }
            }
        }
        if stop {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use broadgate_tasks::Tasks;

    use super::*;

    /// Lines of numbers.
    struct Numbers(Vec<u8>);

    impl Contents for Numbers {
        type Whole = Vec<u8>;
        const THREAD: &'static str = "numbers";
        const NAME: &'static str = "numbers";
        const LOSS: &'static str = "there are none";

        fn whole(&self) -> Vec<u8> {
            self.0.clone()
        }

        fn encode(whole: Vec<u8>) -> Vec<u8> {
            whole
        }

        fn bytes(&self) -> usize {
            self.0.len()
        }

        fn measure(_: usize) {}
    }

    fn path() -> PathBuf {
        std::env::temp_dir().join(format!("broadgate-appended-{:x}", getrandom::u64().unwrap()))
    }

    #[test]
    fn file_that_vanishes_is_made_again() {
        let path = path();
        let file =
            AppendedFile::create(path.clone(), Numbers(b"12".to_vec()), &Tasks::default().spawner()).unwrap();
        file.change(|numbers, out| {
            numbers.0.push(b'3');
            out.push(b'3');
        });
        // As if a write had failed: the next turn writes everything.
        let mut disk = FileOnDisk { path: path.clone(), file: None, bytes: 0, unsynced: None };
        assert!(disk.append(b"x").is_err() && disk.rest() == REPAIR_INTERVAL);
        disk.turn(&file.shared, false).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"123");
        drop(file);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_is_written_without_a_pause_is_synced_all_the_same() {
        let path = path();
        let file =
            AppendedFile::create(path.clone(), Numbers(Vec::new()), &Tasks::default().spawner()).unwrap();
        let mut disk = FileOnDisk { path: path.clone(), file: None, bytes: 0, unsynced: None };
        disk.rewrite(b"").unwrap();
        let long_ago = Instant::now().checked_sub(WEBHOOK_SPOOL_SYNC).unwrap();
        disk.append(b"1").unwrap();
        disk.unsynced = Some(long_ago);
        disk.turn(&file.shared, false).unwrap();
        assert!(disk.unsynced.is_none());
        drop(file);
        std::fs::remove_file(&path).unwrap();
    }
}
