//! What is queued, on disk: a restart goes on where the gateway stopped.
//!
//! One file for each gateway's name; see `appended.rs`. An event that was delivered just before a crash is
//! posted again, under the same id.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use broadgate_proto::limits::WEBHOOK_SPOOL_BYTES_MAX;
use broadgate_tasks::Spawner;
use metrics::{counter, gauge};

use super::{
    appended::{AppendedFile, Contents, options, rewritten},
    core::EndpointId,
    event::EndpointEvent,
    record::{self, MAGIC, Record},
};

/// The spool of one gateway. Dropping it writes what is left.
pub(super) struct Spool {
    file: AppendedFile<QueuedEvents>,
    /// Held for as long as the file is written.
    _lock: File,
}

/// An event that waits, and for which endpoint.
pub(super) type SpooledEvent = (EndpointId, Arc<EndpointEvent>);

#[derive(Default)]
struct QueuedEvents {
    kept: BTreeMap<u64, SpooledEvent>,
    bytes: usize,
}

impl Contents for QueuedEvents {
    type Whole = Vec<SpooledEvent>;
    const THREAD: &'static str = "webhook-spool";
    const NAME: &'static str = "webhook spool";
    const LOSS: &'static str = "a restart loses queued events";

    fn whole(&self) -> Vec<SpooledEvent> {
        self.kept.values().cloned().collect()
    }

    fn encode(whole: Vec<SpooledEvent>) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        whole.iter().for_each(|(id, event)| record::write_added(&mut bytes, *id, event));
        bytes
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn measure(bytes: usize) {
        gauge!("broadgate_gateway_webhook_spool_bytes").set(bytes as f64);
    }
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
        let [path, lock, _] = files(folder, gateway);
        let lock = options().truncate(false).open(lock).with_context(place)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => anyhow::anyhow!(
                "{}: another process uses the spool of {gateway:?}: give each gateway its own name",
                place()
            ),
            TryLockError::Error(error) => anyhow::Error::new(error).context(place()),
        })?;
        let kept = load(&path).with_context(place)?;
        let bytes = kept.values().map(|(_, event)| record::bytes(event)).sum();
        let queued = QueuedEvents { kept, bytes };
        let all = queued.whole();
        let file = AppendedFile::create(path, queued, spawner).with_context(place)?;
        Ok((Self { file, _lock: lock }, all))
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
        let [queue, lock, journal] = files(folder, gateway);
        for path in [&rewritten(&queue), &rewritten(&journal), &queue, &lock, &journal] {
            match OpenOptions::new().read(true).write(true).open(path) {
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
        self.file.change(|queued, records| {
            let bytes = record::bytes(event);
            if queued.bytes + bytes > WEBHOOK_SPOOL_BYTES_MAX {
                counter!("broadgate_gateway_webhook_unspooled_total").increment(1);
                return;
            }
            queued.bytes += bytes;
            queued.kept.insert(event.seq, (id, Arc::clone(event)));
            record::write_added(records, id, event);
        });
    }

    /// The event of this number waits no more.
    pub(super) fn done(&self, seq: u64) {
        self.file.change(|queued, records| {
            let Some((_, event)) = queued.kept.remove(&seq) else { return };
            queued.bytes -= record::bytes(&event);
            record::write_done(records, seq);
        });
    }
}

/// The files of a gateway: its queue, what says that the gateway uses it, and the journal of notifications.
pub(super) fn files(folder: &Path, gateway: &str) -> [PathBuf; 3] {
    let name = file_name(gateway);
    ["webhooks", "lock", "told"].map(|extension| folder.join(format!("{name}.{extension}")))
}

/// A name that is a file's: other characters as in a URL.
fn file_name(gateway: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let parts = gateway.bytes().map(|byte| match byte {
        byte if plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    parts.collect()
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

#[cfg(test)]
#[path = "spool_tests.rs"]
pub(super) mod tests;
