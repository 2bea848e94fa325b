//! What a shard remembers about its sends: they themselves, who came and went, what was dropped.

use broadgate_proto::limits::DROPS_PER_SEND_MAX;

use crate::recorder::{
    moves::{DropEntry, DropRing, FoundMove, MoveRing},
    sends::{FoundSend, SendRecorder, SentNote, TopicHash, id_hash},
    sent_question::SendQuestion,
};

/// What a shard remembers about its sends.
#[derive(Debug)]
pub(crate) struct SentRecorder {
    sends: SendRecorder,
    moves: MoveRing,
    drops: DropRing,
    /// Of the next send or move: which of them came first is seen by it, whatever the clock says.
    number: u64,
    /// Of the messages that are being placed: which of them, the client, and why not.
    unplaced: Vec<(usize, u64, &'static str)>,
}

/// Since when nothing is forgotten; 0 where nothing is remembered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SentSince {
    pub(crate) sends_ms: u64,
    pub(crate) joins_ms: u64,
    pub(crate) drops_ms: u64,
}

impl SentRecorder {
    /// How many of each are kept; 0 is none.
    pub(crate) fn new((sends, moves, drops): (usize, usize, usize), now_ms: u64) -> Self {
        Self {
            sends: SendRecorder::new(sends, now_ms),
            moves: MoveRing::new(moves, now_ms),
            drops: DropRing::new(drops, now_ms),
            number: 1,
            unplaced: Vec::new(),
        }
    }

    pub(crate) fn keeps_sends(&self) -> bool {
        self.sends.is_on()
    }

    pub(crate) fn keeps_moves(&self) -> bool {
        self.moves.is_on()
    }

    /// Messages are placed next.
    pub(crate) fn begin(&mut self) {
        self.unplaced.clear();
    }

    /// This one of them was not placed for a client.
    pub(crate) fn unplaced(&mut self, message: usize, client: u64, reason: &'static str) {
        if self.drops.is_on() {
            self.unplaced.push((message, client, reason));
        }
    }

    /// This one of them was sent.
    pub(crate) fn sent(&mut self, message: usize, note: &SentNote<'_>) {
        self.sends.record(note, self.number);
        self.number += 1;
        if !self.unplaced.is_empty() {
            let (command, at_ms) = (id_hash(note.id), note.at_ms);
            let own = self.unplaced.iter().filter(|(of, ..)| *of == message).take(DROPS_PER_SEND_MAX);
            for &(_, client, reason) in own {
                self.drops.dropped(DropEntry { client, command, at_ms, reason });
            }
        }
    }

    pub(crate) fn moved(&mut self, client: u64, topic: TopicHash, joined: bool, at_ms: u64) {
        self.moves.moved(FoundMove { number: self.number, at_ms, joined }, client, topic);
        self.number += 1;
    }

    /// The newest sends that a question is about, and how many there are.
    pub(crate) fn find(&self, question: &SendQuestion) -> (Vec<FoundSend>, u64) {
        self.sends.find(question)
    }

    /// A client's newest moves in and out of a topic, the oldest of them first.
    pub(crate) fn moves_of(&self, client: u64, topic: TopicHash) -> Vec<FoundMove> {
        self.moves.find(client, topic)
    }

    /// Why a command was not placed for a client, if that is remembered.
    pub(crate) fn dropped(&self, client: u64, command: &str) -> Option<&'static str> {
        self.drops.find(client, id_hash(command))
    }

    pub(crate) fn since(&self) -> SentSince {
        SentSince {
            sends_ms: self.sends.since_ms(),
            joins_ms: self.moves.since_ms(),
            drops_ms: self.drops.since_ms(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::{
        sends::{SENT_DROPS, SentTo},
        sent_question::SentWhat,
    };

    fn note(id: &str, at_ms: u64) -> SentNote<'_> {
        let drops = [0; SENT_DROPS.len()];
        SentNote { at_ms, app: "shop", id, by: "", to: SentTo::default(), at: None, clients: 1, drops }
    }

    fn number_of(recorder: &SentRecorder, id: &str) -> u64 {
        let what = SentWhat::Command(id.into());
        recorder.find(&SendQuestion { what, limit: 1, ..SendQuestion::default() }).0[0].number
    }

    #[test]
    fn sends_and_moves_have_one_order_and_each_client_its_own_moves() {
        let mut recorder = SentRecorder::new((10, 3, 10), 5);
        let (group, uid) = (TopicHash::group("g"), TopicHash::uid("g"));
        recorder.moved(1, group, true, 7);
        recorder.sent(0, &note("between", 7));
        recorder.moved(1, group, false, 7);
        recorder.moved(2, group, true, 7);
        let between = number_of(&recorder, "between");
        let moves = recorder.moves_of(1, group);
        assert_eq!(moves.iter().map(|found| found.joined).collect::<Vec<_>>(), [true, false]);
        assert!(moves[0].number < between && between < moves[1].number, "{moves:?} {between}");
        assert_eq!((recorder.moves_of(2, group).len(), recorder.moves_of(2, uid).len()), (1, 0));
        recorder.moved(2, uid, true, 9);
        assert_eq!(recorder.moves_of(1, group).len(), 1, "the oldest is displaced");
        assert_eq!(recorder.since(), SentSince { sends_ms: 5, joins_ms: 7, drops_ms: 5 });
    }

    #[test]
    fn drops_are_those_of_their_message_and_few_of_each() {
        let mut recorder = SentRecorder::new((10, 10, 100), 5);
        recorder.begin();
        recorder.unplaced(0, 1, "slow");
        for client in 0..1000 {
            recorder.unplaced(1, client, "protocol");
        }
        recorder.sent(0, &note("first", 7));
        recorder.sent(1, &note("second", 7));
        recorder.begin();
        recorder.sent(0, &note("third", 7));
        assert_eq!(
            [recorder.dropped(1, "first"), recorder.dropped(1, "second")],
            [Some("slow"), Some("protocol")]
        );
        assert_eq!([recorder.dropped(2, "first"), recorder.dropped(1, "third")], [None, None]);
        let known = (0..1000).filter(|client| recorder.dropped(*client, "second").is_some());
        assert_eq!(known.count(), DROPS_PER_SEND_MAX);
        assert_eq!(recorder.since().drops_ms, 5, "nothing was displaced");
    }

    #[test]
    fn zero_is_off() {
        let mut recorder = SentRecorder::new((0, 0, 0), 5);
        recorder.begin();
        recorder.unplaced(0, 1, "slow");
        recorder.sent(0, &note("x", 7));
        recorder.moved(1, TopicHash::group("g"), true, 7);
        assert_eq!(recorder.since(), SentSince { sends_ms: 0, joins_ms: 0, drops_ms: 0 });
        assert!(recorder.dropped(1, "x").is_none() && recorder.moves_of(1, TopicHash::group("g")).is_empty());
        assert!(!recorder.keeps_sends() && !recorder.keeps_moves());
    }
}
