//! What is queued, on disk: a restart goes on where the gateway stopped.
//!
//! One file for each gateway's name, to which a thread of its own appends what comes and what is done,
//! so a slow disk delays no post. It is written within milliseconds, and synced at most once in
//! `WEBHOOK_SPOOL_SYNC`: a crash of the gateway loses next to nothing, one of the machine a second. An
//! event that was delivered just before is then posted again, under the same id. When most of the file
//! is done with, it is rewritten. If it cannot be written, webhooks go on without it, and it is
//! tried again.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use broadgate_proto::limits::{WEBHOOK_SPOOL_BYTES_MAX, WEBHOOK_SPOOL_SYNC};
use broadgate_tasks::Spawner;
use metrics::{counter, gauge};

use super::{
    core::EndpointId,
    event::EndpointEvent,
    record::{self, MAGIC, Record},
};

/// The writer's thread; its panic ends the gateway.
const THREAD: &str = "webhook-spool";
/// Records that were not written yet; beyond, the file is rewritten, which needs no more memory.
const UNWRITTEN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A file below this is not compacted.
const FILE_BYTES_SMALL: usize = 1024 * 1024;
/// After a failure, the file is tried again.
const REPAIR_INTERVAL: Duration = Duration::from_secs(10);

/// The spool of one gateway. Dropping it writes what is left.
pub(super) struct Spool {
    shared: Arc<SpoolShared>,
    writer: Option<JoinHandle<()>>,
    /// Held for as long as the spool is.
    _lock: File,
}

/// An event that waits, and for which endpoint.
pub(super) type SpooledEvent = (EndpointId, Arc<EndpointEvent>);

#[derive(Default)]
struct SpoolShared {
    state: Mutex<SpoolState>,
    changed: Condvar,
}

#[derive(Default)]
struct SpoolState {
    kept: BTreeMap<u64, SpooledEvent>,
    kept_bytes: usize,
    unwritten: Vec<u8>,
    /// The file must be rewritten.
    rewrite: bool,
    stop: bool,
}

impl Spool {
    /// Opens the spool of a gateway, and gives what is queued in it.
    ///
    /// # Errors
    /// If the directory cannot be used, or another gateway of this name uses it.
    pub(super) fn open(
        folder: &Path,
        gateway: &str,
        spawner: &Spawner,
    ) -> anyhow::Result<(Self, Vec<SpooledEvent>)> {
        let place = || format!("gateway.spool {}", folder.display());
        std::fs::create_dir_all(folder).with_context(place)?;
        let path = folder.join(format!("{}.webhooks", file_name(gateway)));
        let lock = options().truncate(false).open(path.with_extension("lock")).with_context(place)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => anyhow::anyhow!(
                "{}: another process uses the spool of {gateway:?}: give each gateway its own name",
                place()
            ),
            TryLockError::Error(error) => anyhow::Error::new(error).context(place()),
        })?;
        let kept = load(&path).with_context(place)?;
        let kept_bytes = kept.values().map(|(_, event)| record::bytes(event)).sum();
        let all: Vec<SpooledEvent> = kept.values().cloned().collect();
        let shared = Arc::new(SpoolShared::default());
        let mut disk = SpoolFile { path, file: None, bytes: 0, unsynced: None };
        disk.rewrite(&all).with_context(place)?;
        *shared.lock() = SpoolState { kept, kept_bytes, ..SpoolState::default() };
        let writing = Arc::clone(&shared);
        let writer = spawner.thread(THREAD, move || write(&writing, disk)).with_context(place)?;
        Ok((Self { shared, writer: Some(writer), _lock: lock }, all))
    }

    /// Could a gateway of this name open its spool here? The files that are there are not changed, and what
    /// this makes is removed: a start may run under another user.
    pub(super) fn check(folder: &Path, gateway: Option<&str>) -> anyhow::Result<()> {
        let place = || {
            format!(
                "gateway.spool {}: the gateway must be able to make and write files there",
                folder.display()
            )
        };
        let made: Vec<&Path> =
            folder.ancestors().take_while(|part| !part.as_os_str().is_empty() && !part.exists()).collect();
        let probe = folder.join(format!(".check-{}", std::process::id()));
        let tried = std::fs::create_dir_all(folder)
            .and_then(|()| options().truncate(true).open(&probe))
            .and_then(|_| std::fs::remove_file(&probe));
        for folder in made {
            let _ = std::fs::remove_dir(folder);
        }
        tried.with_context(place)?;
        let Some(gateway) = gateway else { return Ok(()) };
        let path = folder.join(format!("{}.webhooks", file_name(gateway)));
        for extension in ["webhooks", "lock", "told", "new"] {
            let path = path.with_extension(extension);
            match OpenOptions::new().read(true).write(true).open(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("gateway.spool {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// An event waits for an endpoint.
    pub(super) fn add(&self, id: EndpointId, event: &Arc<EndpointEvent>) {
        let mut state = self.shared.lock();
        let bytes = record::bytes(event);
        if state.kept_bytes + bytes > WEBHOOK_SPOOL_BYTES_MAX {
            counter!("broadgate_gateway_webhook_unspooled_total").increment(1);
            return;
        }
        state.kept_bytes += bytes;
        state.kept.insert(event.seq, (id, Arc::clone(event)));
        record::write_added(&mut state.unwritten, id, event);
        self.written(state);
    }

    /// The event of this number waits no more.
    pub(super) fn done(&self, seq: u64) {
        let mut state = self.shared.lock();
        let Some((_, event)) = state.kept.remove(&seq) else { return };
        state.kept_bytes -= record::bytes(&event);
        record::write_done(&mut state.unwritten, seq);
        self.written(state);
    }

    fn written(&self, mut state: MutexGuard<'_, SpoolState>) {
        if state.unwritten.len() > UNWRITTEN_BYTES_MAX {
            state.unwritten = Vec::new();
            state.rewrite = true;
        }
        drop(state);
        self.shared.changed.notify_one();
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_one();
        let _ = self.writer.take().map(JoinHandle::join);
    }
}

impl SpoolShared {
    /// Nothing that can panic is done under the lock.
    fn lock(&self) -> MutexGuard<'_, SpoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that is a file's: other characters as in a URL.
pub(super) fn file_name(gateway: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let parts = gateway.bytes().map(|byte| match byte {
        byte if plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    parts.collect()
}

/// Client events are nobody else's business.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Renames a file that this version cannot read, such as one of a later version or another program, so that
/// nothing in it is overwritten. An empty file has nothing to keep.
///
/// # Errors
/// If it cannot be renamed: then it must not be written to.
pub(super) fn put_aside(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let free = (0..1000).map(|number| {
        let number = if number == 0 { String::new() } else { format!("-{number}") };
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".unreadable-{seconds}{number}"));
        PathBuf::from(name)
    });
    let aside = free.into_iter().find(|aside| !aside.exists()).ok_or(io::ErrorKind::AlreadyExists)?;
    std::fs::rename(path, &aside)?;
    tracing::error!(
        file = %path.display(),
        retained_as = %aside.display(),
        bytes = bytes.len(),
        "a file of the webhook spool is not of this version: it was renamed, and a new one is begun; what it \
         holds is not delivered unless the version that wrote it runs with it again"
    );
    Ok(())
}

/// What waits, according to the file.
fn load(path: &Path) -> io::Result<BTreeMap<u64, SpooledEvent>> {
    let mut kept = BTreeMap::new();
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(kept),
        read => read?,
    };
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        put_aside(path, &bytes)?;
        return Ok(kept);
    };
    while let Some(record) = record::read(&mut rest) {
        match record {
            Record::Added(id, event) => drop(kept.insert(event.seq, (id, event))),
            Record::Done(seq) => drop(kept.remove(&seq)),
        }
    }
    let lost = rest.len();
    if lost > 0 {
        tracing::warn!(
            spool = %path.display(),
            bytes = bytes.len(),
            lost,
            events = kept.len(),
            "the end of the webhook spool is damaged and left out: webhooks of the last moments before \
             the crash may be missing or come twice"
        );
    }
    Ok(kept)
}

/// The file, as the writer's thread sees it.
struct SpoolFile {
    path: PathBuf,
    /// None after a failure.
    file: Option<File>,
    bytes: usize,
    /// Since when something is written and not synced.
    unsynced: Option<Instant>,
}

impl SpoolFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        file.write_all(bytes)?;
        self.bytes += bytes.len();
        self.unsynced.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Rewrites the file beside the old one, then replaces it.
    fn rewrite(&mut self, all: &[SpooledEvent]) -> io::Result<()> {
        self.file = None;
        let mut bytes = MAGIC.to_vec();
        all.iter().for_each(|(id, event)| record::write_added(&mut bytes, *id, event));
        let new = self.path.with_extension("new");
        let mut file = options().truncate(true).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        if let Some(folder) = self.path.parent() {
            // So that the new name survives as well; not every system can do this.
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        (self.file, self.bytes, self.unsynced) = (Some(file), bytes.len(), None);
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
    fn turn(&mut self, shared: &SpoolShared, stop: bool) -> io::Result<()> {
        let mut state = shared.lock();
        let unwritten = std::mem::take(&mut state.unwritten);
        let size = self.bytes + unwritten.len();
        let sparse = size > FILE_BYTES_SMALL && size > 2 * state.kept_bytes;
        let all: Option<Vec<SpooledEvent>> =
            (state.rewrite || sparse || self.file.is_none()).then(|| state.kept.values().cloned().collect());
        state.rewrite = false;
        drop(state);
        match all {
            Some(all) => self.rewrite(&all)?,
            None if unwritten.is_empty() => {}
            None => self.append(&unwritten)?,
        }
        if self.unsynced.is_some_and(|since| stop || since.elapsed() >= WEBHOOK_SPOOL_SYNC) {
            self.sync()?;
        }
        gauge!("broadgate_gateway_webhook_spool_bytes").set(self.bytes as f64);
        Ok(())
    }
}

/// The writer's thread.
fn write(shared: &SpoolShared, mut disk: SpoolFile) {
    loop {
        let idle = |state: &mut SpoolState| {
            !state.stop && (disk.file.is_none() || state.unwritten.is_empty() && !state.rewrite)
        };
        let waited = shared.changed.wait_timeout_while(shared.lock(), disk.rest(), idle);
        let stop = waited.unwrap_or_else(PoisonError::into_inner).0.stop;
        broadgate_tasks::strike_now(THREAD);
        let was_broken = disk.file.is_none();
        match disk.turn(shared, stop) {
            Ok(()) if was_broken => {
                tracing::info!(spool = %disk.path.display(), "webhook spool is writable again")
            }
            Ok(()) => {}
            Err(error) => {
                disk.file = None;
                counter!("broadgate_gateway_webhook_spool_errors_total").increment(1);
                if !was_broken {
                    tracing::error!(
                        spool = %disk.path.display(), %error,
                        "webhook spool is not writable: until it is, a restart loses queued events"
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
#[path = "spool_tests.rs"]
pub(super) mod tests;
