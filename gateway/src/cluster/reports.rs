//! Reports of groups whose home this gateway is, and the outcome of their delivery.

use std::sync::Arc;

use broadgate_proto::id::Incarnation;
use broadgate_topics::{Report, ReportSubscription, Topic};
use metrics::counter;
use tokio::sync::Notify;

use crate::{
    command::TopicCommand,
    fair_queue::{self, QueueItem, Says, Thinned},
    webhooks::{Arrival, Arrivals},
};

/// A fact that a home has seen in a channel.
#[derive(Debug)]
pub(crate) enum ChannelChange {
    Report(Topic, Report, Option<Arrival>),
    ClientEvent(Topic, Arc<TopicCommand>),
    /// A client has subscribed to a cache channel without a retained event.
    CacheMiss(Topic),
}

impl QueueItem for ChannelChange {
    fn about(&self) -> Option<(&str, &str)> {
        let (Self::Report(topic, ..) | Self::ClientEvent(topic, _) | Self::CacheMiss(topic)) = self;
        Some((topic.app(), topic.name()))
    }

    fn bytes(&self) -> usize {
        let (Self::Report(topic, ..) | Self::ClientEvent(topic, _) | Self::CacheMiss(topic)) = self;
        let names = topic.app().len() + topic.name().len();
        names
            + match self {
                Self::Report(_, Report::Joined(user) | Report::Left(user), _) => user.len(),
                Self::ClientEvent(_, job) => job.bytes(),
                Self::Report(..) | Self::CacheMiss(_) => 0,
            }
    }

    fn says(&self) -> Says<'_> {
        match self {
            Self::Report(_, Report::Occupied, _) => Says::Begins(None),
            Self::Report(_, Report::Vacated, _) => Says::Ends(None),
            Self::Report(_, Report::Joined(user), _) => Says::Begins(Some(user)),
            Self::Report(_, Report::Left(user), _) => Says::Ends(Some(user)),
            Self::Report(_, Report::Count(_), _) => Says::Newest("count"),
            Self::CacheMiss(_) => Says::Newest("cache_miss"),
            Self::Report(_, Report::Moved, _) | Self::ClientEvent(..) => Says::Once,
        }
    }
}

/// The receivers of reports, and delivered ones.
pub(super) struct ReportReceivers {
    about: Vec<ReportSubscription>,
    channels: Option<fair_queue::FairSender<ChannelChange>>,
    arrivals: Arc<Arrivals>,
}

impl ReportReceivers {
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Self { about: Vec::new(), channels: None, arrivals: Arrivals::new(wake) }
    }

    /// Starts reports about these groups to this receiver.
    pub(super) fn start(
        &mut self,
        about: Vec<ReportSubscription>,
        channels: fair_queue::FairSender<ChannelChange>,
    ) {
        self.about = about;
        self.channels = Some(channels);
    }

    pub(super) fn about(&self) -> Vec<ReportSubscription> {
        self.about.clone()
    }

    pub(super) fn note(&self, me: Incarnation, topic: Topic, report: Report, awaited: bool) {
        let arrival = awaited.then(|| self.arrivals.expect(me, topic.clone(), report.clone()));
        self.see(ChannelChange::Report(topic, report, arrival));
    }

    /// The home has placed a command.
    pub(super) fn note_ordered(&self, topic: &Topic, job: &Arc<TopicCommand>) {
        if job.client_event().is_some() {
            self.see(ChannelChange::ClientEvent(topic.clone(), Arc::clone(job)));
        }
    }

    /// A client has found no last value in a group.
    pub(super) fn note_missed(&self, topic: Topic) {
        self.see(ChannelChange::CacheMiss(topic));
    }

    fn see(&self, seen: ChannelChange) {
        // The server's own groups have no reports.
        if seen.about().is_some_and(|(_, name)| name.starts_with('#')) {
            return;
        }
        let Some(channels) = &self.channels else { return };
        let Thinned { full, undone } = channels.put(seen);
        for (count, reason) in [(full, "channels_busy"), (undone, "channels_undone")] {
            if count > 0 {
                counter!("broadgate_gateway_homes_drops_total", "reason" => reason).increment(count);
            }
        }
    }

    /// The delivered reports of this incarnation.
    pub(super) fn arrived(&self, me: Incarnation) -> Vec<(Topic, Report)> {
        let own = self.arrivals.take().into_iter().filter(|(by, _, _)| *by == me);
        own.map(|(_, topic, report)| (topic, report)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn report_is_delivered_when_its_last_handle_drops() {
        let me = Incarnation::from_bits(1);
        let (channels, mut seen) = fair_queue::inbox(1000);
        let mut reports = ReportReceivers::new(Arc::default());
        reports.start(Vec::new(), channels);
        let room = Topic::group("a", "room");
        reports.note(me, room.clone(), Report::Occupied, true);
        let mut taken = Vec::new();
        assert!(seen.take(1, &mut taken).await);
        let Some(ChannelChange::Report(_, _, Some(arrival))) = taken.pop() else {
            panic!("nothing is reported")
        };
        let other = arrival.clone();
        drop(arrival);
        assert!(reports.arrived(me).is_empty());
        drop(other);
        assert_eq!(reports.arrived(me), [(room.clone(), Report::Occupied)]);
        // A report without a receiver counts as given up; those of another incarnation are ignored.
        reports.note(me, room.clone(), Report::Count(1), false);
        reports.note(me, room.clone(), Report::Vacated, true);
        assert!(reports.arrived(Incarnation::from_bits(2)).is_empty() && reports.arrived(me).is_empty());
    }
}
