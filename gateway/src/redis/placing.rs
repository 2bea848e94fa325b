//! From the reader to the channels' homes: messages that are being placed, bounded in bytes from their arrival
//! to their answer.

use std::sync::{Arc, Weak};

use broadgate_proto::{
    limits::{BATCH_COMMANDS_MAX, REDIS_MESSAGE_OVERHEAD_BYTES, REDIS_PLACING_BYTES_MAX},
    v1::{self, answer::Answer},
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::Code;

use crate::{
    command::ChannelEvent,
    dispatch::Dispatcher,
    redis::states::{ReaderDrop, ReaderReport},
};

/// A message and its part of the bound.
struct RedisPlacing {
    event: ChannelEvent,
    room: OwnedSemaphorePermit,
}

/// Where the reader puts messages; it never waits.
pub(super) struct PlacingSender {
    queue: mpsc::Sender<RedisPlacing>,
    room: Arc<Semaphore>,
}

/// Where they come from, in their order.
pub(super) struct PlacingReceiver(mpsc::Receiver<RedisPlacing>);

/// A queue into which at least two of the largest messages fit.
pub(super) fn queue(payload_bytes_max: usize) -> (PlacingSender, PlacingReceiver) {
    let bytes = REDIS_PLACING_BYTES_MAX.max(2 * (payload_bytes_max + REDIS_MESSAGE_OVERHEAD_BYTES));
    let bytes = bytes.min(Semaphore::MAX_PERMITS);
    let (sender, receiver) = mpsc::channel((bytes / REDIS_MESSAGE_OVERHEAD_BYTES).max(1));
    (PlacingSender { queue: sender, room: Arc::new(Semaphore::new(bytes)) }, PlacingReceiver(receiver))
}

impl PlacingSender {
    /// False if there is no room.
    #[must_use]
    pub(super) fn put(&self, event: ChannelEvent) -> bool {
        let texts = event.channel.len() + event.name.len() + event.data.len();
        let Ok(cost) = u32::try_from(texts + REDIS_MESSAGE_OVERHEAD_BYTES) else { return false };
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(cost) else { return false };
        self.queue.try_send(RedisPlacing { event, room }).is_ok()
    }
}

impl PlacingReceiver {
    /// Places messages in their order until the sender is gone and all are answered, or the gateway ends.
    pub(super) async fn run(mut self, dispatcher: Weak<Dispatcher>, report: Arc<ReaderReport>) {
        let mut batch = Vec::with_capacity(BATCH_COMMANDS_MAX);
        let mut unanswered = FuturesUnordered::new();
        let mut is_open = true;
        while is_open || !unanswered.is_empty() {
            tokio::select! {
                Some(answers) = unanswered.next(), if !unanswered.is_empty() => note(answers, &report),
                count = self.0.recv_many(&mut batch, BATCH_COMMANDS_MAX), if is_open => {
                    is_open = count > 0;
                    let Some(dispatcher) = dispatcher.upgrade() else { return };
                    let (events, rooms): (Vec<_>, Vec<_>) =
                        batch.drain(..).map(|RedisPlacing { event, room }| ((event, None), room)).unzip();
                    if let Some((event, _)) = events.first() {
                        let bytes = events.iter().map(|(event, _)| event.data.len() as u64).sum();
                        let who = format!("redis:{}", event.app);
                        dispatcher.callers.count_sends(&who, &event.app, events.len() as u64, bytes);
                    }
                    let names: Vec<String> = events.iter().map(|(event, _)| event.channel.clone()).collect();
                    let placed = dispatcher.place_events(events.into_iter()).await;
                    drop(dispatcher);
                    unanswered.push(async move {
                        let answers = placed.answers().await;
                        drop(rooms);
                        (names, answers)
                    });
                }
            }
        }
    }
}

/// Counts what was not placed. A receipt that names a gateway is counted where it is made.
fn note((names, answers): (Vec<String>, Vec<v1::Answer>), report: &ReaderReport) {
    for (name, answer) in names.iter().zip(answers) {
        match answer.answer {
            Some(Answer::Error(error)) if error.code == Code::Unavailable as i32 => {
                report.dropped(ReaderDrop::Unanswered, name, &error.message);
            }
            Some(Answer::Error(error)) => report.dropped(ReaderDrop::Refused, name, &error.message),
            Some(_) => report.taken.increment(1),
            None => report.dropped(ReaderDrop::Unanswered, name, "it was not answered"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::EventFlags;

    fn event(bytes: usize) -> ChannelEvent {
        ChannelEvent {
            app: "shop".into(),
            channel: "c".to_owned(),
            except: None,
            name: "e".into(),
            data: "d".repeat(bytes).into(),
            user_id_json: String::new(),
            flags: EventFlags::default(),
            by: "".into(),
            traceparent: None,
        }
    }

    #[tokio::test]
    async fn messages_have_room_until_they_are_answered() {
        let (sender, mut receiver) = queue(1024);
        let part = REDIS_PLACING_BYTES_MAX / 4;
        let mut puts = (0..5).map(|_| sender.put(event(part - REDIS_MESSAGE_OVERHEAD_BYTES - 2)));
        assert_eq!([(); 5].map(|()| puts.next().unwrap()), [true, true, true, true, false]);
        drop(puts);
        let taken = receiver.0.recv().await.unwrap();
        assert!(!sender.put(event(part / 2)), "it is taken and not answered");
        drop(taken);
        assert!(sender.put(event(part / 2)));
        // Small ones are bounded in number.
        let (sender, _receiver) = queue(1024);
        let count = (0..1_000_000).take_while(|_| sender.put(event(0))).count();
        assert!(count <= REDIS_PLACING_BYTES_MAX / REDIS_MESSAGE_OVERHEAD_BYTES, "{count}");
        // Two of the largest fit.
        let (sender, _receiver) = queue(64 << 20);
        assert!(sender.put(event(64 << 20)) && !sender.put(event(128 << 20)));
    }
}
