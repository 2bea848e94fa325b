//! What receivers of webhooks have heard of the channels whose home this gateway is, on disk: if it was
//! the only one and is killed, the next run knows of whom to tell that they have left.
//!
//! One file for each gateway's name; see `appended.rs`.

use std::{collections::BTreeMap, io, path::Path};

use anyhow::Context as _;
use broadgate_proto::{id::Incarnation, limits::WEBHOOK_TOLD_BYTES_MAX, v1};
use broadgate_tasks::Spawner;
use broadgate_topics::{NotifiedState, Restored, Topic};
use metrics::{counter, gauge};
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    appended::{AppendedFile, Contents},
    notified::{decode_notified, encode_notified},
    spool,
};

const MAGIC: &[u8] = b"broadgate notified 1\n";
const HEAD_BYTES: usize = 12;
const ENTRY: u8 = 1;
const VIEW: u8 = 2;

/// What a channel or a user takes in memory besides its text.
const OVERHEAD_BYTES: usize = 96;
/// The journal of one gateway. [`Journal::close`] writes what is left, and so does dropping it.
pub(crate) struct Journal(AppendedFile<JournalContent>);

/// What the journal says.
#[derive(Default)]
struct JournalContent {
    notified: BTreeMap<Topic, NotifiedState>,
    bytes: usize,
    me: Option<Incarnation>,
    gateways: Vec<Incarnation>,
}

impl Contents for JournalContent {
    type Whole = Vec<u8>;
    const THREAD: &'static str = "webhook-journal";
    const NAME: &'static str = "journal of notified channels";
    const LOSS: &'static str = "a kill of the only gateway leaves receivers believing in who was there";

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

    fn encode(whole: Vec<u8>) -> Vec<u8> {
        whole
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn measure(bytes: usize) {
        gauge!("broadgate_gateway_webhook_journal_bytes").set(bytes as f64);
    }
}

impl Journal {
    /// Opens the journal of a gateway. Another process must not have it; the spool beside it sees to that.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub(crate) fn open(path: &Path, spawner: &Spawner) -> anyhow::Result<Self> {
        let place = || format!("gateway.spool: {}", path.display());
        let known = load(path).with_context(place)?;
        Ok(Self(AppendedFile::create(path.to_owned(), known, spawner).with_context(place)?))
    }

    /// What receivers have heard of a group: all of it, or one step.
    pub(crate) fn record(&self, topic: &Topic, whole: bool, notified: NotifiedState) {
        self.0.change(|known, lines| {
            if known.update(topic, whole, notified.clone()) {
                write_entry(lines, topic, whole, notified);
            } else {
                counter!("broadgate_gateway_webhook_unjournaled_total").increment(1);
            }
        });
    }

    /// This gateway has installed a view with these gateways.
    pub(crate) fn view(&self, me: Incarnation, gateways: Vec<Incarnation>) {
        self.0.change(|known, lines| {
            write_view(lines, me, &gateways);
            (known.me, known.gateways) = (Some(me), gateways);
        });
    }

    /// What it says now.
    pub(crate) fn restored(&self) -> Restored {
        self.0.read(|JournalContent { notified, me, gateways, .. }| {
            let notified = notified.iter().map(|(topic, notified)| (topic.clone(), notified.clone()));
            Restored { me: *me, gateways: gateways.clone(), notified: notified.collect() }
        })
    }

    /// Writes what is left; what comes later is not written.
    pub(crate) fn close(&self) {
        self.0.close();
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
