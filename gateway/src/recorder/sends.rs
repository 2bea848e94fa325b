//! The sends of a shard: each command once, however many clients got it.
//!
//! Ids and names lie one behind the other in a buffer of bytes, so that a send costs no allocation.

use std::collections::VecDeque;

use broadgate_proto::{
    id::{ClientId, Incarnation},
    limits::{SENT_NAMES_MAX, SENT_TEXT_BYTES},
    v1::Epoch,
};
use prost::encoding::{decode_varint, encode_varint};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::recorder::sent_question::{SendQuestion, SentWhat};

/// Why a client was not sent something that was meant for it, as receipts have it.
pub(crate) const SENT_DROPS: [&str; 4] = ["slow", "protocol", "closing", "unknown_client"];

/// A group or uid, by its kind and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopicHash(u64);

impl TopicHash {
    pub(crate) fn group(name: &str) -> Self {
        Self(xxh3_64_with_seed(name.as_bytes(), 1))
    }

    pub(crate) fn uid(name: &str) -> Self {
        Self(xxh3_64_with_seed(name.as_bytes(), 2))
    }

    /// Two bits of 64: a send has those of all its names, so that most others need not be read.
    fn mark(self) -> u64 {
        1 << (self.0 & 63) | 1 << (self.0 >> 6 & 63)
    }
}

/// The audience of a send.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SentTo<'a> {
    pub(crate) all: bool,
    pub(crate) clients: &'a [ClientId],
    pub(crate) uids: &'a [Box<str>],
    pub(crate) groups: &'a [Box<str>],
    pub(crate) except_clients: &'a [ClientId],
    pub(crate) except_uids: &'a [Box<str>],
    pub(crate) except_groups: &'a [Box<str>],
}

/// A send, as it is noted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SentNote<'a> {
    pub(crate) at_ms: u64,
    pub(crate) app: &'a str,
    pub(crate) id: &'a str,
    pub(crate) by: &'a str,
    pub(crate) to: SentTo<'a>,
    /// Its place in the order of its topic: the epoch in which the home took that over, and the home's count.
    pub(crate) at: Option<(Epoch, u64)>,
    pub(crate) clients: u64,
    /// By [`SENT_DROPS`].
    pub(crate) drops: [u64; SENT_DROPS.len()],
}

/// A send, as it is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FoundSend {
    pub(crate) number: u64,
    pub(crate) at_ms: u64,
    pub(crate) app: String,
    pub(crate) id: String,
    pub(crate) by: String,
    pub(crate) all: bool,
    pub(crate) clients: Vec<ClientId>,
    pub(crate) uids: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) except_clients: Vec<ClientId>,
    pub(crate) except_uids: Vec<String>,
    pub(crate) except_groups: Vec<String>,
    pub(crate) names_left_out: u32,
    pub(crate) at: Option<(Epoch, u64)>,
    pub(crate) placed: u64,
    pub(crate) drops: [u32; SENT_DROPS.len()],
}

/// What a search compares lies together.
#[derive(Debug)]
struct SendEntry {
    id: u64,
    /// The marks of its groups and uids.
    names: u64,
    at_ms: u64,
    number: u64,
    /// Where its texts begin, counted since the start.
    text_at: u64,
    clients: u32,
    drops: [u32; SENT_DROPS.len()],
    text_len: u16,
    names_left_out: u16,
}

const _: () = assert!(size_of::<SendEntry>() == 64);

/// The last sends of a shard.
#[derive(Debug)]
pub(crate) struct SendRecorder {
    max: usize,
    entries: VecDeque<SendEntry>,
    texts: VecDeque<u8>,
    /// Bytes that were in front of the texts and are forgotten.
    texts_gone: u64,
    /// Where one send's texts are put together.
    text: Vec<u8>,
    since_ms: u64,
}

/// What a name in the texts is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum NameKind {
    All,
    Client,
    Uid,
    Group,
    ExceptClient,
    ExceptUid,
    ExceptGroup,
    Position,
}

const KINDS: [NameKind; 8] = [
    NameKind::All,
    NameKind::Client,
    NameKind::Uid,
    NameKind::Group,
    NameKind::ExceptClient,
    NameKind::ExceptUid,
    NameKind::ExceptGroup,
    NameKind::Position,
];

/// The hash under which a command is found.
pub(super) fn id_hash(id: &str) -> u64 {
    xxh3_64(id.as_bytes())
}

impl SendRecorder {
    /// 0 is off.
    pub(super) fn new(max: usize, now_ms: u64) -> Self {
        Self {
            max,
            entries: VecDeque::with_capacity(max),
            texts: VecDeque::with_capacity(max * SENT_TEXT_BYTES),
            texts_gone: 0,
            text: Vec::new(),
            since_ms: if max == 0 { 0 } else { now_ms },
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.max > 0
    }

    pub(super) fn record(&mut self, note: &SentNote<'_>, number: u64) {
        if self.max == 0 {
            return;
        }
        self.text.clear();
        for text in [note.id, note.app, note.by] {
            put_text(&mut self.text, text);
        }
        let (names, left_out) = put_names(&mut self.text, &note.to);
        if let Some((tenure, number)) = note.at {
            self.text.push(NameKind::Position as u8);
            for part in [tenure.term, tenure.count, number] {
                encode_varint(part, &mut self.text);
            }
        }
        self.make_room(self.text.len());
        let text_at = self.texts_gone + self.texts.len() as u64;
        self.texts.extend(&self.text);
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        self.entries.push_back(SendEntry {
            id: id_hash(note.id),
            names,
            at_ms: note.at_ms,
            number,
            text_at,
            clients: small(note.clients),
            drops: note.drops.map(small),
            text_len: u16::try_from(self.text.len()).unwrap_or(u16::MAX),
            names_left_out: u16::try_from(left_out).unwrap_or(u16::MAX),
        });
    }

    /// Forgets the oldest until there is room for one with so many bytes of texts.
    fn make_room(&mut self, bytes: usize) {
        let bytes_max = self.max * SENT_TEXT_BYTES;
        while self.entries.len() >= self.max || self.texts.len() + bytes > bytes_max {
            let Some(gone) = self.entries.pop_front() else { break };
            self.since_ms = self.since_ms.max(gone.at_ms);
            self.texts.drain(..usize::from(gone.text_len));
            self.texts_gone += u64::from(gone.text_len);
        }
    }

    /// The newest that a question is about, and how many there are.
    pub(crate) fn find(&self, question: &SendQuestion) -> (Vec<FoundSend>, u64) {
        let (mut found, mut total) = (Vec::new(), 0);
        let id = if let SentWhat::Command(id) = &question.what { id_hash(id) } else { 0 };
        let mark = match &question.what {
            SentWhat::Command(_) => 0,
            SentWhat::Group(name) => TopicHash::group(name).mark(),
            SentWhat::Uid(name) => TopicHash::uid(name).mark(),
        };
        for entry in self.entries.iter().rev() {
            let may_be = if mark == 0 { entry.id == id } else { entry.names & mark == mark };
            if !may_be || entry.at_ms < question.since_ms {
                continue;
            }
            let Some(send) = self.read(entry).filter(|send| question.is_send(send)) else { continue };
            total += 1;
            if found.len() < question.limit {
                found.push(send);
            }
        }
        (found, total)
    }

    fn read(&self, entry: &SendEntry) -> Option<FoundSend> {
        let at = usize::try_from(entry.text_at.checked_sub(self.texts_gone)?).ok()?;
        let text: Vec<u8> = self.texts.range(at..at + usize::from(entry.text_len)).copied().collect();
        let mut rest = &text[..];
        let mut send = FoundSend {
            number: entry.number,
            at_ms: entry.at_ms,
            id: take_text(&mut rest)?,
            app: take_text(&mut rest)?,
            by: take_text(&mut rest)?,
            names_left_out: entry.names_left_out.into(),
            placed: entry.clients.into(),
            drops: entry.drops,
            ..FoundSend::default()
        };
        while let Some((&kind, after)) = rest.split_first() {
            rest = after;
            match KINDS.get(usize::from(kind))? {
                NameKind::All => send.all = true,
                NameKind::Client => send.clients.push(take_client(&mut rest)?),
                NameKind::ExceptClient => send.except_clients.push(take_client(&mut rest)?),
                NameKind::Uid => send.uids.push(take_text(&mut rest)?),
                NameKind::Group => send.groups.push(take_text(&mut rest)?),
                NameKind::ExceptUid => send.except_uids.push(take_text(&mut rest)?),
                NameKind::ExceptGroup => send.except_groups.push(take_text(&mut rest)?),
                NameKind::Position => {
                    let mut part = || decode_varint(&mut rest).ok();
                    send.at = Some((Epoch::new(part()?, part()?), part()?));
                }
            }
        }
        Some(send)
    }

    pub(super) fn since_ms(&self) -> u64 {
        self.since_ms
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> (usize, usize) {
        (self.entries.capacity(), self.texts.capacity())
    }
}

impl SendQuestion {
    /// Hashes may be equal by chance: names decide.
    fn is_send(&self, send: &FoundSend) -> bool {
        let of = match &self.what {
            SentWhat::Command(id) => *send.id == **id,
            SentWhat::Group(name) => send.groups.iter().any(|group| **group == **name),
            SentWhat::Uid(name) => send.uids.iter().any(|uid| **uid == **name),
        };
        of && self.app.as_deref().is_none_or(|app| *send.app == *app)
    }
}

/// Puts the first names of each kind; returns the marks of all groups and uids put, and how many names were left out.
fn put_names(out: &mut Vec<u8>, to: &SentTo<'_>) -> (u64, usize) {
    let (mut marks, mut left_out) = (0, 0);
    if to.all {
        out.push(NameKind::All as u8);
    }
    for (kind, clients) in [(NameKind::Client, to.clients), (NameKind::ExceptClient, to.except_clients)] {
        for client in clients.iter().take(SENT_NAMES_MAX) {
            out.push(kind as u8);
            put_client(out, *client);
        }
        left_out += clients.len().saturating_sub(SENT_NAMES_MAX);
    }
    for (kind, names) in [
        (NameKind::Uid, to.uids),
        (NameKind::Group, to.groups),
        (NameKind::ExceptUid, to.except_uids),
        (NameKind::ExceptGroup, to.except_groups),
    ] {
        for name in names.iter().take(SENT_NAMES_MAX) {
            out.push(kind as u8);
            put_text(out, name);
            marks |= match kind {
                NameKind::Uid => TopicHash::uid(name).mark(),
                NameKind::Group => TopicHash::group(name).mark(),
                _ => 0,
            };
        }
        left_out += names.len().saturating_sub(SENT_NAMES_MAX);
    }
    (marks, left_out)
}

/// Ids and names are checked when a command is parsed: none is longer than a kilobyte.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).unwrap_or(0);
    out.extend(len.to_le_bytes());
    out.extend(&text.as_bytes()[..usize::from(len)]);
}

fn take_text(from: &mut &[u8]) -> Option<String> {
    let (len, rest) = from.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(u16::from_le_bytes(*len).into())?;
    *from = rest;
    Some(String::from_utf8_lossy(text).into_owned())
}

fn put_client(out: &mut Vec<u8>, ClientId { incarnation, shard, slot, key }: ClientId) {
    out.extend(incarnation.bits().to_le_bytes());
    out.push(shard);
    out.extend(slot.to_le_bytes());
    out.extend(key.to_le_bytes());
}

fn take_client(from: &mut &[u8]) -> Option<ClientId> {
    let (incarnation, rest) = from.split_first_chunk()?;
    let (&shard, rest) = rest.split_first()?;
    let (slot, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_first_chunk()?;
    *from = rest;
    Some(ClientId {
        incarnation: Incarnation::from_bits(u64::from_le_bytes(*incarnation)),
        shard,
        slot: u32::from_le_bytes(*slot),
        key: u64::from_le_bytes(*key),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(key: u64) -> ClientId {
        ClientId { incarnation: Incarnation::from_bits(7), shard: 1, slot: 2, key }
    }

    fn note<'a>(id: &'a str, to: SentTo<'a>, at_ms: u64) -> SentNote<'a> {
        SentNote {
            at_ms,
            app: "shop",
            id,
            by: "token:ann",
            to,
            at: Some((Epoch::new(7 << 32, 41), 90_213)),
            clients: 3,
            drops: [1, 0, 0, 2],
        }
    }

    fn question(what: SentWhat) -> SendQuestion {
        SendQuestion { app: None, what, since_ms: 0, limit: 10, ..SendQuestion::default() }
    }

    fn ids(recorder: &SendRecorder, question: &SendQuestion) -> (Vec<String>, u64) {
        let (found, total) = recorder.find(question);
        (found.into_iter().map(|send| send.id).collect(), total)
    }

    #[test]
    fn a_send_is_found_by_its_id_and_by_what_it_was_sent_to() {
        let mut recorder = SendRecorder::new(100, 5);
        let groups: Vec<Box<str>> = (0..10).map(|number| format!("g{number}").into()).collect();
        let uids: [Box<str>; 1] = ["42".into()];
        let to = SentTo {
            clients: &[client(9)],
            uids: &uids,
            groups: &groups,
            except_clients: &[client(8)],
            except_groups: &groups[..1],
            ..SentTo::default()
        };
        recorder.record(&note("x", to, 10), 1);
        recorder.record(&note("y", SentTo { all: true, ..SentTo::default() }, 11), 2);
        recorder.record(&note("z", SentTo { uids: &uids, ..SentTo::default() }, 12), 3);
        let (found, total) = recorder.find(&question(SentWhat::Command("x".into())));
        let wanted = FoundSend {
            number: 1,
            at_ms: 10,
            app: "shop".into(),
            id: "x".into(),
            by: "token:ann".into(),
            clients: vec![client(9)],
            uids: vec!["42".into()],
            groups: groups[..8].iter().map(ToString::to_string).collect(),
            except_clients: vec![client(8)],
            except_groups: vec!["g0".into()],
            names_left_out: 2,
            at: Some((Epoch::new(7 << 32, 41), 90_213)),
            placed: 3,
            drops: [1, 0, 0, 2],
            ..FoundSend::default()
        };
        assert_eq!((found, total), (vec![wanted], 1));
        let one = |what| ids(&recorder, &question(what));
        assert_eq!(one(SentWhat::Uid("42".into())), (vec!["z".into(), "x".into()], 2));
        assert_eq!(one(SentWhat::Group("g7".into())), (vec!["x".into()], 1));
        // The names that were left out, a uid of a group's name, and somebody who was excepted.
        for none in [SentWhat::Group("g9".into()), SentWhat::Group("42".into()), SentWhat::Uid("g1".into())] {
            assert_eq!(one(none), (vec![], 0));
        }
        assert!(recorder.find(&question(SentWhat::Command("y".into()))).0[0].all);
        let of = |app: &str| SendQuestion { app: Some(app.into()), ..question(SentWhat::Uid("42".into())) };
        assert_eq!((ids(&recorder, &of("shop")).1, ids(&recorder, &of("other")).1), (2, 0));
        let few = SendQuestion { limit: 1, ..question(SentWhat::Uid("42".into())) };
        assert_eq!(ids(&recorder, &few), (vec!["z".into()], 2));
        let later = SendQuestion { since_ms: 11, ..question(SentWhat::Uid("42".into())) };
        assert_eq!(ids(&recorder, &later), (vec!["z".into()], 1));
    }

    #[test]
    fn the_oldest_are_forgotten_and_memory_stays_flat() {
        let mut recorder = SendRecorder::new(4, 5);
        let before = recorder.capacity();
        let groups: [Box<str>; 1] = ["g".into()];
        let to = SentTo { groups: &groups, ..SentTo::default() };
        for number in 0..1000 {
            recorder.record(&note(&format!("id-{number}"), to, 10 + number), number);
        }
        let all = question(SentWhat::Group("g".into()));
        let newest: Vec<String> = (996..1000).rev().map(|number| format!("id-{number}")).collect();
        assert_eq!(ids(&recorder, &all), (newest, 4));
        assert_eq!(recorder.since_ms(), 1005, "the last that is forgotten");
        assert_eq!(recorder.capacity(), before);
        // One with long names takes the room of several; one that is longer than all of it is alone.
        let long: [Box<str>; 2] = ["n".repeat(150).into(), "g".into()];
        recorder.record(&note("long", SentTo { groups: &long, ..SentTo::default() }, 2000), 1000);
        let kept = ids(&recorder, &all).0;
        assert!(kept[0] == "long" && kept.len() < 4, "{kept:?}");
        let longest: Vec<Box<str>> =
            (0..8).map(|number| format!("{number}{}", "n".repeat(190)).into()).collect();
        recorder.record(&note("longest", SentTo { groups: &longest, ..SentTo::default() }, 2001), 1001);
        assert_eq!(ids(&recorder, &question(SentWhat::Command("longest".into()))).1, 1);
        assert_eq!(ids(&recorder, &all).1, 0);
        recorder.record(&note("last", to, 2002), 1002);
        assert_eq!((ids(&recorder, &all).1, recorder.since_ms()), (1, 2001));
    }

    #[test]
    fn zero_is_off() {
        let mut recorder = SendRecorder::new(0, 5);
        recorder.record(&note("x", SentTo::default(), 10), 1);
        assert_eq!(ids(&recorder, &question(SentWhat::Command("x".into()))).1, 0);
        assert!(!recorder.is_on() && recorder.since_ms() == 0);
    }
}
