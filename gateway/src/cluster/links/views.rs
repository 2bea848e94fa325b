//! The views that this gateway knows, by number: those of the register, of other gateways, and the installed
//! one. Links announce a view by its number and send what differs to a gateway that has not got it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use broadgate_proto::{
    id::Incarnation,
    limits::{VIEW_ASK_AGAIN, VIEWS_KEPT_BYTES_MAX, VIEWS_KEPT_MAX},
    v1::{Epoch, MemberState, View, ViewChange, ViewQuestion},
    view::{epoch, find, member_bytes},
    view_change::{self, BadChange},
};
use metrics::{Counter, counter};
use tokio::{sync::watch, time::Instant};

/// Counts views sent to other gateways: by number, as changes, or whole.
pub(crate) fn views_sent(form: &'static str) -> Counter {
    counter!("broadgate_gateway_views_sent_total", "form" => form)
}

/// How many of its views a question names.
const KNOWN_NAMED: usize = 8;

/// The views, for all links of the process.
pub(crate) struct ViewStore {
    known: Mutex<KnownViews>,
    /// Rises with every view that is added.
    added: watch::Sender<u64>,
    started: Instant,
}

impl Default for ViewStore {
    fn default() -> Self {
        Self { known: Mutex::default(), added: watch::Sender::new(0), started: Instant::now() }
    }
}

impl ViewStore {
    fn known(&self) -> MutexGuard<'_, KnownViews> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a view. One of a term that no register could have made is left out.
    pub(crate) fn add(&self, view: &Arc<View>) {
        if self.known().add(view) {
            self.added.send_modify(|added| *added = added.wrapping_add(1));
        }
    }

    /// The view of this number.
    pub(crate) fn get(&self, epoch: Epoch) -> Option<Arc<View>> {
        self.known().get(epoch)
    }

    /// A gateway's state in the newest view that names it.
    pub(crate) fn last_state_of(&self, gateway: Incarnation) -> Option<MemberState> {
        self.known().last_state_of(gateway)
    }

    /// The name of a gateway that is not in the present view, if one of the last views names it.
    pub(crate) fn last_name_of(&self, gateway: Incarnation) -> Option<String> {
        self.known().views.iter().rev().find_map(|(view, _)| Some(find(view, gateway)?.name.clone()))
    }

    /// Changes when a view is added.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.added.subscribe()
    }

    /// Whether to ask for this view now: not if another link has just asked for it.
    pub(crate) fn may_ask(&self, epoch: Epoch) -> bool {
        self.known().may_ask(epoch, self.started.elapsed())
    }

    /// A question for this view; `whole` if changes have not helped.
    pub(crate) fn question(&self, epoch: Epoch, whole: bool) -> ViewQuestion {
        counter!("broadgate_gateway_views_asked_total").increment(1);
        let known = if whole { Vec::new() } else { self.known().newest(KNOWN_NAMED) };
        ViewQuestion { epoch: Some(epoch), known }
    }

    /// The answer to a question; none if the view is not kept any more.
    pub(crate) fn answer(&self, question: &ViewQuestion) -> Option<ViewChange> {
        let change = self.known().answer(question)?;
        views_sent(if change.base.is_some() { "changes" } else { "whole" }).increment(1);
        Some(change)
    }

    /// Takes in the answer to a question.
    pub(crate) fn take(&self, change: ViewChange) -> Result<Arc<View>, BadChange> {
        let base = change.base.and_then(|base| self.get(base));
        let view = Arc::new(view_change::apply(change, base.as_deref())?);
        self.add(&view);
        Ok(view)
    }
}

/// The last views. Pure.
#[derive(Debug, Default)]
struct KnownViews {
    /// With their sizes, the last one added at the end.
    views: VecDeque<(Arc<View>, usize)>,
    bytes: usize,
    /// What was asked for last, and when.
    last_asked: Option<(Epoch, Duration)>,
}

impl KnownViews {
    /// True if it is new here.
    fn add(&mut self, view: &Arc<View>) -> bool {
        let number = epoch(view);
        let newest = self.newest(1).first().copied().unwrap_or_default();
        if self.get(number).is_some() || !number.is_credible(newest.term) {
            return false;
        }
        let bytes = view.members.iter().map(member_bytes).sum();
        self.views.push_back((Arc::clone(view), bytes));
        self.bytes += bytes;
        while (self.views.len() > VIEWS_KEPT_MAX || self.bytes > VIEWS_KEPT_BYTES_MAX)
            && self.views.len() > 1
            && let Some((_, bytes)) = self.views.pop_front()
        {
            self.bytes -= bytes;
        }
        true
    }

    fn get(&self, wanted: Epoch) -> Option<Arc<View>> {
        // Nearly always it is the last.
        let mut views = self.views.iter().rev();
        views.find(|(view, _)| epoch(view) == wanted).map(|(view, _)| Arc::clone(view))
    }

    fn last_state_of(&self, gateway: Incarnation) -> Option<MemberState> {
        let named =
            self.views.iter().filter_map(|(view, _)| Some((epoch(view), find(view, gateway)?.state())));
        named.max_by_key(|(number, _)| *number).map(|(_, state)| state)
    }

    /// The highest numbers, the highest first.
    fn newest(&self, count: usize) -> Vec<Epoch> {
        let mut numbers: Vec<_> = self.views.iter().map(|(view, _)| epoch(view)).collect();
        numbers.sort_unstable_by(|one, other| other.cmp(one));
        numbers.truncate(count);
        numbers
    }

    fn may_ask(&mut self, wanted: Epoch, now: Duration) -> bool {
        if self.last_asked.is_some_and(|(epoch, at)| epoch == wanted && now < at + VIEW_ASK_AGAIN) {
            return false;
        }
        self.last_asked = Some((wanted, now));
        true
    }

    fn answer(&self, question: &ViewQuestion) -> Option<ViewChange> {
        let view = self.get(question.epoch.unwrap_or_default())?;
        let base = question.known.iter().take(KNOWN_NAMED).find_map(|known| self.get(*known));
        Some(base.map_or_else(|| view_change::whole(&view), |base| view_change::between(&base, &view)))
    }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::{
        limits::TERM_STEP,
        v1::{Member, Role},
    };

    use super::*;

    pub(super) fn view(count: u64, members: u64) -> Arc<View> {
        let member = |bits| Member {
            incarnation: Incarnation::from_bits(bits).to_string(),
            role: Role::Gateway.into(),
            ..Member::default()
        };
        Arc::new(View {
            epoch: Some(Epoch::new(TERM_STEP, count)),
            before: Some(Epoch::new(TERM_STEP, count - 1)),
            members: (1..=members).map(member).collect(),
        })
    }

    #[test]
    fn gateway_that_missed_views_gets_what_differs_from_its_own() {
        let (here, there) = (ViewStore::default(), ViewStore::default());
        here.add(&view(1, 20));
        there.add(&view(1, 20));
        for count in 2..=9 {
            there.add(&view(count, 20 + count));
        }
        let wanted = Epoch::new(TERM_STEP, 9);
        assert!(here.get(wanted).is_none());
        let question = here.question(wanted, false);
        let answer = there.answer(&question).unwrap();
        assert_eq!((answer.base, answer.put.len()), (Some(Epoch::new(TERM_STEP, 1)), 9));
        let mut seen = here.watch();
        here.take(answer).unwrap();
        assert!(seen.has_changed().unwrap(), "links that wait for it are woken");
        seen.mark_unchanged();
        assert_eq!(here.get(wanted), there.get(wanted));
        // Without a common view, and where changes have not helped, the whole view.
        let stranger = ViewStore::default();
        stranger.add(&view(77, 3));
        for question in [stranger.question(wanted, false), here.question(wanted, true)] {
            let answer = there.answer(&question).unwrap();
            assert_eq!((answer.base, answer.put.len()), (None, 29));
        }
        assert!(there.answer(&there.question(Epoch::new(TERM_STEP, 50), false)).is_none());
    }

    #[test]
    fn changes_to_a_view_that_is_not_here_are_refused() {
        let store = ViewStore::default();
        store.add(&view(1, 5));
        let change = view_change::between(&view(2, 20), &view(3, 21));
        assert_eq!(store.take(change), Err(BadChange::OtherBase(Epoch::new(TERM_STEP, 2))));
        assert!(store.get(Epoch::new(TERM_STEP, 3)).is_none());
    }

    #[test]
    fn kept_views_are_bounded_and_false_ones_left_out() {
        let mut known = KnownViews::default();
        for count in 1..=100 {
            assert!(known.add(&view(count, 3)));
        }
        assert!(!known.add(&view(100, 3)), "it is here already");
        assert_eq!(known.views.len(), VIEWS_KEPT_MAX);
        assert!(known.get(Epoch::new(TERM_STEP, 36)).is_none());
        assert!(known.get(Epoch::new(TERM_STEP, 37)).is_some());
        assert_eq!(known.bytes, known.views.iter().map(|(_, bytes)| bytes).sum::<usize>());
        let mut false_term = View::clone(&view(1, 3));
        false_term.epoch = Some(Epoch::new(u64::MAX, 1));
        assert!(!known.add(&Arc::new(false_term)));
        assert_eq!(known.newest(2), [Epoch::new(TERM_STEP, 100), Epoch::new(TERM_STEP, 99)]);
    }

    #[test]
    fn last_word_of_a_gateway_is_known_after_it_has_left() {
        let store = ViewStore::default();
        let says = |count: u64, state: MemberState| {
            let mut view = View::clone(&view(count, 3));
            view.members[2].set_state(state);
            Arc::new(view)
        };
        let (leaver, dead) = (Incarnation::from_bits(3), Incarnation::from_bits(2));
        assert_eq!(store.last_state_of(leaver), None);
        // In whatever order they come.
        for (count, state) in [(2, MemberState::Leaving), (1, MemberState::Draining)] {
            store.add(&says(count, state));
        }
        store.add(&view(3, 1));
        assert_eq!(store.last_state_of(leaver), Some(MemberState::Leaving));
        assert_ne!(store.last_state_of(dead), Some(MemberState::Leaving));
    }

    #[test]
    fn of_many_links_one_asks_at_a_time() {
        let mut known = KnownViews::default();
        let (wanted, other) = (Epoch::new(TERM_STEP, 9), Epoch::new(TERM_STEP, 10));
        let ms = Duration::from_millis;
        assert!(known.may_ask(wanted, ms(0)));
        assert!(!known.may_ask(wanted, ms(1)));
        assert!(known.may_ask(other, ms(2)));
        assert!(!known.may_ask(other, ms(2) + VIEW_ASK_AGAIN / 2));
        assert!(known.may_ask(other, ms(2) + VIEW_ASK_AGAIN), "the link that asked may be stuck");
    }
}
