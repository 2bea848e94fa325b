//! What callers did, one JSON line each: to a file or the log, and to the events.
//!
//! | file | what |
//! |---|---|
//! | `line.rs` | a line: which commands have one, and what it says |
//! | `write.rs` | the task that writes lines to the file |
//! | `lost.rs` | lines that are missing |

mod line;
mod lost;
mod write;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use broadgate_port::Book;
use broadgate_proto::limits::{AUDIT_QUEUE_LINES_MAX, AUDIT_WAIT_TIME_MAX};
use tokio::sync::mpsc;

use crate::{callers::Caller, events::EventLog};

pub(crate) use self::line::{AuditLine, app_name, asked, fit, tapped};
use self::lost::{AuditTrouble, lost};

/// Where lines go. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Audit {
    queue: mpsc::Sender<String>,
    events: EventLog,
    trouble: AuditTrouble,
    /// Of refusals only some are written in a minute.
    refused: Arc<Mutex<Book>>,
}

impl Audit {
    /// The audit and the task that writes it to this file; without one it goes to the log.
    pub(crate) fn open(
        file: Option<PathBuf>,
        events: EventLog,
    ) -> anyhow::Result<(Self, impl Future<Output = ()> + Send)> {
        let (queue, lines) = mpsc::channel(AUDIT_QUEUE_LINES_MAX);
        let trouble = AuditTrouble::default();
        for reason in ["queue_full", "unwritable"] {
            // Registered before the first one, for alerts.
            lost(reason, 0);
        }
        let writing = write::run(file, lines, trouble.clone(), events.clone())?;
        Ok((Self { queue, events, trouble, refused: Arc::default() }, writing))
    }

    /// Why lines are missing; "" if none are.
    pub(crate) fn trouble(&self) -> String {
        self.trouble.get()
    }

    /// Notes what a caller did. An operator's order waits until its line is queued; what workers do faster than it
    /// can be written is counted instead.
    pub(crate) async fn note(&self, caller: &Caller, line: AuditLine) {
        let text = self.remember(&line);
        if caller.is_program() {
            if self.queue.try_send(text).is_err() {
                lost("queue_full", 1);
            }
            return;
        }
        if self.queue.send_timeout(text, AUDIT_WAIT_TIME_MAX).await.is_err() {
            lost("queue_full", 1);
        }
    }

    /// Notes an order that came by way of the register, without waiting.
    pub(crate) fn note_at_once(&self, line: &AuditLine) {
        if self.queue.try_send(self.remember(line)).is_err() {
            lost("queue_full", 1);
        }
    }

    /// Notes that a caller was refused, without waiting.
    pub(crate) fn note_refused(&self, line: &AuditLine) {
        let now = Instant::now();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let may = refused.take(line.what(), now);
        // Their number is in the metric of refusals.
        drop(refused.left_out(now));
        drop(refused);
        if may && self.queue.try_send(self.remember(line)).is_err() {
            lost("queue_full", 1);
        }
    }

    fn remember(&self, line: &AuditLine) -> String {
        let json = line.json();
        self.events.note_audit(line.what(), line.sentence(), json.clone());
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::line::tests::{closing, secret},
        events::EventQuestion,
    };

    /// The reader has stopped: as when the disk hangs.
    fn stuck(room: usize) -> (Audit, mpsc::Receiver<String>) {
        let (queue, lines) = mpsc::channel(room);
        let audit = Audit {
            queue,
            events: EventLog::default(),
            trouble: AuditTrouble::default(),
            refused: Arc::default(),
        };
        (audit, lines)
    }

    #[tokio::test(start_paused = true)]
    async fn operators_wait_for_a_place_and_workers_do_not() {
        let (audit, mut lines) = stuck(1);
        let worker = Caller { worker: Some("chat-1".into()), ..secret() };
        audit.note(&worker, closing(&worker)).await;
        let before = tokio::time::Instant::now();
        audit.note(&worker, closing(&worker)).await;
        assert_eq!(before.elapsed().as_millis(), 0, "what does not fit is counted");
        audit.note(&secret(), closing(&secret())).await;
        assert_eq!(before.elapsed(), AUDIT_WAIT_TIME_MAX, "for a while, not for ever");
        let operator = secret();
        let noting = audit.note(&operator, closing(&operator));
        let (first, ()) = tokio::join!(lines.recv(), noting);
        assert!(first.unwrap().contains("worker:chat-1"));
        assert!(lines.recv().await.unwrap().contains("\"who\":\"secret\""));
        let question = EventQuestion { limit: 10, ..EventQuestion::default() };
        assert_eq!(audit.events.find(&question, "g").events.len(), 4, "the events have all");
    }
}
