//! What of a view one stream is sent: all of it, or what differs from its last one. Pure.

use std::sync::Arc;

use broadgate_proto::{
    limits::VIEW_CHANGES_MAX,
    v1::{Epoch, View, ViewChange},
    view::epoch,
    view_change,
};

/// A view as it goes out on one stream; shared until it is encoded.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum OutgoingView {
    Whole(Arc<View>),
    Change(Arc<ViewChange>),
}

/// The views that one stream has been sent.
#[derive(Debug, Default)]
pub(super) struct SentViews {
    /// Its member understands changes.
    pub changes: bool,
    last: Option<Arc<View>>,
    /// Changes since the last whole view.
    since_whole: usize,
}

/// The change that was computed last: a new view goes to many streams, of which nearly all have the same one.
#[derive(Debug, Default)]
pub(super) struct LastChange(Option<(Epoch, Epoch, Arc<ViewChange>)>);

impl LastChange {
    fn between(&mut self, base: &View, view: &View) -> Arc<ViewChange> {
        let (from, to) = (epoch(base), epoch(view));
        if let Some((known_from, known_to, change)) = &self.0
            && (*known_from, *known_to) == (from, to)
        {
            return Arc::clone(change);
        }
        let change = Arc::new(view_change::between(base, view));
        self.0 = Some((from, to, Arc::clone(&change)));
        change
    }
}

impl SentViews {
    /// How to send this view. A view of another term goes whole, and now and then one does without a reason.
    pub fn next(&mut self, view: &Arc<View>, computed: &mut LastChange) -> OutgoingView {
        let base = self.last.replace(Arc::clone(view));
        let base = base.filter(|base| epoch(base).term == epoch(view).term);
        if self.changes
            && self.since_whole < VIEW_CHANGES_MAX
            && let Some(base) = base
        {
            let change = computed.between(&base, view);
            if change.base.is_some() {
                self.since_whole += 1;
                return OutgoingView::Change(change);
            }
        }
        self.since_whole = 0;
        OutgoingView::Whole(Arc::clone(view))
    }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::{id::Incarnation, v1::Member};

    use super::*;

    fn view(term: u64, count: u64) -> Arc<View> {
        let member =
            |bits| Member { incarnation: Incarnation::from_bits(bits).to_string(), ..Member::default() };
        Arc::new(View {
            epoch: Some(Epoch::new(term, count)),
            before: Some(Epoch::new(term, count - 1)),
            members: (1..=10 + count).map(member).collect(),
        })
    }

    fn is_whole(sent: &OutgoingView) -> bool {
        matches!(sent, OutgoingView::Whole(_))
    }

    #[test]
    fn first_view_is_whole_and_one_of_another_term_and_one_now_and_then() {
        let (mut sent, mut computed) =
            (SentViews { changes: true, ..SentViews::default() }, LastChange::default());
        let forms: Vec<_> = (1..=VIEW_CHANGES_MAX as u64 + 3)
            .map(|count| is_whole(&sent.next(&view(1, count), &mut computed)))
            .collect();
        let whole: Vec<_> = forms.iter().enumerate().filter(|(_, whole)| **whole).map(|(at, _)| at).collect();
        assert_eq!(whole, [0, VIEW_CHANGES_MAX + 1]);
        assert!(is_whole(&sent.next(&view(2, 1), &mut computed)));
        assert!(!is_whole(&sent.next(&view(2, 2), &mut computed)));
    }

    #[test]
    fn member_of_the_version_before_gets_whole_views() {
        let (mut sent, mut computed) = (SentViews::default(), LastChange::default());
        assert!((1..9).all(|count| is_whole(&sent.next(&view(1, count), &mut computed))));
    }

    #[test]
    fn streams_with_the_same_view_share_one_change() {
        let mut computed = LastChange::default();
        let mut streams: Vec<_> =
            (0..3).map(|_| SentViews { changes: true, ..SentViews::default() }).collect();
        let mut next = |count| -> Vec<_> {
            streams.iter_mut().map(|sent| sent.next(&view(1, count), &mut computed)).collect()
        };
        next(1);
        let sent = next(2);
        let [OutgoingView::Change(one), .., OutgoingView::Change(other)] = &sent[..] else {
            panic!("not changes: {sent:?}")
        };
        assert!(Arc::ptr_eq(one, other));
        assert_eq!((one.put.len(), one.removed.len()), (1, 0));
    }
}
