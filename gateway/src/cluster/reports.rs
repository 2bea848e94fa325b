//! What the gateway itself is told of groups whose home it is, and what has become of that.

use std::sync::Arc;

use broadgate_proto::{id::Incarnation, v1::command::Command};
use broadgate_pusher::incoming::CLIENT_EVENT_PREFIX;
use broadgate_topics::{Report, Reporting, Topic};
use metrics::counter;
use tokio::sync::{Notify, mpsc};

use crate::{
    command::Job,
    webhooks::{Arrival, Arrivals},
};

/// What a home has seen in a channel.
#[derive(Debug)]
pub(crate) enum Seen {
    Report(Topic, Report, Option<Arrival>),
    ClientEvent(Topic, Arc<Job>),
    /// Somebody has subscribed to a cache channel that keeps nothing.
    CacheMiss(Topic),
}

/// Who passes reports on, and what has arrived.
pub(super) struct Reports {
    about: Vec<Reporting>,
    channels: Option<mpsc::Sender<Seen>>,
    arrivals: Arc<Arrivals>,
}

impl Reports {
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Self { about: Vec::new(), channels: None, arrivals: Arrivals::new(wake) }
    }

    /// What is reported, and to whom.
    pub(super) fn tell(&mut self, about: Vec<Reporting>, channels: mpsc::Sender<Seen>) {
        self.about = about;
        self.channels = Some(channels);
    }

    pub(super) fn about(&self) -> Vec<Reporting> {
        self.about.clone()
    }

    pub(super) fn note(&self, me: Incarnation, topic: Topic, report: Report, awaited: bool) {
        let arrival = awaited.then(|| self.arrivals.expect(me, topic.clone(), report.clone()));
        self.see(Seen::Report(topic, report, arrival));
    }

    /// The home has given a command its place.
    pub(super) fn note_ordered(&self, topic: &Topic, job: &Arc<Job>) {
        if is_client_event(job) {
            self.see(Seen::ClientEvent(topic.clone(), Arc::clone(job)));
        }
    }

    /// Somebody has found no last value in a group.
    pub(super) fn note_missed(&self, topic: Topic) {
        self.see(Seen::CacheMiss(topic));
    }

    fn see(&self, seen: Seen) {
        if let Some(channels) = &self.channels
            && channels.try_send(seen).is_err()
        {
            counter!("broadgate_gateway_homes_drops_total", "reason" => "channels_busy").increment(1);
        }
    }

    /// What has arrived of this incarnation's.
    pub(super) fn arrived(&self, me: Incarnation) -> Vec<(Topic, Report)> {
        let own = self.arrivals.take().into_iter().filter(|(by, _, _)| *by == me);
        own.map(|(_, topic, report)| (topic, report)).collect()
    }
}

fn is_client_event(job: &Job) -> bool {
    matches!(&job.command, Command::Send(send) if send.data_json && send.event.starts_with(CLIENT_EVENT_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_arrived_when_nobody_keeps_it_any_more() {
        let me = Incarnation::from_bits(1);
        let (channels, mut seen) = mpsc::channel(1);
        let mut reports = Reports::new(Arc::default());
        reports.tell(Vec::new(), channels);
        let room = Topic::group("a", "room");
        reports.note(me, room.clone(), Report::Occupied, true);
        let Ok(Seen::Report(_, _, Some(arrival))) = seen.try_recv() else { panic!("nothing is told") };
        let other = arrival.clone();
        drop(arrival);
        assert!(reports.arrived(me).is_empty());
        drop(other);
        assert_eq!(reports.arrived(me), [(room.clone(), Report::Occupied)]);
        // What nobody takes will never arrive; and what another incarnation said is nobody's business.
        reports.note(me, room.clone(), Report::Count(1), false);
        reports.note(me, room.clone(), Report::Vacated, true);
        assert!(reports.arrived(Incarnation::from_bits(2)).is_empty() && reports.arrived(me).is_empty());
    }
}
