//! Sends to topics in which nobody was: their homes placed them nowhere, so no shard knows them.

use std::sync::{Mutex, PoisonError};

use crate::recorder::{
    sends::{FoundSend, SendRecorder, SentNote},
    sent_question::SendQuestion,
};

/// The last sends that topics' homes at this gateway have placed nowhere. The homes' task writes, once for each such
/// command; a shard reads when somebody asks.
#[derive(Debug)]
pub(crate) struct UnheardSends(Mutex<(SendRecorder, u64)>);

impl UnheardSends {
    /// 0 is off.
    pub(crate) fn new(max: usize, now_ms: u64) -> Self {
        Self(Mutex::new((SendRecorder::new(max, now_ms), 1)))
    }

    pub(crate) fn record(&self, note: &SentNote<'_>) {
        let (sends, number) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sends.record(note, *number);
        *number += 1;
    }

    /// The newest that a question is about, how many there are, and since when none is forgotten.
    pub(crate) fn find(&self, question: &SendQuestion) -> (Vec<FoundSend>, u64, u64) {
        let (sends, _) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (found, total) = sends.find(question);
        (found, total, sends.since_ms())
    }
}
