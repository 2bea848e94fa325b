//! Streams of changes in groups.

use broadgate_proto::v1;
use broadgate_topics::{MemberChange, MembershipChange, Pattern, Topic};
use metrics::counter;
use prost::Message as _;
use tokio::sync::mpsc;

/// Batches queued for one stream; a stream that does not read them is closed, and may reconnect.
pub(crate) const WATCHER_BATCHES_MAX: usize = 1024;

/// gRPC clients accept 4 MiB by default; one group alone may be larger than this.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// One stream.
#[derive(Debug)]
pub(crate) struct GroupWatcher {
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) out: mpsc::Sender<v1::GroupEvents>,
}

/// All streams, and this turn's changes for them.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    all: Vec<GroupWatcher>,
    news: Vec<(Topic, MembershipChange)>,
    complete_as_of: Option<v1::Epoch>,
}

impl Watchers {
    /// Adds a stream; returns what all streams together watch.
    pub(super) fn add(&mut self, watcher: GroupWatcher) -> Vec<Pattern> {
        self.all.push(watcher);
        self.patterns()
    }

    fn patterns(&self) -> Vec<Pattern> {
        let open = self.all.iter().filter(|watcher| !watcher.out.is_closed());
        let mut patterns: Vec<_> = open.flat_map(|watcher| watcher.patterns.clone()).collect();
        patterns.sort_unstable();
        patterns.dedup();
        patterns
    }

    /// Removes ended streams; returns what is watched if that has become nothing.
    pub(super) fn sweep(&mut self) -> Option<Vec<Pattern>> {
        let before = self.all.len();
        self.all.retain(|watcher| !watcher.out.is_closed());
        (before > 0 && self.all.is_empty()).then(|| self.patterns())
    }

    pub(super) fn note(&mut self, topic: Topic, change: MembershipChange) {
        self.news.push((topic, change));
    }

    pub(super) fn note_complete(&mut self, epoch: v1::Epoch) {
        self.complete_as_of = Some(epoch);
    }

    /// Sends each stream its changes. They precede the mark that the state is complete.
    pub(super) fn send(&mut self) {
        if self.news.is_empty() && self.complete_as_of.is_none() {
            return;
        }
        let (news, complete_as_of) = (std::mem::take(&mut self.news), self.complete_as_of.take());
        self.all.retain(|watcher| {
            let concerns = |topic: &Topic| watcher.patterns.iter().any(|pattern| pattern.fits(topic));
            let events: Vec<_> = news
                .iter()
                .filter(|(topic, _)| concerns(topic))
                .map(|(topic, change)| event(topic, change))
                .collect();
            let sent =
                batches(events, complete_as_of).into_iter().all(|batch| watcher.out.try_send(batch).is_ok());
            if !sent {
                counter!("broadgate_gateway_homes_drops_total", "reason" => "watcher_slow").increment(1);
            }
            sent
        });
    }
}

/// Splits into messages that every gRPC client accepts; the last one has the mark that the state is complete.
fn batches(events: Vec<v1::GroupEvent>, complete_as_of: Option<v1::Epoch>) -> Vec<v1::GroupEvents> {
    let mut batches: Vec<v1::GroupEvents> = Vec::new();
    let mut bytes = 0;
    for event in events {
        let size = event.encoded_len();
        if batches.is_empty() || bytes + size > BATCH_BYTES_MAX {
            batches.push(v1::GroupEvents::default());
            bytes = 0;
        }
        bytes += size;
        if let Some(batch) = batches.last_mut() {
            batch.events.push(event);
        }
    }
    if complete_as_of.is_some() && batches.is_empty() {
        batches.push(v1::GroupEvents::default());
    }
    if let Some(batch) = batches.last_mut() {
        batch.complete_as_of = complete_as_of;
    }
    batches
}

fn event(topic: &Topic, change: &MembershipChange) -> v1::GroupEvent {
    use v1::group_event::Event;
    let member =
        |user: &str, info: &str| v1::PresenceMember { user_id: user.to_owned(), info: info.to_owned() };
    let of = |change: &MemberChange| member(&change.user, change.info.as_deref().unwrap_or_default());
    let event = match change {
        MembershipChange::Is(members) => {
            Event::Is(v1::GroupState { members: members.iter().map(of).collect() })
        }
        MembershipChange::Joined(user, info) => Event::Joined(member(user, info)),
        MembershipChange::Left(user) => Event::Left(user.to_string()),
        MembershipChange::Vacated => Event::Vacated(true),
        MembershipChange::Moved => Event::Moved(true),
    };
    v1::GroupEvent { group: topic.name().to_owned(), event: Some(event) }
}
