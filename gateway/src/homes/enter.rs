//! A client of ours enters a group: it is told who is present and the group's last value, and from then
//! on what follows, with nothing missing in between.

use std::{sync::Arc, time::Duration};

use broadgate_proto::id::Incarnation;

use super::{
    core::Core,
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
}

/// Whose home knows that they are here, but has not told yet who else is.
#[derive(Debug, Default)]
pub(super) struct Entrances(Vec<(Entering, Duration)>);

impl Entrances {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, ready: impl Fn(&Entering, Duration) -> bool) -> Vec<Entering> {
        let taken = self.0.extract_if(.., |(entering, since)| ready(entering, *since));
        taken.map(|(entering, _)| entering).collect()
    }
}

impl<C: Content> Core<C> {
    /// Our shards have already said that the client is there.
    pub(super) fn enter(&mut self, ticket: Ticket, topic: Topic, user: Option<Arc<str>>) {
        let topics = vec![topic.clone()];
        self.wait_until_known(Waiting::Entering(Entering { ticket, topic, user }), topics);
    }

    /// The home knows of the client, or has not said so in time.
    pub(super) fn entered(&mut self, entering: Entering, missing: Vec<Incarnation>) {
        if missing.is_empty() && !self.names_user(&entering) {
            self.entrances.0.push((entering, self.now));
        } else {
            self.tell_entered(entering, missing);
        }
    }

    /// The home has told who is present.
    pub(super) fn present_told(&mut self, topic: &Topic) {
        if self.entrances.is_empty() {
            return;
        }
        let held = &self.held;
        let named = |entering: &Entering, _| entering.topic == *topic && held.names(topic, &entering.user);
        for entering in self.entrances.take(named) {
            self.tell_entered(entering, Vec::new());
        }
    }

    /// Whom no home has told anything in time.
    pub(super) fn late_entrances(&mut self) {
        let (patience, now) = (self.limits.link_timeout, self.now);
        for entering in self.entrances.take(|_, since| now >= since + patience) {
            let missing = self.rings.home(&entering.topic).into_iter().collect();
            self.tell_entered(entering, missing);
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
