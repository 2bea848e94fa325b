//! Streams that are told what happens in groups.

use std::sync::Arc;

use broadgate_proto::v1::{self, command::Command};
use metrics::counter;
use prost::Message as _;
use tokio::sync::mpsc;

use super::content::Job;
use crate::{
    channels::Seen,
    homes::{GroupChange, MemberChange, Pattern, Topic},
    pusher::incoming::CLIENT_EVENT_PREFIX,
};

/// Batches waiting for one stream; one that does not take them is ended, and may come again.
pub(crate) const WATCHER_BATCHES_MAX: usize = 1024;

/// gRPC clients take 4 MiB if they are not told otherwise; one group alone may be larger than this.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// One stream.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) out: mpsc::Sender<v1::GroupEvents>,
}

/// All streams, and what the turn has for them.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    all: Vec<Watcher>,
    /// What the gateway itself watches, and who tells it on.
    own: Vec<Pattern>,
    channels: Option<mpsc::Sender<Seen>>,
    news: Vec<(Topic, GroupChange)>,
    told: Option<v1::Epoch>,
}

impl Watchers {
    /// Adds one; returns what all of them together watch.
    pub(super) fn add(&mut self, watcher: Watcher) -> Vec<Pattern> {
        self.all.push(watcher);
        self.patterns()
    }

    /// The gateway itself watches these; returns what is watched in all.
    pub(super) fn watch_own(&mut self, own: Vec<Pattern>, channels: mpsc::Sender<Seen>) -> Vec<Pattern> {
        self.own = own;
        self.channels = Some(channels);
        self.patterns()
    }

    fn patterns(&self) -> Vec<Pattern> {
        let open = self.all.iter().filter(|watcher| !watcher.out.is_closed());
        let mut patterns: Vec<_> =
            open.flat_map(|watcher| watcher.patterns.clone()).chain(self.own.iter().cloned()).collect();
        patterns.sort_unstable();
        patterns.dedup();
        patterns
    }

    /// Streams that have ended are let go of; returns what is watched if that is nothing any more.
    pub(super) fn sweep(&mut self) -> Option<Vec<Pattern>> {
        let before = self.all.len();
        self.all.retain(|watcher| !watcher.out.is_closed());
        (before > 0 && self.all.is_empty()).then(|| self.patterns())
    }

    /// The gateway is another incarnation: its streams end. Returns what it watches itself.
    pub(super) fn clear(&mut self) -> Vec<Pattern> {
        let (own, channels) = (std::mem::take(&mut self.own), self.channels.take());
        *self = Self { own, channels, ..Self::default() };
        self.patterns()
    }

    pub(super) fn note(&mut self, topic: Topic, change: GroupChange) {
        if let Some(channels) = self.channels.as_ref().filter(|_| self.own.iter().any(|own| own.fits(&topic)))
        {
            see(channels, Seen::Change(topic.clone(), change.clone()));
        }
        self.news.push((topic, change));
    }

    /// The home has given a command its place.
    pub(super) fn note_ordered(&self, topic: &Topic, job: &Arc<Job>) {
        if let Some(channels) = self.channels.as_ref().filter(|_| self.own.iter().any(|own| own.fits(topic)))
            && is_client_event(job)
        {
            see(channels, Seen::ClientEvent(topic.clone(), Arc::clone(job)));
        }
    }

    pub(super) fn note_told(&mut self, epoch: v1::Epoch) {
        self.told = Some(epoch);
    }

    /// Tells each stream what concerns it. What was told stands before that all is told.
    pub(super) fn tell(&mut self) {
        if self.news.is_empty() && self.told.is_none() {
            return;
        }
        let (news, told) = (std::mem::take(&mut self.news), self.told.take());
        self.all.retain(|watcher| {
            let concerns = |topic: &Topic| watcher.patterns.iter().any(|pattern| pattern.fits(topic));
            let events: Vec<_> = news
                .iter()
                .filter(|(topic, _)| concerns(topic))
                .filter_map(|(topic, change)| event(topic, change))
                .collect();
            let sent = batches(events, told).into_iter().all(|batch| watcher.out.try_send(batch).is_ok());
            if !sent {
                counter!("gateway_homes_drops_total", "reason" => "watcher_slow").increment(1);
            }
            sent
        });
    }
}

fn see(channels: &mpsc::Sender<Seen>, seen: Seen) {
    if channels.try_send(seen).is_err() {
        counter!("gateway_homes_drops_total", "reason" => "channels_busy").increment(1);
    }
}

fn is_client_event(job: &Job) -> bool {
    matches!(&job.command, Command::Send(send) if send.data_json && send.event.starts_with(CLIENT_EVENT_PREFIX))
}

/// In messages that every gRPC client takes; that everything was told stands in the last.
fn batches(events: Vec<v1::GroupEvent>, told: Option<v1::Epoch>) -> Vec<v1::GroupEvents> {
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
    if told.is_some() && batches.is_empty() {
        batches.push(v1::GroupEvents::default());
    }
    if let Some(batch) = batches.last_mut() {
        batch.told = told;
    }
    batches
}

/// None for what streams are not told.
fn event(topic: &Topic, change: &GroupChange) -> Option<v1::GroupEvent> {
    use v1::group_event::Event;
    let member =
        |user: &str, info: &str| v1::PresenceMember { user_id: user.to_owned(), info: info.to_owned() };
    let of = |change: &MemberChange| member(&change.user, change.info.as_deref().unwrap_or_default());
    let event = match change {
        GroupChange::Is(members) => Event::Is(v1::GroupState { members: members.iter().map(of).collect() }),
        GroupChange::Joined(user, info) => Event::Joined(member(user, info)),
        GroupChange::Left(user) => Event::Left(user.to_string()),
        GroupChange::Count(_) | GroupChange::Occupied | GroupChange::Came(..) => return None,
        GroupChange::Vacated => Event::Vacated(true),
        GroupChange::Moved => Event::Moved(true),
    };
    Some(v1::GroupEvent { group: topic.name().to_owned(), event: Some(event) })
}
