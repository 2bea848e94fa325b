//! A client of ours enters a group: it is told who is present and the group's last value, and from then
//! on what follows, with nothing missing in between.

use std::{sync::Arc, time::Duration};

use broadgate_proto::id::Incarnation;

use super::{
    core::Core,
    hold::needs,
    settle::Waiting,
    step::{Content, Effect, Entered, Ticket},
    topic::Topic,
};

/// Who waits to be told.
#[derive(Debug, Clone)]
pub(super) struct Entering {
    pub(super) ticket: Ticket,
    pub(super) topic: Topic,
    /// As whom: the home's presence must name it.
    pub(super) user: Option<Arc<str>>,
    since: Duration,
}

/// Whose home has not yet said that it knows of them, and who else is there.
#[derive(Debug, Default)]
pub(super) struct Entrances(Vec<Entering>);

impl Entrances {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, ready: impl Fn(&Entering) -> bool) -> Vec<Entering> {
        self.0.extract_if(.., |entering| ready(entering)).collect()
    }
}

impl<C: Content> Core<C> {
    /// Our shards have already said that the client is there.
    pub(super) fn enter(&mut self, ticket: Ticket, topic: Topic, user: Option<Arc<str>>) {
        let topics = vec![topic.clone()];
        let entering = Entering { ticket, topic, user, since: self.now };
        self.wait_until_known(Waiting::Entering(entering), topics);
    }

    /// The home knows of the client, or has not said so in time: then there may soon be another.
    pub(super) fn entered(&mut self, entering: Entering, missing: &[Incarnation]) {
        if missing.is_empty() && self.names_user(&entering) {
            self.tell_entered(entering, Vec::new());
        } else {
            self.entrances.0.push(entering);
        }
    }

    /// The home has told who is present.
    pub(super) fn present_told(&mut self, topic: &Topic) {
        self.tell_ready(|entering| entering.topic == *topic);
    }

    /// Once in a while: the home may have come, or does not come in time.
    pub(super) fn look_after_entrances(&mut self) {
        self.tell_ready(|_| true);
        let (patience, now) = (self.limits.enter_time_max, self.now);
        for entering in self.entrances.take(|entering| now >= entering.since + patience) {
            let missing = self.rings.home(&entering.topic).into_iter().collect();
            self.tell_entered(entering, missing);
        }
    }

    fn tell_ready(&mut self, asked: impl Fn(&Entering) -> bool) {
        if self.entrances.is_empty() {
            return;
        }
        let (held, peers) = (&self.held, &self.peers);
        let is_ready = |entering: &Entering| {
            let topics = std::slice::from_ref(&entering.topic);
            asked(entering)
                && held.names(&entering.topic, &entering.user)
                && needs(held, peers, topics).is_empty()
        };
        for entering in self.entrances.take(is_ready) {
            self.tell_entered(entering, Vec::new());
        }
    }

    fn names_user(&self, entering: &Entering) -> bool {
        self.held.names(&entering.topic, &entering.user)
    }

    fn tell_entered(&mut self, entering: Entering, missing: Vec<Incarnation>) {
        let Entering { ticket, topic, .. } = entering;
        let present = self.held.get(&topic).and_then(|held| held.present.as_ref());
        let members = present
            .iter()
            .flat_map(|present| present.iter())
            .map(|(user, info)| (user.clone(), info.clone()));
        let entered = Entered {
            members: members.collect(),
            value: self.kept.value(&topic, self.now).map(|value| value.command.clone()),
            missing,
        };
        self.out.push(Effect::Entered(ticket, topic, entered));
    }
}
