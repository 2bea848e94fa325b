//! A client of this gateway enters a group: it gets the roster and the last value, and from then on every
//! change, without a gap.

use std::sync::Arc;

use broadgate_proto::id::Incarnation;

use crate::{
    content::Content,
    core::Core,
    entrances::Entering,
    interest::Interest,
    own::needs,
    settle::WaitingOperation,
    step::{Effect, Entered, NotPresent, Ticket},
    topic::Topic,
};

impl<C: Content> Core<C> {
    /// The shard has already reported the client.
    pub(super) fn enter(&mut self, ticket: Ticket, topic: Topic, user: Option<Arc<str>>) {
        let topics = vec![topic.clone()];
        let entering = Entering { ticket, topic, user, since: self.now };
        self.wait_until_known(WaitingOperation::Entering(entering), topics);
    }

    /// The home knows of the client, or did not confirm that in time: then another home may take over soon.
    pub(super) fn entered(&mut self, entering: Entering, missing: &[Incarnation]) {
        if self.is_refused(&entering) {
            self.refuse_entering(entering, NotPresent::Full, Vec::new());
        } else if missing.is_empty() && is_present(&self.interest, &entering) {
            self.finish_entering(entering, Vec::new());
        } else {
            self.entrances.0.push(entering);
        }
    }

    /// The home has sent the roster, or has decided claims: these were refused.
    pub(super) fn presence_known(&mut self, topic: &Topic, refused: &[Arc<str>]) {
        if !refused.is_empty() {
            let is_refused = |entering: &Entering| {
                entering.topic == *topic && entering.user.as_ref().is_some_and(|user| refused.contains(user))
            };
            for entering in self.entrances.take(is_refused) {
                self.refuse_entering(entering, NotPresent::Full, Vec::new());
            }
            // A client that does not wait here yet will find that its claim is gone.
        }
        self.finish_ready(|entering| entering.topic == *topic);
    }

    /// From time to time: a home may have appeared, or is overdue.
    pub(super) fn check_entrances(&mut self) {
        self.finish_ready(|_| true);
        let (patience, now) = (self.limits.enter_time_max, self.now);
        for entering in self.entrances.take(|entering| now >= entering.since + patience) {
            // Also if there is no home at all.
            let missing = vec![self.rings.home(&entering.topic).unwrap_or(self.me)];
            let held = self.interest.get(&entering.topic);
            let claims = entering.user.as_ref().and_then(|user| held.and_then(|held| held.claims(user)));
            match claims {
                // The number of members is unknown: rather one too few than one too many.
                Some(true) => self.refuse_entering(entering, NotPresent::Undecided, missing),
                _ => self.finish_entering(entering, missing),
            }
        }
    }

    fn finish_ready(&mut self, asked: impl Fn(&Entering) -> bool) {
        if self.entrances.is_empty() {
            return;
        }
        let (held, peers) = (&self.interest, &self.peers);
        let is_ready = |entering: &Entering| {
            let topics = std::slice::from_ref(&entering.topic);
            asked(entering) && is_present(held, entering) && needs(held, peers, topics).is_empty()
        };
        for entering in self.entrances.take(is_ready) {
            self.finish_entering(entering, Vec::new());
        }
    }

    /// The shard reported the user as present and now no more: the home has refused the claim.
    fn is_refused(&self, entering: &Entering) -> bool {
        let held = self.interest.get(&entering.topic);
        entering.user.as_ref().is_some_and(|user| held.is_none_or(|held| held.claims(user).is_none()))
    }

    fn finish_entering(&mut self, entering: Entering, missing: Vec<Incarnation>) {
        let Entering { ticket, topic, .. } = entering;
        let present = self.interest.get(&topic).and_then(|held| held.present.as_ref());
        let members = present
            .iter()
            .flat_map(|present| present.iter())
            .map(|(user, info)| (user.clone(), info.clone()));
        let entered = Entered {
            members: members.collect(),
            value: self.retained.value(&topic, self.now).map(|value| value.command.clone()),
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

/// Whether the client's user is present, by the home's roster.
fn is_present(held: &Interest, entering: &Entering) -> bool {
    let decided =
        |user: &Arc<str>| held.get(&entering.topic).and_then(|held| held.claims(user)) == Some(false);
    let named = || entering.topic.is_silent() || held.names(&entering.topic, &entering.user);
    entering.user.as_ref().is_none_or(decided) && named()
}
