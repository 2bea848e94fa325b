//! Clients of this gateway that enter groups: each gets the roster and the last value, and from then on every
//! change, without a gap. They wait here until the groups' homes know of them.

use std::{sync::Arc, time::Duration};

use broadgate_proto::id::Incarnation;

use crate::{
    content::Content,
    interest::Interest,
    needs::needs,
    shared::Shared,
    step::{Effect, Entered, NotPresent, Ticket},
    topic::Topic,
};

/// A client that waits for its entrance.
#[derive(Debug, Clone)]
pub(super) struct Entering {
    pub(super) ticket: Ticket,
    pub(super) topic: Topic,
    /// Its user, whom the home's roster must contain.
    pub(super) user: Option<Arc<str>>,
    pub(super) since: Duration,
}

/// Entrances whose home has not confirmed the client and sent the roster.
#[derive(Debug, Default)]
pub(super) struct Entrances(Vec<Entering>);

impl Entrances {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, ready: impl Fn(&Entering) -> bool) -> Vec<Entering> {
        self.0.extract_if(.., |entering| ready(entering)).collect()
    }

    /// The home knows of the client, or did not confirm that in time: then another home may take over soon.
    pub(super) fn entered<C: Content>(
        &mut self,
        shared: &mut Shared<C>,
        interest: &Interest,
        entering: Entering,
        missing: &[Incarnation],
    ) {
        if is_refused(interest, &entering) {
            refuse(shared, entering, NotPresent::Full, Vec::new());
        } else if missing.is_empty() && is_present(interest, &entering) {
            finish(shared, interest, entering, Vec::new());
        } else {
            self.0.push(entering);
        }
    }

    /// The home has sent the roster, or has decided claims: these were refused.
    pub(super) fn presence_known<C: Content>(
        &mut self,
        shared: &mut Shared<C>,
        interest: &Interest,
        topic: &Topic,
        refused: &[Arc<str>],
    ) {
        if !refused.is_empty() {
            let is_refused = |entering: &Entering| {
                entering.topic == *topic && entering.user.as_ref().is_some_and(|user| refused.contains(user))
            };
            for entering in self.take(is_refused) {
                refuse(shared, entering, NotPresent::Full, Vec::new());
            }
            // A client that does not wait here yet will find that its claim is gone.
        }
        self.finish_ready(shared, interest, |entering| entering.topic == *topic);
    }

    /// From time to time: a home may have appeared, or is overdue.
    pub(super) fn check<C: Content>(&mut self, shared: &mut Shared<C>, interest: &Interest) {
        self.finish_ready(shared, interest, |_| true);
        let (patience, now) = (shared.limits.enter_time_max, shared.now);
        for entering in self.take(|entering| now >= entering.since + patience) {
            // Also if there is no home at all.
            let missing = vec![shared.rings.home(&entering.topic).unwrap_or(shared.me)];
            let entry = interest.get(&entering.topic);
            let claims = entering.user.as_ref().and_then(|user| entry.and_then(|entry| entry.claims(user)));
            match claims {
                // The number of members is unknown: rather one too few than one too many.
                Some(true) => refuse(shared, entering, NotPresent::Undecided, missing),
                _ => finish(shared, interest, entering, missing),
            }
        }
    }

    fn finish_ready<C: Content>(
        &mut self,
        shared: &mut Shared<C>,
        interest: &Interest,
        asked: impl Fn(&Entering) -> bool,
    ) {
        if self.is_empty() {
            return;
        }
        let peers = &shared.peers;
        let is_ready = |entering: &Entering| {
            let topics = std::slice::from_ref(&entering.topic);
            asked(entering) && is_present(interest, entering) && needs(interest, peers, topics).is_empty()
        };
        for entering in self.take(is_ready) {
            finish(shared, interest, entering, Vec::new());
        }
    }
}

fn finish<C: Content>(
    shared: &mut Shared<C>,
    interest: &Interest,
    entering: Entering,
    missing: Vec<Incarnation>,
) {
    let Entering { ticket, topic, .. } = entering;
    let present = interest.get(&topic).and_then(|entry| entry.present.as_ref());
    let members =
        present.iter().flat_map(|present| present.iter()).map(|(user, info)| (user.clone(), info.clone()));
    let entered = Entered {
        members: members.collect(),
        value: shared.retained.value(&topic, shared.now).map(|value| value.command.clone()),
        missing,
        refused: None,
    };
    shared.out.push(Effect::Entered(ticket, topic, entered));
}

fn refuse<C: Content>(
    shared: &mut Shared<C>,
    entering: Entering,
    refused: NotPresent,
    missing: Vec<Incarnation>,
) {
    let entered = Entered { members: Vec::new(), value: None, missing, refused: Some(refused) };
    shared.out.push(Effect::Entered(entering.ticket, entering.topic, entered));
}

/// The shard reported the user as present and now no more: the home has refused the claim.
fn is_refused(interest: &Interest, entering: &Entering) -> bool {
    let entry = interest.get(&entering.topic);
    entering.user.as_ref().is_some_and(|user| entry.is_none_or(|entry| entry.claims(user).is_none()))
}

/// Whether the client's user is present, by the home's roster.
fn is_present(interest: &Interest, entering: &Entering) -> bool {
    let decided =
        |user: &Arc<str>| interest.get(&entering.topic).and_then(|entry| entry.claims(user)) == Some(false);
    let named = || entering.topic.is_silent() || interest.names(&entering.topic, &entering.user);
    entering.user.as_ref().is_none_or(decided) && named()
}
