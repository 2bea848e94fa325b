//! Batches of a peer that wait for a view which it has announced by number. Pure: takes `now`.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use broadgate_proto::{
    limits::{LINK_PENDING_BYTES_MAX, VIEW_ASK_AGAIN},
    v1::{Epoch, PeerBatch, PeerMessage, View, peer_message::Message},
};
use prost::Message as _;
use tokio::time::Instant;

/// The batches of one link that have not been passed on, in order.
#[derive(Debug)]
pub(crate) struct PendingBatches {
    /// How long the register is waited for before the peer is asked for a view.
    grace: Duration,
    /// With their sizes; the first may be the rest of one.
    waiting: VecDeque<(Vec<PeerMessage>, usize)>,
    bytes: usize,
    wanted: Option<WantedView>,
}

/// The view that the first batch waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WantedView {
    pub(crate) epoch: Epoch,
    since: Instant,
    /// When to ask for it; none while the peer has been asked.
    ask_at: Option<Instant>,
    /// Another link had just asked its own peer.
    postponed: bool,
    /// Changes did not help: the whole view is asked for.
    pub(crate) whole: bool,
}

/// Messages that need not wait.
#[derive(Debug, PartialEq)]
pub(crate) struct ReadyMessages {
    pub(crate) messages: Vec<PeerMessage>,
    /// Those that are announced by number among them, in order.
    pub(crate) views: VecDeque<Arc<View>>,
    /// They are the end of a batch.
    pub(crate) is_end: bool,
}

/// Too much waits.
#[derive(Debug, thiserror::Error)]
#[error("{bytes} bytes wait for view {epoch}, which has not come")]
pub(crate) struct TooMuchPending {
    bytes: usize,
    epoch: Epoch,
}

impl PendingBatches {
    /// Waits this long for the register before it asks the peer.
    pub(crate) const fn new(grace: Duration) -> Self {
        Self { grace, waiting: VecDeque::new(), bytes: 0, wanted: None }
    }

    /// Adds a batch behind those that wait.
    pub(crate) fn add(&mut self, batch: PeerBatch) -> Result<(), TooMuchPending> {
        let mut bytes = 0;
        if let Some(wanted) = self.wanted {
            bytes = batch.encoded_len();
            if self.bytes + bytes > LINK_PENDING_BYTES_MAX {
                return Err(TooMuchPending { bytes: self.bytes + bytes, epoch: wanted.epoch });
            }
        }
        self.bytes += bytes;
        self.waiting.push_back((batch.messages, bytes));
        Ok(())
    }

    /// The view that the first batch waits for, if one does.
    pub(crate) const fn wanted(&mut self) -> Option<&mut WantedView> {
        self.wanted.as_mut()
    }

    /// When to look at the wanted view again: to ask for it, or because it is late.
    pub(crate) fn wake(&self, patience: Duration) -> Option<Instant> {
        let wanted = self.wanted?;
        let late_at = wanted.late_at(patience);
        Some(wanted.ask_at.map_or(late_at, |ask_at| ask_at.min(late_at)))
    }

    /// The next messages, up to a view that `find` does not find.
    pub(crate) fn next(
        &mut self,
        find: impl Fn(Epoch) -> Option<Arc<View>>,
        now: Instant,
    ) -> Option<ReadyMessages> {
        let (mut messages, bytes) = self.waiting.pop_front()?;
        let mut views = VecDeque::new();
        for index in 0..messages.len() {
            let Some(Message::ViewNumber(epoch)) = messages[index].message else { continue };
            if let Some(view) = find(epoch) {
                views.push_back(view);
                continue;
            }
            if self.wanted.is_none_or(|wanted| wanted.epoch != epoch) {
                self.wanted = Some(WantedView::new(epoch, now, self.grace));
            }
            self.waiting.push_front((messages.split_off(index), bytes));
            return (index > 0).then_some(ReadyMessages { messages, views, is_end: false });
        }
        self.wanted = None;
        self.bytes -= bytes;
        Some(ReadyMessages { messages, views, is_end: true })
    }
}

impl WantedView {
    fn new(epoch: Epoch, now: Instant, grace: Duration) -> Self {
        Self { epoch, since: now, ask_at: Some(now + grace), postponed: false, whole: false }
    }

    /// Whether to ask now; later if another link has just asked its own peer, and that does not help.
    pub(crate) fn is_due(&mut self, now: Instant, may_ask: impl FnOnce() -> bool) -> bool {
        if self.ask_at.is_none_or(|ask_at| now < ask_at) {
            return false;
        }
        if may_ask() || self.postponed {
            self.ask_at = None;
            return true;
        }
        (self.ask_at, self.postponed) = (Some(now + VIEW_ASK_AGAIN), true);
        false
    }

    /// Changes did not help.
    pub(crate) const fn ask_for_all(&mut self, now: Instant) {
        (self.ask_at, self.postponed, self.whole) = (Some(now), true, true);
    }

    /// When it has waited for so long.
    pub(crate) fn late_at(&self, patience: Duration) -> Instant {
        self.since + patience
    }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::v1::{Ask, Synced};

    use super::*;

    const fn epoch(count: u64) -> Epoch {
        Epoch::new(1, count)
    }

    fn view(count: u64) -> Arc<View> {
        Arc::new(View { epoch: Some(epoch(count)), ..View::default() })
    }

    fn number(count: u64) -> PeerMessage {
        PeerMessage { message: Some(Message::ViewNumber(epoch(count))) }
    }

    fn ask(id: u64) -> PeerMessage {
        PeerMessage { message: Some(Message::Ask(Ask { id, ..Ask::default() })) }
    }

    fn batch(messages: &[PeerMessage]) -> PeerBatch {
        PeerBatch { messages: messages.to_vec() }
    }

    /// All that is passed on where these views are known.
    fn passed(pending: &mut PendingBatches, known: &[u64], now: Instant) -> Vec<ReadyMessages> {
        let find = |wanted: Epoch| known.contains(&wanted.count).then(|| view(wanted.count));
        std::iter::from_fn(|| pending.next(find, now)).collect()
    }

    fn ready(messages: &[PeerMessage], views: &[u64], is_end: bool) -> ReadyMessages {
        ReadyMessages {
            messages: messages.to_vec(),
            views: views.iter().map(|&count| view(count)).collect(),
            is_end,
        }
    }

    #[test]
    fn what_follows_an_unknown_view_waits_for_it_and_keeps_its_order() {
        let (mut pending, now) = (PendingBatches::new(Duration::ZERO), Instant::now());
        pending.add(batch(&[ask(1), number(4), ask(2), number(5), ask(3)])).unwrap();
        assert_eq!(passed(&mut pending, &[4], now), [ready(&[ask(1), number(4), ask(2)], &[4], false)]);
        let wanted = *pending.wanted().unwrap();
        assert_eq!((wanted.epoch, wanted.ask_at), (epoch(5), Some(now)));
        pending.add(batch(&[ask(4)])).unwrap();
        pending.add(batch(&[number(6), ask(5)])).unwrap();
        let later = now + Duration::from_secs(1);
        assert_eq!(passed(&mut pending, &[4], later), [], "nothing overtakes the view");
        assert_eq!(pending.wanted().unwrap().since, now, "it has waited since then");
        assert_eq!(
            passed(&mut pending, &[5], later),
            [ready(&[number(5), ask(3)], &[5], true), ready(&[ask(4)], &[], true)]
        );
        assert_eq!((pending.wanted().unwrap().epoch, pending.wanted().unwrap().since), (epoch(6), later));
        assert_eq!(passed(&mut pending, &[6], later), [ready(&[number(6), ask(5)], &[6], true)]);
        assert!(pending.wanted().is_none() && pending.bytes == 0 && pending.waiting.is_empty());
    }

    #[test]
    fn link_asks_once_and_later_if_another_one_has_just_asked() {
        let (mut pending, now, patience) =
            (PendingBatches::new(Duration::ZERO), Instant::now(), Duration::from_secs(2));
        assert_eq!(pending.wake(patience), None);
        pending.add(batch(&[number(1)])).unwrap();
        assert_eq!(passed(&mut pending, &[], now), []);
        assert_eq!(pending.wake(patience), Some(now));
        assert!(!pending.wanted().unwrap().is_due(now, || false));
        let later = now + VIEW_ASK_AGAIN;
        assert_eq!(pending.wake(patience), Some(later));
        assert!(
            pending.wanted().unwrap().is_due(later, || false),
            "the other link's question has not helped"
        );
        assert!(!pending.wanted().unwrap().is_due(later, || true), "it has asked");
        assert_eq!(pending.wake(patience), Some(now + patience));
        pending.wanted().unwrap().ask_for_all(later);
        assert!(pending.wanted().unwrap().whole && pending.wanted().unwrap().is_due(later, || false));
    }

    #[test]
    fn register_is_waited_for_before_the_peer_is_asked() {
        let (grace, patience) = (Duration::from_millis(50), Duration::from_secs(2));
        let (mut pending, now) = (PendingBatches::new(grace), Instant::now());
        pending.add(batch(&[number(1), ask(1)])).unwrap();
        assert_eq!(passed(&mut pending, &[], now), []);
        assert_eq!(pending.wake(patience), Some(now + grace));
        assert!(!pending.wanted().unwrap().is_due(now, || true), "it is mostly on its way");
        assert_eq!(passed(&mut pending, &[1], now), [ready(&[number(1), ask(1)], &[1], true)]);
        assert_eq!(pending.wake(patience), None, "nobody was asked");
        pending.add(batch(&[number(2)])).unwrap();
        assert_eq!(passed(&mut pending, &[], now), []);
        assert!(pending.wanted().unwrap().is_due(now + grace, || true), "the register has not sent it");
        // The answer did not help: that takes no further grace.
        pending.wanted().unwrap().ask_for_all(now + grace);
        assert!(pending.wanted().unwrap().is_due(now + grace, || true));
    }

    #[test]
    fn batches_without_numbers_pass_as_they_are() {
        let (mut pending, now) = (PendingBatches::new(Duration::ZERO), Instant::now());
        let whole = PeerMessage { message: Some(Message::View(View::default())) };
        let synced = PeerMessage { message: Some(Message::Synced(Synced::default())) };
        for messages in [vec![whole, synced], vec![]] {
            pending.add(batch(&messages)).unwrap();
            assert_eq!(passed(&mut pending, &[], now), [ready(&messages, &[], true)]);
        }
    }

    #[test]
    fn what_waits_is_bounded_besides_the_first_batch() {
        let (mut pending, now) = (PendingBatches::new(Duration::ZERO), Instant::now());
        let large = |bytes| {
            let topic = vec![0; bytes].into();
            PeerMessage { message: Some(Message::Ask(Ask { id: 1, topic, op: None })) }
        };
        pending.add(batch(&[number(1), large(2 * LINK_PENDING_BYTES_MAX)])).unwrap();
        assert_eq!(passed(&mut pending, &[], now), []);
        let mut count = 0;
        while pending.add(batch(&[large(LINK_PENDING_BYTES_MAX / 8)])).is_ok() {
            count += 1;
        }
        assert_eq!(count, 7);
        assert_eq!(passed(&mut pending, &[1], now).len(), 8);
        assert_eq!(pending.bytes, 0);
        pending.add(batch(&[large(2 * LINK_PENDING_BYTES_MAX)])).unwrap();
    }
}
