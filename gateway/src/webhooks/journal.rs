//! What receivers of webhooks have heard of the channels whose home this gateway is, on disk: if it was
//! the only one and is killed, the next run knows of whom to tell that they have left.
//!
//! A thread of its own appends what changes, so that a slow disk delays nothing. The file is written whole
//! again when most of it is outdated, and after a failure. A crash of the machine may lose the last second.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use broadgate_proto::{
    id::Incarnation,
    limits::{WEBHOOK_SPOOL_SYNC, WEBHOOK_TOLD_BYTES_MAX},
    v1,
};
use broadgate_tasks::Spawner;
use broadgate_topics::{NotifiedState, Restored, Topic};
use metrics::{counter, gauge};
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    notified::{decode_notified, encode_notified},
    spool,
};

const MAGIC: &[u8] = b"broadgate notified 1\n";
const HEAD_BYTES: usize = 12;
const ENTRY: u8 = 1;
const VIEW: u8 = 2;

/// The writer's thread; its panic ends the gateway.
const THREAD: &str = "webhook-journal";
/// What a channel or a user takes in memory besides its text.
const OVERHEAD_BYTES: usize = 96;
/// A file below this is not written again for its size.
const FILE_BYTES_SMALL: usize = 1024 * 1024;
/// Lines that were not written yet; beyond, the file is written whole, which needs no more memory.
const UNWRITTEN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// After a failure, the file is tried again.
const REPAIR_INTERVAL: Duration = Duration::from_secs(10);

/// The journal of one gateway. [`Journal::close`] writes what is left.
pub(crate) struct Journal {
    shared: Arc<JournalShared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct JournalShared {
    state: Mutex<JournalState>,
    changed: Condvar,
}

#[derive(Default)]
struct JournalState {
    known: JournalContent,
    unwritten: Vec<u8>,
    rewrite: bool,
    stop: bool,
}

/// What the journal says.
#[derive(Default)]
struct JournalContent {
    notified: BTreeMap<Topic, NotifiedState>,
    bytes: usize,
    me: Option<Incarnation>,
    gateways: Vec<Incarnation>,
}

impl Journal {
    /// Opens the journal of a gateway. Another process must not have it; the spool beside it sees to that.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub(crate) fn open(path: &Path, spawner: &Spawner) -> anyhow::Result<Self> {
        let place = || format!("gateway.spool: {}", path.display());
        let known = load(path).with_context(place)?;
        let mut disk = JournalFile { path: path.to_owned(), file: None, bytes: 0, unsynced: false };
        disk.rewrite(&known.whole()).with_context(place)?;
        let shared = Arc::new(JournalShared::default());
        shared.lock().known = known;
        let writing = Arc::clone(&shared);
        let writer = spawner.thread(THREAD, move || write(&writing, disk)).with_context(place)?;
        Ok(Self { shared, writer: Mutex::new(Some(writer)) })
    }

    /// What receivers have heard of a group: all of it, or one step.
    pub(crate) fn record(&self, topic: &Topic, whole: bool, notified: NotifiedState) {
        let mut state = self.shared.lock();
        if !state.known.update(topic, whole, notified.clone()) {
            counter!("broadgate_gateway_webhook_unjournaled_total").increment(1);
            return;
        }
        write_entry(&mut state.unwritten, topic, whole, notified);
        self.written(state);
    }

    /// This gateway has installed a view with these gateways.
    pub(crate) fn view(&self, me: Incarnation, gateways: Vec<Incarnation>) {
        let mut state = self.shared.lock();
        write_view(&mut state.unwritten, me, &gateways);
        (state.known.me, state.known.gateways) = (Some(me), gateways);
        self.written(state);
    }

    /// What it says now.
    pub(crate) fn restored(&self) -> Restored {
        let state = self.shared.lock();
        let JournalContent { notified, me, gateways, .. } = &state.known;
        let notified = notified.iter().map(|(topic, notified)| (topic.clone(), notified.clone())).collect();
        Restored { me: *me, gateways: gateways.clone(), notified }
    }

    /// Writes what is left; what comes later is not written.
    pub(crate) fn close(&self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_one();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = writer.map(JoinHandle::join);
    }

    fn written(&self, mut state: MutexGuard<'_, JournalState>) {
        if state.unwritten.len() > UNWRITTEN_BYTES_MAX {
            state.unwritten = Vec::new();
            state.rewrite = true;
        }
        drop(state);
        self.shared.changed.notify_one();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

impl JournalShared {
    /// Nothing that can panic is done under the lock.
    fn lock(&self) -> MutexGuard<'_, JournalState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JournalContent {
    /// False if there is no room for what is new.
    fn update(&mut self, topic: &Topic, whole: bool, notified: NotifiedState) -> bool {
        let before = self.notified.get(topic).map_or(0, |notified| bytes(topic, notified));
        if notified.is_something() && self.bytes + bytes(topic, &notified) > WEBHOOK_TOLD_BYTES_MAX {
            return false;
        }
        let mut known = self.notified.remove(topic).unwrap_or_default();
        known.update(whole, notified);
        self.bytes -= before;
        if known.is_something() {
            self.bytes += bytes(topic, &known);
            self.notified.insert(topic.clone(), known);
        }
        true
    }

    fn whole(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        if let Some(me) = self.me {
            write_view(&mut out, me, &self.gateways);
        }
        for (topic, notified) in &self.notified {
            write_entry(&mut out, topic, true, notified.clone());
        }
        out
    }
}

fn bytes(topic: &Topic, notified: &NotifiedState) -> usize {
    let users = notified.users.keys().map(|user| user.len() + OVERHEAD_BYTES);
    topic.key().len() + OVERHEAD_BYTES + users.sum::<usize>()
}

fn write_entry(out: &mut Vec<u8>, topic: &Topic, whole: bool, notified: NotifiedState) {
    let topic = bytes::Bytes::copy_from_slice(topic.key());
    let line =
        v1::Reported { topic, whole, notified: Some(encode_notified(notified)), ..v1::Reported::default() };
    framed(out, ENTRY, &line.encode_to_vec());
}

fn write_view(out: &mut Vec<u8>, me: Incarnation, gateways: &[Incarnation]) {
    let all: Vec<String> = std::iter::once(&me).chain(gateways).map(ToString::to_string).collect();
    framed(out, VIEW, all.join(" ").as_bytes());
}

/// The length of what follows the checksum (4 bytes, little-endian), the checksum (XXH3, 8 bytes), a kind
/// and its content.
fn framed(out: &mut Vec<u8>, kind: u8, content: &[u8]) {
    let start = out.len();
    out.extend([0; HEAD_BYTES]);
    out.push(kind);
    out.extend(content);
    let line = start + HEAD_BYTES;
    let length = u32::try_from(out.len() - line).unwrap_or(u32::MAX).to_le_bytes();
    let checksum = xxh3_64(&out[line..]).to_le_bytes();
    out[start..start + 4].copy_from_slice(&length);
    out[start + 4..line].copy_from_slice(&checksum);
}

/// The next line, if it is whole.
fn unframed<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (length, after) = rest.split_first_chunk()?;
    let (checksum, after) = after.split_first_chunk()?;
    let (line, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    if xxh3_64(line) != u64::from_le_bytes(*checksum) {
        return None;
    }
    *rest = after;
    line.split_first().map(|(kind, content)| (*kind, content))
}

fn load(path: &Path) -> io::Result<JournalContent> {
    let mut known = JournalContent::default();
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(known),
        read => read?,
    };
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        spool::put_aside(path, &bytes)?;
        return Ok(known);
    };
    while let Some((kind, content)) = unframed(&mut rest) {
        match kind {
            ENTRY => {
                let Ok(line) = v1::Reported::decode(content) else { continue };
                let Some(topic) = Topic::from_key(&line.topic) else { continue };
                known.update(&topic, line.whole, decode_notified(line.notified.unwrap_or_default()));
            }
            VIEW => {
                let text = std::str::from_utf8(content).unwrap_or_default();
                let mut all = text.split(' ').filter_map(|one| one.parse().ok());
                (known.me, known.gateways) = (all.next(), all.collect());
            }
            _ => {}
        }
    }
    Ok(known)
}

/// The file, as the writer's thread sees it.
struct JournalFile {
    path: PathBuf,
    /// None after a failure.
    file: Option<File>,
    bytes: usize,
    unsynced: bool,
}

impl JournalFile {
    /// Writes the file whole, beside the old one, and puts it in its place.
    fn rewrite(&mut self, whole: &[u8]) -> io::Result<()> {
        self.file = None;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        // Who is present is nobody else's business.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let new = self.path.with_extension("notified-new");
        let mut file = options.open(&new)?;
        file.write_all(whole)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        (self.file, self.bytes, self.unsynced) = (Some(file), whole.len(), false);
        Ok(())
    }

    fn turn(&mut self, shared: &JournalShared, sync: bool) -> io::Result<()> {
        let mut state = shared.lock();
        let unwritten = std::mem::take(&mut state.unwritten);
        let size = self.bytes + unwritten.len();
        let outdated = size > FILE_BYTES_SMALL && size > 2 * state.known.bytes;
        let whole = (state.rewrite || outdated || self.file.is_none()).then(|| state.known.whole());
        state.rewrite = false;
        drop(state);
        match (whole, &mut self.file) {
            (Some(whole), _) => self.rewrite(&whole)?,
            (None, Some(file)) if !unwritten.is_empty() => {
                file.write_all(&unwritten)?;
                self.bytes = size;
                self.unsynced = true;
            }
            _ => {}
        }
        if sync && self.unsynced {
            self.unsynced = false;
            self.file.as_mut().map_or(Ok(()), |file| file.sync_data())?;
        }
        gauge!("broadgate_gateway_webhook_journal_bytes").set(self.bytes as f64);
        Ok(())
    }
}

/// The writer's thread.
fn write(shared: &JournalShared, mut disk: JournalFile) {
    loop {
        let is_broken = disk.file.is_none();
        let idle = |state: &mut JournalState| {
            !state.stop && (is_broken || state.unwritten.is_empty() && !state.rewrite)
        };
        let rest = if is_broken { REPAIR_INTERVAL } else { WEBHOOK_SPOOL_SYNC };
        let waited = shared.changed.wait_timeout_while(shared.lock(), rest, idle);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        let stop = state.stop;
        drop(state);
        broadgate_tasks::strike_now(THREAD);
        if let Err(error) = disk.turn(shared, stop || timeout.timed_out()) {
            disk.file = None;
            counter!("broadgate_gateway_webhook_spool_errors_total").increment(1);
            if !is_broken {
                tracing::error!(
                    journal = %disk.path.display(), %error,
                    "the journal of notified channels cannot be written: until it can, a kill of the only \
                     gateway leaves receivers believing in who was there"
                );
            }
        }
        if stop {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use broadgate_tasks::Tasks;
    use broadgate_topics::Delivery;

    use crate::webhooks::spool::tests::take_aside;

    fn open(path: &Path) -> Journal {
        Journal::open(path, &Tasks::default().spawner()).unwrap()
    }

    fn notified(users: &[&str]) -> NotifiedState {
        let users = users.iter().map(|user| ((*user).into(), Delivery::Confirmed)).collect();
        NotifiedState { occupied: Delivery::Confirmed, users }
    }

    #[test]
    fn what_was_told_is_there_after_a_kill_up_to_a_torn_end() {
        let path = std::env::temp_dir().join(format!("broadgate-notified-{:x}", getrandom::u64().unwrap()));
        let (room, hall) = (Topic::group("a", "room"), Topic::group("a", "hall"));
        let (me, other) = (Incarnation::from_bits(1), Incarnation::from_bits(2));
        let journal = open(&path);
        journal.view(me, vec![me, other]);
        journal.record(&room, false, notified(&["ann"]));
        journal.record(&room, false, notified(&["bob"]));
        journal.record(&hall, false, notified(&[]));
        journal.record(&hall, true, NotifiedState::default());
        journal.close();
        let whole = std::fs::read(&path).unwrap();
        drop(journal);
        for torn in [0, 1] {
            std::fs::write(&path, &whole[..whole.len() - torn]).unwrap();
            let restored = open(&path).restored();
            assert_eq!((restored.me, restored.gateways), (Some(me), vec![me, other]));
            let mut expected = vec![(room.clone(), notified(&["ann", "bob"]))];
            // What was said last, the end of the hall, is torn off.
            expected.splice(0..0, (torn == 1).then(|| (hall.clone(), notified(&[]))));
            assert_eq!(restored.notified, expected);
        }
        for other in ["something else", "broadgate notified 2\nxyz"] {
            std::fs::write(&path, other).unwrap();
            assert!(open(&path).restored().notified.is_empty());
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(take_aside(&path), ["broadgate notified 2\nxyz", "something else"]);
    }

    #[test]
    fn the_journal_has_a_limit_and_what_ends_is_always_noted() {
        let mut known = JournalContent::default();
        let long: String = "x".repeat(WEBHOOK_TOLD_BYTES_MAX / 4);
        let topics: Vec<_> = (0..5).map(|number| Topic::group("a", &format!("{number}{long}"))).collect();
        let heard: Vec<bool> =
            topics.iter().map(|topic| known.update(topic, false, notified(&["u"]))).collect();
        assert_eq!(heard, [true, true, true, false, false]);
        assert!(
            known.update(&topics[0], false, NotifiedState::default())
                && known.update(&topics[3], false, notified(&["u"]))
        );
        assert!(known.bytes <= WEBHOOK_TOLD_BYTES_MAX);
        assert!(topics.iter().all(|topic| known.update(topic, true, NotifiedState::default())));
        assert_eq!((known.bytes, known.notified.len()), (0, 0));
    }
}
