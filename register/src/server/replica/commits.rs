//! What waits for the ledger, in order: views for a write, and whatever shows them. Pure.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    limits::{
        LEDGER_DEFERRED_MAX, LEDGER_REMOVED_MAX, LEDGER_VIEW_BYTES_MAX, LEDGER_VIEWS_MAX,
        LEDGER_WAITING_BYTES_MAX,
    },
    v1::{Epoch, View, join_reply::Reply},
};
use prost::Message as _;

use crate::server::{
    core::Core,
    step::{Effect, Guard, Now, Write},
};

/// What is not committed yet, and waits for it.
#[derive(Debug)]
pub(super) struct Commits {
    /// The newest view that is committed.
    shown: Arc<View>,
    /// The newest view of all.
    made: Epoch,
    /// Each shows a view up to this one.
    deferred: VecDeque<(Epoch, Effect)>,
    /// Views for the next writes, and when they were made.
    waiting: VecDeque<(Arc<View>, Duration)>,
    waiting_bytes: usize,
    /// The write under way, and when it, and the oldest of its views, were made.
    in_flight: Option<(Arc<Write>, Duration, Duration)>,
    number: u64,
}

impl Commits {
    /// The ledger has this view.
    pub fn new(shown: Arc<View>) -> Self {
        let made = shown.epoch.unwrap_or_default();
        let (deferred, waiting) = (VecDeque::new(), VecDeque::new());
        Self { shown, made, deferred, waiting, waiting_bytes: 0, in_flight: None, number: 0 }
    }

    pub const fn shown(&self) -> &Arc<View> {
        &self.shown
    }

    #[cfg(test)]
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// More waits than may.
    pub fn is_full(&self) -> bool {
        self.deferred.len() >= LEDGER_DEFERRED_MAX || self.waiting_bytes >= LEDGER_WAITING_BYTES_MAX
    }

    pub fn in_flight(&self) -> Option<Arc<Write>> {
        self.in_flight.as_ref().map(|(write, ..)| write.clone())
    }

    /// How long the oldest view that is not committed has waited.
    pub fn lag(&self, now: Now) -> Duration {
        let in_flight = self.in_flight.as_ref().map(|(_, _, made)| *made);
        let since = in_flight.or_else(|| self.waiting.front().map(|(_, made)| *made));
        since.map_or(Duration::ZERO, |since| now.up.saturating_sub(since))
    }

    /// Holds the effects of one input back if a view is not committed; answers to beats pass.
    pub fn take(&mut self, effects: Vec<Effect>, now: Now, out: &mut Vec<Effect>) {
        for effect in &effects {
            if let Effect::View(view) = effect {
                self.made = view.epoch.unwrap_or_default();
                self.waiting_bytes += view.encoded_len();
                self.waiting.push_back((view.clone(), now.up));
            }
        }
        let settled = self.in_flight.is_none() && self.waiting.is_empty();
        for effect in effects {
            if settled || matches!(effect, Effect::Reply(_, Reply::Beat(_))) {
                out.push(effect);
            } else {
                self.deferred.push_back((self.made, effect));
            }
        }
    }

    /// The next write, if none is under way: all views that wait, as far as one write takes them.
    pub fn next(&mut self, guard: Guard, core: &Core, now: Now) -> Option<Arc<Write>> {
        if self.in_flight.is_some() {
            return None;
        }
        let made = self.waiting.front()?.1;
        let (mut views, mut bytes) = (Vec::new(), 0);
        while let Some((view, _)) = self.waiting.front() {
            bytes += view.encoded_len();
            if !views.is_empty() && (bytes > LEDGER_VIEW_BYTES_MAX || views.len() >= LEDGER_VIEWS_MAX) {
                break;
            }
            views.extend(self.waiting.pop_front().map(|(view, _)| view));
        }
        self.waiting_bytes -= views.iter().map(|view| view.encoded_len()).sum::<usize>();
        self.number += 1;
        let newest = views.last()?;
        // Whom only a later view lacks is not removed yet.
        let there: Vec<Incarnation> =
            newest.members.iter().filter_map(|member| member.incarnation.parse().ok()).collect();
        let removed = core.last_removed(LEDGER_REMOVED_MAX).filter(|one| !there.contains(one)).collect();
        // One transaction must not delete what it writes.
        let oldest = core.oldest_kept().min(views.first()?.epoch.unwrap_or_default());
        let write = Write { guard, number: self.number, views, removed, oldest };
        let write = Arc::new(write);
        self.in_flight = Some((write.clone(), now.up, made));
        Some(write)
    }

    /// The write under way is committed: what it shows is released. Returns how long it took.
    pub fn done(&mut self, now: Now, out: &mut Vec<Effect>) -> Duration {
        let Some((write, started, _)) = self.in_flight.take() else { return Duration::ZERO };
        if let Some(newest) = write.views.last() {
            self.shown = newest.clone();
        }
        let committed = write.epoch();
        while let Some((epoch, _)) = self.deferred.front()
            && *epoch <= committed
        {
            out.extend(self.deferred.pop_front().map(|(_, effect)| effect));
        }
        now.up.saturating_sub(started)
    }
}
