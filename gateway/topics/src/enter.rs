//! A client of ours enters a group: it is told who is present and the group's last value, and from then
//! on what follows, with nothing missing in between.

use std::sync::Arc;

use broadgate_proto::id::Incarnation;

use crate::{
    content::Content,
    core::Core,
    entrances::Entering,
    hold::needs,
    interest::Interest,
    settle::Waiting,
    step::{Effect, Entered, NotPresent, Ticket},
    topic::Topic,
};

impl<C: Content> Core<C> {
    /// Our shards have already said that the client is there.
    pub(super) fn enter(&mut self, ticket: Ticket, topic: Topic, user: Option<Arc<str>>) {
        let topics = vec![topic.clone()];
        let entering = Entering { ticket, topic, user, since: self.now };
        self.wait_until_known(Waiting::Entering(entering), topics);
    }

    /// The home knows of the client, or has not said so in time: then there may soon be another.
    pub(super) fn entered(&mut self, entering: Entering, missing: &[Incarnation]) {
        if self.is_refused(&entering) {
            self.refuse_entering(entering, NotPresent::Full, Vec::new());
        } else if missing.is_empty() && is_present(&self.held, &entering) {
            self.tell_entered(entering, Vec::new());
        } else {
            self.entrances.0.push(entering);
        }
    }

    /// The home has told who is present, or has decided about claims: these were refused.
    pub(super) fn present_told(&mut self, topic: &Topic, refused: &[Arc<str>]) {
        if !refused.is_empty() {
            let is_refused = |entering: &Entering| {
                entering.topic == *topic && entering.user.as_ref().is_some_and(|user| refused.contains(user))
            };
            for entering in self.entrances.take(is_refused) {
                self.refuse_entering(entering, NotPresent::Full, Vec::new());
            }
            // Who has not come so far as to wait here finds on coming that its claim is gone.
        }
        self.tell_ready(|entering| entering.topic == *topic);
    }

    /// Once in a while: the home may have come, or does not come in time.
    pub(super) fn look_after_entrances(&mut self) {
        self.tell_ready(|_| true);
        let (patience, now) = (self.limits.enter_time_max, self.now);
        for entering in self.entrances.take(|entering| now >= entering.since + patience) {
            // Also if there is none at all: nobody has answered.
            let missing = vec![self.rings.home(&entering.topic).unwrap_or(self.me)];
            let held = self.held.get(&entering.topic);
            let claims = entering.user.as_ref().and_then(|user| held.and_then(|held| held.claims(user)));
            match claims {
                // How many are there is not known: better one too few than one too many.
                Some(true) => self.refuse_entering(entering, NotPresent::Undecided, missing),
                _ => self.tell_entered(entering, missing),
            }
        }
    }

    fn tell_ready(&mut self, asked: impl Fn(&Entering) -> bool) {
        if self.entrances.is_empty() {
            return;
        }
        let (held, peers) = (&self.held, &self.peers);
        let is_ready = |entering: &Entering| {
            let topics = std::slice::from_ref(&entering.topic);
            asked(entering) && is_present(held, entering) && needs(held, peers, topics).is_empty()
        };
        for entering in self.entrances.take(is_ready) {
            self.tell_entered(entering, Vec::new());
        }
    }

    /// Its shard has said that its user is there, and that is so no more: the home has refused it.
    fn is_refused(&self, entering: &Entering) -> bool {
        let held = self.held.get(&entering.topic);
        entering.user.as_ref().is_some_and(|user| held.is_none_or(|held| held.claims(user).is_none()))
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
            refused: None,
        };
        self.out.push(Effect::Entered(ticket, topic, entered));
    }

    fn refuse_entering(&mut self, entering: Entering, refused: NotPresent, missing: Vec<Incarnation>) {
        let entered = Entered { members: Vec::new(), value: None, missing, refused: Some(refused) };
        self.out.push(Effect::Entered(entering.ticket, entering.topic, entered));
    }
}

/// Is the user for whom a client stands present, as far as the home has said?
fn is_present(held: &Interest, entering: &Entering) -> bool {
    let decided =
        |user: &Arc<str>| held.get(&entering.topic).and_then(|held| held.claims(user)) == Some(false);
    let named = || entering.topic.is_silent() || held.names(&entering.topic, &entering.user);
    entering.user.as_ref().is_none_or(decided) && named()
}
