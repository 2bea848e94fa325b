//! Batches of commands for a peer.

use std::collections::BTreeMap;

use broadgate_proto::v1::{self, answer::Answer};
use tokio::{sync::oneshot, time::Instant};

/// Batches of commands for a peer.
pub(crate) struct OutgoingBatch {
    pub(super) commands: Vec<v1::Command>,
    /// The deadline of its answers: it is not sent afterwards.
    pub(super) until: Instant,
    pub(super) reply: oneshot::Sender<Vec<v1::Answer>>,
}

/// Commands sent to a peer.
pub(crate) struct SentCommands {
    pub(super) indexes: Vec<usize>,
    pub(super) answers: Option<oneshot::Receiver<Vec<v1::Answer>>>,
}

impl SentCommands {
    /// The answers by index; none for commands without an answer in time.
    pub(crate) async fn answers(self, until: Instant) -> Vec<(usize, Option<Answer>)> {
        let mut found: BTreeMap<usize, Answer> = BTreeMap::new();
        if let Some(answers) = self.answers
            && let Ok(Ok(answers)) = tokio::time::timeout_at(until, answers).await
        {
            for answer in answers {
                if let (Ok(index), Some(answer)) = (usize::try_from(answer.id), answer.answer) {
                    found.insert(index, answer);
                }
            }
        }
        self.indexes.into_iter().map(|index| (index, found.remove(&index))).collect()
    }
}
